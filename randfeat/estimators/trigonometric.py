"""Trigonometric features."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from randfeat._array import Array, squared_norm
from randfeat.couplings.laws import PairLaw
from randfeat.estimators.exponential_sum import ExponentialSum
from randfeat.estimators.fourier import FourierEstimator
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.variance import unit_inputs


@dataclass(frozen=True)
class TrigonometricFeatures(SoftmaxEstimator, FourierEstimator):
    """Trigonometric (random Fourier) features.

    variant : "pairs", `φ(x) = e^{|x|²/2} [cos(w_i·x), sin(w_i·x)]_i / √m`, two features per row (`num_features` even);
        "phase", `φ_i(x) = e^{|x|²/2} √(2/m) cos(w_i·x + b_i)`, b_i uniform on [0, 2π), one feature per row.

    The formulas are for the softmax kernel; for the Gaussian kernel they have no factor `e^{|x|²/2}`. `t = |x - y|²`.
    Here x and y are in kernel units: the inputs times √scale for `SoftmaxKernel`, divided by the length scale for
    `GaussianKernel`.

    Shapes: (..., n, d) -> values (..., n, num_features), bounded, of either sign; log_scale (..., n, 1).
    Exact: `E[φ(x)·φ(y)] = exp(x·y)` for every coupling with exact marginals, that is, with each row alone N(0, I).
        "pairs" features are exact at x = y in each draw.
    Error: relative variance for m independent rows `2 sinh²(t/2)/m` (pairs), `(2 sinh²(t/2) + e^t/2)/m` (phase). With
        independent rows and the same `num_features`, pairs are always better than random phases, and better than
        hyperbolic features if and only if t < |x + y|², that is x·y > 0. With other couplings, phases can be better
        for distant x and y.
    Limits: features have both signs, so denominators in attention can be 0 or negative where the kernel is small.
    For: the Gaussian kernel in regression and classification; large kernel values.
    Source: Rahimi & Recht 2007, "Random Features for Large-Scale Kernel Machines"; Sutherland & Schneider 2015, "On the
    Error of Random Fourier Features" (the two variants).

    >>> from randfeat import GaussianKernel
    >>> x, y = np.array([[0.3, 0.0]]), np.array([[0.0, 0.4]])
    >>> phi = TrigonometricFeatures(GaussianKernel(length_scale=0.5)).draw(dim=2, num_features=512, rng=0)
    >>> print(phi.estimate(x, x).round(12), phi.estimate(x, y).round(2), phi.estimator.mean(x, y).round(2))
    [[1.]] [[0.64]] [0.61]
    """

    variant: Literal["pairs", "phase"] = "pairs"

    bounded = True
    acronyms = ("RFF",)

    def log_factor(self, x: Array) -> Array:
        """`log e(x) + |x|²/2`."""
        sqnorm = squared_norm(x)
        return self.kernel.log_envelope(sqnorm) + sqnorm / 2

    def log_factor_slope(self, x: Array) -> Array:
        """`(2 e' + 1) x`, e' the derivative of `log e` in |x|²."""
        return (2 * self.kernel.envelope_slope(squared_norm(x)) + 1) * x

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """`E[cos(w·(x-y))] e^{t/2}`."""
        return law.row_mean(-np.sum((x - y) ** 2, axis=-1))

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`Cov(cos(w1·(x-y)), cos(w2·(x-y))) e^t`, plus `e^t/2` from the phase of one and the same row."""
        t = np.sum((x - y) ** 2, axis=-1)
        phase_noise = np.exp(t) / 2 if same_row and self.variant == "phase" else 0.0
        return law.even_covariance(-t) + phase_noise

    def exponential_terms(self, x: np.ndarray, y: np.ndarray) -> ExponentialSum:
        """`Re exp(i w·(x-y) + t/2)`; not for random phases, which are more than a row."""
        if self.variant == "phase":
            return super().exponential_terms(x, y)
        delta = x - y
        return ExponentialSum.of(np.sum(delta**2, axis=-1) / 2, [1j * delta])

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`log cosh(δ_j·δ_k)`, δ_j = x - y_j; random phases add `½ exp(δ_j·δ_k)` inside the logarithm."""
        delta = x - y
        inner = delta @ delta.T
        moment = np.logaddexp(inner, -inner)
        return (np.logaddexp(moment, inner) if self.variant == "phase" else moment) - math.log(2)

    def row_kurtosis(self, x: Any, y: Any) -> np.ndarray:
        """Fourth over squared second central moment of `cos(a)`, a ~ N(0, t), plus an independent cosine for phases."""
        x, y = unit_inputs(self.kernel, x, y)
        t = np.clip(np.sum((x - y) ** 2, axis=-1), 0.02, None)  # 15 in the limit t -> 0, where the difference cancels
        k1, k2, k3, k4 = (np.exp(-k * k * t / 2) for k in (1, 2, 3, 4))
        fourth = (3 + 4 * k2 + k4) / 8 - k1 * (3 * k1 + k3) + 3 * k1**2 * (1 + k2) - 3 * k1**4
        second = (1 - np.exp(-t)) ** 2 / 2
        if self.variant == "phase":
            fourth, second = fourth + 6 * second / 2 + 3 / 8, second + 1 / 2
        return fourth / second**2
