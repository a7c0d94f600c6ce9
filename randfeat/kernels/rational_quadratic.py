"""The rational quadratic kernel, and the Cauchy kernel, its separable relative."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import Array, as_generator, namespace
from randfeat.kernels.base import check_positive
from randfeat.kernels.shift_invariant import IsotropicKernel, SeparableKernel


@dataclass(frozen=True)
class RationalQuadraticKernel(IsotropicKernel):
    """Rational quadratic kernel `k(x, y) = (1 + |x - y|²/2αℓ²)^{-α}`.

    alpha : α, positive; α → ∞ is the Gaussian kernel of the same length scale.
    length_scale : ℓ, positive, in the units of the inputs.

    Frequencies `√τ g/ℓ` with `τ ~ Gamma(α)/α`. With α = 1 and ℓ = σ/√2 it is `1/(1 + |x - y|²/σ²)`, which some authors
    call the Cauchy kernel; `CauchyKernel` is the product over coordinates.
    Source: Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", chapter 4.

    >>> RationalQuadraticKernel(alpha=1.0).pairwise(np.zeros(2), np.ones(2))
    np.float64(0.5)
    """

    alpha: float = 1.0
    length_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "alpha", check_positive("alpha", self.alpha))

    smooth = True

    def mixture(self, s: Array) -> Array:
        """`(1 + s/2α)^{-α}`."""
        xp = namespace(s)
        return xp.exp(-self.alpha * xp.log1p(s / (2 * self.alpha)))

    def of_distance(self, distance: Array) -> Array:
        xp = namespace(distance)
        large = distance > 1 / math.sqrt(float(xp.finfo(distance.dtype).eps))
        near = xp.where(large, xp.zeros_like(distance), distance)
        far = 2 * xp.log(xp.where(large, distance, xp.ones_like(distance))) - math.log(2 * self.alpha)
        return xp.exp(-self.alpha * xp.where(large, far, xp.log1p(near * near / (2 * self.alpha))))

    def outlasts_squares(self, smallest: float, largest: float, spacing: float) -> bool:
        return math.exp(-self.alpha * (math.log(largest) - math.log(2 * self.alpha))) > spacing

    def sample_scales(self, size: tuple[int, ...], rng: Any = None) -> np.ndarray:
        """`Gamma(α)/α`."""
        return as_generator(rng).standard_gamma(self.alpha, size=size) / self.alpha


@dataclass(frozen=True)
class CauchyKernel(SeparableKernel):
    """Cauchy kernel `k(x, y) = Π_l 1/(1 + (x_l - y_l)²/ℓ²)`, a product over coordinates.

    length_scale : ℓ, positive, in the units of the inputs.

    The coordinates of a frequency are independent with the Laplace density `ℓ/2 exp(-ℓ|w|)`: `√τ_l g_l/ℓ` with
    `τ_l = 2 Exp(1)`. The isotropic `1/(1 + |x - y|²/σ²)` is `RationalQuadraticKernel(alpha=1, length_scale=σ/√2)`.
    Source: Rahimi & Recht 2007, "Random Features for Large-Scale Kernel Machines".

    >>> CauchyKernel().pairwise(np.zeros(2), np.ones(2))
    np.float64(0.25)
    """

    length_scale: float = 1.0

    def mixture(self, s: Array) -> Array:
        """`1/(1 + s)`."""
        return 1 / (1 + s)

    def sample_scales(self, size: tuple[int, ...], rng: Any = None) -> np.ndarray:
        """`2 Exp(1)`."""
        return 2 * as_generator(rng).standard_exponential(size=size)
