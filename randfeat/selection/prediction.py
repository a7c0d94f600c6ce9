"""predict_attention_error: what error to expect of linear attention, from closed forms or from a pilot."""

import functools
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from randfeat._array import as_bool, as_count, as_generator, as_host, mask_on_host
from randfeat._hints import hinted
from randfeat.attention.inputs import Inputs
from randfeat.couplings import Independent
from randfeat.couplings.base import resolve_coupling
from randfeat.couplings.laws import NoClosedForm
from randfeat.estimators.base import Estimator
from randfeat.kernels import SoftmaxFamily
from randfeat.maps import FeatureMap
from randfeat.selection.forecast import MEASURED, POOR, USEFUL, AttentionForecast
from randfeat.selection.pilot import Pilot, Sequences

LARGEST_VARIANCE = 0.05
"""Relative variance of a denominator up to which the delta method is believed: deviations of at most 22 %."""


@hinted
def predict_attention_error(
    estimator: Estimator,
    query: Any,
    key: Any,
    value: Any,
    num_features: int,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    num_queries: int = 32,
    num_draws: int = 5,
    rng: Any = 0,
) -> AttentionForecast:
    """The relative error `|out - exact| / |exact|` to expect of linear attention, with a verdict.

    For one query, let p be its exact attention weights and o its exact output. With m independent rows, the delta
    method gives, to leading order in 1/m,

        E|ô - o|² ≈ (1/m) Σ_jk p_j p_k (v_j - o)·(v_k - o) G_jk,   G_jk = E[S_j S_k] / (k_j k_k),

    where G comes from `estimator.log_joint_moment`. It is believed where the denominators hardly vary: where their
    relative variance, `(Σ_jk p_j p_k G_jk - 1) / m`, is at most 0.05 for every query. Everywhere else, a pilot measures
    the error: a few draws against exact outputs of a few queries.

    Parameters
    ----------
    query (..., L, d), key (..., S, d), value (..., S, dv), scale, is_causal, key_mask : as for `linear_attention`.
    num_queries, rng : errors are pooled over a random subset of this many queries, drawn with this seed; over all
        queries if there are no more.
    num_draws : the number of pilot maps. The error of a pilot is the median over them.

    Returns an `AttentionForecast`: `√(Σ_i E|ô_i - o_i|² / Σ_i |o_i|²)` for each entry of the leading dimensions, with
    the verdict "useful", "poor" or "no forecast, measured by pilot". It computes like an array of these errors. No
    error is above what an average of the values can err, unless features are signed. 0/0 counts as 0.

    Exactness: closed forms take rows as independent. Couplings usually make the error smaller. A coupling that makes
    the variance at the heaviest keys larger, or that is biased, or has no closed form, is measured by a pilot. So is an
    estimator without a joint moment, or with parameters for each head. Where the closed form says that the average of
    the values is better, but rows are not independent, the verdict is that of a pilot.
    Cost for each head: O(num_queries S²) time, O(S²) memory, and for a pilot `num_draws` maps of all keys.
    Limits: a pilot with 5 draws is noisy. Signed features (trigonometric) have rare denominators near 0, where a single
    draw can err by much more than the median. NoClosedForm for kernels outside the softmax family.

    >>> from randfeat import PositiveFeatures
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 64, 8))
    >>> print(predict_attention_error(PositiveFeatures(), q / 4, k / 4, v, 256))
    error 0.0305: useful; average of the values 0.0654, at most 12.1
    >>> forecast = predict_attention_error(PositiveFeatures(), 3 * q, 3 * k, v, 256)
    >>> print(forecast)
    error 1.15: no forecast, measured by pilot; average of the values 0.975, at most 2.14
    >>> bool(forecast.leading_order > 1e9)
    True
    """
    if not isinstance(estimator.kernel, SoftmaxFamily):
        raise NoClosedForm(
            f"the error of attention is known for kernels of the softmax family only, not for {estimator.kernel!r}; "
            "measure it: compare linear_attention, over several draws, with kernel_attention."
        )
    is_causal = as_bool(is_causal, "is_causal")
    num_features, num_draws = as_count(num_features, "num_features"), as_count(num_draws, "num_draws")
    host = [as_host(x, name) for x, name in ((query, "query"), (key, "key"), (value, "value"))]
    mask = mask_on_host(key_mask, "key_mask")
    inputs = Inputs.of(*host, kernel=estimator.kernel, scale=scale, key_mask=mask).prepared()
    estimator.check_dim(inputs.query.shape[-1])
    length, generator = inputs.num_queries, as_generator(rng)
    chosen = np.arange(length)
    if length > num_queries:
        chosen = np.sort(generator.choice(length, num_queries, replace=False))
    shapes = [x.shape[:-2] for x in (inputs.query, inputs.key, inputs.value)]
    lead = np.broadcast_shapes(*shapes, estimator.batch_shape)
    expected = Expectation(estimator, num_features, inputs.query.shape[-1], num_draws, generator)
    forecasts = []
    for head in np.ndindex(*lead):
        q, k, v = (np.broadcast_to(x, lead + x.shape[-2:])[head] for x in (inputs.query, inputs.key, inputs.value))
        mask = np.ones(len(k), bool) if inputs.key_mask is None else inputs.key_mask
        present = np.broadcast_to(mask, (*lead, len(k)))[head]
        sequences = Sequences(q, k, v, np.ones(len(q), bool), present)
        pilot = Pilot.of(sequences, chosen, kernel=estimator.kernel, scale=1.0, is_causal=is_causal)
        forecasts.append(expected.forecast(pilot, head))
    names = [field.name for field in fields(AttentionForecast)]
    return AttentionForecast(*(np.reshape([getattr(one, name) for one in forecasts], lead)[()] for name in names))


