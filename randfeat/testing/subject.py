"""An attention function under audit: how it is called with NumPy arrays, and the sizes of deviations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import Array, as_host, cast

__all__ = ["LEAD", "Subject", "largest", "overshoot"]

LEAD = (2, 3)  # batch, heads


@dataclass(frozen=True, eq=False)
class Subject:
    """The function that is audited, and how to call it with NumPy arrays."""

    fn: Callable[..., Any]
    masked: Callable[..., Any] | None
    estimate: Callable[..., Any] | None
    xp: Any
    is_causal: bool
    scale: float
    dim: int
    value_dim: int
    length: int
    dtype: str

    @property
    def rounding(self) -> float:
        """Relative rounding of sums over the keys."""
        return 16 * self.length * float(np.finfo(self.dtype).eps)

    def problem(self, rng: np.random.Generator, length: int | None = None) -> tuple[np.ndarray, ...]:
        """Standard normal query, key and value, exact in the dtype."""
        n = self.length if length is None else length
        shapes = ((*LEAD, n, self.dim), (*LEAD, n, self.dim), (*LEAD, n, self.value_dim))
        return tuple(rng.standard_normal(shape).astype(self.dtype).astype(np.float64) for shape in shapes)

    def arrays(self, *inputs: np.ndarray, dtype: str | None = None) -> list[Array]:
        """The inputs in the library and dtype."""
        kind = getattr(self.xp, self.dtype if dtype is None else dtype)
        return [self.xp.asarray(x.copy()) if x.dtype == bool else cast(self.xp.asarray(x.copy()), kind) for x in inputs]

    def call(self, *inputs: np.ndarray, fn: Callable[..., Any] | None = None, dtype: str | None = None) -> np.ndarray:
        """The output, as float64."""
        return as_host((self.fn if fn is None else fn)(*self.arrays(*inputs, dtype=dtype)), "the output")

    def weights(self, query: np.ndarray, key: np.ndarray) -> np.ndarray:
        """The attention weights (..., L, S): outputs for unit vectors as values, dv keys at a time."""
        keys, columns = key.shape[-2], []
        for start in range(0, keys, self.value_dim):
            value = np.zeros((*LEAD, keys, self.value_dim))
            used = min(self.value_dim, keys - start)
            value[..., start : start + used, :used] = np.eye(used)
            columns.append(self.call(query, key, value)[..., :used])
        return np.concatenate(columns, axis=-1)


def largest(x: np.ndarray) -> float:
    """The largest absolute entry: NaN if there is one, 0 over nothing."""
    return float(np.max(np.abs(x), initial=0.0))


def overshoot(output: np.ndarray, value: np.ndarray) -> float:
    """How far outputs leave the range of their column of the values, relative to it; NaN if they are not finite."""
    low, high = value.min(axis=-2, keepdims=True), value.max(axis=-2, keepdims=True)
    beyond = np.maximum(output - high, low - output) / (high - low)
    return float(np.max(np.maximum(beyond, 0.0))) if np.all(np.isfinite(output)) else float("nan")
