"""The gradient of linear attention in NumPy for features that are exponentials: block by block, heads on threads.

A weight of attention is `Σ_f p_if s_jf`: p_if is the share of feature f in the denominator of query i, s_jf that of
key j in the sum over keys of feature f. With G_i the gradient in output o_i and `h_if = G_i·(m_f - o_i)`, where m_f is
the mean of the values under the shares s_jf, the derivative in the exponent of p_if is `p_if h_if`; with
`Q_f = Σ_i p_if [G_i, -G_i·o_i]` that in the exponent of s_jf is `s_jf [v_j, 1]·Q_f`. Shares are at most 1.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from randfeat._numpy.threads import Scratch
from randfeat.attention.generic.sweeps import Gradients, sum_to
from randfeat.attention.inputs import intervals
from randfeat.attention.numpy.causal_gradient import CausalPullBack, FarQuerySweep, QuerySweep
from randfeat.attention.numpy.exponents import Exponents, moderate
from randfeat.attention.numpy.full import summed_keys, task_intervals
from randfeat.attention.numpy.heads import Heads
from randfeat.attention.numpy.partial_rows import PartialRows
from randfeat.attention.numpy.sums import Readout, Sums
from randfeat.attention.numpy.window import attend_parts
from randfeat.attention.relations import Relation, Window
from randfeat.attention.state import AttentionState


def pull_back_causally(
    heads: Heads, relation: Relation, gradient: np.ndarray, output: np.ndarray | None, num_threads: int | None
) -> Gradients:
    """Head by head: forwards for its queries, then backwards for its keys and values."""
    work = Backward.of(heads, gradient, output)
    with heads.workers(num_threads) as workers:
        if isinstance(relation, Window):
            workers.run([partial(window_task, work, relation, which) for which in range(len(heads.indices))])
        else:
            workers.run([partial(causal_task, work, relation.offset, which) for which in range(len(heads.indices))])
    return work.gradients()


def pull_back_all(
    heads: Heads,
    gradient: np.ndarray,
    output: np.ndarray | None,
    final_state: AttentionState | None,
    num_threads: int | None,
) -> Gradients:
    """The sums over all keys, the queries with what they add to `Q`, then the keys and values."""
    work = Backward.of(heads, gradient, output)
    all_heads = range(len(heads.indices))
    key_tasks, query_tasks = (task_intervals(num) for num in (heads.inputs.num_keys, heads.inputs.num_queries))
    with heads.workers(num_threads) as workers:
        if final_state is None:
            sums, readouts = summed_keys(heads, workers, peak=False)
        else:
            with np.errstate(all="ignore"):
                sums = [heads.sums_in(final_state, which) for which in all_heads]
                readouts = [heads.readout(sums[which], which) for which in all_heads]
        lists = [heads.targets[which] for which in all_heads]
        tables = [np.zeros((len(targets), len(query_tasks), *work.table_shape), heads.dtype) for targets in lists]
        workers.run([
            partial(query_task, work, readouts, which, target, tables[which][t, i], *interval)
            for which in all_heads
            for t, target in enumerate(lists[which])
            for i, interval in enumerate(query_tasks)
        ])  # fmt: skip
        sources = [KeySource.of(sums[which], tables[which].sum(axis=(0, 1)), heads.keys[which]) for which in all_heads]
        workers.run([
            partial(source_task, work, sources, which, *interval) for which in all_heads for interval in key_tasks
        ])  # fmt: skip
    return work.gradients()


@dataclass(frozen=True, eq=False)
class Backward:
    """The gradients of one call: in outputs and queries laid out like the output, in keys and values like the sums."""

    heads: Heads
    gradient: np.ndarray
    output: np.ndarray | None
    exponent: int
    """The gradient is divided by this power of 2, an exact factor."""
    in_query: np.ndarray
    in_key: np.ndarray
    in_value: np.ndarray

    @classmethod
    def of(cls, heads: Heads, gradient: np.ndarray, output: np.ndarray | None) -> "Backward":
        """Memory for the gradients of one call."""
        largest = float(np.max(np.abs(gradient), initial=0.0))
        exponent = int(np.frexp(largest)[1]) if 0 < largest < np.inf else 0
        return cls(
            heads,
            gradient,
            output,
            exponent,
            np.empty(heads.query.shape, heads.dtype),
            np.zeros(heads.key.shape, heads.dtype),
            np.zeros(heads.value.shape, heads.dtype),
        )

    @property
    def table_shape(self) -> tuple[int, int]:
        """The shape (m, dv + 1) of a table `Q`."""
        num_features, value_dim = self.heads.sum_shape
        return num_features, value_dim + 1

    def causal_head(self, which: int) -> CausalPullBack:
        """One of the heads, with masked keys and values zero."""
        heads, index, targets = self.heads, self.heads.indices[which], self.heads.targets[which]
        key, value, mask = heads.key[index], heads.value[index], None
        if heads.mask is not None and not heads.mask[index].all():
            mask = heads.mask[index]
            key, value = (np.where(mask[:, None], x, 0).astype(x.dtype, copy=False) for x in (key, value))
        return CausalPullBack(
            heads.maps[which],
            heads.queries[which],
            heads.keys[which],
            heads.inputs.root,
            [heads.query[target] for target in targets],
            [self.gradient[target] for target in targets],
            [np.empty((heads.inputs.num_queries, 2), heads.dtype) for _ in targets],
            key,
            value,
            mask,
            self.in_key[index],
            self.in_value[index],
        )

    def finish_causally(self, which: int, in_queries: list[np.ndarray]) -> None:
        """Take the gradients in queries, and leave none in masked keys."""
        heads, index = self.heads, self.heads.indices[which]
        for target, in_query in zip(heads.targets[which], in_queries, strict=True):
            self.in_query[target] = in_query
        if heads.mask is not None:
            self.in_key[index][~heads.mask[index]] = self.in_value[index][~heads.mask[index]] = 0

    def gradients(self) -> Gradients:
        """The gradients in the shapes of the inputs, summed over broadcast axes."""
        inputs = self.heads.inputs
        pairs = ((self.in_query, inputs.query), (self.in_key, inputs.key), (self.in_value, inputs.value))
        return tuple(sum_to(x, tuple(like.shape)) for x, like in pairs)


def query_task(
    work: Backward,
    readouts: list[Readout],
    which: int,
    target: tuple[int, ...],
    table: np.ndarray,
    start: int,
    stop: int,
    scratch: Scratch,
) -> None:
    """The gradients in one interval of the queries of one head, and what they add to a table `Q`."""
    query, gradient, in_query = (x[target] for x in (work.heads.query, work.gradient, work.in_query))
    for first, last in intervals(start, stop, work.heads.block_rows):
        scaled = np.ldexp(gradient[first:last], -work.exponent)
        dot = None if work.output is None else np.vecdot(scaled, work.output[target][first:last])
        pull_queries(readouts[which], query[first:last], scaled, dot, in_query[first:last], table, scratch)
        np.ldexp(in_query[first:last], work.exponent, out=in_query[first:last])


def pull_queries(
    readout: Readout,
    query: np.ndarray,
    gradient: np.ndarray,
    dot: np.ndarray | None,
    in_query: np.ndarray,
    table: np.ndarray,
    scratch: Scratch,
) -> None:
    """The gradients in one block of queries (n, d) into `in_query`; adds `Σ_i p_if [G_i, -G_i·o_i]` to the table.

    dot (n,) is `G_i·o_i`, where the outputs are known.
    """
    queries, limits = readout.queries, readout.queries.limits
    if readout.log_weight.max() == -np.inf:
        in_query[...] = 0
        return
    num, width = len(query), len(queries.rows)
    exponents = scratch.take("exponents", num, width)
    bound = queries.fill(queries.units(query, scratch), exponents)
    unshifted = readout.ordinary and bound <= limits.limit
    if unshifted:  # the largest weight is 1, so that no denominator is below e^{-B}
        weights, weighted = readout.weights, readout.weighted
    else:
        exponents += readout.log_weight
        exponents -= exponents.max(axis=1, keepdims=True)
        weights, weighted = np.ones(width, exponents.dtype), readout.means
    features = limits.features(exponents, bound if unshifted else np.inf)
    total = features @ weights
    inner = scratch.take("gradients", num, weighted.shape[-1] + 1)
    np.divide(gradient, total[:, None], out=inner[:, :-1])
    if dot is None:
        outputs = np.matmul(features, weighted, out=scratch.take("outputs", num, weighted.shape[-1]))
        dot = np.vecdot(inner[:, :-1], outputs)
    np.divide(-dot, total, out=inner[:, -1])
    slopes = np.matmul(inner[:, :-1], weighted.T, out=scratch.take("slopes", num, width))
    slopes += inner[:, -1:] * weights
    slopes *= features
    np.matmul(slopes, queries.rows, out=in_query)
    in_query *= queries.factor / limits.exponent_unit
    table += (features.T @ inner) * weights[:, None]


@dataclass(frozen=True, eq=False)
class KeySource:
    """Tables that keys of one head read in the backward sweep: `Q` (m, dv + 1), and logs of the sums over keys (m,).

    `scaled` is Q times `power(reference - log_total)`, for keys that need no shift; None where it is out of range.
    """

    log_total: np.ndarray
    table: np.ndarray
    reference: float
    scaled: np.ndarray | None

    @classmethod
    def of(cls, sums: Sums, table: np.ndarray, keys: Exponents) -> "KeySource":
        """The source made of the sums over all keys and the table `Q` of all queries."""
        limits = keys.limits
        with np.errstate(divide="ignore"):
            log_total = sums.shift + np.log(sums.total) * sums.total.dtype.type(limits.exponent_unit)
        log_total[log_total == -np.inf] = np.inf  # no key has a share in nothing
        low, high = log_total.min(), log_total.max()
        reference, scaled = 0.0, None
        if high < np.inf and high - low <= 2 * limits.limit and np.abs(table).max() <= limits.largest_value:
            reference = float(low + high) / 2
            scaled = table * limits.power(log_total.dtype.type(reference) - log_total)[:, None]
        return cls(log_total, table, reference, scaled)


def source_task(work: Backward, sources: list[KeySource], which: int, start: int, stop: int, scratch: Scratch) -> None:
    """Write the gradients in one interval of the keys and values of one head."""
    heads, index = work.heads, work.heads.indices[which]
    arrays = [x[index] for x in (heads.key, heads.value, work.in_key, work.in_value)]
    for first, last in intervals(start, stop, heads.block_rows):
        key, value, in_key, in_value = (x[first:last] for x in arrays)
        present = None if heads.mask is None else heads.mask[index][first:last]
        if present is None or present.all():
            pull_keys(heads.keys[which], sources[which], key, value, in_key, in_value, scratch)
        elif present.any():
            some, some_values = (np.empty_like(x[present]) for x in (in_key, in_value))
            pull_keys(heads.keys[which], sources[which], key[present], value[present], some, some_values, scratch)
            in_key[present], in_value[present] = some, some_values
        for x in (in_key, in_value):
            np.ldexp(x, work.exponent, out=x)


def pull_keys(
    keys: Exponents,
    source: KeySource,
    key: np.ndarray,
    value: np.ndarray,
    in_key: np.ndarray,
    in_value: np.ndarray,
    scratch: Scratch,
) -> None:
    """Write the gradients in one block of keys (n, d) and values (n, dv)."""
    limits, num, width = keys.limits, len(key), len(keys.rows)
    units = keys.units(key, scratch)
    per_row, row_slope = keys.per_row(units), keys.form.row_slope(units)
    exponents = scratch.take("exponents", num, width)
    bound = keys.fill(units, exponents)
    table, factor = source.scaled, None
    if table is not None and bound <= limits.limit and moderate(value, limits).all():
        factor = limits.power(per_row - per_row.dtype.type(source.reference))[:, None]
    else:
        table = source.table
        exponents += per_row[:, None]
        exponents -= source.log_total
    features = limits.features(exponents, np.inf if factor is None else bound)
    np.matmul(features, table[:, :-1], out=in_value)
    slopes = np.matmul(value, table[:, :-1].T, out=scratch.take("slopes", num, width))
    slopes += table[:, -1]
    slopes *= features
    np.matmul(slopes, keys.rows, out=in_key)
    in_key /= limits.exponent_unit
    in_key += (slopes @ np.ones(width, slopes.dtype))[:, None] * row_slope
    if factor is not None:
        in_key *= factor
        in_value *= factor
    in_key *= keys.factor


def causal_task(work: Backward, offset: int, which: int, scratch: Scratch) -> None:
    """One head: a forward sweep for all queries that read it, then a backward sweep for each of them."""
    heads, targets = work.heads, work.heads.targets[which]
    head = work.causal_head(which)
    if work.output is not None:
        for kept, gradient, target in zip(head.kept, head.gradients, targets, strict=True):
            kept[:, 1] = np.vecdot(gradient, work.output[target])
    sums, known = heads.initial_sums(which), work.output is not None
    found = head.run_at(offset, sums, QuerySweep, scratch, known=known)
    work.finish_causally(which, found)


def window_task(work: Backward, window: Window, which: int, scratch: Scratch) -> None:
    """One head: its outputs, whose denominators are kept, then the gradients by the same parts."""
    heads, head = work.heads, work.causal_head(which)
    outputs = [PartialRows.in_memory_of(np.empty_like(gradient)) for gradient in head.gradients]
    exact = attend_parts(heads, window, which, outputs, scratch)
    limits, num_keys = head.query_side.limits, len(head.key)
    unit, logs = limits.exponent_unit, []
    for query, gradient, kept, output in zip(head.queries, head.gradients, head.kept, outputs, strict=True):
        log_total = np.log(output.total) * output.total.dtype.type(unit) + output.log_scale
        log_total[output.log_scale == -np.inf] = np.inf
        logs.append(log_total)
        output.normalize()
        kept[:, 0] = log_total - head.query_side.per_row(query * query.dtype.type(head.query_side.factor))
        kept[:, 1] = np.vecdot(gradient, output.numerator)
    num_sinks = window.sinks(num_keys)
    far = head.of_keys(slice(num_sinks, None))
    sums = heads.initial_sums(which)
    in_queries = far.run_at(window.offset_before(num_keys), sums, FarQuerySweep, scratch, known=True)
    if not window.is_causal:
        offset = window.offset_after(len(head.queries[0]), num_keys)
        nothing = Sums.empty(*heads.sum_shape, heads.dtype)
        more = far.reversed().run_at(offset, nothing, FarQuerySweep, scratch, known=True)
        for in_query, other in zip(in_queries, more, strict=True):
            in_query += other[::-1]
    for number, in_query in enumerate(in_queries):
        asking = head.queries[number], head.gradients[number], logs[number], head.kept[number][:, 1]
        exact.pull_back(*asking, in_query, head.in_key, head.in_value, scratch)
    work.finish_causally(which, in_queries)
