"""Exponentials of a distance: the exponential, the Laplacian and the exponential power kernel."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import Array, as_generator, namespace
from randfeat._hints import short
from randfeat.kernels.base import check_positive
from randfeat.kernels.shift_invariant import IsotropicKernel, SeparableKernel, root


@dataclass(frozen=True)
class ExponentialKernel(IsotropicKernel):
    """Exponential kernel `k(x, y) = exp(-|x - y|/ℓ)` of the Euclidean distance: the Matérn kernel of smoothness 1/2.

    length_scale : ℓ, positive, in the units of the inputs.

    Frequencies `√τ g/ℓ` with `τ = 1/χ²_1`: a multivariate Cauchy law. With the sum of absolute differences in place of
    the Euclidean distance it is `LaplacianKernel`.
    Source: Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", section 4.2.

    >>> ExponentialKernel(length_scale=5.0).pairwise(np.array([0.0, 0.0]), np.array([3.0, 4.0]))
    np.float64(0.36787944117144233)
    """

    length_scale: float = 1.0

    smooth = False

    def mixture(self, s: Array) -> Array:
        """`exp(-√s)`."""
        return namespace(s).exp(-root(s))

    def sample_scales(self, size: tuple[int, ...], rng: Any = None) -> np.ndarray:
        """`1/χ²_1`."""
        return inverse_chi_square(size, rng)


@dataclass(frozen=True)
class LaplacianKernel(SeparableKernel):
    """Laplacian kernel `k(x, y) = exp(-Σ_l |x_l - y_l|/ℓ)`.

    length_scale : ℓ, positive, in the units of the inputs; scikit-learn's `gamma` is `1/ℓ`.

    The coordinates of a frequency are independent Cauchy variables of scale 1/ℓ: `√τ_l g_l/ℓ` with `τ_l = 1/χ²_1`. With
    the Euclidean distance it is `ExponentialKernel`.
    Source: Rahimi & Recht 2007, "Random Features for Large-Scale Kernel Machines".

    >>> LaplacianKernel(length_scale=7.0).pairwise(np.array([0.0, 0.0]), np.array([3.0, -4.0])).round(6)
    np.float64(0.367879)
    """

    length_scale: float = 1.0

    def mixture(self, s: Array) -> Array:
        """`exp(-√s)`."""
        return namespace(s).exp(-root(s))

    def sample_scales(self, size: tuple[int, ...], rng: Any = None) -> np.ndarray:
        """`1/χ²_1`."""
        return inverse_chi_square(size, rng)


@dataclass(frozen=True)
class ExponentialPowerKernel(IsotropicKernel):
    """Exponential power kernel `k(x, y) = exp(-(|x - y|/ℓ)^β)`, β the `power`.

    power : 0 < β <= 2; it is not positive definite beyond. β = 1 is `ExponentialKernel`, β = 2 the Gaussian kernel of
        length scale ℓ/√2.
    length_scale : ℓ, positive, in the units of the inputs.

    Frequencies `√τ g/ℓ`, τ/2 positive and stable of index β/2; they have an isotropic stable law of index β.
    Source: Kanter 1975, "Stable Densities Under Change of Scale and Total Variation Inequalities", for the sampler.

    >>> ExponentialPowerKernel(power=0.5).pairwise(np.zeros(1), np.array([4.0]))
    np.float64(0.1353352832366127)
    """

    power: float = 1.0
    length_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "power", check_positive("power", self.power))
        if self.power > 2:
            raise ValueError(f"power must be at most 2 for a positive definite kernel, got {short(self.power)}.")

    @property
    def smooth(self) -> bool:
        """True for β = 2."""
        return self.power == 2

    def mixture(self, s: Array) -> Array:
        """`exp(-s^{β/2})`."""
        return namespace(s).exp(-root(s, self.power / 2))

    def of_distance(self, distance: Array) -> Array:
        return namespace(distance).exp(-root(distance, self.power))

    def outlasts_squares(self, smallest: float, largest: float, spacing: float) -> bool:
        return smallest ** (self.power / 2) > spacing or math.exp(-(largest ** (self.power / 2))) > spacing

    def sample_scales(self, size: tuple[int, ...], rng: Any = None) -> np.ndarray:
        """`2 sin(αu) sin(u)^{-1/α} (sin((1-α)u)/E)^{(1-α)/α}`, α = β/2, u uniform on (0, π], E ~ Exp(1)."""
        alpha = self.power / 2
        if alpha == 1:
            return np.full(size, 2.0)
        rng = as_generator(rng)
        u = np.pi * (1 - rng.random(size=size))
        log = np.log(np.sin(alpha * u)) - np.log(np.sin(u)) / alpha
        log += (1 - alpha) / alpha * np.log(np.sin((1 - alpha) * u) / rng.standard_exponential(size=size))
        return 2 * np.exp(np.minimum(log, 600.0))


def inverse_chi_square(size: tuple[int, ...], rng: Any) -> np.ndarray:
    """`1/χ²_1`: the square of a Cauchy variable's scale, so that √τ g is a Cauchy variable."""
    return 1 / as_generator(rng).standard_normal(size=size) ** 2
