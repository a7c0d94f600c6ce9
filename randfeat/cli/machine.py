"""What a number was computed on: processor, versions of what computes, BLAS."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from randfeat._numpy.threads import controller

__all__ = ["blas", "load", "processor", "version"]


def processor() -> str:
    """The model name where the system tells it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def version(name: str) -> str | None:
    """The version of a distribution, None where it is not installed; CuPy has several."""
    names = ("cupy", "cupy-cuda12x", "cupy-cuda13x") if name == "cupy" else (name,)
    for one in names:
        try:
            return importlib.metadata.version(one)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def blas() -> list[str]:
    """The BLAS libraries of the process as threadpoolctl describes them."""
    return [described(library) for library in controller().info()]


def described(library: dict[str, Any]) -> str:
    """One of them."""
    return f"{library['internal_api']} {library['version']}, {library['num_threads']} threads"


def load() -> str:
    """Processes that want to run, averaged over the last minute."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known"
