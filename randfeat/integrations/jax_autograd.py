"""Linear attention for JAX whose backward pass stores only the inputs, not the features of the sequence."""

from typing import Any

from randfeat._hints import needs

try:
    import jax
except ImportError as error:
    raise ImportError(needs("jax_autograd", "JAX", "jax")) from error

from randfeat.attention import executors
from randfeat.attention.gradient import check_analytic, check_stateless
from randfeat.attention.problem import Problem
from randfeat.attention.state import AttentionState
from randfeat.integrations.jax_callback import Attention, is_fast_on_host, is_tracer, uses_callback
from randfeat.maps import FeatureMap

__all__ = ["linear_attention"]


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
    host: bool | None = None,
) -> jax.Array:
    """`randfeat.linear_attention` of JAX arrays, with `linear_attention_vjp` as its backward pass.

    The forward pass gives the same numbers. Between the passes only query, key, value and the mask are stored,
    O(L (d + dv)). Automatic differentiation of the generic function stores the features and more, O(L num_features);
    compiled, it stores a state of (dv + 2) num_features for each chunk of 128 or 256 positions. The price here is that
    the features are computed two more times. `jit`, `grad`, `vmap` and `grad` of `grad` work. The arrays of `features`
    are constants, so they must not be traced.

    host : if True, NumPy computes both passes where a compiled function runs on a CPU, in a callback; if False, JAX
        does. The callback is the default of causal attention if this process sees one device only. It can be neither
        serialized by `jax.export` nor sharded.

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
    options: dict[str, Any] = {"is_causal": is_causal, "scale": scale, "key_mask": key_mask, "enable_gqa": enable_gqa}
    problem = Problem.of(query, key, value, features, **options)
    if not any(map(is_tracer, problem.arrays)):
        return problem.restore(*executors.attend(problem))
    on_host = uses_callback(host, problem) and is_fast_on_host(problem)
    return problem.restore([Attention(problem, on_host=on_host)()], None)
