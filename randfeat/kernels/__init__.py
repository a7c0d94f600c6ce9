"""Exact kernels: the numbers that random features estimate, one family per file."""

from randfeat.kernels.algebra import ArdKernel, ProductKernel, ScaledKernel, SumKernel
from randfeat.kernels.base import Kernel, check_positive
from randfeat.kernels.gaussian import GaussianKernel
from randfeat.kernels.softmax import SoftmaxFamily, SoftmaxKernel, resolve_scale

__all__ = [
    "ArdKernel",
    "GaussianKernel",
    "Kernel",
    "ProductKernel",
    "ScaledKernel",
    "SoftmaxFamily",
    "SoftmaxKernel",
    "SumKernel",
    "check_positive",
    "resolve_scale",
]
