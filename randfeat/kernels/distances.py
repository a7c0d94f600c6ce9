"""Squared distances: by expanding the square, one matrix product, or by differences, which nothing cancels in."""

from collections.abc import Iterator

import numpy as np

from randfeat._array import Array, cast, device_of, namespace, squared_norm


def expanded_sqdist(x: Array, y: Array, length_scale: float) -> Array:
    """`|x_i - y_j|² / ℓ²`, (..., n, d), (..., k, d) -> (..., n, k), by `|a|² + |b|² - 2 a·b` about the mean of y.

    Absolute error a few eps times the squared distances from there, over ℓ²; never negative.
    """
    xp = namespace(x)
    finite = xp.isfinite(y)  # a NaN in y spoils its own column only
    count = xp.maximum(xp.sum(cast(finite, y.dtype), axis=-2, keepdims=True), 1.0)
    origin = xp.sum(xp.where(finite, y, 0.0), axis=-2, keepdims=True) / count
    x, y = x - origin, y - origin
    if length_scale != 1:
        x, y = x / length_scale, y / length_scale
    sqdist = squared_norm(x) + xp.matrix_transpose(squared_norm(y)) - 2 * (x @ xp.matrix_transpose(y))
    return xp.where(sqdist < 0, xp.zeros_like(sqdist), sqdist)


def differenced_sqdist(x: Array, y: Array, length_scale: float) -> Array:
    """The same from differences, coordinate by coordinate: relative error a few eps, exactly 0 for equal vectors."""
    total = zeros_of_gram(x, y)
    for difference in coordinate_differences(x, y, length_scale):
        total = total + difference * difference
    return total


def coordinate_differences(x: Array, y: Array, length_scale: float) -> Iterator[Array]:
    """`(x_il - y_jl) / ℓ` for each coordinate l, (..., n, k)."""
    for coordinate in range(x.shape[-1]):
        difference = x[..., :, None, coordinate] - y[..., None, :, coordinate]
        yield difference if length_scale == 1 else difference / length_scale


def zeros_of_gram(x: Array, y: Array) -> Array:
    """Zeros of the shape, dtype and device of a Gram matrix."""
    xp = namespace(x, y)
    lead = np.broadcast_shapes(tuple(x.shape[:-2]), tuple(y.shape[:-2]))
    dtype = xp.result_type(x.dtype, y.dtype)
    return xp.zeros((*lead, x.shape[-2], y.shape[-2]), dtype=dtype, device=device_of(x))
