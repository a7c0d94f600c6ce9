"""Decay and gates: what was remembered fades by a factor at every position."""

from typing import Any

import numpy as np

from randfeat._array import Array, as_floating, cast, cumulative_sum, device_of, host_to, is_on_host, log_of, namespace
from randfeat.attention.causal import Square, attend_square, half
from randfeat.attention.inputs import AttentionInputs
from randfeat.attention.partial import PartialOutput
from randfeat.features import Features

__all__ = ["decayed_square", "gate_logs", "gates_between", "remaining", "segment_sums"]


def gate_logs(decay: Any, inputs: AttentionInputs, num_features: int | None) -> Array:
    """Logarithms (..., S or 1, 1 or f) of the gates that a number, one per head, or one per position stand for.

    Features are None for exact kernels, which can only fade as a whole.
    """
    on_host = is_on_host(decay)
    gates = as_floating(decay, "decay")
    if on_host and not (np.all(gates >= 0) and np.all(gates <= 1)):
        raise ValueError(f"decay must be between 0 and 1, got {gates.min()} .. {gates.max()}.")
    depth = inputs.key.ndim - (inputs.group is not None)  # dimensions of key as it came
    shape, keys = tuple(gates.shape), inputs.num_keys
    widths = (1,) if num_features is None else (1, num_features)
    if on_host:
        logs = host_to(log_of(gates.astype(np.float64)), inputs.query)
    else:
        namespace(gates, inputs.query)
        logs = log_of(cast(gates, inputs.query.dtype))
    if len(shape) == depth and shape[-2] in (1, keys) and shape[-1] in widths:
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
        np.broadcast_shapes(logs.shape[:-2], inputs.query.shape[:-2], inputs.key.shape[:-2])
    except ValueError:
        raise ValueError(
            f"decay of shape {shape} does not fit the leading dimensions of query and key, "
            f"{tuple(inputs.query.shape[:-2])} and {tuple(inputs.key.shape[:-2])}."
        ) from None
    return logs


def gates_between(log_gates: Array, start: int, stop: int) -> Array:
    """Logarithms of the gates at `start` .. `stop - 1`: (..., stop - start, c)."""
    if log_gates.shape[-2] != 1:
        return log_gates[..., start:stop, :]
    shape = (*log_gates.shape[:-2], stop - start, log_gates.shape[-1])
    return namespace(log_gates).broadcast_to(log_gates, shape)


def remaining(log_gates: Array) -> Array:
    """Sums of the gates' logarithms after each position: how much of what is stored there is left at the end."""
    xp = namespace(log_gates)
    if log_gates.shape[-2] == 0:
        return log_gates
    after = xp.concat([log_gates[..., 1:, :], xp.zeros_like(log_gates[..., :1, :])], axis=-2)
    return xp.flip(cumulative_sum(xp.flip(after, axis=-2), -2), axis=-2)


def decayed_square(log_gates: Array) -> Square:
    """Attention of second halves to first halves with the product of all gates between key and query.

    The product is cut at the border of the two halves: keys fade until it, queries from it. Both factors are products
    of gates, never quotients, so that nothing overflows, cancels, or is divided by a gate that has vanished.
    """

    def square(queries: Features, keys: Features, values: Array, size: int) -> PartialOutput:
        to_border = remaining(half(log_gates, size, 0))
        from_border = cumulative_sum(half(log_gates, size, 1), -2)
        return attend_square(queries.scaled(from_border), keys.scaled(to_border), values, size)

    return square


def segment_sums(log_gates: Array, start: int, stop: int, num_keys: int) -> Array:
    """`Σ_{s=j+1..i} log g_s` for queries at the positions start .. stop - 1 and all keys: (..., n, k); 0 where j >= i.

    For the exact reference: quadratic, and summed without differences too. Positions beyond the keys do not fade.
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
        rows.append(xp.broadcast_to(last, (*last.shape[:-2], below, num_keys)))
    return xp.concat([above, *rows], axis=-2)
