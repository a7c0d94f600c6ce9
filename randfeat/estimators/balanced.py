"""Balanced features."""

from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np

from randfeat._array import Array, Arrays, Drawn
from randfeat._hints import hinted, renamed_keywords, short
from randfeat.estimators.parametric import frozen_array
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.estimators.statistics import unit_pair
from randfeat.estimators.transformed import TransformedEstimator, matvec


@dataclass(frozen=True, eq=False, repr=False)
class BalancedFeatures(TransformedEstimator):
    """Features at balanced inputs: `exp(x·y) = exp((Tx)·(T^{-ᵀ}y))`.

    base : any estimator of the softmax or Gaussian kernel. matrix : T (..., d, d), invertible.

    Shapes: as the base's; queries and keys are transformed differently, so the map is asymmetric.
    Exact: an identity for every invertible T, so unbiased exactly when the base is.
    Error: the base's at (Tx, T^{-ᵀ}y). `fit` minimizes the mean of |Tx + T^{-ᵀ}y|² for centered inputs: T² is the
        matrix geometric mean of the inverse query and the key covariances, after which both are equal; or T is
        diagonal, with T_ll⁴ = E[y_l²]/E[x_l²]. With `OptimalPositiveFeatures` as base: ADERF and SADERF.
    For: trained heads: queries and keys whose covariances differ.
    Source: Likhosherstov et al. 2023, "FAVOR#" (ADERF, SADERF).

    >>> q = np.random.default_rng(0).standard_normal((64, 4)) * np.array([4.0, 2.0, 1.0, 0.5])
    >>> k = np.random.default_rng(1).standard_normal((64, 4)) * np.array([0.25, 0.5, 1.0, 2.0])
    >>> np.round(np.diagonal(BalancedFeatures.fit(q, k, kind="diagonal").matrix), 1)
    array([0.3, 0.5, 0.9, 1.7])
    """

    matrix: np.ndarray = field(default_factory=lambda: np.eye(1))

    acronyms = ("ADERF", "SADERF")

    @classmethod
    def example(cls) -> Self:
        return cls(matrix=np.eye(4) + np.tri(4, k=-1) / 4)

    def __post_init__(self) -> None:
        super().__post_init__()
        matrix = frozen_array(self.matrix, "matrix")
        if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
            raise ValueError(f"matrix must be (..., d, d), got {matrix.shape}.")
        if not np.all(np.linalg.cond(matrix) < 1e12):
            raise ValueError("matrix must be invertible, well within float64: its condition number exceeds 1e12.")
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    @renamed_keywords("0.2", "0.4", queries="query", keys="key")
    @hinted
    def fit(
        cls,
        query: Any,
        key: Any,
        *,
        scale: float | None = None,
        base: SoftmaxEstimator | None = None,
        kind: Literal["matrix", "diagonal"] = "matrix",
    ) -> Self:
        """Balance the second moments of (..., L, d) queries and (..., S, d) keys. Raw inputs, scale of attention."""
        base = PositiveFeatures() if base is None else base
        x, y = unit_pair(query, key, kernel=base.kernel, scale=scale)
        moments = [np.swapaxes(side, -1, -2) @ side / side.shape[-2] for side in (x, y)]
        return cls(base=base, matrix=balancing_transform(*moments, kind=kind))

    @property
    def parameter_dim(self) -> int:
        return int(self.matrix.shape[-1])

    def own_arrays(self) -> Drawn:
        return {"balance.query": self.matrix, "balance.key": np.swapaxes(np.linalg.inv(self.matrix), -1, -2)}

    def transform(self, arrays: Arrays, x: Any, *, keys: bool) -> tuple[Any, Any]:
        """`Tx` or `T^{-ᵀ}y`."""
        return matvec(arrays["balance.key" if keys else "balance.query"], x), 0.0

    def transform_pull_back(self, arrays: Arrays, gradient: Any, log_gradient: Any, *, keys: bool) -> Any:
        return gradient @ arrays["balance.key" if keys else "balance.query"]

    def pull_back_rows(self, arrays: Arrays, rows: Array, origin: Any, *, keys: bool) -> tuple[Array, Array | None]:
        """`(Ax - o)·w = (x - A^{-1}o)·Aᵀw`; T and T^{-ᵀ} are the inverse transposes of each other."""
        matrix, inverse = arrays["balance.query"], arrays["balance.key"]
        if keys:
            matrix, inverse = inverse, matrix
        return rows @ matrix, None if origin is None else origin @ inverse


def balancing_transform(
    query_moment: np.ndarray, key_moment: np.ndarray, *, kind: Literal["matrix", "diagonal"] = "matrix"
) -> np.ndarray:
    """The symmetric T with `T Σx T = T^{-1} Σy T^{-1}`, or the diagonal one with equal diagonals.

    Each moment gets 1 % of its mean eigenvalue on its diagonal (the identity, if it is zero), which keeps T finite for
    singular ones.
    """
    if kind == "diagonal":
        x, y = (np.diagonal(with_ridge(moment), axis1=-2, axis2=-1) for moment in (query_moment, key_moment))
        return (y / x)[..., None] ** 0.25 * np.eye(query_moment.shape[-1])
    if kind != "matrix":
        raise ValueError(f"kind must be 'matrix' or 'diagonal', got {short(kind)}.")
    return Balance.of(query_moment).transform(key_moment)


@dataclass(frozen=True, eq=False)
class Balance:
    """Roots of the second moment Σx of queries, to balance keys of several second moments Σy with them.

    `T² = Σx^{-1/2} (Σx^{1/2} Σy Σx^{1/2})^{1/2} Σx^{-1/2}`.
    """

    root: np.ndarray
    inverse_root: np.ndarray

    @classmethod
    def of(cls, query_moment: np.ndarray) -> "Balance":
        """`Σx^{1/2}` and `Σx^{-1/2}`, with the ridge of `balancing_transform`."""
        return cls(*powers(with_ridge(query_moment), 0.5, -0.5))

    def transform(self, key_moment: np.ndarray) -> np.ndarray:
        """The symmetric T with `T Σx T = T^{-1} Σy T^{-1}`."""
        return powers(self.inverse_root @ self._mean(key_moment, 0.5) @ self.inverse_root, 0.5)[0]

    def metric(self, key_moment: np.ndarray) -> np.ndarray:
        """A matrix A with `|Ax| = |Tx|` for all x, without the last root: `T² = AᵀA`."""
        return self._mean(key_moment, 0.25) @ self.inverse_root

    def _mean(self, key_moment: np.ndarray, exponent: float) -> np.ndarray:
        return powers(self.root @ with_ridge(key_moment) @ self.root, exponent)[0]


def with_ridge(moment: np.ndarray) -> np.ndarray:
    """The moment (..., d, d) plus 1 % of its mean eigenvalue, or the identity, if it is zero, on the diagonal."""
    dim = moment.shape[-1]
    mean = np.trace(moment, axis1=-2, axis2=-1)[..., None, None] / dim
    return moment + np.where(mean > 0, 0.01 * mean, 1.0) * np.eye(dim)


def powers(matrix: np.ndarray, *exponents: float) -> list[np.ndarray]:
    """Powers of a symmetric positive definite matrix (..., d, d)."""
    eigenvalues, vectors = np.linalg.eigh((matrix + np.swapaxes(matrix, -1, -2)) / 2)
    eigenvalues = np.maximum(eigenvalues, np.finfo(np.float64).tiny)[..., None, :]
    return [(vectors * eigenvalues**exponent) @ np.swapaxes(vectors, -1, -2) for exponent in exponents]
