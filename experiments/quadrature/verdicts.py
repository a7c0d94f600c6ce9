"""What the numbers of quadrature say."""

import math

import numpy as np

from experiments.agreement import agreement, bonferroni, relative_sizes
from experiments.experiment import Record, Summary, Tables, Verdict, reported
from experiments.quadrature.measure import KERNELS, QuadratureSettings

FALSE_ALARM = 1e-3
SIGNIFICANT = 3.0


def curve(rows: list[Record], **wanted: str) -> dict[str, np.ndarray]:
    """The rows with these values as columns."""
    chosen = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return {name: np.array([row[name] for row in chosen]) for name in chosen[0]} if chosen else {}


def verdicts(tables: Tables, settings: QuadratureSettings) -> list[Verdict]:
    return [
        closed_forms(tables, settings),
        *(gain(tables, kernel) for kernel in KERNELS),
        random_radius(tables),
        redrawn(tables),
        *(convergence(tables, settings, dataset) for dataset in settings.ridge_datasets),
    ]


def closed_forms(tables: Tables, settings: QuadratureSettings) -> Verdict:
    """Measured against predicted errors; Student's t, for the standard errors are measured too."""
    rows = [row for row in tables["errors"] if not np.isnan(row["expected"])]
    limit = bonferroni(FALSE_ALARM, len(rows), settings.num_draws)
    place = "{dataset}, {kernel}, {method}"
    largest, holds = agreement(rows, limit, lambda row: place.format(**row), "squared_error")
    return Verdict(
        claim="squared Frobenius errors are the sums of the closed forms, wherever these are known",
        expected=f"|t| below {limit:.2f} (false alarm {FALSE_ALARM})",
        measured=f"{len(rows)} points, {largest}; {relative_sizes(rows)}",
        holds=holds,
    )


def gain(tables: Tables, kernel: str) -> Verdict:
    """The spherical-radial rule against independent rows: unbiased for arc-cosine kernels only."""
    ratios, errors = {}, {}
    for dataset in dict.fromkeys(row["dataset"] for row in tables["errors"]):
        rule, base = (
            curve(tables["errors"], dataset=dataset, kernel=kernel, method=method)
            for method in ("spherical-radial", "independent")
        )
        ratios[dataset] = rule["squared_error"] / base["expected"]
        errors[dataset] = rule["standard_error"] / base["expected"]
    below = all(np.all(ratios[name] + SIGNIFICANT * errors[name] < 1) for name in ratios)
    listing = ", ".join(f"{name} {ratio[0]:.2f} .. {ratio[-1]:.2f}" for name, ratio in ratios.items())
    claimed = kernel != "gaussian"
    return Verdict(
        claim=f"{kernel}: squared error of the spherical-radial rule over that of independent rows, equal width",
        expected=f"below 1 by {SIGNIFICANT:g} standard errors, for every data set and m"
        if claimed
        else "reported: the rule is biased for the Gaussian kernel, and a bias does not fall with m",
        measured=f"from the least to the largest m: {listing}",
        holds=bool(below) if claimed else None,
    )


def random_radius(tables: Tables) -> Verdict:
    """The degree (3, 3) rule against orthogonal rows, by closed forms: which of them wins is up to the data."""
    listing = []
    for dataset in dict.fromkeys(row["dataset"] for row in tables["errors"]):
        rule, base = (
            curve(tables["errors"], dataset=dataset, kernel="gaussian", method=method)
            for method in ("random radius", "orthogonal")
        )
        ratio = (rule["expected"] * rule["num_rows"]) / (base["expected"] * base["num_rows"])
        listing.append(f"{dataset} {ratio.mean():.2f}")
    return reported(
        "gaussian: m times the squared error of the rule with a random radius, over that of orthogonal rows",
        ", ".join(listing),
        expected="reported: the same at every m, and below 1 for close points only",
    )


def redrawn(tables: Tables) -> Verdict:
    """Lengths redrawn for the sake of a weight that has a square root make a bias, which does not fall with m."""
    lines, worse = [], []
    for dataset in dict.fromkeys(row["dataset"] for row in tables["errors"]):
        real, free = (
            curve(tables["errors"], dataset=dataset, kernel="gaussian", method=method)
            for method in ("random radius, real", "random radius")
        )
        ratio = real["squared_error"][-1] / free["expected"][-1]
        worse.append(ratio - SIGNIFICANT * real["standard_error"][-1] / free["expected"][-1])
        lines.append(f"{dataset} {ratio:.1f}")
    return Verdict(
        claim="gaussian: redrawing lengths until the weight at 0 is not negative costs more than it gives, at the "
        "largest m",
        expected=f"squared error above that of the rule itself by {SIGNIFICANT:g} standard errors, on every data set",
        measured=f"ratio: {', '.join(lines)}",
        holds=bool(min(worse) > 1),
    )


def convergence(tables: Tables, settings: QuadratureSettings, dataset: str) -> Verdict:
    """Orthogonal rows are no worse than independent ones; Student's t with the freedom of both means."""
    from scipy.stats import t as student

    base, better = (
        curve(tables["scores"], dataset=dataset, kernel="gaussian", method=method)
        for method in ("independent", "orthogonal")
    )
    error = np.hypot(base["standard_error"], better["standard_error"])
    gaps = better["score"] - base["score"]
    worst = float(np.min(gaps / error))
    limit = float(student.isf(FALSE_ALARM / len(gaps), 2 * (settings.ridge_draws - 1)))
    return Verdict(
        claim=f"ridge regression on {dataset}: orthogonal rows score no worse than independent ones, Gaussian kernel",
        expected=f"nowhere lower by {limit:.1f} standard errors of the difference (false alarm {FALSE_ALARM})",
        measured=f"differences {', '.join(f'{gap:+.4f}' for gap in gaps)} at widths "
        f"{', '.join(map(str, settings.ridge_widths))}; scores {base['score'][0]:.3f} .. {base['score'][-1]:.3f}, "
        f"exact kernel {base['exact'][0]:.3f}",
        holds=bool(worst > -limit),
    )


def summaries(tables: Tables, settings: QuadratureSettings) -> list[Summary]:
    keys = dict.fromkeys((row["dataset"], row["kernel"], row["method"]) for row in tables["errors"])
    rows = []
    for dataset, kernel, method in keys:
        own = curve(tables["errors"], dataset=dataset, kernel=kernel, method=method)
        found = (f"{m}: {math.sqrt(e):.3f}" for m, e in zip(own["num_rows"], own["squared_error"], strict=True))
        rows.append((f"{dataset}, {kernel}, {method}", "  ".join(found)))
    scores = []
    for dataset, kernel, method in dict.fromkeys((r["dataset"], r["kernel"], r["method"]) for r in tables["scores"]):
        own = curve(tables["scores"], dataset=dataset, kernel=kernel, method=method)
        scores.append(
            (f"{dataset}, {kernel}, {method}", *(f"{value:.4f}" for value in own["score"]), f"{own['exact'][0]:.4f}")
        )
    return [
        Summary("relative Frobenius error (root mean square) by rows", ("", "m: error"), tuple(rows)),
        Summary("ridge regression", ("score", *map(str, settings.ridge_widths), "exact kernel"), tuple(scores)),
    ]
