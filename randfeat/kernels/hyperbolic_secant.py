"""The hyperbolic secant law of frequencies, and pairs of coordinates: what the chi-squared kernels share.

`sech(t/2) = E[cos(w t)]` for w of the density `sech(πw)`. With `t = log a - log b` it is `2 √(ab)/(a + b)`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from randfeat._array import Array, is_compiling, namespace


def half_secant(squares: Any) -> Any:
    """`sech(t/2)` from t², which may be infinite."""
    xp = namespace(squares)
    decay = xp.exp(-xp.sqrt(squares) / 2)
    return 2 * decay / (1 + decay * decay)


def secant_frequencies(rows: np.ndarray) -> np.ndarray:
    """Variables of density `sech(πw)` from standard normal ones, by their distribution functions.

    The distribution function is `(2/π) arctan(e^{πw})`, so `w = log(tan(π Φ(g)/2))/π`, an odd and increasing function
    of g: rows that fill space evenly, or that are negatives of one another, stay so.
    """
    from scipy.special import ndtr

    tails = np.maximum(ndtr(-np.abs(rows)), np.finfo(np.float64).tiny)  # at most 1/2, with all digits far out
    return -np.sign(rows) * np.log(np.tan(np.pi / 2 * tails)) / np.pi


def ratio(a: Array, b: Array) -> Array:
    """The smaller over the larger of two numbers that are not negative; 0 if both are 0."""
    xp = namespace(a, b)
    larger = xp.maximum(a, b)
    return xp.minimum(a, b) / xp.where(larger == 0, xp.ones_like(larger), larger)


def coordinate_pairs(x: Array, y: Array) -> Iterator[tuple[Array, Array]]:
    """The l-th coordinates of all rows of x and of all rows of y, to broadcast to (..., n, k), for each l."""
    for coordinate in range(x.shape[-1]):
        yield x[..., :, None, coordinate], y[..., None, :, coordinate]


def is_any(condition: Array) -> bool:
    """Whether an entry is true; False while a function is traced, as there are no values yet."""
    if is_compiling(condition):
        return False
    try:
        return bool(namespace(condition).any(condition))
    except (TypeError, RuntimeError):
        return False
