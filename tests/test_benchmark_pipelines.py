"""The benchmark against pipelines of scikit-learn: every contender learns, and differences are of the same splits."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="pip install '.[sklearn]'")

from experiments.benchmarks import pipelines


@pytest.mark.parametrize(("name", "rows", "worst"), [("wine", 120, 0.3), ("diabetes", 300, 0.95)])
def test_every_contender_learns(name, rows, worst):
    """Better than the most frequent class (0.6 wrong), or than the mean of the target (1)."""
    records = pipelines.run_records(name, rows, 20, 2)
    assert [record["contender"] for record in records] == list(pipelines.CONTENDERS)
    for record in records:
        assert len(record["errors"]) == 2
        assert np.mean(record["errors"]) < worst, record["contender"]


def test_contenders_differ_in_nothing_but_what_their_names_say():
    data = pipelines.data_of("wine")
    models = {name: pipelines.model_of(name, data, 20, 7) for name in pipelines.CONTENDERS}
    firsts = {name: model[0] if hasattr(model, "steps") else model for name, model in models.items()}
    assert {model.gamma for model in firsts.values()} == {1 / data.dim}
    sampled = [model for name, model in firsts.items() if name != pipelines.EXACT]
    assert {(model.n_components, model.random_state) for model in sampled} == {(20, 7)}


def test_differences_are_paired():
    """Errors that vary by 10 from split to split, but by 0.1 around a difference of 1 on the same split."""
    rng = np.random.default_rng(0)
    ours = 10 * rng.standard_normal(50)
    mean, spread = pipelines.difference(ours + 1 + 0.1 * rng.standard_normal(50), ours)
    assert abs(mean - 1) < 5 * 0.1 / np.sqrt(50)
    assert spread == pytest.approx(0.1 / np.sqrt(50), rel=0.5)
    records = [
        {"data": "d", "rows": 3, "width": 2, "contender": c, "errors": e} for c, e in (("a", [1, 2]), ("b", [2, 3]))
    ]
    assert [row[-1] for row in pipelines.table_of_runs([records]).rows] == ["", "+1.0000 ± 0.0000"]
