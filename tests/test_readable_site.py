"""The check of the built documentation: links that lead nowhere, headings out of order, images without words."""

from pathlib import Path
from types import SimpleNamespace

import pytest

errors = pytest.importorskip("sphinx.errors", reason="needs Sphinx: pip install '.[docs]'")
readable_site = pytest.importorskip("readable_site")
DOCS = Path(__file__).parents[1] / "docs"

PAGE = """<!DOCTYPE html><html><body><h1>Title</h1><h2 id="part">Part</h2><h3>Detail</h3><h2>Part</h2>
<a href="https://example.org/nothing#here">out</a> <a href="#part">up</a> <a href="../other%20page.html#there">on</a>
<a href="/_static/data.csv#row">data</a> <img src="figure.svg" alt="A figure">{}</body></html>"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "other page.html").write_text('<h1 id="there">Other</h1>')
    for folder in ("_static", "pages"):
        (tmp_path / folder).mkdir()
    (tmp_path / "_static" / "data.csv").touch()
    (tmp_path / "_static" / "template.html").write_text('<h3>{{ title }}</h3><img src="{{ image }}">')

    def write(body=""):
        (tmp_path / "pages" / "page.html").write_text(PAGE.replace("{}", body))
        return tmp_path

    return write


def build(folder, format="html"):
    readable_site.check(SimpleNamespace(builder=SimpleNamespace(format=format), outdir=str(folder)), None)


def test_a_site_in_order_passes(site):
    build(site())


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="missing.html">x</a>', "the link missing.html leads nowhere"),
        ('<a href="#missing">x</a>', "the link #missing leads nowhere"),
        ('<a href="../other%20page.html#missing">x</a>', "the link ../other%20page.html#missing leads nowhere"),
        ('<a href="/missing.csv">x</a>', "the link /missing.csv leads nowhere"),
        ("<h4>Too deep</h4>", "a heading of level 4 follows one of level 2"),
        ("<h1>Once more</h1>", "it has 2 headings of the first level"),
        ('<img src="x.png">', "the image x.png has no alternative text"),
        ('<img src="x.png" alt=" ">', "the image x.png has no alternative text"),
    ],
)
def test_what_a_reader_stumbles_over_ends_the_build(site, body, fault):
    folder = site(body)
    with pytest.raises(errors.ExtensionError, match="stumbles") as raised:
        build(folder)
    assert str(raised.value).splitlines()[1:] == [f"pages/page.html: {fault}"]
    build(folder, format="latex")  # which has no pages


def test_the_documentation_is_built_with_the_check():
    assert '"readable_site"' in (DOCS / "conf.py").read_text(encoding="utf-8")
