"""The check of the built documentation: a page that would need a network, or a file that is not there, is seen."""

from pathlib import Path
from types import SimpleNamespace

import pytest

errors = pytest.importorskip("sphinx.errors", reason="needs Sphinx: pip install '.[docs]'")
offline_site = pytest.importorskip("offline_site")
DOCS = Path(__file__).parents[1] / "docs"

PAGE = """<!DOCTYPE html><html><head>
<link rel="canonical" href="https://example.org/page.html"><link rel="stylesheet" href="../_static/style.css?v=1">
<script defer src="../_static/math.js?v=2"></script><style>p { background: url(data:image/png;base64,AA) }</style>
</head><body><a href="https://example.org">a link</a><img src="figure%201.svg" alt=""><p style="color: red">text</p>
<pre>&lt;script src="https://example.org/shown.js"&gt;</pre>{}</body></html>"""
STYLE = "@font-face { src: url('fonts/text.woff2') } {}"


@pytest.fixture
def site(tmp_path):
    for name in ("_static/math.js", "_static/fonts/text.woff2", "pages/figure 1.svg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    (tmp_path / "_static" / "template.html").write_text('<script src="{{ script }}"></script>')

    def write(body="", style=""):
        (tmp_path / "pages" / "page.html").write_text(PAGE.replace("{}", body))
        (tmp_path / "_static" / "style.css").write_text(STYLE.replace("{}", style))
        return tmp_path

    return write


def build(folder, format="html"):
    offline_site.check(SimpleNamespace(builder=SimpleNamespace(format=format), outdir=str(folder)), None)


def test_a_site_of_its_own_files_passes(site):
    build(site())


@pytest.mark.parametrize(
    ("body", "style", "address"),
    [
        ('<script src="https://cdn.example.org/m.js"></script>', "", "https://cdn.example.org/m.js"),
        ('<script src="//cdn.example.org/m.js"></script>', "", "//cdn.example.org/m.js"),
        ('<LINK HREF="http://example.org/s.css" REL="stylesheet">', "", "http://example.org/s.css"),
        ('<link rel="preconnect" href="https://fonts.example.org">', "", "https://fonts.example.org"),
        ('<img srcset="figure%201.svg 1x, https://example.org/2.png 2x">', "", "https://example.org/2.png"),
        ("<style>@import 'https://example.org/s.css';</style>", "", "https://example.org/s.css"),
        ('<p style="background: url(https://example.org/p.png)">', "", "https://example.org/p.png"),
        ("", '@import "https://example.org/s.css";', "https://example.org/s.css"),
        ("", "@font-face { src: url(https://example.org/f.woff2) }", "https://example.org/f.woff2"),
        ('<script src="../_static/missing.js"></script>', "", "../_static/missing.js"),
        ('<img src="/missing.svg">', "", "/missing.svg"),
    ],
)
def test_what_needs_a_network_or_is_missing_ends_the_build(site, body, style, address):
    folder = site(body, style)
    with pytest.raises(errors.ExtensionError, match="cannot be read without a network") as raised:
        build(folder)
    assert str(raised.value).splitlines()[1:] == [f"{'_static/style.css' if style else 'pages/page.html'}: {address}"]
    build(folder, format="latex")  # which has no pages


def test_the_documentation_is_built_with_the_check():
    assert '"offline_site"' in (DOCS / "conf.py").read_text(encoding="utf-8")
