"""A build that fails if a link within the site leads nowhere, a heading is out of order, or an image has no words.

Sphinx checks the references that it resolves. This reads the pages as they are written: links of themes, of raw HTML
and of generated cards too, each with its anchor.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from built_pages import Page, page_at, pages_of
from sphinx.errors import ExtensionError


def setup(app: Any) -> dict[str, bool]:
    """Check the site once it is written."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True}


def check(app: Any, error: Exception | None) -> None:
    """Raise ExtensionError, which ends the build, and list what is wrong, each after the page that has it."""
    if error is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    found = [f"{path.relative_to(site)}: {fault}" for path in pages_of(site) for fault in faults(path, site)]
    if found:
        raise ExtensionError("\n".join(["the site has pages that a reader stumbles over:", *found]))


def faults(path: Path, site: Path) -> Iterator[str]:
    """Everything that is wrong with one page."""
    page = page_at(path)
    for link in sorted(set(page.links)):
        if not leads_somewhere(link, path, site):
            yield f"the link {link} leads nowhere"
    yield from outline_faults(page)
    for image in page.images_without_words:
        yield f"the image {image} has no alternative text"


def outline_faults(page: Page) -> Iterator[str]:
    """Headings that skip a level; no first heading, or more than one."""
    if page.headings.count(1) != 1:
        yield f"it has {page.headings.count(1)} headings of the first level"
    for above, below in zip(page.headings, page.headings[1:], strict=False):
        if below > above + 1:
            yield f"a heading of level {below} follows one of level {above}"


def leads_somewhere(link: str, path: Path, site: Path) -> bool:
    """Whether a link within the site has a file, and its anchor an element; links to other sites are not followed."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    folder = site if parts.path.startswith("/") else path.parent
    target = (folder / unquote(parts.path).lstrip("/")) if parts.path else path
    if not target.is_file():
        return False
    anchor = unquote(parts.fragment)
    return not anchor or target.suffix != ".html" or anchor in page_at(target).anchors
