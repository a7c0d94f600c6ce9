"""Gates between positions, in the logarithm: what of a key is left at a later one."""

from randfeat._array import Array, cumulative_sum, namespace
from randfeat.attention.generic.causal import Square, attend_square, half
from randfeat.attention.partial import PartialOutput
from randfeat.features import Features


def gates_between(log_gates: Array, start: int, stop: int) -> Array:
    """Logarithms of the gates at `start` .. `stop - 1`: (..., stop - start, c)."""
    if log_gates.shape[-2] != 1:
        return log_gates[..., start:stop, :]
    shape = (*log_gates.shape[:-2], stop - start, log_gates.shape[-1])
    return namespace(log_gates).broadcast_to(log_gates, shape)


def vanishing(log_gates: Array) -> Array:
    """-inf for gates of 0, and 0 for all others: what gates do to a query where their common factor cancels."""
    xp = namespace(log_gates)
    return xp.where(log_gates == -xp.inf, log_gates, xp.zeros_like(log_gates))


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

    def square(queries: Features, keys: Features, values: Array) -> PartialOutput:
        size = values.shape[-2]
        to_border = remaining(half(log_gates, size, 0))
        from_border = cumulative_sum(half(log_gates, size, 1), -2)
        return attend_square(queries.scaled(from_border), keys.scaled(to_border), values)

    return square
