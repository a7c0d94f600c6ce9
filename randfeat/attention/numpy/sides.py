"""Sides: exponents of the features of all maps at once, for few rows of each."""

from dataclasses import dataclass

import numpy as np

from randfeat._array import cast
from randfeat.attention.numpy.arrangement import flat_maps
from randfeat.attention.numpy.exponents import Limits
from randfeat.attention.numpy.kept import KeptWithMap
from randfeat.features import ExponentialForm
from randfeat.maps import FeatureMap


@dataclass(frozen=True, eq=False)
class Side:
    """Exponents of the queries or of the keys of M maps, `exponent_unit · ((factor x - origin)·rows_f)`."""

    limits: Limits
    factor: float
    origin: np.ndarray | None
    columns: np.ndarray
    """(M, d, m), the rows as columns."""
    log_weights: np.ndarray
    """(M, 1, 1, m), times `exponent_unit`."""
    form: ExponentialForm

    @classmethod
    def of(cls, features: FeatureMap, factor: float, dtype: np.dtype, *, keys: bool) -> "Side | None":
        """The exponents of a map of NumPy arrays; None if its features are not exponentials.

        factor : the number by which raw inputs are multiplied to get inputs in kernel units.
        """
        flat, limits = flat_maps(features), Limits.of(dtype)
        arrays = {name: cast(array, dtype) for name, array in flat.arrays.items()}
        form = FeatureMap(flat.estimator, flat.dim, flat.num_features, arrays).exponential_form(keys=keys)
        if form is None:
            return None
        columns = np.swapaxes(form.rows, -1, -2)
        log_weights = np.broadcast_to(form.log_weights, (len(columns), 1, columns.shape[-1]))
        return cls(limits, factor, form.origin, columns, log_weights[:, None] * limits.exponent_unit, form)

    def exponents(self, x: np.ndarray, *, per_row: bool) -> np.ndarray:
        """The exponents (M, ..., m) of inputs (M, ..., d), with r(x) if `per_row`, without the weights."""
        units, unit = x.reshape(len(x), -1, x.shape[-1]) * self.factor, self.limits.exponent_unit
        exponents = ((units if self.origin is None else units - self.origin) * unit) @ self.columns
        if per_row:
            exponents += self.form.per_row(units) * unit
        return exponents.reshape(*x.shape[:-1], -1)


@dataclass(frozen=True, eq=False)
class Sides(KeptWithMap):
    """Both sides of a map: exponents of its queries and of its keys, kept with the map from call to call."""

    queries: Side
    keys: Side

    @classmethod
    def made(cls, features: FeatureMap, factor: float, dtype: np.dtype) -> "Sides | None":
        queries = Side.of(features, factor, dtype, keys=False)
        keys = Side.of(features, factor, dtype, keys=True)
        return None if queries is None or keys is None else cls(dict(features.arrays), factor, dtype, queries, keys)
