"""Figures of sampled_softmax."""

from typing import Any

import numpy as np

from experiments.experiment import Results
from experiments.figures import legend_below, new_figure, value_axis
from experiments.palette import BLACK, BLUE, GREY, ORANGE, SKY, VERMILION
from experiments.sampled_softmax.settings import FITTED, PLAIN
from experiments.tables import select


def plot(results: Results) -> dict[str, Any]:
    return {"sampled_softmax": overview(results), "sampled_softmax_convergence": convergence(results)}


def overview(results: Results) -> Any:
    """Distance and bias against τ, time against the number of classes."""
    figure = new_figure(10, 3.6)
    panels = figure.subplots(1, 3)
    width = max(results.settings["num_features"])
    curves = {
        "uniform": {"color": BLACK, "marker": "o"},
        "quadratic": {"color": ORANGE, "marker": "D"},
        PLAIN: {"color": SKY, "marker": "s"},
        FITTED: {"color": BLUE, "marker": "^"},
    }
    handles: list[Any] = []
    titles = ("total variation from the softmax", "relative bias of the gradient, one negative")
    for axes, column, title in zip(panels, ("total_variation", "bias_of_one"), titles, strict=False):
        handles = []
        for law, look in curves.items():
            rows = [row for row in select(results.tables["laws"], law=law) if row["num_features"] in (0, width)]
            label = f"{width} {law}" if rows[0]["num_features"] else law
            handles += axes.plot([row["tau"] for row in rows], [row[column] for row in rows], label=label, **look)
        axes.set_xscale("log", base=2)
        axes.set_xticks([row["tau"] for row in rows], [f"{row['tau']:g}" for row in rows])
        value_axis(axes)
        axes.set(xlabel="τ", title=title)
    for sampler, color, marker in (("tree", BLUE, "^"), ("Gumbel-max", VERMILION, "v")):
        rows = select(results.tables["speed"], sampler=sampler)
        sizes, times = ([row[column] for row in rows] for column in ("num_classes", "processor"))
        handles += panels[2].loglog(sizes, np.multiply(1e6, times), color=color, marker=marker, label=sampler)
    panels[2].set(xlabel="classes", title="processor time for a draw [µs]")
    legend_below(figure, handles, columns=6)
    return figure


def convergence(results: Results) -> Any:
    """Distance against the number of features, bias against the number of negatives."""
    figure = new_figure(9.5, 3.9)
    left, right = figure.subplots(1, 2)
    colors = (BLACK, BLUE, SKY, ORANGE, VERMILION)
    handles = []
    for tau, color in zip(results.settings["taus"], colors, strict=False):
        rows = select(results.tables["laws"], law=PLAIN, tau=tau)
        widths, values, errors, lines = (
            [row[column] for row in rows]
            for column in ("num_features", "total_variation", "standard_error", "predicted")
        )
        handles.append(
            left.errorbar(
                widths, values, yerr=2 * np.asarray(errors), color=color, marker="o", linestyle="", label=f"τ = {tau:g}"
            )
        )
        if max(lines) <= 1:
            left.plot(widths, lines, color=color)
    left.set_xscale("log", base=2)
    left.set_xticks(widths, [str(width) for width in widths])
    value_axis(left)
    left.set(xlabel="features", title="total variation, plain features (lines: delta method)")
    for law, color, marker in (("uniform", BLACK, "s"), ("tree", BLUE, "^")):
        rows = select(results.tables["gradients"], law=law)
        numbers = sorted({row["num_negatives"] for row in rows})
        values, lines, noise = (
            [np.mean([row[column] for row in rows if row["num_negatives"] == s]) for s in numbers]
            for column in ("squared_bias", "first_order", "root_mean_square")
        )
        count = len(rows) / len(numbers)
        errors = [
            np.sqrt(np.sum([row["standard_error"] ** 2 for row in rows if row["num_negatives"] == s])) / count
            for s in numbers
        ]
        resolved = [i for i in range(len(numbers)) if values[i] > 2 * errors[i]]
        roots = np.sqrt([values[i] for i in resolved])
        handles.append(
            right.errorbar(
                [numbers[i] for i in resolved],
                roots,
                yerr=[errors[i] / roots[k] for k, i in enumerate(resolved)],
                color=color,
                marker=marker,
                linestyle="",
                label=f"bias, {law}",
            )
        )
        right.plot(numbers, np.sqrt(lines), color=color)
        handles += right.plot(numbers, noise, color=color, linestyle=":", label=f"one gradient, {law}")
    handles += right.plot([], [], color=GREY, label="first order")
    right.set_xscale("log", base=2)
    right.set_xticks(numbers, [str(number) for number in numbers])
    value_axis(right)
    right.set(
        xlabel="negatives s", title=f"relative bias and error of the gradient, τ = {results.settings['tree_tau']:g}"
    )
    legend_below(figure, handles, columns=5)
    return figure
