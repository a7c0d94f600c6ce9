"""The gradient of causal attention within one chunk, by the squares that the forward pass cuts the triangle into."""

from randfeat._array import Array, exp_in_place, namespace
from randfeat.attention.generic.causal import half
from randfeat.attention.partial import key_weights
from randfeat.features import Features


def query_gradient(query_log: Array, shift: Array, keys: Features, values: Array, inner: Array) -> Array:
    """`exp(log φ_i) Σ_{j<=i} (ḡ_i·v̄_j) φ(k_j)` (..., n, f), the gradient in the values of the query features.

    values are v̄ (..., n, dv + 1), inner is ḡ relative to e^{-shift}. In each square the keys are shifted by their
    largest per feature, all of them before its queries: later keys, and other queries, are never looked at.
    """
    xp = namespace(values)
    scales = exp_in_place(query_log + keys.log_scale - shift)
    result = scales * keys.values * xp.sum(inner * values, axis=-1, keepdims=True)
    size = 1
    while size < values.shape[-2]:
        weights, top = key_weights(Features(half(keys.values, size, 0), half(keys.log_scale, size, 0)))
        scales = exp_in_place(half(query_log, size, 1) + top - half(shift, size, 1))
        products = half(inner, size, 1) @ xp.matrix_transpose(half(values, size, 0))
        result = result + among_zeros(scales * (products @ weights), 1)
        size *= 2
    return result


def key_gradients(queries: Features, inner: Array, keys: Features, values: Array) -> tuple[Array, Array]:
    """Gradients in the values of key features, `exp(log φ_j) Σ_{i>=j} (ḡ_i·v̄_j) φ(q_i)`, and in v, `Σ_{i>=j} K̂_ij g_i`.

    queries are relative to the shifts that ḡ (inner) has. In each square they are shifted by their largest per feature,
    all of them after its keys: earlier queries, and other keys, are never looked at.
    """
    xp = namespace(values)
    scales = exp_in_place(queries.log_scale + keys.log_scale)
    weights = queries.values * scales
    in_features = weights * xp.sum(inner * values, axis=-1, keepdims=True)
    in_values = xp.sum(weights * keys.values, axis=-1, keepdims=True) * inner[..., :-1]
    size = 1
    while size < values.shape[-2]:
        weights, top = key_weights(Features(half(queries.values, size, 1), half(queries.log_scale, size, 1)))
        scales = exp_in_place(half(keys.log_scale, size, 0) + top)
        gradient = half(inner, size, 1)
        products = half(values, size, 0) @ xp.matrix_transpose(gradient)
        in_features = in_features + among_zeros(scales * (products @ weights), 0)
        scores = (half(keys.values, size, 0) * scales) @ xp.matrix_transpose(weights)
        in_values = in_values + among_zeros(scores @ gradient[..., :-1], 0)
        size *= 2
    return in_features, in_values


def among_zeros(x: Array, which: int) -> Array:
    """`x` (..., blocks, size, c) as the first (0) or second (1) halves of blocks, zeros in the others: (..., n, c)."""
    xp = namespace(x)
    *lead, blocks, size, width = x.shape
    halves = [x, xp.zeros_like(x)]
    return xp.reshape(xp.stack(halves[:: 1 - 2 * which], axis=-3), (*lead, 2 * blocks * size, width))
