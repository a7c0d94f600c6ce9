"""Closed forms: published tables to their printed digits, limits, orderings, and ranges.

That they equal Monte Carlo is checked for every estimator, coupling and width in test_testing.py.
"""

import numpy as np
import pytest

import randfeat as rf
from randfeat.couplings.laws import RadialPair
from tests.cases import COUPLINGS, ESTIMATORS

POSITIVE, HYPERBOLIC, TRIGONOMETRIC = rf.PositiveFeatures, rf.HyperbolicFeatures, rf.TrigonometricFeatures


def pair_at(dim, *, u=None, t=None):
    """x, y with |x + y|² = u and |x - y| = 0, or |x - y|² = t and x = -y."""
    axis = np.eye(dim)[0]
    if u is not None:
        return axis * np.sqrt(u) / 2, axis * np.sqrt(u) / 2
    return axis * np.sqrt(t) / 2, -axis * np.sqrt(t) / 2


def ratio(cls, coupling, dim, **where):
    """MSE over that of independent rows, at d rows."""
    x, y = pair_at(dim, **where)
    width = dim * cls().features_per_row
    mse = [cls(coupling=c).relative_variance(x, y, num_features=width) for c in (coupling, "independent")]
    return float(mse[0] / mse[1])


# d, u: orthogonal, simplex, centered, antithetic, antithetic-orthogonal; trigonometric at t = u: orthogonal, simplex
RATIOS = {
    (4, 0.5): (0.915, 0.330, 0.290, 0.393, 0.337, 0.445, 0.691),
    (4, 1): (0.887, 0.510, 0.505, 0.632, 0.557, 0.409, 0.668),
    (4, 2): (0.905, 0.761, 0.772, 0.865, 0.801, 0.406, 0.652),
    (4, 4): (0.972, 0.956, 0.959, 0.982, 0.963, 0.605, 0.720),
    (16, 0.5): (0.847, 0.135, 0.242, 0.393, 0.251, 0.143, 0.204),
    (16, 1): (0.782, 0.274, 0.437, 0.632, 0.428, 0.158, 0.217),
    (16, 2): (0.791, 0.552, 0.707, 0.865, 0.669, 0.284, 0.333),
    (16, 4): (0.922, 0.882, 0.934, 0.982, 0.909, 0.671, 0.690),
    (64, 0.5): (0.819, 0.064, 0.232, 0.393, 0.215, 0.052, 0.067),
    (64, 1): (0.731, 0.170, 0.423, 0.632, 0.367, 0.098, 0.112),
    (64, 2): (0.722, 0.432, 0.692, 0.865, 0.591, 0.276, 0.288),
    (64, 4): (0.879, 0.818, 0.928, 0.982, 0.862, 0.691, 0.695),
}


@pytest.mark.parametrize(("dim", "s"), RATIOS)
def test_table_of_coupling_gains(dim, s):
    names = ("orthogonal", "simplex", "centered", "antithetic", "antithetic-orthogonal")
    got = [ratio(POSITIVE, name, dim, u=s) for name in names]
    got += [ratio(TRIGONOMETRIC, name, dim, t=s) for name in ("orthogonal", "simplex")]
    np.testing.assert_allclose(got, RATIOS[dim, s], atol=0.00051)  # printed to three decimals


def test_table_of_single_rows():
    """Relative variance of one row of positive and hyperbolic features (two or three printed digits)."""
    for u, positive, hyperbolic in ((1, 1.72, 0.54), (4, 53.6, 26.3), (16, 8.9e6, 4.4e6), (32, 7.9e13, 3.9e13)):
        x, y = pair_at(64, u=u)
        np.testing.assert_allclose(POSITIVE().relative_variance(x, y, num_features=1), positive, rtol=0.007)
        np.testing.assert_allclose(HYPERBOLIC().relative_variance(x, y, num_features=2), hyperbolic, rtol=0.013)


# r, theta / pi: root mean square error times √m of trigonometric, positive and hyperbolic features
ANGLES = {
    (1, 1 / 8): (0.11, 6.77, 4.74),
    (1, 1 / 2): (1.66, 2.53, 1.66),
    (1, 7 / 8): (4.74, 0.41, 0.11),
    (1.25, 1 / 8): (0.17, 20.2, 14.3),
    (1.25, 1 / 2): (3.23, 4.66, 3.23),
    (1.25, 7 / 8): (14.3, 0.52, 0.17),
    (1.5, 1 / 8): (0.24, 75.8, 53.6),
    (1.5, 1 / 2): (6.63, 9.43, 6.63),
    (1.5, 7 / 8): (53.6, 0.64, 0.24),
    (2, 1 / 8): (0.44, 2.2e3, 1.6e3),
    (2, 1 / 2): (38.6, 54.6, 38.6),
    (2, 7 / 8): (1.6e3, 0.92, 0.44),
}


