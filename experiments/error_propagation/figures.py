"""The figures of error_propagation, drawn from its tables."""

import statistics
from typing import Any

from experiments.error_propagation.model import FEATURES, NUM_LAYERS, PropagationSettings, Replacement, operators
from experiments.error_propagation.verdicts import losses, searched, words
from experiments.experiment import Results
from experiments.figures import Figure, feature_axis, legend_below, new_figure, value_axis
from experiments.palette import BLUE, ESTIMATOR_STYLES, GREY, ORANGE, PURPLE, SKY
from experiments.tables import select

COLORS = dict(zip(FEATURES, (ESTIMATOR_STYLES["trig pairs"], ESTIMATOR_STYLES["hyp+"]), strict=True))


def settings_of(results: Results) -> PropagationSettings:
    """The settings of the run, with tuples for lists."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in results.settings.items()}
    return PropagationSettings(**values)


def operator_styles(settings: PropagationSettings) -> dict[Replacement, dict[str, Any]]:
    """A color and a marker for each cache and each number of clusters."""
    colors = (PURPLE, BLUE, SKY, ORANGE)
    markers = {"merged keys": "D", "clustered": "s"}
    chosen = operators(settings)
    return {of: {"color": colors[i % 4], "marker": markers[of.method]} for i, of in enumerate(chosen)}


def plot(results: Results) -> dict[str, Figure]:
    return {"error_propagation": propagation(results), "retrieval": retrieval(results)}


def propagation(results: Results) -> Figure:
    """Loss of the embedding: one layer replaced, the first layers, all layers against the width."""
    tables, settings = results.tables, settings_of(results)
    widths, tokens, layers = settings.num_features, settings.num_tokens, range(1, NUM_LAYERS + 1)
    figure = new_figure(9.6, 4.0)
    alone, growing, wide = figure.subplots(1, 3)
    for axes, which in ((alone, "one"), (growing, "first")):
        floor = losses(tables, Replacement("average"), which, tokens)
        axes.plot(layers, floor, color=GREY, linestyle=":", label="average of the values")
        for method in FEATURES:
            for width, line in zip((min(widths), max(widths)), ("--", "-"), strict=True):
                values = losses(tables, Replacement(method, width), which, tokens)
                axes.plot(layers, values, **COLORS[method], linestyle=line, label=f"{method}, {width} features")
        for of, style in operator_styles(settings).items():
            axes.plot(layers, losses(tables, of, which, tokens), **style, label=words(of))
        value_axis(axes)
    alone.set(title="attention of one layer replaced", xlabel="layer", ylabel="1 - cosine to the exact embedding")
    growing.set(title="attention of the first layers replaced", xlabel="number of layers")
    for method in FEATURES:
        ends = select(tables["embeddings"], method=method, replaced="first", layer=NUM_LAYERS, num_tokens=tokens)
        medians = [losses(tables, Replacement(method, width), "first", tokens)[-1] for width in widths]
        wide.plot(widths, medians, **{**COLORS[method], "marker": ""})
        for row in ends:
            wide.plot(row["size"], 1 - row["cosine"], color=COLORS[method]["color"], marker=".", alpha=0.5)
    for of, style in operator_styles(settings).items():
        wide.axhline(losses(tables, of, "first", tokens)[-1], color=style["color"], linestyle="-", linewidth=1)
    wide.axhline(losses(tables, Replacement("average"), "first", tokens)[-1], color=GREY, linestyle=":")
    feature_axis(wide, widths)
    value_axis(wide)
    wide.set(title="all layers replaced: passages and draws", xlabel="features")
    legend_below(figure, alone.get_legend_handles_labels()[0], columns=4)
    return figure


def retrieval(results: Results) -> Figure:
    """Share of the exact model's nearest documents that are kept, for each kind of attention."""
    found = {name: rows for name, rows in searched(results.tables).items() if name[0] != "exact"}
    names = [words(Replacement(*name)).replace("average", "average of the values") for name in found]
    figure = new_figure(7.0, 0.38 * len(names) + 1.0)
    axes = figure.subplots()
    for offset, column, color, label in (
        (0.2, "kept", BLUE, "5 nearest documents kept"),
        (-0.2, "same_first", ORANGE, "same nearest document"),
    ):
        shares = [statistics.mean(row[column] for row in rows) for rows in found.values()]
        axes.barh([len(names) - i + offset for i in range(len(names))], shares, height=0.38, color=color, label=label)
    axes.set_yticks([len(names) - i for i in range(len(names))], names)
    axes.set(xlim=(0, 1), xlabel="share of phrases, or of documents near a phrase")
    axes.grid(visible=False, axis="y")
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=2)
    return figure
