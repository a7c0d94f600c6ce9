"""What the gallery keeps of runs, numbers from which every figure is drawn again; experiments that live elsewhere."""

import dataclasses
import json
import re
import shutil
import threading
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from experiments import figures
from experiments.atomic_files import replacing, write_text
from experiments.command_line import GALLERY, main
from experiments.gallery import LARGEST, THUMBNAIL
from experiments.registry import EXPERIMENTS, QUESTIONS
from experiments.results import PACKED, Results
from experiments.tables import rounded
from tests.cheap_experiment import EXPERIMENT, CheapSettings
from tests.running import run_in_memory

DOCS = Path(__file__).parents[1] / "docs"
WIDTHS = {  # settings with the widths, and the axes over them
    "kernel_mse": (("num_features", "large_num_features"), slice(0, -1)),
    "clusters": (("cluster_widths",), slice(None)),
    "uniform_convergence": (("spectral_rows",), slice(3, 4)),
}


def texts_of(svg):
    """Every piece of text in a drawing, without spaces."""
    words = ("".join(element.itertext()) for element in ElementTree.parse(svg).iter() if element.tag.endswith("text"))
    return {"".join(word.split()) for word in words}


def written_in(figure):
    """Titles, labels and legends of a figure that nobody has laid out, line by line, without spaces or formulas."""
    parts = [figure, *figure.subfigs]
    found = [text for part in parts for text in (part.get_suptitle(), part.get_supylabel())]
    for axes in figure.axes:
        found += [axes.get_title(loc) for loc in ("left", "center", "right")] + [axes.get_xlabel(), axes.get_ylabel()]
    legends = [*(legend for part in parts for legend in part.legends), *(axes.get_legend() for axes in figure.axes)]
    found += [text.get_text() for legend in legends if legend is not None for text in legend.get_texts()]
    return {"".join(line.split()) for text in found if "$" not in text for line in text.split("\n")} - {""}


def check_that_points_stand_at_their_width(figure, settings, names, over_widths):
    true = {width for name in names for width in settings[name]}
    marked = [line for axes in figure.axes[over_widths] for line in axes.lines if line.get_marker() not in ("None", "")]
    assert len(marked) > 2
    assert {float(x) for line in marked for x in line.get_xdata()} <= true


def test_the_registry_has_every_experiment_once_under_the_name_of_its_module():
    names = [name for group in QUESTIONS.values() for name in group]
    assert len(set(names)) == len(names)
    assert [experiment.name for experiment in EXPERIMENTS.values()] == names
    modules = {path.parent.name for path in Path(figures.__file__).parent.glob("*/__init__.py")} - {"benchmarks"}
    modules |= {path.stem for path in Path(figures.__file__).parent.glob("*.py") if "EXPERIMENT =" in path.read_text()}
    assert set(names) == modules


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_published_numbers_are_those_of_the_published_figures(name):
    """Drawn from the kept tables, figures have the names, titles, labels and legends of the kept drawings."""
    folder = GALLERY / name
    results = Results.read(folder)
    assert results.experiment == name
    assert all(results.tables.values())
    assert (folder / THUMBNAIL).stat().st_size < 60_000
    assert (folder / "results.json").stat().st_size <= LARGEST
    with figures.style():
        drawn = EXPERIMENTS[name].plot(results)
    assert list(drawn) == list(results.figures)
    assert {path.stem for path in folder.glob("*.svg")} == set(drawn)
    for figure_name, figure in drawn.items():
        words = written_in(figure)
        assert words
        assert words <= texts_of(folder / f"{figure_name}.svg")
        if figure_name in WIDTHS:
            check_that_points_stand_at_their_width(figure, results.settings, *WIDTHS[figure_name])
    assert (DOCS / "gallery" / f"{name}.md").is_file()


