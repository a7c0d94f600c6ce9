"""Shift-invariant kernels that are mixtures of Gaussian kernels over their scale."""

import abc
import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from randfeat._array import Array, namespace
from randfeat.kernels.base import check_positive
from randfeat.kernels.distances import (
    coordinate_differences,
    differenced_sqdist,
    distance,
    hypotenuse,
    sqdist,
    zeros_of_gram,
)
from randfeat.kernels.spectral import SpectralKernel

LARGEST = 1e60  # of a scale, so that frequencies are finite in float32; their phase is lost to rounding long before


@dataclass(frozen=True)
class ShiftInvariantKernel(SpectralKernel):
    """A kernel of the difference that mixes Gaussian kernels, by its *mixture* `L(s) = E[exp(-τ s/2)]`, τ > 0 random.

    In units of the length scale ℓ, with `δ = (x - y)/ℓ`, the kernel is `L(|δ|²)` if isotropic, `Π_l L(δ_l²)` if
    separable. Its frequencies are `√τ g`, g ~ N(0, I): one τ per row, or an own one for each coordinate. τ is
    independent of g, so rows g under any coupling with exact marginals give frequencies with exact marginals.

    `L(0) = 1` exactly, so that k(x, x) = 1.
    """

    scales_per_coordinate: ClassVar[bool] = False
    """Whether every coordinate of a frequency has a scale of its own."""

    @property
    @abc.abstractmethod
    def length_scale(self) -> float:
        """ℓ, positive, in the units of the inputs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "length_scale", check_positive("length_scale", self.length_scale))

    @abc.abstractmethod
    def mixture(self, s: Array) -> Array:
        """`L(s) = E[exp(-τ s/2)]` for s >= 0 of any library, and for complex NumPy arrays off the negative axis."""

    @abc.abstractmethod
    def sample_scales(self, size: tuple[int, ...], rng: Any = None) -> np.ndarray:
        """Independent draws of τ, float64; `rng` as in SPEC 7."""

    def frequencies(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`√τ g`, with a τ for each row, or for each of its coordinates."""
        per_row = rows.shape[-1] if self.scales_per_coordinate else 1
        return np.sqrt(np.minimum(self.sample_scales((*rows.shape[:-1], per_row), rng), LARGEST)) * rows

    @property
    def shift_invariant(self) -> bool:
        return True

    @property
    def unit_factor(self) -> float:
        """`1/ℓ`."""
        return 1 / self.length_scale

    def unit(self, x: Array) -> Array:
        """`x / ℓ`, rounded once."""
        return x if self.length_scale == 1 else x / self.length_scale

    def _pairwise(self, x: Array, y: Array) -> Array:
        difference = self.unit(x - y)
        return self.of_squares(difference * difference)


@dataclass(frozen=True)
class IsotropicKernel(ShiftInvariantKernel):
    """A kernel `L(|x - y|²/ℓ²)` of the distance.

    Error: for inputs of any offset and size, with `c = max(|L'(0)|, 1/e)`, the rounding of distances changes values of
    `pairwise` by at most `(d + 4) eps`, and those of the Gram matrix by that, or, where L is smooth at 0, by
    `32 (d + 6) eps c`. For the evaluation of L add few eps, and few eps times ν for the Matérn kernel.

    Proof: `s |L'(s)| = E[(τs/2) exp(-τs/2)] <= 1/e`, so a relative error of s, however large s is, is no larger in the
    value; |L'| decreases. Where L is not smooth, errors at s = 0 would be magnified, and the Gram matrix is made of
    differences, coordinate by coordinate. Where L(s) is not yet 1, or not yet 0, at the ends of the range of the dtype,
    distances are not squared.
    """

    @property
    @abc.abstractmethod
    def smooth(self) -> bool:
        """Whether |L'(0)| is at most 3/2, so that rounding errors of the squared distance are not magnified."""

    def outlasts_squares(self, smallest: float, largest: float, spacing: float) -> bool:
        """Whether `1 - L(s)` or `L(s)` is above the spacing at 1 for the smallest or the largest normal number s."""
        return False

    def of_distance(self, distance: Array) -> Array:
        """`L(r²)` from r, where r² may be out of range."""
        return self.mixture(distance * distance)

    def of_squares(self, squares: Array) -> Array:
        """`L(Σ_l δ_l²)`."""
        return self.mixture(namespace(squares).sum(squares, axis=-1))

    def _gram(self, x: Array, y: Array) -> Array:
        return self._gram_over(x, y, 1.0)

    def _gram_over(self, x: Array, y: Array, scales: Any) -> Array:
        if self._outlasts_squares_of(x):
            return self.of_distance(distance(x, y, self.length_scale * scales))
        squared = sqdist if self.smooth else differenced_sqdist
        return self.mixture(squared(x, y, self.length_scale * scales))

    def _pairwise(self, x: Array, y: Array) -> Array:
        if not self._outlasts_squares_of(x):
            return super()._pairwise(x, y)
        xp, difference = namespace(x), self.unit(x - y)
        coordinates = (difference[..., index] for index in range(difference.shape[-1]))
        return self.of_distance(functools.reduce(hypotenuse, coordinates, xp.sum(xp.zeros_like(difference), axis=-1)))

    def _outlasts_squares_of(self, x: Array) -> bool:
        limits = namespace(x).finfo(x.dtype)
        return self.outlasts_squares(float(limits.smallest_normal), float(limits.max), float(limits.eps))


@dataclass(frozen=True)
class SeparableKernel(ShiftInvariantKernel):
    """A kernel `Π_l L((x_l - y_l)²/ℓ²)`, a product over coordinates."""

    scales_per_coordinate: ClassVar[bool] = True

    def of_squares(self, squares: Array) -> Array:
        """`Π_l L(δ_l²)`."""
        return namespace(squares).prod(self.mixture(squares), axis=-1)

    def _gram(self, x: Array, y: Array) -> Array:
        return self._gram_over(x, y, 1.0)

    def _gram_over(self, x: Array, y: Array, scales: Any) -> Array:
        product = zeros_of_gram(x, y) + 1.0
        for difference in coordinate_differences(x, y, self.length_scale * scales):
            product = product * self.mixture(difference * difference)
        return product


def root(s: Any, power: float = 0.5) -> Any:
    """`s^power`, 0 at 0, where also its derivative is taken to be 0 and not infinite."""
    xp = namespace(s)
    at_zero = s == 0
    safe = xp.where(at_zero, xp.ones_like(s), s)
    return xp.where(at_zero, xp.zeros_like(s), xp.sqrt(safe) if power == 0.5 else safe**power)
