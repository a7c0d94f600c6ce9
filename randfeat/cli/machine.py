"""Facts about the machine: processor, versions of numerical libraries, BLAS, load."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from randfeat._numpy.threads import controller


def processor() -> str:
    """Model name of the processor, or its architecture if the system does not tell the model."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def version(name: str) -> str | None:
    """Version of an installed distribution, else None; CuPy is found under its several names."""
    names = ("cupy", "cupy-cuda12x", "cupy-cuda13x") if name == "cupy" else (name,)
    for one in names:
        try:
            return importlib.metadata.version(one)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def blas() -> list[str]:
    """BLAS libraries loaded in this process, one description each (from threadpoolctl)."""
    return [described(library) for library in controller().info()]


def described(library: dict[str, Any]) -> str:
    """One BLAS library in words."""
    return f"{library['internal_api']} {library['version']}, {library['num_threads']} threads"


def load() -> str:
    """Load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known"