def test_one_command_draws_published_figures_again(tmp_path, capsys):
    folder = tmp_path / "transfer"
    shutil.copytree(GALLERY / "transfer", folder, ignore=shutil.ignore_patterns("*.svg", "*.png"))
    assert main(["figures", "--gallery", str(tmp_path)]) == 0
    assert "transfer: thumbnail.png, transfer.svg" in capsys.readouterr().out
    assert texts_of(folder / "transfer.svg") == texts_of(GALLERY / "transfer" / "transfer.svg")
    assert (folder / THUMBNAIL).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["figures", "--gallery", "nowhere"], "nothing is published in nowhere."),
        (
            ["figures", "cheap", "--gallery", "empty"],
            "cannot draw the figures of cheap: empty/cheap/results.json has no",
        ),
        (["figures", "cheap", "--gallery", "nowhere"], "cannot draw the figures of cheap: "),
        (["run", "missing_module:EXPERIMENT"], "missing_module:EXPERIMENT: No module named 'missing_module'; expected"),
        (["run", "json:EXPERIMENT"], "json:EXPERIMENT: module 'json' has no attribute 'EXPERIMENT'"),
        (["run", "json:dumps"], "json:dumps is a function, expected an Experiment."),
        (["run", ":EXPERIMENT"], ":EXPERIMENT: Empty module name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_commands_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(EXPERIMENTS, "cheap", EXPERIMENT)
    Results("cheap", "c", {}, {}, 0.0, {}, []).write(Path("empty/cheap"))
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"experiments: {message}")
    assert err.count("\n") == 1


def line(results):
    figure = figures.new_figure(2, 2)
    figure.subplots().plot([row["x"] for row in results.tables["t"]])
    return {"f": figure}


@pytest.mark.parametrize("count", [30, 15_000])
def test_published_copy_has_six_digits_and_replaces_the_last_one(count, tmp_path, monkeypatch, capsys):
    """Large tables are compressed, in a file of their own."""
    monkeypatch.setitem(EXPERIMENTS, "cheap", dataclasses.replace(EXPERIMENT, plot=line))
    results = run_in_memory(EXPERIMENT, CheapSettings(num_cells=3, pause=0))
    tables = {"t": [{"x": i / 7, "n": 10**9 + i} for i in range(count)]}
    results = dataclasses.replace(results, figures={"f": "F"}, tables=tables)
    results.write(tmp_path / "run")
    target = tmp_path / "gallery" / "cheap"
    target.mkdir(parents=True)
    (target / "old.svg").write_text("<svg/>")
    (target / PACKED).write_text("old")
    command = ["publish", "cheap", "--out", str(tmp_path / "run"), "--gallery", str(tmp_path / "gallery")]
    assert main(command) == 0
    large = [PACKED] if count > 1000 else []
    assert sorted(path.name for path in target.iterdir()) == ["f.svg", "results.json", *large, THUMBNAIL]
    copy = Results.read(target)
    assert copy.tables["t"] == [{"x": float(f"{i / 7:.6g}"), "n": 10**9 + i} for i in range(count)]
    kept = (copy.verdicts, copy.summaries, copy.settings, copy.figures)
    assert kept == (results.verdicts, results.summaries, json.loads(json.dumps(results.settings)), results.figures)
    assert (target / "results.json").stat().st_size < LARGEST
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    assert main(command) == 0
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    capsys.readouterr()


def test_rounded():
    assert [rounded(x) for x in (1 / 3, 123456789.0, 7, True, None, "1.23456789")] == [
        *(0.333333, 123457000.0, 7, True, None, "1.23456789")
    ]
    assert rounded(float("-inf")) == float("-inf")


def test_writers_of_one_file_do_not_meet(tmp_path):
    """Each text arrives whole, and none of the temporary files stays."""
    path, errors = tmp_path / "file.json", []
    texts = [str(i) * 50_000 for i in range(4)]

    def write(text):
        try:
            for _ in range(25):
                write_text(path, text)
                assert path.read_text() in texts
        except Exception as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == []
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(TypeError), replacing(path) as file:
        file.write("text where bytes are wanted")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_experiment_may_live_elsewhere(tmp_path, monkeypatch, capsys):
    """The example of the page on experiments, in a module of its own, runs with its figure, and resumes."""
    page = (DOCS / "experiments.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "EXPERIMENT" in block)
    (tmp_path / "area_of_a_disc.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "area_of_a_disc:EXPERIMENT", "--quick"]) == 0
    out = capsys.readouterr().out
    assert "holds: " in out
    results = Results.read(tmp_path / "results" / "area_of_a_disc")
    assert results.command == "python -m experiments run area_of_a_disc:EXPERIMENT --quick --rng 0"
    assert (tmp_path / "results" / "area_of_a_disc" / "area_of_a_disc.svg").is_file()
    cells = set(tmp_path.glob("results/*/cells/*/*.json"))
    assert main(["run", "area_of_a_disc:EXPERIMENT", "--quick", "--resume"]) == 0
    assert set(tmp_path.glob("results/*/cells/*/*.json")) == cells
