"""Curves of the trainings, and the final table."""

import statistics
from typing import Any

from experiments.experiment import Results, Summary, Tables
from experiments.figures import legend_below, new_figure, style_handles, value_axis
from experiments.training_stability.verdicts import arm_name, arms, finals, shares_kept

STYLES: dict[str, dict[str, Any]] = {
    "softmax": {"color": "#000000", "linestyle": "-"},
    "none": {"color": "#777777", "linestyle": ":"},
    "trig": {"color": "#009E73"},
    "positive": {"color": "#0072B2"},
    "hyp+": {"color": "#D55E00"},
    "OPRF": {"color": "#CC79A7"},
}
SMOOTHING = 10


def summaries(tables: Tables, settings: Any) -> list[Summary]:
    rows = []
    for arm in arms(tables["final"], features=False):
        losses = (f"{statistics.median(finals(tables, arm, column)):.3f}" for column in ("own", "fresh", "exact"))
        rows.append((arm, *losses, f"{statistics.median(shares_kept(tables, arm)):.2f}"))
    header = ("attention", "trained with", "fresh map", "softmax", "gain kept")
    return [Summary("held-out nats per character", header, tuple(rows))]


def plot(results: Results) -> dict[str, Any]:
    tables, kinds = results.tables, results.settings["features"]
    norms = results.settings["norms"][0]
    figure = new_figure(9.6, 6.2)
    grid = figure.subplots(2, 3, sharex=True)
    for panels, redraw in zip(grid, (False, True), strict=True):
        loss, gradient, denominator = panels
        for name in ("softmax", "none", *kinds):
            style = STYLES[name]
            for repetition in range(results.settings["repetitions"]):
                chosen = [
                    [
                        row
                        for row in tables[table]
                        if (row["attention"], row["repetition"]) == (name, repetition)
                        and (not row["norms"] or (row["norms"], row["redraw"]) == (norms, redraw))
                    ]
                    for table in ("steps", "denominators")
                ]
                for axes, rows, column, window in (
                    (loss, chosen[0], "loss", SMOOTHING),
                    (gradient, chosen[0], "gradient_norm", SMOOTHING),
                    (denominator, chosen[1], "negative", 1),
                ):
                    blocks = [rows[i : i + window] for i in range(0, len(rows), window)]
                    middle = [statistics.mean(row["step"] for row in block) for block in blocks]
                    values = [statistics.median(row[column] for row in block) for block in blocks]
                    axes.plot(middle, values, **{"linewidth": 1.0, **style})
        value_axis(loss)
        value_axis(gradient)
        loss.set_ylabel(f"maps {'redrawn' if redraw else 'fixed'}\nloss, nats per character")
        gradient.set_ylabel("gradient norm before clipping")
        denominator.set_ylabel("share of negative denominators")
        denominator.set_ylim(bottom=-0.01)
    for axes in grid[1]:
        axes.set_xlabel("step")
    legend_below(figure, style_handles(STYLES, ("softmax", "none", *kinds)), columns=6)
    return {"training_stability": figure, "training_stability_final": final_figure(tables)}


def final_figure(tables: Tables) -> Any:
    names = arms(tables["final"], features=False)
    figure = new_figure(7.2, 0.8 + 0.24 * len(names))
    axes = figure.subplots()
    for row in tables["final"]:
        axes.plot(row["own"], names.index(arm_name(row)), marker="o", color=STYLES[row["attention"]]["color"])
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("held-out loss, nats per character; a point for each repetition")
    return figure
