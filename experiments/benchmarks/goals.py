"""What the benchmarks are after: numbers, what they should be, and whether they are."""

from collections.abc import Iterable
from dataclasses import dataclass

from experiments.benchmarks.timing import Ratio
from experiments.results import Summary

__all__ = ["Goal", "goal_table"]


@dataclass(frozen=True)
class Goal:
    """A measured number and the bound that it should keep to.

    measured : None where it could not be measured. bound : None where the number is only reported.
    """

    what: str
    measured: Ratio | float | None
    bound: float | None = None
    at_least: bool = True
    unit: str = ""
    digits: int = 2

    @property
    def value(self) -> float | None:
        """The number alone."""
        return self.measured.value if isinstance(self.measured, Ratio) else self.measured

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept; None where there is none, or no number. NaN meets nothing."""
        if self.value is None or self.bound is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def verdict(self) -> str:
        """`met`, `missed`, `reported` or `not measured`."""
        if self.value is None:
            return "not measured"
        return {True: "met", False: "missed", None: "reported"}[self.met]

    @property
    def row(self) -> tuple[str, ...]:
        """What, measured, quartiles, goal, verdict."""
        measured = "-" if self.value is None else self.write(self.value)
        between = "-"
        if isinstance(self.measured, Ratio):
            between = f"{self.measured.low:.{self.digits}f} to {self.measured.high:.{self.digits}f}"
        bound = "-" if self.bound is None else f"{'>=' if self.at_least else '<='} {self.write(self.bound)}"
        return self.what, measured, between, bound, self.verdict

    def write(self, number: float) -> str:
        """A number with its unit."""
        return f"{number:.{self.digits}f}{self.unit and ' ' + self.unit}"


def goal_table(title: str, goals: Iterable[Goal]) -> Summary:
    """The goals as a table; quartiles are those of the ratio, round by round."""
    return Summary(title, ("what", "measured", "quartiles", "goal", "verdict"), tuple(goal.row for goal in goals))
