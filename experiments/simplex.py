"""simplex: what rows that repel each other gain for positive features, and that trigonometric ones lose by it.

`table`: mean squared error over that of independent rows at equal numbers of rows m = d, closed forms, for every
coupling that has one; antithetic couplings have m/2 pairs. `errors`: the same ratio for m = d/4 .. 4 d at d = 64, with
SimRF+, which has no closed form: measured by Monte Carlo up to |x + y|² = 1, and beyond, where its tails would deceive,
by the Gram formula `montecarlo.gram_variance`, which takes the mean over rotations exactly.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.experiment import Cell, Experiment, Settings
from experiments.results import Record, Results, Summary, Tables, Verdict

__all__ = ["EXPERIMENT"]

COUPLINGS: dict[str, rf.Coupling] = {
    "independent": rf.Independent(),
    "orthogonal": rf.Orthogonal(),
    "simplex": rf.Simplex(),
    "centered": rf.CenteredGaussian(),
    "antithetic": rf.Antithetic(),
    "antithetic-orthogonal": rf.Antithetic(rf.Orthogonal()),
    "simplex-plus": rf.SimplexPlus(),
}
PRINTED_COUPLINGS = ("orthogonal", "simplex", "centered", "antithetic", "antithetic-orthogonal")
PRINTED: dict[tuple[int, float], tuple[float, ...]] = {
    (4, 0.5): (0.915, 0.330, 0.290, 0.393, 0.337, 0.445, 0.691),
    (4, 1.0): (0.887, 0.510, 0.505, 0.632, 0.557, 0.409, 0.668),
    (4, 2.0): (0.905, 0.761, 0.772, 0.865, 0.801, 0.406, 0.652),
    (4, 4.0): (0.972, 0.956, 0.959, 0.982, 0.963, 0.605, 0.720),
    (16, 0.5): (0.847, 0.135, 0.242, 0.393, 0.251, 0.143, 0.204),
    (16, 1.0): (0.782, 0.274, 0.437, 0.632, 0.428, 0.158, 0.217),
    (16, 2.0): (0.791, 0.552, 0.707, 0.865, 0.669, 0.284, 0.333),
    (16, 4.0): (0.922, 0.882, 0.934, 0.982, 0.909, 0.671, 0.690),
    (64, 0.5): (0.819, 0.064, 0.232, 0.393, 0.215, 0.052, 0.067),
    (64, 1.0): (0.731, 0.170, 0.423, 0.632, 0.367, 0.098, 0.112),
    (64, 2.0): (0.722, 0.432, 0.692, 0.865, 0.591, 0.276, 0.288),
    (64, 4.0): (0.879, 0.818, 0.928, 0.982, 0.862, 0.691, 0.695),
}
"""(d, u) -> positive features under `PRINTED_COUPLINGS` at |x + y|² = u, then trigonometric ones with orthogonal and
simplex rows at |x - y|² = u; worked out to three digits."""

FALSE_ALARM = 1e-3
NUM_AXES = 32
LIGHT = 1.0  # largest |x + y|² for plain Monte Carlo


@dataclass(frozen=True)
class SimplexSettings(Settings):
    """Sizes: dimension, |x + y|², numbers of rows, draws for Monte Carlo (small |x + y|²) and for the Gram formula."""

    dim: int = 64
    distances: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    num_rows: tuple[int, ...] = (16, 32, 48, 64, 96, 128, 256)
    num_draws: int = 1500
    gram_draws: int = 400


def ratio(estimator: rf.SoftmaxEstimator, dim: int, distance: float, num_rows: int) -> float:
    """Closed-form variance over that of independent rows at equal numbers of rows, at |x + y|² or |x - y|²."""
    x, y = pair(dim, distance, opposite=isinstance(estimator, rf.TrigonometricFeatures))
    width = estimator.num_features(num_rows, dim)
    independent = estimator.with_coupling("independent")
    values = [float(e.relative_variance(x, y, num_features=width)) for e in (estimator, independent)]
    return values[0] / values[1]


def pair(dim: int, distance: float, *, opposite: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Vectors with |x + y|² (with `opposite`, |x - y|²) of this size; the rest does not matter to the ratio."""
    x = math.sqrt(distance) / 2 * np.eye(dim)[0]
    return x, (-x if opposite else x)


@dataclass(frozen=True)
class TableCell:
    """The closed forms at m = d."""

    dim: int

    @property
    def key(self) -> str:
        """Name of the cell."""
        return f"table {self.dim}"

    def measure(self, settings: SimplexSettings) -> Tables:
        """Rows of `table`."""
        rows: list[Record] = []
        for (dim, distance), digits in PRINTED.items():
            if dim != self.dim:
                continue
            names = [("positive", name) for name in PRINTED_COUPLINGS] + [("trig", "orthogonal"), ("trig", "simplex")]
            for (kind, name), printed in zip(names, digits, strict=True):
                cls: Any = rf.PositiveFeatures if kind == "positive" else rf.TrigonometricFeatures
                value = ratio(cls(coupling=COUPLINGS[name]), dim, distance, dim)
                row: Record = {"dim": dim, "distance": distance, "estimator": kind, "coupling": name}
                rows.append(row | {"printed": printed, "computed": value})
        return {"table": rows}


