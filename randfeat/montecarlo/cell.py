"""Cell: what is measured of one estimator with one number of features."""

from dataclasses import dataclass

import numpy as np

from randfeat.montecarlo.measured import Measured


@dataclass(frozen=True, eq=False)
class Cell:
    """Numbers of one estimator and width.

    measured : numbers with their standard errors, by measure. closed_forms : by measure, NaN where none is known.
    squares (num_draws,) : relative squared error of each draw.
    """

    measured: dict[str, Measured]
    closed_forms: dict[str, float]
    squares: np.ndarray
