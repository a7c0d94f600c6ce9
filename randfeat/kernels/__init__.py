"""Exact kernels: the numbers that random features estimate, one family per file."""

from randfeat.kernels.base import Kernel, check_positive
from randfeat.kernels.dot_product import DotProductKernel
from randfeat.kernels.gaussian import GaussianKernel
from randfeat.kernels.optical import OpticalKernel
from randfeat.kernels.polynomial import PolynomialKernel
from randfeat.kernels.softmax import SoftmaxFamily, SoftmaxKernel, resolve_scale

__all__ = [
    "DotProductKernel",
    "GaussianKernel",
    "Kernel",
    "OpticalKernel",
    "PolynomialKernel",
    "SoftmaxFamily",
    "SoftmaxKernel",
    "check_positive",
    "resolve_scale",
]
