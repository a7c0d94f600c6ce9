"""The directive `catalogue`: `rf.catalogue(kind)` as a table."""

from collections.abc import Sequence
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

import randfeat as rf
from randfeat.couplings.base import coupling_names

COLUMNS = {
    "estimator": ("estimator", "kernel", "properties", "variance known under", "widths", "source"),
    "coupling": ("coupling", "name", "exact marginals", "joint laws known", "rows", "source"),
    "kernel": ("kernel", "source"),
}
FEW = 2  # couplings that a list of all others may leave out


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("catalogue", Catalogue)
    return {"parallel_read_safe": True}


class Catalogue(Directive):
    """One kind of entries."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table."""
        kind = self.arguments[0]
        rows = [cells(entry) for entry in rf.catalogue(kind)]
        return [table(COLUMNS[kind], rows)]


def cells(entry: Any) -> tuple[str, ...]:
    """What the table says of one entry."""
    name = entry.name + (f" ({', '.join(entry.acronyms)})" if entry.acronyms and entry.kind == "estimator" else "")
    if entry.kind == "kernel":
        return name, entry.source
    if entry.kind == "coupling":
        laws = word(bool(entry.closed_form))
        return entry.name, ", ".join(entry.acronyms), word(entry.unbiased), laws, entry.widths, entry.source
    flags = {"positive": entry.positive, "bounded": entry.bounded, "symmetric": entry.symmetric}
    properties = ", ".join(flag for flag, holds in flags.items() if holds) or "none"
    return name, entry.kernel, properties, listed(entry.closed_form), entry.widths, entry.source


def listed(names: Sequence[str]) -> str:
    """Names of couplings; if most are there, only those that are not."""
    if len(names) == len(coupling_names()):
        return "every coupling"
    with_laws = [name for entry in rf.catalogue("coupling") if entry.closed_form for name in entry.acronyms]
    missing = [name for name in with_laws if name not in names]
    if set(names) <= set(with_laws) and len(missing) <= FEW:
        return "all with known joint laws" + (f" but {' and '.join(missing)}" if missing else "")
    return ", ".join(names) or "none"


def word(flag: bool | None) -> str:
    """yes, no."""
    return {True: "yes", False: "no", None: ""}[flag]


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> nodes.table:
    """Docutils' table of plain text, each cell with the name of its column as a class, for narrow screens."""
    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=1) for _ in header]
    for part, lines in ((nodes.thead(), [header]), (nodes.tbody(), rows)):
        for line in lines:
            entries = zip(header, line, strict=True)
            part += nodes.row("", *(cell(column, text) for column, text in entries))
        group += part
    return nodes.table("", group, classes=["catalogue"])


def cell(column: str, text: str) -> nodes.entry:
    """The cell of a column."""
    return nodes.entry("", nodes.paragraph(text=text), classes=[nodes.make_id(column)])
