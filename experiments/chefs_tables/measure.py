"""What is computed: mean log variances in closed form, and accuracies of classification by drawn features."""

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.classification import accuracy, bandwidth, exact_accuracy, make_task
from experiments.experiment import Cell, Record, Settings, Tables
from experiments.heads import load_head

METHODS = ("trig", "PRF", "GERF", "OPRF", "SADERF", "ADERF", "SDERF", "balanced SDERF")
REGIMES = ("normal", "sphere", "heterogeneous")
PRINTED_DIM = 64
PRINTED: dict[str, dict[float, float]] = {
    "trig": {0.1: -0.06, 0.2: 4.4, 0.3: 10.8, 0.5: 31.3, 0.7: 62.0, 0.85: 91.8, 1.0: 127.3},
    "PRF": {0.1: 0.95, 0.2: 5.1, 0.3: 11.5, 0.5: 32.0, 0.7: 62.7, 0.85: 92.5, 1.0: 128.0},
    "OPRF": {0.1: 0.89, 0.2: 4.5, 0.3: 9.0, 0.5: 19.3, 0.7: 29.7, 0.85: 37.2, 1.0: 44.1},
}
"""ln(Var/K²) at |x + y|² = |x - y|² = 2dσ², the mean for normal inputs, worked out by hand to these digits."""

NESTED = (("OPRF", "PRF"), ("SDERF", "OPRF"), ("GERF", "OPRF"), ("GERF", "trig"))
"""Families of which the first contains the second, so that its fit cannot have the larger mean log second moment."""


@dataclass(frozen=True)
class ChefsSettings(Settings):
    """Sizes: scales and pairs for the tables, heads, data sets with widths and draws for the classification."""

    scales: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0)
    dim: int = 64
    num_pairs: int = 2048
    heads: tuple[str, ...] = (
        "minilm/mansfieldpark_ch1/L5H7",
        "whisper/encoder/L3H4",
        "vit/flower/L8H2",
        "antiberty/trembl_N1NWK3/L6H5",
    )
    datasets: tuple[str, ...] = ("iris", "wine", "breast_cancer", "digits", "letter")
    methods: tuple[str, ...] = ("trig", "PRF", "OPRF", "SDERF")
    num_features: tuple[int, ...] = (32, 128, 512)
    num_draws: int = 20
    most_points: int = 4000


