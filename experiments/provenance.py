"""Everything that the numbers of a run depend on: settings, code, data and versions of what computes.

The code is that of the library and of the experiment: the module that makes the cells, with everything of this package
that it imports. Modules that only show results are left out: a change of a figure's style costs no measurement.
"""

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from experiments.environment import versions
from experiments.experiment import Experiment, Settings
from experiments.results import Record

__all__ = ["code_digest", "identity"]

HERE = Path(__file__).parent
SHOWING = {HERE / name for name in ("figures.py", "terminal.py")}


def identity(experiment: Experiment, settings: Settings) -> Record:
    """What a stored cell must agree with to be used again, apart from its own name."""
    return {
        "experiment": experiment.name,
        "settings": asdict(settings),
        "versions": versions(settings.backend),
        "code": code_digest(experiment.cells.__module__),
    }


@functools.cache
def code_digest(module: str) -> str:
    """Hash of the library, of the module with all it imports from this package, and of the data."""
    library = source("randfeat")
    files = reached(module) | set(library.parent.rglob("*.py") if library else ())
    data = [path for path in HERE.glob("data/*.*") if path.suffix != ".md"]
    lines = sorted(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files | set(data))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def reached(module: str) -> set[Path]:
    """The file of a module, and the files that it imports from this package, at any depth."""
    found: set[Path] = set()
    waiting = {source(module)}
    while waiting:
        path = waiting.pop()
        if path is not None and path not in found | SHOWING:
            found.add(path)
            waiting |= {source(name) for name in ours(imports(path))}
    return found


def ours(names: Iterable[str]) -> Iterator[str]:
    """The names that belong to this package."""
    return (name for name in names if name.partition(".")[0] == __package__)


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
