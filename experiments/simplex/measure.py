"""What is computed: ratios in closed form and by Monte Carlo, and accuracies of classification."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.classification import accuracy, bandwidth, exact_accuracy, make_task
from experiments.estimators import COUPLINGS as ESTABLISHED
from experiments.experiment import Cell, Record, Settings, Tables
from experiments.tables import mean_and_error

COUPLINGS: dict[str, rf.Coupling] = ESTABLISHED | {"simplex-plus": rf.SimplexPlus()}
PRINTED_COUPLINGS = ("orthogonal", "simplex", "centered", "antithetic", "antithetic-orthogonal")
PRINTED: dict[tuple[int, float], tuple[float, ...]] = {
    (4, 0.5): (0.915, 0.330, 0.290, 0.393, 0.337, 0.445, 0.691),
    (4, 1.0): (0.887, 0.510, 0.505, 0.632, 0.557, 0.409, 0.668),
    (4, 2.0): (0.905, 0.761, 0.772, 0.865, 0.801, 0.406, 0.652),
    (4, 4.0): (0.972, 0.956, 0.959, 0.982, 0.963, 0.605, 0.720),
    (16, 0.5): (0.847, 0.135, 0.242, 0.393, 0.251, 0.143, 0.204),
    (16, 1.0): (0.782, 0.274, 0.437, 0.632, 0.428, 0.158, 0.217),
    (16, 2.0): (0.791, 0.552, 0.707, 0.865, 0.669, 0.284, 0.333),
    (16, 4.0): (0.922, 0.882, 0.934, 0.982, 0.909, 0.671, 0.690),
    (64, 0.5): (0.819, 0.064, 0.232, 0.393, 0.215, 0.052, 0.067),
    (64, 1.0): (0.731, 0.170, 0.423, 0.632, 0.367, 0.098, 0.112),
    (64, 2.0): (0.722, 0.432, 0.692, 0.865, 0.591, 0.276, 0.288),
    (64, 4.0): (0.879, 0.818, 0.928, 0.982, 0.862, 0.691, 0.695),
}
"""(d, u) -> positive features under `PRINTED_COUPLINGS` at |x + y|² = u, then trigonometric ones with orthogonal and
simplex rows at |x - y|² = u; worked out to three digits."""

CHAIN = ("independent", "orthogonal", "simplex", "simplex-plus")
BANDWIDTHS = ("validated", "wide")
NUM_AXES = 32
LIGHT = 1.0  # largest |x + y|² for plain Monte Carlo


@dataclass(frozen=True)
class SimplexSettings(Settings):
    """Sizes: dimension, |x + y|², numbers of rows, draws for Monte Carlo (small |x + y|²) and for the Gram formula.

    datasets, multiples : tables to classify, and rows as multiples of the dimension; most_points : of a table.
    """

    dim: int = 64
    distances: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    num_rows: tuple[int, ...] = (16, 32, 48, 64, 96, 128, 256)
    num_draws: int = 1500
    gram_draws: int = 400
    datasets: tuple[str, ...] = ("iris", "wine", "breast_cancer", "digits", "letter")
    multiples: tuple[int, ...] = (1, 3, 10)
    classification_draws: int = 250
    most_points: int = 4000


def ratio(estimator: rf.estimators.SoftmaxEstimator, dim: int, distance: float, num_rows: int) -> float:
    """Closed-form variance over that of independent rows at equal numbers of rows, at |x + y|² or |x - y|²."""
    x, y = pair(dim, distance, opposite=isinstance(estimator, rf.TrigonometricFeatures))
    width = estimator.num_features(num_rows, dim)
    independent = estimator.with_coupling("independent")
    values = [float(e.relative_variance(x, y, num_features=width)) for e in (estimator, independent)]
    return values[0] / values[1]


def pair(dim: int, distance: float, *, opposite: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Vectors with |x + y|² (with `opposite`, |x - y|²) of this size; the rest does not matter to the ratio."""
    x = math.sqrt(distance) / 2 * np.eye(dim)[0]
    return x, (-x if opposite else x)


@dataclass(frozen=True)
class TableCell(Cell):
    """The closed forms at m = d."""

    dim: int

    def measure(self, settings: SimplexSettings) -> Tables:
        rows: list[Record] = []
        for (dim, distance), digits in PRINTED.items():
            if dim != self.dim:
                continue
            names = [("positive", name) for name in PRINTED_COUPLINGS] + [("trig", "orthogonal"), ("trig", "simplex")]
            for (kind, name), printed in zip(names, digits, strict=True):
                cls: Any = rf.PositiveFeatures if kind == "positive" else rf.TrigonometricFeatures
                value = ratio(cls(coupling=COUPLINGS[name]), dim, distance, dim)
                row: Record = {"dim": dim, "distance": distance, "estimator": kind, "coupling": name}
                rows.append(row | {"printed": printed, "computed": value})
        return {"table": rows}


