"""Gates between the positions of a block of causal attention, chunk by chunk: what of a key is left at a later one."""

from dataclasses import dataclass

import numpy as np

from randfeat.attention.generic.gates import remaining
from randfeat.attention.numpy.chunk_group import up_to_own


@dataclass(frozen=True, eq=False)
class Fading:
    """Products of the gates g_t, which are at most 1, within chunks of c positions; one chunk stands for all alike.

    within (chunks, c, c) : `Π_{j < t <= i} g_t` for the pairs j <= i, zero for others. from_start (chunks, c) : of all
    gates of the chunk up to each position. Products, never quotients: a gate of 0 is as good as any other.
    """

    within: np.ndarray
    from_start: np.ndarray

    @classmethod
    def of(cls, log_gates: np.ndarray, num: int, chunk: int) -> "Fading":
        """From log g of `num` positions, (num,), or one that they share, (1,); nothing fades behind them."""
        gates = np.exp(log_gates)
        if len(gates) == 1 and num % chunk == 0:
            gates = np.repeat(gates, chunk)
        else:
            padded = np.ones(-(-num // chunk) * chunk, gates.dtype)
            padded[:num] = gates
            gates = padded
        gates = gates.reshape(-1, chunk)
        steps = np.where(np.tri(chunk, k=-1, dtype=bool), gates[..., None], 1).astype(gates.dtype, copy=False)
        within = np.multiply.accumulate(steps, axis=-2)
        within *= up_to_own(chunk, within.dtype)
        return cls(within, np.multiply.accumulate(gates, axis=-1))

    @property
    def to_end(self) -> np.ndarray:
        """The share of each key that is left at the end of its chunk, (chunks, c)."""
        return self.within[:, -1]

    @property
    def of_chunk(self) -> np.ndarray:
        """The share of everything before a chunk that is left after it, (chunks,)."""
        return self.from_start[:, -1]

    def part(self, chunks: slice) -> "Fading":
        """The gates of some of the chunks."""
        return self if len(self.within) == 1 else Fading(self.within[chunks], self.from_start[chunks])


def log_remaining(log_gates: np.ndarray, num: int) -> tuple[np.ndarray, float]:
    """Logarithms of what is left of `num` keys after the last of them, (num,), and of everything before them."""
    logs = np.broadcast_to(log_gates, (num,))[:, None]
    later = remaining(logs)[:, 0]
    return later, float(later[0] + logs[0, 0])
