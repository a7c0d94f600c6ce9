"""Partial outputs of the queries of one head in NumPy, which other sums are merged into."""

from dataclasses import dataclass

import numpy as np

from randfeat._numpy.threads import Scratch
from randfeat.attention.numpy.causal import CausalHead
from randfeat.attention.numpy.chunk_group import ChunkGroup, Responses
from randfeat.attention.numpy.exponents import Limits
from randfeat.attention.numpy.sums import Readout, Sums, finite
from randfeat.attention.partial import PartialOutput


@dataclass(frozen=True, eq=False)
class PartialRows:
    """`power(log_scale)` times numerator (n, dv) and total (n,): the sums over some keys for each query.

    log_scale (n,), in units of `Limits`, is -inf where there is no key.
    """

    numerator: np.ndarray
    total: np.ndarray
    log_scale: np.ndarray

    @classmethod
    def in_memory_of(cls, output: np.ndarray) -> "PartialRows":
        """Sums to be filled, whose numerators stand where outputs are wanted, (n, dv)."""
        return cls(output, *np.empty((2, len(output)), output.dtype))

    def __getitem__(self, rows: slice) -> "PartialRows":
        return PartialRows(self.numerator[rows], self.total[rows], self.log_scale[rows])

    def __len__(self) -> int:
        return len(self.total)

    def write(self, numerator: np.ndarray, total: np.ndarray, log_scale: np.ndarray, rows: np.ndarray) -> None:
        """Take the sums at some rows, a mask (n,)."""
        for mine, given in ((self.numerator, numerator), (self.total, total), (self.log_scale, log_scale)):
            mine[rows] = given[rows]

    def absorb(self, numerator: np.ndarray, total: np.ndarray, log_scale: np.ndarray, limits: Limits) -> None:
        """Add sums over other keys, which are all relative to `power(log_scale)`."""
        top = np.maximum(self.log_scale, log_scale)
        shift = finite(top)
        mine, theirs = limits.power(self.log_scale - shift), limits.power(log_scale - shift)
        self.numerator[...] *= mine[:, None]
        self.numerator[...] += numerator * theirs[:, None]
        self.total[...] = self.total * mine + total * theirs
        self.log_scale[...] = top

    def normalize(self) -> None:
        """Divide the numerators by the totals; zeros where there is no key."""
        empty = self.log_scale == -np.inf
        self.numerator[...] /= np.where(empty, 1, self.total).astype(self.total.dtype, copy=False)[:, None]
        self.numerator[empty] = 0


@dataclass(frozen=True, eq=False)
class PartialHead(CausalHead):
    """Causal attention whose outputs are `PartialRows`, with the absolute size of the estimates of the kernel.

    The per-row term of a query, which cancels in an output, is part of that size.
    """

    outputs: list[PartialRows]

    def query_logs(self, query: np.ndarray) -> np.ndarray:
        """`r(q)` of some queries, (n,), in units of `Limits`."""
        return self.query_side.per_row(query * query.dtype.type(self.query_side.factor))

    def answer(self, which: int, group: ChunkGroup, responses: Responses, rows: slice, scratch: Scratch) -> np.ndarray:
        sums, output = group.read(responses, scratch), self.outputs[which][rows]
        total = sums[:, -1]
        output.numerator[...], output.total[...] = sums[:, :-1], total
        np.add(responses.log_scale[group.rows], self.query_logs(self.queries[which][rows]), out=output.log_scale)
        if not group.seen.all():
            output.numerator[~group.seen] = output.total[~group.seen] = 0
            output.log_scale[~group.seen] = -np.inf
        return group.accurate_rows(total, self.query_side)

    def redo(self, which: int, rows: slice, inaccurate: np.ndarray, sums: Sums) -> None:
        exact = PartialOutput.concat(self.by_generic_pass(which, rows, sums))
        unit = exact.log_scale.dtype.type(self.query_side.limits.exponent_unit)
        self.outputs[which][rows].write(
            exact.numerator, exact.denominator[:, 0], exact.log_scale[:, 0] * unit, inaccurate
        )

    def read_rows(self, readout: Readout, which: int, rows: slice, scratch: Scratch, *, size: int) -> None:
        query, output = self.queries[which][rows], self.outputs[which][rows]
        readout.fill(query, output.numerator, output.total, scratch, size=size, log_scale=output.log_scale)
        output.log_scale[...] += self.query_logs(query)
