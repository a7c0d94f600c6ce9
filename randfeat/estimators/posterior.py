"""Posterior features."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from randfeat._array import Drawn
from randfeat._hints import short
from randfeat.couplings import Coupling
from randfeat.couplings.laws import NoClosedForm, PairLaw
from randfeat.estimators.exponential import ExponentialEstimator
from randfeat.estimators.parametric import Parametric, frozen_array, real_array
from randfeat.estimators.proposals import draw_by_head, log_sum_exp, shuffled_rows, systematic


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorFeatures(Parametric, ExponentialEstimator):
    """Posterior features: positive features whose rows follow the attention of a few anchor queries.

    For one query x, let π(x) be its attention weights on the keys y_j. If rows are drawn from
    `p_x = Σ_j π_j(x) N(x + y_j, I)`, the estimated normalizer of this query has zero variance. Here most rows are drawn
    from the mixture of these distributions over several anchors c. Its density factorizes,

        p̄(w) = Σ_c α_c p_c(w) = N(w; 0, I) · [Σ_c α_c/Z_c e^{w·c - |c|²/2}] · [Σ_j e^{b_j + w·y_j - |y_j|²/2}].

    The other rows are drawn from a wide Gaussian, which bounds the variance for every pair. Each row has the importance
    weight for the whole mixture (balance heuristic). So the result is an ordinary feature map, and its use costs as
    much as that of `PositiveFeatures`.

    anchors : c (..., C, d). log_masses : log α_c (..., C), where α_c is the share of queries of anchor c; -inf for an
        anchor without queries.
    keys : y (..., S, d), the keys of the calibration data. log_biases : b_j (..., S), the log-weight of each key; -inf
        for an absent key.
    defensive_share : ε, share of the rows from N(0, (1-4a) I). defensive_exponent : a (...), negative or 0.

    All of them are in the coordinates of the inputs. `randfeat.adapt` fits them, and adds centering and balancing.

    Shapes: (..., n, d) -> values (all 1) and log_scale (..., n, m), one feature per row.
    Exact: `E[φ(x)·φ(y)] = exp(x·y)` for all x, y, for all anchors and keys, also on data to which they were not fitted.
        Pairs (c, j) are drawn by systematic sampling, so the rows do not all have the same distribution. In the
        coupling, each row alone must be N(0, I).
    Error: no closed form, but two bounds, for independent draws from the mixture. If a query is the anchor c, the
        estimate of its normalizer from one row has a relative second moment of at most `1/((1-ε) α_c)`
        (`anchor_bound`), for logits of any size. For every pair, the second moment is at most 1/ε times that of
        `OptimalPositiveFeatures` with the same a.
    For: trained heads: of all features here the smallest error of the output; made by `rf.adapt`.
    Source: the posterior of a query as proposal is from Zheng, Wang & Kong 2022, "Linear Complexity Randomized
        Self-attention Mechanism"; mixture weights: Veach & Guibas 1995, "Optimally Combining Sampling Techniques".

    >>> q, k = np.random.default_rng(0).standard_normal((2, 50, 4))
    >>> estimator = PosteriorFeatures(anchors=q[:8], keys=k, coupling="orthogonal")
    >>> phi = estimator.draw(dim=4, num_features=64, rng=0)
    >>> phi.estimate(q, k).shape, bool(estimator.anchor_bound()[0].round(1) == 8.9)
    ((50, 50), True)
    """

    anchors: np.ndarray = field(default_factory=lambda: np.zeros((1, 1)))
    log_masses: np.ndarray | None = None
    keys: np.ndarray = field(default_factory=lambda: np.zeros((1, 1)))
    log_biases: np.ndarray | None = None
    defensive_share: float = 0.1
    defensive_exponent: float | np.ndarray = 0.0

    @classmethod
    def example(cls) -> Self:
        return cls(anchors=np.eye(4) / 2 + np.tri(4, k=-1) / 8, keys=np.eye(4) / 2 - np.tri(4, k=-1) / 8)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self._coupling.exact_marginals:
            raise ValueError(
                f"posterior features are unbiased only for rows that are N(0, I) each, which those of "
                f"{self.coupling!r} are not."
            )
        anchors, keys = frozen_array(self.anchors, "anchors"), frozen_array(self.keys, "keys")
        if (
            anchors.ndim < 2
            or keys.ndim < 2
            or anchors.shape[-1] != keys.shape[-1]
            or 0 in (*anchors.shape, *keys.shape)
        ):
            raise ValueError(f"anchors (..., C, d) and keys (..., S, d) do not fit: {anchors.shape}, {keys.shape}.")
        masses = np.zeros(anchors.shape[:-1]) if self.log_masses is None else real_array(self.log_masses, "log_masses")
        biases = np.zeros(keys.shape[:-1]) if self.log_biases is None else real_array(self.log_biases, "log_biases")
        if masses.shape != anchors.shape[:-1] or biases.shape != keys.shape[:-1]:
            raise ValueError(
                f"log_masses must be {anchors.shape[:-1]} and log_biases {keys.shape[:-1]}, "
                f"got {masses.shape} and {biases.shape}."
            )
        if not (np.all(np.isfinite(masses.max(axis=-1))) and np.all(np.isfinite(biases.max(axis=-1)))):
            raise ValueError("every head needs at least one anchor and one key of finite log_masses and log_biases.")
        if not 0 < self.defensive_share < 1:
            raise ValueError(f"defensive_share must be between 0 and 1, got {short(self.defensive_share)}.")
        exponent = frozen_array(self.defensive_exponent, "defensive_exponent")
        if not np.all(exponent <= 0):
            raise ValueError(f"defensive_exponent must not be positive, got {short(exponent)}.")
        masses = masses - log_sum_exp(masses)[..., None]
        for array in (masses, biases):
            array.flags.writeable = False
        for name, value in (
            ("anchors", anchors),
            ("keys", keys),
            ("log_masses", masses),
            ("log_biases", biases),
            ("defensive_exponent", exponent),
        ):
            object.__setattr__(self, name, value)

    @property
    def bounded(self) -> bool:
        return bool(np.all(np.asarray(self.defensive_exponent) < 0))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(self.anchors.shape[:-2], self.keys.shape[:-2], np.shape(self.defensive_exponent))

    def anchor_bound(self) -> np.ndarray:
        """`1/((1-ε) α_c)` (..., C): bound of the relative second moment of the normalizer at each anchor, one row."""
        return np.exp(-np.asarray(self.log_masses)) / (1 - self.defensive_share)

    def num_defensive(self, num_rows: int) -> int:
        """Number of rows from the wide Gaussian: the share, rounded; at least 1, and 1 less than all rows if possible.

        If the coupling cannot have every number of rows, both parts get the nearest possible numbers.
        """
        wish = int(np.clip(round(self.defensive_share * num_rows), 1, max(num_rows - 1, 1)))
        dim = self.anchors.shape[-1]

        def possible(num: int) -> bool:
            return num == 0 or self._coupling.nearest_num_rows(num, dim) == (num,)

        nearest_first = (num for gap in range(num_rows) for num in (wish - gap, wish + gap) if 1 <= num <= num_rows)
        return next((num for num in nearest_first if possible(num) and possible(num_rows - num)), wish)

    @property
    def parameter_dim(self) -> int:
        return int(self.anchors.shape[-1])

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        def draw(head: tuple[int, ...], extra: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
            return self._draw_mixture(self._mixture(head), num_rows, rng, extra)

        return draw_by_head(batch_shape, self.batch_shape, draw)

    def _mixture(self, head: tuple[int, ...]) -> "Mixture":
        """The proposal of one set of parameters."""
        batch = self.batch_shape
        take = [
            np.broadcast_to(value, batch + value.shape[value.ndim - trailing :])[head]
            for value, trailing in (
                (self.anchors, 2),
                (np.asarray(self.log_masses), 1),
                (self.keys, 2),
                (np.asarray(self.log_biases), 1),
                (np.asarray(self.defensive_exponent), 0),
            )
        ]
        return Mixture.of(*take)

    def _draw_mixture(
        self, mixture: "Mixture", num_rows: int, rng: np.random.Generator, extra: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Independent draws of rows (*extra, m, d) and log-weights (*extra, m)."""
        wide = self.num_defensive(num_rows)
        rows = mixture.rows(mixture.sample(self._coupling, num_rows - wide, wide, rng, extra))
        log_density = mixture.log_density(rows, log_sum_exp(mixture.key_exponents(rows)), wide)
        return rows, -log_density / 2

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        return np.exp(0 * np.sum(x + y, axis=-1))

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        raise NoClosedForm(
            "the variance of posterior features has no closed form; anchor_bound() bounds it at the anchors, and "
            "randfeat.montecarlo.sample_errors measures it."
        )


