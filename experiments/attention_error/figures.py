"""Figures of attention_error, drawn from its tables."""

import statistics
from typing import Any

import numpy as np

import randfeat as rf
from experiments.attention_error.verdicts import ALLOWED_PER_SPREAD, VALID_SPREAD, count_heads, over_heads
from experiments.experiment import Record, Results, Tables
from experiments.figures import Figure, entry, feature_axis, legend_below, new_figure, stacked, value_axis
from experiments.palette import COUPLING_STYLES, ESTIMATOR_STYLES, GREY
from experiments.tables import columns, distinct, grouped, select

SHOWN_PREDICTION = 0.5
TOP_RATIO = 10.0
HEAD_CURVES = {
    ("positive", "orthogonal"): ESTIMATOR_STYLES["positive"],
    ("hyp+", "orthogonal"): ESTIMATOR_STYLES["hyp+"],
    ("positive", "constant norms"): COUPLING_STYLES["constant norms"],
}
AVERAGE: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 1.2}
PREDICTION: dict[str, Any] = {"color": "#000000", "linestyle": ":", "linewidth": 1.6}


def plot(results: Results) -> dict[str, Figure]:
    return {
        "attention_error": by_model(results.tables),
        "attention_error_heads": by_head(results.tables),
        "attention_error_prediction": prediction(results.tables),
    }


def by_model(tables: Tables) -> Figure:
    """A row per estimator, a column per model: the median error over heads under each coupling."""
    models = distinct(tables["heads"], "model")
    estimators = distinct(tables["draws"], "estimator")
    figure = new_figure(2.9 * len(models) + 0.6, 2.5 * len(estimators) + 0.9)
    grid = figure.subplots(len(estimators), len(models), sharex=True, sharey="row", squeeze=False)
    couplings: dict[str, None] = {}
    shown = False
    for row, estimator in enumerate(estimators):
        for column, model in enumerate(models):
            axes = grid[row, column]
            heads = select(tables["heads"], model=model)
            drawn = select(tables["draws"], model=model, estimator=estimator)
            for coupling, draws in grouped(drawn, "coupling").items():
                couplings[coupling] = None
                median_curve(axes, over_heads(draws), COUPLING_STYLES[coupling], label=coupling)
            axes.axhline(statistics.median(row["average_of_values_error"] for row in heads), **AVERAGE)
            shown |= prediction_curve(axes, select(tables["predictions"], model=model, estimator=estimator))
            feature_axis(axes, sorted({row["num_features"] for row in drawn}))
            value_axis(axes)
            if row == 0:
                axes.set_title(f"{model}, {count_heads(len(heads))}")
            if row == len(estimators) - 1:
                axes.set_xlabel("num_features")
        grid[row, 0].set_ylabel(f"{estimator}\nrelative error of the output")
    handles = [line(COUPLING_STYLES[name], name) for name in couplings]
    legend_below(figure, [*handles, *reference_handles(shown)], columns=5)
    figure.suptitle("Attention on trained heads: median over draws, bands are its 95 % intervals", fontsize=10)
    return figure


