"""The experiments: command line, files, seeds, data, and verdicts that can fail."""

import csv
import dataclasses
import functools
import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import randfeat as rf
from experiments import (
    attention_error,
    catalogue,
    error_coverage,
    kernel_mse,
    orthogonal_gain,
    real_heads,
    recommendation,
    regularized_softmax,
    tail_bounds,
    transfer,
    trig_vs_positive,
    uniform_convergence,
)
from experiments.attention_error.measure import DrawCell
from experiments.attention_error.outputs import stored_tolerance
from experiments.attention_error.softened import Softening
from experiments.cells import measure as measured
from experiments.command_line import main
from experiments.estimators import COUPLINGS, ESTIMATORS, make_estimator
from experiments.heads import average_of_values, head_names, load_head, relative_error, value_range
from experiments.kernel_mse import measure
from experiments.provenance import environment
from experiments.registry import EXPERIMENTS
from experiments.results import Results, Verdict
from tests.running import run_in_memory

TINY_KERNEL = dataclasses.replace(
    kernel_mse.EXPERIMENT.quick,
    dim=4,
    estimators=("positive", "trig pairs"),
    couplings=("independent", "antithetic", "constant norms"),
    distances=(0.25, 1.0),
    num_features=(8, 16),
    num_pairs=4,
    num_draws=400,
    large_dim=16,
    large_distances=(2.0,),
    large_num_features=(8,),
    large_draws=200,
    false_alarm=1e-6,
)
TINY_ATTENTION = dataclasses.replace(
    attention_error.EXPERIMENT.quick,
    heads=("whisper/decoder_causal/L1H1", "vit/flower/L3H4"),
    num_features=(32, 64),
    num_draws=4,
    softened_draws=16,
    softened_queries=16,
)
TINY_HEADS = dataclasses.replace(
    real_heads.EXPERIMENT.quick,
    heads=("minilm/sensesensibility_ch10/L4H3", "whisper/decoder_causal/L1H1"),
    num_features=(32, 64),
    num_draws=2,
    operators=1,
)
TINY_TRANSFER = dataclasses.replace(
    transfer.EXPERIMENT.quick,
    passage_heads=("L0H0", "L2H8"),
    half_heads=("antiberty/trastuzumab_vh/L1H2",),
    num_features=(64,),
    num_draws=3,
)
TINY_RECOMMENDATION = dataclasses.replace(
    recommendation.EXPERIMENT.quick, heads=("antiberty/trastuzumab_vh/L5H0",), num_features=64, num_draws=2
)
TINY_COVERAGE = dataclasses.replace(
    error_coverage.EXPERIMENT.quick,
    heads=("antiberty/trastuzumab_vh/L5H0",),
    operators=("FAVOR+, 256 features", "clustered, 5"),
    repetitions=4,
    accuracies=(0.2,),
)
TINY_CATALOGUE = dataclasses.replace(
    catalogue.EXPERIMENT.quick,
    estimators=("PositiveFeatures", "PosteriorFeatures"),
    couplings=("independent", "antithetic"),
    num_draws=500,
)
TINY_TRIG = dataclasses.replace(
    trig_vs_positive.EXPERIMENT.quick, lengths=(0.5, 1.0), num_angles=13, num_draws=300, false_alarm=1e-6
)
TINY_GAIN = dataclasses.replace(
    orthogonal_gain.EXPERIMENT.quick,
    dims=(4, 16),
    num_draws=400,
    gram_draws=30,
    sign_dims=(4,),
    sign_draws=2000,
    false_alarm=1e-6,
)
TINY_REGULARIZED = dataclasses.replace(
    regularized_softmax.EXPERIMENT.quick,
    dims=(16, 512, 1024),
    num_tokens=24,
    measured_dims=(16,),
    num_draws=400,
    false_alarm=1e-6,
)
TINY_TAILS = dataclasses.replace(
    tail_bounds.EXPERIMENT.quick,
    levels=(1.0, 1.2, 1.5, 2.0, 3.0),
    num_draws=10_000,
    tilted_draws=1000,
    false_alarm=1e-6,
)
TINY_UNIFORM = dataclasses.replace(
    uniform_convergence.EXPERIMENT.quick,
    tokens=(16, 64),
    token_dims=(2, 8),
    token_rows=(64, 256),
    ball_dims=(16, 64),
    ball_rows=256,
    diameters=(1.0, 3.0, 6.0),
    sup_rows=(16, 64, 128),
    num_draws=4,
    num_points=40,
    ridge=4.0,
    spectral_rows=(1024,),
)
TINY = {
    "attention_error": dataclasses.replace(attention_error.EXPERIMENT, settings=TINY_ATTENTION, quick=TINY_ATTENTION),
    "kernel_mse": dataclasses.replace(kernel_mse.EXPERIMENT, settings=TINY_KERNEL, quick=TINY_KERNEL),
    "real_heads": dataclasses.replace(real_heads.EXPERIMENT, settings=TINY_HEADS, quick=TINY_HEADS),
    "transfer": dataclasses.replace(transfer.EXPERIMENT, settings=TINY_TRANSFER, quick=TINY_TRANSFER),
    "recommendation": dataclasses.replace(
        recommendation.EXPERIMENT, settings=TINY_RECOMMENDATION, quick=TINY_RECOMMENDATION
    ),
    "error_coverage": dataclasses.replace(error_coverage.EXPERIMENT, settings=TINY_COVERAGE, quick=TINY_COVERAGE),
    "catalogue": dataclasses.replace(catalogue.EXPERIMENT, settings=TINY_CATALOGUE, quick=TINY_CATALOGUE),
    "trig_vs_positive": dataclasses.replace(trig_vs_positive.EXPERIMENT, settings=TINY_TRIG, quick=TINY_TRIG),
    "orthogonal_gain": dataclasses.replace(orthogonal_gain.EXPERIMENT, settings=TINY_GAIN, quick=TINY_GAIN),
    "regularized_softmax": dataclasses.replace(
        regularized_softmax.EXPERIMENT, settings=TINY_REGULARIZED, quick=TINY_REGULARIZED
    ),
    "tail_bounds": dataclasses.replace(tail_bounds.EXPERIMENT, settings=TINY_TAILS, quick=TINY_TAILS),
    "uniform_convergence": dataclasses.replace(
        uniform_convergence.EXPERIMENT, settings=TINY_UNIFORM, quick=TINY_UNIFORM
    ),
}

