"""Kurtoses of the estimate of one row, against integrals over the row."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.montecarlo.tails import kurtosis_of_estimate

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(120)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
PHASES = 2 * np.pi * (np.arange(16) + 0.5) / 16  # exact for polynomials in a cosine up to degree 15

ESTIMATES = {
    rf.PositiveFeatures(): (1, np.exp),
    rf.HyperbolicFeatures(): (1, np.cosh),
    rf.TrigonometricFeatures(): (-1, np.cos),
    rf.TrigonometricFeatures(variant="phase"): (-1, None),
}
"""Sign of y in x ± y, and the estimate as a function of w·(x ± y)."""


def pair(square, sign, dim=4):
    """x, y with |x ± y|² = square that are not parallel."""
    z = np.full(dim, np.sqrt(square / dim))
    x = np.array([0.3, -0.2, 0.5, 0.1])
    return x, sign * (z - x)


@pytest.mark.parametrize("kernel", [rf.SoftmaxKernel(), rf.GaussianKernel(length_scale=1.7)], ids=repr)
@pytest.mark.parametrize("square", [0.1, 0.7, 2.0])
@pytest.mark.parametrize("estimator", ESTIMATES, ids=repr)
def test_fourth_over_squared_second_central_moment(estimator, square, kernel):
    """For random phases b, the estimate is 2 cos(w·x + b) cos(w·y + b) = cos w·(x-y) + cos(w·(x+y) + 2b)."""
    sign, function = ESTIMATES[estimator]
    x, y = pair(square, sign)
    projection = np.sqrt(square) * NODES
    if function is None:
        values = np.cos(projection)[:, None] + np.cos(PHASES)  # the second angle is uniform, whatever w is
        weights = WEIGHTS[:, None] / len(PHASES) * np.ones_like(values)
    else:
        values, weights = function(projection), WEIGHTS
    centered = values - np.sum(weights * values)
    expected = np.sum(weights * centered**4) / np.sum(weights * centered**2) ** 2
    scale = getattr(kernel, "length_scale", 1.0)
    found = estimator.with_kernel(kernel).row_kurtosis(scale * x, scale * y)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("estimator", [e for e, (_, f) in ESTIMATES.items() if f is not None], ids=repr)
def test_limits_of_small_and_large_arguments(estimator):
    """(w·z)² has the kurtosis 15 as z vanishes, w·z has 3; and nothing overflows."""
    sign, function = ESTIMATES[estimator]
    x, y = pair(1e-9, sign)
    assert estimator.row_kurtosis(x, y) == pytest.approx(3 if function is np.exp else 15, rel=0.05)
    large = estimator.row_kurtosis(20 * x, 20 * sign * x)
    assert np.isfinite(large)


def test_kurtosis_of_a_mean_over_rows():
    """3 + (κ - 3)/m, which the warnings of Monte Carlo go by."""
    x, y = pair(0.7, 1)
    estimator = rf.PositiveFeatures()
    kurtosis = float(estimator.row_kurtosis(x, y))
    found = kurtosis_of_estimate(rf.HyperbolicFeatures(), x, y, num_features=16)
    single = float(rf.HyperbolicFeatures().row_kurtosis(x, y))
    assert found == pytest.approx(3 + (single - 3) / 8)  # two features for each row
    assert kurtosis_of_estimate(estimator, x, y, num_features=8) == pytest.approx(3 + (kurtosis - 3) / 8)
