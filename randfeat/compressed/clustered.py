"""clustered_attention: softmax attention by heaviest keys and merged keys for each cluster of queries."""

from typing import Any

from randfeat._array import Array, as_bool, as_generator, from_host, own_precision
from randfeat._hints import hinted
from randfeat._numpy.threads import resolve_num_threads
from randfeat.attention.exact import exact_outputs
from randfeat.attention.inputs import Inputs
from randfeat.attention.relations import Plain
from randfeat.compressed.generic import attend_on_device
from randfeat.compressed.heads import check_loaded, check_query_mask, key_lead, on_host_if_possible
from randfeat.compressed.host import attend_on_host
from randfeat.compressed.options import Options, check_fit, shared_scale
from randfeat.compressed.query_clusters import QueryClusters
from randfeat.kernels import SoftmaxKernel


@hinted
def clustered_attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    num_clusters: int | None = None,
    num_exact: int | None = None,
    num_merged: int | None = None,
    accuracy: float | None = None,
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
    accuracy : float.
        An error to stay below, as `output_error` estimates it from 64 queries of each head: C = 4, 8, 16, .. are tried,
        and exact attention is used where all trials together would cost as much. It is no guarantee (see there), and
        pays from about 1000 queries on.
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
        Of the k-means starts. The default 0 makes the output a function of the inputs. Heads, along the last leading
        dimension, have random numbers of their own; sequences of a batch have the same.

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
    check_loaded(inputs)
    options = Options.of(num_clusters, num_exact, num_merged, clusters, accuracy, second_order=second_order)
    used = check_query_mask(query_mask, inputs)
    if num_threads is not None:
        num_threads = resolve_num_threads(num_threads)
    check_fit(clusters, inputs)
    as_generator(rng)  # checked at the border, also where exact attention needs none
    output, length = None, inputs.num_queries * (inputs.group or 1)
    is_empty = length == 0 or 0 in key_lead(inputs) or inputs.query.shape[-1] == 0
    if not (is_empty or options.is_dearer_than_exact(length, inputs.num_keys)):
        host = on_host_if_possible(inputs)
        if host is None:
            with own_precision(inputs.value):
                output = attend_on_device(inputs, used, options, rng)
        else:
            output = attend_on_host(host, used, options, rng, num_threads)
            output = output if host is inputs else from_host(output, inputs.value)
    return inputs.restore(exact_outputs(inputs, Plain(), SoftmaxKernel()) if output is None else [output])
