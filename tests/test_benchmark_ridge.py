"""The benchmark of ridge regression: its errors, its stream, and what it concludes. No timing is a test."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="pip install 'randfeat[sklearn]'")

from experiments.benchmarks import ridge


@pytest.mark.parametrize("contender", ridge.CONTENDERS["ames"])
@pytest.mark.parametrize("data", ["ames", "letter"])
def test_every_contender_learns(data, contender):
    """Better than the mean of the target, or than one class for all; but for the sampler whose gamma is too large."""
    record = ridge.fit_record(data, contender, rows=600, width=64, splits=1)
    assert len(record["errors"]) == 1
    assert record["seconds"] > 0
    assert contender == ridge.SAMPLER or record["errors"][0] < {"ames": 0.8, "letter": 0.6}[data]


def test_errors():
    target = np.array([0, 1, 2, 1])
    assert ridge.error(np.array([0, 1, 1, 1]), target, classes=True) == 0.25
    assert ridge.error(np.eye(3)[[0, 1, 2, 0]], target, classes=True) == 0.25
    numbers = np.array([1.0, 3.0, 5.0])
    assert ridge.error(np.full(3, 3.0), numbers, classes=False) == pytest.approx(1.0)


def test_the_stream_is_all_rows_in_blocks():
    first, again = ridge.block_of_rows(1, 50), ridge.block_of_rows(1, 50)
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], ridge.block_of_rows(2, 50)[0])
    records = list(ridge.stream_records(2500, 32, 1000))
    assert [record["rows"] for record in records] == [1000, 1000, 500, 0, 10_000]
    assert "R²" in records[-1]["step"]


def test_goals_can_be_missed():
    def records(ours, theirs):
        return [{"data": "ames", "contender": name, "width": 64, "errors": [value]}
                for name, value in ((ridge.OURS, ours), (ridge.SCALED, theirs))]  # fmt: skip

    def stream(last, peak):
        return [{"step": f"block {i}", "rows": 10, "seconds": seconds, "peak": peak << 20}
                for i, seconds in enumerate((9.0, 1.0, last))]  # fmt: skip

    assert [goal.met for goal in ridge.goals(records(0.5, 0.6), stream(1.1, 900))] == [True, True, True]
    assert [goal.met for goal in ridge.goals(records(0.6, 0.5), stream(2.0, 3000))] == [False, False, False]
