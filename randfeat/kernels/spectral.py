"""Kernels that are means of waves, whose features are cosines and sines of random frequencies."""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from randfeat._array import Array
from randfeat.kernels.base import Kernel


@dataclass(frozen=True)
class SpectralKernel(Kernel):
    """A kernel `E[cos(f·(u(x) - u(y)))]` of a random frequency f, with u(x) the input in kernel units.

    Or, where it is `homogeneous`, a sum of such means over the coordinates, `Σ_l √(x_l y_l) E[cos(f_l log(x_l/y_l))]`.
    `SpectralFeatures` are its features.
    """

    homogeneous: ClassVar[bool] = False
    """Whether it is a sum over coordinates of waves in log x_l, with amplitudes √x_l: `k(c x, c y) = c k(x, y)`."""

    @abc.abstractmethod
    def frequencies(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One frequency for each row g ~ N(0, I), (..., m, d) -> (..., m, d); rows may depend on one another."""

    @abc.abstractmethod
    def of_squares(self, squares: Array) -> Array:
        """`E[cos(f·δ)]` from the squares of the coordinates of δ, (..., d) -> (...).

        Where the kernel is homogeneous it is one number for each coordinate, (..., d) -> (..., d).
        """

    def wave_pair(self, x: np.ndarray, y: np.ndarray) -> tuple[Any, np.ndarray]:
        """The product of the amplitudes of the waves of a pair in kernel units, and δ, what f is multiplied by."""
        return 1.0, x - y

    def sum_of_waves(self, values: np.ndarray) -> np.ndarray:
        """One number for each pair, from one for each of its waves."""
        return values
