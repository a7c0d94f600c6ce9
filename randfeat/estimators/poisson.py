"""Poisson features."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from randfeat._hints import hinted, renamed_keywords, short
from randfeat.estimators.counts import CountFeatures, product_scales
from randfeat.estimators.parametric import frozen_array
from randfeat.estimators.statistics import or_default
from randfeat.kernels import SoftmaxFamily


@dataclass(frozen=True, eq=False, repr=False)
class PoissonFeatures(CountFeatures):
    """Poisson features, `φ_i(x) = e^{λd/2} Π_l (x_l/√λ)^{c_il} / √m` with independent counts c_il ~ Poisson(λ).

    rate : λ > 0, one number, or an array with one for each head. From data: `fit`.

    x and y in kernel units.

    Shapes: (..., n, d) -> values -1, 0 or 1 and log_scale (..., n, m), one feature per vector of counts.
    Exact: `E[φ(x)·φ(y)] = exp(x·y)` for every m >= 1.
    Error: relative variance `expm1(Σ_l (x_l y_l - λ)²/λ) / m`: 0 where all x_l y_l = λ. The best rate for one pair is
        the root mean square of x_l y_l over l.
    Limits: positive only for inputs without negative entries. Meant for inputs with x_l y_l near one positive number;
        else e^{λd} is the price of drawing counts at all, and the counts of a small λ are mostly 0.
    For: inputs without negative entries, for which all x_l y_l are near one number.
    Source: Likhosherstov et al. 2022, "Chefs' Random Tables" (PoisRF).

    >>> x, y = np.array([0.5, 1.0]), np.array([1.0, 0.5])
    >>> phi = PoissonFeatures(rate=0.5).draw(dim=2, num_features=1, rng=0)
    >>> phi.estimate(x[None], y[None]) / np.exp(x @ y)
    array([[1.]])
    """

    rate: float | np.ndarray = 0.25

    acronyms = ("PoisRF",)

    def __post_init__(self) -> None:
        super().__post_init__()
        rate = frozen_array(self.rate, "rate")
        if not np.all(rate > 0):
            raise ValueError(f"rate must be positive, got {short(rate)}.")
        object.__setattr__(self, "rate", rate)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.shape(self.rate)

    @classmethod
    @renamed_keywords("0.2", "0.4", queries="query", keys="key")
    @hinted
    def fit(cls, query: Any, key: Any, *, scale: float | None = None, kernel: SoftmaxFamily | None = None) -> Self:
        """The rate of least mean `log E S²` over all pairs of (..., L, d) queries and (..., S, d) keys.

        That mean is `λd + Σ_l mean(x_l²) mean(y_l²)/λ`. Raw inputs and the scale of `linear_attention`, 1/√d by
        default; `scale=1.0` for kernel estimates. For causal use fit on other data.
        """
        kernel, _ = or_default(kernel)
        scales = product_scales(query, key, kernel=kernel, scale=scale)
        return cls(rate=np.sqrt(np.mean(scales**2, axis=-1)), kernel=kernel)

    def draw_counts(self, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """`-½ log(c! p(c)) = (λ - c log λ)/2`."""
        rate = np.asarray(self.rate)[..., None, None]
        counts = rng.poisson(rate, size=shape)
        return counts, (rate - counts * np.log(rate)) / 2

    def log_second_moment(self, product: np.ndarray) -> np.ndarray:
        """`λd + Σ_l (x_l y_l)²/λ - 2 x·y`, a sum of squares."""
        rate = self.per_pair(np.asarray(self.rate)[..., None])
        return np.sum((product - rate) ** 2 / rate, axis=-1)

    def log_joint_moment(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`Σ_l (x_l y_jl - λ)(x_l y_kl - λ)/λ`."""
        excess = x * y - np.asarray(self.rate)
        return excess @ excess.T / np.asarray(self.rate)
