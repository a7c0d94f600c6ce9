"""Importance-sampled features."""

import math
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np

from randfeat._array import Drawn, as_count, as_generator
from randfeat._hints import hinted, renamed_keywords, short
from randfeat.couplings import Coupling
from randfeat.couplings.base import sampled_rows
from randfeat.couplings.laws import NoClosedForm, PairLaw
from randfeat.estimators.exponential import ExponentialEstimator
from randfeat.estimators.parametric import Parametric, frozen_array
from randfeat.estimators.proposals import draw_by_head, log_sum_exp, shuffled_rows, systematic
from randfeat.estimators.statistics import or_default, unit_pair
from randfeat.kernels import SoftmaxFamily
from randfeat.variance import unit_inputs


@dataclass(frozen=True, eq=False, repr=False)
class ImportanceSampledFeatures(Parametric, ExponentialEstimator):
    """Positive features whose rows are drawn from a Gaussian mixture, `p(w) = Σ_c π_c N(w; μ_c, σ_c² I)`.

    `log φ_i(x) = w_i·x - |x|²/2 + ½ log(N(w_i; 0, I) / (m p(w_i)))`: each row carries the weight of the whole mixture
    (balance heuristic), whichever component it came from.

    means : μ_c (..., C, d). variances : σ_c² (..., C), 1 by default. weights : π_c (..., C), equal by default,
    normalized here. All in kernel units; leading dimensions are heads. From data: `fit`.

    x and y in kernel units, z = x + y.

    Shapes: (..., n, d) -> values (all 1) and log_scale (..., n, m), one feature per row.
    Exact: `E[φ(x)·φ(y)] = exp(x·y)` for every mixture and every coupling with exact marginals. The components of rows
        are stratified.
    Error: one component has the variance of `OptimalPositiveFeatures` of exponent a = (1-σ²)/4 at z - μ instead of z,
        under every coupling: for σ² = 1 `expm1(|z - μ|²)` per row, 0 where z = μ. Mixtures have no closed form; the
        relative second moment of one row drawn from p is at most `1 / Σ_c (π_c/M_c) <= min_c M_c/π_c`, M_c that of
        component c alone, `e^{|z - μ_c|²}` for σ_c² = 1 (`second_moment_bound`).
    For: trained heads whose sums x + y lie in a few clusters.
    Source: mixture weights: Veach & Guibas 1995, "Optimally Combining Sampling Techniques"; proposals N(μ_c, I) at
        pooled queries plus pooled keys: Zheng, Wang & Kong 2022, "Linear Complexity Randomized Self-attention
        Mechanism" (LARA).

    >>> estimator = ImportanceSampledFeatures(means=[[1.0, 0.5]], coupling="independent")
    >>> x, y = np.array([0.75, 0.25]), np.array([0.25, 0.25])
    >>> estimator.relative_variance(x, [y, -x], num_features=1).round(2)
    array([0.  , 2.49])
    """

    means: np.ndarray = field(default_factory=lambda: np.zeros((1, 1)))
    variances: np.ndarray | None = None
    weights: np.ndarray | None = None

    @classmethod
    def example(cls) -> Self:
        return cls(means=np.array([[0.0, 0.2, 0.4, 0.6]]))

    def __post_init__(self) -> None:
        super().__post_init__()
        means = frozen_array(self.means, "means")
        if means.ndim < 2 or 0 in means.shape:
            raise ValueError(f"means must have shape (..., components >= 1, d), got {means.shape}.")
        variances = frozen_array(np.ones(means.shape[-2]) if self.variances is None else self.variances, "variances")
        weights = frozen_array(np.ones(means.shape[-2]) if self.weights is None else self.weights, "weights")
        for name, array in (("variances", variances), ("weights", weights)):
            if array.ndim < 1 or array.shape[-1] != means.shape[-2]:
                raise ValueError(f"{name} must have shape (..., {means.shape[-2]}), one per mean, got {array.shape}.")
        if not (np.all(variances > 0) and np.all(variances.max(axis=-1) > 1 / 2)):
            raise ValueError(
                "variances must be positive, and one of each mixture above 1/2 for the second moment to exist."
            )
        if not (np.all(weights >= 0) and np.all(weights.sum(axis=-1) > 0)):
            raise ValueError("weights must not be negative, and not all 0.")
        if means.shape[-2] > 1 and not self._coupling.exact_marginals:
            raise ValueError(
                f"mixtures are unbiased only for rows that are N(0, I) each, which those of {self.coupling!r} are not."
            )
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "variances", variances)
        object.__setattr__(self, "weights", frozen_array(weights / weights.sum(axis=-1, keepdims=True), "weights"))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(
            self.means.shape[:-2], np.asarray(self.variances).shape[:-1], np.asarray(self.weights).shape[:-1]
        )

    @property
    def bounded(self) -> bool:
        present = np.asarray(self.weights) > 0
        return bool(np.all(np.any(present & (np.asarray(self.variances) > 1), axis=-1)))

    @classmethod
    @renamed_keywords("0.2", "0.4", queries="query", keys="key")
    @hinted
    def fit(
        cls,
        query: Any,
        key: Any,
        *,
        num_components: int = 16,
        pooling: Literal["chunks", "k-means"] = "chunks",
        rng: Any = 0,
        scale: float | None = None,
        kernel: SoftmaxFamily | None = None,
        coupling: Coupling | str | None = None,
    ) -> Self:
        """Unit-variance components for (..., L, d) queries and (..., S, d) keys, one mixture for each head.

        pooling : "chunks", the means of the c-th of `num_components` equal stretches of queries and of keys, added
            (LARA); "k-means", each center of the queries plus the keys' mean under its attention, weighted by its share
            of the queries: the mean of the ideal proposal of that center.
        rng : seed of k-means.

        Raw inputs and the scale of `linear_attention`, 1/√d by default; `scale=1.0` for kernel estimates. For causal
        use fit on other data than it is used on.
        """
        kernel, coupling = or_default(kernel, coupling)
        x, y = unit_pair(query, key, kernel=kernel, scale=scale)
        if pooling not in ("chunks", "k-means"):
            raise ValueError(f"pooling must be 'chunks' or 'k-means', got {short(pooling)}.")
        shortest = min(x.shape[-2], y.shape[-2]) if pooling == "chunks" else x.shape[-2]
        num_components = min(as_count(num_components, "num_components"), shortest)
        lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        x, y = (np.broadcast_to(side, lead + side.shape[-2:]) for side in (x, y))
        means, weights = np.empty((*lead, num_components, x.shape[-1])), np.ones((*lead, num_components))
        generator = as_generator(rng)
        for head in np.ndindex(*lead):
            if pooling == "chunks":
                means[head] = chunk_means(x[head], num_components) + chunk_means(y[head], num_components)
            else:
                means[head], weights[head] = attended_centers(x[head], y[head], num_components, generator)
        return cls(means=means, weights=weights, kernel=kernel, coupling=coupling)

    def second_moment_bound(self, x: Any, y: Any) -> np.ndarray:
        """`1 / Σ_c (π_c/M_c)`: bound of `E S² / K²` for one row drawn from the mixture; exact for one component."""
        x, y = unit_inputs(self.kernel, x, y)
        means, variances, weights = self._parameters()
        offset = (x + y)[..., None, :] - self.per_pair(means)
        a = self.per_pair((1 - variances) / 4)
        finite = a < 1 / 8
        rho = 1 / np.where(finite, 1 - 8 * a, 1.0)
        log_moment = x.shape[-1] / 2 * np.log((1 + rho) ** 2 / (4 * rho)) + rho * np.sum(offset**2, axis=-1)
        with np.errstate(divide="ignore"):
            log_terms = np.where(finite, np.log(self.per_pair(weights)) - log_moment, -np.inf)
        return np.exp(-log_sum_exp(log_terms))

    def _parameters(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means, variances and weights of the whole batch."""
        batch = self.batch_shape
        return (
            np.broadcast_to(self.means, batch + self.means.shape[-2:]),
            np.broadcast_to(np.asarray(self.variances), batch + np.asarray(self.variances).shape[-1:]),
            np.broadcast_to(np.asarray(self.weights), batch + np.asarray(self.weights).shape[-1:]),
        )

    @property
    def parameter_dim(self) -> int:
        return int(self.means.shape[-1])

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        parameters = self._parameters()

        def draw(head: tuple[int, ...], extra: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
            means, variances, weights = (parameter[head] for parameter in parameters)
            rows, log_ratio = draw_mixture(means, variances, weights, self._coupling, (*extra, num_rows, dim), rng)
            return rows, -(log_ratio + math.log(num_rows)) / 2

        return draw_by_head(batch_shape, self.batch_shape, draw)

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        if self.means.shape[-2] == 1:
            return law.tilted_row_mean(*self._single(x, y))
        return np.exp(0 * np.sum(x + y, axis=-1))

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        if self.means.shape[-2] == 1:
            return law.tilted_covariance(*self._single(x, y))
        raise NoClosedForm(
            "the variance of a mixture has no closed form; second_moment_bound bounds it, and "
            "randfeat.montecarlo.sample_errors measures it."
        )

    def _single(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z - μ and the exponent of the only component."""
        means, variances, _ = self._parameters()
        return x + y - self.per_pair(means[..., 0, :]), self.per_pair((1 - variances) / 4)


def draw_mixture(
    means: np.ndarray,
    variances: np.ndarray,
    weights: np.ndarray,
    coupling: Coupling,
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (*extra, m, d) of one mixture, and `log p(w)/N(w; 0, I)` (*extra, m)."""
    *extra, num_rows, dim = shape
    if len(means) > 1:
        rows = shuffled_rows(coupling, num_rows, dim, rng, tuple(extra))
        component = systematic(weights, num_rows, rng, tuple(extra))
    else:
        rows = sampled_rows(coupling, num_rows, dim, rng=rng, batch_shape=tuple(extra))
        component = np.zeros((*extra, num_rows), dtype=np.int64)
    rows = means[component] + np.sqrt(variances)[component][..., None] * rows
    with np.errstate(divide="ignore"):
        constant = np.log(weights) - np.sum(means**2, axis=-1) / (2 * variances) - dim / 2 * np.log(variances)
    sqnorm = np.sum(rows**2, axis=-1)[..., None]
    log_ratio = rows @ (means / variances[:, None]).T + sqnorm / 2 * (1 - 1 / variances) + constant
    return rows, log_sum_exp(log_ratio)


def chunk_means(x: np.ndarray, num: int) -> np.ndarray:
    """Means of `num` stretches of nearly equal length, (num, d)."""
    return np.stack([part.mean(axis=0) for part in np.array_split(x, num)])


def attended_centers(x: np.ndarray, y: np.ndarray, num: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """k-means centers c of queries, each plus `Σ_j π_j(c) y_j`, and their shares of the queries."""
    from scipy.cluster.vq import kmeans2

    start = x[rng.choice(len(x), num, replace=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a cluster that runs empty keeps its center, with the share 0
        centers, labels = kmeans2(x, start, minit="matrix")
    logits = centers @ y.T
    attention = np.exp(logits - log_sum_exp(logits)[:, None])
    return centers + attention @ y, np.bincount(labels, minlength=num) / len(x)
