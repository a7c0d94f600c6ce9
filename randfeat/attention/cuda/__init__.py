"""Linear attention of CuPy arrays for features that are exponentials: fused CUDA kernels."""
