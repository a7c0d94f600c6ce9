"""The draft of the paper: what it claims is held by a test or by a published table, and its references are complete."""

import functools
import json
import re
from pathlib import Path

import pytest

import randfeat as rf
from experiments.registry import EXPERIMENTS

ROOT = Path(__file__).parents[1]
PAPER = ROOT / "docs" / "paper" / "paper.md"
HEAD, BODY = re.fullmatch(r"---\n(.*?)\n---\n(.*)", PAPER.read_text(encoding="utf-8"), flags=re.DOTALL).groups()
TEXT = " ".join(BODY.split())
BIBLIOGRAPHY = PAPER.with_name("paper.bib").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"@\w+\{(\w+),\n(.*?)\n\}", BIBLIOGRAPHY, flags=re.DOTALL))

HELD_BY = {
    "One seed gives the same features": ("tests/test_testing.py", "test_features_are_the_same_on_every_backend"),
    "linear attention (full, causal, streaming, with gradients)": ("tests/attention/test_vjp.py", "test_over_chunks"),
    "ridge regression": ("tests/test_feature_moments.py", "test_regression_from_moments_is_that_from_all_features"),
    "Gaussian process samples": ("tests/test_gaussian_process.py", "test_moments_of_prior_and_posterior"),
    "directions from a QR factorization without a correction of signs": (
        "tests/test_defects.py",
        "test_b01_orthogonal_rows_without",
    ),
    "tests hold every estimator to the same laws": ("tests/test_testing.py", "test_every_estimator_keeps_the_contract"),
    "hold estimators of users to the same laws": ("tests/test_testing.py", "test_the_contract_can_fail"),
    "tested with planted mistakes": ("tests/test_mutants.py", "test_mutants_turn_the_suite_red"),
    "`predict_attention_error`": ("tests/test_forecast.py", "test_right_on_stored_heads"),
    "`recommend`": ("tests/test_recommendation.py", "test_predicted_errors_are_measured_errors"),
    "from exact outputs of a few queries": ("tests/compressed/test_output_error.py", "test_weights_of_the_sample_are"),
    "An estimator is one file": ("tests/test_own_estimators.py", "test_formula_and_moments_are_enough"),
    "listed in the catalogue": ("tests/test_catalogue.py", "test_is_complete"),
    "an immutable description": ("tests/test_every_estimator.py", "test_is_a_value"),
    "needs no epsilon": ("tests/test_layering.py", "test_no_epsilon_is_added"),
    "convex combinations of the values at every finite scale": ("tests/attention/test_scales.py", "test_laws_at_every"),
    "do not depend on later positions to the last bit": ("tests/attention/test_causal.py", "test_outputs_never_see"),
    "state their formula once": ("tests/test_own_estimators.py", "test_formula_and_moments_are_enough"),
    "is the reference in tests": ("tests/attention/test_numpy_executor.py", "generic, expected"),
    "only numerical dependencies": ("tests/test_public_api.py", "test_importing_imports_nothing_optional"),
    "at most fifteen lines each": ("tests/test_published_figures.py", "test_figures_are_short_and_show_the_claim"),
    "can be resumed after a kill": ("tests/test_runner.py", "test_ten_kills_lose_nothing_and_repeat_nothing"),
    "spread over processes": ("tests/test_runner.py", "test_workers_that_die_lose_nothing"),
    "or a Dask cluster": ("tests/test_runner.py", "test_dask_gives_the_bits_of_one_process"),
    "drawn from them": ("tests/test_gallery.py", "test_published_numbers_are_those_of"),
    "compiled and emulated": ("tests/attention/cuda/test_compile.py", "test_every_instance_compiles"),
    "measured where they do not hold": (
        "tests/test_forecast.py",
        "test_rows_that_closed_forms_do_not_describe_are_measured",
    ),
}
"""Words of the paper, and the test that holds what they say."""


@pytest.mark.parametrize("words", HELD_BY)
def test_claims_are_held(words):
    path, name = HELD_BY[words]
    assert words in TEXT, "the paper says it in other words now"
    assert name in (ROOT / path).read_text(encoding="utf-8"), f"{path} has no {name}"


def test_counts():
    found = json.loads((ROOT / "docs/gallery/results/attention_error/results.json").read_text(encoding="utf-8"))
    verdict = next(
        each["measured"] for each in found["verdicts"] if each["claim"].startswith("FAVOR+ against the aver")
    )
    worse, heads = re.match(r"worse on ([\d, ]+) of (\d+) heads", verdict).groups()
    widths = (32, 64, 128, 256, 512, 1024)
    assert f"On {worse.split(', ')[widths.index(256)]} of {heads} public heads" in TEXT
    assert f" {len(EXPERIMENTS)} larger experiments" in TEXT
    assert "four published figures" in TEXT
    assert len(list((ROOT / "docs" / "published").glob("*.py"))) == 4


def test_names_exist():
    for name in set(re.findall(r"`([\w.]+)`", BODY)) - {"randfeat", "Nystroem"}:
        path = name.removeprefix("randfeat.").split(".")
        homes = (rf, rf.testing, rf.montecarlo)
        assert any(_has(home, path) for home in homes), name


def _has(home, path):
    return functools.reduce(lambda thing, part: getattr(thing, part, None), path, home) is not None


def test_the_form_is_that_of_the_journal():
    """Journal of Open Source Software: fields of the metadata, sections, 750 to 1000 words here."""
    for field in ("title", "tags", "authors", "affiliations", "date", "bibliography"):
        assert re.search(rf"^{field}:", HEAD, re.MULTILINE), field
    assert re.search(r"^date: \d{1,2} [A-Z][a-z]+ \d{4}$", HEAD, re.MULTILINE)
    sections = re.findall(r"^# (.*)$", BODY, re.MULTILINE)
    wanted = ["Summary", "Statement of need", "State of the field", "Software design", "Research impact statement"]
    assert [name for name in sections if name in wanted] == wanted
    assert sections[-1] == "References"
    assert 750 <= len(BODY.split()) <= 1000


NO_DOI = {"rahimi2007"}
"""Proceedings that have none, nor does the paper stand elsewhere under one."""


def test_references_are_cited_and_have_identifiers():
    assert set(re.findall(r"@(\w+)", BODY)) == set(ENTRIES)
    for key, entry in ENTRIES.items():
        fields = dict(re.findall(r"(\w+) = \{(.*?)\}(?:,\n|\Z)", entry, re.DOTALL))
        assert {"author", "title", "year"} <= set(fields), key
        assert {"journal", "booktitle"} & set(fields), f"{key} has no venue"
        assert fields["year"] in key
        if key not in NO_DOI:
            assert re.fullmatch(r"10\.\d{4,9}/[\w./-]+", fields["doi"]), f"{key} has no DOI"
