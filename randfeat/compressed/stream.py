"""Causal attention with bounded memory: recent keys exact, older ones in a key cache that is compressed again."""

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from randfeat._array import Array, cast, device_of, namespace
from randfeat.attention.cost_model.sizes import LEAST_REFERENCES
from randfeat.attention.inputs import swap_heads
from randfeat.compressed.compression import Options
from randfeat.compressed.heads import on_host
from randfeat.compressed.retiring import with_fewer_rows
from randfeat.compressed.routing import partial_of, rows_at
from randfeat.compressed.softmax import softmax_in_place
from randfeat.compressed.state import Columns, CompressedState, Piece

LEAST_DRAWN = 32
"""Priorities that are drawn at once, at least."""


def attend_causally(state: CompressedState, piece: Piece, heads: Sequence[int]) -> tuple[list[Array], CompressedState]:
    """The outputs of consecutive queries, and the state after them; chunks end at multiples of the window.

    With padding, all of them are of one chunk of each sequence.

    heads : the numbers of the heads, which their random numbers depend on.
    """
    outputs, start, stop = [], 0, len(piece.keys)
    while start < stop:
        end = min(start + state.until_next_chunk, stop)
        output, state = step(state, piece.part(start, end), heads)
        outputs.append(output)
        start = end
    return outputs, state


def step(state: CompressedState, piece: Piece, heads: Sequence[int]) -> tuple[Array, CompressedState]:
    """The outputs of queries of one chunk; if the chunk is complete, older keys go to the cache."""
    recent = Columns.concat(state.recent, piece.keys)
    read = Columns.concat(state.sinks, state.merged, recent)
    output = read_causally(piece.queries, read)
    after = replace(state, recent=recent, position=state.position + len(piece.keys))
    if state.follows:
        after = sampled(after, piece)
    if state.padding is not None:  # within a chunk
        return output, after
    return output, after if after.position % state.window else retire(after, heads)


def read_causally(queries: Array, rows: Columns) -> Array:
    """Outputs (..., group, n, dv) of queries whose own keys are the last n rows; each sees the rows up to its own.

    A row that is not finite spoils the queries that see it, and no other.
    """
    xp, num, total = namespace(queries), queries.shape[-2], len(rows)
    keys, bias, values = (x[..., None, :, :] for x in rows.arrays)
    if xp is np:
        return read_on_host(queries, keys, bias, values)
    options = {"device": device_of(queries)}
    visible = xp.arange(total, **options) <= xp.arange(total - num, total, **options)[:, None]
    logits = queries @ xp.matrix_transpose(keys) + xp.matrix_transpose(bias)
    is_finite = xp.isfinite(values)
    part = partial_of(xp.where(visible, logits, -xp.inf), xp.where(is_finite, values, xp.zeros_like(values)))
    takes_part = visible & (xp.matrix_transpose(bias) != -xp.inf)
    is_bad = cast(xp.any(~is_finite, axis=-1, keepdims=True), queries.dtype)
    spoiled = cast(takes_part, queries.dtype) @ is_bad > 0
    return xp.where(spoiled, xp.nan, part.normalized())


