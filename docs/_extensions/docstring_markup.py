"""The markup of our docstrings, for Sphinx.

Docstrings are plain text that reads well in a terminal: `code` in single backticks, formulas as indented blocks,
parameters as `name : what it is`, and paragraphs that begin with a label such as `Error:`. This turns them into
reStructuredText, one paragraph at a time.
"""

import re
from collections.abc import Iterator
from typing import Any

PARAMETER = re.compile(r"(\w+(?:, \w+)*) : (\S.*)")
LABEL = re.compile(r"(Shapes|Exact|Exactness|Error|Biased[^:]*|Limits|For|Source): (\S.*)")
CODE = re.compile(r"(`+)(.+?)\1")


def setup(app: Any) -> dict[str, bool]:
    """Run on every docstring that autodoc finds."""
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replace the lines of a docstring, in place, as autodoc wants it."""
    lines[:] = [line for paragraph in paragraphs(lines) for line in [*converted(paragraph), ""]]


def paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Maximal runs of lines that are not blank."""
    run: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            run.append(line)
        elif run:
            yield run
            run = []


def converted(paragraph: list[str]) -> list[str]:
    """One paragraph as reStructuredText."""
    first = paragraph[0]
    if first.startswith(">>>"):
        return paragraph
    if all(line.startswith("    ") for line in paragraph):
        return ["::", "", *paragraph]
    if len(paragraph) > 1 and set(paragraph[1]) == {"-"}:
        return [f".. rubric:: {first}", "", *(converted(paragraph[2:]) if paragraph[2:] else [])]
    return [line for item in items(paragraph) for line in marked(item)]


def items(paragraph: list[str]) -> Iterator[str]:
    """The paragraph cut before each parameter and each label, every piece on one line."""
    piece: list[str] = []
    for line in paragraph:
        if piece and (PARAMETER.match(line) or LABEL.match(line)):
            yield " ".join(piece)
            piece = []
        piece.append(line.strip())
    yield " ".join(piece)


def marked(text: str) -> list[str]:
    """A parameter as a definition, a label in bold, code as literal text, and nothing else with a meaning."""
    if parameter := PARAMETER.match(text):
        return [f"``{parameter[1]}``", f"    {inline(parameter[2])}"]
    if label := LABEL.match(text):
        return [f"**{inline(label[1])}:** {inline(label[2])}", ""]
    return [inline(text), ""]


def inline(text: str) -> str:
    """Single backticks doubled; outside of them, characters that would be markup escaped."""
    text = text.replace(" .. ", " … ")  # a summary ends at the first full stop
    parts: list[str] = []
    end = 0
    for code in CODE.finditer(text):
        parts += [escaped(text[end : code.start()]), f"``{code[2].strip()}``"]
        end = code.end()
        if text[end : end + 1].isalnum():
            parts.append(r"\ ")
    return "".join([*parts, escaped(text[end:])])


def escaped(text: str) -> str:
    """Text in which no character is markup."""
    return re.sub(r"([*|\\`]|_\b)", r"\\\1", text)
