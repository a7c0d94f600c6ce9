"""The catalogue of the documentation: a card for every entry, and boxes that hide what they say."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import randfeat as rf
from randfeat.selection.entries import labelled

pytest.importorskip("sphinx", reason="needs Sphinx: pip install '.[docs]'")
from sphinx import addnodes

catalogue_cards = pytest.importorskip("catalogue_cards")
STYLE = (Path(__file__).parents[1] / "docs" / "_static" / "style.css").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["estimator", "coupling", "kernel"])
def test_every_entry_has_a_card_that_links_to_its_page_and_names_its_source(kind):
    for entry in rf.catalogue(kind):
        card = catalogue_cards.CARDS[kind](entry, "catalogue")
        (link, *_) = card.findall(lambda node: node.get("reftype") == "class" if hasattr(node, "get") else False)
        assert link["reftarget"].split(".")[-1] == entry.name
        assert card[0].astext().startswith(entry.name)
        assert f"Source: {entry.source}." in card.astext()
        assert all(f'"{name}"' in card.astext() for name in entry.acronyms if kind == "coupling")


@pytest.mark.parametrize("kind", ["estimator", "coupling"])
def test_every_card_says_what_it_is_for(kind):
    without = [entry.name for entry in rf.catalogue(kind) if not entry.use]
    assert not without, "the docstrings have no line `For: when to take it.`"
    for entry in rf.catalogue(kind):
        said = catalogue_cards.use(entry).astext()
        assert said == f"For {entry.use}.".replace("`", "")
        assert len(said.split()) <= 25


def test_what_does_not_say_what_it_is_for_is_described_by_its_summary():
    (entry,) = (entry for entry in rf.catalogue("kernel") if entry.name == "SoftmaxKernel")
    assert catalogue_cards.use(entry).astext().startswith("Softmax kernel k(x, y) = exp(scale · x·y):")
    assert labelled(rf.SoftmaxKernel, "For") == ""


def test_a_registered_class_has_a_card_without_a_link(monkeypatch):
    class OwnFeatures(rf.PositiveFeatures):
        """Features of one's own."""

    monkeypatch.setattr(catalogue_cards, "concrete", lambda base: [OwnFeatures])
    (entry,) = (entry for entry in rf.catalogue("estimator") if entry.name == "PositiveFeatures")
    card = catalogue_cards.estimator_card(replace(entry, name="OwnFeatures", use=""), "catalogue")
    assert card[0].astext().startswith("OwnFeatures")
    assert card[1].astext() == "Features of one's own."
    assert not list(card[0].findall(addnodes.pending_xref))


def test_every_box_hides_some_cards_and_not_all():
    cards = [catalogue_cards.estimator_card(entry, "catalogue") for entry in rf.catalogue("estimator")]
    assert set(re.findall(r'id="only-([\w-]+)"', catalogue_cards.boxes().astext())) == set(catalogue_cards.BOXES)
    for name in catalogue_cards.BOXES:
        kept = [card for card in cards if name in card["classes"]]
        assert 0 < len(kept) < len(cards)
        assert f"main:has(#only-{name}:checked) .estimator:not(.{name})" in STYLE
        assert f"main:has(#only-{name}:checked) .group:has(.estimator):not(:has(.{name}))" in STYLE


def test_kernels_name_the_features_that_take_them():
    (gaussian, matern) = (catalogue_cards.estimated_by(kernel, "c") for kernel in (rf.GaussianKernel, rf.MaternKernel))
    assert gaussian[0].astext() == f"Features: {catalogue_cards.ALL_OF_FAMILY}"
    assert matern[0].astext() == "Features: SpectralFeatures"