def by_head(tables: Tables) -> Figure:
    """One panel per head, for positive features of three kinds."""
    heads = tables["heads"]
    across = min(6, len(heads))
    rows = -(-len(heads) // across)
    figure = new_figure(2.1 * across + 0.5, 1.9 * rows + 0.8)
    grid = figure.subplots(rows, across, sharex=True, sharey=True, squeeze=False)
    shown, kinds = False, []
    for (estimator, coupling), style in HEAD_CURVES.items():
        cells = select(tables["errors"], estimator=estimator, coupling=coupling)
        if cells:
            kinds.append(line(style, f"{estimator}, {coupling}"))
        for axes, head in zip(grid.flat, heads, strict=False):
            of_head = select(cells, head=head["head"])
            width, median, low, high = columns(of_head, "num_features", "median", "low", "high")
            bars = [np.maximum(median - low, 0), np.maximum(high - median, 0)]
            axes.errorbar(width, median, yerr=bars, **style, linewidth=1)
    for axes, head in zip(grid.flat, heads, strict=False):
        axes.axhline(head["average_of_values_error"], **AVERAGE)
        shown |= prediction_curve(axes, select(tables["predictions"], head=head["head"], estimator="positive"))
        axes.set_title(f"{head['model']}: " + head["head"].partition("/")[2].replace("/", "\n"), fontsize=7.5)
        axes.tick_params(axis="x", labelrotation=60)
    feature_axis(grid[0, 0], {row["num_features"] for row in tables["errors"]})
    value_axis(grid[0, 0])
    for axes in list(grid.flat)[len(heads) :]:
        axes.set_visible(False)
    for axes in list(grid.flat)[len(heads) - across : len(heads)]:
        axes.tick_params(axis="x", labelbottom=True)
    for axes in grid[-1]:
        axes.set_xlabel("num_features")
    for axes in grid[:, 0]:
        axes.set_ylabel("relative error")
    legend_below(figure, [*kinds, *reference_handles(shown)], columns=3)
    figure.suptitle("Every head: median over draws with its 95 % interval", fontsize=10)
    return figure


def prediction(tables: Tables) -> Figure:
    """The delta method against measurement on softened heads: one head per model, and the ratio for all of them."""
    examples = [rows[0]["head"] for _, rows in grouped(tables["softened"], "model").items()]
    figure = new_figure(2.9 * len(examples) + 0.6, 7.2)
    top, bottom = stacked(figure, [1, 1.25])
    panels = top.subplots(1, len(examples), squeeze=False)[0]
    for axes, head in zip(panels, examples, strict=True):
        for estimator, rows in grouped(select(tables["softened"], head=head), "estimator").items():
            width, predicted, rms, error = columns(rows, "num_features", "predicted", "rms", "rms_standard_error")
            kind = ESTIMATOR_STYLES[estimator]
            axes.plot(width, predicted, color=kind["color"])
            axes.errorbar(width, rms, yerr=2 * error, **kind, linestyle="none")
            feature_axis(axes, width)
        model, _, name = head.partition("/")
        axes.set_title(f"{model}: {name}", fontsize=8)
        axes.set_xlabel("num_features")
        value_axis(axes)
    panels[0].set_ylabel("rms relative error")
    axes = bottom.subplots()
    every = [row["spread"] for row in tables["softened"]]
    spreads = np.geomspace(min(every), max(every), 200)
    allowed = ALLOWED_PER_SPREAD * spreads
    inside = spreads <= VALID_SPREAD * (1 + 1e-9)
    axes.fill_between(spreads[inside], 1 - allowed[inside], 1 + allowed[inside], color="#dddddd", linewidth=0)
    axes.axhline(1, color="#000000", linewidth=1)
    for index, (estimator, rows) in enumerate(grouped(tables["softened"], "estimator").items()):
        spread, ratio, error = columns(rows, "spread", "ratio", "ratio_standard_error")
        rng = np.random.default_rng(index)  # moves the points apart, for the eye only
        moved = spread * np.exp((index - 1) * 0.12 + rng.uniform(-0.045, 0.045, spread.size))
        axes.errorbar(
            moved,
            ratio,
            yerr=[np.minimum(2 * error, 0.9 * ratio), 2 * error],
            **ESTIMATOR_STYLES[estimator] | {"markersize": 3},
            linestyle="none",
            elinewidth=0.7,
            alpha=0.75,
        )
    axes.set(xscale="log", yscale="log", ylim=(0.4, TOP_RATIO))
    above = sum(row["ratio"] > TOP_RATIO for row in tables["softened"])
    if above:
        note = f"{above} of {len(tables['softened'])} cells above {TOP_RATIO:g}"
        axes.set_title(note, loc="right", fontsize=8)
    axes.set_yticks([0.5, 0.7, 1, 2, 5, 10])
    axes.set_xticks(sorted({float(f"{row['spread']:.1g}") for row in tables["softened"]}))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set(
        xlabel="spread s: mean relative variance of the kernel along an attention row, worst query",
        ylabel="measured / predicted rms error",
    )
    estimators = list(dict.fromkeys(row["estimator"] for row in tables["softened"]))
    handles: list[Any] = [line(ESTIMATOR_STYLES[name], name) for name in estimators]
    handles.append(entry("delta method: lines above, 1 below", color="#000000"))
    handles.append(entry(f"claimed: within {ALLOWED_PER_SPREAD:g} s of 1", linewidth=8, color="#dddddd"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figure.suptitle(
        "Softened heads (logits times a factor below 1), independent rows: points measured, bars 2 standard errors",
        fontsize=10,
    )
    return figure


def median_curve(axes: Any, curve: dict[int, np.ndarray], kind: dict[str, Any], *, label: str) -> None:
    """The median over draws with a band for its 95 % interval."""
    widths = sorted(curve)
    median, low, high = np.transpose([rf.montecarlo.ErrorSample(curve[m]).quantile(0.5, 0.95) for m in widths])
    axes.fill_between(widths, low, high, color=kind["color"], alpha=0.1, linewidth=0)
    axes.plot(widths, median, **kind, label=label)


def prediction_curve(axes: Any, rows: list[Record]) -> bool:
    """The delta method as the median over heads where it is small enough to mean anything; whether it was drawn."""
    drawn = False
    for _, of_estimator in grouped(rows, "estimator").items():
        points = [
            (width, statistics.median(row["predicted"] for row in same))
            for width, same in grouped(of_estimator, "num_features").items()
        ]
        points = [point for point in points if point[1] < SHOWN_PREDICTION]
        if points:
            axes.plot(*zip(*points, strict=True), **PREDICTION)
            drawn = True
    return drawn


def reference_handles(prediction_shown: bool) -> list[Any]:
    """Legend entries of the two lines that need no features."""
    note = "" if prediction_shown else f": above {SHOWN_PREDICTION:g} everywhere, not drawn"
    return [entry("average of the values", **AVERAGE), entry(f"delta method, independent rows{note}", **PREDICTION)]


def line(kind: dict[str, Any], label: str) -> Any:
    return entry(label, **kind)