def read_on_host(queries: np.ndarray, keys: np.ndarray, bias: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`read_causally` of NumPy arrays (..., 1, n, ·): only the block of the own keys has a mask."""
    num = queries.shape[-2]
    logits = queries @ keys.mT
    logits += bias.mT
    np.copyto(logits[..., -num:], -np.inf, where=np.arange(num) > np.arange(num)[:, None])
    is_bad = ~np.isfinite(values).all(axis=-1, keepdims=True)
    spoils = bool(np.any(is_bad))
    if spoils:
        seen = logits != -np.inf
        values = np.where(np.isfinite(values), values, 0)
    softmax_in_place(logits)
    outputs = logits @ values
    if spoils:
        outputs[(seen @ is_bad)[..., 0]] = np.nan
    return outputs


def sampled(state: CompressedState, piece: Piece) -> CompressedState:
    """The state with the queries of a piece, the last before its position, in the sample: those of least priority."""
    xp, num = namespace(state.references), len(piece.keys)
    group, size = piece.queries.shape[-3], max((4 if state.fit else 2) * state.num_keys, LEAST_REFERENCES)
    new = np.repeat(priorities_of(state, num), group, axis=-1)
    least = np.min(new, axis=-1)
    if state.priorities.shape[-1] == size and np.all(least >= np.max(state.priorities, axis=-1)):
        return state  # as is the rule after many keys
    queries = swap_heads(xp.concat([piece.queries, piece.counts], axis=-1))
    pooled = xp.reshape(queries, (*queries.shape[:-3], num * group, queries.shape[-1]))
    references = xp.concat([state.references, pooled], axis=-2)
    priorities = np.concatenate([state.priorities, new], axis=-1)
    if priorities.shape[-1] > size:
        kept = np.sort(np.argsort(priorities, axis=-1, kind="stable")[..., :size], axis=-1)
        priorities = np.take_along_axis(priorities, kept, axis=-1)
        references = taken(references, kept)
    return replace(state, references=references, priorities=priorities)


def taken(x: Array, index: np.ndarray) -> Array:
    """The rows of `x` (..., n, c) at indices (k,), or at those (..., k) of each head."""
    xp = namespace(x)
    if index.ndim == 1:
        return xp.take(x, xp.asarray(index, device=device_of(x)), axis=-2)
    flat = rows_at(xp.reshape(x, (-1, *x.shape[-2:])), index.reshape(-1, index.shape[-1]))
    return xp.reshape(flat, (*x.shape[:-2], *flat.shape[-2:]))


def priorities_of(state: CompressedState, num: int) -> np.ndarray:
    """The priorities of the last queries before the position of a state, within a chunk: (num,), or (..., num) with
    padding, whose queries are behind all others.
    """
    if state.padding is None:
        return priorities_from(state, state.position - num, num)
    firsts = state.positions - num
    priorities = np.full((*firsts.shape, num), np.inf)
    for first in np.unique(firsts).tolist():
        if (start := max(-first, 0)) < num:
            priorities[firsts == first, start:] = priorities_from(state, first + start, num - start)
    return priorities


def priorities_from(state: CompressedState, first: int, num: int) -> np.ndarray:
    """The priorities of `num` queries of one chunk, from position `first` of a sequence on."""
    chunk, start = divmod(first, state.window)
    count = min(max(1 << (start + num).bit_length(), LEAST_DRAWN), state.window)  # few numbers of a long chunk
    return priorities_of_chunk(state.seed, chunk, count)[start : start + num]


@functools.lru_cache(maxsize=512)
def priorities_of_chunk(seed: int, number: int, count: int) -> np.ndarray:
    """Uniform numbers for the first positions of a chunk; more of them begin with the same ones."""
    return np.random.default_rng([seed, 0, number]).random(count)


def retire(state: CompressedState, heads: Sequence[int]) -> CompressedState:
    """The state after a chunk: of the recent keys only the last `window` stay exact.

    The k-means of a chunk starts from the seed of the state, the number of the chunk and the number of the head alone.
    """
    surplus = len(state.recent) - state.window
    if surplus <= 0:
        return state
    oldest, recent = state.recent.part(0, surplus), state.recent.part(surplus, None)
    if state.num_sinks:
        oldest = present_first(Columns.concat(state.sinks, oldest))
    num_sinks = min(state.num_sinks, len(oldest))
    sinks, rows = oldest.part(0, num_sinks), Columns.concat(state.merged, oldest.part(num_sinks, None))
    if len(rows) > state.num_keys:
        seeds = [np.random.SeedSequence([state.seed, 1, state.position // state.window], spawn_key=(n,)) for n in heads]
        rows = Columns(*with_fewer_rows(*rows.arrays, state.references, Options(state.num_keys, state.fit), seeds))
    return replace(state, sinks=sinks, merged=rows, recent=recent)


def present_first(rows: Columns) -> Columns:
    """The rows of each head with the masked ones behind the others, both in their order."""
    bias = on_host(rows.bias)[..., 0]
    order = np.argsort(bias == -np.inf, axis=-1, kind="stable")
    if np.all(order == np.arange(len(rows))):
        return rows
    xp, first = namespace(rows.keys), np.arange(bias.size // len(rows)) * len(rows)
    chosen = xp.asarray((order.reshape(-1, len(rows)) + first[:, None]).ravel(), device=device_of(rows.keys))
    flat = [xp.reshape(x, (-1, x.shape[-1])) for x in rows.arrays]
    return Columns(*(xp.reshape(xp.take(y, chosen, axis=0), x.shape) for x, y in zip(rows.arrays, flat, strict=True)))
