"""One cell of an experiment, measured: its rows in plain values, or the reason why there are none."""

import time
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from threadpoolctl import threadpool_limits

from experiments.results import Tables, columnar, records

__all__ = [
    "Cell",
    "Checkpointed",
    "Failure",
    "Measure",
    "Measured",
    "Outcome",
    "Outcomes",
    "Resumable",
    "attempt",
    "failure",
    "in_turn",
    "measure",
]


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


@dataclass(frozen=True)
class Checkpointed:
    """A resumable cell, and the file where it leaves its checkpoints; without its folder (on another machine), none."""

    cell: Any
    path: Path

    @property
    def key(self) -> str:
        """That of the cell."""
        return str(self.cell.key)

    def measure(self, settings: Any) -> Tables:
        """From the checkpoint, if there is one."""
        tables: Tables = (
            self.cell.resume(settings, self.path) if self.path.parent.is_dir() else self.cell.measure(settings)
        )
        return tables


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
