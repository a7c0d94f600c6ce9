"""Write the notebooks of this folder from lessons of the course: `python docs/notebooks/from_course.py`.

The lessons are the source: nothing is edited here. Text becomes cells of Markdown, a new one at each heading. Examples
become cells of code, a new one after each output, so that a notebook shows what the lesson shows.
"""

import doctest
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COURSE = HERE.parent / "course"
NOTEBOOKS = {"kernels": ("kernels", "features", "variance"), "attention": ("attention",)}

FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK_TO_NOTEBOOK = re.compile(r"^\[[^]]*\]\(\.\./notebooks/[^)]*\)\n\n", re.MULTILINE)
ANSWER = "### Answer"
INSTALL = """\
# Where randfeat is missing, remove the first # of one of these lines, and run this cell once:
# %pip install "../..[plot]"     # in a clone of randfeat
# %pip install "randfeat[plot]"  # elsewhere, from an index of packages that has it
"""


def notebook(name: str) -> dict[str, Any]:
    """The notebook as JSON, without outputs, in version 4.5 of the format."""
    lessons = [COURSE / f"{lesson}.md" for lesson in NOTEBOOKS[name]]
    source = ", ".join(f"[{path.name}](../course/{path.name})" for path in lessons)
    cells = [code(INSTALL), markdown(f"*Made from the course: {source}. To change it, change the lessons.*")]
    for path in lessons:
        cells += cells_of(path.read_text(encoding="utf-8"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [{"id": f"{name}-{number}", **cell} for number, cell in enumerate(cells)],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def cells_of(page: str) -> Iterator[dict[str, Any]]:
    """The cells of one lesson, in the order of the page."""
    texts_and_fences = FENCE.split(LINK_TO_NOTEBOOK.sub("", page))
    for text, kind, content in zip(texts_and_fences[::3], texts_and_fences[1::3], texts_and_fences[2::3], strict=False):
        yield from text_cells(text)
        yield from code_cells(kind, content)
    yield from text_cells(texts_and_fences[-1])


def text_cells(text: str) -> Iterator[dict[str, Any]]:
    """A cell for each heading with its text; answers are collapsed in JupyterLab until their heading is clicked."""
    text = text.replace("<details>\n<summary>Answer</summary>", ANSWER).replace("</details>", "## Theory")
    text = re.sub(r"\]\((?!\.\./|https?:)", "](../course/", text)
    for section in re.split(r"^(?=#)", text, flags=re.MULTILINE):
        if section.startswith(ANSWER):  # in a cell of its own, which stays while those below it are hidden
            yield markdown(ANSWER, collapsed=True)
        if section := section.removeprefix(ANSWER).strip():
            yield markdown(section)


def code_cells(kind: str, content: str) -> Iterator[dict[str, Any]]:
    """The examples of one fence, ```` ```python ```` or a plot; a cell ends with the example that has an output."""
    examples = doctest.DocTestParser().get_examples(content)
    if not examples:
        raise ValueError(f"expected examples in every fence of a lesson that is a notebook, got ```{kind}\n{content}")
    sources: list[str] = []
    for example in examples:
        sources.append(example.source)
        if example.want or example is examples[-1]:
            yield code("".join(sources))
            sources = []


def code(source: str) -> dict[str, Any]:
    """A cell of code that has not been run."""
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    return {**cell, "source": source.rstrip().splitlines(keepends=True)}


def markdown(text: str, *, collapsed: bool = False) -> dict[str, Any]:
    """A cell of Markdown."""
    metadata = {"jp-MarkdownHeadingCollapsed": True} if collapsed else {}
    return {"cell_type": "markdown", "metadata": metadata, "source": text.splitlines(keepends=True)}


def written(name: str) -> str:
    """The text of the file of a notebook, as Jupyter writes it."""
    return json.dumps(notebook(name), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    for name in NOTEBOOKS:
        (HERE / f"{name}.ipynb").write_text(written(name), encoding="utf-8")
