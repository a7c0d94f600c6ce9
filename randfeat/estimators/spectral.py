"""Spectral features of shift-invariant kernels."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from randfeat._array import Array, namespace
from randfeat.couplings.laws import GaussianPair, NoClosedForm, PairLaw, RadialPair, SpherePair
from randfeat.couplings.norms import constant_norm_mean, constant_norm_orthogonal_mean, orthogonal_mean
from randfeat.estimators.fourier import FourierEstimator
from randfeat.kernels import IsotropicKernel, MaternKernel, ShiftInvariantKernel

LARGEST = 1e60  # of a scale, so that frequencies are finite in float32; their phase is lost to rounding long before


@dataclass(frozen=True)
class SpectralFeatures(FourierEstimator):
    """Spectral (random Fourier) features of a shift-invariant kernel, frequencies `f_i = √τ_i w_i`.

    variant : "pairs", `φ(x) = [cos(f_i·x), sin(f_i·x)]_i / √m`, two features per row (`num_features` even); "phase",
        `φ_i(x) = √(2/m) cos(f_i·x + b_i)`, b_i uniform on [0, 2π), one feature per row.

    The kernel is a mixture of Gaussian kernels over their scale τ. Rows w_i follow the coupling; scales are drawn from
    the kernel's law, independent of the rows and of each other, one per row or (separable kernels) one per coordinate.
    x and y in kernel units, δ = x - y, k(δ) the kernel.

    Shapes: (..., n, d) -> values (..., n, num_features), bounded, of either sign; log_scale (..., n, 1), zero.
    Exact: `E[φ(x)·φ(y)] = k(δ)` for every coupling with exact marginals; pairs are exact at x = y in each draw.
    Error: variance for m independent rows `[(1 + k(2δ))/2 - k(δ)²]/m` (pairs), `1/2m` more (phase). Orthogonal rows
        add their covariance, for isotropic kernels a contour integral that is evaluated to rounding error. No closed
        form for orthogonal rows of separable kernels, nor for antithetic, centered and simplex rows.
    Biased for constant norms; mean and variance are contour integrals, too: NaN where nearly Gaussian kernels, at
        distances of tens of length scales, let them cancel.
    Limits: frequencies of rough kernels are heavy-tailed. Rounding loses the phase of rows with `|f| > 1/(eps |x|)`;
        for kernels like 1 - |δ|^β near 0 that is a share of about `(eps |x|)^β` of them. Center the inputs.
    For: regression and Gaussian processes with Matérn, Laplacian and other shift-invariant kernels.
    Source: Rahimi & Recht 2007, "Random Features for Large-Scale Kernel Machines"; Sutherland & Schneider 2015, "On the
    Error of Random Fourier Features".

    >>> x, y = np.array([[0.3, 0.0]]), np.array([[0.0, 0.4]])
    >>> phi = SpectralFeatures(MaternKernel(smoothness=2.5)).draw(dim=2, num_features=512, rng=0)
    >>> print(phi.estimate(x, x).round(12), phi.estimate(x, y).round(1), phi.estimator.mean(x, y).round(2))
    [[1.]] [[0.8]] [0.83]
    """

    kernel: ShiftInvariantKernel = field(default_factory=MaternKernel)
    variant: Literal["pairs", "phase"] = "pairs"

    bounded = True
    kernel_type: ClassVar[type] = ShiftInvariantKernel

    def draw_rows(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> np.ndarray:
        rows = super().draw_rows(dim, num_rows, rng, batch_shape)
        per_row = dim if self.kernel.scales_per_coordinate else 1
        scales = self.kernel.sample_scales((*batch_shape, num_rows, per_row), rng)
        return np.sqrt(np.minimum(scales, LARGEST)) * rows

    def log_factor(self, x: Array) -> Array:
        return namespace(x).zeros_like(x[..., :1])

    def log_factor_slope(self, x: Array) -> Array:
        return namespace(x).zeros_like(x)

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """`E[cos(f·δ)]`: the kernel, unless norms are constant."""
        return self._mean(x - y, law)

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`Cov(cos(f1·δ), cos(f2·δ))`; for one row `(1 + E cos(f·2δ))/2 - (E cos(f·δ))²`, and 1/2 from its phase."""
        delta = x - y
        if same_row:
            noise = 0.5 if self.variant == "phase" else 0.0
            return (1 + self._mean(2 * delta, law)) / 2 - self._mean(delta, law) ** 2 + noise
        t, dim = np.sum(delta * delta, axis=-1), delta.shape[-1]
        if isinstance(self.kernel, IsotropicKernel):
            if isinstance(law, RadialPair) and law.cosine == 0:
                return orthogonal_mean(self.kernel.mixture, t, dim) - self._mean(delta, law) ** 2
            if isinstance(law, SpherePair) and law.cosine == 0:
                return constant_norm_orthogonal_mean(self.kernel.mixture, t, dim) - self._mean(delta, law) ** 2
        raise NoClosedForm(
            f"the covariance of {type(self.kernel).__name__} frequencies under {law!r} is not known; use independent "
            "rows, for isotropic kernels orthogonal ones, or randfeat.montecarlo.sample_errors."
        )

    def _mean(self, delta: np.ndarray, law: PairLaw) -> np.ndarray:
        """`E[cos(f·δ)]` for one row, of chi or of constant norm."""
        if isinstance(law, SpherePair):
            return constant_norm_mean(self.kernel.of_squares, delta * delta, law.dim)
        if isinstance(law, GaussianPair | RadialPair):
            return self.kernel.of_squares(delta * delta)
        raise NoClosedForm(
            f"the mean of spectral features under {law!r} is not known; use rows with exact marginals, or "
            "randfeat.montecarlo.sample_errors."
        )
