"""Description of the machine that ran a benchmark, without a name that identifies it."""

import os
import platform
from datetime import UTC, datetime

from threadpoolctl import threadpool_info

from experiments.provenance import commit
from randfeat._numpy.threads import resolve_num_threads
from randfeat.cli.machine import load, processor, version

__all__ = ["blas", "description", "load", "processor"]

PACKAGES = ("numpy", "scipy", "torch", "jax", "transformers", "performer-pytorch")


def description(load_before: str) -> list[tuple[str, str]]:
    """Date, processor, cores, load, versions and BLAS, as pairs of label and text."""
    revision = commit()
    return [
        ("Date", datetime.now(UTC).date().isoformat()),
        ("Processor", processor()),
        ("Cores", f"{os.cpu_count()}, of which {resolve_num_threads(None)} are used"),
        ("Load before the run", load_before),
        ("System", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        ("Packages", ", ".join(f"{name} {version(name) or '(not installed)'}" for name in PACKAGES)),
        ("BLAS of NumPy", blas()),
        ("Commit", "not known" if revision is None else revision[:10] + revision[40:]),
    ]


def blas() -> str:
    """Libraries that compute the matrix products of NumPy."""
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    names = (f"{one['internal_api']} {one['version']} ({one.get('architecture', 'any')})" for one in found)
    return ", ".join(dict.fromkeys(names)) or "not known"
