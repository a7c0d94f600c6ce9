"""Relation: which keys a query sees, and with what weight beside the kernel; checked at the border."""

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from randfeat._array import (
    Array,
    as_floating,
    as_integers,
    cast,
    compute_dtype,
    device_of,
    host_to,
    is_on_host,
    namespace,
)
from randfeat.attention.decay import gate_logs, segment_sums
from randfeat.attention.inputs import AttentionInputs

__all__ = ["Relation", "relation_of"]

ALONE = ("decay", "key_ends", "relative_bias", "window")


@dataclass(frozen=True, eq=False)
class Relation:
    """Query i, at the position i + offset among the keys, and its keys; at most one of the arrays is not None."""

    is_causal: bool = False
    offset: int = 0
    key_ends: Array | None = None
    """(..., L): query i sees the keys j < key_ends_i."""
    log_gates: Array | None = None
    """(..., S or 1, 1 or f): logarithms of what the memory is multiplied by at each position."""
    bias: Array | None = None
    """(..., L + S - 1): entry j - i + L - 1 is added to the logarithm of the kernel."""
    window: int | None = None
    """Keys at a distance below it have their exact weights."""
    sequences: tuple[tuple[slice, slice], ...] | None = None
    """Packed sequences: the positions of the queries and of the keys of each."""

    @property
    def is_plain(self) -> bool:
        """Whether every query sees all keys, or causally those up to its own position, and nothing else is asked."""
        others = (self.key_ends, self.log_gates, self.bias, self.window, self.sequences)
        return self.offset == 0 and all(other is None for other in others)

    def log_weights(self, start: int, stop: int, inputs: AttentionInputs) -> Array | None:
        """What is added to the logarithm of the kernel for the queries from `start` to `stop`, `-inf` where unseen.

        For the exact references; None stands for zero. (A window changes nothing: the kernel is exact everywhere.)
        """
        like = inputs.query
        xp, device = namespace(like), {"device": device_of(like)}
        queries, keys = xp.arange(start, stop, **device)[:, None], xp.arange(inputs.num_keys, **device)[None, :]
        logs = None
        if self.log_gates is not None:
            logs = segment_sums(self.log_gates, start + self.offset, stop + self.offset, inputs.num_keys)
        if self.bias is not None:
            index = xp.reshape(keys - queries + (inputs.num_queries - 1), (-1,))
            logs = xp.take(self.bias, index, axis=-1)
            logs = xp.reshape(logs, (*self.bias.shape[:-1], stop - start, inputs.num_keys))
        seen = None
        if self.is_causal:
            seen = keys <= queries + self.offset
        if self.key_ends is not None:
            before_end = keys < self.key_ends[..., start:stop, None]
            seen = before_end if seen is None else seen & before_end
        if seen is None:
            return logs
        if logs is None:
            logs = xp.zeros((1, 1), dtype=like.dtype, **device)
        return xp.where(seen, logs, -xp.inf)


def relation_of(
    inputs: AttentionInputs,
    *,
    num_features: int | None = None,
    is_causal: bool = False,
    causal_offset: int = 0,
    key_lengths: Any = None,
    key_ends: Any = None,
    cu_seqlens: Any = None,
    decay: Any = None,
    relative_bias: Any = None,
    window: int | None = None,
    has_state: bool = False,
) -> Relation:
    """Check the options, each alone and against the others."""
    arguments = {"decay": decay, "key_ends": key_ends, "relative_bias": relative_bias, "window": window}
    given = [name for name in ALONE if arguments[name] is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} cannot be combined; give one of them.")
    offset = as_int(causal_offset, "causal_offset")
    if offset and not is_causal:
        raise ValueError("causal_offset needs is_causal=True: without it every query sees every key.")
    if decay is not None and not is_causal:
        raise ValueError("decay needs is_causal=True: it fades with the distance to the keys before a query.")
    if relative_bias is not None and has_state:
        raise ValueError("relative_bias has no state: initial_state and return_state are not possible with it.")
    if cu_seqlens is not None:
        refused = {"key_lengths": key_lengths is not None, "key_ends": key_ends is not None, "a state": has_state}
        for name, used in refused.items():
            if used:
                raise ValueError(f"cu_seqlens cannot be combined with {name}: every sequence has keys of its own.")
    gates = bias = ends = None
    if decay is not None:
        gates = gate_logs(decay, inputs, num_features)
        per_step = gates.shape[-2] != 1 or gates.shape[-1] != 1
        if per_step and not (offset >= 0 and offset + inputs.num_queries <= inputs.num_keys):
            raise ValueError(
                f"decay per position or feature needs every query at the position of a key: {inputs.num_queries} "
                f"queries with causal_offset {offset}, but {inputs.num_keys} keys."
            )
    if relative_bias is not None:
        bias = biases(relative_bias, inputs)
    if key_ends is not None:
        ends = prefix_ends(key_ends, inputs)
    if window is not None and as_int(window, "window") < 0:
        raise ValueError(f"window must not be negative, got {window}.")
    sequences = None if cu_seqlens is None else packed_sequences(cu_seqlens, inputs)
    return Relation(bool(is_causal), offset, ends, gates, bias, window, sequences)


def as_int(value: Any, name: str) -> int:
    """A Python integer."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, got {value!r}.")
    return int(value)


def biases(relative_bias: Any, inputs: AttentionInputs) -> Array:
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


def prefix_ends(key_ends: Any, inputs: AttentionInputs) -> Array:
    """The prefix of each query, laid out like the heads."""
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


def check_leading(name: str, shape: tuple[int, ...], inputs: AttentionInputs) -> None:
    """Leading dimensions that broadcast against those of queries and keys, without adding any."""
    lead = np.broadcast_shapes(inputs.query.shape[:-2], inputs.key.shape[:-2], inputs.value.shape[:-2])
    try:
        fits = np.broadcast_shapes(shape, lead) == lead
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} has leading dimensions {tuple(shape)}, expected ones that broadcast to {lead}.")


def packed_sequences(cu_seqlens: Any, inputs: AttentionInputs) -> tuple[tuple[slice, slice], ...]:
    """Offsets 0 = c_0 <= c_1 <= .. <= c_n = length, one list for queries and keys or a pair of lists, as slices."""
    is_pair = isinstance(cu_seqlens, tuple) and len(cu_seqlens) == 2 and not isinstance(cu_seqlens[0], numbers.Integral)
    both: Sequence[Any] = cu_seqlens if is_pair else (cu_seqlens, cu_seqlens)
    slices = []
    for offsets, side, length in zip(both, ("query", "key"), (inputs.num_queries, inputs.num_keys), strict=True):
        if not is_on_host(offsets):
            raise TypeError(
                f"cu_seqlens must be integers on the host (a list or NumPy array), got {type(offsets).__name__}: "
                "the shapes of the work depend on them."
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
