"""Estimators whose randomness is not Gaussian rows."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from randfeat.couplings import Coupling, Independent
from randfeat.estimators.base import Estimator


@dataclass(frozen=True)
class UncoupledEstimator(Estimator):
    """An estimator whose randomness is not Gaussian rows: it has no coupling to choose.

    It states what is drawn, the features, and the variance as a whole: `draw_arrays`, `query_features`,
    `variance_over_reference`; and `mean_over_reference` where it is biased. Drawn arrays are (*batch_shape, ·, ·), with
    the batch in front. What is drawn for different features is independent, or coupled as its page says.

    Random coordinates, `φ_i(x) = √(d/m) x_l` with l uniform, for the inner product:

    >>> from randfeat import DotProductKernel, Features
    >>> class Coordinates(UncoupledEstimator):
    ...     def draw_arrays(self, dim, num_rows, rng, batch_shape):
    ...         chosen = rng.integers(dim, size=(*batch_shape, num_rows))
    ...         return {"rows": np.eye(dim)[chosen] * np.sqrt(dim / num_rows)}
    ...     def query_features(self, arrays, x):
    ...         values = x @ np.swapaxes(arrays["rows"], -1, -2)
    ...         return Features(values, np.zeros_like(values[..., :1]))
    ...     def variance_over_reference(self, x, y, num_features):
    ...         second = x.shape[-1] * np.sum((x * y) ** 2, axis=-1)
    ...         second = second * np.exp(-2 * self.kernel.log_reference(x, y))
    ...         return (second - self.kernel.relative(x, y) ** 2) / num_features
    >>> estimator = Coordinates(DotProductKernel((0.0, 1.0)))
    >>> x, y = np.array([3.0, 1.0]), np.array([1.0, 2.0])
    >>> estimator.mean(x, y).round(9), estimator.variance(x, y, num_features=2).round(9)
    (np.float64(5.0), np.float64(0.5))
    >>> estimator.draw(dim=2, num_features=8, rng=0, batch_shape=(3,)).estimate(x[None], y[None]).shape
    (3, 1, 1)
    """

    coupling: Coupling | str = field(init=False, repr=False, default_factory=Independent)

    has_coupling = False

    def mean_over_reference(self, x: Any, y: Any, num_features: int | None) -> np.ndarray:
        """The kernel over the reference: unbiased."""
        return self.kernel.relative(x, y)

    def with_coupling(self, coupling: Coupling | str) -> Self:
        raise ValueError(f"{type(self).__name__} has no coupling to choose.")
