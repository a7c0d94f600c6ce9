"""The gradient of causal attention of one head in NumPy: forwards over keys, and backwards over queries, by blocks."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from randfeat._numpy.threads import Scratch
from randfeat.attention.generic.sweeps import Kept, backward_sweep, forward_sweep
from randfeat.attention.inputs import Inputs
from randfeat.attention.numpy.causal import CausalHead
from randfeat.attention.numpy.chunk_group import ChunkGroup, Responses
from randfeat.attention.numpy.exponents import Exponents
from randfeat.attention.numpy.sums import KeyRows, Sums
from randfeat.maps import FeatureMap


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
class FarQuerySweep(QuerySweep):
    """The forward sweep where queries see more than these keys: `kept` is known, and r(q) does not cancel."""

    @property
    def for_slopes(self) -> bool:
        return True

    def answer(self, which: int, group: ChunkGroup, responses: Responses, rows: slice, scratch: Scratch) -> np.ndarray:
        side, limits = self.query_side, self.query_side.limits
        query, gradient, kept = (x[which][rows] for x in (self.queries, self.gradients, self.kept))
        total = limits.power(kept[:, 0] - responses.log_scale[group.rows])
        accurate = (np.arange(len(total)) < group.num_good) & ((total >= limits.lowest) | ~group.seen)
        total = np.where(accurate & group.seen, total, np.inf).astype(total.dtype, copy=False)
        inner = scratch.take("gradients", len(gradient), gradient.shape[-1] + 1)
        np.divide(gradient, total[:, None], out=inner[:, :-1])
        np.negative(kept[:, 1] / total, out=inner[:, -1])
        slopes = group.slopes(responses, inner, scratch)
        output = self.outputs[which][rows]
        np.matmul(slopes, side.rows, out=output)
        output /= limits.exponent_unit
        units = np.multiply(query, side.factor, out=scratch.take("query units", *query.shape))
        output += (slopes @ np.ones(slopes.shape[-1], slopes.dtype))[:, None] * side.form.row_slope(units)
        output *= side.factor
        return accurate

    def redo(self, which: int, rows: slice, inaccurate: np.ndarray, sums: Sums) -> None:
        query, gradient = self.queries[which], self.gradients[which][rows]
        known = generic_columns(self.kept[which][rows], query[rows], self.query_side)
        state = sums.to_state(self.key_side)
        exact, _ = forward_sweep(self.inputs(query, rows), self.features, gradient, state, known.columns)
        self.outputs[which][rows][inaccurate] = self.root * exact[inaccurate]


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
        known = generic_columns(kept, query, self.key_side)
        found, _ = backward_sweep(inputs, self.features, gradient, known, sums.to_state(self.key_side))
        in_key, in_value = (np.concatenate(column)[::-1] for column in zip(*found, strict=True))
        return self.root * in_key, in_value


def generic_columns(kept: np.ndarray, query: np.ndarray, side: Exponents) -> Kept:
    """The kept numbers of queries (n, d), as columns of the generic sweeps."""
    per_row = side.per_row(query * query.dtype.type(side.factor))
    shift = ((kept[:, 0] + per_row) / kept.dtype.type(side.limits.exponent_unit))[:, None]
    divisor = np.where(shift == np.inf, np.inf, 1).astype(shift.dtype)
    return Kept(shift, divisor, kept[:, 1:])


@dataclass(frozen=True, eq=False)
class CausalPullBack:
    """The gradients of one head: forwards for all queries that read it, then backwards for its keys and values.

    queries, gradients, kept : lists of (n, d), (n, dv), (n, 2), with `kept` as of `QuerySweep`. in_key and in_value are
    added to. Masked keys and values are zeros.
    """

    features: FeatureMap
    query_side: Exponents
    key_side: Exponents
    root: float
    queries: list[np.ndarray]
    gradients: list[np.ndarray]
    kept: list[np.ndarray]
    key: np.ndarray
    value: np.ndarray
    mask: np.ndarray | None
    in_key: np.ndarray
    in_value: np.ndarray

    def reversed(self) -> "CausalPullBack":
        """The same from the last position to the first."""
        back = slice(None, None, -1)
        return replace(
            self.of_keys(back),
            queries=[query[back] for query in self.queries],
            gradients=[gradient[back] for gradient in self.gradients],
            kept=[kept[back] for kept in self.kept],
        )

    def of_keys(self, keys: slice) -> "CausalPullBack":
        """The gradients from some of the keys alone."""
        return replace(
            self,
            key=self.key[keys],
            value=self.value[keys],
            mask=None if self.mask is None else self.mask[keys],
            in_key=self.in_key[keys],
            in_value=self.in_value[keys],
        )

    def run_at(self, offset: int, sums: Sums, sweep: type[QuerySweep], scratch: Scratch, *, known: bool) -> list[Any]:
        """The gradients in the queries, with query i at the position i + offset, after the keys in `sums`.

        Where queries and keys are not in pairs, absent ones are put beside: a masked key, or a query that sees nothing.
        """
        num_queries, num_keys = len(self.queries[0]), len(self.key)
        offset = max(min(offset, num_keys), -num_queries)
        if offset == 0 and num_queries == num_keys:
            in_queries = [np.empty_like(query) for query in self.queries]
            self.run(sums, sweep, in_queries, scratch, known=known)
            return in_queries
        first_query, first_key = max(offset, 0), max(-offset, 0)
        total = max(first_query + num_queries, first_key + num_keys)
        present, asks = np.zeros(total, dtype=bool), slice(first_query, first_query + num_queries)
        present[first_key : first_key + num_keys] = True if self.mask is None else self.mask
        kept = [padded(x, first_query, total) for x in self.kept]
        for columns in kept:
            columns[: asks.start, 0] = columns[asks.stop :, 0] = np.inf
        beside = replace(
            self,
            queries=[padded(x, first_query, total) for x in self.queries],
            gradients=[padded(x, first_query, total) for x in self.gradients],
            kept=kept,
            key=padded(self.key, first_key, total),
            value=padded(self.value, first_key, total),
            mask=present,
            in_key=np.zeros((total, self.key.shape[-1]), self.key.dtype),
            in_value=np.zeros((total, self.value.shape[-1]), self.value.dtype),
        )
        in_queries = [np.empty_like(query) for query in beside.queries]
        beside.run(sums, sweep, in_queries, scratch, known=known, asks=asks)
        for mine, theirs in ((self.in_key, beside.in_key), (self.in_value, beside.in_value)):
            mine += theirs[first_key : first_key + num_keys]
        return [in_query[asks] for in_query in in_queries]

    def run(
        self,
        sums: Sums,
        sweep: type[QuerySweep],
        in_queries: list[np.ndarray],
        scratch: Scratch,
        *,
        known: bool,
        asks: slice = slice(None),
    ) -> None:
        """Both sweeps of as many queries as keys, of which those in `asks` are there."""
        shared: dict[str, Any] = {"features": self.features, "root": self.root}
        forward = sweep(
            query_side=self.query_side,
            key_side=self.key_side,
            queries=self.queries,
            key=self.key,
            value=self.value,
            mask=self.mask,
            outputs=in_queries,
            gradients=self.gradients,
            kept=self.kept,
            known=known,
            **shared,
        )
        forward.run(sums, scratch, peak=False)
        num_features, columns = self.features.num_features, self.value.shape[-1] + 1
        for query, gradient, kept in zip(self.queries, self.gradients, self.kept, strict=True):
            absent = np.ones(len(kept), dtype=bool)
            absent[asks] = False
            kept[absent, 0] = np.inf
            backward = KeySweep(
                query_side=self.key_side,
                key_side=self.query_side,
                queries=[self.key[::-1]],
                key=query[::-1],
                value=gradient[::-1],
                mask=None,
                outputs=[self.in_key[::-1]],
                kept=kept[::-1],
                key_values=self.value[::-1],
                key_mask=None if self.mask is None else self.mask[::-1],
                value_outputs=self.in_value[::-1],
                **shared,
            )
            backward.run(Sums.empty(num_features, columns, self.key.dtype), scratch, peak=False)


def padded(x: np.ndarray, first: int, num: int) -> np.ndarray:
    """`x` (n, c) as the rows from `first` on among `num`, with zeros around them."""
    result = np.zeros((num, x.shape[-1]), x.dtype)
    result[first : first + len(x)] = x
    return result
