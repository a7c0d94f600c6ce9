"""The figure of language_model, drawn from its tables."""

from typing import Any

import numpy as np

from experiments.experiment import Results
from experiments.figures import Figure, feature_axis, legend_below, new_figure, value_axis
from experiments.language_model.documents import KINDS
from experiments.language_model.settings import ARMS, CUT, EXACT, FEATURES, FITTED, MERGED, METHODS, TEXTS
from experiments.language_model.verdicts import SMOOTHING, documents_of, mean_and_error, nats, smoothed
from experiments.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION

STYLES: dict[str, dict[str, Any]] = {
    MERGED: {"color": BLUE, "marker": "o"},
    FITTED: {"color": SKY, "marker": "P"},
    "sinks + window": {"color": GREY, "marker": "^"},
    "heavy hitters": {"color": ORANGE, "marker": "D"},
    "SnapKV-like": {"color": PURPLE, "marker": "v"},
    FEATURES: {"color": VERMILION, "marker": "s"},
}


def plot(results: Results) -> dict[str, Figure]:
    tables, settings = results.tables, results.settings
    figure = new_figure(10.0, 4.0)
    *panels, right = figure.subplots(1, 3)
    for axes, kind in zip(panels, KINDS, strict=True):
        exact = nats(tables["losses"], EXACT, settings["length"], kind)
        for method in METHODS:
            lost = [nats(tables["losses"], method, memory, kind) - exact for memory in settings["memories"]]
            means, errors = np.array([mean_and_error(values) for values in lost]).T
            axes.errorbar(settings["memories"], means, yerr=2 * errors, elinewidth=0.8, label=method, **STYLES[method])
        lost_by_cut = np.mean(nats(tables["losses"], CUT, settings["cut"], kind) - exact)
        axes.axhline(lost_by_cut, color=BLACK, linestyle=":", label=f"exact, last {settings['cut']} characters only")
        feature_axis(axes, settings["memories"])
        if all(line > 0 for line in axes.dataLim.intervaly):
            value_axis(axes)
        axes.set(title=documents_of(kind), xlabel="rows for each key head")
    panels[0].set(ylabel="nats per character above exact attention")
    for text, line in zip(TEXTS, ("-", "--"), strict=True):
        for arm, color in zip(ARMS, (BLACK, GREEN), strict=True):
            curves = smoothed(tables, arm, text)
            steps = (np.arange(curves.shape[1]) + 0.5) * SMOOTHING
            mean, spread = curves.mean(axis=0), curves.std(axis=0, ddof=1)
            right.plot(steps, mean, color=color, linestyle=line, label=f"{arm}, {text}")
            right.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
    value_axis(right)
    right.set(title="small models, trained from the start", xlabel="step", ylabel="nats per character")
    handles = [*panels[0].get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    legend_below(figure, handles, columns=4)
    return {"language_model": figure}
