"""clustered_attention: softmax attention by heaviest keys and merged keys for each cluster of queries."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from randfeat._array import Array, as_bool, as_count, as_generator, device_of, from_host, host_twins, namespace
from randfeat._hints import hinted
from randfeat._numpy.threads import resolve_num_threads, run_tasks
from randfeat.attention.exact import exact_outputs
from randfeat.attention.inputs import Inputs
from randfeat.attention.relations import Plain
from randfeat.compressed.clusters import Clusters, fit_clusters
from randfeat.compressed.generic import Stack, device_tables, read_device_tables
from randfeat.compressed.heads import Head, check_query_mask, heads_of
from randfeat.compressed.plan import plan_of
from randfeat.compressed.query_clusters import QueryClusters, padded
from randfeat.compressed.tables import read_tables, tables_of
from randfeat.kernels import SoftmaxKernel

DEFAULT_CLUSTERS = 21


@hinted
def clustered_attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    num_clusters: int | None = None,
    num_exact: int | None = None,
    num_merged: int | None = None,
    clusters: QueryClusters | None = None,
    second_order: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    query_mask: Any = None,
    enable_gqa: bool = False,
    layout: str = "bhld",
    num_threads: int | None = None,
    rng: Any = 0,
) -> Array:
    """Softmax attention in linear time, by clusters of queries: accurate on trained heads, without calibration.

    The queries are divided into C clusters. For the center c of a cluster, the keys with the b largest logits are read
    as they are, and all other keys are merged into g groups h, with weights `exp(c·k_j)`:

        out_i = softmax({q_i·k_j : j near} ∪ {(q_i - c)·k̂_h + log Σ_{j∈h} exp(c·k_j)}) (v_j, v̂_h)

    So the logit of a group is expanded to first order around the center. All logits are times `scale`.

    Parameters
    ----------
    query : (..., L, d).
        L queries. The leading dimensions are free and include the heads.
    key : (..., S, d).
        S keys.
    value : (..., S, dv).
        One value for each key.
    num_clusters : int.
        C, 21 by default. Time and memory grow in proportion.
    num_exact, num_merged : int.
        b and g, 2 C by default. For few queries on many keys, raise `num_exact` (100 to 400) instead of C.
    clusters : QueryClusters.
        Clusters that were fitted before, to other queries; then `num_clusters`, `num_merged`, `scale` and `rng` are
        theirs. By default the clusters are fitted to the queries and keys of the call.
    second_order : bool.
        If True, the logit of a group also gets the second-order term `min(½ variance |q - c|², 1)`: errors are 4 to 6 %
        lower.
    scale : float.
        Factor of the logits, 1/√d by default.
    key_mask, query_mask : bool, True = take part.
        Masked keys are as if they were not there. Masked queries (padding) have no influence on the clusters.
    enable_gqa : bool.
        If True, the query heads (dimension -3) of a group share the clusters and tables of their key head.
    layout : "bhld" or "blhd".
        "blhd" has query, key, value and output as (..., L, heads, d). Masks are as in "bhld".
    num_threads : int.
        Threads for NumPy arrays; the output does not depend on it.
    rng : see `Estimator.draw`.
        Of the k-means starts. The default 0 makes the output a function of the inputs.

    Returns
    -------
    (..., L, dv) in the dtype of `value`: convex combinations of the values, for all logits, without an epsilon.

    Exact where `num_exact` is at least the number of keys, and where exact attention takes fewer operations, which is
    so up to about 7 C queries and keys. Otherwise the error depends on the head: measure it with `output_error`. The
    worst case are heads in which every query has a key of its own, far from all others.
    float16 and bfloat16 are computed in float32. Gradients in query, key and value hold the fit constant.

    Not for causal attention: clusters that are fitted to a sequence have seen all of it.

    Source: Vyas, Katharopoulos, Fleuret 2020, "Fast Transformers with Clustered Attention", for clusters of queries and
        their heaviest keys; merged keys with a first-order logit are new here.

    >>> import numpy as np, randfeat as rf
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 1000, 4))
    >>> out = rf.clustered_attention(q, k, v, num_clusters=21)
    >>> exact = rf.softmax_attention(q, k, v)
    >>> bool(np.linalg.norm(out - exact) < 0.2 * np.linalg.norm(exact))
    True
    """
    second_order = as_bool(second_order, "second_order")
    if clusters is not None:
        scale = shared_scale(clusters, scale, num_clusters, num_merged)
    inputs = Inputs.of(
        query, key, value, kernel=SoftmaxKernel(), scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, layout=layout
    )
    options = Options.of(num_clusters, num_exact, num_merged, clusters, second_order=second_order)
    used = check_query_mask(query_mask, inputs)
    if num_threads is not None:
        num_threads = resolve_num_threads(num_threads)
    if options.is_dearer_than_exact(inputs) or 0 in inputs.query.shape[:-1]:
        return inputs.restore(exact_outputs(inputs, Plain(), SoftmaxKernel()))
    host, generator = on_host_if_possible(inputs), as_generator(rng)
    if host is None:
        return inputs.restore([attend_on_device(inputs, used, options, generator)])
    output = attend_on_host(host, used, options, generator, num_threads)
    return inputs.restore([output if host is inputs else from_host(output, inputs.value)])


@dataclass(frozen=True, eq=False)
class Options:
    """Numbers of clusters, of keys as they are, and of merged keys; `frozen` are clusters that were fitted before."""

    num_clusters: int
    num_exact: int
    num_merged: int
    second_order: bool
    frozen: QueryClusters | None

    @classmethod
    def of(
        cls,
        num_clusters: int | None,
        num_exact: int | None,
        num_merged: int | None,
        frozen: QueryClusters | None,
        *,
        second_order: bool,
    ) -> "Options":
        """The options of a call, with the defaults C = 21 and b = g = 2 C."""
        if frozen is not None:
            number, groups = frozen.num_clusters, frozen.key_centers.shape[-2]
        else:
            number = DEFAULT_CLUSTERS if num_clusters is None else as_count(num_clusters, "num_clusters")
            groups = 2 * number if num_merged is None else as_count(num_merged, "num_merged")
        near = 2 * number if num_exact is None else as_count(num_exact, "num_exact")
        return cls(number, near, groups, second_order, frozen)

    def is_dearer_than_exact(self, inputs: Inputs) -> bool:
        """Whether exact attention takes fewer multiplications, or all keys would be read as they are.

        Multiplications are counted for each unit of d, of assignments and reads for each query, and of logits, sums and
        labels for each key.
        """
        length, num_keys = inputs.num_queries * (inputs.group or 1), inputs.num_keys
        for_query = self.num_clusters + 2 * (self.num_exact + self.num_merged)
        for_key = 3 * self.num_clusters + self.num_merged
        work = length * for_query + num_keys * for_key
        return self.num_exact >= num_keys or work >= 2 * length * num_keys

    def clusters_of(self, head: Head, index: tuple[int, ...], generator: np.random.Generator) -> Clusters:
        """The clusters of a head, fitted to a query 0 and a key 0 where all are masked."""
        if self.frozen is not None:
            return self.frozen.of_head(index)
        queries = head.references if len(head.references) else np.zeros_like(head.queries[:1])
        keys = head.rows.keys if len(head.rows) else np.zeros_like(queries[:1])
        fitted = fit_clusters(queries, keys, self.num_clusters, self.num_merged, generator)
        return padded(fitted, self.num_clusters, self.num_merged)


def on_host_if_possible(inputs: Inputs) -> Inputs | None:
    """The inputs as NumPy arrays in the computing dtype, without a copy of float32 and float64; None for others."""
    if isinstance(inputs.value, np.ndarray):
        return inputs
    wide = inputs.computing()
    twins = host_twins(wide.query, wide.key, wide.value, wide.key_mask)
    if twins is None:
        return None
    query, key, value, mask = twins
    return replace(wide, query=query, key=key, value=value, key_mask=mask)


def attend_on_host(
    inputs: Inputs, used: np.ndarray | None, options: Options, generator: np.random.Generator, num_threads: int | None
) -> np.ndarray:
    """The outputs (..., L, dv), a task for each key head."""
    lead, heads = heads_of(inputs, used)
    check_batch(options.frozen, lead)
    queries = inputs.query.shape[len(inputs.query.shape) - (2 if inputs.group is None else 3) : -1]
    dtype, width = heads[0].rows.values.dtype if heads else inputs.value.dtype, inputs.value.shape[-1]
    outputs = np.empty((*lead, *queries, width), dtype)
    tasks = [
        partial(attend_head, outputs[index].reshape(-1, width), head, index, options, own)
        for index, head, own in zip(np.ndindex(lead), heads, generator.spawn(len(heads)), strict=True)
    ]
    run_tasks(tasks, lambda: None, resolve_num_threads(num_threads))
    return outputs


def attend_head(
    target: np.ndarray,
    head: Head,
    index: tuple[int, ...],
    options: Options,
    generator: np.random.Generator,
    _: None,
) -> None:
    """Write the outputs (n, dv) of one head; exact where it reads all its keys as they are."""
    if len(head.rows) == 0:
        target[:] = 0
    elif head.is_spoiled:
        target[:] = np.nan
    elif options.num_exact >= len(head.rows):
        target[:] = exact_head(head)
    else:
        clusters = options.clusters_of(head, index, generator)
        rows = head.rows.shifted(-clusters.key_mean)
        tables = tables_of(clusters, rows, options.num_exact, second_order=options.second_order)
        target[:] = read_tables(tables, clusters, head.queries, rows)


def exact_head(head: Head) -> np.ndarray:
    """Exact outputs (n, dv) of the queries of one head."""
    rows = head.rows
    inputs = Inputs(head.queries, rows.keys, rows.values, None, rows.values.dtype, None)
    return np.concatenate(exact_outputs(inputs, Plain(), SoftmaxKernel()))


def attend_on_device(
    inputs: Inputs, used: np.ndarray | None, options: Options, generator: np.random.Generator
) -> Array:
    """The outputs (..., L, dv), with the fit on the host and everything else in the library of the inputs."""
    xp, prepared = namespace(inputs.value), inputs.prepared()
    lead, heads = heads_of(inputs, used)
    check_batch(options.frozen, lead)
    plans = [
        plan_of(options.clusters_of(head, index, own), head, inputs.num_keys, options.num_exact)
        for index, head, own in zip(np.ndindex(lead), heads, generator.spawn(len(heads)), strict=True)
    ]
    query, key, value = prepared.query, prepared.key, prepared.value
    if used is not None:
        query = xp.where(xp.asarray(used, device=device_of(query))[..., None], query, xp.zeros_like(query))
    if inputs.group is not None:
        key, value = key[..., 0, :, :], value[..., 0, :, :]
    own_shape = tuple(query.shape[query.ndim - (2 if inputs.group is None else 3) :])
    query = xp.reshape(xp.broadcast_to(query, (*lead, *own_shape)), (len(heads), -1, own_shape[-1]))
    key, value = (
        xp.reshape(xp.broadcast_to(x, (*lead, *x.shape[-2:])), (len(heads), *x.shape[-2:])) for x in (key, value)
    )
    stack = Stack(plans, value)
    key = key - stack.numbers("key_mean")[:, None, :]
    tables = device_tables(stack, key, value, second_order=options.second_order)
    outputs = read_device_tables(stack, tables, query)
    return xp.reshape(outputs, (*lead, *own_shape[:-1], value.shape[-1]))


def shared_scale(clusters: Any, scale: float | None, num_clusters: int | None, num_merged: int | None) -> float | None:
    """The scale that the clusters were fitted for; an error if the call asks for something else."""
    if not isinstance(clusters, QueryClusters):
        raise TypeError(f"clusters must be QueryClusters, got {type(clusters).__name__}; QueryClusters.fit makes them.")
    for name, given, own in (
        ("num_clusters", num_clusters, clusters.num_clusters),
        ("num_merged", num_merged, clusters.key_centers.shape[-2]),
        ("scale", scale, clusters.scale),
    ):
        if given is not None and given != own:
            raise ValueError(f"clusters were fitted with {name} = {own}, got {given}; leave it out.")
    return clusters.scale


def check_batch(clusters: QueryClusters | None, lead: tuple[int, ...]) -> None:
    """ValueError if clusters were fitted for other heads."""
    if clusters is not None and clusters.batch_shape != lead:
        raise ValueError(f"clusters have batch_shape {clusters.batch_shape}, expected {lead}, that of the key heads.")
