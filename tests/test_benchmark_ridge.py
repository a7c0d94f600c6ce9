"""The benchmark of ridge regression: its errors, its stream, and what it concludes. No timing is a test."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="pip install '.[sklearn]'")

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


def test_leaving_a_row_out_is_what_its_leverage_says(rng, monkeypatch):
    """The penalties of least error by refitting without each row, and by the formula; GCV is misled by far rows."""
    z = rng.standard_normal((30, 5))
    z[:3] *= 5.0
    y = z + 3.0 * rng.standard_normal((30, 5))
    monkeypatch.setattr(ridge, "PENALTIES", np.geomspace(1e-2, 1e6, 41))
    errors = []
    for alpha in ridge.PENALTIES:
        squares = []
        for j in range(30):
            rest = np.delete(np.arange(30), j)
            center, mean = z[rest].mean(axis=0), y[rest].mean(axis=0)
            shifted = z[rest] - center
            weights = np.linalg.solve(shifted.T @ shifted + alpha * np.eye(5), shifted.T @ (y[rest] - mean))
            squares.append(np.sum((y[j] - mean - (z[j] - center) @ weights) ** 2))
        errors.append(np.mean(squares))
    chosen = ridge.penalty_choices(z, y)
    assert 0 < chosen[ridge.LEFT_OUT] == np.argmin(errors) < 40
    assert chosen[ridge.GCV] != chosen[ridge.LEFT_OUT]


def test_penalties_are_compared():
    records = ridge.penalty_records("ames", 300, 32, 2)
    assert [record["penalty"] for record in records] == [ridge.GCV, ridge.LEFT_OUT, ridge.HINDSIGHT, ridge.ONE]
    assert records[0]["over GCV"] == 0
    assert records[-1]["typical"] == pytest.approx(1.0)
    assert records[2]["error"] == min(record["error"] for record in records)
    (record, *_) = ridge.penalty_records("letter", 300, 32, 1)
    assert 0 < record["error"] < 1


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

    def times(ours):
        return {("ames", 64): {ridge.OURS: [ours] * 3, ridge.OURS_ONE: [0.1] * 3, ridge.SAMPLER: [1.0] * 3}}

    good = ridge.goals(records(0.5, 0.6), times(0.5), stream(1.1, 900))
    assert [goal.met for goal in good] == [True, True, None, True, True]
    bad = ridge.goals(records(0.6, 0.5), times(0.7), stream(2.0, 3000))
    assert [goal.met for goal in bad] == [False, False, None, False, False]


def test_fits_in_turns():
    times = ridge.fit_times("ames", 300, 16, 1)
    assert list(times) == list(ridge.SAMPLED)
    text = ridge.time_table({("ames", 16): times})
    assert [row[2] for row in text.rows] == list(ridge.SAMPLED)
