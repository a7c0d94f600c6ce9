"""num_features_for: the width that a relative error of a kernel value takes, from closed forms."""

from typing import Any

import numpy as np

from randfeat._array import as_host
from randfeat._hints import hinted, short
from randfeat.couplings.base import resolve_coupling
from randfeat.estimators.base import Estimator
from randfeat.kernels.base import check_positive

MOST_FEATURES = 2**40


@hinted
def num_features_for(
    estimator: Estimator, x: Any, y: Any, *, rel_error: float = 0.1, confidence: float = 0.95
) -> np.ndarray:
    """A number of features with `P(|K̂/K - 1| <= rel_error) >= confidence`, for each pair; x, y (..., d) broadcast.

    The proof is Chebyshev's inequality: the closed-form relative MSE is at most `(1 - confidence) rel_error²`. So the
    number holds for every distribution of the estimate. Estimates with nearly normal errors need fewer features, at a
    confidence of 95 % by a factor of 5.

    The result is the smallest such number if the variance decreases with every row. Blocks of orthogonal rows whose
    errors cancel almost exactly can make a smaller number possible. ValueError if no number is enough: for a bias that
    does not decrease, or above 2⁴⁰ features. NoClosedForm if the variance is not known.

    Limits: a kernel value has no upper bound, an output of attention has: positive features average the values, and
    errors that all keys share cancel. So attention may need far fewer features than its kernel values, and be better
    than the plain average where no number of features is enough here; see `predict_attention_error` and `recommend`.

    >>> from randfeat import HyperbolicFeatures
    >>> x = np.array([0.5, 0.0, 0.0])
    >>> int(num_features_for(HyperbolicFeatures(coupling="independent"), x, x, rel_error=0.1))
    2174
    """
    check_positive("rel_error", rel_error)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {short(confidence)}.")
    allowed = (1 - confidence) * rel_error**2
    x, y = np.broadcast_arrays(as_host(x, "x"), as_host(y, "y"))
    shape = x.shape[:-1]
    pairs = zip(x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1]), strict=True)
    needed = [width_at(estimator, a, b, allowed) for a, b in pairs]
    return np.asarray(needed, dtype=np.int64).reshape(shape)


def width_at(estimator: Estimator, x: np.ndarray, y: np.ndarray, allowed: float) -> int:
    """The least width whose relative MSE is at most `allowed`: doubled until it is, then bisected."""
    dim = x.shape[-1]

    def error(width: int) -> float:
        if estimator.nearest_num_features(width, dim) != (width,):  # a product of which one factor would get too little
            return np.inf
        with np.errstate(over="ignore", invalid="ignore"):  # infinite is not enough, and neither is NaN
            return float(estimator.relative_mse(x, y, num_features=width))

    rows, least = 1, np.inf
    while not (found := error(width := possible_width(estimator, rows, dim))) <= allowed:
        least, rows = min(found, least), 2 * rows
        wish = estimator.num_features(rows, dim)
        if width < wish // 4 or wish > MOST_FEATURES:
            raise ValueError(
                f"{estimator!r} does not reach a relative MSE of {allowed:.2g} at this pair: it is {least:.2g} with "
                f"{width} features; fit features to the data (randfeat.adapt), or allow more. This is the error of a "
                "kernel value; that of an attention output is bounded by the values: randfeat.predict_attention_error."
            )
    low, high = rows // 2, rows
    while high - low > 1:
        middle = (low + high) // 2
        enough = error(possible_width(estimator, middle, dim)) <= allowed
        low, high = (low, middle) if enough else (middle, high)
    return possible_width(estimator, high, dim)


def possible_width(estimator: Estimator, rows: int, dim: int) -> int:
    """The width of this number of rows, or the next that the coupling can have."""
    return estimator.num_features(resolve_coupling(estimator.coupling).nearest_num_rows(rows, dim)[-1], dim)