@dataclass(frozen=True)
class ErrorCell:
    """One coupling at every distance and number of rows: positive features."""

    coupling: str

    @property
    def key(self) -> str:
        """Name of the cell."""
        return f"errors {self.coupling}"

    def measure(self, settings: SimplexSettings) -> Tables:
        """Rows of `errors`: closed form (NaN for SimRF+) and measurement, relative to independent rows."""
        estimator = rf.PositiveFeatures(coupling=COUPLINGS[self.coupling])
        rows: list[Record] = []
        for num_rows in settings.num_rows:
            for by_gram in (False, True):
                distances = [u for u in settings.distances if (u > LIGHT) == by_gram]
                if not distances:
                    continue
                sizes: Record = {"num_features": num_rows, "rng": settings.rng(self.key, num_rows, by_gram)}
                if by_gram:
                    x, y = (np.stack([pair(settings.dim, u)[side] for u in distances]) for side in (0, 1))
                    found = rf.montecarlo.gram_variance(estimator, x, y, num_draws=settings.gram_draws, **sizes)
                else:  # for rotated rows all axes are alike: many are measured in each draw
                    axes = np.eye(settings.dim)[:NUM_AXES]
                    x = np.sqrt(distances)[:, None, None] / 2 * axes
                    sample = rf.montecarlo.sample_errors(estimator, x, x, num_draws=settings.num_draws, **sizes)
                    found = rf.montecarlo.ErrorSample(np.sqrt(np.mean(sample.errors**2, axis=-1))).mse()
                base = np.expm1(distances) / num_rows
                for index, distance in enumerate(distances):
                    closed = self.coupling != "simplex-plus"
                    row: Record = {"coupling": self.coupling, "distance": distance, "num_rows": num_rows}
                    row |= {"expected": ratio(estimator, settings.dim, distance, num_rows) if closed else np.nan}
                    row |= {"ratio": float(found.value[index] / base[index])}
                    rows.append(row | {"standard_error": float(found.standard_error[index] / base[index])})
        return {"errors": rows}


def cells(settings: SimplexSettings) -> list[Cell]:
    """Tables, and one cell for each coupling."""
    measured = ("orthogonal", "simplex", "simplex-plus")
    dims = sorted({dim for dim, _ in PRINTED})
    return [*(TableCell(dim) for dim in dims), *(ErrorCell(name) for name in measured)]


def verdicts(tables: Tables, settings: SimplexSettings) -> list[Verdict]:
    """Printed digits, agreement of measurements, and the ordering."""
    return [digits(tables), agreement(tables), *orderings(tables, settings)]


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


def agreement(tables: Tables) -> Verdict:
    """Measurements against closed forms."""
    from randfeat.testing.report import bonferroni

    known = [row for row in tables["errors"] if not np.isnan(row["expected"])]
    z = [(row["ratio"] - row["expected"]) / row["standard_error"] for row in known]
    worst, limit = int(np.argmax(np.abs(z))), bonferroni(FALSE_ALARM, len(known))
    sizes = [row["standard_error"] / row["expected"] for row in known]
    return Verdict(
        claim="measured errors under orthogonal and simplex rows are their closed forms",
        expected=f"|z| below {limit:.2f} (false alarm {FALSE_ALARM})",
        measured=f"{len(known)} points, largest {abs(z[worst]):.2f}: {known[worst]['coupling']}, "
        f"u = {known[worst]['distance']:g}, m = {known[worst]['num_rows']}; standard errors {min(sizes):.1%} .. "
        f"{max(sizes):.1%} of the value",
        holds=bool(abs(z[worst]) < limit),
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


Z_LIMIT = 4.5
"""One-sided, over at most 32 points: false alarm 1.1e-4."""


def summaries(tables: Tables, settings: SimplexSettings) -> list[Summary]:
    """The table, and ratios at m = d or the nearest number of rows."""
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
    ]


def plot(results: Results) -> dict[str, Any]:
    """Ratios against the number of rows; matplotlib is imported here."""
    from matplotlib.lines import Line2D

    from experiments.figures import COUPLING_STYLES, VERMILION, feature_axis, legend_below, new_figure, value_axis

    styles = {name: COUPLING_STYLES[name] for name in ("orthogonal", "simplex")}
    styles["simplex-plus"] = {"color": VERMILION, "marker": "v"}
    distances, widths = results.settings["distances"], results.settings["num_rows"]
    figure = new_figure(2.6 * len(distances) + 0.4, 3.3)
    for axes, distance in zip(
        figure.subplots(1, len(distances), squeeze=False, sharey=True)[0], distances, strict=True
    ):
        axes.axhline(1, color=COUPLING_STYLES["independent"]["color"])
        for name, kind in styles.items():
            rows = [row for row in results.tables["errors"] if (row["coupling"], row["distance"]) == (name, distance)]
            x = [row["num_rows"] for row in rows]
            if name != "simplex-plus":
                axes.plot(x, [row["expected"] for row in rows], color=kind["color"])
            bars = [2 * row["standard_error"] for row in rows]
            axes.errorbar(x, [row["ratio"] for row in rows], yerr=bars, **kind, linestyle="none", elinewidth=0.8)
        axes.set_title(f"|x + y|² = {distance:g}")
        feature_axis(axes, [width for width in widths if width in (16, 64, 256) or len(widths) < 5])
        axes.set_xlabel("rows m")
    value_axis(figure.axes[0])
    figure.axes[0].set_ylabel("error over that of independent rows")
    handles = [Line2D([], [], color=COUPLING_STYLES["independent"]["color"], label="independent")]
    handles += [
        Line2D([], [], label=name, linestyle="none" if name == "simplex-plus" else "-", **kind)
        for name, kind in styles.items()
    ]
    legend_below(figure, handles, columns=len(handles))
    return {"simplex": figure}


EXPERIMENT = Experiment(
    name="simplex",
    claim="Rows that point away from each other lower the error of positive features, most at small |x + y|².",
    settings=SimplexSettings(),
    quick=SimplexSettings(distances=(1.0, 4.0), num_rows=(16, 64, 128), num_draws=300, gram_draws=100),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