COLUMNS = {
    "kernel_mse": {
        "curves": {"estimator", "coupling", "distance", "num_features", "relative_mse"},
        "points": {"estimator", "coupling", "num_features", "num_draws", "relative_mse", "standard_error", "z"},
        "large": {"coupling", "distance", "num_features", "relative_mse", "standard_error", "expected", "z"},
    },
    "attention_error": {
        "heads": {"model", "head", "is_causal", "average_of_values_error", "stored_difference"},
        "errors": {"head", "estimator", "coupling", "num_features", "num_draws", "median", "low", "high", "rms"},
        "draws": {"head", "estimator", "coupling", "num_features", "draw", "error"},
        "predictions": {"head", "estimator", "num_features", "predicted", "spread"},
        "softened": {"head", "estimator", "num_features", "factor", "spread", "predicted", "rms", "ratio"},
    },
    "real_heads": {
        "heads": {"family", "head", "average_of_values_error"},
        "errors": {"family", "head", "method", "num_features", "median", "low", "high"},
        "operators": {"family", "head", "num_queries", "method", "size", "cost", "median", "low", "high", "held_out"},
    },
    "transfer": {
        "passages": {"head", "level", "fitted_on", "num_features", "error", "low", "high"},
        "halves": {"head", "num_features", "own", "other"},
    },
    "recommendation": {"candidates": {"head", "rank", "name", "coupling", "predicted", "measured"}},
    "error_coverage": {
        "cases": {"head", "operator", "num_rows", "true", "coverage", "ratio", "estimate", "largest_row"},
        "accuracies": {"head", "accuracy", "true"},
    },
    "catalogue": {"cells": {"estimator", "coupling", "num_draws", "mean_z", "variance_ratio", "variance_z", "note"}},
    "trig_vs_positive": {
        "surface": {"length", "angle", "positive", "trig pairs", "ratio"},
        "points": {"estimator", "length", "angle", "u", "measured", "standard_error", "expected", "z"},
        "rays": {"cosine", "length", "kernel", "positive"},
    },
    "orthogonal_gain": {
        "gap": {"dim", "u", "independent", "orthogonal", "bound"},
        "ordering": {"dim", "estimator", "coupling", "distance", "ratio"},
        "measured": {"dim", "coupling", "method", "u", "measured", "expected", "z"},
        "sign": {"dim", "change", "beyond", "ratio", "z"},
    },
    "regularized_softmax": {
        "curves": {"dim", "u", "ratio", "bound", "published"},
        "matrices": {"dim", "smallest", "largest", "bound"},
        "draws": {"dim", "u", "measured", "expected", "z"},
        "orthogonal": {"dim", "u", "entry", "ratio"},
    },
    "tail_bounds": {
        "tails": {"coupling", "level", "share", "low", "high", "bound"},
        "rare": {"level", "probability", "standard_error", "bound"},
        "moments": {"envelope", "u", "theta", "exact", "library", "corrected", "printed"},
    },
    "uniform_convergence": {
        "tokens": {"tokens", "dim", "rows", "median", "hoeffding", "normal", "ceiling"},
        "ball": {"dim", "rows", "median"},
        "sup": {"diameter", "rows", "median", "library"},
        "spectral": {"rows", "draw", "error", "bound", "prediction", "promised"},
    },
}


