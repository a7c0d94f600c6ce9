"""plot_error_curve, plot_attention_error: measured errors against the number of features."""

from typing import Any

import numpy as np

from randfeat._hints import described, hinted
from randfeat.montecarlo import ErrorCurve
from randfeat.plotting.axes import axes_of, feature_axis, look, value_axis

LABELS = {
    "relative_mse": "relative mean squared error",
    "relative_bias": "relative bias",
    "relative_sup": "largest relative error",
    "mse": "mean squared error",
    "bias": "bias",
    "sup": "largest error",
    "error": "relative error of the output",
    "median_error": "relative error of the output, median",
}


@hinted
def plot_error_curve(curve: ErrorCurve, measure: str | None = None, *, ax: Any = None) -> Any:
    """Draw one measure of an `ErrorCurve` against the number of features, and return the axes.

    measure : by default the first one, `relative_mse` for kernel values and `error` for attention.
    ax : axes of matplotlib; by default the current ones of pyplot.

    Points are measured, with intervals of two standard errors. Lines are the closed form where it is known; where none
    is, a dotted line joins the points. Both axes are logarithmic, but for a bias, which has a sign.

    >>> import numpy as np, randfeat as rf
    >>> x, y = np.random.default_rng(0).standard_normal((2, 50, 8)) / 4
    >>> estimator = rf.PositiveFeatures()
    >>> curve = rf.montecarlo.error_curve(estimator, x, y, num_features=[16, 64], num_draws=20, rng=0)
    >>> from matplotlib.figure import Figure
    >>> ax = plot_error_curve(curve, ax=Figure().subplots())
    >>> ax.get_ylabel()
    'relative mean squared error'
    """
    if not isinstance(curve, ErrorCurve):
        raise TypeError(f"curve must be an ErrorCurve, from randfeat.montecarlo.error_curve, got {described(curve)}.")
    measure = curve.measures[0] if measure is None else measure
    measured, ax = curve[measure], axes_of(ax)
    exact = curve.closed_forms.get(measure, np.full(measured.value.shape, np.nan))
    order = np.argsort(curve.num_features)
    widths = curve.num_features[order]
    for i, name in enumerate(curve.names):
        value, bars, known = measured.value[i, order], 2 * measured.standard_error[i, order], exact[i, order]
        style, has_form = look(i), not np.all(np.isnan(known))
        ax.errorbar(widths, value, yerr=bars, linestyle="none" if has_form else ":", elinewidth=0.8, label=name,
                    markersize=4, linewidth=0.8, **style)  # fmt: skip
        if has_form:
            ax.plot(widths, known, color=style["color"], linewidth=1.3)
    feature_axis(ax, widths)
    if "bias" in measure:
        ax.axhline(0, color="#777777", linewidth=0.8)
    elif np.any(measured.value > 0):  # logarithms of zeros and NaN have no axis
        value_axis(ax)
    ax.set_ylabel(LABELS.get(measure, measure))
    ax.legend(frameon=False)
    return ax


@hinted
def plot_attention_error(curve: ErrorCurve, measure: str = "error", *, ax: Any = None) -> Any:
    """`plot_error_curve` of attention outputs, with the error of the plain average of the values as a dotted line.

    A curve above the line is worse than no features at all. curve : of `error_curve(..., query=, key=, value=)`.

    >>> import numpy as np, randfeat as rf
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 100, 8))
    >>> curve = rf.montecarlo.error_curve(
    ...     rf.PositiveFeatures(), query=q, key=k, value=v, num_features=[16, 64], num_draws=10, rng=0
    ... )
    >>> from matplotlib.figure import Figure
    >>> ax = plot_attention_error(curve, ax=Figure().subplots())
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['average of the values', 'PositiveFeatures']
    """
    if isinstance(curve, ErrorCurve) and np.isnan(curve.average_error):
        raise ValueError(
            "this curve is of kernel values; use plot_error_curve, or give query, key, value to error_curve."
        )
    ax = plot_error_curve(curve, measure, ax=ax)
    ax.axhline(curve.average_error, color="#777777", linestyle="--", linewidth=1, label="average of the values")
    ax.legend(frameon=False)
    return ax
