"""CUDA C++ for CuPy arrays."""

import importlib
from typing import Any

from randfeat._array.namespaces import Array


def on_device_of(x: Array) -> Any:
    """A context in which the device of the CuPy array `x` is the current one."""
    return x.device


def compiled_cuda(source: str, kernel: str) -> Any:
    """A kernel of CUDA C++, an instance of a template or not, for CuPy arrays: compiled by NVRTC here, and
    loaded by CuPy on each device that it is launched on."""
    cupy = importlib.import_module("cupy")
    module = cupy.RawModule(code=source, options=("--std=c++17",), name_expressions=(kernel,))
    return module.get_function(kernel)
