"""Goals of the benchmarks: measured numbers, their bounds, and verdicts."""

from collections.abc import Iterable
from dataclasses import dataclass

from experiments.benchmarks.timing import Ratio
from experiments.results import Summary

__all__ = ["Goal", "goal_table"]


@dataclass(frozen=True)
class Goal:
    """A measured number and the bound that it should keep.

    measured : None if it could not be measured.
    bound : None if the number is only reported.
    """

    what: str
    measured: Ratio | float | None
    bound: float | None = None
    at_least: bool = True
    unit: str = ""
    digits: int = 2

    @property
    def value(self) -> float | None:
        """The measured number, without its quartiles."""
        return self.measured.value if isinstance(self.measured, Ratio) else self.measured

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept; None without a bound or a number. NaN does not keep any bound."""
        if self.value is None or self.bound is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return {True: "met", False: "missed", None: "reported"}[self.met]

    @property
    def row(self) -> tuple[str, ...]:
        """The row of the table: name, number, quartiles, goal, verdict."""
        measured = "-" if self.value is None else self.write(self.value)
        between = "-"
        if isinstance(self.measured, Ratio):
            between = f"{self.measured.low:.{self.digits}f} to {self.measured.high:.{self.digits}f}"
        bound = "-" if self.bound is None else f"{'>=' if self.at_least else '<='} {self.write(self.bound)}"
        return self.what, measured, between, bound, self.verdict

    def write(self, number: float) -> str:
        """A number as text, with its unit."""
        return f"{number:.{self.digits}f}{self.unit and ' ' + self.unit}"


def goal_table(title: str, goals: Iterable[Goal]) -> Summary:
    """Table of goals; quartiles are those of the ratios of single rounds."""
    return Summary(title, ("what", "measured", "quartiles", "goal", "verdict"), tuple(goal.row for goal in goals))
