"""The tables of a run as a section of a Markdown page."""

import itertools
from collections.abc import Sequence

from experiments.results import Summary

__all__ = ["page", "table"]


def page(
    command: str, machine: Sequence[tuple[str, str]], tables: Sequence[Summary], notes: Sequence[str], *, quick: bool
) -> str:
    """A section with the machine, the tables and the notes, to be included below the title of a page."""
    parts = ["<!-- Written by the command below; not by hand. -->", f"## {title(command)}"]
    if quick:
        parts.append(
            "**A quick run**: the smallest sizes and a few rounds, on a machine that may have been busy. It shows what "
            "is measured; its numbers decide nothing."
        )
    parts.append(f"```\n{command}\n```")
    parts.append("\n".join(f"- {name}: {escape(value)}" for name, value in machine))
    for summary in tables:
        parts += [f"### {escape(summary.title)}", table(summary)]
    if notes:
        parts += ["### Notes", "\n".join(f"- {escape(note)}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def title(command: str) -> str:
    """A heading that says which benchmarks were run, so that sections of one page differ."""
    named = itertools.takewhile(lambda word: not word.startswith("-"), command.split()[3:])  # behind `python -m module`
    return ": ".join(filter(None, ["Measured on a CPU", ", ".join(named)]))


def table(summary: Summary) -> str:
    """A pipe table: the first column aligned left, numbers aligned right."""
    rule = ("---", *["---:"] * (len(summary.header) - 1))
    rows = [tuple(map(escape, row)) for row in (summary.header, *summary.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def escape(text: str) -> str:
    """Text with the special characters of Markdown tables escaped."""
    for character in "\\|<>*_`$[]":
        text = text.replace(character, "\\" + character)
    return text
