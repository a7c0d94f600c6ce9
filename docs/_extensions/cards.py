"""Pieces of pages that several directives make: rows of cards, text that opens at a click, links to classes."""

from collections.abc import Iterable, Sequence

from docutils import nodes
from sphinx import addnodes


def section(title: str, content: Sequence[nodes.Node], *, classes: Sequence[str] = ()) -> nodes.section:
    """A heading that can be linked to, and what stands below it."""
    return nodes.section("", nodes.title("", title), *content, ids=[nodes.make_id(title)], classes=list(classes))


def cards(content: Iterable[nodes.container]) -> nodes.container:
    """Cards side by side, as many in a row as there is room for."""
    return nodes.container("", *content, classes=["cards"])


def card(*content: nodes.Node, classes: Sequence[str] = ()) -> nodes.container:
    """One card of a row."""
    return nodes.container("", *content, classes=["one-card", *classes])


def folded(title: str, content: Sequence[nodes.Node]) -> list[nodes.Node]:
    """Content that opens at a click; in formats other than HTML it just follows."""
    opening = nodes.raw("", f"<details><summary>{title}</summary>", format="html")
    return [opening, *content, nodes.raw("", "</details>", format="html")]


def page_link(docname: str, *, seen_from: str) -> addnodes.pending_xref:
    """A link to a page, named like the page."""
    target = {"refdoc": seen_from, "reftype": "doc", "reftarget": f"/{docname}", "refdomain": "std"}
    return addnodes.pending_xref("", nodes.inline("", docname), refexplicit=False, **target)


def class_link(name: str, text: str, *, seen_from: str) -> addnodes.pending_xref:
    """A link to the page of a class, whose full name is given."""
    target = {"refdoc": seen_from, "reftype": "class", "reftarget": name, "refdomain": "py"}
    return addnodes.pending_xref("", nodes.literal("", text), refexplicit=True, refwarn=True, **target)


def with_code(text: str) -> list[nodes.Node]:
    """Text in which pieces between single backticks are code."""
    pieces = (piece.strip("`") for piece in text.split("`"))
    return [nodes.literal("", piece) if i % 2 else nodes.Text(piece) for i, piece in enumerate(pieces) if piece]


def table_of_contents(title: str, docnames: Sequence[str], *, seen_from: str) -> addnodes.toctree:
    """A hidden `toctree` of pages under a caption, for the menu and the order of the pages."""
    entries = [(None, docname) for docname in docnames]
    return addnodes.toctree(
        "",
        parent=seen_from,
        caption=title,
        entries=entries,
        includefiles=list(docnames),
        rawentries=[],
        rawcaption=title,
        maxdepth=1,
        glob=False,
        hidden=True,
        includehidden=False,
        numbered=0,
        titlesonly=False,
    )
