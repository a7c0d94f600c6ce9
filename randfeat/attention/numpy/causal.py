"""Causal linear attention of one head in NumPy, by blocks of chunks; the past decides how, never the future."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import numpy as np

from randfeat._numpy.threads import Scratch, Workers
from randfeat.attention.generic.passes import causal_pass
from randfeat.attention.inputs import Inputs, intervals, slices_around
from randfeat.attention.numpy.chunk_group import ChunkGroup, Responses
from randfeat.attention.numpy.exponents import Exponents, block_rows
from randfeat.attention.numpy.full import TASK, append_tasks
from randfeat.attention.numpy.heads import Heads
from randfeat.attention.numpy.key_block import CHUNK, KeyBlock, end_of_chunk
from randfeat.attention.numpy.sums import KeyRows, Readout, Sums, append_rows
from randfeat.attention.partial import PartialOutput
from randfeat.maps import FeatureMap

SHORTEST = 2 * CHUNK  # positions in a block


def attend_causally(heads: Heads, offset: int, workers: Workers[Scratch], *, final: bool) -> list[Sums]:
    """Fills the output of every head; returns the sums over its keys, if `final` all of them, and with the peaks."""
    sums = [heads.initial_sums(which) for which in range(len(heads.indices))]
    workers.run([partial(causal_task, heads, offset, sums, which, final=final) for which in range(len(sums))])
    return sums


def causal_task(heads: Heads, offset: int, sums: list[Sums], which: int, scratch: Scratch, *, final: bool) -> None:
    """One head from its first key to its last, with all the queries that read it."""
    outputs = [heads.output[target] for target in heads.targets[which]]
    sums[which] = CausalHead.of(heads, which, outputs).run_at(offset, sums[which], scratch, peak=final, final=final)


@dataclass(frozen=True, eq=False)
class CausalHead:
    """One sequence of keys and everything that reads it: queries and outputs are lists of (n, d) and (n, dv).

    Within a block, features of keys are relative to a reference that every query of the block may know: one number, the
    middle of the sums so far or the first key; or one number for each feature, its sum so far. A key is bad if it is
    too large beside that. Queries before the first bad key are answered by chunks: scores within a chunk, and the sums
    over everything before it. From the bad key to the end of its chunk the generic pass takes over, which halves the
    triangle; the next block starts behind, with a reference per feature from then on.

    Whether a key is bad depends on nothing that comes later, and from the first bad key on a block holds zeros: outputs
    do not depend on the future to the last bit.
    """

    features: FeatureMap
    query_side: Exponents
    key_side: Exponents
    queries: list[np.ndarray]
    key: np.ndarray
    value: np.ndarray
    mask: np.ndarray | None
    outputs: list[Any]
    root: float
    log_gates: np.ndarray | None = field(default=None, kw_only=True)
    """(n,), or (1,) for all positions; natural logarithms."""

    @classmethod
    def of(cls, heads: Heads, which: int, outputs: list[Any]) -> Self:
        """One of the heads of a call."""
        index = heads.indices[which]
        return cls(
            heads.maps[which],
            heads.queries[which],
            heads.keys[which],
            [heads.query[target] for target in heads.targets[which]],
            heads.key[index],
            heads.value[index],
            None if heads.mask is None else heads.mask[index],
            outputs,
            heads.inputs.root,
            log_gates=heads.gates(which),
        )

    def part(self, queries: slice, keys: slice) -> Self:
        """Some of the queries and keys."""
        rows = self.keys(keys)
        return replace(
            self,
            queries=[query[queries] for query in self.queries],
            key=rows.key,
            value=rows.value,
            mask=rows.present,
            outputs=[output[queries] for output in self.outputs],
            log_gates=rows.log_gates,
        )

    def reversed(self) -> Self:
        """The same from the last position to the first."""
        back = slice(None, None, -1)
        return self.part(back, back)

    def run_at(self, offset: int, sums: Sums, scratch: Scratch, *, peak: bool, final: bool) -> Sums:
        """`run`, with query i at the position i + offset, and any number of queries and keys.

        What is before both, or after both, is either queries, which all read the same sums, or keys. The keys behind
        all queries are part of the sums if these are the `final` ones.
        """
        before, paired, after = (
            self.part(*slices) for slices in slices_around(offset, len(self.queries[0]), len(self.key))
        )
        before.read(sums, scratch)
        sums = before.append(sums, scratch, peak=peak)
        if len(paired.key):
            sums = paired.run(sums, scratch, peak=peak)
        gone = self.log_gates is not None and len(self.log_gates) == 1 and self.log_gates[0] == -np.inf
        after.read(sums.faded(-np.inf, self.key_side.limits) if gone else sums, scratch)
        return after.append(sums, scratch, peak=peak) if final else sums

    def read(self, sums: Sums, scratch: Scratch) -> None:
        """Fill the outputs of queries that all read the same sums."""
        if len(self.queries[0]):
            readout = Readout.of(sums, self.query_side, self.key_side)
            size = block_rows(self.features.num_features, self.key.dtype)
            for which, query in enumerate(self.queries):
                for interval in intervals(0, len(query), TASK):
                    self.read_rows(readout, which, slice(*interval), scratch, size=size)

    def read_rows(self, readout: Readout, which: int, rows: slice, scratch: Scratch, *, size: int) -> None:
        """Write what some of these queries get, `size` of them at a time."""
        readout.read(self.queries[which][rows], self.outputs[which][rows], scratch, size=size)

    def append(self, sums: Sums, scratch: Scratch, *, peak: bool) -> Sums:
        """The sums with all keys, which no query reads one by one."""
        size = block_rows(self.features.num_features, self.key.dtype)
        return append_tasks(sums, self.key_side, self.keys(slice(None)), scratch, size=size, peak=peak) or sums

    def run(self, sums: Sums, scratch: Scratch, *, peak: bool) -> Sums:
        """Fill the outputs, after the keys in `sums`; returns the sums over all keys.

        A block that is cut is followed by short ones, which grow, as is the first one if its first key is long.
        """
        full = block_rows(self.features.num_features, self.key.dtype)
        one_reference = bool(sums.total.any()) or not self.first_key_is_long()
        start, size = 0, full if one_reference else max(full // 4, SHORTEST)
        while start < len(self.key):
            positions = slice(start, min(start + size, len(self.key)))
            block = KeyBlock.of(
                self.key_side,
                sums,
                self.keys(positions),
                scratch,
                one_reference=one_reference,
                peak=peak,
            )
            stop = positions.stop
            if block is None or block.first_bad < stop - start:
                size, one_reference = SHORTEST, False
                stop = min(start + end_of_chunk(0 if block is None else block.first_bad), stop)
            else:
                size, one_reference = min(2 * size, full), one_reference and block.offset is None
            self.process(block, sums, slice(start, stop), scratch)
            sums = self.sums_after(block, sums, slice(start, stop), scratch, peak=peak)
            start = stop
        return sums

    def first_key_is_long(self) -> bool:
        """Whether the first key, which all queries see, is so long that one reference would soon not do."""
        first = self.keys(slice(0, 1))
        if first.present is not None:
            return False
        units = first.key * first.key.dtype.type(self.key_side.factor)
        return not self.key_side.largest(units) <= self.key_side.limits.limit / 2

    @property
    def for_slopes(self) -> bool:
        """Whether blocks are laid out in memory for `slopes` rather than for `read`."""
        return False

    def keys(self, positions: slice) -> KeyRows:
        """Keys, values and mask at some positions."""
        present = None if self.mask is None or self.mask[positions].all() else self.mask[positions]
        gates = self.log_gates if self.log_gates is None or len(self.log_gates) == 1 else self.log_gates[positions]
        return KeyRows(self.key[positions], self.value[positions], present, log_gates=gates)

    def inputs(self, query: np.ndarray, positions: slice) -> Inputs:
        """Prepared inputs of the generic passes at some positions."""
        keys = self.keys(positions)
        dtype = keys.value.dtype
        return Inputs(query[positions], keys.key, keys.value, keys.present, dtype, None, root=self.root).prepared()

    def process(self, block: "KeyBlock | None", sums: Sums, positions: slice, scratch: Scratch) -> None:
        """Answer the queries at some positions: by the block where that is accurate, else by the generic pass."""
        num = positions.stop - positions.start
        accurate = [np.zeros(num, dtype=bool) for _ in self.queries]
        if block is not None and block.first_bad > 0:
            responses = [
                block.responses(self.query_side, query[positions], scratch, number)
                for number, query in enumerate(self.queries)
            ]
            for group in block.groups(num, scratch, for_slopes=self.for_slopes):
                rows = slice(positions.start + group.rows.start, positions.start + group.rows.stop)
                for which, response in enumerate(responses):
                    accurate[which][group.rows] = self.answer(which, group, response, rows, scratch)
        for which, good in enumerate(accurate):
            if not good.all():
                redone, inaccurate, earlier = self.rows_to_redo(block, sums, positions, good)
                self.redo(which, redone, inaccurate, earlier)

    def answer(self, which: int, group: ChunkGroup, responses: Responses, rows: slice, scratch: Scratch) -> np.ndarray:
        """Write what the queries of number `which` at the rows of a group get; returns which is accurate, (n,)."""
        sums, output = group.read(responses, scratch), self.outputs[which][rows]
        total = sums[:, -1]
        if group.seen.all():
            np.divide(sums[:, :-1], total[:, None], out=output)
        else:
            np.divide(sums[:, :-1], np.where(group.seen, total, 1)[:, None], out=output)
            output[~group.seen] = 0
        return group.accurate_rows(total, self.query_side)

    def redo(self, which: int, rows: slice, inaccurate: np.ndarray, sums: Sums) -> None:
        """Write the inaccurate rows once more, by the generic pass after the keys in `sums`."""
        exact = np.concatenate([part.normalized() for part in self.by_generic_pass(which, rows, sums)])
        self.outputs[which][rows][inaccurate] = exact[inaccurate]

    def by_generic_pass(self, which: int, rows: slice, sums: Sums) -> list[PartialOutput]:
        """Partial outputs of the queries at some rows."""
        log_gates, state = self.keys(rows).log_gates, sums.to_state(self.key_side)
        column = None if log_gates is None else log_gates[:, None]
        return causal_pass(self.inputs(self.queries[which], rows), self.features, state, log_gates=column)[0]

    def rows_to_redo(
        self, block: "KeyBlock | None", sums: Sums, positions: slice, accurate: np.ndarray
    ) -> tuple[slice, np.ndarray, Sums]:
        """The positions from the chunk of the first inaccurate row to the last such row; which of them are inaccurate;
        and the sums before them.
        """
        places = np.flatnonzero(~accurate)
        first, earlier = self.sums_before_chunk(block, sums, int(places[0]))
        last = int(places[-1]) + 1
        return slice(positions.start + first, positions.start + last), ~accurate[first:last], earlier

    def sums_before_chunk(self, block: "KeyBlock | None", sums: Sums, place: int) -> tuple[int, Sums]:
        """The start of the chunk around `place`, or of the block if its sums are too small; and the sums before."""
        if block is not None:
            earlier = block.sums_before(place // CHUNK)
            if earlier.total.min() >= self.key_side.limits.lowest:
                return place // CHUNK * CHUNK, earlier
        return 0, sums

    def sums_after(
        self, block: "KeyBlock | None", sums: Sums, positions: slice, scratch: Scratch, *, peak: bool
    ) -> Sums:
        """The sums after these positions: those of the block, if none of its keys is bad; else with shifts."""
        keys, limits = self.keys(positions), self.key_side.limits
        if block is not None and block.first_bad == positions.stop - positions.start:
            earlier = sums if keys.log_gates is None else sums.faded(keys.left()[1], limits)
            total = block.sums(earlier.peak)
            if total.total.min() >= limits.lowest:
                return total
        if block is not None and not peak:
            first, sums = self.sums_before_chunk(block, sums, block.first_bad)
            keys = keys.part(slice(first, None))
        size = len(keys.key)
        return append_rows(sums, self.key_side, keys, scratch, size=size, peak=peak, shifted=True) or sums
