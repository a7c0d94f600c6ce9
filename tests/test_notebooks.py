"""The notebooks are the lessons of the course: made from them as they are, without outputs, showing what they show."""

import ast
import contextlib
import doctest
import io
import json
import re
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("pyplot")

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
MAKER = runpy.run_path(str(FOLDER / "from_course.py"))


def code_of(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def shown_by(sources):
    """What the cells print, and the values that Jupyter shows: those of last expressions."""
    names, out = {}, io.StringIO()
    with contextlib.redirect_stdout(out):
        for source in sources:
            body = ast.parse(source).body
            exec(compile(ast.Module(body[:-1], []), "cell", "exec"), names)
            exec(compile(ast.Interactive(body[-1:]), "cell", "single"), names)
    return out.getvalue()


@pytest.mark.parametrize("name", MAKER["NOTEBOOKS"])
def test_notebooks_are_made_from_the_lessons_of_now(name):
    assert (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8") == MAKER["written"](name), (
        "a lesson has changed: python docs/notebooks/from_course.py"
    )


@pytest.mark.parametrize("name", MAKER["NOTEBOOKS"])
def test_notebooks_show_what_the_lessons_show(name):
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook["cells"])
    pages = [(MAKER["COURSE"] / f"{lesson}.md").read_text(encoding="utf-8") for lesson in MAKER["NOTEBOOKS"][name]]
    expected = "".join(example.want for page in pages for example in doctest.DocTestParser().get_examples(page))
    shown = shown_by(code_of(notebook)[1:])  # without the cell that installs
    assert doctest.OutputChecker().check_output(expected, shown, doctest.NORMALIZE_WHITESPACE), shown


def test_a_cell_ends_with_each_output():
    text, examples = "# Title\n\nText [a](b.md) [c](../d.md).", ">>> x = 1\n>>> x\n1\n>>> x + 1\n2\n>>> y = 3\n"
    page = f"{text}\n\n```python\n{examples}\n```\nEnd.\n"
    cells = list(MAKER["cells_of"](page))
    sources = ["".join(cell["source"]) for cell in cells]
    assert sources == ["# Title\n\nText [a](../course/b.md) [c](../d.md).", "x = 1\nx", "x + 1", "y = 3", "End."]


@pytest.mark.parametrize("name", MAKER["NOTEBOOKS"])
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\((?!https?:)([^)#]*)", MAKER["written"](name))
    assert len(links) > 3
    assert not [link for link in links if not (FOLDER / link).is_file()]


def test_a_fence_without_examples_is_refused():
    """Its content would be in no cell."""
    with pytest.raises(ValueError, match=r"expected examples in every fence .* got ```text"):
        list(MAKER["cells_of"]("# Title\n\n```text\nx\n```\n"))
