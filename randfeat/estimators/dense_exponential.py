"""Dense-exponential features."""

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from randfeat._array import Drawn
from randfeat._hints import hinted, renamed_keywords
from randfeat.couplings import Coupling
from randfeat.couplings.base import sampled_rows
from randfeat.couplings.laws import PairLaw
from randfeat.estimators.exponential import ExponentialEstimator
from randfeat.estimators.exponential_sum import ExponentialSum
from randfeat.estimators.optimal_positive import optimal_exponent, tilted_joint_moment, tilted_terms
from randfeat.estimators.parametric import Parametric, frozen_array
from randfeat.estimators.statistics import or_default, unit_pair
from randfeat.kernels import SoftmaxFamily


@dataclass(frozen=True, eq=False, repr=False)
class DenseExponentialFeatures(Parametric, ExponentialEstimator):
    """Dense-exponential features with one exponent per axis: SDERF.

    `φ_i(x) = Π_l (1-4a_l)^{1/4} exp(Σ_l a_l w_il² + √(1-4a_l) w_il (Ux)_l - |x|²/2) / √m`: positive features whose rows
    are drawn from a Gaussian with variance 1-4a_l along the l-th row of the rotation U, weighted by the density ratio.

    exponents : (..., d), a_l < 1/8. rotation : (..., d, d), orthogonal, rows are the axes; the identity by default.

    x and y in kernel units, z = U(x + y), `ρ_l = 1/(1-8a_l)`. General dense-exponential features (ADERF, SADERF and
    every choice of unequal matrices for queries and keys) are these under `BalancedFeatures`.

    Shapes: (..., n, d) -> values (all 1) and log_scale (..., n, m), one feature per row.
    Exact: `E[φ(x)·φ(y)] = exp(x·y)` for every coupling with exact marginals.
    Error: relative variance `Π_l ((1+ρ_l)²/4ρ_l)^{1/2} e^{ρ_l z_l²} - 1` of one independent row; `fit` takes the
        optimum for the mean logarithm of the second moment. Unequal exponents have no closed-form covariance for
        orthogonal and simplex rows (`NoClosedForm`).
    For: trained heads: features fitted to them in closed form, one number for each axis.
    Source: Likhosherstov et al. 2023, "FAVOR#" (SDERF; FAVOR# with orthogonal rows).

    >>> q, k = np.random.default_rng(0).standard_normal((2, 64, 4)) * np.array([3.0, 1.0, 0.3, 0.1])
    >>> estimator = DenseExponentialFeatures.fit(q, k)
    >>> estimator.draw(dim=4, num_features=32, rng=0).estimate(q, k).shape
    (64, 64)
    """

    exponents: np.ndarray = field(default_factory=lambda: np.zeros(1))
    rotation: np.ndarray | None = None

    acronyms = ("SDERF", "FAVOR#")

    @classmethod
    def example(cls) -> Self:
        return cls(exponents=np.array([-0.1, -0.05, 0.0, 0.02]))

    def __post_init__(self) -> None:
        super().__post_init__()
        exponents = frozen_array(self.exponents, "exponents")
        dim = exponents.shape[-1] if exponents.ndim else 0
        rotation = frozen_array(np.eye(dim) if self.rotation is None else self.rotation, "rotation")
        if not np.all(exponents < 1 / 8):
            raise ValueError(
                f"exponents must be below 1/8 for the second moment to exist, got up to {exponents.max()}."
            )
        if rotation.shape[-2:] != (dim, dim):
            raise ValueError(
                f"exponents have {dim} axes, so rotation must be (..., {dim}, {dim}), got {rotation.shape}."
            )
        if not np.allclose(rotation @ np.swapaxes(rotation, -1, -2), np.eye(dim), atol=1e-9 * dim):
            raise ValueError("rotation must be orthogonal.")
        object.__setattr__(self, "exponents", exponents)
        object.__setattr__(self, "rotation", rotation)

    @property
    def bounded(self) -> bool:
        return bool(np.all(self.exponents < 0))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.exponents.shape[:-1]

    @classmethod
    @renamed_keywords("0.2", "0.4", queries="query", keys="key")
    @hinted
    def fit(
        cls,
        query: Any,
        key: Any,
        *,
        scale: float | None = None,
        kernel: SoftmaxFamily | None = None,
        coupling: Coupling | str | None = None,
    ) -> Self:
        """The optimum for the second moments of x + y over all pairs of (..., L, d) queries and (..., S, d) keys.

        Axes are the eigenvectors of `mean (x_i + y_j)(x_i + y_j)ᵀ`, and each exponent is optimal for its eigenvalue.
        O((L + S) d² + d³) for each of the leading dimensions. Raw inputs and the scale of `linear_attention`.
        """
        kernel, coupling = or_default(kernel, coupling)
        x, y = unit_pair(query, key, kernel=kernel, scale=scale)
        cross = x.mean(axis=-2)[..., :, None] * y.mean(axis=-2)[..., None, :]
        second = sum(np.swapaxes(side, -1, -2) @ side / side.shape[-2] for side in (x, y))
        return cls.for_second_moment(second + cross + np.swapaxes(cross, -1, -2), kernel=kernel, coupling=coupling)

    @classmethod
    def for_second_moment(cls, moment: np.ndarray, **options: Any) -> Self:
        """The optimum for `E[(x + y)(x + y)ᵀ] = moment`, (..., d, d), in kernel units."""
        eigenvalues, eigenvectors = np.linalg.eigh(moment)
        exponents = optimal_exponent(np.clip(eigenvalues, 0.0, None))
        return cls(exponents=exponents, rotation=np.swapaxes(eigenvectors, -1, -2), **options)

    @property
    def parameter_dim(self) -> int:
        return int(self.exponents.shape[-1])

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        w = sampled_rows(self._coupling, num_rows, dim, rng=rng, batch_shape=batch_shape)
        a = self.exponents[..., None, :]
        log_weights = np.sum(a * w * w + np.log1p(-4 * a) / 4, axis=-1)[..., None, :] - math.log(num_rows) / 2
        return {"rows": (np.sqrt(1 - 4 * a) * w) @ self._axes, "log_weights": log_weights}

    @property
    def _axes(self) -> np.ndarray:
        assert self.rotation is not None  # set in __post_init__
        return self.rotation

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        """`E[T(w)] e^{-|z|²/2}`, with z = x + y along the axes and T(w) as in `PairLaw.tilted_covariance`."""
        return law.tilted_row_mean(self._along_axes(x + y), self.per_pair(self.exponents))

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        """`Cov(T(w1), T(w2)) e^{-|z|²}`."""
        return law.tilted_covariance(self._along_axes(x + y), self.per_pair(self.exponents))

    def exponential_terms(self, x: np.ndarray, y: np.ndarray) -> ExponentialSum:
        """`Π_l (1-4a_l)^{1/2} exp(Σ_l [2a_l w_l² + √(1-4a_l) w_l z_l] - |z|²/2)`, the row along the axes."""
        z = self._along_axes(x + y)
        return tilted_terms(z, np.broadcast_to(self.per_pair(self.exponents), z.shape))

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return tilted_joint_moment(self._along_axes(x + y), self.exponents)

    def _along_axes(self, z: np.ndarray) -> np.ndarray:
        """`Uz`."""
        return (self.per_pair(self._axes) @ z[..., None])[..., 0]
