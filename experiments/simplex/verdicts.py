"""What the numbers of simplex say."""

import itertools
import math
import statistics
from collections.abc import Iterator

import numpy as np

from experiments.agreement import agreement, bonferroni, relative_sizes
from experiments.experiment import Record, Summary, Tables, Verdict
from experiments.simplex.measure import BANDWIDTHS, CHAIN, PRINTED, PRINTED_COUPLINGS, SimplexSettings
from experiments.tables import select

FALSE_ALARM = 1e-3
Z_LIMIT = 4.5
"""One-sided, over at most 32 points: false alarm 1.1e-4."""


def verdicts(tables: Tables, settings: SimplexSettings) -> list[Verdict]:
    return [digits(tables), closed_forms(tables), *orderings(tables, settings), *classifications(tables)]


def digits(tables: Tables) -> Verdict:
    """Half a unit of the third digit, and rounding."""
    worst = max(tables["table"], key=lambda row: abs(row["computed"] - row["printed"]))
    off = abs(worst["computed"] - worst["printed"])
    return Verdict(
        claim="closed forms reproduce the table of ratios to independent rows",
        expected="three digits: 0.0005 at most",
        measured=f"{len(tables['table'])} values, largest deviation {off:.5f}: {worst['estimator']} "
        f"{worst['coupling']} at d = {worst['dim']}, {worst['distance']:g}",
        holds=bool(off <= 0.0005 + 1e-9),
    )


def closed_forms(tables: Tables) -> Verdict:
    known = [row for row in tables["errors"] if not np.isnan(row["expected"])]
    limit = bonferroni(FALSE_ALARM, len(known))
    place = "{coupling}, u = {distance:g}, m = {num_rows}"
    largest, holds = agreement(known, limit, lambda row: place.format(**row), "ratio")
    return Verdict(
        claim="measured errors under orthogonal and simplex rows are their closed forms",
        expected=f"|z| below {limit:.2f} (false alarm {FALSE_ALARM})",
        measured=f"{len(known)} points, {largest}; {relative_sizes(known)}",
        holds=holds,
    )


def orderings(tables: Tables, settings: SimplexSettings) -> list[Verdict]:
    """SimRF+ below simplex below orthogonal below independent, and the reverse for trigonometric features."""
    values = {(row["coupling"], row["distance"], row["num_rows"]): row for row in tables["errors"]}
    places = [(distance, rows) for distance in settings.distances for rows in settings.num_rows]
    closed = [[values[name, *place]["expected"] for place in places] for name in ("simplex", "orthogonal")]
    plus = [values["simplex-plus", *place] for place in places]
    excess = [(p["ratio"] - s) / max(p["standard_error"], 1e-12) for p, s in zip(plus, closed[0], strict=True)]
    best, error = min((p["ratio"] / s, p["standard_error"] / s) for p, s in zip(plus, closed[0], strict=True))
    trig = [
        (row["dim"], row["distance"], row["computed"])
        for name in ("orthogonal", "simplex")
        for row in tables["table"]
        if (row["estimator"], row["coupling"]) == ("trig", name)
    ]
    half = len(trig) // 2
    return [
        Verdict(
            claim="positive features: simplex below orthogonal below independent rows, at every |x + y|² and m",
            expected="closed forms strictly ordered",
            measured=f"simplex/orthogonal {min(s / o for s, o in zip(*closed, strict=True)):.3f} .. "
            f"{max(s / o for s, o in zip(*closed, strict=True)):.3f}, orthogonal {min(closed[1]):.3f} .. "
            f"{max(closed[1]):.3f} of independent",
            holds=bool(all(s < o < 1 for s, o in zip(*closed, strict=True))),
        ),
        Verdict(
            claim="SimRF+ is nowhere worse than simplex rows",
            expected=f"nowhere above by {Z_LIMIT:g} standard errors",
            measured=f"largest excess {max(excess):.2f} standard errors; least ratio to simplex {best:.3f} ± "
            f"{error:.3f}",
            holds=bool(max(excess) < Z_LIMIT),
        ),
        Verdict(
            claim="trigonometric features: simplex rows are worse than orthogonal ones",
            expected="closed forms, at every entry of the table",
            measured="ratio "
            + " .. ".join(
                f"{extreme(s[2] / o[2] for o, s in zip(trig[:half], trig[half:], strict=True)):.3f}"
                for extreme in (min, max)
            ),
            holds=bool(all(s[2] > o[2] for o, s in zip(trig[:half], trig[half:], strict=True))),
        ),
    ]


