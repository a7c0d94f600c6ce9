"""Squared distances: by expanding the square, one matrix product, or by differences, which nothing cancels in."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from randfeat._array import Array, broadcast_shapes, cast, device_of, dtype_name, either, namespace, squared_norm

LARGE = 2.0**10  # squares, over ℓ², from which the rounding errors of their expansion count
EXACT_IN_FLOAT32 = 2.0**26  # the same for an expansion in float64: with smaller errors, 1 - error rounds to 1
CANCELLATION = 8.0  # the most that an expansion of such large squares may cancel


def sqdist(x: Array, y: Array, length_scale: float) -> Array:
    """`|x_i - y_j|² / ℓ²`, (..., n, d), (..., k, d) -> (..., n, k), never negative; expanded where that is accurate.

    Let r² be the sum of the squared distances of x_i and y_j from the mean of y, over ℓ². The expansion errs by less
    than `2 (d + 8) eps r²`. It is taken if all `r² <= 1024`, or if no squared distance is below `r²/8`. Otherwise
    float32 NumPy arrays are expanded in float64, where `r² <= 2^26`, and all others are subtracted coordinate by
    coordinate, which takes longer. If x and y have equally many rows, x_i and y_i are always subtracted.
    """
    expansion = Expansion.of(x, y, length_scale)
    total = either(
        expansion.is_small(LARGE),
        lambda: expansion.values,
        lambda: either(expansion.cancels_little(), lambda: expansion.values, lambda: far_sqdist(x, y, length_scale)),
    )
    return with_diagonal(total, x, y, length_scale) if x.shape[-2] == y.shape[-2] else total


@dataclass(frozen=True, eq=False)
class Expansion:
    """`|a|² + |b|² - 2 a·b` for a, b the vectors from the mean of y, over ℓ; a NaN in y spoils its own column only."""

    values: Array
    row_squares: Array
    column_squares: Array

    @classmethod
    def of(cls, x: Array, y: Array, length_scale: float) -> Self:
        xp = namespace(x)
        finite = xp.isfinite(y)
        count = xp.maximum(xp.sum(cast(finite, y.dtype), axis=-2, keepdims=True), 1.0)
        origin = xp.sum(xp.where(finite, y, 0.0), axis=-2, keepdims=True) / count
        x, y = x - origin, y - origin
        if length_scale != 1:
            x, y = x / length_scale, y / length_scale
        with np.errstate(over="ignore", invalid="ignore"):  # then it is not used
            rows, columns = squared_norm(x), xp.matrix_transpose(squared_norm(y))
            values = rows + columns - 2 * (x @ xp.matrix_transpose(y))
        if isinstance(values, np.ndarray):
            return cls(np.maximum(values, 0.0, out=values), rows, columns)
        return cls(xp.where(values < 0, xp.zeros_like(values), values), rows, columns)

    def is_small(self, largest: float) -> Array:
        """Whether all |a|² + |b|² are at most this; those that are NaN do not count."""
        xp = namespace(self.values)
        return ~(xp.any(self.row_squares > largest / 2) | xp.any(self.column_squares > largest / 2))

    def cancels_little(self) -> Array:
        """Whether all |a|² + |b|² are finite and at most 8 times the value, but for x_i and y_i."""
        xp = namespace(self.values)
        n, k = self.values.shape[-2:]
        cancelled = CANCELLATION * self.values < self.row_squares + self.column_squares
        if n == k:
            cancelled = cancelled & ~xp.eye(n, dtype=xp.bool, device=device_of(self.values))
        largest = float(xp.finfo(self.values.dtype).max) / 4
        return self.is_small(largest) & ~xp.any(cancelled)


def far_sqdist(x: Array, y: Array, length_scale: float) -> Array:
    """The squared distances of float32 NumPy arrays by expansion in float64 if that suffices; else by differences."""
    if isinstance(x, np.ndarray) and dtype_name(x.dtype) == "float32":
        expansion = Expansion.of(x.astype(np.float64), y.astype(np.float64), length_scale)
        if expansion.is_small(EXACT_IN_FLOAT32):
            return expansion.values.astype(np.float32)
    return differenced_sqdist(x, y, length_scale)


def with_diagonal(total: Array, x: Array, y: Array, length_scale: float) -> Array:
    """The squared distances with those of x_i and y_i from differences: exactly 0 where the vectors are equal."""
    xp = namespace(total)
    difference = x - y if length_scale == 1 else (x - y) / length_scale
    diagonal = squared_norm(difference)[..., 0]
    if isinstance(total, np.ndarray):
        np.einsum("...ii->...i", total)[...] = diagonal
        return total
    identity = xp.eye(total.shape[-1], dtype=xp.bool, device=device_of(total))
    return xp.where(identity, diagonal[..., None], total)


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
    lead = broadcast_shapes(tuple(x.shape[:-2]), tuple(y.shape[:-2]))
    dtype = xp.result_type(x.dtype, y.dtype)
    return xp.zeros((*lead, x.shape[-2], y.shape[-2]), dtype=dtype, device=device_of(x))
