"""MathJax beside the pages, and a build that fails if a page would load anything from a network.

Formulas are drawn by the MathJax of the package sphinx-mathjax-offline, which is copied into `_static`. It draws them
as SVG, because some browsers refuse web fonts to pages that are opened from a folder.
"""

import importlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.errors import ExtensionError

LOADED = ("src", "srcset", "data", "poster", "xlink:href")  # attributes whose address a browser loads by itself
MACROS_IN_TEXT = {"loader": {"load": ["[tex]/textmacros"]}, "tex": {"packages": {"[+]": ["textmacros"]}}}  # \_ is _
IN_STYLE = re.compile(r"""url\(\s*["']?(.*?)["']?\s*\)|@import\s+["'](.*?)["']""")


def setup(app: Any) -> dict[str, bool]:
    """Copy MathJax, name it to `sphinx.ext.mathjax`, and check the site once it is written."""
    try:
        package = importlib.import_module("sphinx-mathjax-offline")
    except ImportError as missing:
        raise ExtensionError("expected the package sphinx-mathjax-offline: pip install -e '.[docs]'") from missing
    app.config.html_static_path = [*app.config.html_static_path, str(Path(str(package.__file__)).parent / "static")]
    app.config.mathjax_path = "mathjax/tex-svg.js"
    app.config.mathjax3_config = MACROS_IN_TEXT
    app.connect("build-finished", check)
    return {"parallel_read_safe": True}


def check(app: Any, error: Exception | None) -> None:
    """Raise ExtensionError, which ends the build, if a page needs a network or a file that is not there."""
    if error is None and app.builder.format == "html" and (found := sorted(set(faults(Path(app.outdir))))):
        raise ExtensionError("\n".join(["the site cannot be read without a network:", *found]))


def faults(site: Path) -> Iterator[str]:
    """Addresses that a browser would load and that are no files of the site, each after the file that names it."""
    pages = (path for path in site.rglob("*.html") if "_static" not in path.relative_to(site).parts)  # no templates
    for paths, addresses_of in ((pages, of_page), (site.rglob("*.css"), of_style)):
        for path in paths:
            for address in addresses_of(path.read_text(encoding="utf-8")):
                if not is_here(address, path, site):
                    yield f"{path.relative_to(site)}: {address}"


def is_here(address: str, path: Path, site: Path) -> bool:
    """Whether the address, as `path` names it, is data within the page or a file of the site."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return parts.scheme == "data"
    folder = site if parts.path.startswith("/") else path.parent
    return not parts.path or (folder / unquote(parts.path).lstrip("/")).is_file()


def of_style(text: str) -> list[str]:
    """The addresses that a style sheet loads."""
    return [url or imported for url, imported in IN_STYLE.findall(text)]


def of_page(text: str) -> list[str]:
    """The addresses that a page loads by itself; links to follow are none."""
    reader = Reader()
    reader.feed(text)
    return reader.addresses


class Reader(HTMLParser):
    """Collects the addresses of scripts, styles, fonts, images and frames."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the attributes of an element load."""
        for name, value in attrs:
            if name in LOADED or (tag == "link" and name == "href" and ("rel", "canonical") not in attrs):
                parts = (value or "").split(",") if name == "srcset" else [value or ""]
                self.addresses += [part.split()[0] for part in parts if part.strip()]
            elif name == "style":
                self.addresses += of_style(value or "")

    def handle_data(self, data: str) -> None:
        """Note what a style element loads."""
        if self.lasttag == "style":
            self.addresses += of_style(data)