def classifications(tables: Tables) -> Iterator[Verdict]:
    """Each coupling against the one before it, in the mean over data sets and numbers of rows.

    Draws of different places are independent, so that squared standard errors add up.
    """
    limit = bonferroni(FALSE_ALARM, len(BANDWIDTHS) * (len(CHAIN) - 1))
    for bandwidth in BANDWIDTHS:
        for worse, better in itertools.pairwise(CHAIN):
            rows = select(tables["accuracies"], bandwidth=bandwidth, coupling=better)
            gain = statistics.mean(row["gain"] for row in rows)
            error = math.sqrt(sum(row["gain_error"] ** 2 for row in rows)) / len(rows)
            sums = [row["median_sum"] for row in rows]
            place = f"{len(rows)} places, median |x + y|² {min(sums):.3g} .. {max(sums):.3g}"
            best = max(rows, key=lambda row: row["gain"])
            yield Verdict(
                claim=f"{better} rows classify better than {worse} ones, {bandwidth} bandwidth",
                expected=f"the mean difference is beyond {limit:.1f} standard errors (false alarm {FALSE_ALARM}); "
                "within them: undecided, reported",
                measured=f"{100 * gain:+.2f} ± {100 * error:.2f} percentage points over {place}; "
                f"largest {100 * best['gain']:+.1f} ± {100 * best['gain_error']:.1f}: {best['dataset']}, "
                f"m = {best['num_rows']}",
                holds=bool(gain > 0) if abs(gain) > limit * error else None,
            )


def summaries(tables: Tables, settings: SimplexSettings) -> list[Summary]:
    table = {(r["dim"], r["distance"], r["estimator"], r["coupling"]): r["computed"] for r in tables["table"]}
    names = [("positive", name) for name in PRINTED_COUPLINGS] + [("trig", "orthogonal"), ("trig", "simplex")]
    rows = tuple(
        (str(dim), f"{distance:g}", *(f"{table[dim, distance, *name]:.3f}" for name in names))
        for dim, distance in PRINTED
    )
    header = ("d", "u or t", *(name if kind == "positive" else f"trig {name}" for kind, name in names))
    found = {(r["coupling"], r["distance"], r["num_rows"]): r["ratio"] for r in tables["errors"]}
    couplings = ("orthogonal", "simplex", "simplex-plus")
    measured = tuple(
        (f"{distance:g}", str(m), *(f"{found[name, distance, m]:.3f}" for name in couplings))
        for distance in settings.distances
        for m in settings.num_rows
    )
    return [
        Summary("closed forms over those of independent rows, m = d", header, rows, (4, 8)),
        Summary(f"d = {settings.dim}, measured", ("u", "m", *couplings), measured),
        accuracy_table(tables),
    ]


def accuracy_table(tables: Tables) -> Summary:
    """One row for each data set, bandwidth and number of rows; differences to independent rows in percentage points."""
    places: dict[tuple, dict[str, Record]] = {}
    for row in tables["accuracies"]:
        places.setdefault((row["dataset"], row["bandwidth"], row["multiple"]), {})[row["coupling"]] = row
    rows = []
    for (dataset, bandwidth, multiple), found in places.items():
        first = found[CHAIN[0]]
        differences = (
            f"{100 * found[name]['over_independent']:+.1f}±{100 * found[name]['over_independent_error']:.1f}"
            for name in CHAIN[1:]
        )
        ratios = ", ".join(f"{found[name]['mse_ratio']:.3f}" for name in ("orthogonal", "simplex"))
        sizes = (f"{first['median_sum']:.3g}", f"{first['exact']:.3f}", f"{first['accuracy']:.3f}")
        rows.append((f"{dataset}, {bandwidth}, {multiple}", ratios, *sizes, *differences))
    header = ("data, bandwidth, m/d", "MSE", "u", "exact", *CHAIN)
    title = "accuracy; differences to independent rows in points; MSE of orthogonal and simplex ones at the median u"
    return Summary(title, header, tuple(rows))
