"""Distances of rows, and their squares: one matrix product where it is accurate, differences where it cancels."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from randfeat._array import (
    Array,
    broadcast_shapes,
    cast,
    device_of,
    dtype_name,
    either,
    has_values,
    namespace,
    replaced,
    squared_norm,
)

SMALL = 32.0  # squares r², over max(s, 1), whose expansion errs by few ulps
SMALL_IN_DOUBLE = SMALL * 2.0**29  # the same for an expansion in float64 that is then rounded to float32
IN_CACHE = 2**16  # entries of a matrix that several passes go over
PAIRS = 2**18  # numbers in the pairs of vectors that are subtracted at once


def sqdist(x: Array, y: Array, length_scale: Any) -> Array:
    """`|x_i - y_j|² / ℓ²`, (..., n, d), (..., k, d) -> (..., n, k), never negative.

    Error: at most `32 (d + 6) eps max(s, 1)` for a squared distance s over ℓ²: so many ulps of the squared distance, or
    of ℓ² where that is larger, whatever the offset of the data, and however far apart they are. eps is the spacing
    at 1, 1.2e-7 or 2.2e-16; d eps must be small.

    Proof: let a, b be the vectors from the mean of y, over ℓ, and r² = |a|² + |b|². Each is rounded twice, which
    changes s by at most 8 u r², u = eps/2. The three sums of d products err by 2 d u r², two additions by 3 u r². So
    the expansion `|a|² + |b|² - 2 a·b` errs by less than `(d + 6) eps r²`. It is taken where `r² <= 32 max(s, 1)`. All
    other pairs are subtracted, with errors of at most `(d + 4) eps s / 2`. If they are many, float32 NumPy arrays are
    expanded in float64, others are subtracted coordinate by coordinate, which takes longer. If x and y have equally
    many rows, x_i and y_i are always subtracted, so s is exactly 0 where they are equal.

    length_scale : ℓ, or an array (d,), one for each coordinate.

    Limits: `(x - y)/ℓ` must be in the range of the dtype. If its square is not, s is inf or 0.
    """
    expansion = Expansion.of(x, y, length_scale)
    total = either(
        ~expansion.has_above(SMALL / 2),
        expansion.values,
        lambda: corrected(expansion, x, y, length_scale),
    )
    return with_diagonal(total, x, y, length_scale) if x.shape[-2] == y.shape[-2] else total


def corrected(expansion: "Expansion", x: Array, y: Array, length_scale: Any) -> Array:
    """The expansion, with differences where it cancels; in a function that is traced, differences."""
    if not has_values(expansion.product):
        return differenced_sqdist(x, y, length_scale)
    total, wrong = expansion.values_and_cancelled(SMALL)
    if 8 * wrong.shape[0] <= math.prod(total.shape):
        return with_pairs(total, wrong, x, y, length_scale)
    if not isinstance(x, np.ndarray) or dtype_name(x.dtype) != "float32":
        return differenced_sqdist(x, y, length_scale)
    x, y = x.astype(np.float64), y.astype(np.float64)
    total, wrong = Expansion.of(x, y, length_scale).values_and_cancelled(SMALL_IN_DOUBLE)
    with np.errstate(over="ignore"):
        return with_pairs(total, wrong, x, y, length_scale).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Expansion:
    """`|a|²` (..., n, 1), `|b|²` (..., 1, k), `-2 a·b` (..., n, k) for a, b the vectors from the mean of y, over ℓ."""

    rows: Array
    columns: Array
    product: Array

    @classmethod
    def of(cls, x: Array, y: Array, length_scale: Any) -> Self:
        """The expansion for rows x and y; a NaN in y spoils its own column only."""
        xp = namespace(x)
        finite = xp.isfinite(y)
        count = at_least(xp.sum(cast(finite, y.dtype), axis=-2, keepdims=True), 1.0)
        with np.errstate(over="ignore", invalid="ignore"):  # such pairs are subtracted
            origin = xp.sum(xp.where(finite, y, 0.0), axis=-2, keepdims=True) / count
            x, y = over(x - origin, length_scale), over(y - origin, length_scale)
            return cls(squared_norm(x), xp.matrix_transpose(squared_norm(y)), (-2 * x) @ xp.matrix_transpose(y))

    def has_above(self, largest: float) -> Array:
        """Whether some |a|² or |b|² are larger; those that are NaN do not count."""
        xp = namespace(self.rows)
        return xp.any(self.rows > largest) | xp.any(self.columns > largest)

    def values(self) -> Array:
        """`max(|a|² + |b|² - 2 a·b, 0)`; a NumPy product is overwritten."""
        if isinstance(self.product, np.ndarray):
            for values, sums in self._parts():
                values += sums
                np.maximum(values, 0.0, out=values)
            return self.product
        return at_least(self.rows + self.columns + self.product, 0.0)

    def values_and_cancelled(self, small: float) -> tuple[Array, Array]:
        """The values s, and flat indices of pairs i ≠ j with `r² > small max(s, 1)`; not of those that are NaN.

        Pairs whose squares are out of range are among them.
        """
        xp, (n, k) = namespace(self.product), self.product.shape[-2:]
        in_range = not self.has_above(float(xp.finfo(self.product.dtype).max) / 8)
        if isinstance(self.product, np.ndarray) and in_range:
            values, pairs = self.product, self._add_and_find_cancelled(small)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                values, sums = self.values(), self.rows + self.columns
                limits = small * at_least(values, 1.0)
                wrong = limits < sums if in_range else ~((sums <= limits) | xp.isnan(sums))
            pairs = xp.nonzero(xp.reshape(wrong, (-1,)))[0]
        return values, pairs[pairs // k % n != pairs % k] if n == k else pairs

    def _add_and_find_cancelled(self, small: float) -> np.ndarray:
        """The cancelled pairs of NumPy arrays whose squares are in range; the product becomes the values."""
        found, start = [np.empty(0, np.int64)], 0
        for values, sums in self._parts():
            values += sums
            np.maximum(values, 0.0, out=values)
            limits = np.maximum(values, 1.0)
            limits *= small
            wrong = limits < sums
            if wrong.any():
                found.append(start + np.flatnonzero(wrong))
            start += values.size
        return np.concatenate(found)

    def _parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Parts of the product along its first axis that fit in cache, each with its `|a|² + |b|²`."""
        shape = self.product.shape
        rows = np.broadcast_to(self.rows, (*shape[:-1], 1))
        columns = np.broadcast_to(self.columns, (*shape[:-2], 1, shape[-1]))
        step = max(1, IN_CACHE * len(self.product) // max(self.product.size, 1))
        for start in range(0, len(self.product), step):
            part = slice(start, start + step)
            yield self.product[part], rows[part] + (columns if self.product.ndim == 2 else columns[part])


def at_least(values: Array, least: float) -> Array:
    """The larger of each value and a number."""
    xp = namespace(values)
    return xp.maximum(values, xp.asarray(least, dtype=values.dtype, device=device_of(values)))


def with_pairs(total: Array, pairs: Array, x: Array, y: Array, length_scale: Any) -> Array:
    """The squared distances (..., n, k) with those of some pairs, at flat indices, from differences."""
    if not pairs.shape[0]:
        return total
    xp, (n, k), dim = namespace(total), total.shape[-2:], x.shape[-1]
    x, y = (xp.reshape(xp.broadcast_to(z, (*total.shape[:-2], *z.shape[-2:])), (-1, dim)) for z in (x, y))
    rows, columns = pairs // k, pairs // (n * k) * k + pairs % k
    parts, step = [], max(1, PAIRS // dim)
    for start in range(0, pairs.shape[0], step):
        i, j = (index[start : min(start + step, pairs.shape[0])] for index in (rows, columns))
        difference = xp.take(x, i, axis=0) - xp.take(y, j, axis=0)
        parts.append(squared_norm(over(difference, length_scale))[:, 0])
    return xp.reshape(replaced(xp.reshape(total, (-1,)), pairs, xp.concat(parts)), total.shape)


def with_diagonal(total: Array, x: Array, y: Array, length_scale: Any) -> Array:
    """The squared distances with those of x_i and y_i from differences: exactly 0 where the vectors are equal."""
    xp = namespace(total)
    difference = over(x - y, length_scale)
    diagonal = squared_norm(difference)[..., 0]
    if isinstance(total, np.ndarray):
        np.einsum("...ii->...i", total)[...] = diagonal
        return total
    identity = xp.eye(total.shape[-1], dtype=xp.bool, device=device_of(total))
    return xp.where(identity, diagonal[..., None], total)


def differenced_sqdist(x: Array, y: Array, length_scale: Any) -> Array:
    """Squared distances from differences, coordinate by coordinate: relative error `(d + 4) eps / 2`."""
    total = zeros_of_gram(x, y)
    for difference in coordinate_differences(x, y, length_scale):
        total = total + difference * difference
    return total


def distance(x: Array, y: Array, length_scale: Any) -> Array:
    """`|x_i - y_j| / ℓ` (..., n, k): relative error `(d + 2) eps`, also where the square is out of range; slower."""
    return functools.reduce(hypotenuse, coordinate_differences(x, y, length_scale), zeros_of_gram(x, y))


def hypotenuse(a: Array, b: Array) -> Array:
    """`√(a² + b²)` for a >= 0 without squares; the derivative at 0 is taken to be 0, and NaN with infinity is NaN."""
    xp, total = namespace(a, b), a + abs(b)
    root = xp.hypot(xp.where(total == 0, xp.ones_like(total), a), b)
    return xp.where((total == 0) | xp.isnan(total), total, root)


def coordinate_differences(x: Array, y: Array, length_scale: Any) -> Iterator[Array]:
    """`(x_il - y_jl) / ℓ` for each coordinate l, (..., n, k)."""
    for coordinate in range(x.shape[-1]):
        difference = x[..., :, None, coordinate] - y[..., None, :, coordinate]
        yield over(difference, length_scale if isinstance(length_scale, float) else length_scale[coordinate])


def over(x: Array, length_scale: Any) -> Array:
    """`x / ℓ`, rounded once."""
    return x if isinstance(length_scale, float) and length_scale == 1 else x / length_scale


def zeros_of_gram(x: Array, y: Array) -> Array:
    """Zeros of the shape, dtype and device of a Gram matrix."""
    xp = namespace(x, y)
    lead = broadcast_shapes(tuple(x.shape[:-2]), tuple(y.shape[:-2]))
    dtype = xp.result_type(x.dtype, y.dtype)
    return xp.zeros((*lead, x.shape[-2], y.shape[-2]), dtype=dtype, device=device_of(x))
