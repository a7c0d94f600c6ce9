"""What is measured: mean squared errors of drawn feature maps on random pairs, and their closed forms."""

import dataclasses
from dataclasses import dataclass

import numpy as np

import randfeat as rf
from experiments.estimators import COUPLINGS, ESTIMATORS, make_estimator, num_features_allowed
from experiments.experiment import Cell, Record, Settings, Tables
from experiments.tables import table


@dataclass(frozen=True)
class KernelMseSettings(Settings):
    """Sizes of the kernel_mse experiment.

    distances : |x + y|² of the pairs (|x - y|² for trigonometric features). num_pairs : random pairs for each.
    precision : a point is measured only where `promised_precision` is below this; the curve is drawn anyway.
    large_* : the same for the Gram formula, in a larger dimension, where the lengths that it leaves random are light
    tailed. false_alarm : probability that some verdict of a run fails by chance.
    """

    dim: int = 16
    estimators: tuple[str, ...] = ESTIMATORS
    couplings: tuple[str, ...] = tuple(COUPLINGS)
    distances: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    num_features: tuple[int, ...] = (16, 32, 64, 128, 256)
    num_pairs: int = 8
    num_draws: int = 10_000
    precision: float = 0.2
    large_dim: int = 64
    large_distances: tuple[float, ...] = (4.0, 8.0)
    large_num_features: tuple[int, ...] = (16, 32, 64)
    large_draws: int = 2000
    false_alarm: float = 1e-3


def distance_name(estimator: str) -> str:
    """What the error of an estimator depends on: u = |x + y|² or t = |x - y|²."""
    return "t" if estimator.startswith("trig") else "u"


def cells(settings: KernelMseSettings) -> list[Cell]:
    result: list[Cell] = []
    for estimator in settings.estimators:
        for coupling in settings.couplings:
            law = make_estimator(estimator, coupling)
            result.append(CurveCell(estimator, coupling))
            result += [
                PointCell(estimator, coupling, num_features)
                for num_features in settings.num_features
                if num_features_allowed(law, num_features)
            ]
    if "positive" in settings.estimators:
        result += [GramCell(coupling) for coupling in settings.couplings]
    return result


