"""Tables: the exponents of every single map of a batch, kept with the map from call to call."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from randfeat._array import Arrays
from randfeat.attention.numpy.exponents import Exponents
from randfeat.maps import FeatureMap

MOST_BYTES = 1 << 22  # of a map whose tables are kept: those of a larger one take long only beside nothing else


@dataclass(frozen=True, eq=False)
class Tables:
    """The single maps of a batch in order, and the exponents of their queries and of their keys."""

    arrays: Arrays
    """Copies of the arrays of the map, by which writes in place are noticed."""
    factor: float
    dtype: np.dtype
    maps: list[FeatureMap]
    queries: list[Exponents]
    keys: list[Exponents]

    @classmethod
    def of(cls, features: FeatureMap, factor: float, dtype: np.dtype) -> "Tables | None":
        """The tables that an earlier call left, if they fit; None if the features are not exponentials."""
        kept = features.kept.get(cls)
        if kept is not None and kept.fits(features, factor, dtype):
            return kept
        made = cls.made(features, factor, dtype)
        return None if made is None else keep(made, features)

    @classmethod
    def made(cls, features: FeatureMap, factor: float, dtype: np.dtype) -> "Tables | None":
        """The tables, from copies of the arrays of the map."""
        arrays = {name: np.array(array) for name, array in features.arrays.items()}
        found = cls(arrays, factor, dtype, [], [], [])
        for at in np.ndindex(features.batch_shape):
            one = {name: array[at] for name, array in arrays.items()}
            single = FeatureMap(features.estimator, features.dim, features.num_features, one)
            queries = Exponents.of(single, factor, dtype, keys=False)
            keys = Exponents.of(single, factor, dtype, keys=True)
            if queries is None or keys is None:
                return None
            found.maps.append(single)
            found.queries.append(queries)
            found.keys.append(keys)
        return found

    def fits(self, features: FeatureMap, factor: float, dtype: np.dtype) -> bool:
        """Whether these are the tables of the map as it is now."""
        return (self.factor, self.dtype) == (factor, dtype) and same_arrays(self.arrays, features)


class HasArrays(Protocol):
    """A result that was computed from copies of the arrays of a map."""

    @property
    def arrays(self) -> Arrays:
        """Copies of the arrays, by name."""


Kept = TypeVar("Kept", bound=HasArrays)


def keep(made: Kept, features: FeatureMap) -> Kept:
    """Leave what was made from a map to later calls, unless it is large."""
    if sum(array.nbytes for array in made.arrays.values()) <= MOST_BYTES:
        features.kept[type(made)] = made
    return made


def same_arrays(kept: Arrays, features: FeatureMap) -> bool:
    """Whether the arrays of a map still have the numbers of these copies."""
    return all(np.array_equal(kept[name], array) for name, array in features.arrays.items())
