"""Student proposals: the closed form against an independent quadrature, limits, and what it is for."""

import numpy as np
import pytest
from scipy.special import gammaln, roots_genlaguerre, roots_hermite

import randfeat as rf


def log_moment(dim, u, nu):
    """`log (4π)^{-d/2} E[1/t_ν(v)]`, v ~ N(z, I/2), from one coordinate along z and the squared norm of the others."""
    h, h_weight = roots_hermite(100)
    g, g_weight = roots_genlaguerre(100, (dim - 1) / 2 - 1) if dim > 1 else (np.zeros(1), np.ones(1))
    sqnorm = (np.sqrt(u) + h[:, None]) ** 2 + g
    power = (nu + dim) / 2
    mean = h_weight @ (1 + sqnorm / nu) ** power @ g_weight / (np.sqrt(np.pi) * g_weight.sum())
    log_constant = gammaln(power) - gammaln(nu / 2) - dim / 2 * np.log(nu * np.pi)
    return np.log(mean) - log_constant - dim / 2 * np.log(4 * np.pi)


@pytest.mark.parametrize("dim", [1, 2, 3, 16, 64])
def test_second_moment(dim):
    for nu in (0.5, 1.0, 4.0, 64.0):
        estimator = rf.StudentPositiveFeatures(degrees_of_freedom=nu)
        for u in (0.0, 0.3, 4.0, 30.0, 600.0):
            np.testing.assert_allclose(estimator.log_second_moment(u, dim), log_moment(dim, u, nu), atol=1e-9)


def test_many_degrees_of_freedom_are_positive_features():
    """To first order in 1/ν: the variance of `PositiveFeatures` is a limit, not a lookalike."""
    x, y = np.array([0.5, 0.2]), np.array([0.3, -0.1])
    limit = rf.PositiveFeatures(coupling="independent").relative_variance(x, y, num_features=1)
    off = [
        rf.StudentPositiveFeatures(degrees_of_freedom=nu, coupling="independent").relative_variance(
            x, y, num_features=1
        )
        - limit
        for nu in (1e3, 1e4)
    ]
    assert abs(off[0]) < 0.01
    assert off[1] / off[0] == pytest.approx(0.1, rel=0.05)


def test_growth_is_polynomial():
    """Doubling u multiplies the second moment by about 2^{(ν+d)/2}, not by e^u."""
    estimator = rf.StudentPositiveFeatures(degrees_of_freedom=4.0)
    ratio = np.exp(estimator.log_second_moment(20000.0, 4) - estimator.log_second_moment(10000.0, 4))
    assert ratio == pytest.approx(2**4, rel=0.01)


def test_closed_form_for_independent_rows_only():
    x = np.ones(3) / 4
    assert rf.StudentPositiveFeatures(coupling="orthogonal").mean(x, x) == pytest.approx(np.exp(3 / 16))
    for coupling in ("orthogonal", "antithetic"):
        with pytest.raises(rf.NoClosedForm, match=r"use independent rows, or randfeat\.montecarlo"):
            rf.StudentPositiveFeatures(coupling=coupling).variance(x, x, num_features=4)
    with pytest.raises(rf.NoClosedForm, match="without exact marginals"):
        rf.StudentPositiveFeatures(coupling="orthogonal-constant").mean(x, x)
    for value in (0.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="degrees_of_freedom must be positive and finite"):
            rf.StudentPositiveFeatures(degrees_of_freedom=value)
