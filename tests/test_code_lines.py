"""Lines of code fit the pages of the documentation: at 1280 px none scrolls, and none is broken.

Pages in folders have a menu on their left, so there is room for fewer columns (110; 104 in descriptions of methods).
Docstrings stand on such pages, too.
"""

import ast
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDE, NARROW = 126, 104
FENCE = re.compile(r"^(?:- )? *```(\S*)\n(.*?)^ *``` *$", re.DOTALL | re.MULTILINE)


def too_long(code, limit):
    """The lines of a piece of code that are longer than the limit."""
    return [line for line in textwrap.dedent(code).splitlines() if len(line) > limit]


def long_lines_of_page(path, limit):
    """The lines of blocks of code; blocks of directives are none."""
    blocks = FENCE.findall(path.read_text(encoding="utf-8"))
    return [line for kind, code in blocks if kind in ("", "python", "text") for line in too_long(code, limit)]


def long_lines_of_docstrings(source):
    """Those of examples and of formulas, which are indented."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                if ">>> " in paragraph or paragraph.startswith("    "):
                    yield from too_long(paragraph, NARROW)


def test_code_of_pages_fits():
    docs = ROOT / "docs"
    pages = dict.fromkeys(docs.glob("*.md"), WIDE) | dict.fromkeys(docs.glob("[!_]*/*.md"), NARROW)
    assert len(pages) > 50
    found = {str(path.relative_to(ROOT)): long_lines_of_page(path, limit) for path, limit in pages.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_code_of_docstrings_fits():
    files = sorted((ROOT / "randfeat").rglob("*.py"))
    found = {str(path.relative_to(ROOT)): list(long_lines_of_docstrings(path.read_text())) for path in files}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_long_line_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"{'text ' * 30}\n\n- ```python\n  >>> {'x' * 101}\n  ```\n\n```\n{'y' * 104}\n```\n")
    assert long_lines_of_page(page, NARROW) == [f">>> {'x' * 101}"]
    source = f'"""Module.\n\n{"text " * 22}\n\n>>> {"x" * 101}\n"""\n'
    assert list(long_lines_of_docstrings(source)) == [f">>> {'x' * 101}"]
