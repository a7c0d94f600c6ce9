"""Exact kernels: the numbers that random features estimate, one family per file."""

from randfeat.kernels.base import Kernel, check_positive
from randfeat.kernels.gaussian import GaussianKernel
from randfeat.kernels.normalized_softmax import NormalizedSoftmaxKernel
from randfeat.kernels.softmax import SoftmaxFamily, SoftmaxKernel, resolve_scale

__all__ = [
    "GaussianKernel",
    "Kernel",
    "NormalizedSoftmaxKernel",
    "SoftmaxFamily",
    "SoftmaxKernel",
    "check_positive",
    "resolve_scale",
]
