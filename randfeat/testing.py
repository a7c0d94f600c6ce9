"""The contract of estimators and couplings, as checks that anybody can run on their own.

Every statistical check is a z-score against a closed form, with the standard error taken from theory where theory has
it (heavy tails make sample errors too small), a Bonferroni limit from the stated false-alarm rate, and a number of
draws chosen so that a stated deviation is caught with probability 0.999.

>>> import randfeat as rf
>>> report = check_estimator(rf.PositiveFeatures(coupling="orthogonal"), dim=3, rng=0)
>>> report.worst < report.limit
True
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_host, cast, dtype_name
from randfeat.couplings import Coupling, resolve_coupling
from randfeat.couplings.laws import PairLaw
from randfeat.estimators.base import Estimator, as_generator
from randfeat.montecarlo import BATCH_BYTES, HEAVY, HeavyTailWarning, kurtosis_of_estimate, sample_errors
from randfeat.variance import NoClosedForm

__all__ = ["Check", "Report", "check_coupling", "check_estimator"]

POWER_Z = 3.0902  # normal quantile of 0.999
MAX_DRAWS = 3_000_000
PILOT_DRAWS = 5_000
ROUNDING = 256 * np.finfo(np.float64).eps  # of sums over at most a few hundred terms


@dataclass(frozen=True)
class Check:
    """One statistical check: its z-score, and the relative deviation it would catch with probability 0.999."""

    name: str
    z: float
    detectable: float


@dataclass(frozen=True)
class Report:
    """All statistical checks of one subject; passed, for otherwise the check function has raised."""

    subject: str
    checks: tuple[Check, ...]
    limit: float
    notes: tuple[str, ...] = ()

    @property
    def z_scores(self) -> np.ndarray:
        """The z-scores, standard normal if the subject is right."""
        return np.array([check.z for check in self.checks])

    @property
    def worst(self) -> float:
        """Largest absolute z-score."""
        return float(np.max(np.abs(self.z_scores), initial=0.0))

    def __str__(self) -> str:
        head = f"{self.subject}: {len(self.checks)} checks, worst |z| = {self.worst:.2f}, limit {self.limit:.2f}"
        lines = [f"  {c.name}: z = {c.z:+.2f}, would catch {c.detectable:.2%}" for c in self.checks]
        return "\n".join([head, *lines, *(f"  note: {note}" for note in self.notes)])


def check_estimator(
    estimator: Estimator,
    *,
    dim: int = 4,
    num_rows: Iterable[int] | None = None,
    rng: Any = 0,
    false_alarm: float = 1e-6,
    detectable_bias: float = 0.03,
    detectable_variance: float = 0.1,
    namespaces: Iterable[Any] = (),
) -> Report:
    """Check that an estimator keeps its promises: mean, variance, shapes, dtypes, seeds, backends, documentation.

    estimator : the estimator to check, under its own kernel and coupling.
    dim, num_rows : where; by default 1, d-1, d, d+2 and 2d rows, or the nearest numbers the coupling can have.
    rng : seed; the check is deterministic given it.
    false_alarm : probability that a correct estimator fails (all statistical checks together, to normal approximation).
    detectable_bias, detectable_variance : relative deviations of mean and variance that are caught with probability
        0.999; they set the number of draws. Variances are checked where the kurtosis of the estimate is below 30.
    namespaces : array namespaces (`torch`, `jax.numpy`, `array_api_strict`, ...) on which the same seed must give the
        same features.

    Raises AssertionError, naming what failed; returns the report otherwise. An estimator without a closed-form variance
    is checked for its mean with the sample's standard error, and the report says so.
    """
    if not isinstance(estimator, Estimator):
        raise TypeError(f"expected an Estimator, got {type(estimator).__name__}.")
    widths = [rows * estimator.features_per_row for rows in possible_rows(estimator.coupling, dim, num_rows)]
    check_documentation(estimator)
    for width in widths:
        check_features(estimator, dim, width)
    for xp in namespaces:
        check_namespace(estimator, dim, widths[-1], xp)
    x, y = sample_pairs(estimator, dim)
    limit = bonferroni(false_alarm, 2 * len(widths) * len(x))
    checks: list[Check] = []
    notes: list[str] = []
    for width, generator in zip(widths, as_generator(rng).spawn(len(widths)), strict=True):
        case = MomentCase(estimator, x, y, width, limit, detectable_bias, detectable_variance)
        checks += case.run(generator, notes)
    return conclude(repr(estimator), checks, limit, notes)


def check_coupling(
    coupling: Coupling | str,
    *,
    dim: int = 4,
    num_rows: Iterable[int] | None = None,
    rng: Any = 0,
    false_alarm: float = 1e-6,
    num_draws: int = 20_000,
) -> Report:
    """Check that rows have the marginals, and pairs of rows the joint laws, that a coupling states.

    Per row: mean 0, second moments I, squared norm, and `E[exp(v·w)]` along axes of both signs and obliquely. Per draw:
    the variance of the row averages of exp(v·w), cosh(v·w), cos(v·w) and |w|² against the assembly of the pair laws;
    the last sees norms that are shared between rows that should be independent.

    Raises AssertionError, naming what failed; returns the report otherwise.
    """
    coupling = resolve_coupling(coupling)
    rows = possible_rows(coupling, dim, num_rows)
    checks: list[Check] = []
    limit = bonferroni(false_alarm, sum(num * (dim * (dim + 3) // 2 + 4) + 8 for num in rows))
    for num, generator in zip(rows, as_generator(rng).spawn(len(rows)), strict=True):
        size = max(1, BATCH_BYTES // (16 * max(num, dim) * dim))
        sizes = [size] * (num_draws // size) + [num_draws % size] * bool(num_draws % size)
        sample = np.concatenate([coupling.sample(num, dim, rng=generator, batch_shape=(n,)) for n in sizes])
        assert sample.shape == (num_draws, num, dim), (
            f"{coupling!r}: expected shape {(num, dim)}, got {sample.shape[1:]}"
        )
        assert sample.dtype == np.float64, f"{coupling!r}: rows are {sample.dtype}, expected float64"
        checks += row_checks(coupling, sample, limit) + pair_checks(coupling, sample, limit)
    return conclude(repr(coupling), checks, limit, [])


# statistics of an estimator --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class MomentCase:
    """Mean and variance of one estimator at one width on a list of pairs."""

    estimator: Estimator
    x: np.ndarray
    y: np.ndarray
    width: int
    limit: float
    detectable_bias: float
    detectable_variance: float

    def run(self, generator: np.random.Generator, notes: list[str]) -> list[Check]:
        """The z-scores of all pairs; pairs without any variance must be exact to rounding."""
        relative_mean = self.estimator.mean(self.x, self.y) / self.estimator.kernel.pairwise(self.x, self.y)
        try:
            variance = self.estimator.relative_variance(self.x, self.y, num_features=self.width)
        except NoClosedForm as reason:
            notes.append(f"variance not checked: {reason}")
            return self.mean_only(generator, relative_mean)
        pilot, main = generator.spawn(2)
        kurtosis = np.maximum(self.kurtosis(), kurtosis_of(self.errors(PILOT_DRAWS, pilot, relative_mean)))
        # The variance is checked where the fourth moment is light enough for a sum of squares to be nearly normal.
        light = kurtosis < HEAVY
        draws = int(self.draws_for(variance, np.where(light, kurtosis, 1.0)))
        errors = self.errors(draws, main, relative_mean)
        checks = []
        for pair, (error, var, heavy) in enumerate(zip(errors.T, variance, ~light, strict=True)):
            name = f"num_features={self.width}, pair {pair}"
            if var <= ROUNDING**2:
                assert np.all(np.abs(error) < ROUNDING), f"{self.estimator!r}, {name}: expected exact, got {error}"
                continue
            scale = np.sqrt(var / draws)
            checks.append(Check(f"mean, {name}", float(error.mean() / scale), (self.limit + POWER_Z) * scale))
            if not heavy:
                scale = np.sqrt((max(kurtosis_of(error), kurtosis[pair]) - 1) / draws)
                z = float((np.mean(error**2) / var - 1) / scale)
                checks.append(Check(f"variance, {name}", z, (self.limit + POWER_Z) * scale))
        return checks

    def mean_only(self, generator: np.random.Generator, relative_mean: np.ndarray) -> list[Check]:
        """The mean, with the sample's own standard error."""
        draws = 40_000
        errors = self.errors(draws, generator, relative_mean)
        scale = np.maximum(errors.std(axis=0, ddof=1), ROUNDING) / np.sqrt(draws)
        return [
            Check(f"mean, num_features={self.width}, pair {pair}", float(z), float((self.limit + POWER_Z) * s))
            for pair, (z, s) in enumerate(zip(errors.mean(axis=0) / scale, scale, strict=True))
        ]

    def errors(self, draws: int, generator: np.random.Generator, relative_mean: np.ndarray) -> np.ndarray:
        """Deviations of K̂/K from their mean, (draws, pairs)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HeavyTailWarning)  # heavy pairs are not used for variances
            sample = sample_errors(
                self.estimator, self.x, self.y, num_features=self.width, num_draws=draws, rng=generator
            )
        return sample.errors + 1 - relative_mean

    def kurtosis(self) -> np.ndarray:
        """Of the estimate, as if rows were independent; 3 where one row's is not known."""
        try:
            return kurtosis_of_estimate(self.estimator, self.x, self.y, num_features=self.width)
        except NoClosedForm:
            return np.full(len(self.x), 3.0)

    def draws_for(self, variance: np.ndarray, kurtosis: np.ndarray) -> float:
        """Draws that give the stated power."""
        reach = self.limit + POWER_Z
        for_mean = np.max(variance) * (reach / self.detectable_bias) ** 2
        for_variance = np.max(kurtosis - 1) * (reach / self.detectable_variance) ** 2
        draws = np.ceil(max(for_mean, for_variance, 2000.0))
        if draws > MAX_DRAWS:
            raise ValueError(
                f"{self.estimator!r} at {self.width} features would need {draws:.1e} draws to catch a relative bias of "
                f"{self.detectable_bias} and a relative error of the variance of {self.detectable_variance}; "
                "ask for less, or check more features."
            )
        return float(draws)


