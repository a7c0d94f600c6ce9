"""Centered features."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from randfeat._array import Array, Arrays, Drawn, namespace
from randfeat._hints import hinted, renamed_keywords
from randfeat.estimators.parametric import frozen_array
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.estimators.statistics import unit_pair
from randfeat.estimators.transformed import TransformedEstimator


@dataclass(frozen=True, eq=False, repr=False)
class CenteredFeatures(TransformedEstimator):
    """Features at shifted inputs: `exp(x·y) = e^{x·c2} e^{c1·(y - c2)} exp((x - c1)·(y - c2))`.

    base : any estimator of the softmax or Gaussian kernel. query_shift : c1 (..., d). key_shift : c2 (..., d). Both
        shifts are in kernel units.

    Shapes: those of the features of `base`. The two factors are added to the `log_scale` of queries and keys, so query
        features and key features differ.
    Exact: the formula is an identity for all c1 and c2, so this estimator is unbiased if and only if `base` is. In
        attention the query factor cancels, and the key factor is a weight of each key.
    Error: the relative error of `base` at the shifted pair (x - c1, y - c2). For positive features it depends on
        |x + y - c1 - c2|², whose mean is smallest for c1 + c2 = mean(x) + mean(y). For trigonometric features it
        depends on |x - y - c1 + c2|², whose mean is smallest for c1 - c2 = mean(x) - mean(y). `fit` sets c1 = mean(x)
        and c2 = mean(y), which is best in both cases.
    For: trained heads: queries or keys whose mean is far from zero.
    Source: the shift invariance of softmax; Choromanski et al. 2021 for the features.

    >>> x, y = np.array([3.0, 0.1]), np.array([3.0, -0.1])
    >>> centered = CenteredFeatures(query_shift=np.array([3.0, 0.0]), key_shift=np.array([3.0, 0.0]))
    >>> [e.relative_variance(x, y, num_features=1).round(2) for e in (centered.base, centered)]
    [np.float64(4311231547115194.0), np.float64(0.0)]
    """

    query_shift: np.ndarray = field(default_factory=lambda: np.zeros(1))
    key_shift: np.ndarray = field(default_factory=lambda: np.zeros(1))

    @classmethod
    def example(cls) -> Self:
        return cls(query_shift=np.full(4, 0.2), key_shift=np.full(4, -0.1))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("query_shift", "key_shift"):
            object.__setattr__(self, name, frozen_array(np.atleast_1d(getattr(self, name)), name))

    @classmethod
    @renamed_keywords("0.2", "0.4", queries="query", keys="key")
    @hinted
    def fit(cls, query: Any, key: Any, *, scale: float | None = None, base: SoftmaxEstimator | None = None) -> Self:
        """Take the means of queries (..., L, d) and keys (..., S, d) as shifts.

        Inputs and `scale` are as for `linear_attention`.
        """
        base = PositiveFeatures() if base is None else base
        x, y = unit_pair(query, key, kernel=base.kernel, scale=scale)
        return cls(base=base, query_shift=x.mean(axis=-2), key_shift=y.mean(axis=-2))

    @property
    def parameter_dim(self) -> int | None:
        longest = max(self.query_shift.shape[-1], self.key_shift.shape[-1])
        return longest if longest > 1 else self.base.parameter_dim

    def own_arrays(self) -> Drawn:
        return {"center.query": self.query_shift[..., None, :], "center.key": self.key_shift[..., None, :]}

    def transform(self, arrays: Arrays, x: Any, *, keys: bool) -> tuple[Any, Any]:
        """`x - c1` with log-weight `x·c2`, or `y - c2` with log-weight `c1·(y - c2)`."""
        query_shift, key_shift = arrays["center.query"], arrays["center.key"]
        if not keys:
            return x - query_shift, inner(x, key_shift)
        moved = x - key_shift
        return moved, inner(moved, query_shift)

    def transform_pull_back(self, arrays: Arrays, gradient: Any, log_gradient: Any, *, keys: bool) -> Any:
        return gradient + log_gradient * arrays["center.query" if keys else "center.key"]

    def pull_back_rows(self, arrays: Arrays, rows: Array, origin: Any, *, keys: bool) -> tuple[Array, Array | None]:
        shift = arrays["center.key" if keys else "center.query"]
        return rows, shift if origin is None else origin + shift


def inner(x: Any, row: Any) -> Any:
    """Inner products of the rows of x with one row: (..., n, d), (..., 1, d) -> (..., n, 1)."""
    return namespace(x).sum(x * row, axis=-1, keepdims=True)
