"""Linear attention for JAX whose backward pass keeps inputs only, and not the features of the whole sequence."""

import functools
from typing import Any

import jax

from randfeat.attention.gradient import check_analytic, check_stateless, linear_attention_vjp
from randfeat.attention.linear import linear_attention as generic_attention
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap

__all__ = ["linear_attention"]

Options = tuple[bool, float | None, bool]  # is_causal, scale, enable_gqa


def linear_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    features: FeatureMap,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: jax.Array | None = None,
    enable_gqa: bool = False,
    initial_state: AttentionState | None = None,
    return_state: bool = False,
) -> jax.Array:
    """`randfeat.linear_attention` of JAX arrays, with `linear_attention_vjp` as its backward pass.

    The same numbers forwards. Between the passes only query, key, value and the mask are kept, O(L (d + dv)). Automatic
    differentiation of the generic function keeps a state of (dv + 2) num_features for each chunk of 128 or 256
    positions where it is compiled, and the features and more, O(L num_features), where it is not; the price here is to
    compute the features twice more. `jit`, `grad`, `vmap` and `grad` of `grad` work; the arrays of `features` are
    constants, so they must not be traced themselves.

    Limits: states (`initial_state`, `return_state`) and estimators without analytic gradients raise ValueError;
    forward-mode derivatives (`jvp`, `jacfwd`) JAX refuses. All are left to `randfeat.linear_attention`, which JAX
    differentiates itself.

    >>> import randfeat as rf
    >>> x = jax.numpy.linspace(-1, 1, 80).reshape(10, 8)
    >>> phi = rf.PositiveFeatures().draw(dim=8, num_features=64, rng=0, like=x)
    >>> gradients = [jax.jit(jax.grad(lambda key: (attend(x, key, x, phi) ** 2).sum()))(x)
    ...              for attend in (linear_attention, rf.linear_attention)]
    >>> bool(jax.numpy.allclose(*gradients, atol=1e-4))
    True
    """
    check_stateless(features, initial_state, return_state)
    if any(isinstance(array, jax.core.Tracer) for array in features.arrays.values()):
        raise ValueError("the rows of features are traced; use randfeat.linear_attention, or draw the map outside.")
    check_analytic(features)
    return attend(query, key, value, key_mask, features, (is_causal, scale, enable_gqa))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attend(query: Any, key: Any, value: Any, key_mask: Any, features: FeatureMap, options: Options) -> Any:
    """The operator with its analytic backward pass."""
    return generic_attention(query, key, value, features, key_mask=key_mask, **named(options))


def forward(query: Any, key: Any, value: Any, key_mask: Any, features: FeatureMap, options: Options) -> Any:
    """The output, and the inputs for the backward pass."""
    return attend(query, key, value, key_mask, features, options), (query, key, value, key_mask)


def backward(features: FeatureMap, options: Options, inputs: tuple, gradient: Any) -> tuple:
    """The two sweeps."""
    query, key, value, key_mask = inputs
    gradients = linear_attention_vjp(query, key, value, features, gradient, key_mask=key_mask, **named(options))
    return (*gradients, None)


def named(options: Options) -> dict[str, Any]:
    """Options by their names."""
    return dict(zip(("is_causal", "scale", "enable_gqa"), options, strict=True))


attend.defvjp(forward, backward)
