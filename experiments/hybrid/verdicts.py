"""What the numbers of hybrid say."""

import math
from collections.abc import Iterator

import numpy as np

from experiments.agreement import agreement, bonferroni
from experiments.experiment import Summary, Tables, Verdict, reported
from experiments.hybrid.measure import ANGLES, METHODS, NUM_SIGNS, PRINTED, HybridSettings

OTHERS = ("trig", "positive", "hyp+")
FALSE_ALARM = 1e-3


def significant(value: float) -> int:
    """Half a unit in the last of the printed digits, as a power of ten: 0.11 -> -2, 14.3 -> -1, 1600 -> 2, 266 -> 0."""
    if value >= 1000:
        return 2
    return -len(repr(value).rstrip("0").partition(".")[2])


def verdicts(tables: Tables, settings: HybridSettings) -> list[Verdict]:
    return [
        digits(tables),
        closed_forms(tables, settings),
        *best(tables, settings),
        *cluster_verdicts(tables, settings),
    ]


def digits(tables: Tables) -> Verdict:
    """Half a unit of the last printed digit, and rounding."""
    off = [(abs(r["computed"] - r["printed"]) / 10.0 ** significant(r["printed"]), r) for r in tables["table"]]
    worst, row = max(off, key=lambda item: item[0])
    return Verdict(
        claim="closed forms reproduce the table of relative errors times √m",
        expected="all digits: half a unit of the last one at most",
        measured=f"{len(off)} values, largest deviation {worst:.2f} units of the last digit: {row['estimator']} at "
        f"r = {row['length']:g}, {row['computed']:.4g} for {row['printed']:g}",
        holds=bool(worst <= 0.5 + 1e-9),
    )


def closed_forms(tables: Tables, settings: HybridSettings) -> Verdict:
    """All measured points of both parts against their closed forms."""
    points = [row for row in (*tables["angles"], *tables["clusters"]) if not np.isnan(row["measured"])]
    limit = bonferroni(FALSE_ALARM, len(points), min(settings.num_draws, settings.cluster_draws))
    largest, holds = agreement(points, limit, lambda row: row.get("estimator") or row["method"])
    return Verdict(
        claim="measured errors are their closed forms, wherever the tails allow a measurement",
        expected=f"all |t| below {limit:.2f} (false alarm {FALSE_ALARM})",
        measured=f"{len(points)} points, {largest}",
        holds=holds,
    )


def best(tables: Tables, settings: HybridSettings) -> Iterator[Verdict]:
    """At equal width the hybrid has the smallest largest error, and is the best estimator at no angle in between."""
    for length in settings.lengths:
        curves = {
            name: np.array([r["expected"] for r in tables["angles"] if (r["estimator"], r["length"]) == (name, length)])
            for name in PRINTED
        }
        top = {name: math.sqrt(curve.max()) for name, curve in curves.items()}
        inner = slice(1, -1)  # at 0 and π it is exact, as one of its bases is
        least = np.minimum.reduce([curves[name][inner] for name in OTHERS])
        wins = int(np.sum(curves["angular hybrid"][inner] < least))
        yield Verdict(
            claim=f"r = {length:g}, equal feature dimension: the hybrid is nowhere better than the others",
            expected="at no angle strictly between 0 and π (closed forms)",
            measured=f"at {wins} of {len(least)} angles",
            holds=wins == 0,
        )
        yield reported(
            f"r = {length:g}, equal feature dimension: largest relative error over all angles, hybrid with "
            f"{NUM_SIGNS} signs against the least of the others",
            f"{top['angular hybrid']:.3g} against {min(top[name] for name in OTHERS):.3g}",
            expected="reported: the gain is polynomial in r and divided by the width of the products",
        )


def cluster_verdicts(tables: Tables, settings: HybridSettings) -> Iterator[Verdict]:
    """Tight clusters: features for the centers win at equal width, though each block has a quarter of it."""
    width = max(settings.cluster_widths)
    for spread in settings.spreads:
        values = {
            r["method"]: r["expected"] for r in tables["clusters"] if (r["spread"], r["width"]) == (spread, width)
        }
        other = min(values[name] for name in METHODS[:-1])
        ratio = values["complex exponential"] / other
        tight = spread == min(settings.spreads)
        yield Verdict(
            claim=f"clusters of spread {spread:g}: error of features for the centers over the best of the others, "
            f"at equal feature dimension {width}",
            expected="below 1" if tight else "reported: the advantage ends where clusters overlap",
            measured=f"{ratio:.3g}",
            holds=bool(ratio < 1) if tight else None,
        )


def summaries(tables: Tables, settings: HybridSettings) -> list[Summary]:
    names = {ANGLES[0]: "π/8", ANGLES[1]: "π/2", ANGLES[2]: "7π/8"}
    values = {(r["estimator"], r["length"], r["angle"]): r["computed"] for r in tables["table"]}
    rows = tuple(
        (f"{length:g}", names[angle], *(f"{values[name, length, angle]:.3g}" for name in PRINTED))
        for length in PRINTED["trig"]
        for angle in ANGLES
    )
    found = {(r["method"], r["spread"], r["width"]): r["measured"] for r in tables["clusters"]}
    cluster_rows = tuple(
        (f"{spread:g}", str(width), *(f"{found[method, spread, width]:.2e}" for method in METHODS))
        for spread in settings.spreads
        for width in settings.cluster_widths
    )
    return [
        Summary("relative error times √m, closed forms", ("r", "angle", *PRINTED), rows, (3, 6, 9)),
        Summary("clusters: mean squared relative error, measured", ("spread", "width", *METHODS), cluster_rows),
    ]
