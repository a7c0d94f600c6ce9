"""The figures of chefs_tables, drawn from its tables."""

from typing import Any

import numpy as np

from experiments.chefs_tables.measure import METHODS
from experiments.chefs_tables.verdicts import log_variances
from experiments.experiment import Results
from experiments.figures import Figure, entry, feature_axis, legend_below, new_figure, style_handles
from experiments.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION
from experiments.tables import select

STYLES: dict[str, dict[str, Any]] = {
    "trig": {"color": GREEN, "marker": "^"},
    "PRF": {"color": BLUE, "marker": "o"},
    "GERF": {"color": BLACK, "marker": "x"},
    "OPRF": {"color": ORANGE, "marker": "s"},
    "SADERF": {"color": PURPLE, "marker": "v"},
    "ADERF": {"color": VERMILION, "marker": "D"},
    "SDERF": {"color": SKY, "marker": "P"},
    "balanced SDERF": {"color": GREY, "marker": "*"},
}


def plot(results: Results) -> dict[str, Figure]:
    figures = {"chefs_tables": variances(results)}
    if results.tables.get("accuracies"):
        figures["classification"] = accuracies(results)
    return figures


def variances(results: Results) -> Figure:
    logs, scales = log_variances(results.tables), results.settings["scales"]
    regimes = list(dict.fromkeys(regime for regime, _ in logs))
    columns = min(4, len(regimes))
    rows = -(-len(regimes) // columns)
    figure = new_figure(2.9 * columns, 2.5 * rows + 0.7)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes, regime in zip(panels, regimes, strict=False):
        for method in METHODS:
            axes.plot(scales, [logs[regime, scale][method] for scale in scales], **STYLES[method])
        axes.set_title(regime)
    for axes in panels[len(regimes) :]:
        axes.set_visible(False)
    for index, axes in enumerate(panels[: len(regimes)]):
        axes.tick_params(labelbottom=True)
        if index % columns == 0:
            axes.set_ylabel("mean of ln(Var/K²)")
        if index + columns >= len(regimes):
            axes.set_xlabel("scale σ")
    legend_below(figure, style_handles(STYLES, METHODS), columns=4)
    return figure


def accuracies(results: Results) -> Figure:
    """One panel for each data set; the dotted line is the exact kernel."""
    rows = results.tables["accuracies"]
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    widths = sorted({row["num_features"] for row in rows})
    figure = new_figure(2.5 * len(names) + 0.4, 2.9)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for index, method in enumerate(methods):
            own = select(rows, dataset=name, method=method)
            bars = [2 * row["standard_error"] for row in own]
            moved = np.array([row["num_features"] for row in own]) * 1.06 ** (index - (len(methods) - 1) / 2)
            axes.errorbar(moved, [row["accuracy"] for row in own], yerr=bars, **STYLES[method], elinewidth=0.8)
            axes.axhline(own[0]["exact"], color=BLACK, linewidth=0.8, linestyle=":")
        feature_axis(axes, widths)
        axes.set(xlabel="num_features", title=name)
    figure.axes[0].set_ylabel("accuracy")
    legend = [*style_handles(STYLES, methods), entry("exact kernel", color=BLACK, linewidth=0.8, linestyle=":")]
    legend_below(figure, legend, columns=len(legend))
    return figure
