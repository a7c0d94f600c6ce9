"""Errors, time and memory against pipelines of scikit-learn: every contender learns, and verdicts can fail."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="pip install '.[sklearn]'")

from experiments import data_sets
from experiments.benchmarks import pipelines
from experiments.data_sets.measure import DataSetCell
from experiments.data_sets.models import model_of
from experiments.data_sets.settings import CONTENDERS, EXACT, GCV, NYSTROEM, OURS, SAMPLER, DataSetsSettings, sizes
from experiments.data_sets.verdicts import difference, verdicts
from experiments.datasets import load_dataset
from experiments.figures import style
from experiments.tables import select
from tests.running import run_in_memory

SMALL = DataSetsSettings(datasets=("wine", "diabetes"), widths=(20,), most_rows=150, num_splits=3)


@pytest.fixture(scope="module")
def results():
    return run_in_memory(replace(data_sets.EXPERIMENT, quick=SMALL), SMALL)


def test_every_contender_learns(results):
    """Better than the most frequent class (0.6 wrong), or than the mean of the target (1)."""
    rows = results.tables["errors"]
    for name, worst in (("wine", 0.3), ("diabetes", 0.95)):
        for contender in CONTENDERS:
            errors = [row["error"] for row in select(rows, dataset=name, contender=contender)]
            assert len(errors) == 3
            assert np.mean(errors) < worst, contender
    assert all(np.isnan(row["penalty"]) == (row["contender"] == EXACT) for row in rows)
    assert {verdict.word for verdict in results.verdicts} == {"reported"}  # too few splits to judge
    with style():
        assert set(data_sets.EXPERIMENT.plot(results)) == {"data_sets"}


def test_contenders_differ_in_nothing_but_what_their_names_say():
    data = load_dataset("wine")
    models = {name: model_of(name, data, 20, 7, 15) for name in CONTENDERS}
    firsts = {name: model[0] if hasattr(model, "steps") else model for name, model in models.items()}
    assert {model.gamma for model in firsts.values()} == {1 / data.dim}
    sampled = {name: model for name, model in firsts.items() if name != EXACT}
    assert {model.random_state for model in sampled.values()} == {7}
    assert {name: model.n_components for name, model in sampled.items()} == {
        name: 15 if name == NYSTROEM else 20 for name in sampled
    }
    assert (models[OURS].alpha, models[GCV].alpha) == ("auto", "gcv")


@pytest.mark.parametrize("rows", [150, 442, 2930, 20_000])
def test_no_row_is_in_both_parts(rows):
    train, test = sizes(rows, 1000)
    assert train + test <= rows
    assert test >= min(0.3 * rows - 1, 1000)
    assert train == min(1000, rows - test)


def made_up(behind, spread, splits=20):
    """Errors of one table in which ours differ from the sampler's by `behind` ± `spread` standard errors."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(splits)
    noise = (noise - noise.mean()) / noise.std(ddof=1) * spread * np.sqrt(splits)
    base = 10 + rng.standard_normal(splits)
    errors = dict.fromkeys(CONTENDERS, base) | {OURS: base + behind + noise}
    return [
        {"dataset": "t", "rows": 3, "columns": 2, "classes": True, "width": 20, "split": split, "contender": name,
         "error": errors[name][split], "penalty": 1.0}
        for name in CONTENDERS for split in range(splits)
    ]  # fmt: skip


@pytest.mark.parametrize(("behind", "fails"), [(-1.0, ()), (0.9, ("mean",)), (1.1, ("mean", "every table"))])
def test_claims_can_fail(behind, fails):
    """Differences are of the same split: errors vary by 1 from split to split, the difference by 0.1."""
    rows = made_up(0.1 * behind, 0.1)
    assert difference(rows, SAMPLER) == pytest.approx((-0.1 * behind, 0.1))
    judged = verdicts({"errors": rows}, replace(SMALL, num_splits=20))
    failed = [verdict.claim for verdict in judged if verdict.holds is False and SAMPLER in verdict.claim]
    assert len(failed) == len(fails)
    assert all(any(word in claim for claim in failed) for word in fails)


def test_times_and_memory():
    times = pipelines.fit_times("diabetes", 309, 16, 1)
    assert list(times) == list(pipelines.CONTENDERS)
    memory = {name: pipelines.extra_memory("diabetes", name, 309, 16) for name in (OURS, SAMPLER)}
    assert all(extra is None or extra >= 0 for extra in memory.values())
    records = [
        {"data": "d", "rows": 3, "width": 2, "contender": name, "times": {OURS: [1.0, 2.0], SAMPLER: [4.0, 4.0]},
         "extra": extra}
        for name, extra in ((OURS, 3 << 20), (SAMPLER, None))
    ]  # fmt: skip
    assert [row[-3:] for row in pipelines.table_of_fits(records).rows] == [("1.500", "-", "3"), ("4.000", "2.67", "-")]


def test_cells_are_the_tables_and_the_widths():
    assert data_sets.EXPERIMENT.cells(replace(SMALL, widths=(8, 16)))[1] == DataSetCell("wine", 16)
