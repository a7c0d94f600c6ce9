"""regularized_softmax: how far the regularized softmax kernel is below the softmax kernel.

Rows of length √d estimate SMREG, and R = SMREG / SM depends on u = |x + y|² and the dimension d only. It is compared
with the two lower bounds of `rf.bounds.regularized_softmax_bound` and with the published 1 - 2 d^{-1/3}, over u and d,
over the entries of random attention matrices whose queries and keys are bounded, and with drawn features. The rate
at fixed u is 1/d.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.experiment import Cell, Experiment, Record, Results, Settings, Summary, Tables, Verdict
from experiments.figures import entry, error_bars, legend_below, new_figure
from experiments.pairs import judge, pairs_at, worst
from experiments.palette import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILION
from experiments.tables import columns, select, table

REGULARIZED = rf.RegularizedSoftmaxFeatures()


@dataclass(frozen=True)
class RegularizedSettings(Settings):
    """Sizes: dimensions, distances, tokens of the random matrices with their largest norm, rows and draws."""

    dims: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
    distances: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    num_tokens: int = 512
    norm: float = 1.0
    measured_dims: tuple[int, ...] = (4, 16, 64)
    num_draws: int = 20_000
    false_alarm: float = 1e-3


def ratio(u: Any, dim: int) -> np.ndarray:
    """R(u, d), from the closed-form mean of the features."""
    x, y = pairs_at(u, np.zeros_like(u), dim)
    return REGULARIZED.mean(x, y) / REGULARIZED.kernel.pairwise(x, y)


def published(dim: int) -> float:
    """The lower bound of the paper."""
    return 1 - 2 * dim ** (-1 / 3)


@dataclass(frozen=True)
class CurveCell(Cell):
    """Ratio and bounds in one dimension."""

    dim: int

    def measure(self, settings: RegularizedSettings) -> Tables:
        u = np.array(settings.distances)
        bound = rf.bounds.regularized_softmax_bound(u, self.dim)
        return {
            "curves": table(dim=self.dim, u=u, ratio=ratio(u, self.dim), bound=bound, published=published(self.dim))
        }


@dataclass(frozen=True)
class MatrixCell(Cell):
    """Smallest and largest ratio over the entries of one random attention matrix."""

    dim: int

    def measure(self, settings: RegularizedSettings) -> Tables:
        """One row of `matrices`: queries and keys uniform in the ball of radius `norm`."""
        rng = settings.rng(f"matrix/{self.dim}")
        query, key = rng.standard_normal((2, settings.num_tokens, self.dim))
        for x in (query, key):
            length = settings.norm * rng.uniform(size=(len(x), 1)) ** (1 / self.dim)
            x *= length / np.linalg.norm(x, axis=1, keepdims=True)
        exact = np.exp(query @ key.T)
        squared = np.sum(query**2, axis=1)[:, None] + np.sum(key**2, axis=1) + 2 * query @ key.T
        law = rf.Orthogonal(norms="constant").row_law(self.dim)
        ratios = law.row_mean(squared)  # one number for each entry, without vectors of length d
        largest_u = 4 * settings.norm**2
        row = {"dim": self.dim, "smallest": ratios.min(), "largest": ratios.max(), "largest_entry": exact.max()}
        row |= {"bound": rf.bounds.regularized_softmax_bound(largest_u, self.dim), "published": published(self.dim)}
        return {"matrices": [row]}


@dataclass(frozen=True)
class DrawCell(Cell):
    """The mean over drawn features against the closed form."""

    dim: int

    def measure(self, settings: RegularizedSettings) -> Tables:
        u = np.array([d for d in settings.distances if d <= 2])
        x, y = pairs_at(u, 0.5, self.dim)
        sizes: Record = {"num_features": self.dim, "num_draws": settings.num_draws}
        sample = rf.montecarlo.sample_errors(REGULARIZED, x, y, **sizes, rng=settings.rng(f"draws/{self.dim}"))
        error = np.sqrt(REGULARIZED.relative_variance(x, y, num_features=self.dim) / settings.num_draws)
        columns = zip(u, 1 + sample.bias().value, error, ratio(u, self.dim), strict=True)
        return {"draws": [{"dim": self.dim, "u": a} | judge(mean, e, r) for a, mean, e, r in columns]}


@dataclass(frozen=True)
class OrthogonalInputsCell(Cell):
    """Orthogonal queries and keys: every entry of the attention matrix is 1, whatever their length."""

    def measure(self, settings: RegularizedSettings) -> Tables:
        rows = []
        for u in (1.0, 4.0, 16.0, 64.0):
            x, y = pairs_at(u, u, 64)
            smreg = float(REGULARIZED.mean(x, y) / np.exp(x @ y))
            rows.append({"dim": 64, "u": u, "entry": float(np.exp(x @ y)), "ratio": smreg})
        return {"orthogonal": rows}


def cells(settings: RegularizedSettings) -> list[Cell]:
    return [
        *(CurveCell(dim) for dim in settings.dims),
        *(MatrixCell(dim) for dim in settings.dims),
        *(DrawCell(dim) for dim in settings.measured_dims),
        OrthogonalInputsCell(),
    ]


def slopes(tables: Tables, settings: RegularizedSettings) -> dict[float, float]:
    """Slopes of log(1 - R) in log d between the two largest dimensions, by u."""
    result = {}
    for u in settings.distances:
        rows = {row["dim"]: row["ratio"] for row in tables["curves"] if row["u"] == u}
        first, last = sorted(rows)[-2:]
        with np.errstate(invalid="ignore"):
            result[u] = float(np.log((1 - rows[last]) / (1 - rows[first])) / np.log(last / first))
    return result


def verdicts(tables: Tables, settings: RegularizedSettings) -> list[Verdict]:
    curves = tables["curves"]
    margin = [row["ratio"] / row["bound"] for row in curves]
    rates = {u: slope for u, slope in slopes(tables, settings).items() if u <= 4}
    matrices = tables["matrices"]
    largest, limit, agrees = worst(tables["draws"], settings.false_alarm)
    far = tables["orthogonal"][-1]
    printed = published(far["dim"])
    small = [(row["dim"], row["ratio"]) for row in curves if row["u"] == 1.0]
    next_terms = {d: d * (1 - (1 - r) * 4 * (d + 2)) for d, r in small if d >= 64}
    return [
        Verdict(
            claim="SMREG is below SM and above the larger of two bounds",
            expected="bound <= R <= 1 for every u and d",
            measured=f"{len(curves)} points: largest R {max(row['ratio'] for row in curves):.6f}, "
            f"R / bound from {min(margin):.6f}",
            holds=all(row["bound"] <= row["ratio"] <= 1 for row in curves),
        ),
        Verdict(
            claim="at fixed u the distance to SM falls like 1/d, not like the published d^{-1/3}",
            expected="slope of log(1 - R) in log d within 0.05 of -1, u <= 4",
            measured=", ".join(f"u = {u:g}: {slope:.3f}" for u, slope in rates.items()),
            holds=all(abs(slope + 1) < 0.05 for slope in rates.values()),
        ),
        Verdict(
            claim="1 - R = u²/4(d+2) · (1 - (4u/3 + u²/8)/d + O(d^{-2})) at u = 1, d >= 64",
            expected=f"second coefficient within 10/d of {35 / 24:.4f}",
            measured=", ".join(f"d = {d}: {term:.4f}" for d, term in next_terms.items()),
            holds=bool(next_terms) and all(abs(term - 35 / 24) < 10 / d for d, term in next_terms.items()),
        ),
        Verdict(
            claim="Theorem 1 on random attention matrices, queries and keys of bounded length",
            expected="all entries between the bound for the largest u, and 1",
            measured=", ".join(f"d = {r['dim']}: {r['smallest']:.4f} >= {r['bound']:.4f}" for r in matrices),
            holds=all(r["bound"] <= r["smallest"] <= r["largest"] <= 1 for r in matrices),
        ),
        Verdict(
            claim="the mean of drawn features is the closed form",
            expected=f"|z| below {limit:.2f} in all of {len(tables['draws'])} (false alarm {settings.false_alarm:g})",
            measured=f"largest {largest:.2f}",
            holds=agrees,
        ),
        Verdict(
            claim="bounded entries of the attention matrix are not enough: queries orthogonal to keys, d = 64",
            expected=f"entries 1, and a ratio far below the published {printed:.2f} where |x|, |y| are large",
            measured=f"entry {far['entry']:.3f}, ratio {far['ratio']:.1e} at u = {far['u']:g}",
            holds=abs(far["entry"] - 1) < 1e-9 and far["ratio"] < 0.01 * printed,
        ),
    ]


def summaries(tables: Tables, settings: RegularizedSettings) -> list[Summary]:
    rows = []
    for dim in settings.dims:
        found = select(tables["curves"], dim=dim)
        rows.append((str(dim), *(f"{row['ratio']:.3f}" for row in found), f"{found[0]['published']:.3f}"))
    header = ("d", *(f"u = {u:g}" for u in settings.distances), "1 - 2 d^{-1/3}")
    return [Summary("SMREG / SM", header, tuple(rows))]


def plot(results: Results) -> dict[str, Any]:
    tables, settings = results.tables, results.settings
    figure = new_figure(8.6, 4.2)
    left, right = figure.subplots(1, 2)
    colors = (BLUE, GREEN, ORANGE, VERMILION, BLACK)
    handles = []
    for u, color in zip(settings["distances"], colors, strict=False):
        rows = select(tables["curves"], u=u)
        dims, ratios, bounds = columns(rows, "dim", "ratio", "bound")
        left.plot(dims, 1 - ratios, color=color)
        left.plot(dims, 1 - bounds, color=color, linestyle="--")
        drawn, measured, error = columns(select(tables["draws"], u=u), "dim", "measured", "standard_error")
        error_bars(left, drawn, 1 - measured, error, color=color, marker="o")
        handles.append(entry(f"u = {u:g}", color=color))
    left.plot(dims, np.minimum(2 * dims ** (-1 / 3), 1), color=GREY, linestyle=":")
    handles += [
        entry("bound", color=GREY, linestyle="--"),
        entry("published, $2d^{-1/3}$", color=GREY, linestyle=":"),
        entry("drawn features", color=GREY, marker="o", linestyle="none"),
    ]
    left.set(
        xscale="log",
        yscale="log",
        ylim=(1e-4, 1.3),
        xlabel="d",
        ylabel="1 - SMREG / SM",
        title="distance to the softmax kernel",
    )
    u = np.linspace(0, 40, 200)
    for dim, color in zip((4, 16, 64, 256), (VERMILION, ORANGE, GREEN, BLUE), strict=True):
        right.plot(u, ratio(u, dim), color=color)
        right.plot(u, rf.bounds.regularized_softmax_bound(u, dim), color=color, linestyle="--")
        crossing = u[np.argmax(ratio(u, dim) < 0.65)]
        right.text(crossing + 0.4, 0.655, f"d = {dim}", color=color, fontsize=8)
    right.set(xlabel="u = |x + y|²", ylabel="SMREG / SM", title="closed form (solid) and bound (dashed)")
    legend_below(figure, handles, columns=4)
    return {"regularized_softmax": figure}


EXPERIMENT = Experiment(
    name="regularized_softmax",
    claim="The regularized softmax kernel is within u²/4d of the softmax kernel, relatively, and below it.",
    settings=RegularizedSettings(),
    quick=RegularizedSettings(num_tokens=96, num_draws=2000),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
