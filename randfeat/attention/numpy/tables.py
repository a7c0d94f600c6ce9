"""Tables: the exponents of every single map of a batch, kept with the map from call to call."""

from dataclasses import dataclass

import numpy as np

from randfeat.attention.numpy.exponents import Exponents
from randfeat.attention.numpy.kept import KeptWithMap
from randfeat.maps import FeatureMap


@dataclass(frozen=True, eq=False)
class Tables(KeptWithMap):
    """The single maps of a batch in order, and the exponents of their queries and of their keys."""

    maps: list[FeatureMap]
    queries: list[Exponents]
    keys: list[Exponents]

    @classmethod
    def made(cls, features: FeatureMap, factor: float, dtype: np.dtype) -> "Tables | None":
        found = cls(dict(features.arrays), factor, dtype, [], [], [])
        for at in np.ndindex(features.batch_shape):
            one = {name: array[at] for name, array in features.arrays.items()}
            single = FeatureMap(features.estimator, features.dim, features.num_features, one)
            queries = Exponents.of(single, factor, dtype, keys=False)
            keys = Exponents.of(single, factor, dtype, keys=True)
            if queries is None or keys is None:
                return None
            found.maps.append(single)
            found.queries.append(queries)
            found.keys.append(keys)
        return found
