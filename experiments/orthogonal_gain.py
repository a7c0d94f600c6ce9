"""orthogonal_gain: what coupled rows save, in closed form, in the bound of the Performer paper, and measured.

For positive features the gap between independent and orthogonal rows is positive in every dimension and at every
u = |x + y|². It is compared with the lower bound of Theorem 2, with measurements by simulation (u <= 1), and by the
Gram formula, which has no heavy tails (any u). Other couplings stand beside it at m = d rows. For trigonometric
features the gain of orthogonal rows turns into a small loss at some t = |x - y|², from d = 3 on.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.estimators import make_estimator
from experiments.experiment import Cell, Experiment, Record, Results, Settings, Summary, Tables, Verdict
from experiments.figures import entry, error_bars, legend_below, new_figure, stacked, style_handles
from experiments.pairs import judge, mse_rows, pairs_at, worst
from experiments.palette import COUPLING_STYLES
from experiments.tables import columns, select, table

ORDERED = ("orthogonal", "simplex", "centered", "antithetic", "antithetic-orthogonal")
SIGN_CHANGES = {3: 10.96, 4: 9.49, 5: 8.94, 6: 8.73, 8: 8.76, 12: 9.50, 16: 10.6, 32: 22.8}
"""First root t of `1F1(d; d/2; -t/2) = e^{-t}`, by SciPy's Kummer function; there is none for d = 2."""


@dataclass(frozen=True)
class OrthogonalGainSettings(Settings):
    """Sizes: dimensions and distances, draws of simulated points and of the Gram formula."""

    dims: tuple[int, ...] = (4, 16, 64)
    distances: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    simulated: tuple[float, ...] = (0.25, 0.5, 1.0)
    by_gram: tuple[float, ...] = (2.0, 4.0)
    num_draws: int = 40_000
    gram_draws: int = 1500
    sign_dims: tuple[int, ...] = tuple(SIGN_CHANGES)
    sign_draws: int = 200_000
    false_alarm: float = 1e-3


def relative_mse(estimator: str, coupling: str, distance: Any, dim: int, num_rows: int) -> np.ndarray:
    """The closed form at |x + y|² (trigonometric: |x - y|²) equal to `distance`; rows are counted, ±w as two."""
    law = make_estimator(estimator, coupling)
    zero = np.zeros_like(distance)
    x, y = pairs_at(zero, distance, dim) if estimator.startswith("trig") else pairs_at(distance, zero, dim)
    return law.relative_mse(x, y, num_features=law.num_features(num_rows))


@dataclass(frozen=True)
class GapCell(Cell):
    """The exact gap and its bound in one dimension, d rows."""

    dim: int

    def measure(self, settings: OrthogonalGainSettings) -> Tables:
        u = np.geomspace(0.01, 16, 60)
        independent, orthogonal = (
            relative_mse("positive", c, u, self.dim, self.dim) for c in ("independent", "orthogonal")
        )
        bound = rf.bounds.orthogonal_gain_bound(u, self.dim, self.dim)
        return {"gap": table(dim=self.dim, u=u, independent=independent, orthogonal=orthogonal, bound=bound)}


@dataclass(frozen=True)
class OrderCell(Cell):
    """Errors of coupled over independent rows at m = d, in one dimension."""

    dim: int

    def measure(self, settings: OrthogonalGainSettings) -> Tables:
        distances, rows = np.array(settings.distances), list[Record]()
        for estimator, couplings in (("positive", ORDERED), ("trig pairs", ("orthogonal", "simplex"))):
            independent = relative_mse(estimator, "independent", distances, self.dim, self.dim)
            for coupling in couplings:
                ratios = relative_mse(estimator, coupling, distances, self.dim, self.dim) / independent
                rows += table(dim=self.dim, estimator=estimator, coupling=coupling, distance=distances, ratio=ratios)
        return {"ordering": rows}


