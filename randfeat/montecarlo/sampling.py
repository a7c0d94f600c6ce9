"""Sampled errors: relative errors of independent draws of one estimator, or of two on the same seeds.

Errors are relative, `K̂/K - 1`, so that pairs with very different kernel values fit in one table. Multiply by the kernel
(an MSE by its square) for absolute errors. Kernels outside the softmax family may vanish: their errors are relative to
`exp(kernel.log_reference)` instead.

Limits: an MSE measured over N draws has the relative standard error √((κ - 1)/N), where κ is the kurtosis of the error.
For positive features κ grows like e^{4u}, u = |x + y|². Beyond u of about 3 the measured MSE of single rows is noisy
and typically far too low. Then `sample_errors` warns (`HeavyTailWarning`); `gram_variance` measures the same quantity
without heavy tails, and the closed form `estimator.variance` needs no draws at all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from randfeat._array import as_count, as_generator, as_host
from randfeat._hints import hinted
from randfeat._numpy.threads import resolve_num_threads, run_tasks
from randfeat.estimators.base import Estimator
from randfeat.maps import FeatureMap
from randfeat.montecarlo.measured import Measured, mean_over_draws, quantile_interval, ratio_of_means
from randfeat.montecarlo.tails import warn_if_heavy

BATCH_BYTES = 2**26  # of the rows and features of one batch of draws
FEATURES_IN_CACHE = 2**17  # numbers


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
        return ratio_of_means(self.first.errors**2, self.second.errors**2)


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

    run_batches(batch, sizes, generators)
    return ErrorSample(errors.reshape(-1, *shape))


def run_batches(
    batch: Callable[[slice, int, np.random.Generator, None], None],
    sizes: list[int],
    generators: list[np.random.Generator],
) -> None:
    """Call `batch(part, size, generator, None)` for each batch of draws, on several threads."""
    batches = zip(parts(sizes), sizes, generators, strict=True)
    run_tasks([partial(batch, *arguments) for arguments in batches], lambda: None, resolve_num_threads(None))


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
    return sizes_of_batches(numbers, num_draws)


def sizes_of_batches(numbers: int, num_draws: int) -> list[int]:
    """Draws of each batch, where one draw takes as many float64 numbers: as many as BATCH_BYTES hold."""
    size = int(np.clip(BATCH_BYTES // (8 * numbers), 1, num_draws))
    return [size] * (num_draws // size) + ([num_draws % size] if num_draws % size else [])


def parts(sizes: list[int]) -> Iterator[slice]:
    """Consecutive slices of the given sizes."""
    start = 0
    for size in sizes:
        yield slice(start, start + size)
        start += size
