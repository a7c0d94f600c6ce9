"""Progress: how far a long measurement is, on a line of stderr or by a function of the caller."""

import sys
import time
from collections.abc import Callable
from typing import Any, Self

from randfeat._hints import described

PATIENCE = 2.0
"""Seconds before a line is shown that nobody asked for."""


class Progress:
    """Counts finished cells of `total`, and tells `report(finished, total)`."""

    def __init__(self, report: Callable[[int, int], None] | None, total: int, patience: float = 0.0) -> None:
        self.report, self.total, self.finished = report, total, 0
        self.start = time.monotonic() + patience

    @classmethod
    def of(cls, progress: Any, total: int) -> "Progress":
        """Progress that a function, True, False, or None (a line on a terminal after PATIENCE) asks for."""
        if progress is None:
            return cls(write_line if sys.stderr.isatty() else None, total, PATIENCE)
        if isinstance(progress, bool):
            return cls(write_line if progress else None, total)
        if not callable(progress):
            raise TypeError(f"progress must be True, False, None or a function, got {described(progress)}.")
        return cls(progress, total)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.report is write_line and self.finished and time.monotonic() >= self.start:
            print(file=sys.stderr)

    def advance(self) -> None:
        """One more cell is finished."""
        self.finished += 1
        if self.report is not None and time.monotonic() >= self.start:
            self.report(self.finished, self.total)


def write_line(finished: int, total: int) -> None:
    """Replace the line on stderr."""
    print(f"\r{finished} of {total} cells", end="", file=sys.stderr, flush=True)
