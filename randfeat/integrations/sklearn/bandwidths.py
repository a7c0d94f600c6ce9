"""The kernel parameter gamma chosen from the data: by the variance, or by the median distance."""

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from randfeat._array import as_double, as_floating, host_to, namespace
from randfeat._hints import short
from randfeat.integrations.sklearn.inputs import is_sparse
from randfeat.kernels.base import check_positive

__all__ = ["Spread", "median_gamma", "resolve_gamma"]


@dataclass(frozen=True)
class Spread:
    """Mean and sum of squared deviations of all entries of a matrix, updated block by block."""

    count: float = 0
    mean: float = 0.0
    squares: float = 0.0

    def append(self, x: Any, sample_weight: np.ndarray | None = None) -> Self:
        """The spread with one more block of rows, and weights of these rows.

        Source: Chan, Golub & LeVeque 1983, "Algorithms for Computing the Sample Variance".
        """
        count, mean, squares = spread_of(x) if sample_weight is None else weighted_spread(x, sample_weight)
        total, step = self.count + count, mean - self.mean
        return type(self)(
            total, self.mean + step * count / total, self.squares + squares + step * step * self.count * count / total
        )

    @property
    def variance(self) -> float:
        """Variance of all entries."""
        return self.squares / self.count


def spread_of(x: Any) -> tuple[int, float, float]:
    """Number of the entries of x, their mean, and the sum of squared deviations."""
    count = math.prod(x.shape)
    if is_sparse(x):
        mean = float(x.mean())
        return count, mean, float(x.multiply(x).sum()) - count * mean * mean
    x = as_double(as_floating(x, "X"))  # float32 sums of squares lose the digits of an offset
    xp = namespace(x)
    mean = float(xp.mean(x))
    return count, mean, float(xp.sum((x - mean) ** 2))


def weighted_spread(x: Any, sample_weight: np.ndarray) -> tuple[float, float, float]:
    """`spread_of` for rows that count as often as their weights say."""
    count = float(np.sum(sample_weight)) * x.shape[1]
    if is_sparse(x):
        mean = float(np.sum(x.T @ sample_weight)) / count
        return count, mean, float(np.sum(x.multiply(x).T @ sample_weight)) - count * mean * mean
    x = as_double(as_floating(x, "X"))
    xp, weight = namespace(x), host_to(sample_weight, x)[:, None]
    mean = float(xp.sum(weight * x)) / count
    return count, mean, float(xp.sum(weight * (x - mean) ** 2))


def scale_gamma(kind: Literal["squares", "differences", "products"], spread: Spread, dim: int) -> float:
    """`1/(d Var)`, or `1/(d √Var)` for kernels of coordinate differences; 1 if the variance is 0."""
    variance = spread.variance
    if not 0 < variance < math.inf:
        return 1.0
    return 1 / (dim * (math.sqrt(variance) if kind == "differences" else variance))


def median_gamma(kind: Literal["squares", "differences", "products"], sample: np.ndarray) -> float:
    """`1/2ℓ²` with ℓ the median Euclidean distance, or `1/ℓ` with the median city-block distance; 1 if ℓ is 0."""
    from scipy.spatial.distance import pdist

    if kind == "products":
        raise ValueError('gamma="median" is of distances, and this kernel has inner products: use "scale" or a number.')
    distances = pdist(sample, "cityblock" if kind == "differences" else "euclidean")
    median = float(np.median(distances)) if distances.size else 0.0
    if median == 0:
        return 1.0
    return 1 / median if kind == "differences" else 1 / (2 * median**2)


def resolve_gamma(
    gamma: Any, kind: Literal["squares", "differences", "products"] | None, spread: Spread, dim: int, sample: Any
) -> float:
    """The number that `gamma` stands for; 1 if the kernel has no gamma. `sample()` gives rows if they are needed."""
    if kind is None:
        return 1.0
    if not isinstance(gamma, str):
        return check_positive("gamma", gamma)
    if gamma not in ("scale", "median"):
        raise ValueError(f'gamma must be a positive number, "scale" or "median", got {short(gamma)}.')
    return scale_gamma(kind, spread, dim) if gamma == "scale" else median_gamma(kind, sample())
