"""Bias: weights by relative position, `e^{b_{j-i}} K̂_ij`, as Toeplitz products."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

from randfeat._array import Array, as_floating, cast, compute_dtype, device_of, host_to, is_on_host, namespace
from randfeat.attention.generic.chunks import pad, pad_keys, pad_queries
from randfeat.attention.generic.passes import Passed, keys_of
from randfeat.attention.generic.toeplitz import causal_toeplitz, transform_square
from randfeat.attention.inputs import Inputs
from randfeat.attention.partial import PartialOutput
from randfeat.attention.relations.base import Relation, Setting, check_leading, positions
from randfeat.attention.relations.work import Sizes, Work, feature_work
from randfeat.attention.state import AttentionState
from randfeat.features import Features
from randfeat.maps import FeatureMap


@dataclass(frozen=True, eq=False)
class Bias(Relation):
    """Key j has the factor `exp(table[j - i + L - 1])` at query i; table (..., L + S - 1)."""

    table: Array = field(kw_only=True)

    @classmethod
    def of(cls, option: Any, setting: Setting) -> Self:
        if setting.has_state:
            raise ValueError("relative_bias has no state: initial_state and return_state are not possible with it.")
        return cls(setting.is_causal, setting.offset, table=bias_table(option, setting.inputs))

    @property
    def exact_passes(self) -> int:
        return 2

    def restricted(self, queries: slice, keys: slice, num_queries: int) -> Relation:
        middle = num_queries - 1
        first, last = middle - (queries.stop - queries.start - 1), middle + (keys.stop - keys.start)
        return replace(self, table=self.table[..., first : max(first, last)])

    def log_factors(self, start: int, stop: int, inputs: Inputs) -> Array | None:
        xp = namespace(self.table)
        queries, keys = positions(start, stop, inputs)
        index = xp.reshape(keys - queries + (inputs.num_queries - 1), (-1,))
        logs = xp.take(self.table, index, axis=-1)
        return xp.reshape(logs, (*self.table.shape[:-1], stop - start, inputs.num_keys))

    def attend(self, inputs: Inputs, features: FeatureMap, state: AttentionState) -> Passed:
        """Attention by Toeplitz products, time O(L f dv log L), a further log L if causal.

        The memory is the features of all positions, and in addition positions × GROUP × dv numbers.

        The largest bias is subtracted from all biases first. Transforms are accurate only relative to the largest
        product: a weight that is smaller by a factor of more than e^16 in float32 (e^36 in float64) is lost. If a row
        has only such weights, its output is rounding noise, which may be negative.

        Causal outputs do not depend on later keys, because each transform contains only keys that are seen by all
        queries of this transform.

        Source: Luo et al. 2021, "Stable, Fast and Accurate: Kernelized Attention with Relative Positional Encoding".
        """
        bias, num_queries, num_keys = self.table, inputs.num_queries, inputs.num_keys
        queries = features.queries(inputs.query)
        key, values, mask = inputs.key_columns
        keys = keys_of(features, key, mask)
        if not self.is_causal or not num_queries or not num_keys:
            return [transform_square(queries, keys, values, bias)], state
        before = min(max(self.offset, 0), num_keys)  # keys that every query sees
        ahead = min(max(-self.offset, 0), num_queries)  # queries that see no key
        both = min(num_queries - ahead, num_keys - before)
        to_all = bias[..., : num_queries + before - 1]
        seen = transform_square(queries, rows(keys, 0, before), values[..., :before, :], to_all)
        zero = num_queries - 1 + before - ahead  # index of the bias of query `ahead` and key `before`
        length = num_queries - ahead
        if both == 0 or length == 0:
            return [seen], state
        size = 1 << (length - 1).bit_length()
        past = bias[..., zero - length + 1 : zero + 1]
        filler = namespace(bias).zeros((*bias.shape[:-1], size - length), dtype=bias.dtype, device=device_of(bias))
        past = namespace(bias).concat([filler, past], axis=-1)  # of -(size - 1) .. 0
        causal = causal_toeplitz(
            pad_queries(rows(queries, ahead, num_queries), size),
            pad_keys(rows(keys, before, before + both), size),
            pad(values[..., before : before + both, :], size, 0.0),
            past,
        ).first(length)
        if not ahead:
            return [seen.merge(causal)], state
        return [seen.first(ahead), seen_from(seen, ahead).merge(causal)], state

    def linear_work(self, sizes: Sizes) -> Work:
        halvings = max(sizes.num_queries + sizes.num_keys - 2, 1).bit_length()
        width = sizes.num_features * (sizes.value_dim + 1)
        squares = max(sizes.num_queries - 1, 1).bit_length() if self.is_causal else 1
        rows = sizes.query_heads * sizes.num_queries + sizes.key_heads * sizes.num_keys
        transforms: Work = {"transform": sizes.key_heads * width * 2.0**halvings * halvings * squares}
        return transforms | feature_work(sizes, rows, is_causal=False)


def bias_table(relative_bias: Any, inputs: Inputs) -> Array:
    """The table of weights by relative position, laid out like the heads."""
    on_host = is_on_host(relative_bias)
    bias = as_floating(relative_bias, "relative_bias")
    bias = host_to(bias, inputs.query) if on_host else cast(bias, compute_dtype(namespace(bias), inputs.query.dtype))
    expected = max(inputs.num_queries + inputs.num_keys - 1, 0)
    depth = inputs.key.ndim - (inputs.group is not None)
    if not 1 <= bias.ndim <= depth - 1 or bias.shape[-1] != expected:
        raise ValueError(
            f"relative_bias must have shape (..., L + S - 1) = (..., {expected}), its entry j - i + L - 1 for query i "
            f"and key j, one table for all or one for each head, got {tuple(bias.shape)}."
        )
    bias = inputs.per_head(bias, 1, "relative_bias")
    check_leading("relative_bias", bias.shape[:-1], inputs)
    return bias


def rows(features: Features, start: int, stop: int) -> Features:
    """The features of the rows from `start` to `stop`."""
    return Features(features.values[..., start:stop, :], features.log_scale[..., start:stop, :])


def seen_from(partial: PartialOutput, start: int) -> PartialOutput:
    """The outputs of the queries from `start` on."""
    return PartialOutput(*(x[..., start:, :] for x in partial.columns))
