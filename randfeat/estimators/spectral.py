"""Spectral features of kernels that are means of waves."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from randfeat._array import Array, Arrays, namespace
from randfeat.couplings.laws import GaussianPair, NoClosedForm, PairLaw, RadialPair, SpherePair
from randfeat.couplings.norms import constant_norm_mean, constant_norm_orthogonal_mean, orthogonal_mean
from randfeat.estimators.coordinate_waves import CoordinateWaves
from randfeat.estimators.fourier import FourierEstimator
from randfeat.features import FourierForm
from randfeat.kernels import IsotropicKernel, MaternKernel, ShiftInvariantKernel, SpectralKernel


@dataclass(frozen=True)
class SpectralFeatures(FourierEstimator):
    """Spectral (random Fourier) features of shift-invariant and chi-squared kernels, frequencies f_i.

    variant : "pairs", `φ(x) = [cos(f_i·x), sin(f_i·x)]_i / √m`, two features per row (`num_features` even); "phase",
        `φ_i(x) = √(2/m) cos(f_i·x + b_i)`, b_i uniform on [0, 2π), one feature per row.

    A shift-invariant kernel is a mixture of Gaussian kernels over their scale τ: `f_i = √τ_i w_i`. Rows w_i follow the
    coupling; scales are drawn from the kernel's law, independent of the rows and of each other, one per row or
    (separable kernels) one per coordinate. Chi-squared kernels take the coordinates of w_i to those of f_i one by one,
    by their distribution functions. x and y in kernel units, δ = x - y, k(δ) the kernel.

    `AdditiveChi2Kernel` is a sum over coordinates. Each has waves of its own,
    `√(x_l/m) [cos(f_il log x_l), sin(f_il log x_l)]`: 2d features per row, so `num_features` is a multiple of 2d, or of
    d for phases.

    Shapes: (..., n, d) -> values (..., n, num_features), bounded, of either sign; log_scale (..., n, 1), zero.
    Exact: `E[φ(x)·φ(y)] = k(δ)` for every coupling with exact marginals; pairs are exact at x = y in each draw.
    Error: variance for m independent rows `[(1 + k(2δ))/2 - k(δ)²]/m` (pairs), `1/2m` more (phase); for the additive
        kernel `Σ_l x_l y_l (x_l - y_l)⁴/(2 (x_l² + y_l²)(x_l + y_l)²)/m`, and `Σ_l x_l y_l/2m` more. Orthogonal rows
        add their covariance, for isotropic kernels a contour integral that is evaluated to rounding error. No closed
        form for orthogonal rows of separable and chi-squared kernels, nor for antithetic, centered and simplex rows.
    Biased for constant norms; mean and variance are contour integrals, too: NaN where nearly Gaussian kernels, at
        distances of tens of length scales, let them cancel.
    Limits: frequencies of rough kernels are heavy-tailed. Rounding loses the phase of rows with `|f| > 1/(eps |x|)`;
        for kernels like 1 - |δ|^β near 0 that is a share of about `(eps |x|)^β` of them. Center the inputs.
    For: regression and Gaussian processes with Matérn, Laplacian and other shift-invariant kernels; histograms with
        chi-squared kernels.
    Source: Rahimi & Recht 2007, "Random Features for Large-Scale Kernel Machines"; Sutherland & Schneider 2015, "On the
    Error of Random Fourier Features".

    >>> x, y = np.array([[0.3, 0.0]]), np.array([[0.0, 0.4]])
    >>> phi = SpectralFeatures(MaternKernel(smoothness=2.5)).draw(dim=2, num_features=512, rng=0)
    >>> print(phi.estimate(x, x).round(12), phi.estimate(x, y).round(1), phi.estimator.mean(x, y).round(2))
    [[1.]] [[0.8]] [0.83]
    """

    kernel: SpectralKernel = field(default_factory=MaternKernel)
    variant: Literal["pairs", "phase"] = "pairs"

    bounded = True
    kernel_type: ClassVar[type] = SpectralKernel

    def waves_per_row(self, dim: int | None) -> int:
        """1, or d if the waves are of single coordinates."""
        if not self.kernel.homogeneous:
            return 1
        if dim is None:
            raise ValueError(f"a row of {self!r} has features for each coordinate: pass dim, the length of the inputs.")
        return dim

    def draw_rows(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> np.ndarray:
        return self.kernel.frequencies(super().draw_rows(dim, num_rows, rng, batch_shape), rng)

    def fourier_form(self, arrays: Arrays) -> FourierForm | None:
        return None if self.kernel.homogeneous else super().fourier_form(arrays)

    def waves(self, arrays: Arrays) -> Any:
        if not self.kernel.homogeneous:
            return super().waves(arrays)
        return CoordinateWaves(arrays["rows"], arrays.get("phases"))

    def log_factor(self, x: Array) -> Array:
        return namespace(x).zeros_like(x[..., :1])

    def log_factor_slope(self, x: Array) -> Array:
        return namespace(x).zeros_like(x)

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """`E[cos(f·δ)]`: the kernel, unless norms are constant."""
        amplitudes, delta = self.kernel.wave_pair(x, y)
        return self.kernel.sum_of_waves(amplitudes * self._mean(delta, law))

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`Cov(cos(f1·δ), cos(f2·δ))`; for one row `(1 + E cos(f·2δ))/2 - (E cos(f·δ))²`, and 1/2 from its phase."""
        amplitudes, delta = self.kernel.wave_pair(x, y)
        if same_row:
            noise = 0.5 if self.variant == "phase" else 0.0
            own = (1 + self._mean(2 * delta, law)) / 2 - self._mean(delta, law) ** 2 + noise
            return self.kernel.sum_of_waves(amplitudes**2 * own)
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
        if isinstance(law, SpherePair) and isinstance(self.kernel, ShiftInvariantKernel):
            return constant_norm_mean(self.kernel.of_squares, delta * delta, law.dim)
        if isinstance(law, GaussianPair | RadialPair):
            return self.kernel.of_squares(delta * delta)
        raise NoClosedForm(
            f"the mean of spectral features under {law!r} is not known; use rows with exact marginals, or "
            "randfeat.montecarlo.sample_errors."
        )
