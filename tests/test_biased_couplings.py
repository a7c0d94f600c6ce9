"""Hybrids and control variates at rows that are not N(0, I): closed forms against samples, where biases are not 0."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

import randfeat as rf
from randfeat.estimators import AngularMixer, GaussianMixer
from randfeat.montecarlo import sample_errors

DIM, ROWS, DRAWS = 3, 4, 100_000
X = 0.8 * np.array([[0.9, 0.2, -0.1], [0.3, 0.8, 0.4], [0.6, -0.5, 0.7]])
Y = 0.8 * np.array([[0.7, -0.3, 0.4], [-0.6, 0.3, -0.8], [0.5, 0.6, 0.6]])
LIMIT = stats.norm.isf(1e-6 / 2)

COUPLINGS = {
    "constant norms": rf.Orthogonal(norms="constant"),
    "centered": rf.MomentMatched(order=1),  # the second moment is 3/4
    "whitened": rf.MomentMatched(order=2),
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Heavy(AngularMixer):
    """A weight with a constant part beyond one, so that the last base has a negative one."""

    constant = 1.75

    def mean(self, x, y):
        return super().mean(x, y) + 1.25


HYBRIDS = {
    "angular": lambda rows: rf.AngularHybridFeatures(coupling=rows, num_signs=1, shared_rows=False),
    "negative weight": lambda rows: rf.HybridFeatures(
        bases=(rf.PositiveFeatures(coupling=rows), rf.TrigonometricFeatures(coupling=rows)),
        mixers=(Heavy(2),),
        shared_rows=False,
    ),
    "three bases": lambda rows: rf.HybridFeatures(
        bases=tuple(
            each(coupling=rows) for each in (rf.PositiveFeatures, rf.TrigonometricFeatures, rf.HyperbolicFeatures)
        ),
        mixers=(AngularMixer(1), GaussianMixer(1, width=2.0)),
        shared_rows=False,
    ),
}  # fmt: skip


def biases(estimator, width):
    """E K̂/K - 1 in closed form."""
    return estimator.mean(X, Y, num_features=width) / estimator.kernel.pairwise(X, Y) - 1


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("name", HYBRIDS)
def test_moments_of_hybrids(name, coupling):
    """|z| < 4.9 for three means and three mean squares (false alarm 6e-6 for each case).

    A mean square that is off by 25 % at any pair, or by 6 % at all, is caught 999 times in 1000. Biases are up to 0.4,
    and their products with the variance of a weight are parts of the variance.
    """
    estimator = HYBRIDS[name](COUPLINGS[coupling])
    width = ROWS * estimator.features_per_row
    sample = sample_errors(estimator, X, Y, num_features=width, num_draws=DRAWS, rng=1)
    bias, variance = biases(estimator, width), estimator.relative_variance(X, Y, num_features=width)
    assert np.max(np.abs(bias)) > 0.02
    assert np.all(np.abs(sample.bias().z(bias)) < LIMIT)
    found = sample.mse()
    detectable = (LIMIT + 3.1) * found.standard_error / found.value
    assert np.max(detectable) < 0.25, "too few draws"
    assert np.min(detectable) < 0.06, "too few draws"
    assert np.all(np.abs(found.z(variance + bias**2)) < LIMIT)


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("base", ["positive", "trigonometric"])
def test_means_of_control_variates(base, coupling):
    """|z| < 4.9 for three means (false alarm 3e-6); a mean off by 2 % is caught 999 times in 1000."""
    estimator = rf.ControlVariateFeatures(coupling=COUPLINGS[coupling], base=base)
    width = estimator.num_features(ROWS, DIM)
    sample = sample_errors(estimator, X, Y, num_features=width, num_draws=DRAWS, rng=2)
    bias, found = biases(estimator, width), sample.bias()
    assert np.all((LIMIT + 3.1) * found.standard_error < 0.02 * (1 + np.abs(bias)))
    assert np.all(np.abs(found.z(bias)) < LIMIT)
    with pytest.raises(rf.NoClosedForm, match="covariance of control variates"):
        estimator.variance(X, Y, num_features=width)
