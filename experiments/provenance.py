"""Where a run was made, with what, and everything that its numbers depend on.

Numbers depend on settings, versions of what computes, data and code: the library's, and that of the module that makes
the cells with everything that it imports of its own package and of this one. Modules that only show results are left
out: a change of a figure's style costs no measurement.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from experiments.tables import Record

HERE = Path(__file__).parent
SHOWING = {HERE / name for name in ("figures.py", "terminal.py")}


@functools.cache
def code_digest(module: str) -> str:
    """Hash of the library, of the module with all it imports from this package, and of the data."""
    library = source("randfeat")
    files = reached(module) | set(library.parent.rglob("*.py") if library else ())
    data = [path for path in HERE.glob("data/*.*") if path.suffix != ".md"]
    lines = sorted(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files | set(data))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def reached(module: str) -> set[Path]:
    """The file of a module, and what it imports, at any depth, of this package, of its own, and of its own folder."""
    first = source(module)
    packages = {__package__, module.partition(".")[0]}

    def is_ours(name: str) -> bool:
        top = name.partition(".")[0]
        beside = source(top)
        return top in packages or (first is not None and beside is not None and beside.parent == first.parent)

    found: set[Path] = set()
    waiting = {first}
    while waiting:
        path = waiting.pop()
        if path is not None and path not in found | SHOWING:
            found.add(path)
            waiting |= {source(name) for name in imports(path) if is_ours(name)}
    return found


def imports(path: Path) -> Iterator[str]:
    """What a file may import: modules, and names within modules, which may be modules."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def source(module: str) -> Path | None:
    """The file of a module; None where there is no such module, or no file."""
    if module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(module)
        except ImportError:  # the name within a module is no module
            return None
        file = spec.origin if spec else None
    return Path(file) if file and Path(file).suffix == ".py" and Path(file).exists() else None


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
