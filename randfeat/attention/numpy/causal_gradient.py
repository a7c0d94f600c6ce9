"""The gradient of causal attention of one head in NumPy: forwards over keys, and backwards over queries, by blocks."""

from dataclasses import dataclass

import numpy as np

from randfeat._numpy.threads import Scratch
from randfeat.attention.generic.sweeps import Kept, backward_sweep, forward_sweep
from randfeat.attention.inputs import Inputs
from randfeat.attention.numpy.causal import CausalHead
from randfeat.attention.numpy.key_block import KeyBlock, KeyRows
from randfeat.attention.numpy.sums import Sums


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

    def process(self, block: KeyBlock | None, sums: Sums, positions: slice, scratch: Scratch) -> None:
        for query, gradient, kept, output in zip(self.queries, self.gradients, self.kept, self.outputs, strict=True):
            accurate = np.zeros(positions.stop - positions.start, dtype=bool)
            if block is not None and block.first_bad > 0:
                accurate = self.by_block(
                    block, query[positions], gradient[positions], kept[positions], output[positions], scratch
                )
            if not accurate.all():
                redone, inaccurate, earlier = self.rows_to_redo(block, sums, positions, accurate)
                state = earlier.to_state(self.key_side)
                exact, found = forward_sweep(self.inputs(query, redone), self.features, gradient[redone], state)
                output[redone][inaccurate] = self.root * exact[inaccurate]
                shift, divisor, dot = (column[:, 0] for column in found.columns)
                unit = shift.dtype.type(self.query_side.limits.exponent_unit)
                log_total = (shift + np.log(divisor)) * unit
                log_total -= self.query_side.per_row(self.query_side.units(query[redone], scratch))
                kept[redone][inaccurate] = np.stack([log_total, dot], axis=-1)[inaccurate]

    def by_block(
        self,
        block: KeyBlock,
        query: np.ndarray,
        gradient: np.ndarray,
        kept: np.ndarray,
        output: np.ndarray,
        scratch: Scratch,
    ) -> np.ndarray:
        """Write the gradients in some queries into `output`; returns which are accurate, (n,)."""
        limits = self.query_side.limits
        responses = block.responses(self.query_side, query, scratch)
        sums = block.read(responses, scratch, slice(-1, None) if self.known else slice(None))
        accurate = block.accurate_rows(sums[:, -1], self.query_side)
        usable = accurate & block.seen[: len(query)]
        sums[~usable] = 0
        total = np.where(usable, sums[:, -1], np.inf).astype(sums.dtype, copy=False)
        inner = scratch.take("gradients", len(query), gradient.shape[-1] + 1)
        np.divide(gradient, total[:, None], out=inner[:, :-1])
        if not self.known:
            kept[:, 1] = np.vecdot(inner[:, :-1], sums[:, :-1])
        np.negative(kept[:, 1] / total, out=inner[:, -1])
        kept[:, 0] = np.log(total) * total.dtype.type(limits.exponent_unit) + responses.log_scale
        np.matmul(block.slopes(responses, inner, scratch), self.query_side.rows, out=output)
        output *= self.query_side.factor / limits.exponent_unit
        return accurate


@dataclass(frozen=True, eq=False)
class KeySweep(CausalHead):
    """The backward sweep, with time reversed: queries with their gradients take the part of keys, and keys read.

    All arrays are reversed views. `key` are the queries, `value` the gradients in their outputs, `kept` what the way
    there has kept of them; `key_side` and `query_side` are exchanged likewise. `queries` is the one array of keys, with
    `key_values` and `key_mask`; to `outputs` and `value_outputs` are added the gradients in keys and values.
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

    def process(self, block: KeyBlock | None, sums: Sums, positions: slice, scratch: Scratch) -> None:
        present = None if self.key_mask is None or self.key_mask[positions].all() else self.key_mask[positions]
        key, value = self.queries[0][positions], self.key_values[positions]
        if present is not None:
            key, value = (np.where(present[:, None], x, 0).astype(x.dtype, copy=False) for x in (key, value))
        accurate = np.zeros(len(key), dtype=bool)
        in_key, in_value = (scratch.take(name, *x.shape) for name, x in (("in key", key), ("in value", value)))
        if block is not None and block.first_bad > 0:
            accurate = self.by_block(block, key, value, in_key, in_value, scratch)
        if not accurate.all():
            redone, inaccurate, earlier = self.rows_to_redo(block, sums, positions, accurate)
            exact = self.generic_gradients(earlier, redone)
            in_key[~accurate], in_value[~accurate] = (x[inaccurate] for x in exact)
        if present is not None:
            in_key[~present] = in_value[~present] = 0
        self.outputs[0][positions] += in_key
        self.value_outputs[positions] += in_value

    def by_block(
        self,
        block: KeyBlock,
        key: np.ndarray,
        value: np.ndarray,
        in_key: np.ndarray,
        in_value: np.ndarray,
        scratch: Scratch,
    ) -> np.ndarray:
        """Write the gradients in some keys and values; returns which are accurate, (n,)."""
        side = self.query_side
        units = np.multiply(key, side.factor, out=scratch.take("key units", *key.shape))
        per_row, row_slope = side.per_row(units), side.form.row_slope(units)
        responses = block.responses(side, key, scratch)
        factor = side.limits.power(responses.log_scale + per_row)
        # a larger factor would make up for features so small that some of their products have underflowed
        accurate = (np.arange(len(key)) < block.first_bad) & (factor * side.limits.lowest <= 1)
        factor = np.where(accurate, factor, 0).astype(factor.dtype, copy=False)[:, None]
        np.multiply(block.read(responses, scratch, slice(value.shape[-1])), factor, out=in_value)
        inner = scratch.take("gradients", len(key), value.shape[-1] + 1)
        inner[:, :-1], inner[:, -1] = value, 1
        slopes = block.slopes(responses, inner, scratch)
        np.matmul(slopes, side.rows, out=in_key)
        in_key /= side.limits.exponent_unit
        in_key += (slopes @ np.ones(slopes.shape[-1], slopes.dtype))[:, None] * row_slope
        in_key *= factor * factor.dtype.type(side.factor)
        return accurate

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
