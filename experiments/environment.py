"""Where and with what a run was made."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import randfeat
from experiments.results import Record

__all__ = ["environment"]


def environment(backend: str = "numpy") -> Record:
    """Date, versions, platform and, where this is a git checkout, the commit."""
    packages = ["numpy", "scipy", "array-api-compat", *([distribution(backend)] if backend != "numpy" else [])]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "randfeat": randfeat.__version__,
        **{name: importlib.metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "commit": commit(),
    }


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
