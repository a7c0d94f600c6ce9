"""Numbers of a run: tidy tables and verdicts, with everything needed to repeat them, as CSV and JSON."""

import csv
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.durable import write_durably

__all__ = ["Record", "Results", "Summary", "Tables", "Verdict", "columnar", "records", "to_json"]

Record = dict[str, Any]
Tables = dict[str, list[Record]]

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class Verdict:
    """A claim, what it says the numbers are, and what they are.

    holds : None where nothing is claimed and the number is only reported.
    """

    claim: str
    expected: str
    measured: str
    holds: bool | None

    @property
    def word(self) -> str:
        """`holds`, `does not hold`, or `reported`."""
        return {True: "holds", False: "does not hold", None: "reported"}[self.holds]


@dataclass(frozen=True)
class Summary:
    """A table to print: the first column names the row, the others are numbers already written out."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sections: tuple[int, ...] = ()
    """Rows after which a line is drawn."""


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that a run produced, but for the pictures, which are drawn from it.

    seconds : time spent in cells, summed over them. command : what to type to repeat it. figures : captions by name of
    the file. units : of the columns that have one, by name; all others are dimensionless.
    """

    experiment: str
    claim: str
    settings: Record
    environment: Record
    seconds: float
    tables: Tables
    verdicts: list[Verdict]
    summaries: list[Summary] = field(default_factory=list)
    command: str = ""
    figures: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=lambda: {"seconds": "s"})

    @property
    def failed(self) -> bool:
        """Whether a claim does not hold."""
        return any(verdict.holds is False for verdict in self.verdicts)

    def write(self, folder: Path) -> list[Path]:
        """`results.json` with everything, and each table as NAME.csv; returns the paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "results.json"]
        write_durably(paths[0], self.as_json())
        for name, rows in self.tables.items():
            paths.append(folder / f"{name}.csv")
            with paths[-1].open("w", newline="", encoding="utf-8") as file:
                table = columnar(rows)
                csv.writer(file).writerows([table["columns"], *table["rows"]])
        return paths

    def as_json(self) -> str:
        """The content of `results.json`."""
        content = asdict(self) | {"tables": {name: columnar(rows) for name, rows in self.tables.items()}}
        return json.dumps(to_json(content), indent=1, allow_nan=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """What `write` left in the folder; ValueError where that is not what is there."""
        path = folder / "results.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            numbers = {name: from_json(content[name]) for name in ("settings", "environment", "seconds")}
            tables = {name: records(table) for name, table in from_json(content["tables"]).items()}
            verdicts = [Verdict(**verdict) for verdict in content["verdicts"]]
            summaries = [Summary(**as_tuples(summary)) for summary in content.get("summaries", [])]
            return cls(**content | numbers | {"tables": tables, "verdicts": verdicts, "summaries": summaries})
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"{path} does not hold results: {error!r}.") from error


def columnar(rows: list[Record]) -> dict[str, list]:
    """Column names once, and one list of plain values for each row."""
    columns = list(rows[0]) if rows else []
    for row in rows:
        if list(row) != columns:
            raise ValueError(f"rows of one table must have the same columns, got {columns} and {list(row)}.")
    return {"columns": columns, "rows": [[plain(value) for value in row.values()] for row in rows]}


def records(table: dict[str, list]) -> list[Record]:
    """The inverse of `columnar`."""
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def as_tuples(value: Any) -> Any:
    """Lists, which is what JSON has, as tuples."""
    if isinstance(value, dict):
        return {name: as_tuples(item) for name, item in value.items()}
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """NumPy scalars and zero-dimensional arrays as Python numbers."""
    return value.item() if isinstance(value, np.generic | np.ndarray) else value


def to_json(value: Any) -> Any:
    """The same content in what JSON has: NaN and infinities become the strings "NaN", "Infinity", "-Infinity"."""
    value = plain(value)
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def from_json(value: Any) -> Any:
    """The inverse of `to_json`."""
    if isinstance(value, dict):
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return NON_FINITE.get(value, value) if isinstance(value, str) else value
