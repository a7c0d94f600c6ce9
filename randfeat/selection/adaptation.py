"""adapt: estimators fitted to queries and keys; they are unbiased for all inputs."""

from typing import Any, Literal

import numpy as np

from randfeat._array import as_count, as_generator
from randfeat._hints import hinted, short, shown
from randfeat.couplings import Coupling
from randfeat.couplings.base import resolve_coupling
from randfeat.estimators.balanced import BalancedFeatures
from randfeat.estimators.centered import CenteredFeatures
from randfeat.estimators.dense_exponential import DenseExponentialFeatures
from randfeat.estimators.optimal_positive import optimal_exponent
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.posterior import PosteriorFeatures
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.estimators.statistics import unit_pair
from randfeat.kernels import SoftmaxFamily, SoftmaxKernel
from randfeat.selection.anchor_scale import AnchorPilot, given_scale
from randfeat.selection.head_fit import HeadFit
from randfeat.selection.heads import pooled_heads

Level = Literal["center", "balance", "dense", "weighted", "posterior", "centre", "exponent"]
LEVELS = ("center", "balance", "dense", "weighted", "posterior")
OTHER_SPELLINGS: dict[str, Level] = {"centre": "center", "exponent": "dense"}


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
        1, 2 and 4, and compares the outputs of pilot maps with 64 exact outputs. "rule" takes √(1024/num_features), at
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
        raise ValueError(f"level must be one of {', '.join(map(repr, LEVELS))}, got {short(level)}.")
    kernel = SoftmaxKernel() if kernel is None else kernel
    if not isinstance(kernel, SoftmaxFamily):
        raise TypeError(
            f"kernel must be of the softmax family, as SoftmaxKernel or GaussianKernel, got {shown(kernel)}."
        )
    coupling = resolve_coupling(coupling)
    num_features = as_count(num_features, "num_features")
    raw = pooled_heads(query, key, value, key_mask, query_mask, enable_gqa)
    pairs = [unit_pair(head.query, head.key, kernel=kernel, scale=scale) for head in raw.heads]
    options: dict[str, Any] = {"kernel": kernel, "coupling": coupling, "defensive_share": defensive_share}
    if level == "posterior":
        dim = pairs[0][0].shape[-1]
        example = PosteriorFeatures(anchors=np.zeros((1, dim)), keys=np.zeros((1, dim)), **options)
        given = given_scale(anchor_scale, num_features)
        if given is None:
            example.num_rows(num_features, dim)  # raises where that number is not possible
    generators = as_generator(rng).spawn(len(raw.heads))
    fits = []
    with np.errstate(under="ignore"):  # attention weights of 0
        for head, (x, y), generator in zip(raw.heads, pairs, generators, strict=True):
            fit = HeadFit.of(x, y, head.present, level=level, num_anchors=num_features // 4, rng=generator)
            if level == "posterior":
                s = given or AnchorPilot.of(fit, example, x, y, head.value, num_features, generator).best()
                fit = fit.scaled(s)
            fits.append(fit)
    if level == "posterior":
        return transformed(posterior(fits, raw.batched, **options), fits, raw.batched, balanced=True)
    return gaussian(fits, raw.batched, level, kernel, coupling)


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


def posterior(fits: list[HeadFit], batched: bool, **options: Any) -> PosteriorFeatures:
    """Posterior features in balanced coordinates."""
    most = max(len(fit.anchors) for fit in fits)
    with np.errstate(divide="ignore"):
        log_masses = [np.log(np.pad(fit.masses, (0, most - len(fit.masses)))) for fit in fits]
    mean_square = [np.trace(fit.query_moment + fit.key_moment) / len(fit.matrix) for fit in fits]
    return PosteriorFeatures(
        anchors=stacked([np.pad(fit.anchors, ((0, most - len(fit.anchors)), (0, 0))) for fit in fits], batched),
        log_masses=stacked(log_masses, batched),
        keys=stacked([fit.keys for fit in fits], batched),
        log_biases=stacked([fit.biases for fit in fits], batched),
        defensive_exponent=stacked([optimal_exponent(u) for u in mean_square], batched),
        **options,
    )


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
