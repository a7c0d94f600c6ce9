"""The figures of simplex, drawn from its tables."""

from typing import Any

from experiments.experiment import Results
from experiments.figures import Figure, entry, feature_axis, legend_below, new_figure, value_axis
from experiments.palette import COUPLING_STYLES, VERMILION
from experiments.simplex.measure import BANDWIDTHS, CHAIN
from experiments.tables import select

STYLES: dict[str, dict[str, Any]] = {name: COUPLING_STYLES[name] for name in ("orthogonal", "simplex")}
STYLES["simplex-plus"] = {"color": VERMILION, "marker": "v"}


def plot(results: Results) -> dict[str, Figure]:
    return {"simplex": errors(results), "classification": accuracies(results)}


def errors(results: Results) -> Figure:
    """Ratios against the number of rows: lines closed form, points measured."""
    distances, widths = results.settings["distances"], results.settings["num_rows"]
    figure = new_figure(2.6 * len(distances) + 0.4, 3.3)
    for axes, distance in zip(
        figure.subplots(1, len(distances), squeeze=False, sharey=True)[0], distances, strict=True
    ):
        axes.axhline(1, color=COUPLING_STYLES["independent"]["color"])
        for name, kind in STYLES.items():
            rows = select(results.tables["errors"], coupling=name, distance=distance)
            x = [row["num_rows"] for row in rows]
            if name != "simplex-plus":
                axes.plot(x, [row["expected"] for row in rows], color=kind["color"])
            bars = [2 * row["standard_error"] for row in rows]
            axes.errorbar(x, [row["ratio"] for row in rows], yerr=bars, **kind, linestyle="none", elinewidth=0.8)
        axes.set_title(f"|x + y|² = {distance:g}")
        feature_axis(axes, [width for width in widths if width in (16, 64, 256) or len(widths) < 5])
        axes.set_xlabel("rows m")
    value_axis(figure.axes[0])
    figure.axes[0].set_ylabel("error over that of independent rows")
    handles = [entry("independent", color=COUPLING_STYLES["independent"]["color"])]
    handles += [
        entry(name, linestyle="none" if name == "simplex-plus" else "-", **kind) for name, kind in STYLES.items()
    ]
    legend_below(figure, handles, columns=len(handles))
    return figure


def accuracies(results: Results) -> Figure:
    """Differences to independent rows, one panel for each data set and bandwidth."""
    names = results.settings["datasets"]
    figure = new_figure(2.1 * len(names) + 0.6, 4.9)
    panels = figure.subplots(len(BANDWIDTHS), len(names), squeeze=False, sharex=True, sharey="row")
    for line, bandwidth in zip(panels, BANDWIDTHS, strict=True):
        for axes, dataset in zip(line, names, strict=True):
            chosen = select(results.tables["accuracies"], dataset=dataset, bandwidth=bandwidth)
            axes.axhline(0, color=COUPLING_STYLES["independent"]["color"])
            for index, (name, kind) in enumerate(STYLES.items()):
                rows = select(chosen, coupling=name)
                x = [row["multiple"] * 1.08 ** (index - 1) for row in rows]
                gains, bars = ([100 * row[column] for row in rows] for column in GAINS)
                axes.errorbar(x, gains, yerr=[2 * bar for bar in bars], **kind, linestyle="none", elinewidth=0.8)
            first = chosen[0]
            axes.set_title(f"{dataset}, d = {first['dim']}\nmedian |x + y|² = {first['median_sum']:.3g}")
            feature_axis(axes, results.settings["multiples"])
        line[0].set_ylabel(f"{bandwidth} bandwidth\naccuracy gained (points)")
    for axes in panels[-1]:
        axes.set_xlabel("m/d")
    handles = [entry("independent", color=COUPLING_STYLES["independent"]["color"])]
    handles += [entry(name, linestyle="none", **kind) for name, kind in STYLES.items()]
    legend_below(figure, handles, columns=len(CHAIN))
    return figure


GAINS = ("over_independent", "over_independent_error")
