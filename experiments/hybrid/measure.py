"""What is computed: errors over angles and on clusters, in closed form and measured."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.experiment import Cell, Record, Settings, Tables
from experiments.tables import mean_and_error, table

ANGLES = (math.pi / 8, math.pi / 2, 7 * math.pi / 8)
NUM_SIGNS = 8
PRINTED: dict[str, dict[float, tuple[float, float, float]]] = {
    "trig": {1.0: (0.11, 1.66, 4.74), 1.25: (0.17, 3.23, 14.3), 1.5: (0.24, 6.63, 53.6), 2.0: (0.44, 38.6, 1.6e3)},
    "positive": {1.0: (6.77, 2.53, 0.41), 1.25: (20.2, 4.66, 0.52), 1.5: (75.8, 9.43, 0.64), 2.0: (2.2e3, 54.6, 0.92)},
    "hyp+": {1.0: (4.74, 1.66, 0.11), 1.25: (14.3, 3.23, 0.17), 1.5: (53.6, 6.63, 0.24), 2.0: (1.6e3, 38.6, 0.44)},
    "angular hybrid": {
        1.0: (0.82, 1.25, 0.82),
        1.25: (2.44, 2.42, 2.44),
        1.5: (9.18, 4.98, 9.18),
        2.0: (266, 28.9, 266),
    },
}
"""Relative error times √m at the three angles, by length, worked out by hand to these digits."""

METHODS = ("trig", "positive", "hyp+", "angular hybrid", "complex exponential")


@dataclass(frozen=True)
class HybridSettings(Settings):
    """Sizes. width : the common feature dimension, a multiple of 36 for 8 signs and of 24. spreads : of the clusters.

    precision : a point is measured where the kurtosis promises at least this relative standard error of its MSE.
    """

    dim: int = 64
    lengths: tuple[float, ...] = (0.75, 1.0, 1.25)
    num_angles: int = 17
    width: int = 1152
    num_draws: int = 4000
    precision: float = 0.1
    cluster_dim: int = 50
    cluster_size: int = 100
    cluster_draws: int = 200
    cluster_widths: tuple[int, ...] = (160, 480, 1600)
    spreads: tuple[float, ...] = (0.1, 0.3, 1.0)


def make_estimator(name: str, num_signs: int = NUM_SIGNS) -> rf.Estimator:
    """The estimator of this name, independent rows."""
    if name == "trig":
        return rf.TrigonometricFeatures(coupling="independent")
    if name == "positive":
        return rf.PositiveFeatures(coupling="independent")
    if name == "hyp+":
        return rf.HyperbolicFeatures(coupling="independent")
    return rf.AngularHybridFeatures(coupling="independent", num_signs=num_signs)


def pair(length: float, angle: Any, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of this length at these angles, (..., dim)."""
    first, second = np.eye(2, dim)
    return length * first, length * (np.cos(angle)[..., None] * first + np.sin(angle)[..., None] * second)


@dataclass(frozen=True)
class TableCell(Cell):
    """The closed forms at the lengths and angles of the printed digits."""

    def measure(self, settings: HybridSettings) -> Tables:
        rows: list[Record] = []
        for name, lengths in PRINTED.items():
            estimator = make_estimator(name)
            for length, printed in lengths.items():
                x, y = pair(length, np.array(ANGLES), settings.dim)
                width = estimator.num_features(1, settings.dim)
                values = np.sqrt(estimator.relative_variance(x, y, num_features=width))
                digits = [float(number) for number in printed]
                rows += table(estimator=name, length=length, angle=ANGLES, printed=digits, computed=values)
        return {"table": rows}


