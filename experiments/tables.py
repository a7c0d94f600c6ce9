"""Tables as lists of rows, each row a dictionary of plain values, and what one does with them."""

from collections.abc import Iterable
from typing import Any

import numpy as np

Record = dict[str, Any]
Tables = dict[str, list[Record]]


def table(**columns: Any) -> list[Record]:
    """Columns as rows; a single value stands in every row: `table(dim=4, u=[1.0, 2.0], ratio=ratios)`."""
    many = {name: column for name, column in columns.items() if isinstance(column, list | tuple | np.ndarray)}
    if len({len(column) for column in many.values()}) != 1:
        raise ValueError(
            f"columns must have one length, got { ({name: len(column) for name, column in many.items()}) }."
        )
    length = len(next(iter(many.values())))
    return [{name: many[name][i] if name in many else columns[name] for name in columns} for i in range(length)]


def select(rows: Iterable[Record], /, **values: Any) -> list[Record]:
    """The rows with these entries: `select(rows, coupling="simplex", dim=4)`."""
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def grouped(rows: Iterable[Record], *names: str) -> dict[Any, list[Record]]:
    """Rows by their entry in a column, or by the tuple of their entries in several; in order of first appearance."""
    groups: dict[Any, list[Record]] = {}
    for row in rows:
        key = tuple(row[name] for name in names)
        groups.setdefault(key if len(names) > 1 else key[0], []).append(row)
    return groups


def distinct(rows: Iterable[Record], name: str) -> list[Any]:
    """The different entries of a column, in order of first appearance."""
    return list(dict.fromkeys(row[name] for row in rows))


def columns(rows: Iterable[Record], *names: str) -> list[np.ndarray]:
    """Columns as arrays, to be unpacked: `x, y = columns(rows, "x", "y")`."""
    rows = list(rows)
    return [np.asarray([row[name] for row in rows]) for name in names]


def mean_and_error(values: Any, mean: str, error: str = "standard_error") -> Record:
    """The mean of independent values and its standard error, under these names."""
    return {mean: np.mean(values), error: np.std(values, ddof=1) / np.sqrt(len(values))}


def columnar(rows: list[Record]) -> dict[str, list]:
    """Column names once, and one list of plain values for each row."""
    names = list(rows[0]) if rows else []
    for row in rows:
        if list(row) != names:
            raise ValueError(f"rows of one table must have the same columns, got {names} and {list(row)}.")
    return {"columns": names, "rows": [[plain(value) for value in row.values()] for row in rows]}


def records(table: dict[str, list]) -> list[Record]:
    """The inverse of `columnar`."""
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def plain(value: Any) -> Any:
    """NumPy scalars and zero-dimensional arrays as Python numbers."""
    return value.item() if isinstance(value, np.generic | np.ndarray) else value


def rounded(value: Any) -> Any:
    """A float to six significant digits; anything else as it is."""
    value = plain(value)
    return float(f"{value:.6g}") if isinstance(value, float) else value
