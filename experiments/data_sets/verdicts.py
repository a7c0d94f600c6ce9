"""What the numbers of data_sets say."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from experiments.data_sets.settings import (
    CONTENDERS,
    EXACT,
    GCV,
    NYSTROEM,
    OURS,
    SAME_FEATURES,
    SAMPLER,
    DataSetsSettings,
)
from experiments.experiment import Record, Summary, Tables, Verdict, reported
from experiments.tables import columns, distinct, grouped, select

MOST_ERRORS = 1.0  # standard errors of a difference up to which we count as equally good
CLEAR = 2.0  # standard errors from which one contender wins
FEWEST_SPLITS = 10  # with fewer, standard errors are too uncertain to judge by


def verdicts(tables: Tables, settings: DataSetsSettings) -> list[Verdict]:
    found = []
    for other in (SAMPLER, GCV):
        for width in settings.widths:
            rows = select(tables["errors"], width=width)
            found += [nowhere_worse(rows, other, width), better_in_the_mean(rows, other, width)]
    if settings.num_splits < FEWEST_SPLITS:
        found = [replace(verdict, holds=None) for verdict in found]
    for width in settings.widths:
        rows = select(tables["errors"], width=width)
        found += [wins(rows, other, width) for other in (NYSTROEM, EXACT, SAME_FEATURES)]
    return found


def difference(rows: Sequence[Record], other: str) -> tuple[float, float]:
    """Mean error of a contender less ours, on the same splits of one table, and its standard error.

    Without a spread, as for errors that are equal in all splits, the standard error is 0.
    """
    theirs, ours = (columns(select(rows, contender=name), "error")[0] for name in (other, OURS))
    apart = theirs - ours
    return float(np.mean(apart)), float(np.std(apart, ddof=1) / math.sqrt(len(apart)))


def differences(rows: Sequence[Record], other: str) -> dict[str, tuple[float, float]]:
    return {name: difference(of_table, other) for name, of_table in grouped(rows, "dataset").items()}


def nowhere_worse(rows: Sequence[Record], other: str, width: int) -> Verdict:
    found = differences(rows, other)
    excess = {name: -mean - MOST_ERRORS * spread for name, (mean, spread) in found.items()}
    worse = [name for name, much in excess.items() if much > 0]
    worst = max(excess, key=lambda name: excess[name])
    mean, spread = found[worst]
    return Verdict(
        claim=f"{width} features: at least as good as {other}, on every table",
        expected=f"behind by at most {MOST_ERRORS:g} standard error of the difference",
        measured=f"behind by more on {len(worse)} of {len(found)} tables{': ' * bool(worse)}{', '.join(worse)}; "
        f"least favorable {worst}, {100 * -mean:+.2f} ± {100 * spread:.2f} points",
        holds=not worse,
    )


def better_in_the_mean(rows: Sequence[Record], other: str, width: int) -> Verdict:
    """The mean over tables of differences in percentage points; tables are fixed, splits are random."""
    found = list(differences(rows, other).values())
    mean = float(np.mean([each for each, _ in found]))
    spread = math.sqrt(sum(spread**2 for _, spread in found)) / len(found)
    ratios = [ratio(of_table, other) for of_table in grouped(rows, "dataset").values()]
    return Verdict(
        claim=f"{width} features: better than {other}, in the mean over all tables",
        expected="a smaller mean error",
        measured=f"{other} errs by {100 * mean:+.2f} ± {100 * spread:.2f} percentage points more; geometric mean of "
        f"the ratios of errors {math.exp(np.mean(np.log(ratios))):.3f}",
        holds=mean > 0,
    )


def ratio(rows: Sequence[Record], other: str) -> float:
    theirs, ours = (np.mean(columns(select(rows, contender=name), "error")[0]) for name in (other, OURS))
    return float(theirs / ours)


def wins(rows: Sequence[Record], other: str, width: int) -> Verdict:
    found = differences(rows, other)
    ahead = [name for name, (mean, spread) in found.items() if mean < -CLEAR * spread]
    behind = [name for name, (mean, spread) in found.items() if mean > CLEAR * spread]
    mean = float(np.mean([mean for mean, _ in found.values()]))
    return reported(
        f"{width} features: where {other} and randfeat differ by more than {CLEAR:g} standard errors",
        f"{other} is better on {len(ahead)} ({', '.join(ahead) or 'none'}), randfeat on {len(behind)} "
        f"({', '.join(behind) or 'none'}); mean difference {100 * mean:+.2f} percentage points",
    )


def summaries(tables: Tables, settings: DataSetsSettings) -> list[Summary]:
    return [summary(select(tables["errors"], width=width), width) for width in settings.widths]


def summary(rows: Sequence[Record], width: int) -> Summary:
    """One row for each table: our error, and the difference of all others from it."""
    lines = []
    for name, of_table in grouped(rows, "dataset").items():
        first = of_table[0]
        kind = "classes" if first["classes"] else "numbers"
        ours = np.mean(columns(select(of_table, contender=OURS), "error")[0])
        others = [difference(of_table, other) for other in CONTENDERS if other != OURS]
        about = f"{name}, {kind}", f"{first['rows']} × {first['columns']}", f"{100 * ours:.2f}"
        lines.append((*about, *(f"{100 * mean:+.2f} ± {100 * spread:.2f}" for mean, spread in others)))
    title = f"{width} features: error in percent, and the errors of others less ours on the same splits"
    header = ("table", "rows × columns", OURS, *(name for name in distinct(rows, "contender") if name != OURS))
    return Summary(title, header, tuple(lines))
