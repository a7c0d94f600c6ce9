"""Cosines and sines of projections: what random Fourier features of every kernel share."""

import abc
import math
from typing import Any, Literal

import numpy as np

from randfeat._array import Array, Arrays, Drawn
from randfeat._hints import short
from randfeat.couplings.base import sampled_rows
from randfeat.estimators.base import Estimator
from randfeat.features import Features, FourierForm, one_per_row


class FourierEstimator(Estimator):
    """An estimator by angles `w_i·x`, with two variants.

    "pairs" are `[cos(w_i·x), sin(w_i·x)]_i / √m`, "phase" are `√(2/m) cos(w_i·x + b_i)`, b_i uniform on [0, 2π).
    """

    variant: Literal["pairs", "phase"]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in ("pairs", "phase"):
            raise ValueError(f"variant must be 'pairs' or 'phase', got {short(self.variant)}.")

    @property
    def features_per_row(self) -> int:
        return 2 if self.variant == "pairs" else 1

    def waves_per_row(self, dim: int | None) -> int:
        """The number of waves of one row."""
        return 1

    def num_features(self, num_rows: int, dim: int | None = None) -> int:
        return self.features_per_row * self.waves_per_row(dim) * num_rows

    def draw_rows(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> np.ndarray:
        """The rows w (*batch_shape, num_rows, dim)."""
        return sampled_rows(self._coupling, num_rows, dim, rng=rng, batch_shape=batch_shape)

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        """Rows, and independent phases where the variant has them."""
        arrays = {"rows": self.draw_rows(dim, num_rows, rng, batch_shape)}
        if self.variant == "phase":
            num_waves = num_rows * self.waves_per_row(dim)
            arrays["phases"] = rng.uniform(0.0, 2 * math.pi, size=(*batch_shape, 1, num_waves))
        return arrays

    @abc.abstractmethod
    def log_factor(self, x: Array) -> Array:
        """The logarithm of the factor before the waves, for inputs in kernel units: (..., n, d) -> (..., n, 1)."""

    @abc.abstractmethod
    def log_factor_slope(self, x: Array) -> Array:
        """The gradient of `log_factor`: (..., n, d)."""

    def fourier_form(self, arrays: Arrays) -> FourierForm | None:
        rows, phases = arrays["rows"], arrays.get("phases")
        amplitude = 1 / math.sqrt(rows.shape[-2]) if phases is None else math.sqrt(2 / rows.shape[-2])
        amplitudes = one_per_row(amplitude, rows)
        return FourierForm(rows, amplitudes, self.log_factor, self.log_factor_slope, phases)

    def waves(self, arrays: Arrays) -> Any:
        """The form that features and gradients are computed from: the `fourier_form`, or another one."""
        return self.fourier_form(arrays)

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        return self.waves(arrays).features(x)

    def pull_back(self, arrays: Arrays, x: Array, values: Array, gradient: Array, row: Any, *, keys: bool) -> Array:
        return self.waves(arrays).pull_back(x, values, gradient, row)
