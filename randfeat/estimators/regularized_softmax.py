"""Regularized softmax features."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from randfeat.couplings import Coupling, Orthogonal
from randfeat.couplings.hypergeometric import log_hyp0f1
from randfeat.couplings.laws import NoClosedForm, PairLaw, SpherePair
from randfeat.estimators.exponential import ExponentialEstimator
from randfeat.variance import unit_inputs


@dataclass(frozen=True)
class RegularizedSoftmaxFeatures(ExponentialEstimator):
    """Positive features on rows of constant length, `φ_i(x) = exp(w_i·x - |x|²/2) / √m` with |w_i| = √d: SMREG.

    coupling : one whose rows all have the length √d: `Orthogonal(norms="constant")`, `Antithetic` of it.

    `PositiveFeatures` without the random lengths that make their tails heavy. x and y in kernel units, `u = |x + y|²`,
    `Λ = e^{-(|x|²+|y|²)/2}`.

    Shapes: (..., n, d) -> values (all 1) and log_scale (..., n, m), one feature per row.
    Exact: `E[φ(x)·φ(y)] = SMREG(x, y) = Λ 0F1(; d/2; du/4)`, the regularized softmax kernel. As an estimate of exp(x·y)
        biased low, by the relative amount u²/(4(d+2)) to leading order: negligible where u² << 4d.
    Error: variance `Λ² [0F1(; d/2; du) - 0F1(; d/2; du/4)²]` of one row; `mse` adds the squared bias. Bounded: every
        term of the estimate is at most `Λ e^{√(du)}` (`bound`).
    For: estimates with light tails, if a small and known bias is accepted.
    Source: Choromanski et al. 2021, "Rethinking Attention with Performers", Theorems 1 and 2.

    >>> estimator = RegularizedSoftmaxFeatures()
    >>> x = np.full(16, 0.25)
    >>> print(round(float(estimator.mean(x, x) / np.exp(x @ x)), 3), round(float(estimator.bound(x, x)), 1))
    0.837 1096.6
    """

    coupling: Coupling | str = field(default_factory=lambda: Orthogonal(norms="constant"))

    bounded = True
    acronyms = ("SMREG",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not has_constant_norms(self._coupling):
            raise ValueError(
                f"the rows of {self.coupling!r} do not all have the length √d; use Orthogonal(norms='constant'), "
                "or PositiveFeatures, which takes every coupling."
            )

    def bound(self, x: Any, y: Any) -> np.ndarray:
        """`Λ e^{√(du)}`: no term of the estimate of a pair, and so no estimate, is larger."""
        x, y = unit_inputs(self.kernel, x, y)
        u, dim = np.sum((x + y) ** 2, axis=-1), x.shape[-1]
        envelope = sum(
            self.kernel.log_envelope(square) - square / 2 for square in (np.sum(v**2, axis=-1) for v in (x, y))
        )
        return np.asarray(np.exp(np.sqrt(dim * u) + envelope))

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """`0F1(; d/2; du/4) e^{-u/2}`."""
        return law.row_mean(np.sum((x + y) ** 2, axis=-1))

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`Cov(exp(w1·(x+y)), exp(w2·(x+y))) e^{-u}`."""
        return law.covariance(np.sum((x + y) ** 2, axis=-1))

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`log 0F1(; d/2; d|z_j + z_k|²/4) - (|z_j|² + |z_k|²)/2`, z_j = x + y_j."""
        z = x + y
        dim, square = z.shape[-1], np.sum(z**2, axis=-1)
        halves = (square[:, None] + square[None, :]) / 2
        return log_hyp0f1(dim / 2, dim * np.maximum(halves + z @ z.T, 0.0) / 2) - halves

    def row_kurtosis(self, x: Any, y: Any) -> np.ndarray:
        """`E S^k ∝ 0F1(; d/2; d k² u/4)`, k up to 4."""
        x, y = unit_inputs(self.kernel, x, y)
        dim = x.shape[-1]
        u = np.clip(np.sum((x + y) ** 2, axis=-1), 0.01, 50.0)  # the limits cancel and overflow
        log_mean = log_hyp0f1(dim / 2, dim * u / 4)
        second, third, fourth = (np.exp(log_hyp0f1(dim / 2, dim * k * k * u / 4) - k * log_mean) for k in (2, 3, 4))
        return (fourth - 4 * third + 6 * second - 3) / (second - 1) ** 2


def has_constant_norms(coupling: Coupling) -> bool:
    """Whether each row alone is uniform on the sphere of radius √d, as its law in dimension 4 tells."""
    dim = 4
    try:
        return isinstance(coupling.row_law(dim, coupling.nearest_num_rows(dim, dim)[-1]), SpherePair)
    except NoClosedForm:
        return False
