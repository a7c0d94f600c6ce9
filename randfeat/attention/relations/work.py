"""The work of attention in the units of the cost model's rates."""

import math
from dataclasses import dataclass

import numpy as np

from randfeat.attention.inputs import Inputs
from randfeat.maps import FeatureMap

Work = dict[str, float]
"""How often each rate of `AttentionCosts` is paid, by its name."""


@dataclass(frozen=True)
class Sizes:
    """The numbers that work depends on. Key heads are those of what is summed over the keys."""

    query_heads: int
    key_heads: int
    num_queries: int
    num_keys: int
    dims: int
    """d + dv."""
    value_dim: int
    num_features: int = 0
    is_masked: bool = False
    num_sequences: int = 1

    @classmethod
    def of(cls, inputs: Inputs, features: FeatureMap | None = None) -> "Sizes":
        """The sizes of linear attention with `features`, or of exact attention without."""
        query_lead, dims = inputs.query.shape[:-2], inputs.key.shape[-1] + inputs.value.shape[-1]
        if features is None:
            lead = np.broadcast_shapes(inputs.key.shape[:-2], inputs.value.shape[:-2])
        else:
            lead = inputs.leading_shape(features)
        return cls(
            query_heads=math.prod(np.broadcast_shapes(query_lead, lead)),
            key_heads=math.prod(lead),
            num_queries=inputs.num_queries,
            num_keys=inputs.num_keys,
            dims=dims,
            value_dim=inputs.value.shape[-1],
            num_features=0 if features is None else features.num_features,
            is_masked=inputs.key_mask is not None,
        )


def pair_work(sizes: Sizes, pairs: int, *, passes: int) -> Work:
    """The work of exact weights of `pairs` of a query and a key, with passes over them for masks and relations."""
    passes += sizes.is_masked
    return {"exact_pair": pairs, "exact_pair_dim": pairs * sizes.dims, "exact_pass": pairs * passes}


def feature_work(sizes: Sizes, rows: int, *, is_causal: bool) -> Work:
    """The work of features of `rows` queries and keys, and their products with values."""
    numbers = rows * sizes.num_features
    return {
        "linear_call": sizes.num_sequences,
        "linear_head": sizes.key_heads,
        "feature": numbers,
        "feature_dim": numbers * sizes.dims,
        "causal_feature": numbers * is_causal,
    }
