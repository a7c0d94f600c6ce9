"""The Matérn kernels."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import Array, as_generator, namespace
from randfeat._hints import short
from randfeat.kernels.base import check_positive
from randfeat.kernels.shift_invariant import IsotropicKernel, root

MOST_SMOOTH = 200.0


@dataclass(frozen=True)
class MaternKernel(IsotropicKernel):
    """Matérn kernel `k(x, y) = 2^{1-ν}/Γ(ν) a^ν K_ν(a)`, `a = √(2ν) |x - y|/ℓ`, ν the `smoothness`.

    smoothness : ν > 0. For half-integers 1/2, 3/2, 5/2, ... the kernel is an exponential times a polynomial, on every
        array library. For other ν (up to 200) kernel values come from SciPy's Bessel function and need NumPy arrays.
        Features do not need kernel values: they work on every library for every ν.
    length_scale : ℓ, positive, in the units of the inputs.

    The frequencies of its features are `√τ g/ℓ` with `τ = 2ν/χ²_{2ν}` and g ~ N(0, I): a multivariate t distribution
    with 2ν degrees of freedom. ν = 1/2 is `ExponentialKernel`, ν → ∞ is the Gaussian kernel of the same length scale.
    Source: Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", chapter 4.

    >>> kernel = MaternKernel(smoothness=1.5)
    >>> a = np.sqrt(3) * 0.5
    >>> bool(np.isclose(kernel.pairwise(np.array([0.3]), np.array([0.8])), (1 + a) * np.exp(-a)))
    True
    """

    smoothness: float = 1.5
    length_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "smoothness", check_positive("smoothness", self.smoothness))
        if not self._half_integer and self.smoothness > MOST_SMOOTH:
            raise ValueError(
                f"a smoothness above {MOST_SMOOTH:.0f} must be a half-integer, got {short(self.smoothness)}; "
                "use the nearest one, or GaussianKernel, the limit."
            )

    @property
    def _half_integer(self) -> bool:
        return (self.smoothness - 0.5).is_integer()

    @property
    def smooth(self) -> bool:
        """True from ν = 3/2 on: `L'(0) = -ν/(2ν - 2)`."""
        return self.smoothness >= 1.5

    def mixture(self, s: Array) -> Array:
        """`L(s) = 2^{1-ν}/Γ(ν) a^ν K_ν(a)` with `a = √(2νs)`; the kernel is `L(|x - y|²/ℓ²)`."""
        return self.of_distance(root(s))

    def of_distance(self, distance: Array) -> Array:
        a = math.sqrt(2 * self.smoothness) * distance
        return exponential_polynomial(int(self.smoothness - 0.5), a) if self._half_integer else self._bessel(a)

    def outlasts_squares(self, smallest: float, largest: float, spacing: float) -> bool:
        """`1 - L(s) ≈ Γ(1-ν)/Γ(1+ν) (νs/2)^ν` for s → 0 and ν < 1."""
        nu = self.smoothness
        return nu < 1 and math.gamma(1 - nu) / math.gamma(1 + nu) * (nu * smallest / 2) ** nu > spacing

    def _bessel(self, a: Array) -> Array:
        if namespace(a) is not np:
            raise TypeError(
                f"the values of a Matérn kernel of smoothness {self.smoothness} need NumPy arrays, got "
                f"{type(a).__name__}; convert, or choose a half-integer smoothness."
            )
        from scipy.special import gammaln, kve

        nu, kind = self.smoothness, np.result_type(a)
        far = np.real(a) > 800  # the value underflows
        a = np.where(far, 1.0, a).astype(np.result_type(kind, np.float64))  # logarithms times ν would lose digits
        # Power and Bessel function may overflow where their product is near 1; there the power series converges fast.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            bessel = kve(nu, a)
            value = np.exp((1 - nu) * math.log(2) - gammaln(nu) + nu * np.log(a) + np.log(bessel) - a)
        small = ~(np.isfinite(bessel) | np.isnan(a))
        value = np.where(small, leading_series(nu, np.where(small, a, 0.0) ** 2 / 4), value)
        return np.where(far, 0.0, value).astype(kind)

    def sample_scales(self, size: tuple[int, ...], rng: Any = None) -> np.ndarray:
        """`2ν/χ²_{2ν}`."""
        with np.errstate(divide="ignore", over="ignore"):  # small ν: a χ² variable may underflow, τ be infinite
            return 2 * self.smoothness / as_generator(rng).chisquare(2 * self.smoothness, size=size)


def exponential_polynomial(degree: int, a: Array) -> Array:
    """`e^{-a} Σ_j c_j a^j`, j <= degree = ν - 1/2, with `c_j/c_{j-1} = 2(p-j+1)/(j(2p-j+1))`, p the degree.

    Horner's rule with a factor e^{-a/p} for each power, so that nothing overflows at large a.
    """
    xp = namespace(a)
    if degree == 0:
        return xp.exp(-a)
    decay = xp.exp(-a / degree)
    damped = xp.where(decay == 0, xp.zeros_like(a), a) * decay
    total, power = xp.ones_like(a), xp.ones_like(a)
    for j in range(degree, 0, -1):
        power = power * decay
        total = power + 2 * (degree - j + 1) / (j * (2 * degree - j + 1)) * damped * total
    return total


def leading_series(nu: float, z: np.ndarray) -> np.ndarray:
    """`Σ_{j<ν} (-z)^j / (j! (ν-1)...(ν-j))`, z = a²/4: the regular part of the kernel, all of it where z is small."""
    term = np.ones_like(z)
    total = np.ones_like(z)
    for j in range(1, min(math.ceil(nu), 40)):
        term = -term * z / (j * (nu - j))
        total = total + term
    return total
