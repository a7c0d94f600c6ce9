"""Couplings: joint laws of the random rows `w_1 .. w_m`, one per file."""

from randfeat.couplings.antithetic import Antithetic
from randfeat.couplings.base import Coupling
from randfeat.couplings.centered import CenteredGaussian
from randfeat.couplings.circulant import Circulant
from randfeat.couplings.fastfood import Fastfood
from randfeat.couplings.gauss_hermite import GaussHermite
from randfeat.couplings.hadamard import Hadamard
from randfeat.couplings.halton import Halton
from randfeat.couplings.independent import Independent
from randfeat.couplings.moment_matched import MomentMatched
from randfeat.couplings.orthogonal import Orthogonal
from randfeat.couplings.simplex import Simplex
from randfeat.couplings.simplex_plus import SimplexPlus
from randfeat.couplings.sobol import Sobol
from randfeat.couplings.spherical_radial import SphericalRadial

__all__ = [
    "Antithetic",
    "CenteredGaussian",
    "Circulant",
    "Coupling",
    "Fastfood",
    "GaussHermite",
    "Hadamard",
    "Halton",
    "Independent",
    "MomentMatched",
    "Orthogonal",
    "Simplex",
    "SimplexPlus",
    "Sobol",
    "SphericalRadial",
]
