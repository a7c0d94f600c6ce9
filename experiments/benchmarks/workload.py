"""The common inputs of all attention benchmarks: one batch, 8 heads, dimension 64, 256 features, float32."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf

__all__ = ["BATCH", "DIM", "FEATURES", "HEADS", "SHAPE", "Workload"]

BATCH, HEADS, DIM, FEATURES = 1, 8, 64, 256
SHAPE = f"B={BATCH} H={HEADS} d={DIM} m={FEATURES}, float32"


@dataclass(frozen=True, eq=False)
class Workload:
    """Queries, keys and values (b, h, n, d), contiguous, with a positive feature map for them."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    features: rf.FeatureMap

    @classmethod
    def of(cls, length: int, *, factor: float = 1.0) -> "Workload":
        """Standard normal inputs; queries and keys times `factor`. From about 2 on their exponentials need shifts."""
        rng = np.random.default_rng(0)
        query, key, value = (rng.standard_normal((BATCH, HEADS, length, DIM), dtype=np.float32) for _ in range(3))
        query *= np.float32(factor)
        key *= np.float32(factor)
        return cls(query, key, value, rf.PositiveFeatures().draw(DIM, FEATURES, rng=0, like=query))

    @property
    def rows(self) -> np.ndarray:
        """The projection (m, d)."""
        return self.features.arrays["rows"]

    def attend(self, *, is_causal: bool, num_threads: int | None = None) -> np.ndarray:
        return rf.linear_attention(
            self.query, self.key, self.value, self.features, is_causal=is_causal, num_threads=num_threads
        )

    def gradients(self, *, is_causal: bool, **known: Any) -> tuple[np.ndarray, ...]:
        """Vector-Jacobian product of linear attention; the values serve as the gradient of the output."""
        inputs = self.query, self.key, self.value, self.features, self.value
        return rf.linear_attention_vjp(*inputs, is_causal=is_causal, **known)

    def attend_and_differentiate(self, *, is_causal: bool) -> tuple[np.ndarray, ...]:
        """Forward pass, which keeps the output and (full attention) the state; then backward pass."""
        if is_causal:
            output = self.attend(is_causal=True)
            return output, *self.gradients(is_causal=True, output=output)
        inputs = self.query, self.key, self.value, self.features
        output, state = rf.linear_attention(*inputs, return_state=True)
        return output, *self.gradients(is_causal=False, output=output, final_state=state)
