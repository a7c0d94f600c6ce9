"""The figure of uniform_convergence, drawn from its tables."""

from typing import Any

import numpy as np

from experiments.experiment import Record, Results
from experiments.figures import Figure, feature_axis, new_figure, value_axis
from experiments.palette import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILION
from experiments.tables import select
from experiments.uniform_convergence.measure import BOUNDS


def plot(results: Results) -> dict[str, Figure]:
    tables, settings = results.tables, results.settings
    figure = new_figure(10.0, 8.4)
    (one, two), (three, four) = figure.subplots(2, 2)

    def points(axes: Any, rows: list[Record], name: str, color: str, label: str) -> None:
        middle = np.array([row["median"] for row in rows])
        bars = np.abs(np.array([[row["low"], row["high"]] for row in rows]).T - middle)
        axes.errorbar([row[name] for row in rows], middle, yerr=bars, color=color, marker="o", label=label)

    most = max(settings["token_rows"])
    for rows_used, style in zip(sorted(settings["token_rows"]), (GREY, GREEN, BLUE), strict=False):
        rows = select(tables["tokens"], dim=max(settings["token_dims"]), rows=rows_used)
        points(one, rows, "tokens", style, f"m = {rows_used}")
    for name, style, label in (
        ("hoeffding", "--", "union bound"),
        ("normal", ":", "independent normal errors"),
        ("ceiling", "-.", "whole ball"),
    ):
        values = [row[name] for row in rows]
        one.plot([row["tokens"] for row in rows], values, color=BLUE, linestyle=style, label=f"{label}, m = {most}")
    one.set(
        xlabel="tokens L",
        ylabel="largest error of exp(q·k/√d)",
        title=f"attention matrices, d = {max(settings['token_dims'])}",
    )
    points(two, tables["ball"], "dim", BLUE, "unit ball, gradient ascent")
    dims = np.array([row["dim"] for row in tables["ball"]])
    reference = tables["ball"][-1]["median"] * np.sqrt(dims / dims[-1])
    two.plot(dims, reference, color=GREY, linestyle=":", label="∝ √d")
    two.set(
        xlabel="dimension d",
        ylabel="largest error of the kernel",
        title=f"all pairs of points of a ball, m = {settings['ball_rows']}",
    )
    middle = settings["sup_rows"][len(settings["sup_rows"]) // 2]
    rows = select(tables["sup"], rows=middle)
    points(three, rows, "diameter", BLACK, "measured")
    for name, color in zip(BOUNDS, (ORANGE, GREEN, VERMILION), strict=True):
        values = [row[name] for row in rows]
        three.plot([row["diameter"] for row in rows], values, color=color, linestyle="--", label=name)
    three.set(
        xlabel="diameter ℓ",
        ylabel="largest error of the kernel",
        title=f"discs, m = {middle}; dashed: bounds at probability 1/2",
    )
    for name, color, label in (
        ("error", BLUE, "spectral error Δ"),
        ("prediction", VERMILION, "difference of predictions"),
        ("frobenius", GREEN, "Frobenius error"),
    ):
        four.plot([r["rows"] for r in tables["spectral"]], [r[name] for r in tables["spectral"]], color=color,
                  marker=".", linestyle="none", label=label)  # fmt: skip
    bound = sorted({(row["rows"], row["bound"]) for row in tables["spectral"]})
    four.plot(*zip(*bound, strict=True), color=BLUE, linestyle="--", label="bound of Δ")
    four.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    four.set(
        xlabel="rows m",
        ylabel="relative error",
        title="ridge regression, {num_points} points, λ = {ridge:g}".format(**settings),
    )
    ticks = (settings["tokens"], settings["ball_dims"], settings["diameters"], settings["spectral_rows"])
    for axes, values in zip((one, two, three, four), ticks, strict=True):
        value_axis(axes)
        feature_axis(axes, values)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
    return {"uniform_convergence": figure}
