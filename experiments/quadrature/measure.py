"""What is measured: Gram matrices of features on real points, and ridge regression on features."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.datasets import load_dataset, neighbor_distance, random_rows
from experiments.experiment import Cell, Record, Settings, Tables
from experiments.quadrature.random_radius import RADIUS_METHODS, block_size, expected_mse, sample_gram
from experiments.tables import mean_and_error

KERNELS = ("gaussian", "arc-cosine 0", "arc-cosine 1")
COUPLINGS: dict[str, rf.Coupling] = {
    "independent": rf.Independent(),
    "orthogonal": rf.Orthogonal(),
    "antithetic": rf.Antithetic(),
    "spherical-radial": rf.SphericalRadial(),
    "Sobol'": rf.Sobol(),
}
RIDGE_METHODS = (
    ("gaussian", "independent"),
    ("gaussian", "orthogonal"),
    ("gaussian", "spherical-radial"),
    ("arc-cosine 1", "independent"),
    ("arc-cosine 1", "spherical-radial"),
)
PENALTY = 0.1
MOST_NODES = 4


@dataclass(frozen=True)
class QuadratureSettings(Settings):
    """Sizes: data sets and points for Gram matrices, rows as multiples of 2d, draws; the same for ridge regression."""

    datasets: tuple[str, ...] = ("iris", "letter", "digits")
    num_points: int = 120
    multiples: tuple[int, ...] = (1, 2, 4, 8)
    num_draws: int = 100
    ridge_datasets: tuple[str, ...] = ("letter", "ames")
    ridge_points: tuple[int, int] = (2000, 800)
    ridge_widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    ridge_draws: int = 10


def methods(kernel: str, dim: int) -> tuple[str, ...]:
    """Couplings that are compared. Trigonometric features do not tell w from -w, so mirror images add nothing there."""
    names = tuple(COUPLINGS)
    if kernel == "gaussian":
        names = (*(name for name in COUPLINGS if name != "antithetic"), *RADIUS_METHODS)
    return (*names, "Gauss-Hermite") if dim <= 4 else names


def make_estimator(kernel: str, method: str, length_scale: float, nodes: int = 2) -> rf.Estimator:
    """The features of one kernel under one coupling; length_scale for the Gaussian kernel."""
    coupling = rf.GaussHermite(nodes) if method == "Gauss-Hermite" else COUPLINGS[method]
    if kernel == "gaussian":
        if method == "spherical-radial":  # without the mirror images: the same estimate from half as many features
            coupling = rf.Orthogonal(norms="constant")
        return rf.TrigonometricFeatures(rf.GaussianKernel(length_scale=length_scale), coupling=coupling)
    return rf.ArcCosineFeatures(rf.ArcCosineKernel(order=int(kernel[-1])), coupling=coupling)


@dataclass(frozen=True)
class GramCell(Cell):
    """One kernel under one coupling on one data set."""

    dataset: str
    kernel: str
    method: str

    def measure(self, settings: QuadratureSettings) -> Tables:
        """Rows of `errors`: mean squared relative Frobenius error, measured and in closed form (NaN: not known)."""
        x = random_rows(self.dataset, settings.num_points, settings)
        dim, length_scale = x.shape[1], neighbor_distance(self.dataset)
        estimators = [make_estimator(self.kernel, self.method, length_scale)] * len(settings.multiples)
        sizes = [2 * multiple * dim for multiple in settings.multiples]
        if self.method == "Gauss-Hermite":
            nodes = range(2, MOST_NODES + 1)
            estimators = [make_estimator(self.kernel, self.method, length_scale, num) for num in nodes]
            sizes = [num**dim for num in nodes]
        exact = estimators[0].kernel(x, x)
        size = float(np.sum(exact**2))
        rows: list[Record] = []
        for estimator, num_rows in zip(estimators, sizes, strict=True):
            width = estimator.num_features(num_rows, dim)
            rngs = settings.rngs(settings.num_draws, f"{self.dataset} {self.kernel} {self.method}", num_rows)
            grams = (estimator.draw(dim, width, rng=rng).estimate(x, x) for rng in rngs)
            errors = [float(np.sum((gram - exact) ** 2)) / size for gram in grams]
            row: Record = {"dataset": self.dataset, "dim": dim, "kernel": self.kernel, "method": self.method}
            row |= {"num_rows": num_rows, "num_features": width, **mean_and_error(errors, "squared_error")}
            rows.append(row | {"expected": closed_form(estimator, x, width, size)})
        return {"errors": rows}


@dataclass(frozen=True)
class RadiusCell(Cell):
    """The rule with a random radius for the Gaussian kernel on one data set: Gram matrices without an estimator."""

    dataset: str
    method: str

    def measure(self, settings: QuadratureSettings) -> Tables:
        """Rows of `errors`; a row is a pair of nodes, as elsewhere, and the origin is not counted."""
        x = random_rows(self.dataset, settings.num_points, settings) / neighbor_distance(self.dataset)
        dim, exact = x.shape[1], rf.GaussianKernel()(x, x)
        size, t = float(np.sum(exact**2)), np.sum((x[:, None] - x) ** 2, axis=-1)
        rows: list[Record] = []
        for multiple in settings.multiples:
            blocks = 2 * multiple
            rngs = settings.rngs(settings.num_draws, f"{self.dataset} gaussian {self.method}", blocks)
            grams = (sample_gram(self.method, blocks, x, rng=rng) for rng in rngs)
            errors = [float(np.sum((gram - exact) ** 2)) / size for gram in grams]
            row: Record = {"dataset": self.dataset, "dim": dim, "kernel": "gaussian", "method": self.method}
            row |= {"num_rows": blocks * block_size(dim), "num_features": 2 * blocks * block_size(dim)}
            row |= mean_and_error(errors, "squared_error")
            rows.append(row | {"expected": float(np.sum(expected_mse(self.method, blocks, dim, t))) / size})
        return {"errors": rows}


def closed_form(estimator: rf.Estimator, x: np.ndarray, width: int, size: float) -> float:
    """The expected squared Frobenius error over the squared norm; NaN where it is not known."""
    i, j = np.triu_indices(len(x))
    try:
        mse = estimator.mse(x[i], x[j], num_features=width)
    except rf.NoClosedForm:
        return math.nan
    return float(np.sum(np.where(i == j, 1, 2) * mse)) / size


@dataclass(frozen=True)
class RidgeCell(Cell):
    """Ridge regression on the features of one kernel under one coupling, and with the exact kernel."""

    dataset: str
    kernel: str
    method: str

    def measure(self, settings: QuadratureSettings) -> Tables:
        """Rows of `scores`: accuracy for classes, else the share of the variance that is explained."""
        from sklearn.linear_model import Ridge

        data, count = load_dataset(self.dataset), settings.ridge_points
        train, test = data.split(settings.rng("ridge", self.dataset), *count)
        x, y = data.inputs[train], data.inputs[test]
        target = targets(data.target)
        estimator = make_estimator(self.kernel, self.method, neighbor_distance(self.dataset))
        exact = exact_score(self.dataset, self.kernel, count, settings.seed)
        rows: list[Record] = []
        for width in settings.ridge_widths:
            scores = []
            rngs = settings.rngs(settings.ridge_draws, f"ridge {self.dataset} {self.kernel} {self.method}", width)
            for rng in rngs:
                phi: Any = estimator.draw(data.dim, width, rng=rng)
                model = Ridge(alpha=PENALTY, fit_intercept=False).fit(phi(x), target[train])
                scores.append(score(model.predict(phi(y)), target[test]))
            row: Record = {"dataset": self.dataset, "kernel": self.kernel, "method": self.method}
            rows.append(row | {"num_features": width, "exact": exact, **mean_and_error(scores, "score")})
        return {"scores": rows}


def targets(values: np.ndarray) -> np.ndarray:
    """Classes as one column each, less their mean; numbers standardized, as one column."""
    if values.dtype.kind == "i":
        classes = np.eye(int(values.max()) + 1)[values]
        return classes - classes.mean(axis=0)
    return ((values - values.mean()) / values.std())[:, None]


def score(predicted: np.ndarray, target: np.ndarray) -> float:
    """Accuracy of the largest column, or for a single column 1 less the mean squared error over the variance."""
    predicted = predicted.reshape(target.shape)
    if target.shape[1] > 1:
        return float(np.mean(predicted.argmax(axis=1) == target.argmax(axis=1)))
    return float(1 - np.mean((predicted - target) ** 2) / np.var(target))


@functools.cache
def exact_score(dataset: str, kernel: str, count: tuple[int, int], seed: int) -> float:
    """Kernel ridge regression with the exact kernel and the same penalty."""
    from sklearn.kernel_ridge import KernelRidge

    data = load_dataset(dataset)
    train, test = data.split(Settings(seed=seed).rng("ridge", dataset), *count)
    law = make_estimator(kernel, "independent", neighbor_distance(dataset)).kernel
    x, y, target = data.inputs[train], data.inputs[test], targets(data.target)
    model = KernelRidge(alpha=PENALTY, kernel="precomputed").fit(law(x, x), target[train])
    return score(model.predict(law(y, x)), target[test])


def cells(settings: QuadratureSettings) -> list[Cell]:
    result: list[Cell] = [
        RadiusCell(dataset, method) if method in RADIUS_METHODS else GramCell(dataset, kernel, method)
        for dataset in settings.datasets
        for kernel in KERNELS
        for method in methods(kernel, load_dataset(dataset).dim)
    ]
    return result + [RidgeCell(name, *method) for name in settings.ridge_datasets for method in RIDGE_METHODS]
