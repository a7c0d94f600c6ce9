"""Code on pages of the documentation, beside the examples, which run as they are: scripts, and what can be copied."""

import ast
import builtins
import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
FAQ = "import numpy as np, randfeat as rf\nrng = q = k = v = phi = None\n"


def sections(page, mark):
    """The sections of a page, those with examples, by their headings."""
    parts = re.split(rf"^{mark} (.*)\n", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {title: text for title, text in zip(parts[1::2], parts[2::2], strict=True) if ">>>" in text}


def unknown_names(text, before=""):
    """Names that the examples of a text use, and that neither it nor the lines before it define."""
    examples = doctest.DocTestParser().get_examples(text)
    nodes = list(ast.walk(ast.parse(before + "".join(example.source for example in examples))))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    defined = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    defined |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    defined |= {(node.asname or node.name).split(".")[0] for node in nodes if isinstance(node, ast.alias)}
    return {node.id for node in names} - defined - set(dir(builtins))


@pytest.mark.parametrize(("page", "mark", "before"), [("recipes.md", "##", ""), ("faq.md", "###", FAQ)])
def test_sections_can_be_copied_one_by_one(page, mark, before):
    found = {title: unknown_names(text, before) for title, text in sections(page, mark).items()}
    assert len(found) > 5
    assert not {title: names for title, names in found.items() if names}


@pytest.mark.parametrize("path", sorted((DOCS / "course").glob("*.md")), ids=lambda path: path.stem)
def test_lessons_can_be_pasted_from_their_first_line_to_their_last(path):
    assert not unknown_names(path.read_text(encoding="utf-8"))


def test_a_name_of_another_section_is_seen():
    assert unknown_names(">>> f = [x for x in range(3)]\n>>> def g(a):\n...     return a + f[0] + offset\n") == {
        "offset"
    }


def script_of(page):
    """The first code block of a page that has no prompts."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    return next(block for block in blocks if ">>>" not in block)


def test_the_figure_of_your_own_has_five_lines_and_is_saved(tmp_path, monkeypatch, pyplot):
    monkeypatch.chdir(tmp_path)
    script = script_of("published.md")
    assert len([line for line in script.splitlines() if line and not re.match("import|from", line)]) <= 5
    exec(compile(script, "published.md", "exec"), {})
    assert Path("errors.pdf").read_bytes()[:4] == b"%PDF"


def test_the_timings_of_the_guide_run(capsys):
    script = script_of("attention_guide.md")
    short = re.sub(r"for length in \(.*\):", "for length in (32,):", script)
    assert short != script
    exec(compile(short, "attention_guide.md", "exec"), {})
    assert len(capsys.readouterr().out.split()) == 7