@dataclass(frozen=True, eq=False)
class Expectation:
    """The error to expect of one estimator on any pilot: by the delta method where it holds, else measured."""

    estimator: Estimator
    num_features: int
    dim: int
    num_draws: int
    rng: np.random.Generator

    @functools.cached_property
    def num_rows(self) -> int:
        """The number of rows m of a map."""
        return self.estimator.num_rows(self.num_features, self.dim)

    @functools.cached_property
    def maps(self) -> list[FeatureMap]:
        """Pilot maps, the same for all heads, drawn when the first head needs them."""
        return [self.estimator.draw(self.dim, self.num_features, rng=self.rng) for _ in range(self.num_draws)]

    def forecast(self, pilot: Pilot, head: tuple[int, ...]) -> AttentionForecast:
        """The forecast for one head, given a sample of its queries and its index."""
        average, largest = pilot.average_error(), pilot.largest_error() if self.estimator.positive else np.inf
        leading, variance = self.delta_method(pilot)
        error, verdict = leading, USEFUL  # at most largest · √(variance + 1/m), for then all G_jk > 0
        if not (variance <= LARGEST_VARIANCE and self.rows_do_no_harm(pilot)):
            error, verdict = self.measured(pilot, head), MEASURED
        elif not error <= average:
            if not isinstance(self.estimator.coupling, Independent):
                error = self.measured(pilot, head)
            verdict = USEFUL if error <= average else POOR
        error = min(error, largest)  # averages of the values can exceed it by rounding
        return AttentionForecast(*map(np.asarray, (error, verdict, average, largest, leading)))

    def delta_method(self, pilot: Pilot) -> tuple[float, float]:
        """The error to leading order, and the largest relative variance of a denominator; NaN if it is not known."""
        if self.estimator.batch_shape:
            return np.nan, np.nan
        error, size, spreads = 0.0, 0.0, [0.0]
        unit = self.estimator.kernel.unit
        query, key = unit(pilot.query), unit(pilot.key)
        try:
            for q, seen in zip(query, pilot.visible, strict=True):
                if seen.any():
                    squared, output, spread = query_error(self.estimator, q, key[seen], pilot.value[seen])
                    error += squared / self.num_rows
                    size += output @ output
                    spreads.append(spread / self.num_rows)
        except NoClosedForm:
            return np.nan, np.nan
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.sqrt(error / size)) if error else 0.0, float(np.max(spreads))  # NaN if any is

    def rows_do_no_harm(self, pilot: Pilot) -> bool:
        """Whether the variance at the heaviest key of every query is at most that of independent rows."""
        coupling = resolve_coupling(self.estimator.coupling)
        if isinstance(coupling, Independent) or not pilot.counted.any():
            return True
        if not coupling.exact_marginals:
            return False
        counted = pilot.counted[:, 0]
        query, visible = pilot.query[counted], pilot.visible[counted]
        logits = np.where(visible, self.estimator.kernel.log_gram(query, pilot.key), -np.inf)
        pair = query, pilot.key[np.argmax(logits, axis=-1)]
        variances = []
        try:
            with np.errstate(over="ignore"):
                for estimator in (self.estimator, self.estimator.with_coupling(Independent())):
                    variances.append(estimator.relative_variance(*pair, num_features=self.num_features))
        except ValueError:  # NoClosedForm, or an estimator that refuses other rows
            return False
        return bool(np.all(variances[0] <= 1.001 * variances[1]))

    def measured(self, pilot: Pilot, head: tuple[int, ...]) -> float:
        """The median error of the pilot maps; a draw without an output (0/0) counts as infinite."""
        errors = [pilot.error_of(map_of_head(phi, head)) for phi in self.maps]
        return float(np.median(np.nan_to_num(errors, nan=np.inf, posinf=np.inf)))


def map_of_head(phi: FeatureMap, head: tuple[int, ...]) -> FeatureMap:
    """The map of one head, by its index among the leading dimensions of the inputs."""
    batch = phi.batch_shape
    index = tuple(i if size > 1 else 0 for i, size in zip(head[len(head) - len(batch) :], batch, strict=True))
    return FeatureMap(phi.estimator, phi.dim, phi.num_features, {name: a[index] for name, a in phi.arrays.items()})


def query_error(estimator: Estimator, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> tuple[float, np.ndarray, float]:
    """`m E|ô - o|²`, the exact output o, and `m Var Ẑ / Z²` of the denominator, for one query in kernel units."""
    from scipy.special import log_softmax, logsumexp

    assert isinstance(estimator.kernel, SoftmaxFamily)  # those of other kernels have no log_joint_moment
    log_p = log_softmax(k @ q + estimator.kernel.log_envelope(np.sum(k * k, axis=-1)))
    output = np.exp(log_p) @ v
    inner = (v - output) @ (v - output).T
    log_weight = estimator.log_joint_moment(q, k) + log_p[:, None] + log_p[None, :]
    log_total, sign = logsumexp(log_weight, b=inner, return_sign=True)
    with np.errstate(over="ignore"):
        spread = float(np.sum(np.exp(log_weight))) - 1
        return float(np.exp(log_total) if sign > 0 else 0.0), output, spread  # rounding can leave a tiny negative sum
