"""Axes and colors that the pictures share."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from randfeat._hints import described, how_to_install

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito (2008): colors that color-blind readers can tell apart."""
MARKERS = ("o", "s", "^", "v", "D", "P", "X")


def axes_of(ax: Any) -> Any:
    """The given axes, or the current ones of pyplot; without upper and right borders, with a light grid."""
    if ax is None:
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError(f"randfeat.plotting needs matplotlib: {how_to_install('plot')}.") from error
        ax = pyplot.gca()
    elif not hasattr(ax, "plot"):
        raise TypeError(f"ax must be axes of matplotlib, got {described(ax)}.")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#e4e4e4", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def look(index: int) -> dict[str, Any]:
    """Color and marker of the curve with this number."""
    return {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}


def feature_axis(ax: Any, num_features: Iterable[float]) -> None:
    """A logarithmic axis over numbers of features, labelled with them."""
    from matplotlib.ticker import NullLocator

    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(np.unique(list(num_features)).tolist()))
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("number of features")