@dataclass(frozen=True)
class SimulatedCell(Cell):
    """Errors of positive features with coupled rows, by simulation at small u and by the Gram formula at any."""

    coupling: str
    dim: int

    def measure(self, settings: OrthogonalGainSettings) -> Tables:
        estimator, rows = make_estimator("positive", self.coupling), []
        x, y = pairs_at(np.array(settings.simulated), 0.3, self.dim)
        draws = max(settings.num_draws * 16 // max(self.dim, 16), 100)
        simulated = mse_rows(
            estimator,
            x,
            y,
            num_features=self.dim,
            num_draws=draws,
            rng=settings.rng(f"measured/{self.coupling}/{self.dim}", "simulation"),
        )
        found = [("simulation", *pair) for pair in zip(settings.simulated, simulated, strict=True)]
        if self.dim >= 16:  # in small dimensions random lengths have heavy tails as well
            x, y = pairs_at(np.array(settings.by_gram), 0.3, self.dim)
            measured = rf.montecarlo.gram_variance(
                estimator,
                x,
                y,
                num_features=self.dim,
                num_draws=settings.gram_draws,
                rng=settings.rng(f"measured/{self.coupling}/{self.dim}", "gram"),
            )
            expected = estimator.relative_variance(x, y, num_features=self.dim)
            found += [
                ("Gram formula", u, judge(float(a), float(s), float(e)))
                for u, a, s, e in zip(settings.by_gram, measured.value, measured.standard_error, expected, strict=True)
            ]
        for method, u, row in found:
            own = {"dim": self.dim, "coupling": self.coupling, "method": method, "u": u}
            rows.append(own | row | {"independent": float(np.expm1(u) / self.dim)})
        return {"measured": rows}


@dataclass(frozen=True)
class SignCell(Cell):
    """Where orthogonal rows begin to lose with trigonometric features."""

    dim: int

    def measure(self, settings: OrthogonalGainSettings) -> Tables:
        """One row of `sign`: the change of sign, and the largest loss, measured where d <= 8."""
        from scipy.optimize import brentq

        def gain(t: float) -> float:
            independent, orthogonal = (
                float(relative_mse("trig pairs", c, t, self.dim, self.dim)) for c in ("independent", "orthogonal")
            )
            return orthogonal / independent - 1

        grid = np.arange(0.5, 40.0, 0.25)
        signs = np.array([gain(t) for t in grid])
        first = int(np.argmax(signs > 0))
        change = float(brentq(gain, grid[first - 1], grid[first]))
        beyond = float(grid[np.argmax(signs)])
        row: Record = {"dim": self.dim, "change": change, "beyond": beyond, "ratio": 1 + gain(beyond)}
        measured: Record = judge(np.nan, np.inf, row["ratio"])
        if self.dim <= 8:
            errors = []
            for coupling in ("independent", "orthogonal"):
                estimator = make_estimator("trig pairs", coupling)
                x, y = pairs_at([0.0], [row["beyond"]], self.dim)
                errors += mse_rows(
                    estimator,
                    x,
                    y,
                    num_features=2 * self.dim,
                    num_draws=settings.sign_draws,
                    rng=settings.rng(f"sign/{self.dim}", coupling),
                )
            ratio = errors[1]["measured"] / errors[0]["measured"]
            error = ratio * np.hypot(*(e["standard_error"] / e["measured"] for e in errors))
            measured = judge(ratio, error, row["ratio"])
        return {"sign": [row | measured]}


def cells(settings: OrthogonalGainSettings) -> list[Cell]:
    return [
        *(GapCell(dim) for dim in settings.dims),
        *(OrderCell(dim) for dim in settings.dims),
        *(SimulatedCell(coupling, dim) for coupling in ("independent", *ORDERED) for dim in settings.dims),
        *(SignCell(dim) for dim in settings.sign_dims),
    ]


def verdicts(tables: Tables, settings: OrthogonalGainSettings) -> list[Verdict]:
    gaps = [(row["independent"] - row["orthogonal"]) / row["bound"] for row in tables["gap"]]
    smallest = {row["dim"]: gap for row, gap in zip(tables["gap"], gaps, strict=True) if row["u"] < 0.0101}
    table = {(r["estimator"], r["coupling"], r["dim"], r["distance"]): r["ratio"] for r in tables["ordering"]}
    places = [(dim, u) for dim in settings.dims for u in settings.distances]
    positive = [(table["positive", "simplex", *p], table["positive", "orthogonal", *p]) for p in places]
    trig = [(table["trig pairs", "orthogonal", *p], table["trig pairs", "simplex", *p]) for p in places]
    largest, limit, agrees = worst(tables["measured"], settings.false_alarm)
    beyond = [row for row in tables["sign"] if not np.isnan(row["measured"])]
    _, sign_limit, sign_agrees = worst(beyond, settings.false_alarm)
    changes = {row["dim"]: row["change"] for row in tables["sign"]}
    known = [abs(change / SIGN_CHANGES[dim] - 1) for dim, change in changes.items() if dim in SIGN_CHANGES]
    return [
        Verdict(
            claim="the gain of orthogonal rows is at least the bound of Theorem 2, for every u",
            expected="exact gap / bound >= 1, and -> 1 as u -> 0",
            measured=f"smallest {min(gaps):.5f}, largest {max(gaps):.3g}; at u = 0.01 {max(smallest.values()):.4f}",
            holds=min(gaps) >= 1 - 1e-9 and all(abs(gap - 1) < 0.02 for gap in smallest.values()),
        ),
        Verdict(
            claim="positive features: simplex rows beat orthogonal rows, which beat independent ones",
            expected=f"in all of {len(positive)} cells at m = d",
            measured=f"orthogonal / independent up to {max(b for _, b in positive):.3f}, "
            f"simplex / orthogonal up to {max(a / b for a, b in positive):.3f}",
            holds=all(a < b < 1 for a, b in positive),
        ),
        Verdict(
            claim="trigonometric features: orthogonal rows beat simplex rows here",
            expected=f"in all of {len(trig)} cells at m = d",
            measured=f"orthogonal / simplex up to {max(a / b for a, b in trig):.3f}",
            holds=all(a < b < 1 for a, b in trig),
        ),
        Verdict(
            claim="measured errors under every coupling are their closed forms",
            expected=f"|z| below {limit:.2f} in all of {len(tables['measured'])} points "
            f"(false alarm {settings.false_alarm:g})",
            measured=f"largest {largest:.2f}",
            holds=agrees,
        ),
        Verdict(
            claim="trigonometric features: from d = 3 on the gain of orthogonal rows turns into a loss, first at t",
            expected="; ".join(f"d = {dim}: {SIGN_CHANGES[dim]:.3g}" for dim in changes if dim in SIGN_CHANGES),
            measured="; ".join(f"d = {dim}: {change:.3g}" for dim, change in changes.items()),
            holds=max(known, default=np.inf) < 5e-3,
        ),
        Verdict(
            claim="the largest loss with orthogonal rows is measured",
            expected=f"ratio above 1, closed form within |z| < {sign_limit:.2f}",
            measured=", ".join(f"d = {r['dim']}: {r['measured']:.4f} ({r['expected']:.4f})" for r in beyond),
            holds=sign_agrees and all(row["expected"] > 1 for row in beyond),
        ),
    ]


def summaries(tables: Tables, settings: OrthogonalGainSettings) -> list[Summary]:
    header = ("d, u (or t)", *ORDERED, "trig orthogonal", "trig simplex")
    table = {(r["estimator"], r["coupling"], r["dim"], r["distance"]): r["ratio"] for r in tables["ordering"]}
    kinds = [*(("positive", c) for c in ORDERED), ("trig pairs", "orthogonal"), ("trig pairs", "simplex")]
    rows = tuple(
        (f"{dim}, {u:g}", *(f"{table[estimator, coupling, dim, u]:.3f}" for estimator, coupling in kinds))
        for dim in settings.dims
        for u in settings.distances
    )
    breaks = tuple(len(settings.distances) * (i + 1) for i in range(len(settings.dims) - 1))
    return [Summary("MSE over that of independent rows, m = d (closed form)", header, rows, breaks)]


def plot(results: Results) -> dict[str, Any]:
    tables, dims = results.tables, results.settings["dims"]
    figure = new_figure(10.5, 7.2)
    top, bottom = stacked(figure, [1, 1])
    panels = top.subplots(1, len(dims), sharey=True, squeeze=False)[0]
    for axes, dim in zip(panels, dims, strict=True):
        for coupling in ("independent", *ORDERED):
            kind = COUPLING_STYLES[coupling]
            u = np.geomspace(0.15, 8, 50)
            curve = relative_mse("positive", coupling, u, dim, dim) / (np.expm1(u) / dim)
            axes.plot(u, curve, color=kind["color"])
            for method, fill in (("simulation", "full"), ("Gram formula", "none")):
                points = select(tables["measured"], dim=dim, coupling=coupling, method=method)
                u, measured, error, base = columns(points, "u", "measured", "standard_error", "independent")
                error_bars(axes, u, measured / base, error / base, fillstyle=fill, **kind)
        axes.set(xscale="log", ylim=(0, 1.25), title=f"positive features, m = d = {dim}", xlabel="u = |x + y|²")
        axes.set_xticks([0.25, 0.5, 1, 2, 4, 8], ["0.25", "0.5", "1", "2", "4", "8"])
        axes.minorticks_off()
    panels[0].set_ylabel("MSE over that of independent rows")
    left, right = bottom.subplots(1, 2)
    for dim, color in zip(dims, ("#009E73", "#0072B2", "#D55E00", "#CC79A7"), strict=False):
        u, scale, orthogonal, bound = columns(select(tables["gap"], dim=dim), "u", "independent", "orthogonal", "bound")
        left.plot(u, (scale - orthogonal) / scale, color=color, label=f"d = {dim}")
        left.plot(u, bound / scale, color=color, linestyle="--")
        t = np.linspace(0.25, 30, 240)
        ratio = relative_mse("trig pairs", "orthogonal", t, dim, dim) / (2 * np.sinh(t / 2) ** 2 / dim)
        right.plot(t, ratio - 1, color=color)
    left.set(
        xscale="log",
        yscale="log",
        xlabel="u = |x + y|²",
        ylabel="saved share of the MSE",
        ylim=(1e-5, 1),
        title="positive, m = d: exact (solid), bound of Theorem 2 (dashed)",
    )
    left.legend(loc="lower left")
    right.axhline(0, color="#000000", linewidth=0.8, linestyle=":")
    right.set_yscale("symlog", linthresh=1e-4)
    right.set(xlabel="t = |x - y|²", title="trigonometric, m = d: orthogonal / independent - 1")
    handles = style_handles(COUPLING_STYLES, ("independent", *ORDERED))
    handles.append(entry("Gram formula", color="#777777", marker="o", fillstyle="none", linestyle=""))
    legend_below(figure, handles, columns=len(handles))
    return {"orthogonal_gain": figure}


EXPERIMENT = Experiment(
    name="orthogonal_gain",
    claim="Orthogonal rows save at least what Theorem 2 of the Performer paper says, in every dimension.",
    settings=OrthogonalGainSettings(),
    quick=OrthogonalGainSettings(num_draws=4000, gram_draws=150, sign_dims=(3, 4, 8, 16), sign_draws=20_000),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
