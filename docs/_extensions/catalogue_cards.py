"""The directive `catalogue`: `rf.catalogue(kind)` as cards in groups, and boxes to tick that hide the other cards.

Groups and words follow from the entries: what is new in the library has its card without a change here. The boxes are
plain HTML; rules in `style.css` hide the cards that do not have the class of a ticked box.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cards import card, cards, class_link, folded, section, with_code
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import randfeat as rf
from randfeat.couplings.base import coupling_names
from randfeat.kernels import ShiftInvariantKernel, SoftmaxFamily, algebra
from randfeat.selection.entries import concrete

FEW = 2  # couplings that a list of all others may leave out
BOXES = {
    "positive": "positive",
    "bounded": "bounded",
    "unbiased": "unbiased",
    "fitted": "fitted to data",
    "any-width": "any number of features",
}
ALL_OF_FAMILY = "all features of the softmax family"


entries = functools.cache(rf.catalogue)


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("catalogue", Catalogue)
    return {"parallel_read_safe": True}


class Catalogue(SphinxDirective):
    """One kind of entries."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The boxes, and a section for each group that has entries."""
        kind = self.arguments[0]
        grouped: dict[str, list[nodes.container]] = {title: [] for title in GROUPS[kind]}
        for entry in entries(kind):
            title = next(title for title, belongs in GROUPS[kind].items() if belongs(entry))
            grouped[title].append(CARDS[kind](entry, self.env.docname))
        sections = [section(title, [cards(found)], classes=["group"]) for title, found in grouped.items() if found]
        links = [nodes.reference("", each[0].astext(), refid=each["ids"][0], internal=True) for each in sections]
        jumps = [part for link in links for part in (nodes.Text(" · "), link)][1:]
        return [nodes.paragraph("", "", *jumps), *([boxes()] if kind == "estimator" else []), *sections]


def boxes() -> nodes.raw:
    """Boxes to tick, one for each property."""
    inputs = (f'<label><input type="checkbox" id="only-{name}"> {text}</label>' for name, text in BOXES.items())
    return nodes.raw(
        "", f'<fieldset class="only"><legend>Show only</legend>{" ".join(inputs)}</fieldset>', format="html"
    )


def estimator_card(entry: Any, docname: str) -> nodes.container:
    """What it is for; kernel, properties and widths; where its variance is known, and the source."""
    sign = "positive" if entry.positive else "of either sign"
    bias = "unbiased" if entry.unbiased else "biased"
    width = "any number of features" if entry.widths == "any" else f"number of features: {entry.widths}"
    properties = [sign, *(["bounded"] if entry.bounded else []), bias, width]
    flags = {"positive": entry.positive, "bounded": entry.bounded, "unbiased": entry.unbiased}
    flags |= {"fitted": is_fitted(entry), "any-width": entry.widths == "any"}
    kernel = type(class_of(entry).example().kernel)
    return card(
        heading(entry, docname),
        use(entry),
        nodes.paragraph("", "", linked(kernel, docname), nodes.Text(", " + ", ".join(properties)), classes=["facts"]),
        *folded("Variance, source", facts({"Variance known": listed(entry.closed_form), "Source": entry.source})),
        classes=["estimator", *(name for name, holds in flags.items() if holds)],
    )


def coupling_card(entry: Any, docname: str) -> nodes.container:
    """Its names, what it is for, the numbers of rows; whether joint laws are known, and the source."""
    names = [part for name in entry.acronyms for part in (nodes.Text(" or "), nodes.literal("", f'"{name}"'))][1:]
    laws = "known" if entry.closed_form else "not known"
    return card(
        heading(entry, docname),
        nodes.paragraph("", "", *names, classes=["facts"]),
        use(entry),
        nodes.paragraph("", f"{entry.widths}; joint laws {laws}", classes=["facts"]),
        *folded("Source", facts({"Source": entry.source})),
    )


def kernel_card(entry: Any, docname: str) -> nodes.container:
    """Its formula, the features that estimate it, and the source."""
    text = (inspect.getdoc(class_of(entry)) or "").split("\n\n")[0].replace("\n", " ")
    return card(
        heading(entry, docname),
        nodes.paragraph("", "", *with_code(text)),
        *estimated_by(class_of(entry), docname),
        *folded("Source", facts({"Source": entry.source})),
    )


