"""The attention function under audit, called with NumPy arrays, and measures of its deviations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import Array, as_host, cast

LEAD = (2, 3)  # batch, heads


@dataclass(frozen=True, eq=False)
class Subject:
    """The audited function, called with NumPy arrays whatever its own array library is."""

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
        """Relative rounding error allowed for sums over the keys."""
        return 16 * self.length * float(np.finfo(self.dtype).eps)

    def problem(self, rng: np.random.Generator, length: int | None = None) -> tuple[np.ndarray, ...]:
        """Random query, key and value with standard normal entries, rounded to the dtype and held in float64."""
        n = self.length if length is None else length
        shapes = ((*LEAD, n, self.dim), (*LEAD, n, self.dim), (*LEAD, n, self.value_dim))
        return tuple(rng.standard_normal(shape).astype(self.dtype).astype(np.float64) for shape in shapes)

    def arrays(self, *inputs: np.ndarray, dtype: str | None = None) -> list[Array]:
        """The inputs converted to the array library and dtype of the audited function."""
        kind = getattr(self.xp, self.dtype if dtype is None else dtype)
        return [self.xp.asarray(x.copy()) if x.dtype == bool else cast(self.xp.asarray(x.copy()), kind) for x in inputs]

    def call(self, *inputs: np.ndarray, fn: Callable[..., Any] | None = None, dtype: str | None = None) -> np.ndarray:
        """Output of the function (`fn`, or the audited one) as a float64 NumPy array."""
        return as_host((self.fn if fn is None else fn)(*self.arrays(*inputs, dtype=dtype)), "the output")

    def weights(self, query: np.ndarray, key: np.ndarray) -> np.ndarray:
        """Attention weights (..., L, S), found by passing unit vectors as values, dv keys at a time."""
        keys, columns = key.shape[-2], []
        for start in range(0, keys, self.value_dim):
            value = np.zeros((*LEAD, keys, self.value_dim))
            used = min(self.value_dim, keys - start)
            value[..., start : start + used, :used] = np.eye(used)
            columns.append(self.call(query, key, value)[..., :used])
        return np.concatenate(columns, axis=-1)


def largest(x: np.ndarray) -> float:
    """Largest absolute entry: 0 for an empty array, NaN if any entry is NaN."""
    return float(np.max(np.abs(x), initial=0.0))


def overshoot(output: np.ndarray, value: np.ndarray) -> float:
    """Largest excess of outputs beyond the range of their value column, relative to that range; NaN if not finite."""
    low, high = value.min(axis=-2, keepdims=True), value.max(axis=-2, keepdims=True)
    beyond = np.maximum(output - high, low - output) / (high - low)
    return float(np.max(np.maximum(beyond, 0.0))) if np.all(np.isfinite(output)) else float("nan")
