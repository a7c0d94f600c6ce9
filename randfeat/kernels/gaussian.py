"""The Gaussian kernel."""

from dataclasses import dataclass
from typing import Any

from randfeat._array import Array, exp_in_place, namespace
from randfeat.kernels.base import check_positive
from randfeat.kernels.distances import sqdist
from randfeat.kernels.softmax import SoftmaxFamily


@dataclass(frozen=True)
class GaussianKernel(SoftmaxFamily):
    """Gaussian kernel `k(x, y) = exp(-|x - y|² / 2ℓ²)`, ℓ the `length_scale`.

    length_scale : ℓ, positive, in the units of the inputs; scikit-learn's `gamma` is `1 / 2ℓ²`.

    Error: at most `16 (d + 7) eps` for values of the Gram matrix and `(d + 8) eps / 2` for those of `pairwise`, for
    inputs of any offset and size, in clusters or not; eps is 1.2e-7 for float32 and 2.2e-16 for float64. The proof
    stands at `kernels.distances.sqdist`. The diagonal of k(x, x) is exactly 1.
    Source: Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", section 4.2.

    >>> import numpy as np
    >>> GaussianKernel(length_scale=2.0).pairwise(np.array([0.0, 0.0]), np.array([0.0, 2.0]))
    np.float64(0.6065306597126334)
    """

    length_scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "length_scale", check_positive("length_scale", self.length_scale))

    @property
    def unit_factor(self) -> float:
        """`1/ℓ`."""
        return 1 / self.length_scale

    def unit(self, x: Array) -> Array:
        """`x / ℓ`, rounded once."""
        return x if self.length_scale == 1 else x / self.length_scale

    @property
    def shift_invariant(self) -> bool:
        return True

    def log_envelope(self, sqnorm: Any) -> Any:
        """`-|x|²/2`."""
        return -sqnorm / 2

    @property
    def envelope_factor(self) -> float:
        """-1/2, since `log e(x) = -|x|²/2`."""
        return -0.5

    def envelope_slope(self, sqnorm: Any) -> Any:
        return -0.5

    def _log_gram(self, x: Array, y: Array) -> Array:
        return self._log_gram_over(x, y, 1.0)

    def _log_gram_over(self, x: Array, y: Array, scales: Any) -> Array:
        return -sqdist(x, y, self.length_scale * scales) / 2

    def _gram_over(self, x: Array, y: Array, scales: Any) -> Array:
        return exp_in_place(self._log_gram_over(x, y, scales))

    def _log_pairwise(self, x: Array, y: Array) -> Array:
        difference = self.unit(x - y)
        return -namespace(x).sum(difference * difference, axis=-1) / 2
