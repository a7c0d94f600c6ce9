"""Links within the Markdown files lead to a file and to a heading in it; paths that are named in text exist.

Sphinx checks the pages of docs/ among themselves, when it builds them. This is quicker, and reads the README and the
other files at the top, too. Links to other sites are listed by `sphinx-build -b linkcheck`.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "experiments/**/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
    if not any(part.startswith("_") for part in path.relative_to(ROOT).parts)
)
MADE_BY_THE_BUILD = {ROOT / line for line in (ROOT / ".gitignore").read_text().splitlines() if line.endswith(".md")}
FENCED = re.compile(r"^( *)(```+)(?!\{admonition|\{note).*?^\1\2 *$", re.DOTALL | re.MULTILINE)
START = r"\]\(\s*<?|^\[[^\]^]+\]:\s+<?|<(?:a|img)\s[^>]*?(?:href|src)=[\"']"  # in a line, in a list of links, in HTML
LINK = re.compile(rf"(?:{START})(?![a-z]+:)([^)#\s>\"']*)(?:#([^)\s>\"']+))?", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
LABEL = re.compile(r"^\((\S+)\)=$", re.MULTILINE)
INCLUDE = re.compile(r"^```\{include\} (\S+)\n```$", re.MULTILINE)
PATH = re.compile(r"`((?:docs|experiments|randfeat|tests|\.ci|\.github)/[\w./-]+)`")


def prose_of(path):
    """The text of a page with what it includes, without its blocks of code."""
    text = INCLUDE.sub(lambda found: prose_of(path.parent / found[1]), path.read_text(encoding="utf-8"))
    return FENCED.sub("", text)


def anchors_of(path):
    """The anchors that GitHub and MyST make of headings, and labels."""
    words = (re.sub(r"\[(.*?)\]\(.*?\)|[`*]", r"\1", heading) for heading in HEADING.findall(prose_of(path)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in words} | set(
        LABEL.findall(prose_of(path))
    )


def dead_links(path):
    """The links of a page that lead nowhere."""
    for target, anchor in LINK.findall(prose_of(path)):
        file = (path.parent / target).resolve() if target else path
        if file in MADE_BY_THE_BUILD:
            continue
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors_of(file)):
            yield f"{target}#{anchor}" if anchor else target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(path):
    assert not list(dead_links(path))
    named = (name for name in PATH.findall(prose_of(path)) if "NAME" not in name)
    assert not [name for name in named if not (ROOT / name).exists()]


def test_there_are_links_to_check():
    links = {path: LINK.findall(prose_of(path)) for path in PAGES}
    assert len(links[ROOT / "README.md"]) > 20
    assert sum(bool(anchor) for found in links.values() for _, anchor in found) > 50


def test_a_dead_link_is_seen(tmp_path):
    (tmp_path / "other.md").write_text("# Two `words`, and 1.5 more\n\n(label)=\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#two-words-and-15-more) [b](other.md#label) [c](other.md#words) [d](missing.md)\n"
        "[e](#here) [f](https://example.org/missing) [g\n](other.md)\n\n## Here\n\n```\n[h](missing.md)\n```\n"
        '[i](title.md "Title") [j]( <angle.md>) <img width="9" src="image.png"> <a href="https://example.org/a.md">k</a>\n'
        "\n[l]: list.md\n[m]: https://example.org/list.md\n"
    )
    assert list(dead_links(page)) == ["other.md#words", "missing.md", "title.md", "angle.md", "image.png", "list.md"]
