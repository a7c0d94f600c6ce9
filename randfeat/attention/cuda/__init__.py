"""Linear attention on CUDA devices: fused kernels for features that are exponentials."""

from randfeat.attention.cuda.passes import cuda_pass

__all__ = ["cuda_pass"]
