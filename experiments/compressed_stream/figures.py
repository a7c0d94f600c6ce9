"""The figure of compressed_stream, drawn from its tables."""

from typing import Any

import numpy as np

from experiments.compressed_stream.evictions import EVICTIONS
from experiments.compressed_stream.measure import FITTED, STREAMS
from experiments.experiment import Record, Results
from experiments.figures import Axes, Figure, feature_axis, legend_below, new_figure, value_axis
from experiments.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION
from experiments.tables import distinct, grouped, select

STYLES: dict[str, dict[str, Any]] = {
    "own past": {"color": BLUE, "marker": "o"},
    "other passages": {"color": SKY, "marker": "s"},
    FITTED: {"color": BLACK, "marker": "P"},
    "sinks + window": {"color": GREY, "marker": "^"},
    "heavy hitters": {"color": ORANGE, "marker": "D"},
    "SnapKV-like": {"color": PURPLE, "marker": "v"},
}
WHOLE = {"clustered": (VERMILION, 3.5, "H"), "cache": (GREEN, 1.25, "d"), "cache, fitted": (BLACK, 2.75, "8")}
"""Color, cost of a cluster or a key in features, and marker."""


def plot(results: Results) -> dict[str, Figure]:
    tables, settings = results.tables, results.settings
    figure = new_figure(10.0, 4.0)
    memory, along, whole = figure.subplots(1, 3)
    for method in (*STREAMS, FITTED, *EVICTIONS):
        label = f"merged keys, references: {method}" if method not in EVICTIONS else method
        curve(memory, select(tables["stream"], method=method), "memory", **STYLES[method], label=label)
    feature_axis(memory, distinct(tables["stream"], "memory"))
    value_axis(memory)
    memory.set(title="causal streams", xlabel="rows in memory", ylabel="relative error, median and quartiles of heads")
    size = settings["num_keys"][len(settings["num_keys"]) // 2]
    for method in (*STREAMS, FITTED, *EVICTIONS):
        curve(along, select(tables["positions"], method=method, num_keys=size), "stop", bars=False, **STYLES[method])
    value_axis(along)
    along.set(title=f"along the stream, {3 * size} rows", xlabel="up to position")
    for method, (color, factor, marker) in WHOLE.items():
        rows = [row | {"cost": factor * row["size"]} for row in select(tables["whole"], method=method)]
        name = "clusters" if method == "clustered" else method
        curve(whole, rows, "cost", color=color, marker=marker, label=f"no mask: {name}")
    feature_axis(whole, (16, 32, 64, 128))
    value_axis(whole)
    whole.set(title=f"{settings['whole_length']} positions, no mask", xlabel="cost in features")
    handles = [*memory.get_legend_handles_labels()[0], *whole.get_legend_handles_labels()[0]]
    legend_below(figure, handles, columns=3)
    return {"compressed_stream": figure}


def curve(axes: Axes, rows: list[Record], column: str, *, bars: bool = True, **style: Any) -> None:
    """Median error of the heads against a column, with quartiles."""
    groups = grouped(rows, column)
    low, middle, high = np.quantile(
        [[row["error"] for row in found] for found in groups.values()], [0.25, 0.5, 0.75], axis=1
    )
    around = np.stack([middle - low, high - middle]) if bars else None
    axes.errorbar(list(groups), middle, yerr=around, elinewidth=0.7, **style)
