"""Toeplitz products: sums over keys weighted by relative position, by the fast Fourier transform."""

from randfeat._array import Array, device_of, exp_in_place, namespace, peak, replace_minus_inf, stop_gradient
from randfeat.attention.generic.causal import Square, own_key, with_first_halves
from randfeat.attention.inputs import intervals
from randfeat.attention.partial import PartialOutput, key_weights, query_weights
from randfeat.features import Features

DIRECT = 64  # squares up to this size are multiplied out
GROUP = 16  # features at a time, whose products with all values are the largest arrays


def causal_toeplitz(queries: Features, keys: Features, values: Array, past: Array) -> PartialOutput:
    """Query i over the keys j <= i, cut into squares as causal attention is; `past` (..., n) ends with distance 0."""
    square, size = toeplitz_square(past), 1
    result = own_key(queries.scaled(past[..., -1:, None]), keys, values)
    while size < values.shape[-2]:
        result = with_first_halves(result, queries, keys, values, size, square)
        size *= 2
    return result


def toeplitz_square(past: Array) -> Square:
    """Attention of second halves to first halves, multiplied out while that is cheaper."""

    def square(queries: Features, keys: Features, values: Array) -> PartialOutput:
        size = values.shape[-2]
        bias = past[..., None, -2 * size : -1]  # of the distances 2 size - 1 .. 1, the same for all blocks
        attend = transform_square if size > DIRECT else direct_square
        return attend(queries, keys, values, bias)

    return square


def direct_square(queries: Features, keys: Features, values: Array, bias: Array) -> PartialOutput:
    """`transform_square` through the matrix of weights, without its limits."""
    xp = namespace(values)
    num_queries, num_keys = queries.values.shape[-2], values.shape[-2]
    device = {"device": device_of(bias)}
    index = xp.arange(num_keys, **device) - xp.arange(num_queries, **device)[:, None] + (num_queries - 1)
    logs = xp.take(bias, xp.reshape(index, (-1,)), axis=-1)
    logs = xp.reshape(logs, (*bias.shape[:-1], num_queries, num_keys))
    present = xp.matrix_transpose(peak(keys.log_scale, -1)) > -xp.inf
    logs = xp.where(present, logs, -xp.inf)  # a masked key does not count among the largest
    top = stop_gradient(peak(logs, -1))
    key_weight, key_top = key_weights(keys)
    query_weight, log_scale = query_weights(queries, key_top)
    scores = (query_weight @ xp.matrix_transpose(key_weight)) * xp.exp(logs - replace_minus_inf(top))
    return PartialOutput(scores @ values, xp.sum(scores, axis=-1, keepdims=True), log_scale + top)


def transform_square(queries: Features, keys: Features, values: Array, bias: Array) -> PartialOutput:
    """All queries with all keys, `e^{bias[j - i + n - 1]} φ_i·φ_j`: (..., n, f), (..., k, f), (..., n + k - 1)."""
    xp = namespace(values)
    num_queries, num_keys = queries.values.shape[-2], values.shape[-2]
    key_weight, key_top = key_weights(keys)
    query_weight, log_scale = query_weights(queries, key_top)
    ones = xp.ones((*values.shape[:-1], 1), dtype=values.dtype, device=device_of(values))
    values = xp.concat([values, ones], axis=-1)
    if num_queries == 0 or num_keys == 0:
        sums = query_weight @ (xp.matrix_transpose(key_weight) @ values)
        return PartialOutput(sums[..., :-1], sums[..., -1:], log_scale)
    top = stop_gradient(peak(bias, -1))
    weights = exp_in_place(bias - replace_minus_inf(top))
    period = 1 << (num_queries + num_keys - 2).bit_length()
    # a circulant: entry i - j modulo the period
    zeros = xp.zeros((*bias.shape[:-1], period - num_queries - num_keys + 1), dtype=bias.dtype, device=device_of(bias))
    by_distance = xp.flip(weights, axis=-1)  # of key n + k - 2 .. 0 before the query
    circulant = xp.concat([by_distance[..., num_keys - 1 :], zeros, by_distance[..., : num_keys - 1]], axis=-1)
    response = xp.fft.rfft(circulant, axis=-1)[..., :, None]
    sums = 0.0
    for first, last in intervals(0, key_weight.shape[-1], GROUP):
        part = key_weight[..., first:last, None] * values[..., None, :]
        shape = part.shape
        spectrum = xp.fft.rfft(xp.reshape(part, (*shape[:-2], shape[-2] * shape[-1])), n=period, axis=-2)
        moved = xp.fft.irfft(spectrum * response, n=period, axis=-2)[..., :num_queries, :]
        moved = xp.reshape(moved, (*moved.shape[:-1], *shape[-2:]))
        sums = sums + xp.sum(query_weight[..., first:last, None] * moved, axis=-2)
    return PartialOutput(sums[..., :-1], sums[..., -1:], log_scale + top[..., None])
