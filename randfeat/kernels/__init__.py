"""Exact kernels: the numbers that random features estimate, one family per file."""

from randfeat.kernels.activation import ActivationKernel
from randfeat.kernels.arc_cosine import AngularKernel, ArcCosineKernel
from randfeat.kernels.base import Kernel, check_positive
from randfeat.kernels.gaussian import GaussianKernel
from randfeat.kernels.projected_pair import ProjectedPair
from randfeat.kernels.softmax import SoftmaxFamily, SoftmaxKernel, resolve_scale

__all__ = [
    "ActivationKernel",
    "AngularKernel",
    "ArcCosineKernel",
    "GaussianKernel",
    "Kernel",
    "ProjectedPair",
    "SoftmaxFamily",
    "SoftmaxKernel",
    "check_positive",
    "resolve_scale",
]
