"""Tables of where the heads of one call lie in memory, so that nothing is broadcast or copied."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import Array, cast, device_of, namespace
from randfeat.features import ExponentialForm
from randfeat.maps import FeatureMap

LOG2E = math.log2(math.e)
"""Exponents are in base 2 on the device."""


@dataclass(frozen=True, eq=False)
class Matrices:
    """Matrices (..., n, c) with any strides but adjacent columns, as a kernel takes them: memory and row stride."""

    array: Array
    stride: int

    @classmethod
    def of(cls, x: Array) -> "Matrices":
        """Wrap `x`, or a copy of it if its columns are not adjacent."""
        itemsize = x.dtype.itemsize
        if x.strides[-1] != itemsize or any(stride % itemsize for stride in x.strides):
            x = namespace(x).ascontiguousarray(x)
        return cls(x, x.strides[-2] // itemsize)


def offsets(x: Array, lead: tuple[int, ...], trailing: int = 2) -> np.ndarray:
    """Offsets of the heads from the start of `x`, in items, with its leading dimensions broadcast to `lead`."""
    leading = x.ndim - trailing
    starts = np.zeros(lead, np.int64)
    for axis, (size, stride) in enumerate(zip(x.shape[:leading], x.strides[:leading], strict=True)):
        if size > 1:
            along = np.arange(size, dtype=np.int64) * (stride // x.dtype.itemsize)
            starts += along.reshape(size, *(1 for _ in range(leading - axis - 1)))
    return starts.ravel()


def map_numbers(batch_shape: tuple[int, ...], lead: tuple[int, ...]) -> np.ndarray:
    """The index of each head's map in a batch of maps."""
    numbers = np.arange(math.prod(batch_shape), dtype=np.int64).reshape(batch_shape)
    return np.broadcast_to(numbers, lead).ravel()


@dataclass(frozen=True, eq=False)
class Side:
    """The exponential form of all maps, for queries or for keys, in base 2.

    rows (*batch, m, d), origin (*batch, 1, d), log_weights (*batch, 1, m), contiguous. factor : inputs times it are in
    kernel units.
    """

    rows: Array
    origin: Array
    log_weights: Array
    factor: float
    form: ExponentialForm

    @classmethod
    def of(cls, features: FeatureMap, factor: float, dtype: Any, *, keys: bool) -> "Side | None":
        """The form of one side, or None if the features are no exponentials."""
        arrays = {name: cast(array, dtype) for name, array in features.arrays.items()}
        form = FeatureMap(features.estimator, features.dim, features.num_features, arrays).exponential_form(keys=keys)
        if form is None:
            return None
        xp, batch, width = namespace(form.rows), features.batch_shape, features.num_features

        def laid_out(x: Array, *shape: int) -> Array:
            return xp.ascontiguousarray(xp.broadcast_to(x, (*batch, *shape)))

        origin = form.origin
        if origin is None:
            origin = xp.zeros((1, features.dim), dtype=dtype, device=device_of(form.rows))
        return cls(
            laid_out(form.rows * LOG2E, width, features.dim),
            laid_out(origin, 1, features.dim),
            laid_out(form.log_weights * LOG2E, 1, width),
            factor,
            form,
        )

    def per_row(self, x: Array) -> Array:
        """`r(x)` of inputs (..., n, d): (..., n, 1), contiguous."""
        return namespace(x).ascontiguousarray(self.form.per_row(x * self.factor) * LOG2E)
