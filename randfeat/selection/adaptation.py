"""adapt: estimators fitted to queries and keys; they are unbiased for all inputs."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from randfeat._array import as_count, as_generator
from randfeat._hints import hinted
from randfeat.attention import kernel_attention, linear_attention
from randfeat.couplings import Coupling
from randfeat.couplings.base import resolve_coupling
from randfeat.estimators.balanced import BalancedFeatures, balancing_transform
from randfeat.estimators.centered import CenteredFeatures
from randfeat.estimators.dense_exponential import DenseExponentialFeatures
from randfeat.estimators.optimal_positive import optimal_exponent
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.posterior import PosteriorFeatures
from randfeat.estimators.proposals import log_sum_exp
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.estimators.statistics import unit_pair
from randfeat.kernels import SoftmaxFamily, SoftmaxKernel
from randfeat.kernels.base import check_positive
from randfeat.selection.heads import Head, pooled_heads

Level = Literal["center", "balance", "dense", "weighted", "posterior", "centre", "exponent"]
LEVELS = ("center", "balance", "dense", "weighted", "posterior")
OTHER_SPELLINGS: dict[str, Level] = {"centre": "center", "exponent": "dense"}
SCALES = (1.0, 2.0, 4.0)
CHECKED_ROWS = 32


@hinted
def adapt(
    query: Any,
    key: Any,
    *,
    level: Level = "posterior",
    num_features: int = 256,
    value: Any = None,
    scale: float | None = None,
    kernel: SoftmaxFamily | None = None,
    coupling: Coupling | str = "orthogonal",
    key_mask: Any = None,
    query_mask: Any = None,
    enable_gqa: bool = False,
    anchor_scale: Literal["checked", "rule"] | float = "checked",
    defensive_share: float = 0.1,
    rng: Any = 0,
) -> SoftmaxEstimator:
    """Fit an estimator to queries and keys.

    The result is an ordinary, frozen estimator: draw maps from it, and use them also on other inputs. Every level is
    unbiased for the same kernel. The fit changes only the variance.

    Parameters
    ----------
    query (..., L, d), key (..., S, d) : raw inputs, as for `linear_attention`. Dimension -3, if there is one, is the
        heads; each head gets its own parameters. Earlier dimensions are pooled: they are more queries and keys of the
        same heads.
    level : "center" subtracts the means. "balance" also transforms queries and keys so that their covariances are
        equal. "dense" also has an optimal exponent for each axis (`DenseExponentialFeatures`). "weighted" is "dense"
        with keys weighted by the attention that they get from some queries, the anchors. "posterior" draws rows near
        the sums of anchors and the keys they attend to (`PosteriorFeatures`). "centre" and "exponent" are other names
        of "center" and "dense".
    num_features : the number of features that the map will have. The number of anchors is a quarter of it, and
        `anchor_scale` depends on it.
    value (..., S, dv) : values for the outputs that anchor_scale="checked" compares; the keys by default.
    scale, kernel, coupling, enable_gqa : as for `linear_attention` and the estimators.
    key_mask, query_mask : bool (..., S) and (..., L), True = take part.
    anchor_scale : for "posterior" only, a factor: queries are multiplied by it, keys are divided by it. "checked" tries
        1, 2 and 4, and compares the outputs of pilot maps with 32 exact outputs. "rule" takes √(1024/num_features), at
        least 1 and at most 4. Use 1.0 if you need not only the output but its denominator, too. An example is the
        argument `window` of `linear_attention`, where one sum contains estimates and exact kernel values.
    defensive_share : for "posterior" only, the share of the rows that are drawn from a wide Gaussian.
    rng : seed of k-means, pilot maps and row samples. The map itself is drawn later, with its own seed:
        `estimator.draw(..., rng=...)`.

    For causal attention, fit to other text (a calibration set). After a fit to the whole sequence, earlier outputs
    depend on later tokens, although `is_causal=True`.
    Cost for each head: S · anchors · d for the attention of the anchors, and O((L + S) d² + d³).

    >>> q, k = np.random.default_rng(0).standard_normal((2, 8, 100, 16)) + 1
    >>> estimator = adapt(q, k, num_features=64, rng=0)
    >>> phi = estimator.draw(dim=16, num_features=64, rng=0, like=q)
    >>> phi.batch_shape
    (8,)
    """
    level = OTHER_SPELLINGS.get(level, level) if isinstance(level, str) else level
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(map(repr, LEVELS))}, got {level!r}.")
    kernel = SoftmaxKernel() if kernel is None else kernel
    coupling = resolve_coupling(coupling)
    num_features = as_count(num_features, "num_features")
    raw = pooled_heads(query, key, value, key_mask, query_mask, enable_gqa)
    generators = as_generator(rng).spawn(len(raw.heads))
    fits = []
    for head, generator in zip(raw.heads, generators, strict=True):
        x, y = unit_pair(head.query, head.key, kernel=kernel, scale=scale)
        fit = HeadFit.of(x, y, head.present, level=level, num_anchors=num_features // 4, rng=generator)
        if level == "posterior":
            options = {"coupling": coupling, "kernel": kernel, "defensive_share": defensive_share}
            s = choose_scale(fit, head, num_features, anchor_scale, scale, options, generator)
            fit = fit.scaled(s)
        fits.append(fit)
    if level == "posterior":
        return posterior(fits, raw.batched, coupling=coupling, kernel=kernel, defensive_share=defensive_share)
    return gaussian(fits, raw.batched, level, kernel, coupling)


@dataclass(frozen=True, eq=False)
class HeadFit:
    """The fit of one head: shifts, balance, and in balanced coordinates queries, keys, anchors."""

    query_shift: np.ndarray
    key_shift: np.ndarray
    matrix: np.ndarray
    query_moment: np.ndarray
    """Mean of x xᵀ in balanced coordinates."""
    key_moment: np.ndarray
    """Mean of y yᵀ in balanced coordinates, weighted by attention at the levels "weighted" and "posterior"."""
    anchors: np.ndarray
    masses: np.ndarray
    keys: np.ndarray
    biases: np.ndarray

    @classmethod
    def of(
        cls,
        x: np.ndarray,
        y: np.ndarray,
        present: np.ndarray,
        *,
        level: str,
        num_anchors: int,
        rng: np.random.Generator,
    ) -> "HeadFit":
        """Fit to queries x (L, d) and keys y (S, d) in kernel units; only keys that are `present` are used."""
        dim = x.shape[-1]
        weights = present / present.sum()
        query_shift, key_shift = x.mean(axis=0), weights @ y
        x, y = x - query_shift, np.where(present[:, None], y - key_shift, 0.0)
        moment = x.T @ x / len(x)
        matrix = np.eye(dim)
        anchors, masses = np.zeros((1, dim)), np.ones(1)
        if level != "center":
            matrix = balancing_transform(moment, (y * weights[:, None]).T @ y)
        if level in ("weighted", "posterior"):
            anchors, masses = anchor_queries(x, x @ matrix.T, min(num_anchors, len(x) // 4), rng)
            logits = np.where(present, (anchors + query_shift) @ y.T, -np.inf)
            weights = masses @ np.exp(logits - log_sum_exp(logits)[:, None])
            attended = weights @ y
            key_shift, y = key_shift + attended, np.where(present[:, None], y - attended, 0.0)
            matrix = balancing_transform(moment, (y * weights[:, None]).T @ y)
        biases = np.where(present, y @ query_shift, -np.inf)
        y = y @ np.linalg.inv(matrix)
        key_moment = (y * weights[:, None]).T @ y
        return cls(
            query_shift,
            key_shift,
            matrix,
            matrix @ moment @ matrix.T,
            key_moment,
            anchors @ matrix.T,
            masses,
            y,
            biases,
        )

    def scaled(self, s: float) -> "HeadFit":
        """Queries times s, keys over s."""
        return HeadFit(
            self.query_shift,
            self.key_shift,
            s * self.matrix,
            s**2 * self.query_moment,
            self.key_moment / s**2,
            s * self.anchors,
            self.masses,
            self.keys / s,
            self.biases,
        )


def anchor_queries(
    x: np.ndarray, metric: np.ndarray, num: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Means (C, d) of the k-means clusters of `metric`, at most `num`, and their shares of the queries."""
    from scipy.cluster.vq import kmeans2

    num = max(num, 1)
    sample = np.sort(rng.permutation(len(x))[: 8 * num])  # enough for the centers, however long the input
    x, metric = x[sample], metric[sample]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")  # it is left out below
        _, labels = kmeans2(metric, metric[rng.permutation(len(metric))[:num]], iter=5, minit="matrix", missing="warn")
    used, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    anchors = np.zeros((len(used), x.shape[-1]))
    np.add.at(anchors, labels, x)
    return anchors / counts[:, None], counts / counts.sum()


