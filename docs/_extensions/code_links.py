"""Names in code within a line become links: `rf.adapt(q, k)`, `PositiveFeatures`, `np.random.Generator`.

A name is linked where the API pages, or the inventory of another library, have it; every other piece of code stays as
it is. Headings, and the page of an object about itself, are left alone.
"""

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

import randfeat as rf

NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(.*\))?", re.DOTALL)
LIBRARIES = ("randfeat", "numpy", "scipy", "sklearn", "torch")
MODULES = {"rf": "randfeat", "np": "numpy"} | dict(zip(LIBRARIES, LIBRARIES, strict=True))
NOT_WITHIN = (nodes.title, nodes.reference, nodes.rubric, addnodes.pending_xref, addnodes.desc_signature)


def setup(app: Any) -> dict[str, bool]:
    """Look at every page after it is read."""
    app.add_transform(CodeLinks)
    return {"parallel_read_safe": True}


class CodeLinks(SphinxTransform):
    """Wraps code in the reference that Sphinx resolves later, or drops where there is nothing to link to."""

    default_priority = 500

    def apply(self, **options: Any) -> None:
        """Replace the literals that are names."""
        for literal in list(self.document.findall(nodes.literal)):
            target = full_name(literal.astext())
            if target and target not in subjects(literal) and not is_within(literal, NOT_WITHIN):
                place = {"refdoc": self.env.docname, "refdomain": "py", "reftype": "obj", "reftarget": target}
                literal.replace_self(addnodes.pending_xref("", literal.deepcopy(), refexplicit=True, **place))


def full_name(code: str) -> str | None:
    """The object that a piece of code names or calls: of a known module, or a class of `rf.__all__` alone."""
    if not (found := NAME.fullmatch(code)):
        return None
    first, _, rest = found[1].partition(".")
    if first in MODULES:
        return f"{MODULES[first]}.{rest}" if rest else None
    return f"randfeat.{found[1]}" if first in rf.__all__ and first[0].isupper() else None


def subjects(node: nodes.Node) -> set[str]:
    """The objects whose description a node is a part of."""
    found = set()
    while node := node.parent:
        if isinstance(node, addnodes.desc):
            lines = (line for line in node.findall(addnodes.desc_signature) if "fullname" in line)
            found |= {f"{line['module']}.{line['fullname']}" for line in lines}
    return found


def is_within(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    """Whether an ancestor is of one of the kinds."""
    while node := node.parent:
        if isinstance(node, kinds):
            return True
    return False