def kurtosis_of(errors: np.ndarray) -> Any:
    """Fourth moment over squared second, about zero, over the first axis; 1 where there is no error at all."""
    second = np.mean(errors**2, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(second <= ROUNDING**2, 1.0, np.mean(errors**4, axis=0) / second**2)


def sample_pairs(estimator: Estimator, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Axis-aligned pairs of both signs, opposite and anisotropic ones, with |x ± y|² at most 1.3 in kernel units."""
    axis = np.eye(dim)[0]
    slope = np.arange(1.0, dim + 1)
    slope /= np.linalg.norm(slope)
    flat = np.ones(dim) / np.sqrt(dim)
    pairs = [
        (0.35 * axis, 0.35 * axis),
        (-0.35 * axis, -0.35 * axis),
        (0.3 * flat, -0.4 * flat),
        (0.6 * slope, 0.1 * axis),
        (0.1 * axis - 0.2 * slope, 0.4 * flat),
        (0.5 * flat, 0.6 * slope),
    ]
    unit = float(estimator.kernel.unit(np.ones(1))[0])
    x, y = (np.array(side) / unit for side in zip(*pairs, strict=True))
    return x, y


# statistics of a coupling ----------------------------------------------------------------------------------------


def row_checks(coupling: Coupling, sample: np.ndarray, limit: float) -> list[Check]:
    """Marginal moments of every row."""
    num, dim = sample.shape[1:]
    law = coupling.row_law(dim)
    checks = []

    def add(name: str, values: np.ndarray, expected: float) -> None:
        """A z-score with the sample's standard error; all of these have light tails."""
        scale = values.std(ddof=1) / np.sqrt(len(values))
        deviation = values.mean() - expected
        if scale < ROUNDING * max(1.0, abs(expected)):
            assert abs(deviation) < ROUNDING * max(1.0, abs(expected)), f"{coupling!r}, {name}: off by {deviation}"
            return
        checks.append(Check(name, float(deviation / scale), float((limit + POWER_Z) * scale / max(abs(expected), 1.0))))

    flat, axis = np.ones(dim) / np.sqrt(dim), np.eye(dim)[0]
    for i in range(num):
        w = sample[:, i, :]
        for a in range(dim):
            add(f"E[w_{i}{a}], {num} rows", w[:, a], 0.0)
            for b in range(a, dim):
                add(f"E[w_{i}{a} w_{i}{b}], {num} rows", w[:, a] * w[:, b], float(a == b))
        add(f"E|w_{i}|², {num} rows", np.sum(w * w, axis=1), float(dim))
        for label, v in (("+axis", 0.6 * axis), ("-axis", -0.6 * axis), ("oblique", 0.6 * flat)):
            expected = float(law.row_mean(v @ v) * np.exp(v @ v / 2))
            add(f"E[exp(v·w_{i})] {label}, {num} rows", np.exp(w @ v), expected)
    return checks


def pair_checks(coupling: Coupling, sample: np.ndarray, limit: float) -> list[Check]:
    """Variances over draws of averages over rows, against own law plus counted pair laws."""
    num, dim = sample.shape[1:]
    own, laws = coupling.row_law(dim), coupling.pair_laws(num, dim)
    total = num + sum(count for count, _ in laws)
    assert total <= num * num, (
        f"{coupling!r}: {total - num} dependent ordered pairs of {num} rows, at most {num * (num - 1)}"
    )
    checks = []
    v = 0.6 * np.ones(dim) / np.sqrt(dim)
    s, t = float(v @ v), float(4 * v @ v)
    projections = sample @ v
    functions: list[tuple[str, np.ndarray, Callable[[PairLaw], float]]] = [
        ("exp(v·w)", np.exp(projections), lambda law: float(law.covariance(s)) * np.exp(s)),
        ("cosh(v·w)", np.cosh(projections), lambda law: float(law.even_covariance(s)) * np.exp(s)),
        ("cos(2v·w)", np.cos(2 * projections), lambda law: float(law.even_covariance(-t)) * np.exp(-t)),
        ("|w|²", np.sum(sample**2, axis=-1), lambda law: law.sqnorm_covariance(dim)),
    ]
    for name, values, covariance in functions:
        expected = (num * covariance(own) + sum(count * covariance(law) for count, law in laws)) / num**2
        squared = (values.mean(axis=1) - values.mean()) ** 2
        if expected < ROUNDING:
            assert squared.mean() < ROUNDING, f"{coupling!r}: mean of {name} over {num} rows should not vary"
            continue
        scale = squared.std(ddof=1) / np.sqrt(len(squared))
        z = float((squared.mean() - expected) / scale)
        checks.append(Check(f"Var of mean {name}, {num} rows", z, float((limit + POWER_Z) * scale / expected)))
    return checks


# the rest of the contract ----------------------------------------------------------------------------------------


def check_documentation(estimator: Estimator) -> None:
    """A page states its shapes, what is exact, its error and its source."""
    page = type(estimator).__doc__ or ""
    missing = [word for word in ("Shapes:", "Exact", "Error", "Source") if word not in page]
    assert not missing, f"the docstring of {type(estimator).__name__} does not state {', '.join(missing)}"


def check_features(estimator: Estimator, dim: int, width: int) -> None:
    """Shapes, dtypes, seeds, sign, and that every way to the estimate is the same number."""
    x, y = np.random.default_rng(0).standard_normal((2, 3, 5, dim)) / 4
    phi, again, other = (estimator.draw(dim, width, rng=seed) for seed in (0, 0, 1))
    queries, keys = phi.queries(x), phi.keys(y)
    values, scale = queries.values, queries.log_scale
    subject = f"{estimator!r} with {width} features"
    assert values.shape == (3, 5, width), f"{subject}: values have shape {values.shape}, expected (3, 5, {width})"
    assert scale.shape in ((3, 5, 1), (3, 5, width)), f"{subject}: log_scale has shape {scale.shape}"
    assert np.array_equal(queries.to_array(), again.queries(x).to_array()), f"{subject}: one seed, two maps"
    assert not np.array_equal(queries.to_array(), other.queries(x).to_array()), f"{subject}: two seeds, one map"
    if estimator.positive:
        assert np.all(values > 0), f"{subject}: declared positive, but a value is not"
    gram = phi.estimate(x, y)
    plain = queries.to_array() @ np.swapaxes(keys.to_array(), -1, -2)
    size = np.sum(np.abs(queries.to_array()[..., :, None, :] * keys.to_array()[..., None, :, :]), axis=-1)
    assert np.all(np.abs(gram - plain) <= ROUNDING * size), f"{subject}: estimate is not φ(x)·φ(y)"
    diagonal = np.diagonal(gram, axis1=-2, axis2=-1)
    pairwise = phi.estimate_pairwise(x, y)
    size = np.diagonal(size, axis1=-2, axis2=-1)
    assert np.all(np.abs(pairwise - diagonal) <= ROUNDING * size), f"{subject}: estimate_pairwise differs from estimate"
    for dtype in (np.float16, np.float32, np.float64):
        output = phi.estimate(x.astype(dtype), y.astype(dtype))
        assert output.dtype == dtype, f"{subject}: {np.dtype(dtype)} in, {output.dtype} out"


def check_namespace(estimator: Estimator, dim: int, width: int, xp: Any) -> None:
    """The same seed gives the same features in another array library, to the rounding of one projection and one exp."""
    x = np.random.default_rng(0).standard_normal((5, dim)) / 4
    for dtype in ("float32", "float64"):
        there = xp.asarray(x.astype(dtype))
        here = cast(x, np.dtype(dtype))
        if dtype_name(there.dtype) != dtype:  # a library without this dtype, such as JAX in its default mode
            continue
        ours = estimator.draw(dim, width, rng=0, like=here).keys(here)
        theirs = estimator.draw(dim, width, rng=0, like=there).keys(there)
        assert type(theirs.values) is type(there), f"{xp.__name__} in, {type(theirs.values).__name__} out"
        for name in ("values", "log_scale"):
            a, b = as_host(getattr(ours, name), name), as_host(getattr(theirs, name), name)
            tolerance = 4 * np.finfo(dtype).eps * np.maximum(1.0, np.abs(a))
            assert np.all(np.abs(a - b) <= tolerance), (
                f"{estimator!r}: {name} differs on {xp.__name__} by more than 4 ulp"
            )


def possible_rows(coupling: Any, dim: int, num_rows: Iterable[int] | None) -> list[int]:
    """The numbers of rows to check, moved to the nearest that the coupling can have."""
    wanted = (1, dim - 1, dim, dim + 2, 2 * dim) if num_rows is None else num_rows
    return sorted({coupling.nearest_num_rows(num)[-1] for num in wanted if num > 0})


def bonferroni(false_alarm: float, num_checks: int) -> float:
    """The |z| that `num_checks` standard normal z-scores together exceed with probability `false_alarm` at most."""
    from scipy.special import ndtri

    return float(-ndtri(false_alarm / (2 * num_checks)))


def conclude(subject: str, checks: list[Check], limit: float, notes: list[str]) -> Report:
    """The report, or an AssertionError that lists what failed."""
    report = Report(subject, tuple(checks), limit, tuple(dict.fromkeys(notes)))
    failed = [check for check in checks if not abs(check.z) < limit]
    if failed:
        listing = "\n".join(f"  {check.name}: z = {check.z:+.1f}" for check in failed)
        raise AssertionError(f"{subject}: {len(failed)} of {len(checks)} checks beyond |z| = {limit:.2f}\n{listing}")
    return report
