"""Packed: sequences of different lengths one behind the other, none of which sees another."""

import numbers
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np

from randfeat._array import device_of, is_known
from randfeat.attention.generic.passes import Passed
from randfeat.attention.inputs import Inputs
from randfeat.attention.relations.base import Relation, Setting
from randfeat.attention.relations.plain import Plain
from randfeat.attention.relations.work import Sizes, Work
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap


@dataclass(frozen=True, eq=False)
class Packed(Relation):
    """The same relation within each of several sequences.

    each : the relation of one of them. cuts : the positions of the queries and of the keys of each.
    """

    each: Relation = field(kw_only=True)
    cuts: tuple[tuple[slice, slice], ...] = field(kw_only=True)

    @classmethod
    def of(cls, option: Any, setting: Setting) -> Self:
        """Plain attention within each sequence."""
        each = Plain.of(None, setting)
        return cls(each.is_causal, each.offset, each=each, cuts=packed_sequences(option, setting.inputs))

    @property
    def has_exact_form(self) -> bool:
        return self.each.has_exact_form

    @property
    def exact_passes(self) -> int:
        return self.each.exact_passes

    @property
    def is_sequential(self) -> bool:
        return self.each.is_sequential

    def sequences(self, inputs: Inputs) -> Iterator[tuple[slice, Inputs, Relation]]:
        for queries, keys in self.cuts:
            yield queries, inputs.part(queries, keys), self.each.restricted(queries, keys, inputs.num_queries)

    def attend(self, inputs: Inputs, features: FeatureMap, state: AttentionState) -> Passed:
        outputs = []
        for _, part, relation in self.sequences(inputs):
            more, _ = relation.attend(part, features, state)
            outputs += more
        return outputs, state

    def exact_pairs(self, num_queries: int, num_keys: int, block: int) -> int:
        lengths = ((queries.stop - queries.start, keys.stop - keys.start) for queries, keys in self.cuts)
        return sum(self.each.exact_pairs(*pair, block) for pair in lengths)

    def linear_work(self, sizes: Sizes) -> Work:
        return self.each.linear_work(replace(sizes, num_sequences=len(self.cuts)))


def packed_sequences(cu_seqlens: Any, inputs: Inputs) -> tuple[tuple[slice, slice], ...]:
    """Offsets 0 = c_0 <= c_1 <= .. <= c_n = length, one list for queries and keys or a pair of lists, as slices."""
    is_pair = isinstance(cu_seqlens, tuple) and len(cu_seqlens) == 2 and not isinstance(cu_seqlens[0], numbers.Integral)
    both: Sequence[Any] = cu_seqlens if is_pair else (cu_seqlens, cu_seqlens)
    slices = []
    for offsets, side, length in zip(both, ("query", "key"), (inputs.num_queries, inputs.num_keys), strict=True):
        if not is_known(offsets):
            device = device_of(offsets)
            kind = type(offsets).__name__ + ("" if device is None else f" on {device}")
            raise TypeError(
                "cu_seqlens must be integers on the host (a list, a NumPy array, or an array of another library on the "
                f"CPU), got {kind}: the shapes of the work depend on them; copy it."
            )
        cuts = np.asarray(offsets)
        if cuts.dtype.kind not in "iu":
            raise TypeError(f"cu_seqlens must be integers, got dtype {cuts.dtype}.")
        if cuts.ndim != 1 or len(cuts) < 2 or cuts[0] != 0 or cuts[-1] != length or np.any(cuts[1:] < cuts[:-1]):
            raise ValueError(
                f"cu_seqlens must be non-decreasing offsets from 0 to the length of the {side}, {length}, "
                f"got {cuts.tolist()}."
            )
        slices.append([slice(int(a), int(b)) for a, b in pairwise(cuts)])
    if len(slices[0]) != len(slices[1]):
        raise ValueError(
            f"cu_seqlens must name as many sequences of queries as of keys, got {len(slices[0])} and {len(slices[1])}."
        )
    return tuple(zip(*slices, strict=True))