@dataclass(frozen=True, eq=False)
class Sample:
    """The random numbers of the rows of a map, for anchors of every scale.

    Pairs of an anchor and a key (..., n) with noise (..., n, d), and noise (..., n0, d) of the wide Gaussian.
    """

    anchor: np.ndarray
    key: np.ndarray
    noise: np.ndarray
    wide_noise: np.ndarray


@dataclass(frozen=True, eq=False)
class Mixture:
    """The proposal of one map: the posterior mixture and the wide Gaussian, both relative to N(0, I).

    logits : `c·y_j + b_j`, (C, S). log_normalizers : `log Z_c`, (C,). Neither depends on the scale of the anchors.
    """

    anchors: np.ndarray
    log_masses: np.ndarray
    keys: np.ndarray
    log_biases: np.ndarray
    exponent: float
    logits: np.ndarray
    log_normalizers: np.ndarray

    @classmethod
    def of(
        cls, anchors: np.ndarray, log_masses: np.ndarray, keys: np.ndarray, log_biases: np.ndarray, exponent: Any
    ) -> "Mixture":
        """The proposal for one set of parameters of `PosteriorFeatures`."""
        logits = anchors @ keys.T + log_biases
        return cls(anchors, log_masses, keys, log_biases, float(exponent), logits, log_sum_exp(logits))

    def scaled(self, s: float, exponent: float) -> "Mixture":
        """Anchors times s, keys over s, and another exponent of the wide Gaussian."""
        return replace(self, anchors=s * self.anchors, keys=self.keys / s, exponent=exponent)

    def astype(self, dtype: Any) -> "Mixture":
        """This proposal in another dtype."""
        parts = vars(self)
        return Mixture(**{name: part.astype(dtype) if np.ndim(part) else part for name, part in parts.items()})

    @property
    def dim(self) -> int:
        """d, the length of the inputs."""
        return int(self.anchors.shape[-1])

    @property
    def variance(self) -> float:
        """1-4a, the variance of the wide Gaussian."""
        return 1 - 4 * self.exponent

    def sample(
        self, coupling: Coupling, focused: int, wide: int, rng: np.random.Generator, extra: tuple[int, ...] = ()
    ) -> Sample:
        """`focused` pairs (c, j), drawn with probability α_c π_j(c), and coupled noise."""
        joint = np.exp(self.log_masses[:, None] + self.logits - self.log_normalizers[:, None])
        anchor, key = np.divmod(systematic(joint.ravel(), focused, rng, extra), len(self.keys))
        noise = [shuffled_rows(coupling, num, self.dim, rng, extra) for num in (focused, wide)]
        return Sample(anchor, key, *noise)

    def rows(self, sample: Sample) -> np.ndarray:
        """The rows (..., m, d): those near `c + y_j`, then those of the wide Gaussian."""
        near = self.anchors[sample.anchor] + self.keys[sample.key] + sample.noise
        return np.concatenate([near, math.sqrt(self.variance) * sample.wide_noise], axis=-2)

    def key_exponents(self, rows: np.ndarray) -> np.ndarray:
        """`b_j + w·y_j - |y_j|²/2`, (..., m, S), the logarithms of the features of the keys but for the weights."""
        return rows @ self.keys.T + (self.log_biases - np.sum(self.keys**2, axis=-1) / 2)

    def log_density(self, rows: np.ndarray, log_key_sum: np.ndarray, wide: int) -> np.ndarray:
        """`log Σ_i p_i(w)/N(w; 0, I)`, (..., m), over all rows i, of which the last `wide` are of the wide Gaussian.

        log_key_sum : the logarithm of the sum over keys, the second factor of p̄.
        """
        result = math.log(wide) + self.log_wide(rows)
        if (focused := rows.shape[-2] - wide) == 0:
            return result
        terms = self.log_masses - self.log_normalizers - np.sum(self.anchors**2, axis=-1) / 2
        log_focused = log_sum_exp(rows @ self.anchors.T + terms) + log_key_sum
        return np.logaddexp(math.log(focused) + log_focused, result)

    def log_wide(self, rows: np.ndarray) -> np.ndarray:
        """`log N(w; 0, σ²I)/N(w; 0, I) = |w|²/2 (1 - 1/σ²) - d log σ`."""
        sqnorm = np.sum(rows**2, axis=-1)
        return sqnorm / 2 * (1 - 1 / self.variance) - self.dim / 2 * math.log(self.variance)
