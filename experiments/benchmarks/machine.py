"""Where a benchmark was run, in a few lines; nothing that names the machine."""

import importlib.metadata
import importlib.util
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from threadpoolctl import threadpool_info

from experiments.environment import commit
from randfeat.threads import resolve_num_threads

__all__ = ["blas", "description", "load", "processor"]

PACKAGES = ("numpy", "scipy", "torch", "performer-pytorch")


def description(load_before: str) -> list[tuple[str, str]]:
    """What and where: date, processor, cores, load, versions, BLAS."""
    revision = commit()
    return [
        ("Date", datetime.now(UTC).date().isoformat()),
        ("Processor", processor()),
        ("Cores", f"{os.cpu_count()}, of which {resolve_num_threads(None)} are used"),
        ("Load before the run", load_before),
        ("System", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        ("Packages", ", ".join(f"{name} {version(name)}" for name in PACKAGES)),
        ("BLAS of NumPy", blas()),
        ("Commit", "not known" if revision is None else revision[:10] + revision[40:]),
    ]


def processor() -> str:
    """The model name where the system tells it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def blas() -> str:
    """The libraries that NumPy's matrix products run in."""
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    names = (f"{one['internal_api']} {one['version']} ({one.get('architecture', 'any')})" for one in found)
    return ", ".join(dict.fromkeys(names)) or "not known"


def load() -> str:
    """Processes that want to run, averaged over the last minute."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known"


def version(package: str) -> str:
    """Its version, or that it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
