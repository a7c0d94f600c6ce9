"""What an experiment is: independent cells of work, verdicts over their numbers, figures drawn from them."""

import importlib.util
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from experiments.environment import environment
from experiments.results import Results, Summary, Tables, Verdict

__all__ = ["Cell", "Experiment", "Progress", "Resumable", "Settings", "silent"]


@dataclass(frozen=True)
class Settings:
    """What a run can be told; every experiment adds its own sizes.

    seed : of everything random. backend : array library that computes. quick : the small run was asked for.
    """

    seed: int = 0
    backend: str = "numpy"
    quick: bool = False

    def rng(self, *key: Any) -> np.random.Generator:
        """The generator of one named piece of work: independent of the others and of the order they are done in."""
        name = zlib.crc32(repr(key).encode())
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(name,)))


class Cell(Protocol):
    """A piece of work that depends on nothing but the settings: small, picklable, with a name of its own."""

    @property
    def key(self) -> str:
        """The name, unique within the run."""

    def measure(self, settings: Any) -> Tables:
        """The rows that this cell adds to the tables."""


@runtime_checkable
class Resumable(Protocol):
    """A cell of many steps, that can leave a checkpoint and go on from there, to the same numbers bit by bit."""

    def resume(self, settings: Any, checkpoint: Path) -> Tables:
        """`measure`, from the file if there is one; the file is replaced, in one step, as the work goes on.

        A file of other settings, or of another cell, is not used. Whoever names the file also removes it.
        """


class Progress(Protocol):
    """Told after every cell how far the run is."""

    def __call__(self, done: int, total: int, key: str) -> None:
        """`done` of `total` cells are finished; `key` is the next one."""


def silent(done: int, total: int, key: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Experiment:
    """One claim and the way to check it.

    name : what `python -m experiments run` calls it. claim : one sentence. settings : the default sizes, `quick` the
    small ones. cells : the work. verdicts : what the numbers say. summaries : what to print. plot : figures by name,
    from the numbers alone. backends : array libraries that it can run on. requires : packages, by the name that they
    are imported by, beyond those of every experiment; the cells import them when they run.
    """

    name: str
    claim: str
    settings: Settings
    quick: Settings
    cells: Callable[[Any], Sequence[Cell]]
    verdicts: Callable[[Tables, Any], list[Verdict]]
    summaries: Callable[[Tables, Any], list[Summary]]
    plot: Callable[[Results], dict[str, Any]]
    backends: tuple[str, ...] = ("numpy",)
    requires: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """The required packages that are not installed."""
        return [name for name in self.requires if importlib.util.find_spec(name) is None]

    def configure(self, *, quick: bool = False, **changes: Any) -> Settings:
        """The settings of a run: the default or the quick sizes, with a seed and a backend for instance."""
        return replace(self.quick if quick else self.settings, quick=quick, **changes)

    def run(self, settings: Settings, progress: Progress = silent) -> Results:
        """Do the work, cell by cell, and judge it."""
        started, tables, cells = time.perf_counter(), Tables(), self.cells(settings)
        for done, cell in enumerate(cells):
            progress(done, len(cells), cell.key)
            for name, rows in cell.measure(settings).items():
                tables.setdefault(name, []).extend(rows)
        progress(len(cells), len(cells), "")
        return Results(
            experiment=self.name,
            claim=self.claim,
            settings=asdict(settings),
            environment=environment(settings.backend),
            seconds=round(time.perf_counter() - started, 3),
            tables=tables,
            verdicts=self.verdicts(tables, settings),
        )
