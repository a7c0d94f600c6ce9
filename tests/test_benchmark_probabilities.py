"""The benchmark of probabilities: every contender has them, and knows more than the shares of the classes."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="pip install '.[sklearn]'")
pytest.importorskip("sklearn.callback", reason="scikit-learn 1.9, for the calibration by a temperature")

from experiments.benchmarks import probabilities


def test_every_contender_learns():
    """The log loss of the shares of three nearly equal classes is log 3 = 1.10; less than half of that is left."""
    table = probabilities.probability_table([("wine", 100, 40, 2)])
    assert [row[2] for row in table.rows] == list(probabilities.CONTENDERS)
    for row in table.rows:
        assert float(row[4]) < 0.55, row
        assert float(row[3]) < 0.3, row
    assert table.rows[0][5] == ""
    assert float(table.rows[0][6]) == 1
    assert np.isfinite([float(row[5].split()[0]) for row in table.rows[1:]]).all()
