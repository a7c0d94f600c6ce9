"""The state of causal compressed attention, and the pieces of sequences that it reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from randfeat._array import Array, as_floating, device_of, move_to, namespace


@dataclass(frozen=True, eq=False)
class CompressedState:
    """Everything that causal compressed attention remembers; its size does not depend on the number of keys.

    sinks : the first `num_sinks` keys that are not masked, which stay exact. merged : at most `num_keys` rows for the
        keys after them.
    recent : the last keys, at least `window` of them and less than twice as many, which are exact.
    references (..., r, d + 1) : a uniform sample of all queries so far, about 2 `num_keys`, that the next cache is made
        for; in the last column 1, or 0 for one that is masked. priorities (r,) : the queries with the smallest of these
        numbers stay in the sample.
    position : the number of keys so far. Padding on the left, before the first key that takes part, is not counted.
    padding (...) : of the sequences of a batch, how many keys each has less than the longest; None where all have the
        same number. With it priorities are (..., r). Shorter sequences have rows of bias `-inf` that stand for none:
        before their recent rows, behind their sinks and merged rows.
    Queries and keys are times √scale, in the computing dtype. Priorities and padding are NumPy arrays.
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
    padding: np.ndarray | None = None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions: one cache for each key head."""
        return tuple(self.recent.keys.shape[:-2])

    @property
    def positions(self) -> np.ndarray:
        """`position` of each sequence, (*batch_shape); negative where its first key comes so many positions later."""
        return np.broadcast_to(self.position - (0 if self.padding is None else self.padding), self.batch_shape)

    @property
    def until_next_chunk(self) -> int:
        """The number of keys after which the chunk of some sequence is complete."""
        if self.padding is None:
            return self.window - self.position % self.window
        return int(np.min(self.window - np.where(self.positions < 0, self.positions, self.positions % self.window)))

    def to(self, like: Array) -> "CompressedState":
        """The state in the library, device and computing dtype of `like`; priorities and padding stay on the host."""
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

    def select(self, index: np.ndarray) -> "CompressedState":
        """The state of the entries `index` of the first leading dimension: reordered, repeated or left out."""
        xp = namespace(self.references)
        chosen = xp.asarray(index, device=device_of(self.references))
        state = self.with_arrays([xp.take(x, chosen, axis=0) for x in self.arrays])
        if self.padding is None:
            return state
        return replace(state, padding=self.padding[index], priorities=self.priorities[index])

    def part(self, heads: slice) -> "CompressedState":
        """The state of consecutive entries of the first leading dimension, on views."""
        state = self.with_arrays([x[heads] for x in self.arrays])
        if self.padding is None:
            return state
        return replace(state, padding=self.padding[heads], priorities=self.priorities[heads])

    def reshaped(self, batch_shape: tuple[int, ...]) -> "CompressedState":
        """The state with other leading dimensions of the same number of heads."""
        state = self.with_arrays([namespace(x).reshape(x, (*batch_shape, *x.shape[-2:])) for x in self.arrays])
        if self.padding is None:
            return state
        priorities = self.priorities.reshape(*batch_shape, self.priorities.shape[-1])
        return replace(state, padding=self.padding.reshape(batch_shape), priorities=priorities)

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

    def select(self, index: np.ndarray) -> "Piece":
        """The entries `index` of the first leading dimension."""
        xp = namespace(self.queries)
        chosen = xp.asarray(index, device=device_of(self.queries))
        return self.mapped(lambda x: xp.take(x, chosen, axis=0))

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


def of_no_query(piece: Piece) -> Array:
    """The outputs (..., group, 0, dv) of no query, whose gradients in queries, keys and values are zeros."""
    xp, none = namespace(piece.queries), piece.part(0, 0)
    sums = (
        xp.sum(none.queries, axis=-1, keepdims=True) + xp.sum(none.keys.keys, axis=-1, keepdims=True)[..., None, :, :]
    )
    return sums + none.keys.values[..., None, :, :]
