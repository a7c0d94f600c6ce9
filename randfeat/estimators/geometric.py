"""Geometric features."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from randfeat._hints import hinted, renamed_keywords, short
from randfeat.estimators.counts import CountFeatures, product_scales
from randfeat.estimators.parametric import frozen_array
from randfeat.estimators.statistics import or_default
from randfeat.kernels import SoftmaxFamily


@dataclass(frozen=True, eq=False, repr=False)
class GeometricFeatures(CountFeatures):
    """Geometric features, `φ_i(x) = p^{-d/2} Π_l x_l^{c_il} / √((1-p)^{c_il} c_il! m)` with P(c_il = n) = p (1-p)^n.

    success_probability : p, between 0 and 1, one number, or an array with one for each head. `fit` chooses it from
        data.

    x and y in kernel units.

    Shapes: (..., n, d) -> values -1, 0 or 1 and log_scale (..., n, m), one feature per vector of counts.
    Exact: `E[φ(x)·φ(y)] = exp(x·y)` for every m >= 1.
    Error: relative variance `(p^{-d} Π_l I_0(2|x_l y_l|/√(1-p)) e^{-2x_l y_l} - 1) / m`. For given x the features are
        bounded, unlike `PoissonFeatures`, because the factorial grows faster than every power.
    Limits: positive only for inputs without negative entries. The second moment has the factor p^{-d}, so these
        features are useful only for small inputs or in few dimensions.
    For: short inputs without negative entries, in few dimensions.
    Source: Likhosherstov et al. 2022, "Chefs' Random Tables" (GeomRF).

    >>> x = np.array([0.3, -0.2, 0.1])
    >>> GeometricFeatures(success_probability=0.9).relative_variance(x, x, num_features=16).round(3)
    np.float64(0.009)
    """

    success_probability: float | np.ndarray = 0.8

    bounded = True
    acronyms = ("GeomRF",)

    def __post_init__(self) -> None:
        super().__post_init__()
        p = frozen_array(self.success_probability, "success_probability")
        if not np.all((p > 0) & (p < 1)):
            raise ValueError(f"success_probability must be between 0 and 1, got {short(p)}.")
        object.__setattr__(self, "success_probability", p)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.shape(self.success_probability)

    @classmethod
    @renamed_keywords("0.2", "0.4", queries="query", keys="key")
    @hinted
    def fit(cls, query: Any, key: Any, *, scale: float | None = None, kernel: SoftmaxFamily | None = None) -> Self:
        """The p of least variance where every |x_l y_l| is its root mean square over pairs.

        The logarithm of the second moment is convex in p; its minimum is searched in one dimension. Raw inputs and the
        scale of `linear_attention`, 1/√d by default; `scale=1.0` for kernel estimates. For causal use fit on other
        data.
        """
        kernel, _ = or_default(kernel)
        scales = product_scales(query, key, kernel=kernel, scale=scale)
        best = np.empty(scales.shape[:-1])
        for head in np.ndindex(*best.shape):
            best[head] = optimal_probability(scales[head])
        return cls(success_probability=best, kernel=kernel)

    def draw_counts(self, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """`-½ log(c! p(c)) = -½ [log c! + log p + c log(1-p)]`."""
        from scipy.special import gammaln

        p = np.asarray(self.success_probability)[..., None, None]
        counts = rng.geometric(p, size=shape) - 1
        return counts, -(gammaln(counts + 1.0) + np.log(p) + counts * np.log1p(-p)) / 2

    def log_second_moment(self, product: np.ndarray) -> np.ndarray:
        """`-d log p + Σ_l [log I_0(2|x_l y_l|/√(1-p)) - 2 x_l y_l]`."""
        p = self.per_pair(np.asarray(self.success_probability)[..., None])
        return log_second_moment(np.abs(product), p) - 2 * np.sum(product, axis=-1)


def log_second_moment(size: np.ndarray, p: Any) -> np.ndarray:
    """`log E S² = Σ_l [log I_0(2 s_l/√(1-p)) - log p]`, s_l = |x_l y_l|."""
    from scipy.special import i0e

    argument = 2 * size / np.sqrt(1 - p)
    return np.sum(np.log(i0e(argument)) + argument - np.log(p), axis=-1)


def optimal_probability(size: np.ndarray) -> float:
    """The p that minimizes `log E S²` at |x_l y_l| = `size` (d,)."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda p: float(log_second_moment(size, p)), bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-10}
    )
    return float(found.x)
