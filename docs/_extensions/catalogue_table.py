"""The directive `catalogue`: `rf.catalogue(kind)` as a table."""

from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

import randfeat as rf
from randfeat.couplings.base import coupling_names

COLUMNS = {
    "estimator": (
        "estimator",
        "kernel",
        "positive",
        "bounded",
        "symmetric",
        "variance known under",
        "widths",
        "source",
    ),
    "coupling": ("coupling", "name", "exact marginals", "joint laws known", "rows", "source"),
    "kernel": ("kernel", "source"),
}


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
        return entry.name, entry.acronyms[0], word(entry.unbiased), laws, entry.widths, entry.source
    known = ", ".join(entry.closed_form) or "none"
    if len(entry.closed_form) == len(coupling_names()):
        known = "every coupling"
    flags = (word(flag) for flag in (entry.positive, entry.bounded, entry.symmetric))
    return name, entry.kernel, *flags, known, entry.widths, entry.source


def word(flag: bool | None) -> str:
    """yes, no."""
    return {True: "yes", False: "no", None: ""}[flag]


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> nodes.table:
    """Docutils' table of plain text."""
    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=1) for _ in header]
    for part, lines in ((nodes.thead(), [header]), (nodes.tbody(), rows)):
        for line in lines:
            part += nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in line))
        group += part
    return nodes.table("", group)
