"""Prefix: query i sees the keys j < key_ends_i, of any order."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from randfeat._array import Array, as_integers, device_of, is_on_host, namespace
from randfeat.attention.generic.passes import Passed, causal_pass
from randfeat.attention.inputs import Inputs
from randfeat.attention.partial import PartialOutput
from randfeat.attention.relations.base import Relation, Setting, check_leading
from randfeat.attention.relations.work import Sizes, Work, feature_work
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap


@dataclass(frozen=True, eq=False)
class Prefix(Relation):
    """Query i sees the keys j < key_ends_i, and with `is_causal` none behind its own position; key_ends (..., L)."""

    key_ends: Array = field(kw_only=True)

    @classmethod
    def of(cls, option: Any, setting: Setting) -> Self:
        return cls(setting.is_causal, setting.offset, key_ends=prefix_ends(option, setting.inputs))

    @property
    def exact_passes(self) -> int:
        return 2

    @property
    def is_sequential(self) -> bool:
        return True

    def visible(self, start: int, stop: int, inputs: Inputs) -> Array | None:
        causal = super().visible(start, stop, inputs)
        keys = namespace(inputs.query).arange(inputs.num_keys, device=device_of(inputs.query))[None, :]
        before_end = keys < self.key_ends[..., start:stop, None]
        return before_end if causal is None else causal & before_end

    def attend(self, inputs: Inputs, features: FeatureMap, state: AttentionState) -> Passed:
        """Causal attention over queries and keys merged into one sequence: query i follows key `key_ends_i - 1`.

        A stable sort of the positions brings every query behind the last key that it sees; slots of keys have a query
        that nobody reads, and slots of queries an absent key. Shapes do not depend on the ends, which are never looked
        at. It costs as much as causal attention over L + S positions, and as many features of queries as of keys.
        """
        xp, ends = namespace(inputs.query), self.key_ends
        device = {"device": device_of(inputs.query)}
        num_queries, num_keys = inputs.num_queries, inputs.num_keys
        if self.is_causal:
            ends = xp.minimum(ends, xp.arange(num_queries, **device) + (self.offset + 1))
        keys = xp.broadcast_to(2 * xp.arange(num_keys, **device) + 1, (*ends.shape[:-1], num_keys))
        order = xp.argsort(xp.concat([2 * ends, keys], axis=-1), axis=-1, stable=True)
        place = xp.argsort(order, axis=-1, stable=True)[..., :num_queries]  # of each query
        mask = inputs.key_mask
        if mask is None:
            mask = xp.ones((num_keys,), dtype=xp.bool, **device)
        mask = zeros_before(mask, num_queries)
        bias = None if inputs.key_bias is None else rows(zeros_before(inputs.key_bias, num_queries)[..., None], order)
        merged = replace(
            inputs,
            query=rows(beside(inputs.query, num_keys, first=True), order),
            key=rows(beside(inputs.key, num_queries, first=False), order),
            value=rows(beside(inputs.value, num_queries, first=False), order),
            key_mask=rows(mask[..., None], order)[..., 0],
            key_bias=None if bias is None else bias[..., 0],
        )
        outputs, state = causal_pass(merged, features, state)
        whole = PartialOutput.concat(outputs)
        return [PartialOutput(*(rows(x, place) for x in whole.columns))], state

    def linear_work(self, sizes: Sizes) -> Work:
        return feature_work(sizes, 2 * sizes.query_heads * (sizes.num_queries + sizes.num_keys), is_causal=True)


def prefix_ends(key_ends: Any, inputs: Inputs) -> Array:
    """The length of each query's prefix, laid out like the heads."""
    given = np.asarray(key_ends) if is_on_host(key_ends) else None
    ends = as_integers(key_ends, "key_ends", inputs.query)
    depth = inputs.query.ndim - (inputs.group is not None)
    if not 1 <= ends.ndim <= depth - 1 or ends.shape[-1] != inputs.num_queries:
        raise ValueError(
            f"key_ends must have shape ({inputs.num_queries},) or (..., heads, {inputs.num_queries}), the number of "
            f"keys that each query sees, got {tuple(ends.shape)}."
        )
    if given is not None and given.size and (given.min() < 0 or given.max() > inputs.num_keys):
        raise ValueError(
            f"key_ends must be between 0 and the number of keys, {inputs.num_keys}, "
            f"got {int(given.min())} .. {int(given.max())}."
        )
    ends = inputs.per_head(ends, 1, "key_ends")
    check_leading("key_ends", ends.shape[:-1], inputs)
    return ends


def beside(x: Array, num: int, *, first: bool) -> Array:
    """`x` (..., n, c) with `num` rows of zeros after it, or before it if `first` is false."""
    xp = namespace(x)
    zeros = xp.zeros((*x.shape[:-2], num, x.shape[-1]), dtype=x.dtype, device=device_of(x))
    return xp.concat([x, zeros] if first else [zeros, x], axis=-2)


def zeros_before(x: Array, num: int) -> Array:
    """`x` (..., k) with `num` entries of zero or False before it."""
    xp = namespace(x)
    return xp.concat([xp.zeros((*x.shape[:-1], num), dtype=x.dtype, device=device_of(x)), x], axis=-1)


def rows(x: Array, index: Array) -> Array:
    """The rows of `x` (..., n, c) at `index` (..., k), whose leading dimensions broadcast: (..., k, c)."""
    xp = namespace(x)
    if index.ndim == 1:
        return xp.take(x, index, axis=-2)
    depth = max(x.ndim, index.ndim + 1)
    x, index = (xp.reshape(a, (*(1 for _ in range(depth - a.ndim)), *a.shape)) for a in (x, index[..., None]))
    lead = tuple(max(a, b) if a and b else 0 for a, b in zip(x.shape[:-2], index.shape[:-2], strict=True))
    x = xp.broadcast_to(x, (*lead, *x.shape[-2:]))
    return xp.take_along_axis(x, xp.broadcast_to(index, (*lead, index.shape[-2], x.shape[-1])), axis=-2)