@dataclass(frozen=True)
class ErrorCell(Cell):
    """One coupling at every distance and number of rows: positive features."""

    coupling: str

    def measure(self, settings: SimplexSettings) -> Tables:
        """Rows of `errors`: closed form (NaN for SimRF+) and measurement, relative to independent rows."""
        estimator = rf.PositiveFeatures(coupling=COUPLINGS[self.coupling])
        rows: list[Record] = []
        for num_rows in settings.num_rows:
            for by_gram in (False, True):
                distances = [u for u in settings.distances if (u > LIGHT) == by_gram]
                if not distances:
                    continue
                sizes: Record = {
                    "num_features": num_rows,
                    "rng": settings.rng(f"errors {self.coupling}", num_rows, by_gram),
                }
                if by_gram:
                    x, y = (np.stack([pair(settings.dim, u)[side] for u in distances]) for side in (0, 1))
                    found = rf.montecarlo.gram_variance(estimator, x, y, num_draws=settings.gram_draws, **sizes)
                else:  # for rotated rows all axes are alike: many are measured in each draw
                    axes = np.eye(settings.dim)[:NUM_AXES]
                    x = np.sqrt(distances)[:, None, None] / 2 * axes
                    sample = rf.montecarlo.sample_errors(estimator, x, x, num_draws=settings.num_draws, **sizes)
                    found = rf.montecarlo.ErrorSample(np.sqrt(np.mean(sample.errors**2, axis=-1))).mse()
                base = np.expm1(distances) / num_rows
                for index, distance in enumerate(distances):
                    closed = self.coupling != "simplex-plus"
                    row: Record = {"coupling": self.coupling, "distance": distance, "num_rows": num_rows}
                    row |= {"expected": ratio(estimator, settings.dim, distance, num_rows) if closed else np.nan}
                    row |= {"ratio": float(found.value[index] / base[index])}
                    rows.append(row | {"standard_error": float(found.standard_error[index] / base[index])})
        return {"errors": rows}


@dataclass(frozen=True)
class ClassificationCell(Cell):
    """Every coupling of the chain on one data set, at one bandwidth and number of rows.

    bandwidth : "validated", the best one for the exact kernel on held-out points; "wide", at which half of all pairs of
        a test and a training point have |x + y|² below 1.
    """

    dataset: str
    bandwidth: str
    multiple: int

    def measure(self, settings: SimplexSettings) -> Tables:
        """Rows of `accuracies`; draws of all couplings have the same generators, and differences are taken in pairs.

        gain : over the coupling before it in the chain; over_independent : over the first. mse_ratio : the closed form
        at the median of |x + y|², NaN for SimRF+.
        """
        points: Record = {"seed": settings.seed, "most_points": settings.most_points}
        scale, _ = bandwidth(self.dataset, **points)
        if self.bandwidth == "wide":
            scale = median_sum(self.dataset, 1.0, **points) ** -0.5
        task = make_task(self.dataset, scale, **points)
        dim, median = task.x.shape[1], median_sum(self.dataset, scale, **points)
        num_rows, exact = self.multiple * dim, exact_accuracy(task)
        found: dict[str, np.ndarray] = {}
        rows: list[Record] = []
        for index, coupling in enumerate(CHAIN):
            estimator = rf.PositiveFeatures(rf.GaussianKernel(), COUPLINGS[coupling])
            key = f"classification {self.dataset} {self.bandwidth} {self.multiple}"
            rngs = settings.rngs(settings.classification_draws, key)
            found[coupling] = np.array([accuracy(estimator.draw(dim, num_rows, rng=rng), task) for rng in rngs])
            row: Record = {"dataset": self.dataset, "dim": dim, "bandwidth": self.bandwidth, "scale": scale}
            row |= {"median_sum": median, "multiple": self.multiple, "num_rows": num_rows, "coupling": coupling}
            closed = ratio(estimator, dim, median, num_rows) if coupling != "simplex-plus" else np.nan
            row |= {"mse_ratio": closed}
            row |= {"exact": exact} | mean_and_error(found[coupling], "accuracy", "accuracy_error")
            row |= mean_and_error(found[coupling] - found[CHAIN[max(index - 1, 0)]], "gain", "gain_error")
            over = found[coupling] - found[CHAIN[0]]
            rows.append(row | mean_and_error(over, "over_independent", "over_independent_error"))
        return {"accuracies": rows}


def median_sum(name: str, scale: float, **points: int) -> float:
    """The median of |x + y|² over all pairs of a test and a training point."""
    task = make_task(name, scale, **points)
    sums = np.sum(task.x**2, axis=1)[:, None] + np.sum(task.y**2, axis=1) + 2 * task.x @ task.y.T
    return float(np.median(sums))


def cells(settings: SimplexSettings) -> list[Cell]:
    measured = ("orthogonal", "simplex", "simplex-plus")
    dims = sorted({dim for dim, _ in PRINTED})
    places = itertools.product(settings.datasets, BANDWIDTHS, settings.multiples)
    return [
        *(TableCell(dim) for dim in dims),
        *(ErrorCell(name) for name in measured),
        *(ClassificationCell(*place) for place in places),
    ]
