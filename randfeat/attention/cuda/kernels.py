"""The CUDA kernels: their source, what is compiled of it, and how it is launched by CuPy."""

import functools
from importlib import resources
from typing import Any, Protocol

from randfeat._array import compiled_cuda

SOURCES = ("tiles.cu", "passes.cu", "causal.cu")
THREADS = 256
SCALARS = {"float16": "Half", "bfloat16": "BFloat16", "float32": "float", "float64": "double"}
WIDTHS = (4, 8)


class Launch(Protocol):
    """A function that launches one kernel: its name, the number of blocks, and its arguments in order."""

    def __call__(self, kernel: str, blocks: int, *arguments: Any) -> None:
        """Launch, and return before the kernel has run."""


@functools.cache
def source() -> str:
    """The CUDA C++ source as one translation unit without includes."""
    folder = resources.files("randfeat.attention.cuda")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in SOURCES)


def computing_scalar(scalar: str) -> str:
    """The C++ type in which a kernel for inputs of type `scalar` accumulates."""
    return "double" if scalar == "double" else "float"


def instances(scalar: str, width: int) -> list[str]:
    """Names of the kernels for inputs of one type, with 16 `width` columns of values in a tile."""
    inputs = [f"{kernel}<{scalar}, {width}>" for kernel in ("summarize", "read", "read_causal")]
    return [*inputs, f"scan<{computing_scalar(scalar)}>"]


@functools.cache
def compiled(kernel: str) -> Any:
    """The compiled kernel, built at its first launch; CuPy caches it on disk."""
    return compiled_cuda(source(), kernel)


def launch_on_device(kernel: str, blocks: int, *arguments: Any) -> None:
    """Launch one kernel on the current device and stream."""
    compiled(kernel)((blocks,), (THREADS,), arguments)
