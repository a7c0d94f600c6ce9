"""The figures of quadrature, drawn from its tables."""

from typing import Any

import numpy as np

from experiments.experiment import Results
from experiments.figures import Figure, entry, feature_axis, legend_below, new_figure, style_handles, value_axis
from experiments.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION
from experiments.quadrature.measure import KERNELS, RIDGE_METHODS, methods
from experiments.quadrature.verdicts import curve

STYLES: dict[str, dict[str, Any]] = {
    "independent": {"color": BLACK, "marker": "o"},
    "orthogonal": {"color": BLUE, "marker": "s"},
    "antithetic": {"color": ORANGE, "marker": "D"},
    "spherical-radial": {"color": VERMILION, "marker": "v"},
    "random radius": {"color": SKY, "marker": "X"},
    "random radius, real": {"color": GREY, "marker": "p"},
    "Sobol'": {"color": GREEN, "marker": "^"},
    "Gauss-Hermite": {"color": PURPLE, "marker": "P"},
}


def plot(results: Results) -> dict[str, Figure]:
    return {"quadrature": grams(results), "ridge": ridge(results)}


def grams(results: Results) -> Figure:
    """Relative Frobenius error against the width: lines closed form, points measured."""
    names = results.settings["datasets"]
    figure = new_figure(2.9 * len(names) + 0.4, 2.3 * len(KERNELS) + 0.6)
    grid = figure.subplots(len(KERNELS), len(names), squeeze=False, sharex="col")
    for row, kernel in enumerate(KERNELS):
        for axes, dataset in zip(grid[row], names, strict=True):
            for method, kind in STYLES.items():
                own = curve(results.tables["errors"], dataset=dataset, kernel=kernel, method=method)
                if not own:
                    continue
                axes.plot(own["num_rows"], np.sqrt(own["expected"]), color=kind["color"])
                root = np.sqrt(own["squared_error"])  # its standard error: that of the square over twice the root
                axes.errorbar(
                    own["num_rows"], root, yerr=own["standard_error"] / root, **kind, linestyle="none", elinewidth=0.8
                )
            axes.set_title(f"{dataset}, {kernel}")
            value_axis(axes)
            base = curve(results.tables["errors"], dataset=dataset, kernel=kernel, method="independent")
            feature_axis(
                axes, {*base["num_rows"], *([256] if "Gauss-Hermite" in methods(kernel, base["dim"][0]) else [])}
            )
        grid[row, 0].set_ylabel("relative error")
    for axes in grid[-1]:
        axes.set_xlabel("rows m")
    legend_below(figure, style_handles(STYLES, STYLES), columns=4)
    return figure


def ridge(results: Results) -> Figure:
    """Score against the width; dotted lines are the exact kernels."""
    names, widths = results.settings["ridge_datasets"], results.settings["ridge_widths"]
    figure = new_figure(3.6 * len(names) + 0.4, 3.4)
    for axes, dataset in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for index, (kernel, method) in enumerate(RIDGE_METHODS):
            own = curve(results.tables["scores"], dataset=dataset, kernel=kernel, method=method)
            moved = own["num_features"] * 1.04 ** (index - (len(RIDGE_METHODS) - 1) / 2)
            kind = STYLES[method] | ({} if kernel == "gaussian" else {"markerfacecolor": "white", "linestyle": "--"})
            axes.errorbar(moved, own["score"], yerr=2 * own["standard_error"], **kind, elinewidth=0.8)
            dotted = ":" if kernel == "gaussian" else "-."
            axes.axhline(own["exact"][0], color="#777777", linestyle=dotted, linewidth=0.8)
        axes.set_title(dataset)
        feature_axis(axes, widths)
        axes.set_xlabel("num_features")
    for axes, name in zip(figure.axes, names, strict=True):
        axes.set_ylabel("accuracy" if name == "letter" else "explained variance")
    handles = [
        entry(f"{kernel}, {method}", **STYLES[method] | ({} if kernel == "gaussian" else OPEN))
        for kernel, method in RIDGE_METHODS
    ]
    handles += [
        entry(f"exact {kernel}", color="#777777", linewidth=0.8, linestyle=dash)
        for kernel, dash in (("gaussian", ":"), ("arc-cosine 1", "-."))
    ]
    legend_below(figure, handles, columns=3)
    return figure


OPEN = {"markerfacecolor": "white", "linestyle": "--"}
