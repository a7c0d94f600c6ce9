"""linear_attention_vjp: the gradient of linear attention, in time linear in the length."""

from typing import Any

import numpy as np

from randfeat._array import Array, as_floating, cast, device_of, dtype_name, namespace
from randfeat._numpy.threads import resolve_num_threads
from randfeat.attention.blocked_gradient import fast_sweeps
from randfeat.attention.inputs import AttentionInputs, swap_heads
from randfeat.attention.linear import check_state, fitting_inputs
from randfeat.attention.packed import each_sequence
from randfeat.attention.relation import Relation, relation_of
from randfeat.attention.state import AttentionState
from randfeat.attention.sweeps import Gradients, causal_sweeps, full_sweeps
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
    initial_state: AttentionState | None = None,
    output: Any = None,
    final_state: AttentionState | None = None,
    causal_offset: int = 0,
    key_lengths: Any = None,
    cu_seqlens: Any = None,
    layout: str = "bhld",
    num_threads: int | None = None,
) -> Gradients:
    """The gradients of `Σ grad_output · linear_attention(query, key, value, features, ...)` in query, key and value.

    The vector-Jacobian product of `linear_attention`, for libraries without automatic differentiation, and where that
    would keep the features of the whole sequence: here nothing is kept but inputs and three numbers per query.
    Time is linear in the length; the state, (num_features, dv + 1), does not depend on it.

    grad_output (..., L, dv) : the gradient in the output, in its shape and dtype; the other arguments are those of
    `linear_attention`; an `initial_state` is held fixed. Returns the gradients in the shapes and the dtype of query,
    key and value; where these are broadcast or grouped, summed.

    output, final_state : what `linear_attention` gave for the same arguments, with `return_state=True`. They change
    nothing but the time: an output, as precise as its dtype, spares the products with the values, and the state, for
    full attention alone, the way over the keys; both of them a quarter of the time.

    Exact: the derivative of the estimate for the map at hand, rows held fixed, as automatic differentiation gives it;
    of the query's row scale alone, on which the output does not depend, the derivative is left out. Sums are always
    accumulated, never taken apart again by subtraction: forwards over keys for queries, backwards over queries for keys
    and values. With positive features every factor is at most 1, so nothing overflows at any finite logit. Masked keys
    and queries without keys have gradients of exactly zero. In causal attention the gradient in query i depends on keys
    j <= i only, those in key and value j on queries i >= j only, to the last bit.

    Limits: not for `decay`, `key_ends`, `relative_bias` and `window`. Estimators with analytic gradients (exponential
    and trigonometric features, and centered or balanced ones); others raise ValueError. All of these are differentiated
    by PyTorch or JAX.

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
    if num_threads is not None:
        num_threads = resolve_num_threads(num_threads)
    inputs, drawn = fitting_inputs(
        query,
        key,
        value,
        features,
        scale=scale,
        key_mask=key_mask,
        enable_gqa=enable_gqa,
        key_lengths=key_lengths,
        layout=layout,
    )
    inputs = inputs.computing()
    features = inputs.align(drawn)
    gradient = like_output("grad_output", grad_output, inputs, features)
    output = None if output is None else like_output("output", output, inputs, features)
    check_analytic(features)
    relation = relation_of(
        inputs,
        is_causal=is_causal,
        causal_offset=causal_offset,
        key_lengths=key_lengths,
        cu_seqlens=cu_seqlens,
        has_state=initial_state is not None,
    )
    empty = AttentionState.empty(features.num_features, inputs.value.shape[-1], like=inputs.value)
    state = empty if initial_state is None else empty.merge(check_state(initial_state, empty, drawn))
    if final_state is not None:
        final_state = empty.merge(check_state(final_state, empty, drawn, "final_state"))
        lead, got = inputs.leading_shape(features), tuple(final_state.total.shape[:-2])
        if is_causal or not relation.is_plain or got != lead:
            raise ValueError(
                "final_state must be what linear_attention returned for these arguments, without is_causal and "
                f"cu_seqlens, of leading shape {lead}, got leading shape {got} and is_causal={is_causal}."
            )
    gradients = None
    if relation.is_plain:
        gradients = fast_sweeps(
            inputs,
            features,
            gradient,
            state if initial_state is not None else None,
            is_causal=is_causal,
            output=output,
            final_state=final_state,
            num_threads=num_threads,
        )
    if gradients is None:
        gradients = generic_sweeps(inputs, features, gradient, state, relation)
    return tuple(restored(x, given, inputs) for x, given in zip(gradients, (query, key, value), strict=True))


def generic_sweeps(
    inputs: AttentionInputs, features: FeatureMap, gradient: Array, state: AttentionState, relation: Relation
) -> Gradients:
    """The sweeps through each of the sequences, on any array library; of the inputs before √scale."""
    xp, root = namespace(gradient), inputs.root
    columns: tuple[list[Array], ...] = ([], [], [])
    lengths = [queries for queries, _ in relation.sequences or [(slice(0, inputs.num_queries), None)]]
    for queries, (part, within) in zip(lengths, each_sequence(inputs.prepared(), relation), strict=True):
        sweeps = causal_sweeps if within.is_causal else full_sweeps
        options = {"offset": within.offset} if within.is_causal else {}
        for column, x in zip(columns, sweeps(part, features, gradient[..., queries, :], state, **options), strict=True):
            column.append(x)
    dq, dk, dv = (column[0] if len(column) == 1 else xp.concat(column, axis=-2) for column in columns)
    if inputs.key_mask is not None:
        present = inputs.key_mask[..., None]
        dk, dv = (xp.where(present, x, xp.zeros_like(x)) for x in (dk, dv))
    return dq * root, dk * root, dv


def restored(gradient: Array, given: Any, inputs: AttentionInputs) -> Array:
    """A gradient in the shape, layout and dtype of what was given."""
    shape = tuple(as_floating(given, "x").shape)
    swapped = inputs.layout == "blhd"
    if swapped:
        shape = (*shape[:-3], shape[-2], shape[-3], shape[-1])
    gradient = cast(namespace(gradient).reshape(gradient, shape), inputs.dtype)
    return swap_heads(gradient) if swapped else gradient


def like_output(name: str, given: Any, inputs: AttentionInputs, features: FeatureMap) -> Array:
    """What is of the output's shape and dtype, in the dtype to compute in, heads grouped as the inputs are."""
    array = as_floating(given, name)
    if inputs.layout == "blhd":
        array = swap_heads(array, name)
    xp = namespace(array, inputs.value)
    lead = np.broadcast_shapes(inputs.query.shape[:-2], inputs.leading_shape(features))
    flat = lead if inputs.group is None else (*lead[:-2], lead[-2] * lead[-1])
    trailing = (inputs.num_queries, inputs.value.shape[-1])
    if tuple(array.shape) != (*flat, *trailing):
        raise ValueError(f"{name} must have the shape of the output, {(*flat, *trailing)}, got {tuple(array.shape)}.")
    if array.dtype != inputs.dtype:
        raise TypeError(
            f"{name} must have the dtype of the output, {dtype_name(inputs.dtype)}, got {dtype_name(array.dtype)}."
        )
    return xp.reshape(cast(array, inputs.value.dtype), (*lead, *trailing))


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
