"""Where and with what a run was made."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from experiments.results import Record

__all__ = ["environment", "versions"]


def environment(backend: str = "numpy") -> Record:
    """Date, versions, platform, processor, device of the arrays and, where this is a git checkout, the commit."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **versions(backend),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": device(backend),
        "commit": commit(),
    }


def versions(backend: str = "numpy") -> Record:
    """Of everything that computes."""
    import randfeat  # here, so that a worker imports the library only if its cells use it

    packages = ["numpy", "scipy", "array-api-compat", *([distribution(backend)] if backend != "numpy" else [])]
    return {"randfeat": randfeat.__version__, **{name: importlib.metadata.version(name) for name in packages}}


def processor() -> str:
    """What the processor calls itself, as far as the system says."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def device(backend: str) -> str:
    """Where arrays of the library are made: "cpu", or what the accelerator calls itself."""
    if backend == "torch":
        import torch

        default = torch.get_default_device()
        return torch.cuda.get_device_name(default) if default.type == "cuda" else str(default)
    if backend == "jax":
        import jax

        first = jax.devices()[0]
        return "cpu" if first.platform == "cpu" else str(first.device_kind)
    if backend == "cupy":
        import cupy

        return str(cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode())
    return "cpu"


def distribution(module: str) -> str:
    """The name under which a module was installed: CuPy's has the version of CUDA in it."""
    return module if module != "cupy" else importlib.metadata.packages_distributions()[module][0]


def commit() -> str | None:
    """The commit of this file's repository, with "+changes" where files differ from it; None outside of git."""
    try:
        head = git("rev-parse", "HEAD")
        return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def git(*arguments: str) -> str:
    """What a git command prints, run beside this file."""
    return subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
