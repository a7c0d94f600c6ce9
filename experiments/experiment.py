"""What an experiment is: independent cells of work, verdicts over their numbers, figures drawn from them."""

import importlib.util
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from experiments.cells import Cell, Measured, ResumableCell
from experiments.provenance import environment
from experiments.results import Results, Summary, Verdict, reported
from experiments.tables import Record, Tables

__all__ = [
    "Cell",
    "Experiment",
    "Progress",
    "Record",
    "Results",
    "ResumableCell",
    "Settings",
    "Summary",
    "Tables",
    "Verdict",
    "reported",
    "silent",
]


@dataclass(frozen=True)
class Settings:
    """What a run can be told; every experiment adds its own sizes.

    seed : of everything random. backend : array library that computes. quick, full : the small, the large run was
    asked for.
    """

    seed: int = 0
    backend: str = "numpy"
    quick: bool = False
    full: bool = False

    def rng(self, *key: Any) -> np.random.Generator:
        """The generator of one named piece of work: independent of the others and of the order they are done in."""
        name = zlib.crc32(repr(key).encode())
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(name,)))

    def rngs(self, count: int, *key: Any) -> Iterator[np.random.Generator]:
        """The generators of `count` repetitions: those of `rng(*key, 0)`, `rng(*key, 1)`, ..."""
        return (self.rng(*key, index) for index in range(count))


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
    from the numbers alone. backends : array libraries that it can run on. full : larger sizes, if there are any.
    captions : of figures, by name; others have their title for one. units : of columns that have one. requires :
    packages, by the name that they are imported by, beyond those of every experiment; the cells import them.
    address : what `run` was told instead of the name, `module:ATTRIBUTE`, for an experiment that lives elsewhere.
    """

    name: str
    claim: str
    cells: Callable[[Any], Sequence[Cell]]
    verdicts: Callable[[Tables, Any], Iterable[Verdict]]
    plot: Callable[[Results], dict[str, Any]]
    settings: Settings = field(default_factory=Settings)
    quick: Settings = field(default_factory=Settings)
    summaries: Callable[[Tables, Any], list[Summary]] = lambda tables, settings: []
    backends: tuple[str, ...] = ("numpy",)
    full: Settings | None = None
    captions: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    address: str = ""

    @property
    def missing(self) -> list[str]:
        return [name for name in self.requires if importlib.util.find_spec(name) is None]

    def configure(self, *, quick: bool = False, full: bool = False, **changes: Any) -> Settings:
        """The settings of a run: the default, the quick or the full sizes, with a seed and a backend for instance.

        Where there are no full sizes, the default ones are the full ones.
        """
        large = self.full if full else None
        return replace(
            large or (self.quick if quick else self.settings), quick=quick, full=large is not None, **changes
        )

    def judge(self, finished: Iterable[Measured], settings: Settings) -> Results:
        """The rows of all cells, in the order of the cells, and what they say."""
        tables, seconds = Tables(), 0.0
        for measured in finished:
            seconds += measured.seconds
            for name, rows in measured.tables.items():
                tables.setdefault(name, []).extend(rows)
        return Results(
            experiment=self.name,
            claim=self.claim,
            settings=asdict(settings),
            environment=environment(settings.backend),
            seconds=round(seconds, 3),
            tables=tables,
            verdicts=list(self.verdicts(tables, settings)),
            summaries=self.summaries(tables, settings),
            command=self.command(settings),
            units={"seconds": "s", **self.units},
        )

    def command(self, settings: Settings) -> str:
        """What to type for these settings, if they are those of the command line."""
        sizes = "--quick" if settings.quick else "--full" if settings.full else ""
        backend = f"--backend {settings.backend}" if settings.backend != "numpy" else ""
        words = ["python -m experiments run", self.address or self.name, sizes, f"--rng {settings.seed}", backend]
        return " ".join(word for word in words if word)
