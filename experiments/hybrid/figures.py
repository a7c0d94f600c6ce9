"""The figures of hybrid, drawn from its tables."""

from typing import Any

import numpy as np

from experiments.experiment import Results
from experiments.figures import Figure, error_bars, feature_axis, legend_below, new_figure, style_handles, value_axis
from experiments.hybrid.measure import METHODS, PRINTED
from experiments.palette import BLUE, GREEN, ORANGE, PURPLE, VERMILION
from experiments.tables import columns, select

STYLES: dict[str, dict[str, Any]] = {
    "trig": {"color": GREEN, "marker": "^"},
    "positive": {"color": BLUE, "marker": "o"},
    "hyp+": {"color": VERMILION, "marker": "s"},
    "angular hybrid": {"color": PURPLE, "marker": "D"},
    "complex exponential": {"color": ORANGE, "marker": "P"},
}


def plot(results: Results) -> dict[str, Figure]:
    return {"hybrid": angles(results), "clusters": clusters(results)}


def angles(results: Results) -> Figure:
    """Relative error against the angle at each length: lines closed form, points measured."""
    lengths, width = results.settings["lengths"], results.settings["width"]
    figure = new_figure(3.1 * len(lengths) + 0.4, 3.4)
    for axes, length in zip(figure.subplots(1, len(lengths), squeeze=False, sharey=True)[0], lengths, strict=True):
        for name in PRINTED:
            rows = select(results.tables["angles"], estimator=name, length=length)
            angle, expected, measured, error = columns(rows, "angle", "expected", "measured", "standard_error")
            positive, root = expected > 1e-9, np.sqrt(measured)
            axes.plot(angle[positive], np.sqrt(expected[positive]), color=STYLES[name]["color"])
            error_bars(axes, angle, root, error / (2 * root), **STYLES[name])  # d√x = dx / 2√x
        axes.set_xticks([0, np.pi / 2, np.pi], ["0", "π/2", "π"])
        axes.set(xlabel="angle", title=f"length r = {length:g}", yscale="log")
    value_axis(figure.axes[0])
    figure.axes[0].set_ylabel(f"relative error, {width} features")
    legend_below(figure, style_handles(STYLES, PRINTED), columns=len(PRINTED))
    return figure


def clusters(results: Results) -> Figure:
    """Mean squared relative error against the width for each spread."""
    spreads, widths = results.settings["spreads"], results.settings["cluster_widths"]
    figure = new_figure(3.1 * len(spreads) + 0.4, 3.4)
    for axes, spread in zip(figure.subplots(1, len(spreads), squeeze=False, sharey=True)[0], spreads, strict=True):
        for method in METHODS:
            rows = select(results.tables["clusters"], method=method, spread=spread)
            width, expected, measured, error = columns(rows, "width", "expected", "measured", "standard_error")
            axes.plot(width, expected, color=STYLES[method]["color"])
            error_bars(axes, width, measured, error, **STYLES[method])
        axes.set(title=f"spread {spread:g}", yscale="log")
        feature_axis(axes, widths)
        axes.set_xlabel("feature dimension")
    value_axis(figure.axes[0])
    figure.axes[0].set_ylabel("mean squared relative error")
    legend_below(figure, style_handles(STYLES, METHODS), columns=len(METHODS))
    return figure