def estimated_by(kernel: Any, docname: str) -> list[nodes.Node]:
    """The estimators that take this kernel; for the many of the softmax family one link."""
    if issubclass(kernel, SoftmaxFamily):
        link = nodes.reference("", ALL_OF_FAMILY, refid=nodes.make_id(POSITIVE), internal=True)
        return [nodes.paragraph("", "Features: ", link, classes=["facts"])]
    found = [entry for entry in entries("estimator") if takes(class_of(entry), kernel)]
    links = [part for entry in found for part in (nodes.Text(", "), linked(class_of(entry), docname))][1:]
    return [nodes.paragraph("", "Features: ", *links, classes=["facts"])] if links else []


def takes(estimator: Any, kernel: Any) -> bool:
    """Whether an estimator can be made for the kernel with its default parameters."""
    try:
        return type(estimator(kernel=kernel()).kernel) is kernel
    except (TypeError, ValueError):
        return False


def class_of(entry: Any) -> Any:
    """The class that an entry describes, of the library or registered."""
    return next(cls for cls in concrete(getattr(rf, entry.kind.title())) if cls.__name__ == entry.name)


def linked(cls: type, docname: str) -> nodes.Node:
    """The name of a class, as a link to its page if it is of the library."""
    if not cls.__module__.startswith("randfeat."):
        return nodes.literal("", cls.__name__)
    module = "randfeat" if cls.__name__ in rf.__all__ else ".".join(cls.__module__.split(".")[:2])
    return class_link(f"{module}.{cls.__name__}", cls.__name__, seen_from=docname)


def heading(entry: Any, docname: str) -> nodes.paragraph:
    """The name as a link, and beside it the names that papers use."""
    papers = f" {', '.join(entry.acronyms)}" if entry.kind == "estimator" and entry.acronyms else ""
    return nodes.paragraph("", "", linked(class_of(entry), docname), nodes.Text(papers), classes=["name"])


def use(entry: Any) -> nodes.paragraph:
    """When to take it; the summary of the class, where its docstring does not say that."""
    summary = (inspect.getdoc(class_of(entry)) or "").split("\n\n")[0].replace("\n", " ")
    return nodes.paragraph("", "", *with_code(f"For {entry.use}." if entry.use else summary))


def facts(named: dict[str, str]) -> Iterator[nodes.paragraph]:
    """One line for each fact, its name in front."""
    for name, text in named.items():
        yield nodes.paragraph("", f"{name}: {text}.", classes=["facts"])


def listed(names: Sequence[str]) -> str:
    """Under which couplings, in words; if most are there, only those that are not."""
    if tuple(names) == ("any row",):
        return "in closed form"
    if len(names) == len(coupling_names()):
        return "under every coupling"
    with_laws = [name for entry in entries("coupling") if entry.closed_form for name in entry.acronyms]
    missing = [name for name in with_laws if name not in names]
    if set(names) <= set(with_laws) and len(missing) <= FEW:
        return "under all couplings with known joint laws" + (f" but {' and '.join(missing)}" if missing else "")
    return f"under {', '.join(names)}" if names else "under no coupling; bounds are"


def is_fitted(entry: Any) -> bool:
    """Whether the parameters come from data, by its own `fit` or by `rf.adapt`."""
    return hasattr(class_of(entry), "fit") or "rf.adapt" in (entry.use or "")


def is_softmax(entry: Any) -> bool:
    """Whether it estimates a kernel of the softmax family."""
    return isinstance(class_of(entry).example().kernel, SoftmaxFamily)


def is_made(cls: type) -> bool:
    """Whether a kernel is a sum, a product or a rescaling of others."""
    return cls.__module__ == algebra.__name__


POSITIVE = "Positive features"
GROUPS: dict[str, dict[str, Callable[[Any], bool]]] = {  # the first that an entry belongs to
    "estimator": {
        POSITIVE: lambda entry: is_softmax(entry) and entry.positive and not is_fitted(entry),
        "Positive features, fitted to data": lambda entry: is_softmax(entry) and entry.positive,
        "Features of either sign": is_softmax,
        "Sums, products, scales": lambda entry: is_made(type(class_of(entry).example().kernel)),
        "Features of other kernels": lambda entry: True,
    },
    "coupling": {
        "Exact marginals: unbiased estimates": lambda entry: entry.unbiased,
        "Other marginals: biased estimates": lambda entry: True,
    },
    "kernel": {
        "Softmax family": lambda entry: issubclass(class_of(entry), SoftmaxFamily),
        "Shift-invariant kernels": lambda entry: issubclass(class_of(entry), ShiftInvariantKernel),
        "Sums, products and scales of kernels": lambda entry: is_made(class_of(entry)),
        "Other kernels": lambda entry: True,
    },
}
CARDS = {"estimator": estimator_card, "coupling": coupling_card, "kernel": kernel_card}
