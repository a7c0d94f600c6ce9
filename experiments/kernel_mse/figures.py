"""The figure of kernel_mse, drawn from its tables."""

from typing import Any

import numpy as np
from scipy.special import ndtr

from experiments.experiment import Record, Results, Tables
from experiments.figures import Figure, error_bars, feature_axis, new_figure, stacked, style_handles, value_axis
from experiments.kernel_mse.measure import distance_name
from experiments.palette import COUPLING_STYLES, GREY
from experiments.tables import columns, grouped, select


def plot(results: Results) -> dict[str, Figure]:
    tables, settings = results.tables, results.settings
    estimators, distances = settings["estimators"], settings["distances"]
    figure = new_figure(2.8 * len(estimators) + 0.8, 2.0 * len(distances) + 4.2)
    top, bottom = stacked(figure, [2.0 * len(distances), 3.1])
    grid = top.subplots(len(distances), len(estimators), sharex=True, squeeze=False)
    for row, distance in enumerate(distances):
        for column, estimator in enumerate(estimators):
            panel(grid[row, column], tables, settings, estimator, distance)
    for axes in grid[-1]:
        axes.set_xlabel("num_features")
    for axes in grid[:, 0]:
        axes.set_ylabel("num_features · relative MSE")
    title = "Relative MSE times num_features, d = {dim}: lines closed form, points Monte Carlo with 2 standard errors"
    top.suptitle(title.format(dim=settings["dim"]))
    rows = tables.get("large", [])
    large = sorted({row["distance"] for row in rows})
    panels = bottom.subplots(1, len(large) + 1, squeeze=False)[0]
    for axes, distance in zip(panels, large, strict=False):
        large_panel(axes, select(rows, distance=distance))
        axes.set_title(f"positive, u = {distance:g}, d = {settings['large_dim']}: variance by the Gram formula")
    normal_panel(panels[-1], tables)
    handles = style_handles(COUPLING_STYLES, settings["couplings"])
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return {"kernel_mse": figure}


def panel(axes: Any, tables: Tables, settings: Record, estimator: str, distance: float) -> None:
    """One estimator at one distance, all couplings."""
    for coupling in settings["couplings"]:
        kind = COUPLING_STYLES[coupling]
        curve, points = (
            select(tables[name], estimator=estimator, coupling=coupling, distance=distance)
            for name in ("curves", "points")
        )
        width, error = columns(curve, "num_features", "relative_mse")
        axes.plot(width, width * error, color=kind["color"])
        width, measured, error = columns(points, "num_features", "relative_mse", "standard_error")
        error_bars(axes, width, width * measured, width * error, **kind)
    value_axis(axes)
    feature_axis(axes, settings["num_features"])
    axes.set_title(f"{estimator}, {distance_name(estimator)} = {distance:g}")


def large_panel(axes: Any, rows: list[Record]) -> None:
    """Positive features at a large distance, relative to independent rows."""
    names = ("num_features", "expected", "independent", "relative_mse", "standard_error")
    for coupling, own in grouped(rows, "coupling").items():
        width, expected, independent, measured, error = columns(own, *names)
        kind = COUPLING_STYLES[coupling]
        axes.plot(width, expected / independent, color=kind["color"])
        error_bars(axes, width, measured / independent, error / independent, **kind)
    value_axis(axes)
    feature_axis(axes, sorted({row["num_features"] for row in rows}))
    axes.set(xlabel="num_features", ylabel="MSE over that of independent rows")


def normal_panel(axes: Any, tables: Tables) -> None:
    """All deviations together: their distribution function against the normal one."""
    z = np.sort([row["z"] for row in [*tables["points"], *tables.get("large", [])]])
    grid = np.linspace(-4, 4, 400)
    axes.plot(grid, ndtr(grid), color=GREY)
    axes.step(z, (np.arange(z.size) + 0.5) / z.size, where="mid", color="#000000", linewidth=1)
    axes.set(
        xlim=(-4, 4),
        xlabel="z = (measured - closed form) / standard error",
        ylabel="share of points below",
        title=f"all {z.size} points; grey: normal",
    )
