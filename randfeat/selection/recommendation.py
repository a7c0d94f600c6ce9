"""Which features for these data: estimators and couplings tried on a sample of the queries, ranked by their error."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from randfeat import estimators as known
from randfeat._array import as_count, as_generator, as_host
from randfeat._hints import hinted
from randfeat.couplings import Coupling
from randfeat.couplings.base import coupling_names, resolve_coupling
from randfeat.estimators.base import Estimator
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.kernels import SoftmaxKernel
from randfeat.kernels.softmax import resolve_scale
from randfeat.selection.adaptation import LEVELS, adapt

__all__ = ["Candidate", "Recommendation", "recommend"]

FINALISTS = 8
COUPLINGS = ("orthogonal", "independent", "simplex", "antithetic-orthogonal")
Fit = Callable[[np.ndarray, np.ndarray, int, float, np.random.Generator], Estimator]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One estimator, fitted to the data, and its pilot errors.

    name : of the recipe. estimator : frozen, with its coupling; draw maps from it. errors (num_draws, heads) : relative
    error of the attention output on the sampled queries.
    """

    name: str
    estimator: Estimator
    errors: np.ndarray

    @property
    def error(self) -> float:
        """Median over the draws of a head, then over heads."""
        return float(np.median(np.median(self.errors, axis=0)))

    @property
    def coupling(self) -> str:
        """The coupling, as it is written."""
        return repr(self.estimator.coupling)


@dataclass(frozen=True, eq=False)
class Recommendation(Sequence[Candidate]):
    """The candidates, best first; printed, a table.

    candidates : ranked. refused : what was not tried, with the reason. average_error : what attention errs by that
    returns the average of the values. exact_is_cheaper : whether exact attention takes no more arithmetic than features
    of this width, D >= LS/(L + S).
    """

    candidates: tuple[Candidate, ...]
    refused: dict[str, str]
    num_features: int
    average_error: float
    exact_is_cheaper: bool

    def __getitem__(self, index: Any) -> Any:
        return self.candidates[index]

    def __len__(self) -> int:
        return len(self.candidates)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    @property
    def best(self) -> Estimator:
        """The estimator with the least error."""
        return self.candidates[0].estimator

    def __str__(self) -> str:
        width = max(len(candidate.name) for candidate in self)
        lines = [f"{'error':>7}  {'low':>7}  {'high':>7}  {'estimator':<{width}}  coupling"]
        for candidate in self:
            low, high = candidate.errors.min(), candidate.errors.max()
            lines.append(
                f"{candidate.error:7.3f}  {low:7.3f}  {high:7.3f}  {candidate.name:<{width}}  {candidate.coupling}"
            )
        lines.append(f"{self.average_error:7.3f}  {'':7}  {'':7}  average of the values")
        if self.exact_is_cheaper:
            lines.append(f"exact attention takes no more arithmetic than {self.num_features} features here")
        return "\n".join([*lines, *(f"not tried: {name}: {reason}" for name, reason in self.refused.items())])