def random_pairs(
    settings: KernelMseSettings, estimator: str, distance: float, *, dim: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (num_pairs, dim) with |x + y|² (|x - y|² for trigonometric features) equal to `distance`.

    Directions are uniform; the other combination, x - y or x + y, has length one and its own direction. Every cell
    gets the same pairs.
    """
    rng = settings.rng("pairs", distance)
    directions = rng.standard_normal((2, settings.num_pairs, dim or settings.dim))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    given, other = np.sqrt(distance) * directions[0], directions[1]
    x, y = (given + other) / 2, (given - other) / 2
    return (x, y) if distance_name(estimator) == "u" else (x, -y)


@dataclass(frozen=True)
class CurveCell(Cell):
    """Closed forms of one estimator under one coupling, for every number of features in range."""

    estimator: str
    coupling: str

    def measure(self, settings: KernelMseSettings) -> Tables:
        estimator = make_estimator(self.estimator, self.coupling)
        widths = range(min(settings.num_features), max(settings.num_features) + 1, 4)
        allowed = [width for width in widths if num_features_allowed(estimator, width)]
        rows: list[Record] = []
        for distance in settings.distances:
            x, y = random_pairs(settings, self.estimator, distance)
            errors = [relative_mse(estimator, x[0], y[0], width) for width in allowed]
            names = {"estimator": self.estimator, "coupling": self.coupling, "distance": distance}
            rows += table(**names, num_features=allowed, relative_mse=errors)
        return {"curves": rows}


@dataclass(frozen=True)
class PointCell(Cell):
    """Monte Carlo of one estimator under one coupling with one number of features, at every distance."""

    estimator: str
    coupling: str
    num_features: int

    def measure(self, settings: KernelMseSettings) -> Tables:
        """Rows of the table `points`, one for each distance where an empirical MSE can be trusted.

        Pairs share their draws, so errors are averaged over pairs within each draw, and the standard error is that of
        the mean over draws. Its sample value is too small where the tails are not seen; it is not taken below what
        the kurtosis of independent rows and pairs implies.
        """
        estimator = make_estimator(self.estimator, self.coupling)
        pairs = {distance: random_pairs(settings, self.estimator, distance) for distance in settings.distances}
        sizes = {"num_features": self.num_features, "num_draws": settings.num_draws}
        trusted = [
            distance
            for distance, (x, y) in pairs.items()
            if promised_precision(estimator, x[0], y[0], **sizes) <= settings.precision
        ]
        if not trusted:
            return {"points": []}
        x, y = (np.stack([pairs[distance][side] for distance in trusted]) for side in (0, 1))
        sample = rf.montecarlo.sample_errors(
            estimator, x, y, **sizes, rng=settings.rng(f"{self.estimator} {self.coupling} {self.num_features}")
        )
        by_draw = rf.montecarlo.ErrorSample(np.sqrt(np.mean(sample.errors**2, axis=-1))).mse()
        rows: list[Record] = []
        for index, distance in enumerate(trusted):
            expected = relative_mse(estimator, x[index, 0], y[index, 0], self.num_features)
            least = 0.0
            if COUPLINGS[self.coupling].exact_marginals:
                kurtosis = independent_kurtosis(estimator, x[index, 0], y[index, 0], self.num_features)
                least = expected * np.sqrt((kurtosis - 1) / (settings.num_draws * settings.num_pairs))
            row: Record = {"estimator": self.estimator, "coupling": self.coupling, "distance": distance} | sizes
            row["num_pairs"] = settings.num_pairs
            rows.append(row | judged(by_draw.value[index], max(by_draw.standard_error[index], least), expected))
        return {"points": rows}


@dataclass(frozen=True)
class GramCell(Cell):
    """The variance of positive features at large |x + y|², with the mean over rotations taken exactly.

    An empirical MSE is falsely low there. The variance is measured; where the coupling is biased the closed squared
    bias is added to both sides.
    """

    coupling: str

    def measure(self, settings: KernelMseSettings) -> Tables:
        estimator = make_estimator("positive", self.coupling)
        dim = settings.large_dim
        pairs = [random_pairs(settings, "positive", distance, dim=dim) for distance in settings.large_distances]
        x, y = (np.stack([pair[side][0] for pair in pairs]) for side in (0, 1))
        rows: list[Record] = []
        for num_features in settings.large_num_features:
            if not num_features_allowed(estimator, num_features):
                continue
            sizes = {"num_features": num_features, "num_draws": settings.large_draws}
            rng = settings.rng(f"positive {self.coupling} gram", num_features)
            measured = rf.montecarlo.gram_variance(estimator, x, y, **sizes, rng=rng)
            variance = estimator.relative_variance(x, y, num_features=num_features)
            for index, distance in enumerate(settings.large_distances):
                expected = relative_mse(estimator, x[index], y[index], num_features)
                squared_bias = expected - float(variance[index])
                row: Record = {"estimator": "positive", "coupling": self.coupling, "distance": distance} | sizes
                row["independent"] = np.expm1(distance) / num_features
                rows.append(
                    row | judged(measured.value[index] + squared_bias, measured.standard_error[index], expected)
                )
        return {"large": rows}


def relative_mse(estimator: rf.Estimator, x: np.ndarray, y: np.ndarray, num_features: int) -> float:
    """The closed form, bias and all: `E[(K̂/K - 1)²]`; it depends on the distance only."""
    return float(estimator.relative_mse(x, y, num_features=num_features))


def promised_precision(
    estimator: rf.Estimator, x: np.ndarray, y: np.ndarray, *, num_features: int, num_draws: int
) -> float:
    """The relative standard error to expect of an MSE measured on one pair, √((κ - 1)/N).

    κ is that of independent rows, with its excess over 3 enlarged where the coupling lowers the variance: it removes
    low degrees of the error, and the tails stay. Where rows have constant length there are no tails to speak of.
    """
    kurtosis = independent_kurtosis(estimator, x, y, num_features)
    coupling = estimator.coupling
    assert isinstance(coupling, rf.Coupling)
    if coupling.exact_marginals:
        independent = dataclasses.replace(estimator, coupling=rf.Independent())
        ratio = relative_mse(independent, x, y, num_features) / relative_mse(estimator, x, y, num_features)
        kurtosis = 3 + (kurtosis - 3) * max(ratio, 1.0) ** 2
    return float(np.sqrt((kurtosis - 1) / num_draws))


def independent_kurtosis(estimator: rf.Estimator, x: np.ndarray, y: np.ndarray, num_features: int) -> float:
    """The kurtosis of the error of independent rows, `3 + (κ - 3)/m`."""
    return 3 + (float(estimator.row_kurtosis(x, y)) - 3) / estimator.num_rows(num_features)


def judged(measured: float, standard_error: float, expected: float) -> Record:
    """Measured and expected value with their distance in standard errors, these not below rounding."""
    standard_error = max(standard_error, 1e-10 * expected)
    found = {"relative_mse": measured, "standard_error": standard_error, "expected": expected}
    return found | {"z": (measured - expected) / standard_error}
