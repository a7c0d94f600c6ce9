"""recommend: estimators and couplings tried on a sample of the queries, and ranked by their error."""

import contextlib
import dataclasses
import functools
import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from randfeat._array import as_bool, as_count, as_generator
from randfeat._hints import hinted, short, shown
from randfeat.couplings import Coupling
from randfeat.couplings.base import coupling_names, name_of, resolve_coupling
from randfeat.estimators import Estimator
from randfeat.kernels import SoftmaxFamily, SoftmaxKernel
from randfeat.kernels.softmax import resolve_scale
from randfeat.selection.forecast import POOR, USEFUL
from randfeat.selection.heads import pooled_heads
from randfeat.selection.operators import OperatorCandidate, Operators
from randfeat.selection.pilot import Pilot, Sequences
from randfeat.selection.recipes import RECIPES, Recipe, RecipeInputs, other_kernels

FINALISTS = 8
COUPLINGS = ("orthogonal", "independent", "simplex", "antithetic-orthogonal")
BUILT_IN = "built-in"


@dataclass(frozen=True, eq=False)
class Candidate:
    """One estimator, fitted to the data, and its pilot errors.

    name : the estimator, and how it was fitted. estimator : the fitted estimator with its coupling; draw maps from it.
    errors (num_draws, heads) : relative errors of the attention output on the sampled queries.
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
    """The candidates, best first; `print` shows them as a table.

    The best few were drawn more often. Each of the two parts is sorted by itself, because the first errors of the best
    of many were low by chance.

    candidates : the ranked candidates. refused : what was not tried, with the reason. average_error : the error of the
    plain average of the values that each query sees. largest_error : the most that any average of these values can err,
    so a bound for positive features. exact_is_cheaper : whether exact attention needs at most as much
    arithmetic as this number of features D, D >= LS/(L + S). operators : forms of attention without features.
    """

    candidates: tuple[Candidate, ...]
    refused: dict[str, str]
    num_features: int
    average_error: float
    largest_error: float
    exact_is_cheaper: bool
    _operators: Operators | None = None

    @functools.cached_property
    def operators(self) -> tuple[OperatorCandidate, ...]:
        """Attention without features, least error first: clustered, compressed, exact. Computed when first asked for.

        Their errors are measured on the same sampled queries, and their costs are numbers of features. Empty for
        kernels other than `SoftmaxKernel()`.
        """
        return () if self._operators is None else self._operators.candidates()

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

    @property
    def verdict(self) -> str:
        """ "useful" if the best estimator errs less than the plain average of the values, else "poor"."""
        return USEFUL if self.candidates[0].error < self.average_error else POOR

    def __str__(self) -> str:
        width = max(len(candidate.name) for candidate in self)
        lines = [f"{'error':>7}  {'low':>7}  {'high':>7}  {'estimator':<{width}}  coupling"]
        draws = len(self.candidates[0].errors)
        for candidate in self:
            if len(candidate.errors) != draws:  # an error is comparable with those of as many draws
                lines.append(
                    f"above, the best, drawn {draws} times; below, the others, drawn {len(candidate.errors)} times"
                )
                draws = len(candidate.errors)
            low, high, rows = candidate.errors.min(), candidate.errors.max(), name_of(candidate.estimator.coupling)
            lines.append(f"{candidate.error:7.3f}  {low:7.3f}  {high:7.3f}  {candidate.name:<{width}}  {rows}")
        lines.append(f"{self.average_error:7.3f}  {'':7}  {'':7}  average of the values")
        better = sum(candidate.error < self.average_error for candidate in self)
        lines.append(
            f"{self.verdict}: {better} of {len(self)} estimators are better than the average of the values; "
            f"positive features err at most {self.largest_error:.3g}"
        )
        if self.exact_is_cheaper:
            lines.append(f"exact attention takes no more arithmetic than {self.num_features} features here")
        if self.operators:
            lines.append(f"without features; cost in features, of which the estimators have {self.num_features}:")
            lines.append(f"{'error':>7}  {'cost':>7}  operator")
            lines.extend(f"{one.error:7.3f}  {one.cost:7.1f}  {one.name}" for one in self.operators)
        return "\n".join([*lines, *(f"not tried: {name}: {reason}" for name, reason in self.refused.items())])


@hinted
def recommend(
    query: Any,
    key: Any,
    value: Any = None,
    *,
    estimators: Sequence[Any] | Any = None,
    num_features: int = 256,
    scale: float | None = None,
    kernel: SoftmaxFamily | None = None,
    is_causal: bool = False,
    key_mask: Any = None,
    query_mask: Any = None,
    enable_gqa: bool = False,
    couplings: Sequence[Coupling | str] | Coupling | str = COUPLINGS,
    num_queries: int = 64,
    num_draws: int = 3,
    rng: Any = 0,
) -> Recommendation:
    """Rank estimators and couplings by their error on these queries and keys, all with the same number of features.

    Estimators with parameters are first fitted to the queries and keys. Then each estimator is drawn `num_draws` times,
    and its outputs are compared with exact attention, for a random subset of `num_queries` queries and all keys. This
    also works on heads where most of the weight is on few keys. Closed forms fail there: the relative variances are so
    large that they say nothing about the errors of the outputs, which are bounded by the values.

    Parameters
    ----------
    query (..., L, d), key (..., S, d), value (..., S, dv) : raw inputs, as for `linear_attention`. Without values, the
        keys are used as values. Dimension -3, if there is one, is the heads; each head has its own fit and its own
        error. Earlier dimensions are more sequences of the same heads.
    estimators : what is tried; by default every estimator of the library for this kernel. One entry or a list. An entry
        is an estimator, which is tried as it is; a class, whose `example()` is tried with every coupling in
        `couplings`; a name from the printed table, such as "OptimalPositiveFeatures.fit"; or "built-in", which stands
        for all that is tried by default.
    num_features, is_causal : as for `linear_attention`. For causal attention, fit the chosen estimator to other data
        than it is used on.
    scale, kernel, key_mask, query_mask, enable_gqa : as for `adapt`.
    couplings : one or several couplings, tried with every estimator that has a coupling to choose; "all" for every
        coupling.
    num_queries, num_draws, rng : the size of the pilot and its seed. The best eight candidates are drawn three times as
        often.

    Returns the ranking. `recommendation.best` is a fitted estimator. `recommendation.verdict` is "useful" if it is
    better than the plain average of the values, else "poor". `recommendation.operators` has clustered, compressed and
    exact attention beside them, computed when it is first asked for, with errors on the same queries and costs in
    features. `print(recommendation)` shows both tables, and what was not tried, with the reason.
    Time: about `num_draws` · (num_queries + S) · num_features · d for each candidate,
    and the fits.

    >>> import randfeat as rf
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 200, 8))
    >>> ranking = recommend(q, k, v, num_features=32, couplings=["orthogonal"], rng=0)
    >>> ranking[0].error < ranking.average_error, ranking.exact_is_cheaper
    (True, False)
    >>> phi = ranking.best.draw(dim=8, num_features=32, rng=1)
    >>> next(one.name for one in ranking.operators if one.cost < 100)
    'clustered_attention, num_clusters=21'
    >>> two = recommend(q, k, v, estimators=[rf.PositiveFeatures(), rf.HyperbolicFeatures()])
    >>> sorted(candidate.name for candidate in two)
    ['HyperbolicFeatures', 'PositiveFeatures']
    """
    sequences = Sequences.of(query, key, value, key_mask=key_mask, query_mask=query_mask, enable_gqa=enable_gqa)
    is_causal = as_bool(is_causal, "is_causal")
    num_features, num_draws = as_count(num_features, "num_features"), as_count(num_draws, "num_draws")
    kernel = SoftmaxKernel() if kernel is None else kernel
    if not isinstance(kernel, SoftmaxFamily):
        raise TypeError(
            f"kernel must be of the softmax family, as SoftmaxKernel or GaussianKernel, got {shown(kernel)}."
        )
    scale = resolve_scale(scale, kernel, sequences.query.shape[-1])
    chosen: Sequence[Any] = [couplings] if isinstance(couplings, str | Coupling) else couplings
    laws = [resolve_coupling(coupling) for coupling in (coupling_names() if couplings == "all" else chosen)]
    trials, refused = what_is_tried(estimators, laws)
    generator = as_generator(rng)
    present = np.flatnonzero(sequences.query_mask.any(axis=tuple(range(sequences.query_mask.ndim - 1))))
    rows = present[np.sort(generator.permutation(len(present))[: as_count(num_queries, "num_queries")])]
    pilot = Pilot.of(sequences, rows, kernel=kernel, scale=scale, is_causal=is_causal)
    pooled = without_padding(query, key, key_mask, query_mask, enable_gqa, generator)
    inputs = RecipeInputs(*pooled, num_features, scale, kernel, generator)
    candidates: list[Candidate] = []
    for trial in trials:
        try:
            fitted = trial.fit(inputs)
            if fitted.kernel != kernel:
                raise ValueError(f"of {fitted.kernel!r}, not of {kernel!r}; pass that kernel to recommend.")
        except ValueError as reason:
            refused[trial.name] = str(reason)
            continue
        for estimator in with_rows(fitted, trial.couplings):
            try:
                errors = [pilot.error(estimator, num_features, generator) for _ in range(num_draws)]
            except ValueError as reason:
                refused[f"{trial.name}, {estimator.coupling!r}"] = str(reason)
                continue
            candidates.append(Candidate(trial.name, estimator, np.asarray(errors)))
    if not candidates:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise ValueError(f"no estimator could be tried. {reasons}")
    candidates.sort(key=order)
    # The first of many noisy errors is too good by chance: the best few are drawn again before one is put first.
    finalists = candidates[:FINALISTS]
    for i, candidate in enumerate(finalists):
        more = [pilot.error(candidate.estimator, num_features, generator) for _ in range(2 * num_draws)]
        finalists[i] = replace(candidate, errors=np.concatenate([candidate.errors, more]))
    candidates[:FINALISTS] = sorted(finalists, key=order)
    length, keys = sequences.query.shape[-2], sequences.key.shape[-2]
    return Recommendation(
        candidates=tuple(candidates),
        refused=refused,
        num_features=num_features,
        average_error=pilot.average_error(),
        largest_error=pilot.largest_error(),
        exact_is_cheaper=num_features * (length + keys) >= length * keys,
        _operators=Operators(sequences, pilot, rows, scale, is_causal) if kernel == SoftmaxKernel() else None,
    )


def order(candidate: Candidate) -> tuple[bool, float]:
    """Least error first, what is not a number last."""
    return bool(np.isnan(candidate.error)), candidate.error


@dataclass(frozen=True)
class Trial:
    """A name of the table, how the estimator is fitted, and the couplings to try it with, none for its own."""

    name: str
    fit: Recipe
    couplings: Sequence[Coupling]


def what_is_tried(estimators: Any, couplings: Sequence[Coupling]) -> tuple[list[Trial], dict[str, str]]:
    """The trials, and the estimators of the library that are not tried, with the reason."""
    single = estimators is None or isinstance(estimators, str | Estimator | type)
    wanted: list[Any] = [BUILT_IN if estimators is None else estimators] if single else list(estimators)
    own = Counter(type(each).__name__ for each in wanted if isinstance(each, Estimator))
    trials: list[Trial] = []
    refused: dict[str, str] = {}
    for each in wanted:
        if isinstance(each, Estimator):
            name = type(each).__name__ if own[type(each).__name__] == 1 else with_parameters(each)
            trials.append(Trial(name, lambda inputs, each=each: each, ()))  # type: ignore[misc]
        elif isinstance(each, type) and issubclass(each, Estimator) and not inspect.isabstract(each):
            trials.append(Trial(each.__name__, lambda inputs, each=each: each.example(), couplings))  # type: ignore[misc]
        elif each == BUILT_IN:
            trials.extend(Trial(name, fit, couplings) for name, fit in RECIPES.items())
            refused = other_kernels()
        elif isinstance(each, str) and each in RECIPES:
            trials.append(Trial(each, RECIPES[each], couplings))
        else:
            raise TypeError(
                f"estimators must be estimators, classes of them, or names: {BUILT_IN!r}, "
                f"{', '.join(map(repr, RECIPES))}; got {short(each)}."
            )
    return trials, refused


def with_parameters(estimator: Estimator) -> str:
    """The name of the class and its own fields, in one line of the table."""
    names = [field.name for field in dataclasses.fields(estimator) if field.name not in ("kernel", "coupling")]
    text = ", ".join(f"{name}={' '.join(repr(getattr(estimator, name)).split())}" for name in names)
    return f"{type(estimator).__name__}({text if len(text) <= 60 else text[:57] + '...'})"


def with_rows(estimator: Estimator, couplings: Sequence[Coupling]) -> list[Estimator]:
    """The estimator under each coupling that it takes, or under its own where there is nothing to choose."""
    result: list[Estimator] = []
    for coupling in couplings if estimator.has_coupling else ():
        with contextlib.suppress(ValueError):  # rows of constant norm only, say
            result.append(estimator.with_coupling(coupling))
    return result or [estimator]


def without_padding(
    query: Any, key: Any, key_mask: Any, query_mask: Any, enable_gqa: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and keys that take part, (heads, L, d) or (L, d): of heads with more of them, a random subset."""
    raw = pooled_heads(query, key, None, key_mask, query_mask, enable_gqa)
    sides = [head.query for head in raw.heads], [head.key[head.present] for head in raw.heads]
    for side in sides:
        least = min(map(len, side))
        side[:] = [x if len(x) == least else x[np.sort(rng.permutation(len(x))[:least])] for x in side]
    query, key = (np.stack(side) if raw.batched else side[0] for side in sides)
    return query, key
