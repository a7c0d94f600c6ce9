"""Numbers of a run: tables and verdicts, with everything needed to repeat them, as CSV and JSON."""

import csv
import gzip
import json
import math
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.atomic_files import replacing, write_text
from experiments.tables import Record, Tables, columnar, plain, records

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
PACKED = "tables.json.gz"


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
        return {True: "holds", False: "does not hold", None: "reported"}[self.holds]


def reported(claim: str, measured: str, expected: str = "nothing claimed") -> Verdict:
    """A number that is only stated."""
    return Verdict(claim, expected, measured, None)


@dataclass(frozen=True)
class Summary:
    """A table to print: the first column names the row, the others are numbers already written out.

    sections : rows after which a line is drawn.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sections: tuple[int, ...] = ()


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
        return any(verdict.holds is False for verdict in self.verdicts)

    def write(self, folder: Path) -> list[Path]:
        """`results.json` with everything, and each table as NAME.csv; returns the paths."""
        paths = self.write_json(folder)
        for name, rows in self.tables.items():
            paths.append(folder / f"{name}.csv")
            with paths[-1].open("w", newline="", encoding="utf-8") as file:
                table = columnar(rows)
                csv.writer(file).writerows([table["columns"], *table["rows"]])
        return paths

    def write_json(self, folder: Path, largest: float = math.inf) -> list[Path]:
        """`results.json`; beyond `largest` bytes the tables are in `tables.json.gz` instead."""
        folder.mkdir(parents=True, exist_ok=True)
        packed, path = folder / PACKED, folder / "results.json"
        packed.unlink(missing_ok=True)
        tables = to_json({name: columnar(rows) for name, rows in self.tables.items()})
        content = to_json(asdict(self) | {"tables": {}})
        text = written(content | {"tables": tables})
        if len(text) <= largest:
            write_text(path, text)
            return [path]
        with replacing(packed) as file:
            compact = json.dumps(tables, allow_nan=False, separators=(",", ":"))
            file.write(gzip.compress(compact.encode(), mtime=0))
        write_text(path, written(content))
        return [path, packed]

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """What `write` left in the folder; ValueError where that is not what is there."""
        path, packed = folder / "results.json", folder / PACKED
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if packed.is_file():
                content["tables"] = json.loads(gzip.decompress(packed.read_bytes()))
            numbers = {name: from_json(content[name]) for name in ("settings", "environment", "seconds")}
            tables = {name: records(table) for name, table in from_json(content["tables"]).items()}
            verdicts = [Verdict(**verdict) for verdict in content["verdicts"]]
            summaries = [Summary(**as_tuples(summary)) for summary in content.get("summaries", [])]
            return cls(**content | numbers | {"tables": tables, "verdicts": verdicts, "summaries": summaries})
        except (ValueError, TypeError, LookupError, AttributeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} does not hold results: {error!r}.") from error


def written(content: Record) -> str:
    """JSON with a line for each row of a table."""
    parts = {name: json.dumps(item, indent=1, allow_nan=False) for name, item in content.items()}
    parts["tables"] = listed({name: written_table(table) for name, table in content["tables"].items()})
    return listed(parts) + "\n"


def written_table(table: dict[str, list]) -> str:
    rows = ",\n".join(json.dumps(row, allow_nan=False) for row in table["rows"])
    return listed({"columns": json.dumps(table["columns"]), "rows": f"[\n{rows}\n]"})


def listed(parts: dict[str, str]) -> str:
    """An object of values that are JSON already."""
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {part}" for name, part in parts.items()) + "\n}"


def as_tuples(value: Any) -> Any:
    """Lists, which is what JSON has, as tuples."""
    if isinstance(value, dict):
        return {name: as_tuples(item) for name, item in value.items()}
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value


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
