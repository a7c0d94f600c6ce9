"""Causal attention with bounded memory: recent keys exact, older ones in a key cache that is compressed again."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from randfeat._array import Array, as_floating, cast, device_of, move_to, namespace
from randfeat.attention.inputs import swap_heads
from randfeat.compressed.compression import Options
from randfeat.compressed.heads import on_host
from randfeat.compressed.retiring import with_fewer_rows
from randfeat.compressed.routing import partial_of
from randfeat.compressed.softmax import softmax_in_place

LEAST_REFERENCES = 32


@dataclass(frozen=True, eq=False)
class CompressedState:
    """Everything that causal compressed attention remembers; its size does not depend on the number of keys.

    sinks : the first `num_sinks` keys that are not masked, which stay exact. merged : at most `num_keys` rows for the
        keys after them.
    recent : the last keys, at least `window` of them and less than twice as many, which are exact.
    references (..., r, d + 1) : a uniform sample of all queries so far, about 2 `num_keys`, that the next cache is made
        for; in the last column 1, or 0 for one that is masked. priorities (r,) : the queries with the smallest of these
        numbers stay in the sample.
    Queries and keys are times √scale, in the computing dtype. `position` counts the keys so far.
    """

    sinks: "Columns"
    merged: "Columns"
    recent: "Columns"
    references: Array
    priorities: np.ndarray
    position: int
    num_keys: int
    window: int
    num_sinks: int
    scale: float
    seed: int
    fit: bool
    """Whether masses and values of the merged rows are fitted."""
    follows: bool
    """Whether the references are queries of the sequence itself."""

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions: one cache for each key head."""
        return tuple(self.recent.keys.shape[:-2])

    def is_within_chunk(self, num: int) -> bool:
        """Whether the chunk that the state is in is still incomplete after so many more keys."""
        return self.position % self.window + num < self.window

    def to(self, like: Array) -> "CompressedState":
        """The state in the library, device and computing dtype of `like`; the priorities stay on the host."""
        like = as_floating(like, "like")
        parts = {name: getattr(self, name).to(like) for name in ("sinks", "merged", "recent")}
        return replace(self, **parts, references=move_to(self.references, like))

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All arrays of the library of the keys."""
        return (*self.sinks.arrays, *self.merged.arrays, *self.recent.arrays, self.references)

    def with_arrays(self, arrays: Sequence[Array]) -> "CompressedState":
        """The state with other arrays, in the same order."""
        sinks, merged, recent = (Columns(*arrays[start : start + 3]) for start in (0, 3, 6))
        return replace(self, sinks=sinks, merged=merged, recent=recent, references=arrays[-1])

    def __repr__(self) -> str:
        batch = f", batch_shape={self.batch_shape}" if self.batch_shape else ""
        sizes = f"num_keys={self.num_keys}, window={self.window}, num_sinks={self.num_sinks}"
        return f"CompressedState({sizes}, position={self.position}{batch})"


@dataclass(frozen=True, eq=False)
class Columns:
    """Keys (..., n, d), biases (..., n, 1) and values (..., n, dv) of rows."""

    keys: Array
    bias: Array
    values: Array

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """Keys, biases and values, in this order."""
        return self.keys, self.bias, self.values

    def __len__(self) -> int:
        return int(self.keys.shape[-2])

    def to(self, like: Array) -> "Columns":
        """The rows in the library, device and computing dtype of `like`."""
        return Columns(*(move_to(x, like) for x in self.arrays))

    def part(self, start: int | None, stop: int | None) -> "Columns":
        """The rows from `start` to `stop`."""
        return Columns(*(x[..., start:stop, :] for x in self.arrays))

    @staticmethod
    def concat(*parts: "Columns") -> "Columns":
        """The rows of all parts, in this order."""
        filled = [part for part in parts if len(part)] or [parts[0]]
        if len(filled) == 1:
            return filled[0]
        xp = namespace(filled[0].keys)
        return Columns(*(xp.concat(list(arrays), axis=-2) for arrays in zip(*(p.arrays for p in filled), strict=True)))


@dataclass(frozen=True, eq=False)
class Piece:
    """Queries (..., group, n, d), which of them count (..., group, n, 1), and the keys of the same positions."""

    queries: Array
    counts: Array
    keys: Columns

    def part(self, start: int, stop: int) -> "Piece":
        """The positions from `start` to `stop`."""
        queries, counts = (x[..., start:stop, :] for x in (self.queries, self.counts))
        return Piece(queries, counts, self.keys.part(start, stop))

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Queries, which of them count, and the arrays of the keys."""
        return self.queries, self.counts, *self.keys.arrays

    @classmethod
    def of(cls, arrays: Sequence[Array]) -> "Piece":
        """The piece with these arrays, in the order of `arrays`."""
        return cls(arrays[0], arrays[1], Columns(*arrays[2:]))

    def mapped(self, function: Callable[[Array], Array]) -> "Piece":
        """The piece with `function` of each array."""
        return self.of([function(x) for x in self.arrays])


