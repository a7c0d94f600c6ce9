"""Linear attention in NumPy for features that are exponentials: block by block in cache, heads on several threads."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from randfeat._numpy.threads import Scratch, Workers, resolve_num_threads
from randfeat.attention.blocked_causal import CausalHead
from randfeat.attention.exponents import Exponents, block_rows
from randfeat.attention.inputs import AttentionInputs, pieces
from randfeat.attention.state import AttentionState
from randfeat.attention.sums import Readout, Sums, merged, sum_keys
from randfeat.maps import FeatureMap

__all__ = ["Heads", "fast_pass", "row_pieces", "summed_keys"]

SHORTEST = 64  # queries or keys below which the generic pass, over all heads at once, is as fast
PIECE, MOST_PIECES = 2048, 16  # rows of one task, or more where that makes too many tasks, each with sums of its own
FEW = 1 << 22  # products of numbers below which threads do not pay


def fast_pass(
    inputs: AttentionInputs,
    features: FeatureMap,
    state: AttentionState | None,
    *,
    is_causal: bool,
    return_state: bool,
    num_threads: int | None,
) -> tuple[list[np.ndarray], Any] | None:
    """Outputs and, if asked for, the state, as the generic passes give them up to rounding; None if not for this case.

    inputs : as checked, √scale not yet applied. features : laid out like the heads. state : of earlier keys, or None.

    For float32 and float64 NumPy arrays and features with an `exponential_form`. Per block and feature there are one
    product, one exponential and one more product: per-row factors of queries cancel, those of keys are factors of
    their values, the weights of features are factors of the sums. No shift is taken while none is needed (`Limits`).
    Memory beside the output: the sums, and scratch of one or two blocks of features for each thread.
    """
    if not isinstance(inputs.value, np.ndarray):
        return None
    num_threads = resolve_num_threads(num_threads)
    inputs = inputs.computing()
    work = Heads.of(inputs, features, state, is_causal=is_causal)
    if work is None:
        return None
    with work.workers(num_threads) as workers:
        if is_causal:
            sums: list[Any] = [None] * len(work.indices)
            workers.run([partial(causal_task, work, sums, which, peak=return_state) for which in range(len(sums))])
        else:
            sums, readouts = summed_keys(work, workers, peak=return_state)
            workers.run([
                partial(query_task, work, readouts, which, target, *interval)
                for which in range(len(sums))
                for target in work.targets[which]
                for interval in row_pieces(inputs.num_queries)
            ])  # fmt: skip
    return [work.output], work.state(sums) if return_state else None


def summed_keys(work: "Heads", workers: Workers[Scratch], *, peak: bool) -> tuple[list[Sums], list[Readout]]:
    """The sums over all keys of each head, piece by piece, and how its queries read them."""
    intervals = row_pieces(work.inputs.num_keys)
    parts: Parts = [[None] * len(intervals) for _ in work.indices]
    workers.run([
        partial(key_task, work, parts, which, i, *interval, peak=peak)
        for which in range(len(parts))
        for i, interval in enumerate(intervals)
    ])  # fmt: skip
    with np.errstate(all="ignore"):  # too little for threads
        sums = [work.folded(parts[which], which) for which in range(len(parts))]
        return sums, [work.readout(one, which) for which, one in enumerate(sums)]


def row_pieces(num_rows: int) -> list[tuple[int, int]]:
    """Rows of each task; they depend on nothing but the length, so that sums do not on the number of threads."""
    share = -(-num_rows // MOST_PIECES)
    return pieces(0, num_rows, max(1, -(-share // PIECE)) * PIECE)


@dataclass(frozen=True, eq=False)
class Heads:
    """The heads of one call, one for each index of what is summed over keys, and the queries that read each."""

    inputs: AttentionInputs
    maps: list[FeatureMap]
    keys: list[Exponents]
    queries: list[Exponents]
    indices: list[tuple[int, ...]]
    """Index of each head in the leading dimensions of the sums."""
    targets: list[list[tuple[int, ...]]]
    """Indices in the leading dimensions of the output that read each head."""
    key: np.ndarray
    value: np.ndarray
    mask: np.ndarray | None
    query: np.ndarray
    output: np.ndarray
    initial: AttentionState | None
    lead: tuple[int, ...]

    @classmethod
    def of(
        cls, inputs: AttentionInputs, features: FeatureMap, state: AttentionState | None, *, is_causal: bool
    ) -> "Heads | None":
        """The heads with all leading dimensions broadcast; None for what the generic pass is to do."""
        arrays = [inputs.query, inputs.key, inputs.value, *features.arrays.values()]
        dtype, factor = inputs.value.dtype, getattr(features.estimator.kernel, "unit_factor", None)
        lengths = (inputs.num_queries, inputs.num_keys)
        if (
            not all(isinstance(array, np.ndarray) for array in arrays)
            or dtype not in (np.float32, np.float64)
            or factor is None
            or max(lengths) < SHORTEST
            or 0 in (*lengths, *inputs.value.shape, *inputs.query.shape)
            or (is_causal and lengths[0] != lengths[1])
        ):
            return None
        lead = inputs.leading_shape(features)
        if state is not None and np.broadcast_shapes(lead, state.total.shape[:-2]) != lead:
            return None
        indices, batch = list(np.ndindex(lead)), features.batch_shape
        numbers = np.broadcast_to(np.arange(int(np.prod(batch)), dtype=np.int64).reshape(batch), lead)
        single: dict[int, FeatureMap] = {}
        both: dict[int, tuple[Exponents, Exponents]] = {}
        for number in sorted(set(numbers.ravel().tolist())):
            at = np.unravel_index(number, batch)
            one = {name: array[at] for name, array in features.arrays.items()}
            single[number] = FeatureMap(features.estimator, features.dim, features.num_features, one)
            queries = Exponents.of(single[number], inputs.root * factor, dtype, keys=False)
            keys = Exponents.of(single[number], inputs.root * factor, dtype, keys=True)
            if queries is None or keys is None:
                return None
            both[number] = (queries, keys)
        order = [int(numbers[index]) for index in indices]
        full = np.broadcast_shapes(inputs.query.shape[:-2], lead)
        which = np.broadcast_to(np.arange(len(indices)).reshape(lead), full)
        targets: list[list[tuple[int, ...]]] = [[] for _ in indices]
        for index in np.ndindex(full):
            targets[int(which[index])].append(index)
        mask = inputs.key_mask
        return cls(
            inputs,
            [single[number] for number in order],
            [both[number][1] for number in order],
            [both[number][0] for number in order],
            indices,
            targets,
            np.broadcast_to(inputs.key, (*lead, *inputs.key.shape[-2:])),
            np.broadcast_to(inputs.value, (*lead, *inputs.value.shape[-2:])),
            None if mask is None else np.broadcast_to(mask, (*lead, lengths[1])),
            np.broadcast_to(inputs.query, (*full, *inputs.query.shape[-2:])),
            np.empty((*full, lengths[0], inputs.value.shape[-1]), dtype),
            state,
            lead,
        )

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        return self.output.dtype

    @property
    def sum_shape(self) -> tuple[int, int]:
        """(m, dv)."""
        return self.maps[0].num_features, self.output.shape[-1]

    @property
    def block_rows(self) -> int:
        """Rows that are taken at a time."""
        return block_rows(self.maps[0].num_features, self.dtype)

    @property
    def num_products(self) -> int:
        """Roughly the products of numbers in the whole call."""
        rows = self.output.size // self.output.shape[-1] + len(self.indices) * self.inputs.num_keys
        return rows * self.sum_shape[0] * (self.maps[0].dim + self.sum_shape[1])

    def workers(self, num_threads: int) -> Workers[Scratch]:
        """Threads for the tasks, where there is enough to do."""
        return Workers(partial(Scratch, self.dtype), num_threads if self.num_products > FEW else 1)

    def initial_sums(self, which: int) -> Sums:
        """The sums that a head starts with."""
        return Sums.none(*self.sum_shape, self.dtype) if self.initial is None else self.sums_in(self.initial, which)

    def folded(self, parts: "list[Sums | None]", which: int) -> Sums:
        """All pieces of one head, in their order, after what came before them."""
        total = None if self.initial is None else self.initial_sums(which)
        for part in parts:
            total = merged(total, part, self.keys[which].limits)
        return self.initial_sums(which) if total is None else total

    def readout(self, sums: Sums, which: int) -> Readout:
        """How the queries of one head read its sums."""
        return Readout.of(sums, self.queries[which], self.keys[which])

    def sums_in(self, state: AttentionState, which: int) -> Sums:
        """The sums of one head in a state of all heads."""
        keys = self.keys[which]
        num_features, value_dim = self.sum_shape
        shapes = ((1, num_features), (num_features, value_dim), (num_features, 1))
        log_max, weighted, total = (
            np.broadcast_to(array, (*self.lead, *shape))[self.indices[which]]
            for array, shape in zip((state.log_max, state.weighted, state.total), shapes, strict=True)
        )
        return Sums.of_state(log_max, weighted, total, keys)

    def state(self, sums: list[Sums]) -> AttentionState:
        """The state of all heads."""
        states = [one.to_state(keys) for one, keys in zip(sums, self.keys, strict=True)]

        def together(arrays: list[np.ndarray]) -> np.ndarray:
            return np.stack(arrays).reshape(*self.lead, *arrays[0].shape)

        return AttentionState(
            together([state.log_max for state in states]),
            together([state.weighted for state in states]),
            together([state.total for state in states]),
        )


Parts = list[list[Sums | None]]
"""Of each head and piece of the keys; None for no key at all."""


def key_task(
    work: Heads, parts: Parts, which: int, number: int, start: int, stop: int, scratch: Scratch, *, peak: bool
) -> None:
    """The sums over one piece of the keys of one head."""
    index, keys = work.indices[which], work.keys[which]
    total: Sums | None = None
    for first, last in pieces(start, stop, PIECE):
        key, value = work.key[index][first:last], work.value[index][first:last]
        if work.mask is not None and not work.mask[index][first:last].all():
            present = work.mask[index][first:last]
            key, value = key[present], value[present]
        if len(key):
            piece = sum_keys(keys, key, value, scratch, size=work.block_rows, peak=peak)
            total = merged(total, piece, keys.limits)
    parts[which][number] = total


def query_task(
    work: Heads, readouts: list[Any], which: int, target: tuple[int, ...], start: int, stop: int, scratch: Scratch
) -> None:
    """The outputs of one piece of the queries of one head."""
    for first, last in pieces(start, stop, PIECE):
        query, output = work.query[target][first:last], work.output[target][first:last]
        readouts[which].read(query, output, scratch, size=work.block_rows)


def causal_task(work: Heads, sums: list[Any], which: int, scratch: Scratch, *, peak: bool) -> None:
    """One head from its first key to its last, with all the queries that read it."""
    index = work.indices[which]
    head = CausalHead(
        work.maps[which],
        work.queries[which],
        work.keys[which],
        [work.query[target] for target in work.targets[which]],
        work.key[index],
        work.value[index],
        None if work.mask is None else work.mask[index],
        [work.output[target] for target in work.targets[which]],
        work.inputs.root,
    )
    sums[which] = head.run(work.initial_sums(which), scratch, peak=peak)
