"""One style for all figures: a palette that colour-blind readers can tell apart, legends outside the data.

Figures are matplotlib objects that belong to nobody else: no pyplot, no global state. Theory is drawn as lines,
measurements as points with intervals. matplotlib is imported by the functions that need it, so that experiments can
name their figures without it.
"""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.experiment import Experiment, Results

Figure = Any
Axes = Any

STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "svg.hashsalt": "randfeat",  # the same picture gives the same file
    "svg.fonttype": "none",  # text stays text: small files, in which a reader can search
}

METADATA: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
THUMBNAIL_WIDTH = 360  # pixels


def style() -> contextlib.AbstractContextManager[None]:
    """Figures made and saved within have this style; nothing outside changes."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, laid out by matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def stacked(figure: Figure, heights: Sequence[float]) -> list[Any]:
    """The figure cut into parts, one below the other."""
    return list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])


def feature_axis(axes: Axes, num_features: Iterable[float]) -> None:
    """A logarithmic axis over numbers of features, labelled with them."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(num_features))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_locator(NullLocator())


def value_axis(axes: Axes) -> None:
    """A logarithmic axis for values, with readable numbers also within one decade; call it when the data are drawn."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    if high / low < 50:
        wide, narrow = [1.0, 2.0, 5.0], [1.0, 1.5, 2.0, 3.0, 5.0, 7.0]
        subs = [x / 2 for x in range(2, 20)] if high / low < 1.6 else narrow if high / low < 6 else wide
        axes.yaxis.set_major_locator(LogLocator(subs=subs))


def error_bars(axes: Axes, x: Any, y: Any, standard_error: Any, **style: Any) -> None:
    """Measured points, each with an interval of two standard errors."""
    bars = 2 * np.asarray(standard_error)
    axes.errorbar(x, y, yerr=bars, **{"linestyle": "none", "elinewidth": 0.8, **style})


def entry(label: str, **style: Any) -> Any:
    """An entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **style)


def style_handles(styles: Mapping[str, dict[str, Any]], names: Iterable[str]) -> list[Any]:
    return [entry(name, **styles[name]) for name in names]


def legend_below(figure: Figure, handles: Sequence[Any], *, columns: int) -> None:
    """One legend for all panels, below them."""
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns)


def title(figure: Figure) -> str:
    """What stands above the figure, else above its parts, else above its panels, in one line; "" where nothing does."""
    above = [figure.get_suptitle()]
    parts = [part.get_suptitle() for part in figure.subfigs]
    panels = [axes.get_title() for axes in figure.axes]
    texts = next((texts for texts in (above, parts, panels) if any(texts)), [])
    return "; ".join(dict.fromkeys(" ".join(text.split()) for text in texts if text))


def draw(
    experiment: Experiment, results: Results, folder: Path, *, kinds: Sequence[str], thumbnail: str = ""
) -> tuple[dict[str, str], list[Path]]:
    """The figures of an experiment from its numbers, as files of these kinds; captions by name, and the paths.

    thumbnail : file for a small picture of the first figure.
    """
    captions: dict[str, str] = {}
    paths: list[Path] = []
    with style():
        for name, figure in experiment.plot(results).items():
            if thumbnail and not captions:
                paths.append(folder / thumbnail)
                save_thumbnail(figure, paths[-1])
            captions[name] = experiment.captions.get(name) or title(figure) or name
            for kind in kinds:
                paths.append(folder / f"{name}.{kind}")
                figure.savefig(paths[-1], dpi=150, metadata=METADATA[kind])
    return captions, paths


def save_thumbnail(figure: Figure, path: Path) -> None:
    """A small PNG of few colors."""
    from PIL import Image

    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=THUMBNAIL_WIDTH / figure.get_figwidth())
    Image.open(picture).convert("RGB").quantize(32).save(path, optimize=True)
