"""One cell of an experiment, measured: its rows in plain values, or the reason why there are none."""

import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from experiments.tables import Tables, columnar, records


@dataclass(frozen=True)
class Cell(ABC):
    """A piece of work that depends on its fields and the settings alone; small and picklable.

    A subclass is a frozen dataclass, too.
    """

    @property
    def key(self) -> str:
        """The class with its fields, which no other cell of a run has."""
        return repr(self)

    @abstractmethod
    def measure(self, settings: Any) -> Tables:
        """The rows that this cell adds to the tables."""


class ResumableCell(Cell):
    """A cell of many steps, that can leave a checkpoint and go on from there, to the same numbers bit by bit."""

    @abstractmethod
    def resume(self, settings: Any, checkpoint: Path | None) -> Tables:
        """The rows, from the checkpoint if there is one; the file is replaced, in one step, as the work goes on.

        A file of other settings, or of another cell, is not used. Whoever names the file also removes it.
        """

    def measure(self, settings: Any) -> Tables:
        return self.resume(settings, None)


@dataclass(frozen=True)
class Checkpointed(Cell):
    """A resumable cell with the file of its checkpoints, not used where its folder is missing: on another machine."""

    cell: ResumableCell
    path: Path

    @property
    def key(self) -> str:
        return self.cell.key

    def measure(self, settings: Any) -> Tables:
        return self.cell.resume(settings, self.path if self.path.parent.is_dir() else None)


@dataclass(frozen=True, eq=False)
class Measured:
    """What a cell returned, in plain values, and how long it took."""

    tables: Tables
    seconds: float


@dataclass(frozen=True)
class Failure:
    """Why a cell has no rows: in one line, and as a traceback."""

    reason: str
    details: str = ""


Outcome = Measured | Failure

Outcomes = Generator[tuple[int, Outcome], None, None]
"""Position and outcome of each cell, in the order they are finished; closing it ends the work."""

Measure = Callable[[Sequence[Cell], Any], Outcomes]
"""A way to measure cells under some settings."""


def measure(cell: Cell, settings: Any) -> Measured:
    """The rows of one cell, as plain values; BLAS and OpenMP run in one thread.

    Sums depend on how they are cut, so a number of threads that depends on the machine would change last bits; and
    cells of several processes would compete for the cores.
    """
    started = time.perf_counter()
    with threadpool_limits(1):
        tables = cell.measure(settings)
    seconds = time.perf_counter() - started
    return Measured({name: plain_rows(name, rows) for name, rows in tables.items()}, seconds)


def plain_rows(name: str, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows whose NumPy scalars are Python numbers; anything that is not a plain value is refused."""
    table = columnar(list(rows))
    for row in table["rows"]:
        for column, value in zip(table["columns"], row, strict=True):
            if not (value is None or isinstance(value, bool | int | float | str)):
                raise TypeError(
                    f"rows must hold numbers, strings, bool or None, got {type(value).__name__} in column {column!r} "
                    f"of table {name!r}."
                )
    return records(table)


def attempt(cell: Cell, settings: Any) -> Outcome:
    """`measure`, or why it raised."""
    try:
        return measure(cell, settings)
    except Exception as error:
        return failure(error)


def failure(error: Exception) -> Failure:
    """The error in words, with the place where it was raised."""
    reason = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
    details = "".join(traceback.format_exception(error))
    frames = traceback.extract_tb(error.__traceback__)
    return Failure(f"{reason} ({frames[-1].filename}:{frames[-1].lineno})" if frames else reason, details)


def in_turn(cells: Sequence[Cell], settings: Any) -> Outcomes:
    """One cell after the other, in this process."""
    for position, cell in enumerate(cells):
        yield position, attempt(cell, settings)
