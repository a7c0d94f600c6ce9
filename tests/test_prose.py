"""Docstrings stand alone in an editor's pop-up: a noun phrase, a formula or a sentence, never the rest of one."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("randfeat", "experiments/benchmarks")
FEWEST_WORDS = 4

RESTS_OF_SENTENCES = {
    "begins with a genitive": r"(That|Those|These|Of|Its|Their)\b|The \w+'s( \w+)?$",
    "begins with a preposition, and has no subject": r"(As|Like|By|From|With|At(?! most| least)|On|To|In|For)\b[^,]*$",
    "begins with a conjunction": r"(And|Or|Nor|But)\b",
    "is an indirect question": r"(What|How|Why|Where|When|Which|Who|Whose)\b",
    "compares with something that is not named": r"(The same|Likewise|Ditto)([.,:;]| (as|by|for|in|of|with)\b)",
    "has a pronoun as its subject": r"(It|They|One of (them|these)|Whether (it|they|there))\b",
}


def problem_of(text, fewest_words=FEWEST_WORDS):
    """What is wrong with a docstring, or None."""
    first = text.split("\n\n")[0].replace("\n", " ")
    if first.startswith("`"):  # a formula, or a piece of code
        return None
    sentence = re.split(r"(?<=[.:;])\s", first)[0].rstrip(".:;")
    for problem, pattern in RESTS_OF_SENTENCES.items():
        if re.match(pattern, sentence):
            return problem
    if len(first.split()) < fewest_words and "`" not in first and "=" not in first:
        return f"has fewer than {fewest_words} words"
    return None


def docstrings(source):
    """(line, text, fewest words) of every docstring of a module, whose own may be a title."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text, 1 if isinstance(node, ast.Module) else FEWEST_WORDS


def sources():
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def test_docstrings_stand_alone():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {problem}: {text.splitlines()[0]!r}"
        for path in sources()
        for line, text, fewest_words in docstrings(path.read_text())
        if (problem := problem_of(text, fewest_words))
    ]
    assert not found, f"{len(found)} docstrings need the name of their function to be understood:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "As the base's.", "That of all parts together.", "Those of the base.", "Of no key.", "The base's draw.",
        "Whether it is.", "n.", "By the blocks.", "From the sums over all keys.", "What the cell is called.",
        "How linear attention comes about.", "The same, in place.", "With one more block.", "Its name.",
        "Name of it.", "For every head: the sums.", "Of the entries.",
    ],
)  # fmt: skip
def test_rests_of_sentences_are_seen(text):
    assert problem_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "`2dρ²σ⁴`.", "Whether the kernel is positive.", "The empty sums, over no keys.", "Wait until `x` is computed.",
        "With one query and one key, the output is the value.", "The symmetric matrix with this upper triangle.",
        "If all values are 1, all outputs are 1.",
        "At most two rows of the matrix.", "Polynomial `Σ_k c_k x^k`.", "The other law's name and its parameters.",
    ],
)  # fmt: skip
def test_whole_ones_are_not(text):
    assert problem_of(text) is None


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_of_the_readme_fit_a_screen():
    cells = [cell.strip() for line in README.splitlines() if line.startswith("|") for cell in line.split("|")]
    assert len(cells) > 50
    assert not [cell for cell in cells if len(cell.split()) > 12]
