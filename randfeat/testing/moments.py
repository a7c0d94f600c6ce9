"""Measured mean and variance of an estimator against its closed forms."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat.couplings.laws import NoClosedForm
from randfeat.estimators.base import Estimator
from randfeat.montecarlo.sampling import sample_errors
from randfeat.montecarlo.tails import HEAVY, HeavyTailWarning, kurtosis_of_estimate
from randfeat.testing.report import POWER_Z, ROUNDING, Check

MAX_DRAWS = 3_000_000
PILOT_DRAWS = 5_000


@dataclass(frozen=True, eq=False)
class MomentCase:
    """Check of the mean and variance of one estimator at one width on a list of pairs."""

    estimator: Estimator
    x: np.ndarray
    y: np.ndarray
    width: int
    limit: float
    detectable_bias: float
    detectable_variance: float

    def run(self, generator: np.random.Generator, notes: list[str]) -> list[Check]:
        """The z-scores of all pairs; pairs whose variance is 0 must be exact up to rounding.

        A closed-form variance is a difference of moments of order 1. If it is below their rounding error, the measured
        variance is only checked to be small.
        """
        try:
            mean = self.estimator.mean_over_reference(self.x, self.y, self.width)
        except NoClosedForm as reason:
            notes.append(f"mean and variance not checked: {reason}")
            return []
        self.check_moment(mean, "mean_over_reference", "relative_row_mean")
        relative_mean = mean - self.estimator.kernel.relative(self.x, self.y) + 1
        try:
            variance = self.estimator.variance_over_reference(self.x, self.y, self.width)
        except NoClosedForm as reason:
            notes.append(f"variance not checked: {reason}")
            return self.mean_only(generator, relative_mean)
        self.check_moment(variance, "variance_over_reference", "relative_covariance")
        pilot, main = generator.spawn(2)
        kurtosis = np.maximum(self.kurtosis(), kurtosis_of(self.errors(PILOT_DRAWS, pilot, relative_mean)))
        # The variance is checked where the fourth moment is light enough for a sum of squares to be nearly normal.
        light = kurtosis < HEAVY
        draws = int(self.draws_for(variance, np.where(light, kurtosis, 1.0)))
        errors = self.errors(draws, main, relative_mean)
        checks = []
        for pair, (error, var, heavy) in enumerate(zip(errors.T, variance, ~light, strict=True)):
            name = f"num_features={self.width}, pair {pair}"
            if var <= ROUNDING**2:
                assert np.all(np.abs(error) < ROUNDING), f"{self.estimator!r}, {name}: expected exact, got {error}"
                continue
            measured = np.mean(error**2)
            resolved = var > ROUNDING
            assert resolved or measured < 2 * ROUNDING, f"{self.estimator!r}, {name}: variance {measured}, not {var}"
            scale = np.sqrt((var if resolved else measured) / draws)
            checks.append(Check(f"mean, {name}", float(error.mean() / scale), (self.limit + POWER_Z) * scale))
            if resolved and not heavy:
                scale = np.sqrt((max(kurtosis_of(error), kurtosis[pair]) - 1) / draws)
                z = float((measured / var - 1) / scale)
                checks.append(Check(f"variance, {name}", z, (self.limit + POWER_Z) * scale))
        return checks

    def check_moment(self, moment: np.ndarray, whole: str, of_rows: str) -> None:
        """Require one number for each pair, none of them NaN.

        The message names the method that the class states last: the moment of rows, or of the whole estimate.
        """
        cls = type(self.estimator)
        author = next(ancestor for ancestor in cls.__mro__ if {whole, of_rows} & vars(ancestor).keys())
        name = f"{cls.__name__}.{of_rows if of_rows in vars(author) else whole}"
        shape = self.x.shape[:-1]
        assert np.shape(moment) == shape, f"{name} has shape {np.shape(moment)} for pairs {shape}; return one each"
        for pair in np.flatnonzero(np.isnan(moment)):
            raise AssertionError(
                f"{name} is NaN for pair {pair}, x = {self.x[pair]}, y = {self.y[pair]}: return np.inf where the "
                "moment is infinite, and raise NoClosedForm where it is not known"
            )

    def mean_only(self, generator: np.random.Generator, relative_mean: np.ndarray) -> list[Check]:
        """The z-scores of the mean with sample standard errors, for estimators without a closed-form variance."""
        draws = 40_000
        errors = self.errors(draws, generator, relative_mean)
        scale = np.maximum(errors.std(axis=0, ddof=1), ROUNDING) / np.sqrt(draws)
        return [
            Check(f"mean, num_features={self.width}, pair {pair}", float(z), float((self.limit + POWER_Z) * s))
            for pair, (z, s) in enumerate(zip(errors.mean(axis=0) / scale, scale, strict=True))
        ]

    def errors(self, draws: int, generator: np.random.Generator, relative_mean: np.ndarray) -> np.ndarray:
        """Deviations of K̂/K from their mean, (draws, pairs)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HeavyTailWarning)  # heavy pairs are not used for variances
            sample = sample_errors(
                self.estimator, self.x, self.y, num_features=self.width, num_draws=draws, rng=generator
            )
        return sample.errors + 1 - relative_mean

    def kurtosis(self) -> np.ndarray:
        """Kurtosis of the estimate for independent rows; 3 if the kurtosis of one row is not known."""
        try:
            return kurtosis_of_estimate(self.estimator, self.x, self.y, num_features=self.width)
        except NoClosedForm:
            return np.full(len(self.x), 3.0)

    def draws_for(self, variance: np.ndarray, kurtosis: np.ndarray) -> float:
        """Number of draws that gives the stated power."""
        threshold = self.limit + POWER_Z
        for_mean = np.max(variance) * (threshold / self.detectable_bias) ** 2
        for_variance = np.max(kurtosis - 1) * (threshold / self.detectable_variance) ** 2
        draws = np.ceil(max(for_mean, for_variance, 2000.0))
        if draws > MAX_DRAWS:
            raise ValueError(
                f"{self.estimator!r} at {self.width} features would need {draws:.1e} draws to catch a relative bias of "
                f"{self.detectable_bias} and a relative error of the variance of {self.detectable_variance}; "
                "ask for less, or check more features."
            )
        return float(draws)


def kurtosis_of(errors: np.ndarray) -> Any:
    """`E[e⁴]/E[e²]²` of errors e over the first axis; 1 where all errors are zero."""
    squares = errors**2
    second = np.mean(squares, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(second <= ROUNDING**2, 1.0, np.mean(squares**2, axis=0) / second**2)


def admissible(estimator: Estimator, x: np.ndarray) -> np.ndarray:
    """x, or |x| where the kernel is not for negative numbers."""
    return x if estimator.kernel.takes_negative else np.abs(x)


def sample_pairs(estimator: Estimator, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Axis-aligned pairs of both signs, opposite and anisotropic ones, with |x ± y|² at most 1.3 in kernel units."""
    axis = np.eye(dim)[0]
    slope = np.arange(1.0, dim + 1)
    slope /= np.linalg.norm(slope)
    flat = np.ones(dim) / np.sqrt(dim)
    pairs = [
        (0.35 * axis, 0.35 * axis),
        (-0.35 * axis, -0.35 * axis),
        (0.3 * flat, -0.4 * flat),
        (0.6 * slope, 0.1 * axis),
        (0.1 * axis - 0.2 * slope, 0.4 * flat),
        (0.5 * flat, 0.6 * slope),
    ]
    unit = float(estimator.kernel.unit(np.ones(1))[0])
    x, y = (admissible(estimator, np.array(side) / unit) for side in zip(*pairs, strict=True))
    return x, y
