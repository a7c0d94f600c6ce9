"""Exact kernels: the numbers that random features estimate, one family per file."""

from randfeat.kernels.activation import ActivationKernel
from randfeat.kernels.additive_chi2 import AdditiveChi2Kernel
from randfeat.kernels.algebra import ArdKernel, ProductKernel, ScaledKernel, SumKernel
from randfeat.kernels.arc_cosine import AngularKernel, ArcCosineKernel
from randfeat.kernels.base import Kernel
from randfeat.kernels.dot_product import DotProductKernel
from randfeat.kernels.exponential import ExponentialKernel, ExponentialPowerKernel, LaplacianKernel
from randfeat.kernels.gaussian import GaussianKernel
from randfeat.kernels.matern import MaternKernel
from randfeat.kernels.normalized_softmax import NormalizedSoftmaxKernel
from randfeat.kernels.optical import OpticalKernel
from randfeat.kernels.polynomial import PolynomialKernel
from randfeat.kernels.rational_quadratic import CauchyKernel, RationalQuadraticKernel
from randfeat.kernels.shift_invariant import IsotropicKernel, SeparableKernel, ShiftInvariantKernel
from randfeat.kernels.skewed_chi2 import SkewedChi2Kernel
from randfeat.kernels.softmax import SoftmaxFamily, SoftmaxKernel
from randfeat.kernels.spectral import SpectralKernel

__all__ = [
    "ActivationKernel",
    "AdditiveChi2Kernel",
    "AngularKernel",
    "ArcCosineKernel",
    "ArdKernel",
    "CauchyKernel",
    "DotProductKernel",
    "ExponentialKernel",
    "ExponentialPowerKernel",
    "GaussianKernel",
    "IsotropicKernel",
    "Kernel",
    "LaplacianKernel",
    "MaternKernel",
    "NormalizedSoftmaxKernel",
    "OpticalKernel",
    "PolynomialKernel",
    "ProductKernel",
    "RationalQuadraticKernel",
    "ScaledKernel",
    "SeparableKernel",
    "ShiftInvariantKernel",
    "SkewedChi2Kernel",
    "SoftmaxFamily",
    "SoftmaxKernel",
    "SpectralKernel",
    "SumKernel",
]
