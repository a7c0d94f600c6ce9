"""What rows from randomized quasi-random points share."""

import abc

import numpy as np

from randfeat.couplings.base import Coupling
from randfeat.couplings.laws import GaussianPair, NoClosedForm, PairLaw

__all__ = ["QuasiRandom"]


class QuasiRandom(Coupling):
    """Rows `Φ^{-1}(p_i)`, coordinate by coordinate, of points p_i that are spread evenly over the unit cube.

    The points are randomized so that each alone is uniform: then each row alone is exactly N(0, I), and estimates are
    unbiased. Points of one draw are dependent in a way that has no closed form.
    """

    @property
    def rotation_invariant(self) -> bool:
        return False

    @abc.abstractmethod
    def points(
        self, num_rows: int, dim: int, *, rng: np.random.Generator, batch_shape: tuple[int, ...] = ()
    ) -> np.ndarray:
        """Randomized points in (0, 1), (*batch_shape, num_rows, dim)."""

    def sample(
        self, num_rows: int, dim: int, *, rng: np.random.Generator, batch_shape: tuple[int, ...] = ()
    ) -> np.ndarray:
        from scipy.special import ndtri

        return ndtri(self.points(num_rows, dim, rng=rng, batch_shape=batch_shape))

    def row_law(self, dim: int, num_rows: int | None = None) -> PairLaw:
        return GaussianPair(correlation=1.0)

    def pair_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        if num_rows == 1:
            return []
        raise NoClosedForm(
            f"the points of {type(self).__name__} have no closed-form joint law; use randfeat.montecarlo.sample_errors."
        )