@dataclass(frozen=True)
class AngleCell(Cell):
    """One estimator at one length, over all angles, at the common width."""

    estimator: str
    length: float

    def measure(self, settings: HybridSettings) -> Tables:
        """Rows of `angles`: the closed form, and the measured MSE where it can be trusted (else NaN)."""
        angles = np.linspace(0, np.pi, settings.num_angles)
        x, y = pair(self.length, angles, settings.dim)
        x = np.broadcast_to(x, y.shape)
        estimator = make_estimator(self.estimator)
        expected = estimator.relative_variance(x, y, num_features=settings.width)
        promised = np.sqrt((kurtosis(estimator, x, y, settings.width) - 1) / settings.num_draws)
        trusted = (promised <= settings.precision) & (expected > 1e-12)
        measured, error = np.full((2, len(angles)), np.nan)
        if trusted.any():
            sizes: Record = {"num_features": settings.width, "num_draws": settings.num_draws}
            rng = settings.rng(f"{self.estimator} {self.length:g}")
            sample = rf.montecarlo.sample_errors(estimator, x[trusted], y[trusted], **sizes, rng=rng).mse()
            measured[trusted] = sample.value
            error[trusted] = np.maximum(sample.standard_error, (expected * promised)[trusted])
        found = {"angle": angles, "expected": expected, "measured": measured, "standard_error": error}
        return {"angles": table(estimator=self.estimator, length=self.length, **found)}


def kurtosis(estimator: rf.Estimator, x: np.ndarray, y: np.ndarray, width: int) -> np.ndarray:
    """The kurtosis of the estimate, `3 + (κ - 3)/m`; for the hybrid the larger one of its two bases, and 9 at least.

    A hybrid error is a random weight times the error of a base: if both were normal the product would have kurtosis 9.
    """
    rows = estimator.num_rows(width, x.shape[-1])
    if isinstance(estimator, rf.AngularHybridFeatures):
        single = np.maximum(*(make_estimator(name).row_kurtosis(x, y) for name in ("hyp+", "trig")))
        return np.maximum(3 + (single - 3) / rows, 9.0)
    return 3 + (estimator.row_kurtosis(x, y) - 3) / rows


def clusters(settings: HybridSettings, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Queries and keys (2, cluster_size, d): normal centers, normal deviations times `spread`, then lengths."""
    rng = settings.rng("clusters", spread)
    shape = (2, 2, settings.cluster_size, settings.cluster_dim)
    points = rng.standard_normal((2, 2, 1, settings.cluster_dim)) + spread * rng.standard_normal(shape)
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    return 0.1 * points[0], points[1]


@dataclass(frozen=True)
class ClusterCell(Cell):
    """One method on clustered data of one spread."""

    method: str
    spread: float

    def measure(self, settings: HybridSettings) -> Tables:
        """Rows of `clusters`: closed form and measurement of the mean squared relative error, for each width."""
        x, y = clusters(settings, self.spread)
        rows: list[Record] = []
        for width in settings.cluster_widths:
            blocks = []
            for i in range(2):
                for j in range(2):
                    if self.method == "complex exponential":
                        estimator: rf.Estimator = rf.ComplexExponentialFeatures.fit(
                            x[i], y[j], scale=1.0, coupling="independent"
                        )
                        blocks.append((i, j, estimator, width // 4))
                    else:
                        num_signs = 2 if self.method == "angular hybrid" else NUM_SIGNS
                        estimator = make_estimator(self.method, num_signs)
                        unit = estimator.num_features(1, settings.cluster_dim)
                        blocks.append((i, j, estimator, width // unit * unit))
            expected = np.mean(
                [np.mean(e.relative_variance(x[i][:, None], y[j], num_features=w)) for i, j, e, w in blocks]
            )
            key = f"clusters {self.spread:g} {self.method}", width
            errors = [
                np.mean([self.error(x[i], y[j], e, w, settings.rng(*key, draw)) for i, j, e, w in blocks])
                for draw in range(settings.cluster_draws)
            ]
            row: Record = {"method": self.method, "spread": self.spread, "width": width, "expected": expected}
            rows.append(row | mean_and_error(errors, "measured"))
        return {"clusters": rows}

    def error(self, x: np.ndarray, y: np.ndarray, estimator: rf.Estimator, width: int, rng: Any) -> float:
        """Mean squared relative error of one draw on one block."""
        phi = estimator.draw(x.shape[-1], width, rng=rng)
        return float(np.mean((phi.estimate(x, y) / estimator.kernel(x, y) - 1) ** 2))


def cells(settings: HybridSettings) -> list[Cell]:
    return [
        TableCell(),
        *(AngleCell(name, length) for length in settings.lengths for name in PRINTED),
        *(ClusterCell(method, spread) for spread in settings.spreads for method in METHODS),
    ]
