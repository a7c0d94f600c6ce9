"""Cell: what is measured of one estimator with one number of features."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Cell:
    """Numbers of one estimator and width.

    measured : (value, standard error) by measure. closed_forms : by measure, NaN where none is known.
    squares (num_draws,) : relative squared error of each draw.
    """

    measured: dict[str, tuple[float, float]]
    closed_forms: dict[str, float]
    squares: np.ndarray


def mean_with_error(of_draws: np.ndarray) -> tuple[float, float]:
    """Mean over draws, and its standard error."""
    return float(of_draws.mean()), float(of_draws.std(ddof=1) / np.sqrt(len(of_draws)))