@hinted
def recommend(
    query: Any,
    key: Any,
    value: Any = None,
    *,
    num_features: int = 256,
    scale: float | None = None,
    is_causal: bool = False,
    couplings: Sequence[Coupling | str] | Coupling | str = COUPLINGS,
    num_queries: int = 64,
    num_draws: int = 3,
    rng: Any = 0,
) -> Recommendation:
    """Rank estimators and couplings by their error on these queries and keys, at equal width.

    Each estimator of the softmax kernel is fitted where it has parameters, drawn `num_draws` times, and compared with
    exact attention on a random subset of `num_queries` queries over all keys. Closed forms do not rank features on
    sharp heads, where relative variances are astronomical and every real error is about 1; pilot maps do.

    Parameters
    ----------
    query (L, d) or (heads, L, d), key (..., S, d), value (..., S, dv) : raw inputs, as for `linear_attention`; without
        values the outputs for the keys themselves are compared.
    num_features, scale, is_causal : as for `linear_attention`. A causal map should be fitted to other data than it
        is used on; the recommendation is about the data given here.
    couplings : which to try with every estimator that has a choice, one or several; "all" for every one.
    num_queries, num_draws, rng : size of the pilot, and its seed; the best eight candidates are drawn three times as
        often.

    Returns the ranking; `recommendation.best` is a fitted estimator, `print(recommendation)` the table, with what was
    not tried and why. Time: about `num_draws` · (num_queries + S) · num_features · d for each candidate, and the fits.

    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 200, 8))
    >>> ranking = recommend(q, k, v, num_features=32, couplings=["orthogonal"], rng=0)
    >>> ranking[0].error < ranking.average_error, ranking.exact_is_cheaper
    (True, False)
    >>> phi = ranking.best.draw(dim=8, num_features=32, rng=1)
    """
    q, k, v = pilot_inputs(query, key, value)
    num_features, num_draws = as_count(num_features, "num_features"), as_count(num_draws, "num_draws")
    scale = resolve_scale(scale, SoftmaxKernel(), q.shape[-1])
    generator = as_generator(rng)
    rows = np.sort(generator.permutation(q.shape[-2])[: as_count(num_queries, "num_queries")])
    pilot = Pilot.of(q, k, v, rows, scale=scale, is_causal=is_causal)
    candidates: list[Candidate] = []
    chosen: Sequence[Any] = [couplings] if isinstance(couplings, str | Coupling) else couplings
    if couplings == "all":
        chosen = coupling_names()
    laws = [resolve_coupling(coupling) for coupling in chosen]
    refused = other_kernels()
    for name, fit in RECIPES.items():
        try:
            fitted = fit(q, k, num_features, scale, generator)
        except ValueError as reason:
            refused[name] = str(reason)
            continue
        for estimator in with_rows(fitted, laws):
            try:
                errors = [pilot.error(estimator, num_features, generator) for _ in range(num_draws)]
            except ValueError as reason:
                refused[f"{name}, {estimator.coupling!r}"] = str(reason)
                continue
            candidates.append(Candidate(name, estimator, np.asarray(errors)))
    candidates.sort(key=order)
    # The first of many noisy errors is too good by chance: the best few are drawn again before one is put first.
    finalists = candidates[:FINALISTS]
    for i, candidate in enumerate(finalists):
        more = [pilot.error(candidate.estimator, num_features, generator) for _ in range(2 * num_draws)]
        finalists[i] = replace(candidate, errors=np.concatenate([candidate.errors, more]))
    candidates[:FINALISTS] = sorted(finalists, key=order)
    length, keys = q.shape[-2], k.shape[-2]
    return Recommendation(
        candidates=tuple(candidates),
        refused=refused,
        num_features=num_features,
        average_error=pilot.average_error(),
        exact_is_cheaper=num_features * (length + keys) >= length * keys,
    )


def order(candidate: Candidate) -> tuple[bool, float]:
    """Least error first, what is not a number last."""
    return bool(np.isnan(candidate.error)), candidate.error


# what is tried ----------------------------------------------------------------------------------------------------


def balanced_optimal(
    q: np.ndarray, k: np.ndarray, num_features: int, scale: float, rng: np.random.Generator
) -> SoftmaxEstimator:
    """Diagonal balancing, then one optimal exponent: SADERF."""
    balanced = known.BalancedFeatures.fit(q, k, scale=scale, kind="diagonal")
    root = np.sqrt(scale)
    base = known.OptimalPositiveFeatures.fit(*balanced.moved_pair(root * q, root * k), scale=1.0)
    return known.BalancedFeatures(base=base, matrix=balanced.matrix)


def adapted(level: Any) -> Fit:
    """A level of `adapt`."""
    return lambda q, k, width, scale, rng: adapt(q, k, level=level, num_features=width, scale=scale, rng=rng)


RECIPES: dict[str, Fit] = {
    "PositiveFeatures": lambda q, k, width, scale, rng: known.PositiveFeatures(),
    "HyperbolicFeatures": lambda q, k, width, scale, rng: known.HyperbolicFeatures(),
    "TrigonometricFeatures": lambda q, k, width, scale, rng: known.TrigonometricFeatures(),
    "OptimalPositiveFeatures.fit": lambda q, k, width, scale, rng: known.OptimalPositiveFeatures.fit(q, k, scale=scale),
    "OptimalPositiveFeatures.fit, antithetic": lambda q, k, width, scale, rng: known.OptimalPositiveFeatures.fit(
        q, k, scale=scale, antithetic=True
    ),
    "DenseExponentialFeatures.fit": lambda q, k, width, scale, rng: known.DenseExponentialFeatures.fit(
        q, k, scale=scale
    ),
    "balanced OptimalPositiveFeatures": balanced_optimal,
    "StudentPositiveFeatures": lambda q, k, width, scale, rng: known.StudentPositiveFeatures(),
    "RegularizedSoftmaxFeatures": lambda q, k, width, scale, rng: known.RegularizedSoftmaxFeatures(),
    "ControlVariateFeatures": lambda q, k, width, scale, rng: known.ControlVariateFeatures(),
    "AngularHybridFeatures": lambda q, k, width, scale, rng: known.AngularHybridFeatures(num_signs=3),
    "MaclaurinFeatures": lambda q, k, width, scale, rng: known.MaclaurinFeatures(),
    "PoissonFeatures.fit": lambda q, k, width, scale, rng: known.PoissonFeatures.fit(q, k, scale=scale),
    "GeometricFeatures.fit": lambda q, k, width, scale, rng: known.GeometricFeatures.fit(q, k, scale=scale),
    "ComplexExponentialFeatures.fit": lambda q, k, width, scale, rng: known.ComplexExponentialFeatures.fit(
        q, k, scale=scale
    ),
    "ImportanceSampledFeatures.fit": lambda q, k, width, scale, rng: known.ImportanceSampledFeatures.fit(
        q, k, scale=scale, pooling="k-means", rng=rng
    ),
    **{f"adapt, level {level!r}": adapted(level) for level in LEVELS},
}
"""How every estimator of the softmax kernel is fitted: (query, key, num_features, scale, rng) -> estimator."""


