"""MathJax beside the pages, and a build that fails if a page would load anything from a network.

Formulas are drawn by the MathJax of the package sphinx-mathjax-offline, which is copied into `_static`. It draws them
as SVG, because some browsers refuse web fonts to pages that are opened from a folder.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from built_pages import of_style, page_at, pages_of
from sphinx.errors import ExtensionError

MACROS_IN_TEXT = {"loader": {"load": ["[tex]/textmacros"]}, "tex": {"packages": {"[+]": ["textmacros"]}}}  # \_ is _


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
    loaded = {path: page_at(path).loaded for path in pages_of(site)}
    loaded |= {path: of_style(path.read_text(encoding="utf-8")) for path in site.rglob("*.css")}
    for path, addresses in loaded.items():
        for address in addresses:
            if not is_here(address, path, site):
                yield f"{path.relative_to(site)}: {address}"


def is_here(address: str, path: Path, site: Path) -> bool:
    """Whether the address, as `path` names it, is data within the page or a file of the site."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return parts.scheme == "data"
    folder = site if parts.path.startswith("/") else path.parent
    return not parts.path or (folder / unquote(parts.path).lstrip("/")).is_file()
