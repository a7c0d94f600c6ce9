"""Links that the documentation makes by itself: of names in code, and to the pages of other libraries."""

import importlib
import pydoc
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="needs Sphinx: pip install '.[docs]'")
from docutils import nodes
from sphinx import addnodes
from sphinx.util.inventory import InventoryFile

code_links = importlib.import_module("code_links")
other_libraries = importlib.import_module("other_libraries")
DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("rf.adapt(q, k)", "randfeat.adapt"),
        ("rf.PositiveFeatures", "randfeat.PositiveFeatures"),
        ("PositiveFeatures(coupling='x')", "randfeat.PositiveFeatures"),
        ("OptimalPositiveFeatures.fit", "randfeat.OptimalPositiveFeatures.fit"),
        ("np.random.Generator", "numpy.random.Generator"),
        ("rf", None),
        ("adapt", None),
        ("estimator.draw(dim=16)", None),
        ("rf.adapt(q, k).draw", None),
        ("x + y", None),
        ("Nothing", None),
    ],
)
def test_the_object_that_a_piece_of_code_names(code, name):
    assert code_links.full_name(code) == name


def test_a_description_does_not_link_to_itself():
    literal, line = nodes.literal("", "rf.adapt"), addnodes.desc_signature("", "", module="randfeat", fullname="adapt")
    addnodes.desc("", line, addnodes.desc_content("", nodes.paragraph("", "", literal)))
    assert code_links.subjects(literal) == {"randfeat.adapt"}


@pytest.mark.parametrize("library", other_libraries.LIBRARIES)
def test_names_of_the_inventories_exist(library):
    """Those of libraries that are installed."""
    content = (DOCS / other_libraries.FOLDER / f"{library}.txt").read_bytes()
    names = [name for kind in InventoryFile.loads(content, uri="").data.values() for name in kind]
    assert len(names) == content.count(b"\n") - 3
    if library != "python":
        pytest.importorskip(library)
    assert not [name for name in names if pydoc.locate(name) is None]


def test_private_paths_of_types_are_made_public(monkeypatch):
    monkeypatch.setattr(other_libraries.intersphinx, "missing_reference", lambda app, env, node, content: node)
    asked = {"reftype": "class", "refdomain": "py"}
    private = addnodes.pending_xref("", reftarget="numpy.random._generator.Generator", **asked)
    public = addnodes.pending_xref("", reftarget="numpy.random.Generator", **asked)
    assert other_libraries.resolve_private_path(None, None, private, None)["reftarget"] == "numpy.random.Generator"
    assert other_libraries.resolve_private_path(None, None, public, None) is None
