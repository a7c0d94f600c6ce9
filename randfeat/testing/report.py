"""Reports of statistical checks, and how their limits are set."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

POWER_Z = 3.0902  # normal quantile of 0.999
ROUNDING = 256 * np.finfo(np.float64).eps  # of sums over at most a few hundred terms


@dataclass(frozen=True)
class Check:
    """One statistical check: its z-score, and the relative deviation it would catch with probability 0.999."""

    name: str
    z: float
    detectable: float


@dataclass(frozen=True)
class Report:
    """All statistical checks of one estimator or coupling, all passed: a failure raises AssertionError instead."""

    subject: str
    checks: tuple[Check, ...]
    limit: float
    notes: tuple[str, ...] = ()

    @property
    def z_scores(self) -> np.ndarray:
        """z-scores of all checks: standard normal if the estimator or coupling is correct."""
        return np.array([check.z for check in self.checks])

    @property
    def worst(self) -> float:
        """Largest absolute z-score of all checks."""
        return float(np.max(np.abs(self.z_scores), initial=0.0))

    def __str__(self) -> str:
        head = f"{self.subject}: {len(self.checks)} checks, worst |z| = {self.worst:.2f}, limit {self.limit:.2f}"
        lines = [f"  {c.name}: z = {c.z:+.2f}, would catch {c.detectable:.2%}" for c in self.checks]
        return "\n".join([head, *lines, *(f"  note: {note}" for note in self.notes)])


def possible_rows(coupling: Any, dim: int, num_rows: Iterable[int] | None) -> list[int]:
    """Numbers of rows to check at, each moved to the nearest number that the coupling can have."""
    requested = (1, dim - 1, dim, dim + 2, 2 * dim) if num_rows is None else num_rows
    possible = sorted({coupling.nearest_num_rows(num, dim)[-1] for num in requested if num > 0})
    for num in possible:
        check_can_draw(coupling, num, dim)
    return possible


def check_can_draw(coupling: Any, num_rows: int, dim: int) -> None:
    """Raise an AssertionError unless `sample` gives as many rows as `nearest_num_rows` promises."""
    wish = f"{num_rows} rows of dimension {dim}"
    promised = f"{coupling!r}: expected {wish}, which nearest_num_rows says are possible, but sample"
    advice = "Override nearest_num_rows, if only some numbers of rows are possible."
    try:
        shape = np.shape(coupling.sample(num_rows, dim, rng=0))
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise AssertionError(f"{promised} raised {reason}. {advice}") from error
    assert shape == (num_rows, dim), f"{promised} gave the shape {shape}. {advice}"


def bonferroni(false_alarm: float, num_checks: int) -> float:
    """Limit of |z| that one of `num_checks` standard normal z-scores exceeds with probability `false_alarm` at most."""
    from scipy.special import ndtri

    return float(-ndtri(false_alarm / (2 * num_checks)))


def conclude(subject: str, checks: list[Check], limit: float, notes: list[str]) -> Report:
    """Return the report, or raise an AssertionError that lists the failed checks."""
    report = Report(subject, tuple(checks), limit, tuple(dict.fromkeys(notes)))
    failed = [check for check in checks if not abs(check.z) < limit]
    if failed:
        listing = "\n".join(f"  {check.name}: z = {check.z:+.1f}" for check in failed)
        raise AssertionError(f"{subject}: {len(failed)} of {len(checks)} checks beyond |z| = {limit:.2f}\n{listing}")
    return report
