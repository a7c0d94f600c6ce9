"""Arrangement: the leading dimensions of a call in three groups, so that few products of matrices do for all heads."""

import functools
import math
from dataclasses import dataclass

import numpy as np

from randfeat.maps import FeatureMap


@dataclass(frozen=True)
class Arrangement:
    """The order of leading dimensions: M maps, N others that sums are kept for, R of queries that share their sums.

    lead, full : leading dimensions of the sums, and of the outputs.
    order : the axes of `full` that belong to M, then those to N, then those to R.
    """

    lead: tuple[int, ...]
    full: tuple[int, ...]
    order: tuple[int, ...]
    num_maps: int
    num_others: int

    @classmethod
    @functools.lru_cache(maxsize=256)
    def of(cls, lead: tuple[int, ...], full: tuple[int, ...], maps: tuple[int, ...]) -> "Arrangement":
        """The arrangement for maps with this batch, laid out like the heads; `full` may be `lead`."""
        summed, batch = padded(lead, len(full)), padded(maps, len(full))
        groups: tuple[list[int], ...] = ([], [], [])
        for axis, size in enumerate(full):
            groups[0 if batch[axis] > 1 else 1 if summed[axis] == size else 2].append(axis)
        of_map, other, shared = groups
        num_others = math.prod(full[axis] for axis in other)
        return cls(lead, full, (*of_map, *other, *shared), math.prod(batch), num_others)

    def with_batch(self, size: int) -> "Arrangement":
        """The arrangement of sums alone, with another length of the first leading dimension."""
        lead = (size, *self.lead[1:])
        return Arrangement(lead, lead, self.order, self.num_maps, self.num_others // self.lead[0] * size)

    def keys(self, x: np.ndarray) -> np.ndarray:
        """The rows of `x`, which broadcasts to (*lead, n, c), as (M, N, n, c)."""
        rows = self._ordered(x, padded(self.lead, len(self.full)))
        return rows.reshape(self.num_maps, self.num_others, *x.shape[-2:])

    def queries(self, x: np.ndarray) -> np.ndarray:
        """The rows of `x`, which broadcasts to (*full, n, c), as (M, N, R, n, c)."""
        return self._ordered(x, self.full).reshape(self.num_maps, self.num_others, -1, *x.shape[-2:])

    def _ordered(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if x.shape[:-2] != shape:
            x = np.broadcast_to(x, (*shape, *x.shape[-2:]))
        num = len(shape)
        return x.transpose((*self.order, num, num + 1))

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """The array (*full, n, c) of rows (M, N, R, n, c), the inverse of `queries`."""
        return self._put_back(x, self.full)

    def sums(self, x: np.ndarray) -> np.ndarray:
        """The array (*lead, n, c) of rows (M, N, n, c), the inverse of `keys`."""
        x = self._put_back(x, padded(self.lead, len(self.full)))
        return x.reshape(*self.lead, *x.shape[-2:])

    def _put_back(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        x = x.reshape(*(shape[axis] for axis in self.order), *x.shape[-2:])
        return np.ascontiguousarray(x.transpose(self._back))

    @functools.cached_property
    def _back(self) -> tuple[int, ...]:
        """The permutation of axes that undoes `order`, for arrays with two more."""
        num = len(self.order)
        return (*sorted(range(num), key=self.order.__getitem__), num, num + 1)


def padded(shape: tuple[int, ...], length: int) -> tuple[int, ...]:
    """The shape with axes of size 1 in front, so that it has this length."""
    return (*[1] * (length - len(shape)), *shape)


def flat_maps(features: FeatureMap) -> FeatureMap:
    """The map with one batch axis (M,) in place of several, or of none."""
    num = math.prod(features.batch_shape)
    arrays = {name: array.reshape(num, *array.shape[-2:]) for name, array in features.arrays.items()}
    return FeatureMap(features.estimator, features.dim, features.num_features, arrays)