def with_rows(estimator: Estimator, couplings: list[Coupling]) -> list[Estimator]:
    """The estimator under each coupling that it takes, or under its own where there is nothing to choose."""
    result: list[Estimator] = []
    for coupling in couplings if estimator.has_coupling else []:
        with contextlib.suppress(ValueError):  # rows of constant norm only, say
            result.append(estimator.with_coupling(coupling))
    return result or [estimator]


def other_kernels() -> dict[str, str]:
    """Estimators that are never tried, and why: they are of other kernels."""
    examples = {name: getattr(known, name).example() for name in known.__all__ if name.endswith("Features")}
    kernels = {name: type(estimator.kernel).__name__ for name, estimator in examples.items()}
    return {
        name: f"of a {kernel}, not of the softmax kernel"
        for name, kernel in kernels.items()
        if kernel != "SoftmaxKernel"
    }


# the pilot --------------------------------------------------------------------------------------------------------


def pilot_inputs(query: Any, key: Any, value: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checked host copies; the keys stand in for missing values."""
    q, k = as_host(query, "query"), as_host(key, "key")
    v = k if value is None else as_host(value, "value")
    for name, array in (("query", q), ("key", k), ("value", v)):
        if array.ndim not in (2, 3) or 0 in array.shape:
            raise ValueError(f"{name} must have shape (length, dim) or (heads, length, dim), got {array.shape}.")
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} holds NaN or infinity; leave out padding.")
    if q.shape[-1] != k.shape[-1] or k.shape[:-1] != v.shape[:-1] or q.shape[:-2] != k.shape[:-2]:
        raise ValueError(f"query, key and value do not fit together: {q.shape}, {k.shape}, {v.shape}.")
    return q, k, v


@dataclass(frozen=True, eq=False)
class Pilot:
    """Sampled queries, all keys in kernel units after √scale, and the exact outputs, head by head."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    visible: np.ndarray
    """(queries, keys), what each query sees."""
    log_top: np.ndarray
    """Largest exact logit of each query, (..., queries, 1)."""
    exact: np.ndarray

    @classmethod
    def of(
        cls, q: np.ndarray, k: np.ndarray, v: np.ndarray, rows: np.ndarray, *, scale: float, is_causal: bool
    ) -> "Pilot":
        """The sample of these rows."""
        x, y = np.sqrt(scale) * q[..., rows, :], np.sqrt(scale) * k
        visible = rows[:, None] >= np.arange(k.shape[-2]) if is_causal else np.ones((len(rows), k.shape[-2]), bool)
        logits = np.where(visible, x @ np.swapaxes(y, -1, -2), -np.inf)
        top = np.max(logits, axis=-1, keepdims=True)
        weights = np.exp(logits - top)
        return cls(x, y, v, visible, top, weights @ v / weights.sum(axis=-1, keepdims=True))

    def error(self, estimator: Estimator, num_features: int, rng: np.random.Generator) -> np.ndarray:
        """Relative error of one draw for each head, (heads,)."""
        phi = estimator.draw(self.query.shape[-1], num_features, rng=rng)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # signed features may do all of these
            weights = phi.queries(self.query).scaled(-self.log_top).dot(phi.keys(self.key))
            weights = np.where(self.visible, weights, 0.0)
            return self.relative(weights @ self.value / weights.sum(axis=-1, keepdims=True))

    def average_error(self) -> float:
        """That of the average of the values that each query sees."""
        average = self.visible @ self.value / self.visible.sum(axis=-1, keepdims=True)
        return float(np.median(self.relative(average)))

    def relative(self, output: np.ndarray) -> np.ndarray:
        """`|output - exact| / |exact|`, Frobenius, (heads,)."""
        size = np.linalg.norm(self.exact, axis=(-2, -1))
        return np.atleast_1d(np.linalg.norm(output - self.exact, axis=(-2, -1)) / size)
