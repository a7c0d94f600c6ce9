"""The web page with the results of many runs, and the directive that puts them into the documentation."""

import dataclasses
import html.parser
import importlib
import itertools
import re

import pytest

from experiments.command_line import main
from experiments.report import counted, gather, page
from experiments.results import Results, Verdict
from tests.cheap_experiment import EXPERIMENT, CheapSettings
from tests.running import run_in_memory


class Page(html.parser.HTMLParser):
    """Checks that elements are nested, and collects what there is."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.ids, self.links, self.images = [], [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        if tag == "img":
            self.images.append(attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Two runs, one with figures, and their report."""
    folder = tmp_path_factory.mktemp("report")
    settings = CheapSettings(num_cells=3, pause=0)
    results = run_in_memory(EXPERIMENT, settings)
    results.write(folder / "cheap")
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>'
    other = dataclasses.replace(
        results, experiment="other", figures={"one": 'Caption with <i> & "quotes"', "gone": "not there"}
    )
    other.write(folder / "other")
    for name in ("one", "left over"):
        (folder / "other" / f"{name}.svg").write_text(svg)
    assert main(["report", str(folder)]) == 0
    return folder, results, (folder / "report.html").read_text(encoding="utf-8")


def test_report_is_well_formed_and_stands_alone(reported, capsys):
    _, _, text = reported
    found = Page(text)
    assert found.open == []
    assert "script" not in found.tags
    assert len(set(found.ids)) == len(found.ids)
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)
    assert [link for link in found.links if not link.startswith("#")] == []
    assert not re.search(r"(src|href)=\"(?!data:|#)|url\(|@import", text)
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    headings = [int(tag[1]) for tag in found.tags if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))


def test_report_has_every_verdict_figure_summary_and_setting(reported):
    _, results, text = reported
    found = Page(text)
    for verdict in results.verdicts:
        assert found.text.count(verdict.claim) == 2 * 2  # of two experiments, on top and in their sections
        assert found.text.count(verdict.measured) == 2
    assert "2 of 2 claims hold; 2 numbers are only reported." in found.text
    assert [image["alt"] for image in found.images] == ['Figure one: Caption with <i> & "quotes"']
    assert found.images[0]["src"].startswith("data:image/svg+xml;base64,")
    assert {"numbers <b>", "x & y", results.summaries[0].rows[0][1]} <= set(found.text)
    assert {"num_cells", "commit", results.environment["platform"]} <= set(found.text)
    assert results.claim in found.text


def test_report_keeps_the_order_it_is_told(reported):
    folder, _, text = reported
    assert [run[1].experiment for run in gather(folder, order=["other", "cheap"])] == ["other", "cheap"]
    assert page(gather(folder)) == text


def test_directive_shows_what_is_saved(reported):
    pytest.importorskip("sphinx", reason="needs Sphinx: pip install '.[docs]'")
    directive = importlib.import_module("experiment_results")
    folder, results, _ = reported
    other = Results.read(folder / "other")
    (figure,) = directive.figures(folder / "other", other)
    assert 'uri="/gallery/results/other/one.svg"' in str(figure)
    assert results.claim in figure.astext()
    for verdict in other.verdicts:
        assert all(text in directive.verdicts(other)[1].astext() for text in (verdict.claim, verdict.measured))
    assert "run cheap --rng 0" in directive.how_it_was_run(other)[0].astext()
    assert "python -m experiments publish absent" in directive.not_run("absent").astext()


def test_counted_in_words():
    held, number = Verdict("c", "e", "m", True), Verdict("c", "e", "m", None)
    assert counted([held, number]) == "1 of 1 claims hold; 1 number is only reported."
    assert counted([held, number, number]) == "1 of 1 claims hold; 2 numbers are only reported."


def test_figures_come_first_and_all_verdicts_last(reported):
    _, results, text = reported
    assert text.index("<img") < text.index(results.verdicts[1].measured, text.index('id="other"'))
    assert text.index('id="verdicts"') > text.index('id="other"')
