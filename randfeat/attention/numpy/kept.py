"""Results that are computed from the arrays of a map alone, and kept with it from call to call."""

import abc
from dataclasses import dataclass
from typing import Self

import numpy as np

from randfeat._array import Arrays
from randfeat.maps import FeatureMap

MOST_BYTES = 1 << 22  # of a map whose results are kept: those of a larger one take long only beside nothing else


@dataclass(frozen=True, eq=False)
class KeptWithMap(abc.ABC):
    """A result for copies of the arrays of a map, one factor of the inputs, and one dtype."""

    arrays: Arrays
    """Copies of the arrays of the map, by which writes in place are noticed."""
    factor: float
    dtype: np.dtype

    @classmethod
    def of(cls, features: FeatureMap, factor: float, dtype: np.dtype) -> Self | None:
        """The result that an earlier call left, or a new one; None if the features are not exponentials."""
        kept = features.kept.get(cls)
        if kept is not None and kept.fits(features, factor, dtype):
            return kept
        arrays = {name: np.array(array) for name, array in features.arrays.items()}
        copied = FeatureMap(features.estimator, features.dim, features.num_features, arrays)
        made = cls.made(copied, factor, dtype)
        if made is not None and sum(array.nbytes for array in arrays.values()) <= MOST_BYTES:
            features.kept[cls] = made
        return made

    @classmethod
    @abc.abstractmethod
    def made(cls, features: FeatureMap, factor: float, dtype: np.dtype) -> Self | None:
        """The result for a map whose arrays nobody else holds; None if its features are not exponentials."""

    def fits(self, features: FeatureMap, factor: float, dtype: np.dtype) -> bool:
        """Whether this is the result for the map as it is now."""
        return (self.factor, self.dtype) == (factor, dtype) and all(
            np.array_equal(self.arrays[name], array) for name, array in features.arrays.items()
        )
