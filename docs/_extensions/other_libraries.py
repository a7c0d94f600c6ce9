"""Links to the documentation of Python and of other libraries, made without a network.

`docs/inventories/` has a list for each library: in Sphinx's inventory format 1, which is text, one line for each name
that our pages use. So every build makes the same links, and none waits for a server. To make links from the libraries'
own inventories, with all their names, set `RANDFEAT_INVENTORIES=online`; what cannot be fetched comes from the lists.
"""

import os
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.ext import intersphinx

FOLDER = "inventories"
LIBRARIES = {
    "python": "https://docs.python.org/3",
    "numpy": "https://numpy.org/doc/stable",
    "scipy": "https://docs.scipy.org/doc/scipy",
    "sklearn": "https://scikit-learn.org/stable",
    "torch": "https://docs.pytorch.org/docs/stable",
}


def setup(app: Any) -> dict[str, bool]:
    """Tell `sphinx.ext.intersphinx` where to look, and give private paths of types their public ones."""
    app.setup_extension("sphinx.ext.intersphinx")
    online = [None] if os.environ.get("RANDFEAT_INVENTORIES") == "online" else []
    app.config.intersphinx_mapping = {
        name: (address, (*online, f"{FOLDER}/{name}.txt")) for name, address in LIBRARIES.items()
    }
    app.config.intersphinx_timeout = 5
    app.connect("missing-reference", resolve_private_path)
    return {"parallel_read_safe": True}


def resolve_private_path(app: Any, env: Any, node: addnodes.pending_xref, content: nodes.Element) -> Any:
    """Look for `numpy.random.Generator` where a signature has `numpy.random._generator.Generator`."""
    parts = node.get("reftarget", "").split(".")
    public = ".".join(part for part in parts if not part.startswith("_"))
    if node.get("refdomain") != "py" or parts[0] not in LIBRARIES or public == node["reftarget"]:
        return None
    node["reftarget"] = public
    return intersphinx.missing_reference(app, env, node, content)
