"""Sphinx configuration: `sphinx-build -W --keep-going -b html docs docs/_build/html`."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

project = "randfeat"
author = "The randfeat developers"
copyright = "the randfeat developers"
release = version = importlib.import_module("randfeat").__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "matplotlib.sphinxext.plot_directive",
    "catalogue_cards",
    "code_links",
    "docstring_markup",
    "experiment_results",
    "offline_site",
    "other_libraries",
    "readable_site",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "benchmarks", "paper"]  # sections that a page includes, and what is no page
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "randfeat"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_js_files = ["search_from_a_folder.js"]
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": True,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"*": []}  # pages that are in no section have nothing beside them to list


INTEGRATIONS = {  # modules, and the library that each needs
    "torch": "torch",
    "torch_autograd": "torch",
    "jax": "jax",
    "jax_autograd": "jax",
    "transformers": "transformers",
    "dask": "dask",
}


def write_lists() -> None:
    """Write `api/kernels.md` and so on, which list what each package has: nothing is listed twice by hand."""
    about = {
        "kernels": "Exact values. `k1 + k2`, `k1 * k2` and `2.5 * k` are kernels, too.",
        "estimators": "Descriptions of random features. `e1 + e2`, `e1 * e2` and `2.5 * e` are estimators, too.",
        "couplings": "Joint laws of rows, given as an object or by the name in the [catalogue](../catalogue.md).",
    }
    for package, sentence in about.items():
        names = importlib.import_module(f"randfeat.{package}").__all__
        at_the_top = set(importlib.import_module("randfeat").__all__)
        page = f"# {package.capitalize()}\n\n{sentence}\n\n"
        page += table_of("randfeat", [name for name in names if name in at_the_top])
        inside = [name for name in names if name not in at_the_top]
        if inside:
            page += f"\n## In `rf.{package}`\n\nTo derive from, and what operators make.\n\n"
            page += table_of(f"randfeat.{package}", inside)
        (HERE / "api" / f"{package}.md").write_text(page)
    found = [f"integrations.{name}" for name, library in INTEGRATIONS.items() if importlib.util.find_spec(library)]
    sentence = (
        "Modules of `rf.integrations`, imported when they are used; [integrations](../integrations.md) has examples. "
        "Those whose library was missing when this page was built are not listed."
    )
    (HERE / "api" / "integrations.md").write_text(f"# Other libraries\n\n{sentence}\n\n{table_of('randfeat', found)}")


def table_of(module: str, names: list[str]) -> str:
    """The directive that lists these names and writes a page for each."""
    listing = "\n".join(f"   {name}" for name in names)
    table = f".. currentmodule:: {module}\n\n.. autosummary::\n   :toctree: generated\n\n{listing}"
    return f"```{{eval-rst}}\n{table}\n```\n"


write_lists()


def setup(app: Any) -> None:
    """Hide the blank line before a closing fence, without which doctest would take the fence for output."""

    def trim(app: Any, name: str, source: list[str]) -> None:
        source[0] = re.sub(r"(^```python\n.*?)\n+^```$", r"\1\n```", source[0], flags=re.DOTALL | re.MULTILINE)

    app.connect("source-read", trim)


plot_formats = ["svg"]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_rcparams = {"figure.figsize": (6.4, 4.0), "svg.fonttype": "none", "svg.hashsalt": "randfeat"}
plot_apply_rcparams = True
