"""linear_attention_vjp: the gradient of linear attention, in time linear in the length."""

from typing import Any

import numpy as np

from randfeat._array import Array, as_floating, cast, device_of, dtype_name, namespace
from randfeat.attention.inputs import AttentionInputs
from randfeat.attention.linear import fitting_inputs
from randfeat.attention.sweeps import causal_sweeps, full_sweeps
from randfeat.kernels.softmax import resolve_scale
from randfeat.maps import FeatureMap

__all__ = ["check_analytic", "check_stateless", "linear_attention_vjp"]


def linear_attention_vjp(
    query: Any,
    key: Any,
    value: Any,
    features: FeatureMap,
    grad_output: Any,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    enable_gqa: bool = False,
) -> tuple[Array, Array, Array]:
    """The gradients of `Σ grad_output · linear_attention(query, key, value, features, ...)` in query, key and value.

    The vector-Jacobian product of `linear_attention`, for libraries without automatic differentiation, and where that
    would keep the features of the whole sequence: here nothing is kept but inputs and one row of numbers per query.
    Time is linear in the length; the state, (num_features, dv + 1), does not depend on it.

    grad_output (..., L, dv) : the gradient in the output, in its shape and dtype; the other arguments are those of
    `linear_attention`. Returns the gradients in the shapes and the dtype of query, key and value; where these are
    broadcast or grouped, summed.

    Exact: the derivative of the estimate for the map at hand, rows held fixed, as automatic differentiation gives it;
    of the query's row scale alone, on which the output does not depend, the derivative is left out. Sums are always
    accumulated, never taken apart again by subtraction: forwards over keys for queries, backwards over queries for keys
    and values. With positive features every factor is at most 1, so nothing overflows at any finite logit. Masked keys
    and queries without keys have gradients of exactly zero. In causal attention the gradient in query i depends on keys
    j <= i only, those in key and value j on queries i >= j only, to the last bit.

    Limits: no `initial_state`. Estimators with analytic gradients (exponential and trigonometric features, and centered
    or balanced ones); others raise ValueError, and are differentiated by PyTorch or JAX.

    Source: Katharopoulos et al. 2020, "Transformers are RNNs", for the two sums; the shifts are those of this library.

    >>> import numpy as np, randfeat as rf
    >>> q, k, v, g = np.random.default_rng(0).standard_normal((4, 100, 8))
    >>> phi = rf.PositiveFeatures().draw(dim=8, num_features=64, rng=0)
    >>> dq, dk, dv = rf.linear_attention_vjp(q, k, v, phi, g, is_causal=True)
    >>> step = 1e-6 * np.random.default_rng(1).standard_normal((100, 8))
    >>> ends = [np.sum(g * rf.linear_attention(q, k + s, v, phi, is_causal=True)) for s in (step, -step)]
    >>> bool(np.isclose((ends[0] - ends[1]) / 2, np.sum(dk * step)))
    True
    """
    options = {"scale": scale, "key_mask": key_mask, "enable_gqa": enable_gqa}
    inputs, drawn = fitting_inputs(query, key, value, features, **options)
    inputs, features = inputs.prepared(), inputs.align(drawn)
    gradient = checked_gradient(grad_output, inputs, features)
    check_analytic(features)
    sweeps = causal_sweeps if is_causal else full_sweeps
    dq, dk, dv = sweeps(inputs, features, gradient)
    root = resolve_scale(scale, features.estimator.kernel, features.dim) ** 0.5
    xp = namespace(dq)
    if inputs.key_mask is not None:
        present = inputs.key_mask[..., None]
        dk, dv = (xp.where(present, x, xp.zeros_like(x)) for x in (dk, dv))
    shapes = (as_floating(x, "x").shape for x in (query, key, value))
    return tuple(
        cast(xp.reshape(x, shape), inputs.dtype) for x, shape in zip((dq * root, dk * root, dv), shapes, strict=True)
    )


def checked_gradient(grad_output: Any, inputs: AttentionInputs, features: FeatureMap) -> Array:
    """The gradient in the output, in the dtype to compute in, heads grouped as the inputs are."""
    gradient = as_floating(grad_output, "grad_output")
    xp = namespace(gradient, inputs.value)
    lead = np.broadcast_shapes(inputs.query.shape[:-2], inputs.leading_shape(features))
    flat = lead if inputs.group is None else (*lead[:-2], lead[-2] * lead[-1])
    trailing = (inputs.num_queries, inputs.value.shape[-1])
    if tuple(gradient.shape) != (*flat, *trailing):
        raise ValueError(
            f"grad_output must have the shape of the output, {(*flat, *trailing)}, got {tuple(gradient.shape)}."
        )
    if gradient.dtype != inputs.dtype:
        raise TypeError(
            f"grad_output must have the dtype of the output, {dtype_name(inputs.dtype)}, "
            f"got {dtype_name(gradient.dtype)}."
        )
    return xp.reshape(cast(gradient, inputs.value.dtype), (*lead, *trailing))


def check_stateless(features: Any, initial_state: Any, return_state: bool) -> None:
    """A feature map and no state, which is all that a backward pass from the inputs can do without."""
    if initial_state is not None or return_state:
        raise ValueError(
            "states are not differentiated here; use randfeat.linear_attention, which gives and takes them."
        )
    if not isinstance(features, FeatureMap):
        raise TypeError(f"features must be a FeatureMap, from estimator.draw(...), got {type(features).__name__}.")


def check_analytic(features: FeatureMap) -> None:
    """Ask for the gradient of no rows at all, so that features without one are refused before work is done."""
    like = next(iter(features.arrays.values()))
    nothing = namespace(like).zeros((0, features.dim), dtype=like.dtype, device=device_of(like))
    queries = features.queries(nothing)
    features.pull_back(nothing, queries, queries.values, row=0.0)
