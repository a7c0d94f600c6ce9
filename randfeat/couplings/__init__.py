"""Couplings: the joint law of the rows `w_1 .. w_m`, one per file."""

from randfeat.couplings.antithetic import Antithetic
from randfeat.couplings.base import Coupling
from randfeat.couplings.centered import CenteredGaussian
from randfeat.couplings.independent import Independent
from randfeat.couplings.orthogonal import Orthogonal
from randfeat.couplings.simplex import Simplex

__all__ = [
    "Antithetic",
    "CenteredGaussian",
    "Coupling",
    "Independent",
    "Orthogonal",
    "Simplex",
]
