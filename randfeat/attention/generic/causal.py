"""Causal linear attention: each query sees the keys up to its own position, and nothing of the later ones."""

from collections.abc import Callable

from randfeat._array import Array, exp_in_place, namespace, replace_minus_inf, stop_gradient
from randfeat.attention.partial import PartialOutput, key_weights, query_weights
from randfeat.features import Features

Square = Callable[[Features, Features, Array], PartialOutput]
"""(queries of second halves, keys and values of first halves) -> outputs, all (..., blocks, size, ·)."""


def attend_square(queries: Features, keys: Features, values: Array) -> PartialOutput:
    """Attention of all queries of a square to all of its keys."""
    xp = namespace(values)
    key_weight, key_top = key_weights(keys)
    query_weight, log_scale = query_weights(queries, key_top)
    scores = query_weight @ xp.matrix_transpose(key_weight)
    return PartialOutput(scores @ values, xp.sum(scores, axis=-1, keepdims=True), log_scale)


def causal_partial(queries: Features, keys: Features, values: Array, square: Square = attend_square) -> PartialOutput:
    """Attention within one chunk, query i over keys j <= i: (..., n, f), (..., n, f), (..., n, dv), n a power of two.

    The triangle is cut into squares by halving: the second half of every dyadic block attends to its first half,
    all of which is past, so that each square may use the largest of its own keys per feature as a shift. One shift for
    the whole chunk would let a large later key underflow an earlier output; here later keys are never looked at. Cost
    per query beside the matrix products: two exponentials per feature for each of the log2(n) sizes.
    """
    result = own_key(queries, keys, values)
    size = 1
    while size < values.shape[-2]:
        result = with_first_halves(result, queries, keys, values, size, square)
        size *= 2
    return result


def own_key(queries: Features, keys: Features, values: Array) -> PartialOutput:
    """Attention of each query to the key at its own position."""
    xp = namespace(values)
    log = queries.log_scale + keys.log_scale
    top = stop_gradient(xp.max(log, axis=-1, keepdims=True))
    products = queries.values * keys.values * exp_in_place(log - replace_minus_inf(top))
    weight = xp.sum(products, axis=-1, keepdims=True)
    return PartialOutput(weight * values, weight, top)


def with_first_halves(
    result: PartialOutput,
    queries: Features,
    keys: Features,
    values: Array,
    size: int,
    square: Square = attend_square,
) -> PartialOutput:
    """`result` with the keys of the first half of each block of `2 * size` added to the queries of its second half."""
    key_part = Features(half(keys.values, size, 0), half(keys.log_scale, size, 0))
    query_part = Features(half(queries.values, size, 1), half(queries.log_scale, size, 1))
    return merge_second_halves(result, square(query_part, key_part, half(values, size, 0)), size)


def merge_second_halves(result: PartialOutput, partial: PartialOutput, size: int) -> PartialOutput:
    """`result` with `partial` (..., blocks, size, ·) merged into the second halves of its blocks."""
    second = PartialOutput(*(half(x, size, 1) for x in result.columns)).merge(partial)
    return PartialOutput(*map(replace_second_half, result.columns, second.columns))


def half(x: Array, size: int, which: int) -> Array:
    """First (0) or second (1) halves of the blocks of `2 * size` rows: (..., n, c) -> (..., n / 2size, size, c)."""
    shape = (*x.shape[:-2], x.shape[-2] // (2 * size), 2, size, x.shape[-1])
    return namespace(x).reshape(x, shape)[..., which, :, :]


def replace_second_half(x: Array, second: Array) -> Array:
    """`x` (..., n, c) with the second halves of its blocks replaced by `second` (..., blocks, size, c)."""
    xp = namespace(x, second)
    first = half(x, second.shape[-2], 0)
    first = xp.broadcast_to(first, (*second.shape[:-3], *first.shape[-3:]))
    return xp.reshape(xp.stack([first, second], axis=-3), (*second.shape[:-3], x.shape[-2], second.shape[-1]))
