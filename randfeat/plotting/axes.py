"""Axes and colors that the pictures share."""

from collections.abc import Iterable
from typing import Any

from randfeat._hints import described, how_to_install

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito (2008): colors that color-blind readers can tell apart."""
APART = 1.3
"""Least ratio of two numbers on a logarithmic axis whose labels do not touch."""
MARKERS = ("o", "s", "^", "v", "D", "P", "X")


def axes_of(ax: Any) -> Any:
    """The given axes, or the current ones of pyplot; without upper and right borders, with a light grid."""
    if ax is None:
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError(f"randfeat.plotting needs matplotlib: {how_to_install('plot')}.") from error
        ax = pyplot.gca()
    elif getattr(ax, "name", None) != "rectilinear":
        raise TypeError(f"ax must be axes of matplotlib with lines at right angles, got {described(ax)}.")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#e4e4e4", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def look(index: int) -> dict[str, Any]:
    """Color and marker of the curve with this number."""
    return {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}


def feature_axis(ax: Any, num_features: Iterable[float]) -> None:
    """A logarithmic axis over numbers of features, labelled with those that are not too near to each other."""
    from matplotlib.ticker import NullLocator

    ticks: list[float] = []
    for width in sorted(num_features):
        if not ticks or width >= APART * ticks[-1]:
            ticks.append(float(width))
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("number of features")


def value_axis(ax: Any) -> None:
    """A logarithmic axis of values with plain numbers; labels beside the powers of 10 only within two decades."""
    from matplotlib.ticker import LogFormatter, LogLocator

    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_formatter("{x:g}")
    if high / low < 100:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(0, 0)))
