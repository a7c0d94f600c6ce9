"""Monte Carlo over draws: errors of an estimator with confidence intervals, and comparisons that share draws.

Errors are relative, `K̂/K - 1`, so that pairs with very different kernel values fit in one table. Multiply by the kernel
(an MSE by its square) for absolute errors. Kernels outside the softmax family may vanish: their errors are relative to
`exp(kernel.log_reference)` instead.

Limits: an MSE measured over N draws has the relative standard error √((κ - 1)/N), where κ is the kurtosis of the error.
For positive features κ grows like e^{4u}, u = |x + y|². Beyond u of about 3 the measured MSE of single rows is noisy
and typically far too low. Then `sample_errors` warns (`HeavyTailWarning`); `gram_variance` measures the same quantity
without heavy tails, and the closed form `estimator.variance` needs no draws at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from randfeat._array import as_count, as_generator, as_host
from randfeat._hints import hinted, warn_caller
from randfeat._numpy.threads import resolve_num_threads, run_tasks
from randfeat.couplings import Coupling
from randfeat.couplings.fixed_pairs import FixedPairs
from randfeat.couplings.laws import NoClosedForm
from randfeat.estimators.base import Estimator
from randfeat.maps import FeatureMap
from randfeat.variance import unit_inputs

__all__ = [
    "Comparison",
    "ErrorSample",
    "HeavyTailWarning",
    "Measured",
    "compare",
    "gram_variance",
    "sample_errors",
]

BATCH_BYTES = 2**26  # of the rows and features of one batch of draws
FEATURES_IN_CACHE = 2**17  # numbers
HEAVY = 30.0  # kurtosis beyond which squared errors are far from normal in the samples of practical size


class HeavyTailWarning(UserWarning):
    """Warning that a measured MSE of heavy-tailed errors is noisy and typically too low."""


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


@dataclass(frozen=True, eq=False, repr=False)
class ErrorSample:
    """Errors K̂ - K of independent draws, divided by the reference: `errors` (num_draws, ...), one column per pair."""

    errors: np.ndarray

    def __repr__(self) -> str:
        return f"ErrorSample(<errors of shape {self.errors.shape}>)"

    @property
    def num_draws(self) -> int:
        """Number of independent draws."""
        return int(self.errors.shape[0])

    def bias(self) -> Measured:
        """Mean relative error of each pair."""
        return mean_over_draws(self.errors)

    def mse(self) -> Measured:
        """Mean squared relative error of each pair."""
        return mean_over_draws(self.errors**2)

    def variance(self) -> Measured:
        """Relative variance of each pair, about the measured mean."""
        centered = (self.errors - self.errors.mean(axis=0)) ** 2
        return mean_over_draws(centered * (self.num_draws / (self.num_draws - 1)))

    def quantile(self, probability: float, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Quantile of the relative error, with lower and upper end of its distribution-free confidence interval."""
        return quantile_interval(self.errors, probability, confidence)

    def sup_error(
        self, probability: float = 0.5, confidence: float = 0.95
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Quantile over draws of the largest absolute relative error over all pairs, with its confidence interval."""
        worst = np.max(np.abs(self.errors.reshape(self.num_draws, -1)), axis=1)
        return quantile_interval(worst, probability, confidence)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Errors of two estimators on the same seeds, for the ratio of their mean squared errors (first over second)."""

    first: ErrorSample
    second: ErrorSample

    def mse_ratio(self) -> Measured:
        """Ratio of the MSEs of each pair; its standard error respects the pairing (delta method over draws)."""
        a, b = self.first.errors**2, self.second.errors**2
        ratio = a.mean(axis=0) / b.mean(axis=0)
        influence = ratio * (a / a.mean(axis=0) - b / b.mean(axis=0))
        return Measured(ratio, influence.std(axis=0, ddof=1) / np.sqrt(len(a)))


@hinted
def sample_errors(
    estimator: Estimator, x: Any, y: Any, *, num_features: int, num_draws: int, rng: Any = None
) -> ErrorSample:
    """Relative errors of `num_draws` independent feature maps on pairs x, y, broadcasting over (..., d).

    Maps are drawn in batches of about 64 MiB for each thread. The size of a batch depends only on the shapes, and the
    number of threads does not change the result. There are RANDFEAT_NUM_THREADS threads, by default one for each core
    that this process may use. The result takes 8 · num_draws · pairs bytes. A `HeavyTailWarning` is given if the
    kurtosis shows that the MSE of the sample cannot be trusted.
    """
    sizes = batch_sizes([estimator], x, y, num_features, num_draws)
    generators = as_generator(rng).spawn(len(sizes))
    sample = collect(estimator, x, y, num_features, sizes, generators)
    warn_if_heavy(estimator, x, y, num_features, num_draws)
    return sample


@hinted
def compare(
    first: Estimator, second: Estimator, x: Any, y: Any, *, num_features: int, num_draws: int, rng: Any = None
) -> Comparison:
    """Sample the errors of both estimators from the same seeds.

    Estimators with the same coupling and number of rows then use the same rows, so the common part of their errors
    cancels in the ratio. For other estimators a common seed does no harm.
    """
    sizes = batch_sizes([first, second], x, y, num_features, num_draws)
    seeds = as_generator(rng).bit_generator.seed_seq.spawn(len(sizes))  # type: ignore[attr-defined]
    samples = []
    for estimator in (first, second):
        generators = [np.random.default_rng(seed) for seed in seeds]
        samples.append(collect(estimator, x, y, num_features, sizes, generators))
        warn_if_heavy(estimator, x, y, num_features, num_draws)
    return Comparison(*samples)


@hinted
def gram_variance(
    estimator: Estimator, x: Any, y: Any, *, num_features: int, num_draws: int, rng: Any = None
) -> Measured:
    """Relative variance, measured with the exact mean over rotations, which removes the heavy tails of squared errors.

    This is for rotation-invariant couplings. The variance depends on a pair of rows only through |w_i ± w_j|², and for
    given lengths the mean over rotations is a Bessel function. The variance of a single row is taken from its closed
    form. Use this function if a measured MSE cannot be trusted, and for couplings whose variance has no closed form.

    Limits: the lengths stay random. For positive features and rows at right angles or wider their tail is harmless at
    any |x + y|². Pairs close to w, -w under an even estimator (hyperbolic) keep the heavy tail of a single row.
    """
    unit_x, unit_y = unit_inputs(estimator.kernel, x, y)
    coupling = estimator.coupling
    assert isinstance(coupling, Coupling)
    if not coupling.rotation_invariant:
        raise ValueError(f"the joint law of {coupling!r} is not rotation invariant; use sample_errors.")
    dim = unit_x.shape[-1]
    rows = estimator.num_rows(as_count(num_features, "num_features"), dim)
    if coupling.weights(rows, dim) is not None:
        raise ValueError(f"the rows of {coupling!r} have weights; use the closed form, or sample_errors.")
    row_law = coupling.row_law(dim, rows)
    own = estimator.relative_covariance(unit_x, unit_y, row_law, same_row=True) / rows
    if rows == 1:
        return Measured(own, np.zeros_like(own))
    generator = as_generator(rng)
    all_pairs = np.stack(np.triu_indices(rows, k=1))
    covariances = []
    for child in generator.spawn(as_count(num_draws, "num_draws")):
        w = coupling.sample(rows, dim, rng=child)
        first, second = all_pairs
        if first.size > 2048:  # another random subset for each draw: its choice is part of the standard error
            first, second = all_pairs[:, child.choice(first.size, 2048, replace=False)]
        sums, differences = (np.sum((w[first] + sign * w[second]) ** 2, axis=1) for sign in (1, -1))
        law = FixedPairs(dim, sums, differences, np.full(sums.size, 1 / sums.size), row_law)
        covariances.append(estimator.relative_covariance(unit_x, unit_y, law, same_row=False))
    pair = mean_over_draws(np.asarray(covariances))
    weight = (rows - 1) / rows
    return Measured(own + weight * pair.value, weight * pair.standard_error)


def collect(
    estimator: Estimator,
    x: Any,
    y: Any,
    num_features: int,
    sizes: list[int],
    generators: list[np.random.Generator],
) -> ErrorSample:
    """Sample relative errors batch by batch on several threads; each batch has its own generator."""
    x, y = np.broadcast_arrays(as_host(x, "x"), as_host(y, "y"))
    shape, dim = x.shape[:-1], x.shape[-1]
    x, y = x.reshape(-1, dim), y.reshape(-1, dim)
    log_reference, exact = estimator.kernel.log_reference(x, y)[:, None], estimator.kernel.relative(x, y)
    errors = np.empty((sum(sizes), len(x)))

    def batch(part: slice, size: int, generator: np.random.Generator, _: None) -> None:
        phi = estimator.draw(dim, num_features, rng=generator, batch_shape=(size,))
        for maps, out in batches_in_cache(phi, errors[part]):
            out[...] = maps.queries(x).scaled(-log_reference).pairwise(maps.keys(y)) - exact

    batches = zip(parts(sizes), sizes, generators, strict=True)
    run_tasks([partial(batch, *arguments) for arguments in batches], lambda: None, resolve_num_threads(None))
    return ErrorSample(errors.reshape(-1, *shape))


def batches_in_cache(phi: FeatureMap, errors: np.ndarray) -> Iterator[tuple[FeatureMap, np.ndarray]]:
    """Split a batch of maps into smaller ones whose features fit in the cache, each with its part of `errors`."""
    size = max(1, FEATURES_IN_CACHE // max(1, errors.shape[1] * phi.num_features))
    for start in range(0, len(errors), size):
        draws = slice(start, start + size)
        arrays = {name: array[draws] for name, array in phi.arrays.items()}
        yield FeatureMap(phi.estimator, phi.dim, phi.num_features, arrays), errors[draws]


def batch_sizes(estimators: list[Estimator], x: Any, y: Any, num_features: int, num_draws: int) -> list[int]:
    """Numbers of draws per batch, chosen so that the rows and features of a batch take at most BATCH_BYTES."""
    num_features, num_draws = as_count(num_features, "num_features"), as_count(num_draws, "num_draws")
    shape = np.broadcast_shapes(as_host(x, "x").shape, as_host(y, "y").shape)
    pairs, dim = int(np.prod(shape[:-1])), shape[-1]
    rows = max(estimator.num_rows(num_features, dim) for estimator in estimators)
    # rows and the d × d blocks they are cut from; queries, keys, their product and a temporary
    numbers = 3 * dim * max(rows, dim) + 6 * pairs * num_features
    size = int(np.clip(BATCH_BYTES // (8 * numbers), 1, num_draws))
    return [size] * (num_draws // size) + ([num_draws % size] if num_draws % size else [])


def parts(sizes: list[int]) -> Iterator[slice]:
    """Consecutive slices of the given sizes."""
    start = 0
    for size in sizes:
        yield slice(start, start + size)
        start += size


def mean_over_draws(values: np.ndarray) -> Measured:
    """Mean over the first axis with its standard error."""
    return Measured(values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values)))


def quantile_interval(
    values: np.ndarray, probability: float, confidence: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample quantile over the first axis, and the order statistics that enclose the true quantile."""
    from scipy.special import bdtrik

    if not 0 < probability < 1:
        raise ValueError(f"probability must be between 0 and 1, got {probability!r}.")
    ordered, n = np.sort(values, axis=0), len(values)
    low = int(np.clip(np.floor(bdtrik((1 - confidence) / 2, n, probability)), 0, n - 1))
    high = int(np.clip(np.ceil(bdtrik((1 + confidence) / 2, n, probability)), 0, n - 1))
    return np.quantile(values, probability, axis=0), ordered[low], ordered[high]


def kurtosis_of_estimate(estimator: Estimator, x: Any, y: Any, *, num_features: int) -> np.ndarray:
    """Kurtosis `κ_m = 3 + (κ - 3)/m` of K̂ for m independent rows; κ is `estimator.row_kurtosis`."""
    return 3 + (estimator.row_kurtosis(x, y) - 3) / estimator.num_rows(num_features, np.shape(x)[-1])


def warn_if_heavy(estimator: Estimator, x: Any, y: Any, num_features: int, num_draws: int) -> None:
    """Warn if the tails are heavy (κ_m > HEAVY) and the draws too few to measure an MSE."""
    try:
        kurtoses = np.asarray(kurtosis_of_estimate(estimator, x, y, num_features=num_features))
    except NoClosedForm:
        return
    worst = np.unravel_index(np.argmax(kurtoses), kurtoses.shape)
    kurtosis = float(kurtoses[worst])
    precision = np.sqrt((kurtosis - 1) / num_draws)
    if kurtosis > HEAVY and precision > 0.3:
        place = ", ".join(map(str, worst))
        where = f" at pair {place}, the worst of {kurtoses.size} pairs" if kurtoses.size > 1 else ""
        warn_caller(
            f"the errors are heavy-tailed{where}: an MSE measured from {num_draws} draws has a relative standard error "
            f"of about {precision:.2g} and is typically too low (5 % would take {(kurtosis - 1) / 0.05**2:.1e} draws); "
            "use the closed form estimator.variance, or randfeat.montecarlo.gram_variance.",
            HeavyTailWarning,
        )
