"""Figures of speed."""

from typing import Any

import numpy as np

from experiments.experiment import Results
from experiments.figures import feature_axis, legend_below, new_figure, value_axis
from experiments.palette import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, VERMILION
from experiments.speed.layers import BACKWARD, EXACT, FORWARD, IDENTITY, WHOLE, linear_name
from experiments.speed.verdicts import clock_of
from experiments.tables import select


def looks(num_features: list[int]) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {
        EXACT: {"color": BLACK, "marker": "o"},
        WHOLE: {"color": GREY, "marker": "x"},
        IDENTITY: {"color": GREEN, "marker": "D"},
    }
    for causal, colors, marker in ((False, (SKY, BLUE), "s"), (True, (ORANGE, VERMILION), "^")):
        for m, color in zip(num_features, colors, strict=False):
            result[linear_name(m, is_causal=causal)] = {"color": color, "marker": marker}
    return result


def plot(results: Results) -> dict[str, Any]:
    clock = clock_of(results.settings["backend"])
    return {
        "speed": panels(results, "times", clock, 1e3, f"milliseconds, {clock} time"),
        "speed_memory": panels(results, "memory", "bytes", 2.0**-20, "mebibytes at the peak"),
    }


def panels(results: Results, table: str, column: str, factor: float, label: str) -> Any:
    """One panel for each direction: medians over cells, with bars from the smallest to the largest cell."""
    figure = new_figure(9, 4.2)
    handles: list[Any] = []
    all_axes = figure.subplots(1, 2, sharey=True)
    for axes, direction in zip(all_axes, (FORWARD, BACKWARD), strict=True):
        handles = []
        for method, look in looks(results.settings["num_features"]).items():
            rows = select(results.tables[table], method=method, direction=direction)
            lengths = sorted({row["length"] for row in rows})
            values = [[factor * row[column] for row in rows if row["length"] == length] for length in lengths]
            middle = np.asarray([np.median(cells) for cells in values])
            bars = [middle - [min(cells) for cells in values], [max(cells) for cells in values] - middle]
            handles.append(axes.errorbar(lengths, middle, yerr=bars, label=method, linewidth=1, **look))
        axes.set(xlabel="length", title=direction)
        feature_axis(axes, results.settings["lengths"])
        axes.tick_params(axis="x", labelrotation=45)
    value_axis(all_axes[0])
    all_axes[0].set_ylabel(label)
    legend_below(figure, handles, columns=4)
    return figure
