"""The work of clustered and of compressed attention, counted in pairs of queries or keys with centers and rows."""

import math

from randfeat.attention.cost_model.sizes import CLUSTERED, LEAST_REFERENCES, SWEEPS
from randfeat.attention.inputs import Inputs
from randfeat.attention.relations import Plain, Relation
from randfeat.attention.relations.work import Sizes, Work


def has_compressed_form(inputs: Inputs, relation: Relation) -> bool:
    """Whether compressed attention takes this call: all keys, or causally those up to the query, and masks of keys."""
    is_plain = type(relation) is Plain and relation.is_aligned and inputs.key_bias is None
    return is_plain and (not relation.is_causal or inputs.num_queries == inputs.num_keys)


def clustered_work(inputs: Inputs, num_clusters: int) -> Work:
    """C centers and their 4 C rows for each query; logits, sums and labels, 5 C in all, for each key."""
    sizes, dim = Sizes.of(inputs), inputs.key.shape[-1]
    queries, keys = sizes.query_heads * sizes.num_queries, sizes.key_heads * sizes.num_keys
    for_query = num_clusters * dim + 4 * num_clusters * sizes.dims
    for_key = 3 * num_clusters * dim + num_clusters * sizes.dims
    return {
        "compressed_call": sizes.key_heads,
        "compressed_pair": 5 * num_clusters * (queries + keys),
        "compressed_pair_dim": queries * for_query + keys * for_key + 3 * (queries + keys) * dim * dim,
    }


def compressed_work(inputs: Inputs, num_keys: int) -> Work:
    """References and labels for each key, k-means of some of them; D rows for each query."""
    sizes, dim = Sizes.of(inputs), inputs.key.shape[-1]
    queries, keys = sizes.query_heads * sizes.num_queries, sizes.key_heads * sizes.num_keys
    seen = SWEEPS * sizes.key_heads * min(sizes.num_keys, CLUSTERED * num_keys)
    for_key = max(2 * num_keys, LEAST_REFERENCES)
    return {
        "compressed_call": sizes.key_heads,
        "compressed_pair": keys * (for_key + num_keys) + (seen + queries) * num_keys,
        "compressed_pair_dim": keys * (for_key * dim + num_keys * sizes.dims + dim * dim)
        + (seen + queries) * num_keys * sizes.dims,
    }


def stream_work(inputs: Inputs, num_keys: int, window: int) -> Work:
    """D + w rows merged for 2 D references after each chunk of a causal stream; D + 1.5 w rows for each query."""
    sizes, dim = Sizes.of(inputs), inputs.key.shape[-1]
    chunks = math.ceil(sizes.num_keys / window)
    merged, rows = sizes.key_heads * chunks, num_keys + window
    pairs = max(2 * num_keys, LEAST_REFERENCES) + (1 + SWEEPS) * num_keys
    reads = sizes.query_heads * sizes.num_queries * (num_keys + 1.5 * window)
    return {
        "compressed_call": chunks,
        "compressed_pair": merged * pairs * rows + reads,
        "compressed_pair_dim": merged * rows * (pairs + 2 * num_keys + rows) * dim + reads * sizes.dims,
    }
