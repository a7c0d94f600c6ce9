"""What checks of the built site want to know of a page: what it loads, where it leads, and how it is outlined."""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

LOADED = ("src", "srcset", "data", "poster", "xlink:href")  # attributes whose address a browser loads by itself
IN_STYLE = re.compile(r"""url\(\s*["']?(.*?)["']?\s*\)|@import\s+["'](.*?)["']""")
HEADING = re.compile(r"h[1-6]")


@dataclass
class Page:
    """Addresses of scripts, styles, fonts, images and frames; of links; anchors, heading levels, and images unsaid."""

    loaded: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    headings: list[int] = field(default_factory=list)
    images_without_words: list[str] = field(default_factory=list)


def pages_of(site: Path) -> Iterator[Path]:
    """Every page of a site; the templates of its theme are none."""
    return (path for path in sorted(site.rglob("*.html")) if "_static" not in path.relative_to(site).parts)


def page_at(path: Path) -> Page:
    """The page that a file holds."""
    return page_of(path.read_text(encoding="utf-8"))


@functools.cache
def page_of(text: str) -> Page:
    """The page that this text is."""
    reader = Reader()
    reader.feed(text)
    return reader.page


def of_style(text: str) -> list[str]:
    """The addresses that a style sheet loads."""
    return [url or imported for url, imported in IN_STYLE.findall(text)]


class Reader(HTMLParser):
    """Collects a `Page`."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element is, loads and leads to."""
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.page.anchors.add(given["id"])
        if tag == "a" and "href" in given:
            self.page.links.append(given["href"])
        if HEADING.fullmatch(tag):
            self.page.headings.append(int(tag[1]))
        if tag == "img" and not given.get("alt", "").strip():
            self.page.images_without_words.append(given.get("src", ""))
        for name, value in given.items():
            if name in LOADED or (tag == "link" and name == "href" and given.get("rel") != "canonical"):
                parts = value.split(",") if name == "srcset" else [value]
                self.page.loaded += [part.split()[0] for part in parts if part.strip()]
            elif name == "style":
                self.page.loaded += of_style(value)

    def handle_data(self, data: str) -> None:
        """Note what a style element loads."""
        if self.lasttag == "style":
            self.page.loaded += of_style(data)