@pytest.mark.parametrize(("radius", "angle"), ANGLES)
def test_table_of_angles(radius, angle):
    x = radius * np.array([1.0, 0.0, 0.0])
    y = radius * np.array([np.cos(np.pi * angle), np.sin(np.pi * angle), 0.0])
    for cls, printed in zip((TRIGONOMETRIC, POSITIVE, HYPERBOLIC), ANGLES[radius, angle], strict=True):
        estimator = cls(coupling="independent")
        got = np.sqrt(estimator.relative_variance(x, y, num_features=estimator.features_per_row))
        half_digit = 0.0051 if printed < 10 else 0.051 if printed < 1000 else 51.0
        assert abs(got - printed) < half_digit


def test_table_of_trigonometric_over_positive():
    table = {
        0.5: (0.0080, 0.197, 2.45, 20.8),
        1: (0.0060, 0.432, 17.9, 231),
        1.5: (4.6e-4, 0.494, 396, 1.3e4),
        2: (5.0e-6, 0.500, 4.5e4, 6.3e6),
    }
    for length, row in table.items():
        for angle, printed in zip((0.25, 0.5, 0.75, 0.9), row, strict=True):
            x, y = length * np.array([1.0, 0.0]), length * np.array([np.cos(np.pi * angle), np.sin(np.pi * angle)])
            trig = TRIGONOMETRIC(coupling="independent").relative_variance(x, y, num_features=2)
            positive = POSITIVE(coupling="independent").relative_variance(x, y, num_features=1)
            np.testing.assert_allclose(trig / positive, printed, rtol=0.03)  # two or three printed digits


def test_table_of_log_variances_at_random_pairs():
    table = {
        0.1: (-0.06, 0.95),
        0.2: (4.4, 5.1),
        0.3: (10.8, 11.5),
        0.5: (31.3, 32.0),
        0.7: (62.0, 62.7),
        0.85: (91.8, 92.5),
        1.0: (127.3, 128.0),
    }
    for sigma, (trig, positive) in table.items():
        s = 2 * 64 * sigma**2
        x, y = pair_at(64, u=s)
        assert np.log(POSITIVE().relative_variance(x, y, num_features=1)) == pytest.approx(positive, abs=0.051)
        x, y = pair_at(64, t=s)
        assert np.log(TRIGONOMETRIC().relative_variance(x, y, num_features=2)) == pytest.approx(trig, abs=0.051)


def test_table_of_regularized_softmax():
    """Mean of positive features with constant norms over the softmax kernel (three decimals)."""
    table = {
        16: (0.987, 0.952, 0.837, 0.547, 0.152),
        64: (0.996, 0.986, 0.945, 0.810, 0.471),
        256: (0.999, 0.996, 0.985, 0.942, 0.795),
    }
    estimator = POSITIVE(coupling=rf.Orthogonal(norms="constant"))
    for dim, row in table.items():
        for u, printed in zip((1, 2, 4, 8, 16), row, strict=True):
            x, y = pair_at(dim, u=u)
            assert estimator.mean(x, y) / rf.SoftmaxKernel().pairwise(x, y) == pytest.approx(printed, abs=0.00051)


def test_sign_change_of_the_trigonometric_orthogonal_covariance():
    """Orthogonal rows are not better for every t at finite d: first sign change of the cross term (printed digits)."""
    from scipy.optimize import brentq

    table = {3: 10.96, 4: 9.49, 5: 8.94, 6: 8.73, 8: 8.76, 12: 9.50, 16: 10.6, 32: 22.8}
    for dim, printed in table.items():
        cross = RadialPair(dim, cosine=0.0).covariance
        t = np.arange(2.0, 30.0, 0.05)
        first = np.flatnonzero(cross(-t) > 0)[0]
        change = brentq(lambda t, cross=cross: cross(-t), t[first - 1], t[first])
        assert change == pytest.approx(printed, abs=0.0051 if dim in (3, 4, 5, 6, 8, 12) else 0.051)
    assert all(ratio(TRIGONOMETRIC, "orthogonal", 2, t=t) < 1 for t in np.linspace(0.1, 40, 50))


@pytest.mark.parametrize("dim", [2, 3, 4, 16, 64])
def test_orthogonal_gain_exceeds_the_published_bound(dim):
    """MSE_iid - MSE_ort >= 2(m-1)/(m(d+2)) (SM - Λ)² for m <= d (Theorem 2 of the Performer paper), all u."""
    u = np.geomspace(0.01, 600, 50)
    for rows in {2, dim}:
        ((pairs, law),) = rf.Orthogonal().pair_laws(rows, dim)
        gap = -law.covariance(u) * pairs / rows**2
        assert np.all(gap >= 2 * (rows - 1) / (rows * (dim + 2)) * (1 - np.exp(-u / 2)) ** 2)


