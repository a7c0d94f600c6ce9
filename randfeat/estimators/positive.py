"""Positive features."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat.couplings.laws import PairLaw
from randfeat.estimators.exponential import ExponentialEstimator
from randfeat.estimators.exponential_sum import ExponentialSum
from randfeat.variance import unit_inputs


@dataclass(frozen=True)
class PositiveFeatures(ExponentialEstimator):
    """Positive features, `φ_i(x) = exp(w_i·x - |x|²/2) / √m`: FAVOR+.

    The formula is for the softmax kernel; `u = |x + y|²`. Here x and y are in kernel units: the inputs times √scale for
    `SoftmaxKernel`, divided by the length scale for `GaussianKernel`.

    Shapes: (..., n, d) -> values (all 1) and log_scale (..., n, m), one feature per row.
    Exact: `E[φ(x)·φ(y)] = exp(x·y)` for every m >= 1 and every coupling with exact marginals, that is, with each row
        alone N(0, I). Estimates are never negative.
    Error: relative variance `expm1(u)/m` for independent rows. It is 0 at y = -x and small for opposite inputs. For u
        much larger than log m kernel estimates are useless; outputs of attention, which are averages of the values, may
        still be better than a plain average (`predict_attention_error`). Estimates have log-normal tails, so a measured
        mean or MSE is too low for such u.
    Biased low for constant norms: the mean is `SMREG = e^{-(|x|²+|y|²)/2} 0F1(; d/2; du/4)`.
    For: linear attention, if nothing is known about the data: outputs are averages of the values.
    Source: Choromanski et al. 2021, "Rethinking Attention with Performers", Lemmas 1 and 2.

    >>> phi = PositiveFeatures(coupling="orthogonal").draw(dim=3, num_features=256, rng=0)
    >>> x = np.array([[0.3, 0.0, -0.4]])
    >>> bool(np.isclose(phi.estimate(x, -x), np.exp(-0.25)).item())
    True
    >>> PositiveFeatures(coupling="independent").relative_variance(x, x, num_features=256)
    array([0.00671204])
    """

    acronyms = ("FAVOR+", "PRF")

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """`E[exp(w·(x+y))] e^{-u/2}`."""
        return law.row_mean(np.sum((x + y) ** 2, axis=-1))

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`Cov(exp(w1·(x+y)), exp(w2·(x+y))) e^{-u}`."""
        return law.covariance(np.sum((x + y) ** 2, axis=-1))

    def exponential_terms(self, x: np.ndarray, y: np.ndarray) -> ExponentialSum:
        """`exp(w·(x+y) - u/2)`."""
        z = x + y
        return ExponentialSum.of(-np.sum(z**2, axis=-1) / 2, [z])

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`z_j·z_k`, z_j = x + y_j."""
        z = x + y
        return z @ z.T

    def row_kurtosis(self, x: Any, y: Any) -> np.ndarray:
        """`q⁴ + 2q³ + 3q² - 3`, q = e^u: log-normal."""
        x, y = unit_inputs(self.kernel, x, y)
        q = np.exp(np.minimum(np.sum((x + y) ** 2, axis=-1), 170.0))
        return q**4 + 2 * q**3 + 3 * q**2 - 3
