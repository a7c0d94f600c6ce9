"""Whether all measured numbers agree with their closed forms, as one statement about a run."""

from collections.abc import Callable, Sequence

import numpy as np

from experiments.tables import Record


def bonferroni(false_alarm: float, count: int, draws: int | None = None) -> float:
    """The limit of |z| in `count` two-sided tests that together raise a false alarm with this probability.

    draws : number of values that each standard error was estimated from; then the limit is Student's, else normal.
    """
    from scipy import stats

    tail = false_alarm / (2 * count)
    return float(stats.norm.isf(tail) if draws is None else stats.t.isf(tail, draws - 1))


def agreement(
    rows: Sequence[Record], limit: float, place: Callable[[Record], str], measured: str = "measured"
) -> tuple[str, bool]:
    """The largest distance from `expected` in standard errors and its place, in words; whether it is within the limit.

    measured : the column that is compared.
    """
    z = [abs(row[measured] - row["expected"]) / row["standard_error"] for row in rows]
    worst = int(np.argmax(z))
    return f"largest {z[worst]:.2f}: {place(rows[worst])}", bool(z[worst] < limit)


def relative_sizes(rows: Sequence[Record]) -> str:
    """The range of the standard errors, in words."""
    sizes = [row["standard_error"] / row["expected"] for row in rows]
    return f"standard errors {min(sizes):.1%} .. {max(sizes):.1%} of the value"