def gaussian(
    fits: list[HeadFit], batched: bool, level: str, kernel: SoftmaxFamily, coupling: Coupling
) -> SoftmaxEstimator:
    """Positive features at centered inputs, which are also balanced, except at level "center".

    Levels "dense" and "weighted" have one exponent for each axis.
    """
    base: SoftmaxEstimator = PositiveFeatures(kernel, coupling)
    if level in ("dense", "weighted"):
        moment = stacked([fit.query_moment + fit.key_moment for fit in fits], batched)
        base = DenseExponentialFeatures.for_second_moment(moment, kernel=kernel, coupling=coupling)
    return transformed(base, fits, batched, balanced=level != "center")


def posterior(fits: list[HeadFit], batched: bool, **options: Any) -> SoftmaxEstimator:
    """Posterior features at centered and balanced inputs."""
    most = max(len(fit.anchors) for fit in fits)
    with np.errstate(divide="ignore"):
        log_masses = [np.log(np.pad(fit.masses, (0, most - len(fit.masses)))) for fit in fits]
    dim = fits[0].anchors.shape[-1]
    mean_square = [np.trace(fit.query_moment + fit.key_moment) / dim for fit in fits]
    base = PosteriorFeatures(
        anchors=stacked([np.pad(fit.anchors, ((0, most - len(fit.anchors)), (0, 0))) for fit in fits], batched),
        log_masses=stacked(log_masses, batched),
        keys=stacked([fit.keys for fit in fits], batched),
        log_biases=stacked([fit.biases for fit in fits], batched),
        defensive_exponent=stacked([optimal_exponent(u) for u in mean_square], batched),
        **options,
    )
    return transformed(base, fits, batched, balanced=True)


