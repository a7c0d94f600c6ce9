"""Linear attention for JAX whose backward pass stores only the inputs, not the features of the sequence."""

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

    The forward pass gives the same numbers. Between the passes only query, key, value and the mask are stored,
    O(L (d + dv)). Automatic differentiation of the generic function stores the features and more, O(L num_features);
    compiled, it stores a state of (dv + 2) num_features for each chunk of 128 or 256 positions. The price here is that
    the features are computed two more times. `jit`, `grad`, `vmap` and `grad` of `grad` work. The arrays of `features`
    are constants, so they must not be traced.

    Limits: states (`initial_state`, `return_state`) and estimators without analytic gradients raise ValueError. JAX
    refuses forward-mode derivatives (`jvp`, `jacfwd`). For all of these use `randfeat.linear_attention`, which JAX
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
    """Linear attention with its analytic backward pass attached."""
    return generic_attention(query, key, value, features, key_mask=key_mask, **keywords(options))


def forward(query: Any, key: Any, value: Any, key_mask: Any, features: FeatureMap, options: Options) -> Any:
    """Output, and the inputs stored for the backward pass."""
    return attend(query, key, value, key_mask, features, options), (query, key, value, key_mask)


def backward(features: FeatureMap, options: Options, inputs: tuple, gradient: Any) -> tuple:
    """Gradients in query, key and value; None for the mask."""
    query, key, value, key_mask = inputs
    gradients = linear_attention_vjp(query, key, value, features, gradient, key_mask=key_mask, **keywords(options))
    return (*gradients, None)


def keywords(options: Options) -> dict[str, Any]:
    """Options as keyword arguments."""
    return dict(zip(("is_causal", "scale", "enable_gqa"), options, strict=True))


attend.defvjp(forward, backward)
