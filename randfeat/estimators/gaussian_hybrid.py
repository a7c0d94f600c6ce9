"""Gaussian hybrid features."""

import functools
from dataclasses import dataclass

import numpy as np

from randfeat.estimators.hyperbolic import HyperbolicFeatures
from randfeat.estimators.mixed import MixedEstimator
from randfeat.estimators.mixers import GaussianMixer, Mixer
from randfeat.estimators.parametric import frozen_array
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.estimators.trigonometric import TrigonometricFeatures


@dataclass(frozen=True, eq=False, repr=False)
class GaussianHybridFeatures(MixedEstimator):
    """Gaussian hybrid features, `K̂ = λ̂ K̂_hyp+ + (1 - λ̂) K̂_trig` with `E λ̂ = λ = exp(-|x + My|²/2τ²)`.

    num_frequencies, width, matrix : n, τ and M of the `GaussianMixer`. shared_rows : whether both bases use the very
        same rows.

    Hyperbolic features near x = -My, trigonometric ones elsewhere. `u = |x + y|²`, `t = |x - y|²`.

    Shapes: (..., n, d) -> values and log_scale (..., n, (8n + 2)m) for m rows and n frequencies; asymmetric.
    Exact: `E[φ_q(x)·φ_k(y)] = exp(x·y)` for every coupling with exact marginals; for M = I in each draw at x = -y.
    Error: relative variance for m independent rows `[(λ² + q) 2 sinh²(u/2) + ((1-λ)² + q) 2 sinh²(t/2)] / m`, q =
        (1-λ²)²/2n, and `2 (λ(1-λ) - q) (cos(|x|² - |y|²) - 1) / m` more for shared rows. Never below q times the
        variance of either base: n must be large where one of them is useless.
    Limits: not positive; at x = y not exact.
    For: kernel values if many pairs are near x = -My, and estimates may be negative.
    Source: Choromanski et al. 2022, "Hybrid Random Features" (Gaussian lambda coefficients).

    >>> x = np.array([[1.0, 0.0, 0.5]])
    >>> phi = GaussianHybridFeatures().draw(dim=3, num_features=66 * 4, rng=0)
    >>> bool(np.isclose(phi.estimate(x, -x), np.exp(-1.25)).item())
    True
    """

    num_frequencies: int = 8
    width: float = 1.0
    matrix: float | np.ndarray = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "matrix", frozen_array(self.matrix, "matrix"))
        object.__setattr__(self, "width", GaussianMixer(self.num_frequencies, self.width, self.matrix).width)

    @functools.cached_property
    def components(self) -> tuple[SoftmaxEstimator, ...]:
        return HyperbolicFeatures(self.kernel, self.coupling), TrigonometricFeatures(self.kernel, self.coupling)

    @functools.cached_property
    def weights(self) -> tuple[Mixer, ...]:
        return (GaussianMixer(self.num_frequencies, self.width, self.matrix),)