def regime_pairs(settings: ChefsSettings, regime: str, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Queries and keys (num_pairs, d) of one regime; the same random numbers at every scale."""
    if regime not in REGIMES:
        head, rng = load_head(regime), settings.rng("pairs", regime)
        root = scale * head.dim**-0.25
        i, j = (rng.integers(len(side), size=settings.num_pairs) for side in (head.query, head.key))
        return root * head.query[i], root * head.key[j]
    x, y = settings.rng("pairs", regime).standard_normal((2, settings.num_pairs, settings.dim))
    if regime == "sphere":
        x, y = (np.sqrt(settings.dim) * v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (x, y))
    if regime == "heterogeneous":
        spread = np.geomspace(0.5, 2.0, settings.dim)
        x, y = x * spread, y / spread
    return scale * x, scale * y


def fitted(method: str, x: np.ndarray, y: np.ndarray, kernel: rf.Kernel | None = None) -> rf.Estimator:
    """The estimator of this name, independent rows, its parameters optimal for the pairs x, y (n, d)."""
    options: dict[str, Any] = {"kernel": kernel or rf.SoftmaxKernel(), "coupling": "independent"}
    z = x + y
    if method == "trig":
        return rf.TrigonometricFeatures(**options)
    if method == "PRF":
        return rf.PositiveFeatures(**options)
    if method == "OPRF":
        return rf.OptimalPositiveFeatures.for_sqnorm(np.mean(np.sum(z * z, axis=-1)), z.shape[-1], **options)
    if method == "SDERF":
        return rf.DenseExponentialFeatures.for_second_moment(z.T @ z / len(z), **options)
    if method == "GERF":
        return fitted_gerf(x, y, options)
    balanced = rf.BalancedFeatures.fit(
        x, y, scale=1.0, base=rf.PositiveFeatures(**options), kind="diagonal" if method == "SADERF" else "matrix"
    )
    base = fitted("SDERF" if method == "balanced SDERF" else "OPRF", *balanced.moved_pair(x, y), options["kernel"])
    return rf.BalancedFeatures(base=base, matrix=balanced.matrix)  # type: ignore[arg-type]


def fitted_gerf(x: np.ndarray, y: np.ndarray, options: Record) -> rf.Estimator:
    """The complex parameter and sign of least mean log second moment over the pairs, by a simplex search."""
    from scipy.optimize import minimize

    def estimator(point: np.ndarray, sign: int) -> rf.Estimator:
        parameter = complex((1 - np.exp(point[0])) / 8, point[1])
        return rf.GeneralizedExponentialFeatures(parameter=parameter, sign=sign, **options)

    def cost(point: np.ndarray, sign: int) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            value = float(np.mean(log_variance(estimator(point, sign), x, y, second_moment=True)))
        return value if np.isfinite(value) else np.inf

    optimal: Any = fitted("OPRF", x, y)
    starts = {1: [(np.log1p(-8 * float(optimal.exponent)), 0.0), (2.0, 0.1)], -1: [(0.0, 0.0), (2.0, 0.1)]}
    found = [
        (minimize(cost, start, (sign,), method="Nelder-Mead", options={"maxiter": 150}), sign)
        for sign, choices in starts.items()
        for start in choices
    ]
    best, sign = min(found, key=lambda pair: pair[0].fun)
    return estimator(best.x, sign)


def log_variance(estimator: rf.Estimator, x: np.ndarray, y: np.ndarray, *, second_moment: bool = False) -> np.ndarray:
    """`ln(Var S/K²)` of one row for each pair, or `ln(E S²/K²)`."""
    variance = estimator.relative_variance(x, y, num_features=estimator.num_features(1, x.shape[-1]))
    return np.log1p(variance) if second_moment else np.log(variance)


@dataclass(frozen=True)
class TableCell(Cell):
    """All estimators in one regime (a name, or that of a head) at one scale."""

    regime: str
    scale: float

    def measure(self, settings: ChefsSettings) -> Tables:
        x, y = regime_pairs(settings, self.regime, self.scale)
        rows: list[Record] = []
        for method in METHODS:
            estimator = fitted(method, x, y)
            row: Record = {"regime": self.regime, "scale": self.scale, "method": method}
            row |= {"log_variance": float(np.mean(log_variance(estimator, x, y)))}
            row |= {"log_second_moment": float(np.mean(log_variance(estimator, x, y, second_moment=True)))}
            rows.append(row)
        return {"variances": rows}


@dataclass(frozen=True)
class PrintedCell(Cell):
    """The closed forms at the pair of vectors of which the printed digits are, at right angles and of equal length."""

    def measure(self, settings: ChefsSettings) -> Tables:
        rows: list[Record] = []
        for scale in PRINTED["trig"]:
            x, y = scale * np.sqrt(PRINTED_DIM) * np.eye(2, PRINTED_DIM)
            for method, printed in PRINTED.items():
                value = float(log_variance(fitted(method, x[None], y[None]), x, y))
                rows.append({"scale": scale, "method": method, "printed": printed[scale], "computed": value})
        return {"printed": rows}


@dataclass(frozen=True)
class ClassificationCell(Cell):
    """All estimators and widths on one data set."""

    dataset: str

    def measure(self, settings: ChefsSettings) -> Tables:
        points: Record = {"seed": settings.seed, "most_points": settings.most_points}
        scale, _ = bandwidth(self.dataset, **points)
        task = make_task(self.dataset, scale, **points)
        kernel, exact = rf.GaussianKernel(), exact_accuracy(task)
        other = settings.rng(f"classification {self.dataset}", "pairs").permutation(len(task.y))
        calibration = task.y, task.y[other]  # training points only
        rows: list[Record] = []
        for method in settings.methods:
            estimator = fitted(method, *calibration, kernel)
            for width in settings.num_features:
                rngs = settings.rngs(settings.num_draws, f"classification {self.dataset}", method, width)
                found = [accuracy(estimator.draw(task.x.shape[-1], width, rng=rng), task) for rng in rngs]
                row: Record = {"dataset": self.dataset, "method": method, "num_features": width, "scale": scale}
                row |= {"accuracy": statistics.mean(found), "exact": exact}
                rows.append(row | {"standard_error": float(np.std(found, ddof=1) / len(found) ** 0.5)})
        return {"accuracies": rows}


def cells(settings: ChefsSettings) -> list[Cell]:
    regimes = (*REGIMES, *settings.heads)
    return [
        PrintedCell(),
        *(TableCell(regime, scale) for regime in regimes for scale in settings.scales),
        *(ClassificationCell(name) for name in settings.datasets),
    ]
