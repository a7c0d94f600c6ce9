"""The figure of data_sets: errors of scikit-learn's pipelines relative to ours."""

import numpy as np

from experiments.data_sets.settings import EXACT, NYSTROEM, SAMPLER
from experiments.data_sets.verdicts import difference
from experiments.experiment import Results
from experiments.figures import Figure, entry, legend_below, new_figure
from experiments.palette import BLUE, GREEN, VERMILION
from experiments.tables import distinct, select

STYLES = {
    SAMPLER: {"color": VERMILION, "marker": "o"},
    NYSTROEM: {"color": BLUE, "marker": "s"},
    EXACT: {"color": GREEN, "marker": "^"},
}


def plot(results: Results) -> dict[str, Figure]:
    """Differences from our error in percentage points, with two standard errors: one panel for each width."""
    rows = results.tables["errors"]
    names, widths = distinct(rows, "dataset"), distinct(rows, "width")
    figure = new_figure(max(3.9 * len(widths) + 0.8, 6.0), 0.36 * len(names) + 1.3)
    for axes, width in zip(figure.subplots(1, len(widths), squeeze=False, sharey=True)[0], widths, strict=True):
        axes.axvline(0, color="0.3", linewidth=0.9)
        for index, (other, style) in enumerate(STYLES.items()):
            found = [difference(select(rows, dataset=name, width=width), other) for name in names]
            means, spreads = (100 * np.array(column) for column in zip(*found, strict=True))
            places = np.arange(len(names)) + 0.2 * (index - 1)
            axes.errorbar(means, places, xerr=2 * spreads, **style, linestyle="none", elinewidth=0.8)
        axes.set_title(f"{width} features")
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xticks([-10, -1, 0, 1, 10], ["−10", "−1", "0", "1", "10"])
        axes.set_xlabel("error less randfeat's (percentage points)")
    figure.axes[0].set_yticks(range(len(names)), names)
    figure.axes[0].invert_yaxis()
    handles = [entry(name, linestyle="none", **style) for name, style in STYLES.items()]
    legend_below(figure, handles, columns=len(handles))
    return {"data_sets": figure}