@pytest.mark.parametrize("dim", [3, 4, 16, 64])
@pytest.mark.parametrize("u", [0.1, 1.0, 3.0, 8.0])
def test_ordering_of_positive_couplings(dim, u):
    assert ratio(POSITIVE, "simplex", dim, u=u) < ratio(POSITIVE, "orthogonal", dim, u=u) < 1
    assert ratio(TRIGONOMETRIC, "simplex", dim, t=min(u, 1.0)) > ratio(TRIGONOMETRIC, "orthogonal", dim, t=min(u, 1.0))
    assert ratio(TRIGONOMETRIC, "centered", dim, t=u) >= 1


def test_mirror_image():
    """Trigonometric features at (x, y) are hyperbolic ones at (x, -y): the better one has the smaller of t and u."""
    x, y = np.random.default_rng(0).standard_normal((2, 50, 5)) / 2
    trig = TRIGONOMETRIC(coupling="independent").relative_variance(x, y, num_features=12)
    np.testing.assert_allclose(trig, HYPERBOLIC(coupling="independent").relative_variance(x, -y, num_features=12))
    hyperbolic = HYPERBOLIC(coupling="independent").relative_variance(x, y, num_features=12)
    assert np.array_equal(trig < hyperbolic, np.sum(x * y, axis=-1) > 0)


def test_exact_cases():
    """No variance at all: trigonometric pairs at x = y, positive and hyperbolic features at x = -y, zero vectors."""
    x = np.random.default_rng(0).standard_normal((4, 3))
    for coupling in COUPLINGS:
        if coupling.exact_marginals:
            assert np.all(TRIGONOMETRIC(coupling=coupling).relative_variance(x, x, num_features=8) == 0)
            assert np.all(POSITIVE(coupling=coupling).relative_variance(x, -x, num_features=8) == 0)
            assert np.all(HYPERBOLIC(coupling=coupling).relative_variance(x, -x, num_features=8) == 0)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_range_and_shape(estimator):
    """Finite in relative form up to |x ± y|² = 600, float64, broadcasting over (..., d)."""
    width = 8 * estimator.features_per_row
    unit = float(estimator.kernel.unit(np.ones(1))[0])
    for where in ({"u": 600.0}, {"t": 600.0}):
        x, y = (side / unit for side in pair_at(16, **where))
        relative = estimator.relative_variance(x, y, num_features=width)
        assert np.isfinite(relative)
        assert relative >= 0
    x, y = np.zeros((5, 1, 3)), np.ones((4, 3)) / 3
    for closed in (
        estimator.mean(x, y),
        estimator.variance(x, y, num_features=width),
        estimator.relative_variance(x, y, num_features=width),
        estimator.mse(x, y, num_features=width),
    ):
        assert closed.shape == (5, 4)
        assert closed.dtype == np.float64
    with pytest.raises(ValueError, match="share their last dimension, got 3 and 4"):
        estimator.variance(np.zeros(3), np.zeros(4), num_features=width)
    assert np.isnan(estimator.variance(np.full(3, np.nan), np.zeros(3), num_features=width))


def test_absolute_is_relative_times_kernel():
    x, y = np.random.default_rng(1).standard_normal((2, 7, 4)) / 2
    for kernel in (rf.SoftmaxKernel(scale=0.7), rf.GaussianKernel(length_scale=1.3)):
        for coupling in (rf.Orthogonal(), rf.Orthogonal(norms="constant")):
            estimator = POSITIVE(kernel, coupling)
            k = kernel.pairwise(x, y)
            relative = estimator.relative_variance(x, y, num_features=6)
            variance = estimator.variance(x, y, num_features=6)
            np.testing.assert_allclose(variance, relative * k**2, rtol=1e-12)
            bias = estimator.mean(x, y) - k
            np.testing.assert_allclose(estimator.mse(x, y, num_features=6), variance + bias**2, rtol=1e-12)
            if coupling.exact_marginals:
                np.testing.assert_allclose(bias, 0, atol=4 * np.finfo(float).eps * np.max(k))


def test_kernels_share_relative_errors():
    """Softmax and Gaussian kernel differ by an envelope, so relative variances agree in kernel units."""
    x, y = np.random.default_rng(2).standard_normal((2, 7, 4)) / 2
    for cls in (POSITIVE, HYPERBOLIC, TRIGONOMETRIC):
        softmax = cls(rf.SoftmaxKernel()).relative_variance(x, y, num_features=8)
        gaussian = cls(rf.GaussianKernel(2.0)).relative_variance(2 * x, 2 * y, num_features=8)
        scaled = cls(rf.SoftmaxKernel(scale=4.0)).relative_variance(x / 2, y / 2, num_features=8)
        np.testing.assert_allclose(softmax, gaussian, rtol=1e-12)
        np.testing.assert_allclose(softmax, scaled, rtol=1e-12)


def test_pairs_beat_phases_at_equal_width():
    x, y = np.random.default_rng(3).standard_normal((2, 50, 4))
    pairs, phase = (
        TRIGONOMETRIC(coupling="independent", variant=v).relative_variance(x, y, num_features=16)
        for v in ("pairs", "phase")
    )
    assert np.all(pairs < phase)
