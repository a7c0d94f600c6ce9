"""Independent Gaussian rows, the reference coupling."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_generator
from randfeat.couplings.base import Coupling, register_coupling
from randfeat.couplings.laws import PairLaw


@dataclass(frozen=True)
class Independent(Coupling):
    """Independent rows `w_i ~ N(0, I_d)`: the reference that every other coupling is compared with.

    Any number of rows, any dimension. No pair of rows is dependent, so an estimate has the variance V/m, with V the
    variance of the estimate from one row.
    For: comparisons, and closed forms that every estimator has.
    Source: Rahimi & Recht 2007, "Random Features for Large-Scale Kernel Machines".
    """

    def sample(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        return as_generator(rng).standard_normal((*batch_shape, num_rows, dim))

    def pair_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        return []


register_coupling("independent", Independent)
