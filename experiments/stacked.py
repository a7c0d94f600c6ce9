"""Long inputs of trained heads: passages of a novel through MiniLM, their queries, keys and values one after the other.

Two heads of each layer, l and l + 6 of layer l, taken by this rule and not by their errors. MiniLM reads 512 tokens at
most, so positions start anew with every passage.
"""

import functools
from dataclasses import dataclass

import numpy as np

from experiments.minilm import load_minilm, softmax_attention
from experiments.texts import passage

TOKENS = 512
READ = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75)
"""Where the passages start that are stacked, as shares of the novel."""
OTHER = (0.80, 0.85, 0.90, 0.95)
"""Where the other passages start, of which queries are typical references."""
HEADS = tuple(f"L{layer}H{head}" for layer in range(6) for head in (layer, layer + 6))


@dataclass(frozen=True, eq=False)
class Stack:
    """query, key, value (12, n, 32), float32, of the heads in `HEADS`."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Query, key and value, in this order."""
        return self.query, self.key, self.value

    def part(self, start: int, stop: int) -> "Stack":
        """The positions from `start` to `stop`."""
        return Stack(*(x[:, start:stop] for x in self.arrays))


@functools.cache
def of_passage(share: float) -> Stack:
    """One passage of 512 tokens."""
    calls: list[tuple[np.ndarray, ...]] = []

    def record(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        calls.append((query, key, value))
        return softmax_attention(query, key, value)

    encoder = load_minilm()
    encoder.bert.run(encoder.tokens(passage(share, 8 * TOKENS), TOKENS), record)
    return Stack(*(np.stack([calls[h // 2][i][h // 2 + 6 * (h % 2)] for h in range(len(HEADS))]) for i in range(3)))


@functools.cache
def stacked(shares: tuple[float, ...], length: int) -> Stack:
    """The first `length` positions of these passages, one after the other."""
    needed = [of_passage(share) for share in shares[: -(-length // TOKENS)]]
    return Stack(
        *(np.concatenate(arrays, axis=1)[:, :length] for arrays in zip(*(x.arrays for x in needed), strict=True))
    )