def transformed(base: SoftmaxEstimator, fits: list[HeadFit], batched: bool, *, balanced: bool) -> SoftmaxEstimator:
    """`base` at inputs that are balanced (if `balanced`) and centered."""
    if balanced:
        base = BalancedFeatures(base=base, matrix=stacked([fit.matrix for fit in fits], batched))
    return CenteredFeatures(
        base=base,
        query_shift=stacked([fit.query_shift for fit in fits], batched),
        key_shift=stacked([fit.key_shift for fit in fits], batched),
    )


def stacked(parameters: list[Any], batched: bool) -> np.ndarray:
    """One parameter set, or one for each head."""
    return np.stack(parameters) if batched else np.asarray(parameters[0])


def choose_scale(
    fit: HeadFit,
    head: Head,
    num_features: int,
    anchor_scale: str | float,
    scale: float | None,
    options: dict[str, Any],
    rng: np.random.Generator,
) -> float:
    """The factor of the queries: given, from a rule, or the best of a few, compared on exact rows."""
    if anchor_scale == "rule":
        return float(np.clip(np.sqrt(1024 / num_features), 1.0, 4.0))
    if not isinstance(anchor_scale, str):
        return check_positive("anchor_scale", anchor_scale)
    if anchor_scale != "checked":
        raise ValueError(f"anchor_scale must be 'checked', 'rule' or a positive number, got {anchor_scale!r}.")
    rows = np.sort(rng.permutation(len(head.query))[:CHECKED_ROWS])
    query, key, value, mask = head.query[rows], head.key, head.value, head.present
    exact = kernel_attention(query, key, value, options["kernel"], scale=scale, key_mask=mask)
    errors = []
    for s in SCALES:
        pilot = posterior([fit.scaled(s)], False, **options).draw(head.query.shape[-1], num_features, rng=rng)
        output = linear_attention(query, key, value, pilot, scale=scale, key_mask=mask)
        errors.append(np.linalg.norm(output - exact))
    return SCALES[int(np.argmin(errors))]
