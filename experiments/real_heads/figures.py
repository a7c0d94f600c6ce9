"""The figure of real_heads, drawn from its tables."""

import statistics
from typing import Any

import numpy as np

from experiments.experiment import Results
from experiments.figures import Axes, entry, feature_axis, legend_below, new_figure, value_axis
from experiments.real_heads.measure import METHODS, OPERATORS
from experiments.real_heads.verdicts import medians
from experiments.tables import distinct, grouped, select

COLORS = ("#000000", "#777777", "#CC79A7", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2")
STYLES = dict(zip(METHODS, zip(COLORS, "oXPDv^s*", strict=True), strict=True))
COMPRESSED = dict(zip(OPERATORS, zip(("#882255", "#117733", "#332288"), "Hd8", strict=True), strict=True))
LEAST = 1e-6  # below, the output is exact up to rounding
LOWEST = 0.005  # of the axis: quartiles of exact outputs go below it


def plot(results: Results) -> dict[str, Any]:
    widths = results.settings["num_features"]
    families = distinct(results.tables["heads"], "family")
    columns, lines = min(3, len(families)), 1 + (len(families) - 1) // 3
    figure = new_figure(3.0 * columns, 2.7 * lines + 1.0)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes, name in zip(panels, families, strict=False):
        for method, (color, marker) in STYLES.items():
            errors = [medians(results.tables, width)[name, method] for width in widths]
            curve(axes, widths, errors, color=color, marker=marker, alpha=0.8)
        of_model = grouped(select(results.tables["operators"], family=name), "method")
        for method, rows in of_model.items():
            by_cost = grouped(rows, "cost")
            errors = [[row["median"] for row in found] for found in by_cost.values()]
            color, marker = COMPRESSED[method]
            curve(axes, list(by_cost), errors, color=color, marker=marker, linewidth=2, markersize=6)
        average = [r["average_of_values_error"] for r in results.tables["heads"] if r["family"] == name]
        axes.axhline(statistics.median(average), color="#000000", linestyle=":")
        feature_axis(axes, (16, *widths))
        axes.set(title=f"{name}, {len(average)} head{'s' * (len(average) > 1)}", xlabel="cost in features")
    for axes in panels[len(families) :]:
        axes.set_visible(False)
    panels[0].set_ylim(bottom=LOWEST)
    value_axis(panels[0])
    figure.supylabel("relative error of the output, median and quartiles of heads", fontsize=9)
    handles = [entry(method, color=c, marker=m) for method, (c, m) in {**STYLES, **COMPRESSED}.items()]
    handles.append(entry("average of the values", color="#000000", linestyle=":"))
    legend_below(figure, handles, columns=4)
    return {"real_heads": figure}


def curve(axes: Axes, costs: list[float], errors: list[list[float]], **style: Any) -> None:
    """Medians of heads against the cost, with quartiles where there are several heads; exact outputs are left out."""
    shown = [(cost, *np.quantile(values, [0.25, 0.5, 0.75])) for cost, values in zip(costs, errors, strict=True)]
    shown = [point for point in shown if point[2] > LEAST]
    if not shown:
        return
    cost, low, middle, high = np.array(shown).T
    several = len(errors[0]) > 2
    bars = np.stack([np.minimum(middle - low, 0.99 * middle), high - middle]) if several else None
    axes.errorbar(cost, middle, yerr=bars, elinewidth=0.7, **style)