def attend_causally(
    state: CompressedState, piece: Piece, heads: Sequence[int] | None = None
) -> tuple[list[Array], CompressedState]:
    """The outputs of consecutive queries, and the state after them; chunks end at multiples of the window.

    heads : the numbers of the heads, which their random numbers depend on; by default `head_numbers` of all.
    """
    heads = head_numbers(state.batch_shape) if heads is None else heads
    outputs, start, stop = [], 0, len(piece.keys)
    while start < stop:
        end = min(start + state.window - state.position % state.window, stop)
        output, state = step(state, piece.part(start, end), heads)
        outputs.append(output)
        start = end
    return outputs, state


def head_numbers(batch_shape: tuple[int, ...]) -> list[int]:
    """The number of each head in its sequence, its place along the last dimension: sequences of a batch are alike."""
    sequences, heads = math.prod(batch_shape[:-1]), batch_shape[-1] if batch_shape else 1
    return [*range(heads)] * sequences


def step(state: CompressedState, piece: Piece, heads: Sequence[int]) -> tuple[Array, CompressedState]:
    """The outputs of queries of one chunk; if the chunk is complete, older keys go to the cache."""
    recent = Columns.concat(state.recent, piece.keys)
    read = Columns.concat(state.sinks, state.merged, recent)
    output = read_causally(piece.queries, read)
    after = replace(state, recent=recent, position=state.position + len(piece.keys))
    if state.follows:
        after = sampled(after, piece)
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
    first = state.position - num
    group, size = piece.queries.shape[-3], max((4 if state.fit else 2) * state.num_keys, LEAST_REFERENCES)
    start = first % state.window
    count = min(max(1 << (start + num).bit_length(), LEAST_REFERENCES), state.window)  # few numbers of a long chunk
    new = np.repeat(priorities_of_chunk(state.seed, first // state.window, count)[start : start + num], group)
    if len(state.priorities) == size and new.min() >= state.priorities.max():
        return state  # as is the rule after many keys
    queries = swap_heads(xp.concat([piece.queries, piece.counts], axis=-1))
    pooled = xp.reshape(queries, (*queries.shape[:-3], num * group, queries.shape[-1]))
    references = xp.concat([state.references, pooled], axis=-2)
    priorities = np.concatenate([state.priorities, new])
    if len(priorities) > size:
        kept = np.sort(np.argsort(priorities, kind="stable")[:size])
        priorities = priorities[kept]
        references = xp.take(references, xp.asarray(kept, device=device_of(references)), axis=-2)
    return replace(state, references=references, priorities=priorities)


@functools.lru_cache(maxsize=64)
def priorities_of_chunk(seed: int, number: int, count: int) -> np.ndarray:
    """Uniform numbers for the first positions of a chunk; more of them begin with the same ones."""
    return np.random.default_rng([seed, 0, number]).random(count)


def retire(state: CompressedState, heads: Sequence[int]) -> CompressedState:
    """The state after a chunk: of the recent keys only the last `window` stay exact.

    The k-means of a chunk starts from the seed of the state, the number of the chunk and `head_numbers` alone.
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
