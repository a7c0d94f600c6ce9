"""What the trainings and the measured steps say, and their figure."""

import math
import statistics
from collections.abc import Iterator
from typing import Any

from scipy import stats

from experiments.experiment import Results, Summary, Tables, Verdict, reported
from experiments.figures import feature_axis, legend_below, new_figure, value_axis
from experiments.tables import select

FALSE_ALARM = 1e-3
SLOPE = (0.85, 1.15)
STYLES: dict[str, dict[str, Any]] = {
    "exact": {"color": "#000000", "marker": "o"},
    "linear": {"color": "#0072B2", "marker": "s"},
}


def accuracies(tables: Tables, task: str, attention: str) -> list[float]:
    rows = tables["accuracy"]
    return [row["accuracy"] for row in rows if (row["task"], row["attention"]) == (task, attention)]


def cost(tables: Tables, attention: str, column: str) -> dict[int, float]:
    return {row["length"]: row[column] for row in tables["cost"] if row["attention"] == attention}


def slope(values: dict[int, float]) -> float:
    """Growth between the two longest lengths: the exponent of the length."""
    first, last = sorted(values)[-2:]
    return math.log(values[last] / values[first]) / math.log(last / first)


def verdicts(tables: Tables, settings: Any) -> Iterator[Verdict]:
    trainings = len(tables["accuracy"])
    for task in settings.tasks:
        for attention in settings.attentions:
            rows = select(tables["accuracy"], task=task, attention=attention)
            chance = max(row["majority"] for row in rows)
            limits = [stats.binom.isf(FALSE_ALARM / trainings, row["examples"], chance) for row in rows]
            yield Verdict(
                claim=f"{task}: {attention} attention learns",
                expected=f"every repetition better than the most frequent label ({chance:.3f}) by more than luck "
                f"explains: false alarms in {FALSE_ALARM:g} of runs",
                measured=", ".join(f"{row['accuracy']:.3f}" for row in rows),
                holds=all(row["right"] > limit for row, limit in zip(rows, limits, strict=True)),
            )
        exact, linear = (accuracies(tables, task, attention) for attention in ("exact", "linear"))
        differences = [b - a for a, b in zip(exact, linear, strict=True)]
        yield reported(
            f"{task}: accuracy of linear less exact attention, same weights at the start and same batches",
            ", ".join(f"{difference:+.3f}" for difference in differences),
        )
    memory = {attention: slope(cost(tables, attention, "peak_bytes")) for attention in settings.attentions}
    seconds = {attention: slope(cost(tables, attention, "seconds")) for attention in settings.attentions}
    yield Verdict(
        claim="memory of a training step with linear attention is linear in the length",
        expected=f"exponent between the two longest lengths: 1, within {SLOPE[0]} .. {SLOPE[1]}",
        measured=f"{memory['linear']:.2f}",
        holds=SLOPE[0] <= memory["linear"] <= SLOPE[1],
    )
    yield reported(
        "exponents between the two longest lengths: memory of exact attention; time of exact, of linear",
        f"{memory['exact']:.2f}; {seconds['exact']:.2f}, {seconds['linear']:.2f}",
        expected="nothing claimed: PyTorch computes exact attention in blocks; times are this machine's",
    )


def summaries(tables: Tables, settings: Any) -> list[Summary]:
    accuracy = []
    for task in settings.tasks:
        majority = max(row["majority"] for row in tables["accuracy"] if row["task"] == task)
        medians = (statistics.median(accuracies(tables, task, attention)) for attention in settings.attentions)
        accuracy.append((task, *(f"{value:.3f}" for value in medians), f"{majority:.3f}"))
    costs = []
    for length in settings.cost_lengths:
        steps = (f"{1 / cost(tables, name, 'seconds')[length]:.1f}" for name in settings.attentions)
        megabytes = (f"{cost(tables, name, 'peak_bytes')[length] / 2**20:.1f}" for name in settings.attentions)
        costs.append((str(length), *steps, *megabytes))
    return [
        Summary("accuracy", ("task", *settings.attentions, "most frequent label"), tuple(accuracy)),
        Summary(
            "a training step with one sequence",
            (
                "length",
                *(f"{name}, steps/s" for name in settings.attentions),
                *(f"{name}, MiB" for name in settings.attentions),
            ),
            tuple(costs),
        ),
    ]


def plot(results: Results) -> dict[str, Any]:
    tables, tasks = results.tables, list(results.settings["tasks"])
    figure = new_figure(9.6, 3.4)
    left, middle, right = figure.subplots(1, 3)
    for shift, (attention, style) in zip((-0.12, 0.12), STYLES.items(), strict=True):
        for position, task in enumerate(tasks):
            values = accuracies(tables, task, attention)
            left.plot([position + shift] * len(values), values, **style, linestyle="")
    for position, task in enumerate(tasks):
        majority = max(row["majority"] for row in tables["accuracy"] if row["task"] == task)
        left.plot([position - 0.3, position + 0.3], [majority] * 2, color="#777777", linestyle=":")
    left.set_xticks(range(len(tasks)), tasks)
    left.set(title="accuracy; dotted: most frequent label", ylim=(0, 1))
    for axes, column, unit, title in (
        (middle, "seconds", 1.0, "seconds of a training step"),
        (right, "peak_bytes", 2.0**20, "MiB of its tensors"),
    ):
        for attention, style in STYLES.items():
            costs = cost(tables, attention, column)
            lengths = sorted(costs)
            axes.plot(lengths, [costs[n] / unit for n in lengths], **style, label=f"{attention} attention")
        feature_axis(axes, lengths)
        value_axis(axes)
        axes.set(title=title, xlabel="length")
    legend_below(figure, middle.get_legend_handles_labels()[0], columns=2)
    return {"long_range": figure}
