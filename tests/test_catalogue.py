"""The catalogue: complete, and true where it can be checked."""

import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest

import randfeat as rf
from randfeat.couplings.base import coupling_names
from randfeat.selection.entries import concrete, example_pair, example_width


def test_is_complete():
    names = {entry.name for entry in rf.catalogue()}
    for base in (rf.Estimator, rf.Coupling, rf.Kernel):
        for cls in concrete(base):
            assert cls.__name__ in names
    kinds = [entry.kind for entry in rf.catalogue()]
    assert kinds == sorted(kinds, key=["estimator", "coupling", "kernel"].index)
    assert [e.name for e in rf.catalogue("kernel")] == [e.name for e in rf.catalogue() if e.kind == "kernel"]
    with pytest.raises(ValueError, match="kind must be one of 'estimator', 'coupling', 'kernel', got 'law'"):
        rf.catalogue("law")


@pytest.mark.parametrize("entry", rf.catalogue("estimator"), ids=lambda entry: entry.name)
def test_estimators_are_as_they_are_listed(entry):
    estimator = getattr(rf, entry.name).example()
    assert entry.source, "the docstring names no source"
    assert entry.kernel == type(estimator.kernel).__name__
    x, y = example_pair(estimator)
    width = example_width(estimator)
    phi = estimator.draw(len(x), width, rng=0)
    if entry.positive:
        assert np.all(phi.queries(x[None]).values > 0)
    if entry.symmetric:
        assert np.array_equal(phi.queries(x[None]).to_array(), phi.keys(x[None]).to_array())
    else:
        assert not np.array_equal(phi.queries(x[None]).to_array(), phi.keys(x[None]).to_array())
    for name in entry.closed_form:
        chosen = estimator.with_coupling(name) if estimator.has_coupling else estimator
        assert np.isfinite(chosen.variance(x, y, num_features=example_width(chosen)))
    if estimator.has_coupling:
        for name in set(coupling_names()) - set(entry.closed_form):
            with pytest.raises(
                ValueError, match=r"montecarlo|rows|can have"
            ):  # NoClosedForm, or a coupling that is refused
                variance_with(estimator, name, x, y)


def variance_with(estimator, coupling, x, y):
    chosen = estimator.with_coupling(coupling)
    return chosen.variance(x, y, num_features=example_width(chosen))


@pytest.mark.parametrize("kind", ["estimator", "coupling", "kernel"])
def test_each_class_is_one_entry_with_a_source(kind):
    entries = rf.catalogue(kind)
    names = [entry.name for entry in entries]
    assert sorted(set(names)) == sorted(names)
    without = [entry.name for entry in entries if entry.source is None or not re.search(r"\d{4}", entry.source)]
    assert not without, "the docstrings name no source with its year"


def test_a_coupling_has_all_its_names_in_one_entry():
    names = {entry.name: entry.acronyms for entry in rf.catalogue("coupling")}
    assert sorted(sum(names.values(), ())) == sorted(coupling_names())
    assert names["Orthogonal"] == ("orthogonal", "orthogonal-constant")
    assert names["Antithetic"] == ("antithetic", "antithetic-orthogonal")


def test_references_are_listed_once_and_in_order():
    """By author and year, whatever accents: "- Author, A., et al. (2021). *Title.* Where."."""
    text = (Path(__file__).parent.parent / "docs/theory/references.md").read_text(encoding="utf-8")
    works = re.findall(r"^- (.+?)\((\d{4})\)\.\s+\*(.+?)\*", text, flags=re.DOTALL | re.MULTILINE)
    assert len(works) == text.count("\n- ") > 40
    titles = [" ".join(title.split()).rstrip(".").lower() for _, _, title in works]
    assert len(set(titles)) == len(titles)
    authors = [
        unicodedata.normalize("NFKD", who).encode("ascii", "ignore").split(b",")[0].lower() for who, _, _ in works
    ]
    assert authors == sorted(authors)


def test_records_are_plain_data():
    entry = rf.catalogue("coupling")[0]
    assert set(entry.as_dict()) >= {"name", "kind", "unbiased", "closed_form", "widths", "source"}