@pytest.fixture
def tiny(monkeypatch):
    """Both experiments at sizes for a test."""
    for name, experiment in TINY.items():
        monkeypatch.setitem(EXPERIMENTS, name, experiment)


@functools.cache
def tiny_results(name):
    """One run of an experiment that several tests look at."""
    return run_in_memory(TINY[name], TINY[name].configure())


@pytest.fixture(scope="module")
def attention_results():
    return tiny_results("attention_error")


def without_date(environment):
    return {name: value for name, value in environment.items() if name != "date"}


# the command line ----------------------------------------------------------------------------------------------------


def test_list_names_every_experiment_with_its_claim(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    assert all(experiment.claim in line for experiment, line in zip(EXPERIMENTS.values(), lines, strict=True))


def test_module_runs_and_matplotlib_waits_until_it_is_needed():
    code = "import sys, runpy\ntry: runpy.run_module('experiments', run_name='__main__')\nfinally: "
    code += "print([name for name in ('matplotlib', 'rich', 'torch', 'jax') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, "list"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "nonsense"],
            f"unknown experiment 'nonsense'; expected one of {', '.join(EXPERIMENTS)}, or module:ATTRIBUTE.",
        ),
        (
            ["run", "atention_error"],
            "unknown experiment 'atention_error'; did you mean attention_error? Expected one of",
        ),
        (["run", "kernel_mse", "--backend", "torch"], "kernel_mse does not run on torch; expected one of: numpy."),
        (["run", "kernel_mse", "--rng", "-1"], "--rng must be a non-negative integer, got -1."),
        (["run", "kernel_mse", "--rng", "x"], "argument --rng: invalid int value: 'x'"),
        (["run", "kernel_mse", "--fast"], "unrecognized arguments: --fast"),
        (["run"], "the following arguments are required: NAME"),
        ([], "the following arguments are required: command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_commands_are_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"experiments: {message}")
    assert err.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(measure.PointCell, "measure", lambda *_: pytest.fail("work was done"))
    assert main(["run", "kernel_mse", "--out", str(tmp_path / "file" / "results")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("experiments: cannot write to --out")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", TINY)
def test_run_writes_numbers_and_figures(name, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", name, "--rng", "3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "holds: " in out or "reported: " in out
    assert "\x1b" not in out  # plain text, no progress bar: this is not a terminal
    folder = tmp_path / "results" / name
    content = json.loads((folder / "results.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert content["settings"]["seed"] == 3
    environment = {"date", "python", "numpy", "scipy", "randfeat", "platform", "processor", "device", "commit"}
    assert environment <= set(content["environment"])
    assert content["command"] == f"python -m experiments run {name} --rng 3"
    assert set(content["figures"]) == {path.stem for path in folder.glob("*.svg")}
    assert all(caption != figure for figure, caption in content["figures"].items())
    assert set(content["tables"]) == set(COLUMNS[name])
    for table, columns in COLUMNS[name].items():
        with (folder / f"{table}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(content["tables"][table]["rows"]) > 0
        assert columns <= set(rows[0])
    pictures = sorted(folder.glob("*.png"))
    assert folder / f"{name}.png" in pictures
    for picture in pictures:
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert ElementTree.parse(picture.with_suffix(".svg")).getroot().tag.endswith("svg")


def test_a_failing_claim_is_exit_code_1(tmp_path, capsys, monkeypatch):
    bad = Verdict("pigs fly", "some", "none", False)
    failing = dataclasses.replace(TINY["kernel_mse"], verdicts=lambda tables, settings: [bad], plot=lambda results: {})
    monkeypatch.setitem(EXPERIMENTS, "kernel_mse", failing)
    assert main(["run", "kernel_mse", "--out", str(tmp_path)]) == 1
    assert "does not hold: pigs fly" in capsys.readouterr().out
    assert Results.read(tmp_path).verdicts == [bad]


# numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_a_cell_depends_on_the_seed_and_not_on_the_others(name):
    """Measured again, the last one first, the cells give the numbers of the run; another seed gives others."""
    experiment, first = TINY[name], tiny_results(name)
    settings, other = (experiment.configure(seed=seed) for seed in (0, 6))
    cells = experiment.cells(settings)
    assert len({cell.key for cell in cells}) == len(cells)
    alone = [measured(cell, settings) for cell in reversed(cells)][::-1]
    again = experiment.judge(alone, settings)
    assert repr(first.tables) == repr(again.tables)
    assert first.verdicts == again.verdicts
    assert without_date(first.environment) == without_date(again.environment)
    pairs = ((here, measured(cell, other)) for here, cell in zip(alone, cells, strict=True))
    assert any(repr(here.tables) != repr(there.tables) for here, there in pairs)


def test_progress_is_told_every_cell():
    seen = []
    experiment = TINY["kernel_mse"]
    run_in_memory(experiment, experiment.configure(), lambda done, total, key: seen.append((done, total, key)))
    keys = [cell.key for cell in experiment.cells(experiment.configure())]
    assert seen == [(done, len(keys), key) for done, key in enumerate([*keys, ""])]


def test_results_survive_the_disk_with_nan_and_infinities(tmp_path):
    rows = [{"name": "NaN?", "x": math.inf, "y": np.float32(0.5)}, {"name": "b", "x": -math.inf, "y": math.nan}]
    results = Results("e", "c", {"a": (1, 2)}, {"commit": None}, 1.5, {"t": rows}, [Verdict("c", "e", "m", None)])
    results.write(tmp_path)
    json.loads((tmp_path / "results.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    back = Results.read(tmp_path)
    assert back.tables["t"][0] == {"name": "NaN?", "x": math.inf, "y": 0.5}
    assert back.tables["t"][1]["x"] == -math.inf
    assert math.isnan(back.tables["t"][1]["y"])
    assert (back.verdicts, back.settings, back.failed) == (results.verdicts, {"a": [1, 2]}, False)
    assert (tmp_path / "t.csv").read_text().splitlines() == ["name,x,y", "NaN?,inf,0.5", "b,-inf,nan"]


def test_tables_must_be_rectangular(tmp_path):
    with pytest.raises(ValueError, match=r"same columns, got \['a'\] and \['b'\]"):
        Results("e", "c", {}, {}, 0.0, {"t": [{"a": 1}, {"b": 2}]}, []).write(tmp_path)


# the heads -----------------------------------------------------------------------------------------------------------


def test_there_are_22_heads_of_4_models():
    assert len(head_names()) == 22
    assert {load_head(name).model for name in head_names()} == {"MiniLM", "Whisper", "ViT", "AntiBERTy"}
    with pytest.raises(ValueError, match=r"unknown head 'vit/flower'; expected one of minilm/"):
        load_head("vit/flower")


@pytest.mark.parametrize("name", head_names())
def test_exact_attention_equals_the_stored_output(name):
    head = load_head(name)
    difference = np.max(
        np.abs(rf.softmax_attention(head.query, head.key, head.value, is_causal=head.is_causal) - head.out)
    )
    assert difference <= stored_tolerance(head)
    # The bound is about rounding: far below the smallest error that the experiment measures.
    assert stored_tolerance(head) < 1e-5 * np.max(np.abs(head.value))


def test_average_and_range_see_the_same_keys_as_the_query():
    head = load_head("whisper/decoder_causal/L1H1")
    assert head.is_causal
    average, (low, high) = average_of_values(head), value_range(head)
    for i in (0, 3, 50):
        np.testing.assert_allclose(average[i], head.value[: i + 1].mean(axis=0), atol=1e-12)
        np.testing.assert_array_equal(low[i], head.value[: i + 1].min(axis=0))
        np.testing.assert_array_equal(high[i], head.value[: i + 1].max(axis=0))
    cross = load_head("whisper/cross/L3H3")
    np.testing.assert_allclose(average_of_values(cross)[7], cross.value.mean(axis=0), atol=1e-12)
    assert average_of_values(cross).shape == cross.out.shape


# verdicts ------------------------------------------------------------------------------------------------------------


def test_a_wrong_closed_form_does_not_hold(monkeypatch):
    right = measure.relative_mse
    monkeypatch.setattr(measure, "relative_mse", lambda *arguments: 1.5 * right(*arguments))
    results = run_in_memory(kernel_mse.EXPERIMENT, dataclasses.replace(TINY_KERNEL, num_draws=4000))
    words = [verdict.word for verdict in results.verdicts if verdict.claim.startswith("MSE")]
    assert words == ["does not hold"] * 6


def test_closed_form_of_a_biased_coupling_has_its_bias():
    settings = TINY_KERNEL
    estimator = make_estimator("positive", "constant norms")
    x, y = measure.random_pairs(settings, "positive", 1.0)
    np.testing.assert_allclose(np.sum((x + y) ** 2, axis=-1), 1.0)
    np.testing.assert_allclose(np.sum((x - y) ** 2, axis=-1), 1.0)
    bias = estimator.mean(x[0], y[0]) / estimator.kernel.pairwise(x[0], y[0]) - 1
    variance = estimator.relative_variance(x[0], y[0], num_features=16)
    assert measure.relative_mse(estimator, x[0], y[0], 16) == pytest.approx(variance + bias**2)
    assert bias < -0.01


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_pairs_of_one_distance_have_one_relative_mse(estimator, coupling):
    """The experiment averages over them."""
    law = make_estimator(estimator, coupling)
    x, y = measure.random_pairs(TINY_KERNEL, estimator, 0.5)
    values = [measure.relative_mse(law, a, b, 16) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(values, values[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("table", "change", "claim"),
    [
        ("heads", lambda row: row | {"stored_difference": 1e-3}, "exact attention"),
        ("errors", lambda row: row | {"finite": False}, "finite"),
        ("errors", lambda row: row | {"out_of_range": row["out_of_range"] + 1e-6}, "lie within"),
        ("softened", lambda row: row | {"ratio": 1.5 * row["ratio"]}, "the delta method predicts"),
        ("softened", lambda row: row | {"ratio": row["ratio"] / 1.5}, "the delta method predicts"),
        ("softened", lambda row: row | {"ratio": math.nan}, "the delta method predicts"),
        ("softened", lambda row: row | {"spread": 1.0}, "the delta method predicts"),
    ],
)
def test_attention_claims_fail_on_bad_numbers(attention_results, table, change, claim):
    experiment = TINY["attention_error"]
    good = {verdict.claim: verdict.holds for verdict in attention_results.verdicts}
    assert [holds for text, holds in good.items() if claim in text] == [True]
    tables = attention_results.tables | {table: [change(row) for row in attention_results.tables[table]]}
    bad = {verdict.claim: verdict.holds for verdict in experiment.verdicts(tables, experiment.configure())}
    assert [text for text in good if good[text] != bad[text]] == [text for text in good if claim in text]


def test_reported_lines_claim_nothing(attention_results):
    words = [verdict.word for verdict in attention_results.verdicts]
    assert words.count("reported") >= 5
    assert not attention_results.failed
    line = next(verdict for verdict in attention_results.verdicts if verdict.claim.startswith("FAVOR+"))
    assert line.holds is None
    assert " of 2 heads" in line.measured


def test_spread_is_the_mean_relative_variance_along_a_row():
    head = load_head("whisper/decoder_causal/L1H1")
    estimator = make_estimator("positive", "independent")
    chosen = np.arange(len(head.query))
    test = Softening(estimator, head, chosen, 64)
    factor = 0.2
    root = (factor / head.dim**0.5) ** 0.5
    naive = []
    for i in chosen:
        q, k = root * head.query[i], root * head.key[: i + 1]
        p = np.exp(k @ q - np.max(k @ q))
        naive.append(np.sum(p / p.sum() * np.expm1(np.sum((q + k) ** 2, axis=-1)) / 64))
    assert test.spread(factor) == pytest.approx(max(naive), rel=1e-12)
    found = test.factor(0.05)
    assert test.spread(found) <= 0.05 < test.spread(found * 1.002)
    assert test.factor(np.inf) == 1.0


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_backends_give_the_numbers_of_numpy(backend):
    library = pytest.importorskip(backend)
    rounding = 1e-9 if backend == "torch" or library.config.jax_enable_x64 else 1e-3
    settings = dataclasses.replace(TINY_ATTENTION, num_features=(32,), num_draws=2)
    cell = DrawCell("antiberty/trastuzumab_vh/L1H2", "positive", "orthogonal")
    here = cell.measure(settings)
    there = cell.measure(dataclasses.replace(settings, backend=backend))
    for a, b in zip(here["draws"], there["draws"], strict=True):
        assert a["error"] == pytest.approx(b["error"], rel=rounding)
    (row,) = there["errors"]
    assert row["out_of_range"] <= row["rounding"] <= 122 * (1e-15 if rounding < 1e-6 else 1e-6)
    assert backend in environment(backend)


def test_relative_error():
    assert relative_error(np.array([[1.0, 1.0]]), np.array([[0.0, 1.0]])) == 1.0
