"""The CUDA kernels: their source, what is compiled of it, and how it is launched by CuPy."""

import functools
from importlib import resources
from typing import Any, Protocol

from randfeat._array import compiled_cuda

__all__ = ["SCALARS", "THREADS", "WIDTHS", "computing_scalar", "instances", "launch_on_device", "source"]

SOURCES = ("tiles.cu", "passes.cu", "causal.cu")
THREADS = 256
SCALARS = {"float16": "Half", "bfloat16": "BFloat16", "float32": "float", "float64": "double"}
WIDTHS = (4, 8)


class Launch(Protocol):
    """Runs one kernel with so many blocks; arguments are arrays and NumPy scalars, in the order of the source."""

    def __call__(self, kernel: str, blocks: int, *arguments: Any) -> None:
        """Returns before the kernel has run."""


@functools.cache
def source() -> str:
    """All of the CUDA C++, as one translation unit that includes nothing."""
    folder = resources.files("randfeat.attention.cuda")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in SOURCES)


def computing_scalar(scalar: str) -> str:
    """What a kernel for inputs of this type adds up in."""
    return "double" if scalar == "double" else "float"


def instances(scalar: str, width: int) -> list[str]:
    """The kernels for inputs of one type, with 16 `width` columns of values in a tile."""
    inputs = [f"{kernel}<{scalar}, {width}>" for kernel in ("summarize", "read", "read_causal")]
    return [*inputs, f"scan<{computing_scalar(scalar)}>"]


@functools.cache
def compiled(kernel: str) -> Any:
    """One kernel, compiled when it is first launched; CuPy keeps the result on disk."""
    return compiled_cuda(source(), kernel)


def launch_on_device(kernel: str, blocks: int, *arguments: Any) -> None:
    """Launches on the current device and stream."""
    compiled(kernel)((blocks,), (THREADS,), arguments)
