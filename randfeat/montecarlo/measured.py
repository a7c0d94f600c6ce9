"""Measured numbers with standard errors: means and quantiles over independent draws."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._hints import short


@dataclass(frozen=True, eq=False)
class Measured:
    """A measured number (or array of numbers) with its standard error."""

    value: np.ndarray
    standard_error: np.ndarray

    def interval(self, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """The central normal confidence interval."""
        from scipy.special import ndtri

        half_width = ndtri((1 + confidence) / 2) * self.standard_error
        return self.value - half_width, self.value + half_width

    def z(self, expected: Any) -> np.ndarray:
        """Deviation from `expected` in standard errors; 0 where both agree exactly."""
        deviation = np.asarray(self.value - expected)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(deviation == 0, 0.0, deviation / self.standard_error)


def mean_over_draws(values: np.ndarray) -> Measured:
    """Mean over the first axis with its standard error."""
    return Measured(values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values)))


def ratio_of_means(first: np.ndarray, second: np.ndarray) -> Measured:
    """Ratio of two means over the first axis; its standard error respects that draws are paired (delta method)."""
    mean, other = first.mean(axis=0), second.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = mean / other
        influence = ratio * (first / mean - second / other)
    return Measured(ratio, influence.std(axis=0, ddof=1) / np.sqrt(len(first)))


def quantile_interval(
    values: np.ndarray, probability: float, confidence: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample quantile over the first axis, and the order statistics that enclose the true quantile."""
    from scipy.special import bdtrik

    if not 0 < probability < 1:
        raise ValueError(f"probability must be between 0 and 1, got {short(probability)}.")
    ordered, n = np.sort(values, axis=0), len(values)
    low = int(np.clip(np.floor(bdtrik((1 - confidence) / 2, n, probability)), 0, n - 1))
    high = int(np.clip(np.ceil(bdtrik((1 + confidence) / 2, n, probability)), 0, n - 1))
    return np.quantile(values, probability, axis=0), ordered[low], ordered[high]
