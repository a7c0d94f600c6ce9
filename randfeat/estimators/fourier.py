"""Cosines and sines of projections: what random Fourier features of every kernel share."""

import abc
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from randfeat._array import Array, device_of, namespace
from randfeat.estimators.base import Estimator
from randfeat.features import Features, FourierForm

__all__ = ["FourierEstimator"]


class FourierEstimator(Estimator):
    """An estimator by angles `w_i·x`, with two variants.

    "pairs" are `[cos(w_i·x), sin(w_i·x)]_i / √m`, "phase" are `√(2/m) cos(w_i·x + b_i)`, b_i uniform on [0, 2π).
    """

    variant: Literal["pairs", "phase"]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in ("pairs", "phase"):
            raise ValueError(f"variant must be 'pairs' or 'phase', got {self.variant!r}.")

    @property
    def features_per_row(self) -> int:  # type: ignore[override]
        return 2 if self.variant == "pairs" else 1

    def draw_phases(
        self, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """Independent phases where the variant has them."""
        if self.variant == "pairs":
            return {}
        return {"phases": rng.uniform(0.0, 2 * math.pi, size=(*batch_shape, 1, num_rows))}

    @abc.abstractmethod
    def log_factor(self, x: Array) -> Array:
        """The logarithm of the factor before the waves, for inputs in kernel units: (..., n, d) -> (..., n, 1)."""

    def fourier_form(self, arrays: Mapping[str, Array]) -> FourierForm:
        rows, phases = arrays["rows"], arrays.get("phases")
        amplitude = 1 / math.sqrt(rows.shape[-2]) if phases is None else math.sqrt(2 / rows.shape[-2])
        shape = (*rows.shape[:-2], 1, rows.shape[-2])
        amplitudes = namespace(rows).full(shape, amplitude, dtype=rows.dtype, device=device_of(rows))
        return FourierForm(rows, amplitudes, self.log_factor, phases)

    def query_features(self, arrays: Mapping[str, Array], x: Array) -> Features:
        return self.fourier_form(arrays).features(x)

    def angle_slopes(self, arrays: Mapping[str, Array], x: Array, values: Array, gradient: Array) -> Array:
        """The derivatives in the angles (..., n, m), from those in the cosines, and sines, of them (..., n, f)."""
        xp = namespace(x)
        if self.variant == "phase":
            rows = arrays["rows"]
            sines = xp.sin(x @ xp.matrix_transpose(rows) + arrays["phases"])
            return -math.sqrt(2 / rows.shape[-2]) * sines * gradient
        half = gradient.shape[-1] // 2
        return values[..., :half] * gradient[..., half:] - values[..., half:] * gradient[..., :half]
