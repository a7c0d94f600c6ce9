"""Array libraries that an experiment can compute with."""

import importlib.util
from typing import Any

import numpy as np

BACKENDS = ("numpy", "torch", "jax", "cupy")


def available(backend: str) -> bool:
    return importlib.util.find_spec(backend) is not None


def from_host(array: np.ndarray, backend: str) -> Any:
    """The array in the library `backend`; JAX makes float64 float32 unless 64 bit are enabled there."""
    if backend == "torch":
        import torch

        return torch.asarray(array)
    if backend == "jax":
        import jax.numpy

        return jax.numpy.asarray(array)
    if backend == "cupy":
        import cupy

        return cupy.asarray(array)
    return array


def epsilon(backend: str) -> float:
    """Rounding of the dtype that float64 becomes on the backend."""
    return float(np.finfo(from_device(from_host(np.zeros(1), backend)).dtype).eps)


def to_host(array: Any) -> np.ndarray:
    """A float64 NumPy array."""
    return np.asarray(from_device(array), dtype=np.float64)


def from_device(array: Any) -> np.ndarray:
    """A NumPy array of the same dtype; CuPy does not convert without being asked."""
    return np.asarray(array.get() if hasattr(array, "get") else array)
