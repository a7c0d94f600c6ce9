"""Decay: what is remembered of a key fades by a factor at every later position."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from randfeat._array import (
    Array,
    as_floating,
    broadcast_shapes,
    cast,
    compute_dtype,
    cumulative_sum,
    device_of,
    host_to,
    is_compiling,
    is_on_host,
    log_of,
    namespace,
    repeats_to,
)
from randfeat.attention.generic.gates import gates_between, remaining, vanishing
from randfeat.attention.generic.passes import Passed, causal_pass
from randfeat.attention.inputs import Inputs
from randfeat.attention.relations.base import Relation, Setting
from randfeat.attention.state import AttentionState
from randfeat.kernels import Kernel
from randfeat.maps import FeatureMap


@dataclass(frozen=True, eq=False)
class Decay(Relation):
    """Key j has the factor `Π_{j < t <= i} g_t` at query i; gates g are one number, or by head, position and feature.

    log_gates (..., S or 1, 1 or f) : log g.
    """

    log_gates: Array = field(kw_only=True)

    @classmethod
    def of(cls, option: Any, setting: Setting) -> Self:
        if not setting.is_causal:
            raise ValueError("decay needs is_causal=True: it fades with the distance to the keys before a query.")
        inputs, offset = setting.inputs, setting.offset
        gates = gate_logs(option, inputs, setting.num_features)
        per_step = gates.shape[-2] != 1 or gates.shape[-1] != 1
        if per_step and not (offset >= 0 and offset + inputs.num_queries <= inputs.num_keys):
            raise ValueError(
                f"decay per position or feature needs every query at the position of a key: {inputs.num_queries} "
                f"queries with causal_offset {offset}, but {inputs.num_keys} keys."
            )
        return cls(True, offset, log_gates=gates)

    def has_fast_form(self, kernel: Kernel) -> bool:
        return self.has_exact_form

    @property
    def has_exact_form(self) -> bool:
        return bool(self.log_gates.shape[-1] == 1)

    @property
    def exact_passes(self) -> int:
        return 2

    def restricted(self, queries: slice, keys: slice, num_queries: int) -> Relation:
        return self if self.log_gates.shape[-2] == 1 else replace(self, log_gates=self.log_gates[..., keys, :])

    def attend(self, inputs: Inputs, features: FeatureMap, state: AttentionState) -> Passed:
        return causal_pass(inputs, features, state, offset=self.offset, log_gates=self.log_gates)

    def log_factors(self, start: int, stop: int, inputs: Inputs) -> Array | None:
        return segment_sums(self.log_gates, start + self.offset, stop + self.offset, inputs.num_keys)


def gate_logs(decay: Any, inputs: Inputs, num_features: int | None) -> Array:
    """Logarithms (..., S or 1, 1 or f) of the gates that a number, one per head, or one per position stand for.

    Features are None for exact kernels, which can only fade as a whole.
    """
    logs = logs_of(decay, inputs.query)
    depth = inputs.key.ndim - (inputs.group is not None)  # dimensions of key as it came
    shape, keys = tuple(logs.shape), inputs.num_keys
    widths = (1,) if num_features is None else (1, num_features)
    if len(shape) == depth and repeats_to(shape[-2], keys) and shape[-1] in widths:
        logs = inputs.per_head(logs, 2, "decay")
    elif len(shape) <= depth - 2:
        logs = inputs.per_head(logs[..., None, None], 2, "decay")
    else:
        raise ValueError(
            f"decay must be a number, one for each head, or one for each position, (..., {keys}, 1)"
            + ("" if num_features is None else f" or (..., {keys}, {num_features})")
            + f" with as many dimensions as key, got shape {shape}."
        )
    try:
        broadcast_shapes(logs.shape[:-2], inputs.query.shape[:-2], inputs.key.shape[:-2])
    except ValueError:
        raise ValueError(
            f"decay of shape {shape} does not fit the leading dimensions of query and key, "
            f"{tuple(inputs.query.shape[:-2])} and {tuple(inputs.key.shape[:-2])}."
        ) from None
    return logs


def logs_of(decay: Any, like: Array) -> Array:
    """Logarithms of numbers between 0 and 1 as an array like `like`, in its computing dtype."""
    xp = namespace(like)
    if isinstance(decay, float | int) and is_compiling(like):  # a compiler of PyTorch would trace NumPy, too
        if not 0 <= decay <= 1:
            raise ValueError("decay must be between 0 and 1.")  # the compiler may hold the number open
        log = math.log(decay) if decay else -math.inf
        return xp.full((), log, dtype=compute_dtype(xp, like.dtype), device=device_of(like))
    gates = as_floating(decay, "decay")
    if not is_on_host(decay):
        return log_of(cast(gates, compute_dtype(namespace(gates, like), like.dtype)))
    if not (np.all(gates >= 0) and np.all(gates <= 1)):
        raise ValueError(f"decay must be between 0 and 1, got {gates.min()} .. {gates.max()}.")
    return host_to(log_of(gates.astype(np.float64)), like)


def segment_sums(log_gates: Array, start: int, stop: int, num_keys: int) -> Array:
    """`Σ_{s=j+1..i} log g_s` for queries at the positions start .. stop - 1 and all keys: (..., n, k); 0 where j >= i.

    For the exact reference: quadratic, and summed without differences too. Behind the last key, the factor that all
    keys of a query share is left out, because it cancels; only a gate of 0 counts.
    """
    xp = namespace(log_gates)
    device = {"device": device_of(log_gates)}
    low, high = max(start, 0), min(stop, num_keys)
    zero = xp.zeros((*log_gates.shape[:-2], 1, 1), dtype=log_gates.dtype, **device)
    positions = xp.arange(num_keys, **device)
    gates = gates_between(log_gates, 0, num_keys)
    gates = xp.where(positions[:, None] == 0, zero, gates)  # the first gate lies between no two keys
    rows = []
    if num_keys and high > low:
        reached = gates[..., : low + 1, :]
        first = xp.matrix_transpose(remaining(reached))
        later = xp.broadcast_to(zero, (*first.shape[:-1], num_keys - low - 1))
        first = xp.concat([first, later], axis=-1)
        here = xp.arange(low + 1, high, **device)[:, None]
        steps = xp.where(positions[None, :] < here, gates[..., low + 1 : high, :], zero)
        rows = [cumulative_sum(xp.concat([first, steps], axis=-2), -2)]
    above = xp.broadcast_to(zero, (*zero.shape[:-2], min(max(-start, 0), stop - start), num_keys))
    below = max(stop - max(start, num_keys), 0)
    if below:
        last = xp.matrix_transpose(remaining(gates))
        if log_gates.shape[-2] == 1:
            last = last + vanishing(log_gates)
        rows.append(xp.broadcast_to(last, (*last.shape[:-2], below, num_keys)))
    return xp.concat([above, *rows], axis=-2)
