"""Joint moments of two keys, from which errors of attention are predicted: against integrals over the row."""

import numpy as np
import pytest

import randfeat as rf

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
GRID = np.stack(np.meshgrid(NODES, NODES), axis=-1).reshape(-1, 2)
GRID_WEIGHTS = np.outer(WEIGHTS, WEIGHTS).ravel() / WEIGHTS.sum() ** 2
X, KEYS = np.array([0.3, -0.2]), np.array([[0.5, 0.1], [-0.4, 0.3], [0.2, -0.6], [0.0, 0.4]])
TURN = np.array([[0.8, 0.6], [-0.6, 0.8]])

ESTIMATORS = {
    "positive": rf.PositiveFeatures(),
    "hyperbolic": rf.HyperbolicFeatures(),
    "trigonometric": rf.TrigonometricFeatures(),
    "optimal": rf.OptimalPositiveFeatures(exponent=-0.15),
    "optimal, a > 0": rf.OptimalPositiveFeatures(exponent=0.04),
    "optimal, antithetic": rf.OptimalPositiveFeatures(exponent=-0.15, antithetic=True),
    "dense": rf.DenseExponentialFeatures(exponents=[-0.2, 0.03], rotation=TURN),
    "complex, real": rf.ComplexExponentialFeatures(matrix=1.3),
    "complex, imaginary": rf.ComplexExponentialFeatures(matrix=1.2j),
    "centered": rf.CenteredFeatures(query_shift=[0.2, 0.1], key_shift=[-0.1, 0.3]),
    "balanced": rf.BalancedFeatures(base=rf.OptimalPositiveFeatures(exponent=-0.1), matrix=np.diag([1.5, 0.7])),
}


class Nodes(rf.Independent):
    """One row for each map of a batch: the nodes."""

    def sample(self, num_rows, dim, *, rng=None, batch_shape=()):
        assert (*batch_shape, num_rows, dim) == (len(GRID), 1, 2)
        return GRID[:, None, :]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_moments_by_quadrature(name):
    """`E[S_j S_k] / (k_j k_k)`, S the estimate of one row: integrands are entire, 60 nodes for each of two axes."""
    estimator = ESTIMATORS[name]
    phi = estimator.with_coupling(Nodes()).draw(2, estimator.features_per_row, batch_shape=(len(GRID),))
    relative = phi.estimate(X[None], KEYS)[:, 0] / estimator.kernel.pairwise(X, KEYS)
    np.testing.assert_allclose(GRID_WEIGHTS @ relative, 1, rtol=1e-9)
    expected = np.log((relative.T * GRID_WEIGHTS) @ relative)
    np.testing.assert_allclose(estimator.log_joint_moment(X, KEYS), expected, atol=1e-9)
