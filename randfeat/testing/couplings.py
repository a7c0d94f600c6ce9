"""check_coupling: marginals of every row, and joint laws of all pairs."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from randfeat._array import as_generator
from randfeat._hints import hinted
from randfeat.couplings import Coupling
from randfeat.couplings.base import resolve_coupling
from randfeat.couplings.laws import NoClosedForm, PairLaw
from randfeat.montecarlo.sampling import BATCH_BYTES
from randfeat.testing.report import POWER_Z, ROUNDING, Check, Report, bonferroni, conclude, possible_rows


@hinted
def check_coupling(
    coupling: Coupling | str,
    *,
    dim: int = 4,
    num_rows: Iterable[int] | None = None,
    rng: Any = 0,
    false_alarm: float = 1e-6,
    num_draws: int = 20_000,
) -> Report:
    """Check that rows have the distributions, and pairs of rows the joint laws, that a coupling states.

    Each row: mean 0, second moments I, squared norm d, and `E[exp(v·w)]` along axes of both signs and along an oblique
    direction. Each draw: the variance of the row averages of exp(v·w), cosh(v·w), cos(v·w) and |w|², against the
    variance that follows from the stated pair laws. The last of these detects rows whose norms should be independent
    but are not.

    Raises AssertionError with the names of the failed checks; returns the report otherwise.
    """
    coupling = resolve_coupling(coupling)
    rows = possible_rows(coupling, dim, num_rows)
    checks: list[Check] = []
    notes: list[str] = []
    limit = bonferroni(false_alarm, sum(num * (dim * (dim + 3) // 2 + 4) + 8 for num in rows))
    for num, generator in zip(rows, as_generator(rng).spawn(len(rows)), strict=True):
        size = max(1, BATCH_BYTES // (16 * max(num, dim) * dim))
        sizes = [size] * (num_draws // size) + [num_draws % size] * bool(num_draws % size)
        sample = np.concatenate([coupling.sample(num, dim, rng=generator, batch_shape=(n,)) for n in sizes])
        assert sample.shape == (num_draws, num, dim), (
            f"{coupling!r}: expected shape {(num, dim)}, got {sample.shape[1:]}"
        )
        assert sample.dtype == np.float64, f"{coupling!r}: rows are {sample.dtype}, expected float64"
        checks += row_checks(coupling, sample, limit, notes) + pair_checks(coupling, sample, limit, notes)
    return conclude(repr(coupling), checks, limit, notes)


def row_checks(coupling: Coupling, sample: np.ndarray, limit: float, notes: list[str]) -> list[Check]:
    """Marginal moments of every row; for a quadrature rule, moments of the weighted mean over its rows."""
    num, dim = sample.shape[1:]
    law: PairLaw | None = None
    try:
        law = coupling.row_law(dim, num)
    except NoClosedForm as reason:
        notes.append(f"E[exp(v·w)] not checked: {reason}")
    checks = []
    weights = coupling.weights(num, dim)

    def add(name: str, values: np.ndarray, expected: float) -> None:
        """Append the z-scores of `values` against `expected`, with sample standard errors (these have light tails)."""
        scale = values.std(ddof=1) / np.sqrt(len(values))
        deviation = values.mean() - expected
        if scale < ROUNDING * max(1.0, abs(expected)):
            assert abs(deviation) < ROUNDING * max(1.0, abs(expected)), f"{coupling!r}, {name}: off by {deviation}"
            return
        checks.append(Check(name, float(deviation / scale), float((limit + POWER_Z) * scale / max(abs(expected), 1.0))))

    groups = [(f"w_{i}", sample[:, i : i + 1, :], np.ones(1)) for i in range(num)]
    if weights is not None:
        groups = [("weighted w", sample, weights)]
    flat, axis = np.ones(dim) / np.sqrt(dim), np.eye(dim)[0]
    for row, w, weight in groups:
        for a in range(dim):
            add(f"E[{row}_{a}], {num} rows", w[..., a] @ weight, 0.0)
            for b in range(a, dim):
                expected = law.second_moment(dim) * float(a == b) if law else float(a == b)
                add(f"E[{row}_{a} {row}_{b}], {num} rows", (w[..., a] * w[..., b]) @ weight, expected)
        expected = dim * law.second_moment(dim) if law else float(dim)
        add(f"E|{row}|², {num} rows", np.sum(w * w, axis=-1) @ weight, expected)
        for label, v in (("+axis", 0.6 * axis), ("-axis", -0.6 * axis), ("oblique", 0.6 * flat)):
            if law is not None:
                expected = float(law.row_mean(v @ v) * np.exp(v @ v / 2))
                add(f"E[exp(v·{row})] {label}, {num} rows", np.exp(w @ v) @ weight, expected)
    return checks


def pair_checks(coupling: Coupling, sample: np.ndarray, limit: float, notes: list[str]) -> list[Check]:
    """Variances over draws of (weighted) averages over rows, against the closed forms from row and pair laws."""
    num, dim = sample.shape[1:]
    try:
        laws = coupling.own_laws(num, dim) + coupling.pair_laws(num, dim)
    except NoClosedForm as reason:
        notes.append(f"joint laws not checked: {reason}")
        return []
    total = sum(count for count, _ in laws)
    assert total <= num * num * (1 + ROUNDING), (
        f"{coupling!r}: {total - num} dependent ordered pairs of {num} rows, at most {num * (num - 1)}"
    )
    checks = []
    given = coupling.weights(num, dim)
    weights = np.full(num, 1 / num) if given is None else given
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
        expected = sum(count * covariance(law) for count, law in laws) / num**2
        means = values @ weights
        squared = (means - means.mean()) ** 2
        if expected < ROUNDING:
            assert squared.mean() < ROUNDING, f"{coupling!r}: mean of {name} over {num} rows should not vary"
            continue
        scale = squared.std(ddof=1) / np.sqrt(len(squared))
        z = float((squared.mean() - expected) / scale)
        checks.append(Check(f"Var of mean {name}, {num} rows", z, float((limit + POWER_Z) * scale / expected)))
    return checks
