"""trig_vs_positive: which softmax features have the smaller error, by the angle and the length of queries and keys.

Queries and keys of one length l at an angle φ have u = |x + y|² = 4l² cos²(φ/2) and t = |x - y|² = 4l² sin²(φ/2), and
the ratio of the mean squared errors of trigonometric and positive features with equally many independent rows is
`2 sinh²(t/2) / (e^u - 1)`, whatever the dimension. The surface is the closed form; points are Monte Carlo where u is at
most 2, and judged where it is at most 1, where a mean of squared errors is close to normal.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.experiment import Cell, Experiment, Results, Settings, Summary, Tables, Verdict
from experiments.figures import legend_below, new_figure
from experiments.pairs import mse_rows, pairs_at, worst
from experiments.palette import ESTIMATOR_STYLES
from experiments.tables import select, table

ESTIMATORS: dict[str, rf.Estimator] = {
    "positive": rf.PositiveFeatures(coupling="independent"),
    "hyp+": rf.HyperbolicFeatures(coupling="independent"),
    "trig pairs": rf.TrigonometricFeatures(coupling="independent"),
}
SLICES = (0.5, 1.0, 1.5, 2.0)
ANGLES = (np.pi / 4, np.pi / 2, 3 * np.pi / 4, 0.9 * np.pi)
RAY_COSINES = (-0.9, -0.25)


@dataclass(frozen=True)
class TrigVsPositiveSettings(Settings):
    """Sizes: the grid of the surface; rows and draws of a point, and up to which u points are taken and judged."""

    lengths: tuple[float, ...] = tuple(float(x) for x in np.linspace(0.1, 2.0, 20))
    num_angles: int = 73
    dim: int = 8
    num_rows: int = 64
    num_draws: int = 50_000
    measured_up_to: float = 2.0
    judged_up_to: float = 1.0
    false_alarm: float = 1e-3


def corners(length: Any, angle: Any) -> tuple[np.ndarray, np.ndarray]:
    """u and t of two vectors of this length at this angle."""
    return 4 * np.square(length) * np.cos(np.divide(angle, 2)) ** 2, 4 * np.square(length) * np.sin(
        np.divide(angle, 2)
    ) ** 2


def relative_mse(name: str, length: Any, angle: Any, dim: int = 2) -> np.ndarray:
    """The closed form for one row."""
    estimator = ESTIMATORS[name]
    x, y = pairs_at(*corners(length, angle), dim)
    return estimator.relative_mse(x, y, num_features=estimator.num_features(1))


@dataclass(frozen=True)
class SurfaceCell(Cell):
    """Closed forms at one length, for all angles."""

    length: float

    def measure(self, settings: TrigVsPositiveSettings) -> Tables:
        angles = np.linspace(0, np.pi, settings.num_angles)
        errors = {name: relative_mse(name, self.length, angles) for name in ESTIMATORS}
        positive = errors["positive"]
        ratio = np.divide(errors["trig pairs"], positive, out=np.full_like(positive, np.inf), where=positive > 0)
        return {"surface": table(length=self.length, angle=angles, **errors, ratio=ratio)}


@dataclass(frozen=True)
class PointCell(Cell):
    """Monte Carlo of one estimator at one length."""

    estimator: str
    length: float

    def measure(self, settings: TrigVsPositiveSettings) -> Tables:
        """Rows of `points`: relative MSE times rows, at angles where it can be measured."""
        angles = np.linspace(0, np.pi, 13)[1:-1]
        u, t = corners(self.length, angles)
        angles, u, t = (values[u <= settings.measured_up_to] for values in (angles, u, t))
        estimator = ESTIMATORS[self.estimator]
        measured = mse_rows(
            estimator,
            *pairs_at(u, t, settings.dim),
            num_features=estimator.num_features(settings.num_rows),
            num_draws=settings.num_draws,
            rng=settings.rng(f"points/{self.estimator}/{self.length:g}"),
        )
        places = table(estimator=self.estimator, length=self.length, angle=angles, u=u)
        return {"points": [place | row for place, row in zip(places, measured, strict=True)]}


@dataclass(frozen=True)
class RayCell(Cell):
    """Absolute errors of both estimators as the length of vectors at one angle grows."""

    cosine: float

    def measure(self, settings: TrigVsPositiveSettings) -> Tables:
        lengths = np.array([1.0, 2.0, 4.0, 8.0])
        x, y = pairs_at(*corners(lengths, np.arccos(self.cosine)), 2)
        errors = {name: law.mse(x, y, num_features=law.num_features(1)) for name, law in ESTIMATORS.items()}
        kernel = [np.exp(a @ b) for a, b in zip(x, y, strict=True)]
        return {"rays": table(cosine=self.cosine, length=lengths, kernel=kernel, **errors)}


def cells(settings: TrigVsPositiveSettings) -> list[Cell]:
    return [
        *(SurfaceCell(length) for length in settings.lengths),
        *(PointCell(name, length) for name in ESTIMATORS for length in SLICES),
        *(RayCell(cosine) for cosine in RAY_COSINES),
    ]


def crossing(name: str, length: float) -> float:
    """The angle at which trigonometric features and these have the same error."""
    from scipy.optimize import brentq

    def difference(angle: float) -> float:
        trig, other = (float(relative_mse(which, length, angle)) for which in ("trig pairs", name))
        return np.log(trig / other)

    return float(brentq(difference, 0.3, np.pi * (1 - 1e-9), xtol=1e-10))


def verdicts(tables: Tables, settings: TrigVsPositiveSettings) -> list[Verdict]:
    inner = [row for row in tables["surface"] if 0 < row["angle"] < np.pi * (1 - 1e-9)]
    deviations = []
    for row in inner:
        u, t = corners(row["length"], row["angle"])
        deviations.append(abs(row["ratio"] / (2 * np.sinh(t / 2) ** 2 / np.expm1(u)) - 1))
    acute = [row for row in inner if row["angle"] < np.pi / 2 * (1 - 1e-9)]
    crossings = [crossing("positive", length) / np.pi for length in SLICES]
    mirrored = [crossing("hyp+", length) / np.pi for length in SLICES]
    own = {length: crossing("positive", length) for length in settings.lengths}
    obtuse = [row for row in inner if row["angle"] > own[row["length"]] * (1 + 1e-9)]
    judged = [row for row in tables["points"] if row["u"] <= settings.judged_up_to]
    largest, limit, agrees = worst(judged, settings.false_alarm)
    rays = {cosine: select(tables["rays"], cosine=cosine) for cosine in RAY_COSINES}
    first, last = (rays[cosine][-1] for cosine in RAY_COSINES)
    start = rays[RAY_COSINES[1]][0]
    return [
        Verdict(
            claim="ratio of the errors of trigonometric and positive features with equally many rows",
            expected="2 sinh²(t/2) / (e^u - 1) to 1e-9, the quotient of Lemma 2",
            measured=f"{len(inner)} points of the surface, largest deviation {max(deviations):.1e}",
            holds=bool(max(deviations) < 1e-9),
        ),
        Verdict(
            claim="trigonometric features are better at acute angles, positive ones beyond one crossing per length",
            expected="ratio below 1 for φ < π/2, above 1 beyond the crossing",
            measured=f"largest {max(r['ratio'] for r in acute):.3g}, smallest {min(r['ratio'] for r in obtuse):.3g}",
            holds=all(r["ratio"] < 1 for r in acute) and all(r["ratio"] > 1 for r in obtuse),
        ),
        Verdict(
            claim="positive features overtake above a right angle, the closer to it the longer the vectors",
            expected="crossing φ/π above 0.5 and falling with l; hyperbolic features: 0.5 exactly",
            measured=f"{', '.join(f'{c:.3f}' for c in crossings)} at l = {SLICES}; hyp+ {mirrored[0]:.6f}",
            holds=all(c > 0.5 for c in crossings)
            and bool(np.all(np.diff(crossings) < 0))
            and all(abs(c - 0.5) < 1e-8 for c in mirrored),
        ),
        Verdict(
            claim="long opposed vectors (cos φ = -0.9): the absolute error of positive features vanishes",
            expected="positive -> 0 and trigonometric -> infinity with the length",
            measured=f"l = {first['length']:g}: {first['positive']:.1e} and {first['trig pairs']:.1e}",
            holds=first["positive"] < 1e-12 and first["trig pairs"] > 1e12,
        ),
        Verdict(
            claim="a vanishing kernel alone is not enough (cos φ = -0.25; enough is cos φ < -1/2)",
            expected="kernel -> 0 and yet the error of positive features grows",
            measured=f"kernel {last['kernel']:.1e}, error {start['positive']:.1e} -> {last['positive']:.1e}",
            holds=last["kernel"] < 1e-3 and last["positive"] > 1e6 * start["positive"],
        ),
        Verdict(
            claim=f"measured errors are the closed forms where u <= {settings.judged_up_to:g}",
            expected=f"|z| below {limit:.2f} in all of {len(judged)} points (false alarm {settings.false_alarm:g})",
            measured=f"largest {largest:.2f}",
            holds=agrees,
        ),
    ]


def summaries(tables: Tables, settings: TrigVsPositiveSettings) -> list[Summary]:
    rows = []
    for length in SLICES:
        ratio = relative_mse("trig pairs", length, ANGLES) / relative_mse("positive", length, ANGLES)
        rows.append((f"{length:g}", *(f"{value:.3g}" for value in ratio)))
    return [Summary("MSE of trigonometric over positive features", ("l", "π/4", "π/2", "3π/4", "0.9π"), tuple(rows))]


def plot(results: Results) -> dict[str, Any]:
    from matplotlib.colors import TwoSlopeNorm

    rows = results.tables["surface"]
    lengths, angles = (np.unique([row[name] for row in rows]) for name in ("length", "angle"))
    ratio = np.array([row["ratio"] for row in rows]).reshape(lengths.size, angles.size)
    figure = new_figure(10.5, 3.7)
    left, middle, right = figure.subplots(1, 3)
    with np.errstate(divide="ignore"):
        log = np.clip(np.log10(ratio), -6, 6)
    both, mirrored = np.concatenate([-angles[:0:-1], angles]), np.concatenate([log[:, :0:-1], log], axis=1)
    norm = TwoSlopeNorm(0.0, -6, 6)
    image = left.pcolormesh(
        both / np.pi, lengths, mirrored, cmap="PuOr_r", norm=norm, shading="gouraud", rasterized=True
    )
    left.contour(both / np.pi, lengths, mirrored, levels=[0.0], colors="#000000", linewidths=1)
    figure.colorbar(image, ax=left, label="log₁₀ ratio")
    left.set(title="MSE trigonometric / positive; black: equal", ylabel="length l")
    for length, color in zip(SLICES, ("#56B4E9", "#009E73", "#E69F00", "#D55E00"), strict=True):
        fine = np.linspace(0.02, 0.97, 200) * np.pi
        values = relative_mse("trig pairs", length, fine) / relative_mse("positive", length, fine)
        middle.plot(fine / np.pi, values, color=color, label=f"l = {length:g}")
    middle.axhline(1, color="#000000", linewidth=0.8, linestyle=":")
    middle.set(yscale="log", ylim=(1e-8, 1e8), title="ratio at a few lengths (closed form)")
    for name, kind in ESTIMATOR_STYLES.items():
        if name not in ESTIMATORS:
            continue
        fine = np.linspace(0.02, 0.98, 200) * np.pi
        right.plot(fine / np.pi, relative_mse(name, 1.0, fine), color=kind["color"])
        points = [r for r in results.tables["points"] if r["estimator"] == name and r["length"] == 1.0]
        num_rows = results.settings["num_rows"]
        right.errorbar(
            [row["angle"] / np.pi for row in points],
            [row["measured"] * num_rows for row in points],
            yerr=[2 * row["standard_error"] * num_rows for row in points],
            linestyle="none",
            label=name,
            **kind,
        )
    right.set(yscale="log", title="m · relative MSE at l = 1; points measured")
    for axes in (left, middle, right):
        axes.set_xlabel("angle φ/π")
    left.set_xticks([-1, -0.5, 0, 0.5, 1])
    handles = [*middle.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    legend_below(figure, handles, columns=len(handles))
    return {"trig_vs_positive": figure}


EXPERIMENT = Experiment(
    name="trig_vs_positive",
    claim="Positive features beat trigonometric ones where queries and keys point apart, the more the longer they are.",
    settings=TrigVsPositiveSettings(),
    quick=TrigVsPositiveSettings(
        lengths=(0.2, 0.35, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0), num_angles=49, num_draws=5000
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
