"""Pairs of vectors with given |x + y|² and |x - y|², and measured errors on them next to their closed forms."""

from typing import Any

import numpy as np

import randfeat as rf
from experiments.agreement import bonferroni
from experiments.experiment import Record


def pairs_at(u: Any, t: Any, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """x, y (..., dim), dim >= 2, with |x + y|² = u and |x - y|² = t, in general position with respect to the axes."""
    u, t = np.broadcast_arrays(np.asarray(u, dtype=float), np.asarray(t, dtype=float))
    first = np.ones(dim) / np.sqrt(dim)
    second = np.arange(dim) - (dim - 1) / 2
    second /= np.linalg.norm(second)
    total, difference = np.sqrt(u)[..., None] * first, np.sqrt(t)[..., None] * second
    return (total + difference) / 2, (total - difference) / 2


def judge(measured: float, standard_error: float, expected: float) -> Record:
    """Measured and expected number with their distance in standard errors."""
    distance = measured - expected
    z = distance / standard_error if standard_error > 0 else 0.0 if abs(distance) < 1e-12 else np.inf
    return {"measured": measured, "standard_error": standard_error, "expected": expected, "z": float(z)}


def worst(rows: list[Record], false_alarm: float) -> tuple[float, float, bool]:
    """The largest |z| of the rows, its Bonferroni limit, and whether it is within; never without rows."""
    if not rows:
        return np.nan, np.nan, False
    largest = max(abs(row["z"]) for row in rows)
    limit = bonferroni(false_alarm, len(rows))
    return largest, limit, bool(largest <= limit)


def mse_rows(estimator: rf.Estimator, x: Any, y: Any, *, num_features: int, num_draws: int, rng: Any) -> list[Record]:
    """Relative MSE on pairs (n, d), measured and in closed form, one record for each pair.

    The standard error is that of the kurtosis of independent rows, which a sample of heavy tails underestimates.
    """
    sample = rf.montecarlo.sample_errors(estimator, x, y, num_features=num_features, num_draws=num_draws, rng=rng)
    measured, expected = sample.mse(), estimator.relative_mse(x, y, num_features=num_features)
    kurtosis = 3 + (estimator.row_kurtosis(x, y) - 3) / estimator.num_rows(num_features)
    error = np.maximum(expected * np.sqrt((kurtosis - 1) / num_draws), measured.standard_error)
    return [judge(float(a), float(s), float(e)) for a, s, e in zip(measured.value, error, expected, strict=True)]
