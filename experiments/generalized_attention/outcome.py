"""What the trainings say, and their figure."""

import statistics
from collections.abc import Iterator
from typing import Any

from experiments.experiment import Results, Summary, Tables, Verdict, reported
from experiments.figures import entry, legend_below, new_figure
from experiments.tables import select

POSITIVE = ("relu", "exp", "sigmoid", "abs")
COLORS = {
    "softmax": "#000000",
    "relu": "#D55E00",
    "exp": "#0072B2",
    "sigmoid": "#009E73",
    "abs": "#E69F00",
    "trig": "#CC79A7",
}
WAYS = {True: "renormalized", False: "plain sums"}


def verdicts(tables: Tables, settings: Any) -> Iterator[Verdict]:
    positive = [name for name in settings.functions if name in POSITIVE]
    rows = [row for name in positive for row in select(tables["trainings"], function=name, renormalized=True)]
    broken = [row for row in rows if row["diverged"]]
    yield Verdict(
        claim=f"renormalized attention with positive features ({', '.join(positive)}) does not break down",
        expected="0 trainings: outputs are convex combinations of the values",
        measured=f"{len(broken)} of {len(rows)}",
        holds=not broken,
    )
    for name in settings.functions:
        counts = []
        for way, label in WAYS.items():
            rows = select(tables["trainings"], function=name, renormalized=way)
            counts.append(f"{sum(row['diverged'] for row in rows)} of {len(rows)} {label}")
        yield reported(
            f"{name}: trainings that break down (loss not finite, or above that of equal probabilities)",
            ", ".join(counts),
        )
    for task in settings.tasks:
        medians = {
            (row["function"], row["renormalized"]): accuracy(tables, task, row["function"], row["renormalized"])
            for row in select(tables["trainings"], task=task)
        }
        order = sorted(medians, key=lambda arm: -medians[arm])
        yield reported(
            f"{task}: functions from best to worst, median accuracy",
            ", ".join(f"{name}{'' if way else ' (sums)'} {medians[name, way]:.2f}" for name, way in order),
        )


def accuracy(tables: Tables, task: str, function: str, renormalized: bool) -> float:
    rows = select(tables["trainings"], task=task, function=function, renormalized=renormalized)
    return statistics.median(row["accuracy"] for row in rows)


def summaries(tables: Tables, settings: Any) -> list[Summary]:
    result = []
    for way, label in WAYS.items():
        names = [name for name in ("softmax", *settings.functions) if way or name != "softmax"]
        rows = [(name, *(f"{accuracy(tables, task, name, way):.3f}" for task in settings.tasks)) for name in names]
        result.append(Summary(f"accuracy, {label}", ("function", *settings.tasks), tuple(rows)))
    return result


def plot(results: Results) -> dict[str, Any]:
    tables, tasks = results.tables, results.settings["tasks"]
    names = ["softmax", *results.settings["functions"]]
    figure = new_figure(9.6, 3.4)
    for axes, task in zip(figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0], tasks, strict=True):
        for position, name in enumerate(names):
            for way, shift, fill in ((True, -0.15, "full"), (False, 0.15, "none")):
                rows = select(tables["trainings"], task=task, function=name, renormalized=way)
                for row in rows:
                    marker = "x" if row["diverged"] else "o"
                    axes.plot(position + shift, row["accuracy"], marker=marker, fillstyle=fill, color=COLORS[name])
        axes.set_xticks(range(len(names)), names, rotation=30)
        axes.set(title=task, ylim=(-0.03, 1.03), ylabel="accuracy on held-out sequences" if task == tasks[0] else "")
    handles = [
        entry("renormalized", color="#777777", linestyle="", marker="o"),
        entry("plain sums", color="#777777", linestyle="", marker="o", fillstyle="none"),
        entry("broken down", color="#777777", linestyle="", marker="x"),
    ]
    legend_below(figure, handles, columns=3)
    return {"generalized_attention": figure}
