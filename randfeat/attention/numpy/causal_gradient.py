"""The gradient of causal attention of one head in NumPy: forwards over keys, and backwards over queries, by blocks."""

from dataclasses import dataclass

import numpy as np

from randfeat._numpy.threads import Scratch
from randfeat.attention.generic.sweeps import Kept, backward_sweep, forward_sweep
from randfeat.attention.inputs import Inputs
from randfeat.attention.numpy.causal import CausalHead
from randfeat.attention.numpy.chunk_group import ChunkGroup, Responses
from randfeat.attention.numpy.sums import KeyRows, Sums


@dataclass(frozen=True, eq=False)
class QuerySweep(CausalHead):
    """The forward sweep: `outputs` are the gradients in the queries (n, d).

    gradients : those in the outputs, (n, dv) for each of the queries. kept : arrays (n, 2) to fill for the backward
    sweep: the logarithm of each query's denominator without r(q), in units of `Limits`, and `G·o`, which is given
    already if `known`.
    """

    gradients: list[np.ndarray]
    kept: list[np.ndarray]
    known: bool

    @property
    def for_slopes(self) -> bool:
        return self.known

    def answer(self, which: int, group: ChunkGroup, responses: Responses, rows: slice, scratch: Scratch) -> np.ndarray:
        gradient, kept, output = (x[which][rows] for x in (self.gradients, self.kept, self.outputs))
        limits = self.query_side.limits
        sums = group.read(responses, scratch, slice(-1, None) if self.known else slice(None))
        accurate = group.accurate_rows(sums[:, -1], self.query_side)
        usable = accurate & group.seen
        sums[~usable] = 0
        total = np.where(usable, sums[:, -1], np.inf).astype(sums.dtype, copy=False)
        inner = scratch.take("gradients", len(gradient), gradient.shape[-1] + 1)
        np.divide(gradient, total[:, None], out=inner[:, :-1])
        if not self.known:
            kept[:, 1] = np.vecdot(inner[:, :-1], sums[:, :-1])
        np.negative(kept[:, 1] / total, out=inner[:, -1])
        kept[:, 0] = np.log(total) * total.dtype.type(limits.exponent_unit) + responses.log_scale[group.rows]
        np.matmul(group.slopes(responses, inner, scratch), self.query_side.rows, out=output)
        output *= self.query_side.factor / limits.exponent_unit
        return accurate

    def redo(self, which: int, rows: slice, inaccurate: np.ndarray, sums: Sums) -> None:
        query, state = self.queries[which], sums.to_state(self.key_side)
        exact, found = forward_sweep(self.inputs(query, rows), self.features, self.gradients[which][rows], state)
        self.outputs[which][rows][inaccurate] = self.root * exact[inaccurate]
        shift, divisor, dot = (column[:, 0] for column in found.columns)
        log_total = (shift + np.log(divisor)) * shift.dtype.type(self.query_side.limits.exponent_unit)
        log_total -= self.query_side.per_row(query[rows] * query.dtype.type(self.query_side.factor))
        self.kept[which][rows][inaccurate] = np.stack([log_total, dot], axis=-1)[inaccurate]


@dataclass(frozen=True, eq=False)
class KeySweep(CausalHead):
    """The backward sweep, with time reversed: queries with their gradients take the part of keys, and keys read.

    All arrays are reversed views. `key` are the queries, `value` the gradients in their outputs, `kept` what the way
    there has kept of them; `key_side` and `query_side` are exchanged likewise. `queries` is the one array of keys, with
    `key_values` and `key_mask`, zeros where they are masked; to `outputs` and `value_outputs` are added the gradients
    in keys and values, those of masked ones for nobody.
    """

    kept: np.ndarray
    key_values: np.ndarray
    key_mask: np.ndarray | None
    value_outputs: np.ndarray

    def keys(self, positions: slice) -> KeyRows:
        """The queries at some positions, with "values" `[G, -G·o]` and without those that see no key."""
        kept = self.kept[positions]
        present = kept[:, 0] != np.inf
        value = np.concatenate([self.value[positions], -kept[:, 1:]], axis=-1)
        return KeyRows(self.key[positions], value, None if present.all() else present, -kept[:, 0])

    def answer(self, which: int, group: ChunkGroup, responses: Responses, rows: slice, scratch: Scratch) -> np.ndarray:
        """Adds to the gradients of the keys that are accurate."""
        side = self.query_side
        key, value = self.queries[0][rows], self.key_values[rows]
        units = np.multiply(key, side.factor, out=scratch.take("key units", *key.shape))
        per_row, row_slope = side.per_row(units), side.form.row_slope(units)
        factor = side.limits.power(responses.log_scale[group.rows] + per_row)
        # a larger factor would make up for features so small that some of their products have underflowed
        accurate = (np.arange(len(key)) < group.num_good) & (factor * side.limits.lowest <= 1)
        factor = np.where(accurate, factor, 0).astype(factor.dtype, copy=False)[:, None]
        in_value = group.read(responses, scratch, slice(value.shape[-1]))
        in_value *= factor
        self.value_outputs[rows] += in_value
        inner = scratch.take("gradients", len(key), value.shape[-1] + 1)
        inner[:, :-1], inner[:, -1] = value, 1
        slopes = group.slopes(responses, inner, scratch)
        in_key = np.matmul(slopes, side.rows, out=scratch.take("in key", *key.shape))
        in_key /= side.limits.exponent_unit
        in_key += (slopes @ np.ones(slopes.shape[-1], slopes.dtype))[:, None] * row_slope
        in_key *= factor * factor.dtype.type(side.factor)
        self.outputs[0][rows] += in_key
        return accurate

    def redo(self, which: int, rows: slice, inaccurate: np.ndarray, sums: Sums) -> None:
        for output, exact in zip(
            (self.outputs[0], self.value_outputs), self.generic_gradients(sums, rows), strict=True
        ):
            output[rows][inaccurate] += exact[inaccurate]

    def generic_gradients(self, sums: Sums, positions: slice) -> tuple[np.ndarray, np.ndarray]:
        """Gradients in keys and values by the generic sweep, which runs forwards in time."""
        query, gradient, kept = (x[positions][::-1] for x in (self.key, self.value, self.kept))
        key, value = self.queries[0][positions][::-1], self.key_values[positions][::-1]
        mask = None if self.key_mask is None else self.key_mask[positions][::-1]
        inputs = Inputs(query, key, value, mask, value.dtype, None, root=self.root).prepared()
        per_row = self.key_side.per_row(query * query.dtype.type(self.key_side.factor))
        shift = ((kept[:, 0] + per_row) / kept.dtype.type(self.key_side.limits.exponent_unit))[:, None]
        divisor = np.where(shift == np.inf, np.inf, 1).astype(shift.dtype)
        known = Kept(shift, divisor, kept[:, 1:])
        found, _ = backward_sweep(inputs, self.features, gradient, known, sums.to_state(self.key_side))
        in_key, in_value = (np.concatenate(column)[::-1] for column in zip(*found, strict=True))
        return self.root * in_key, in_value
