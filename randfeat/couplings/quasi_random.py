"""Common base of couplings that use randomized quasi-random points."""

import abc
from typing import Any

import numpy as np

from randfeat.couplings.base import Coupling


class QuasiRandom(Coupling):
    """Rows `Φ^{-1}(p_i)`, coordinate by coordinate, for points p_i that cover the unit cube evenly.

    The points are randomized, and each alone is uniform. So each row alone is exactly N(0, I), and estimates are
    unbiased. The joint law of the points of one draw has no closed form.
    """

    rotation_invariant = False

    @abc.abstractmethod
    def points(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        """Draw randomized points in (0, 1), (*batch_shape, num_rows, dim)."""

    def sample(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        from scipy.special import ndtri

        return ndtri(self.points(num_rows, dim, rng=rng, batch_shape=batch_shape))
