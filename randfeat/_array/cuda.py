"""CUDA C++ kernels for CuPy arrays."""

import importlib
from typing import Any

from randfeat._array.namespaces import Array


def on_device_of(x: Array) -> Any:
    """Context manager that makes the device of the CuPy array `x` the current one."""
    return x.device


def compiled_cuda(source: str, kernel: str) -> Any:
    """A CUDA C++ kernel for CuPy arrays, compiled by NVRTC; `kernel` may name an instance of a template.

    CuPy loads it on each device on which it is launched.
    """
    cupy = importlib.import_module("cupy")
    module = cupy.RawModule(code=source, options=("--std=c++17",), name_expressions=(kernel,))
    return module.get_function(kernel)
