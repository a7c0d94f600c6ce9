"""FeatureMap.pull_back against central differences, for every estimator that has it; the others say what to use."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.testing.moments import admissible
from tests.arrays import asarray, to_numpy
from tests.cases import ATTENTION, ESTIMATORS, OPEN, OTHERS

DIM = 4
ADAPTED: list[rf.Estimator] = [
    rf.OptimalPositiveFeatures(exponent=np.array([-0.05, 0.02])[:, None]),
    rf.DenseExponentialFeatures.example(),
    rf.PosteriorFeatures.example(),
    rf.CenteredFeatures.example(),
    rf.BalancedFeatures.example(),
    rf.CenteredFeatures(rf.TrigonometricFeatures(rf.GaussianKernel(1.3)), np.full(4, 0.2), np.full(4, -0.1)),
    rf.BalancedFeatures(rf.GeneralizedExponentialFeatures(rf.GaussianKernel(0.8), parameter=0.03j), 2 * np.eye(4)),
    rf.PositiveFeatures(rf.NormalizedSoftmaxKernel((1.0, 0.5, 2.0, 1.0))),
    rf.PositiveFeatures(coupling=rf.GaussHermite(nodes=2)),
]
EVERY = [*ESTIMATORS, *OTHERS, *OPEN, *ADAPTED]


def has_gradient(estimator):
    base = getattr(estimator, "base", estimator)
    return all(
        type(e).pull_back is not rf.Estimator.pull_back for e in (estimator, base) if isinstance(e, rf.Estimator)
    )


WITH = [estimator for estimator in EVERY if has_gradient(estimator)]
WITHOUT = [estimator for estimator in EVERY if not has_gradient(estimator)]


def map_of(estimator):
    """The narrowest map that has at least `DIM` rows."""
    possible = (width for width in range(1, 200) if estimator.nearest_num_features(width, DIM) == (width,))
    return estimator.draw(DIM, next(width for width in possible if estimator.num_rows(width, DIM) >= DIM), rng=0)


def difference(phi, x, weights, direction, *, keys, step=1e-5):
    """The derivative of `Σ weights · φ(x)` along a direction; the error is step² times a third derivative."""
    features = phi.keys if keys else phi.queries
    ends = [np.sum(weights * features(x + sign * step * direction).to_array()) for sign in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)


def check(estimator, rng, *, keys):
    x, direction = rng.standard_normal((2, 5, DIM)) / 2
    x, phi = admissible(estimator, x), map_of(estimator)
    features = phi.keys(x) if keys else phi.queries(x)
    weights = rng.standard_normal(features.to_array().shape)
    gradient = phi.pull_back(x, features, weights * np.exp(features.log_scale), keys=keys)
    assert gradient.shape[-2:] == x.shape
    expected = difference(phi, x, weights, direction, keys=keys)
    size = np.sum(np.abs(gradient * direction))
    assert abs(np.sum(gradient * direction) - expected) <= 1e-7 * size


@pytest.mark.parametrize("keys", [False, True], ids=["queries", "keys"])
def test_equals_central_differences(rng, keys):
    """A product of step² = 1e-10, third derivatives below 1e3, and 1e-16 / step of rounding: 1e-7 of the size."""
    assert len(WITH) > 120
    for estimator in WITH:
        check(estimator, rng, keys=keys)


def test_without_the_norm_the_difference_is_seen(rng, monkeypatch):
    """Planted: the gradient of -|x|²/2 left out."""
    monkeypatch.setattr(rf.SoftmaxKernel, "log_gaussian_slope", lambda self, x: 0 * x)
    with pytest.raises(AssertionError):
        check(rf.PositiveFeatures(), rng, keys=False)


def test_a_common_factor_may_be_left_out(rng):
    """`row=0.0`: nothing changes where the derivatives in all features of a row, times these, add up to zero."""
    for estimator in ATTENTION:
        phi = map_of(estimator)
        x = rng.standard_normal((5, DIM))
        features = phi.queries(x)
        gradient = rng.standard_normal(features.values.shape)
        squares = np.sum(features.values**2, axis=-1, keepdims=True)
        gradient = gradient - features.values * np.sum(features.values * gradient, axis=-1, keepdims=True) / squares
        whole, partial = phi.pull_back(x, features, gradient), phi.pull_back(x, features, gradient, row=0.0)
        np.testing.assert_allclose(whole, partial, atol=1e-13 * np.max(np.abs(whole)))


@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_every_library_agrees(xp, rng, estimator):
    x = rng.standard_normal((2, 5, DIM))
    phi = map_of(estimator)
    there = phi.to(asarray(xp, x))
    gradient = rng.standard_normal((2, 5, phi.num_features))
    for keys in (False, True):
        features = [m.keys(v) if keys else m.queries(v) for m, v in ((phi, x), (there, asarray(xp, x)))]
        expected = phi.pull_back(x, features[0], gradient, keys=keys)
        actual = there.pull_back(asarray(xp, x), features[1], asarray(xp, gradient), keys=keys)
        np.testing.assert_allclose(to_numpy(actual), expected, atol=1e-12 * np.max(np.abs(expected)))


def test_the_others_name_automatic_differentiation(rng):
    assert WITHOUT
    for estimator in WITHOUT:
        phi = map_of(estimator)
        x = rng.standard_normal((2, DIM)) ** 2
        features = phi.queries(x)
        with pytest.raises(ValueError, match="PyTorch"):
            phi.pull_back(x, features, np.ones_like(features.values))


def test_kernels_without_derivatives_are_refused(rng):
    class Own(rf.SoftmaxKernel):
        def unit(self, x):
            return 2 * x

        unit_pull_back = rf.Kernel.unit_pull_back

    class Enveloped(rf.SoftmaxKernel):
        envelope_slope = rf.kernels.SoftmaxFamily.envelope_slope

    x = rng.standard_normal((2, DIM))
    for kernel in (Own(), Enveloped()):
        phi = rf.PositiveFeatures(kernel).draw(DIM, 8, rng=0)
        features = phi.queries(x)
        with pytest.raises(ValueError, match=r"unit_pull_back|envelope_slope"):
            phi.pull_back(x, features, np.ones_like(features.values))


def test_normalized_kernel_at_zero_and_at_the_ends_of_the_range(rng):
    """The direction of x: a gradient orthogonal to it, of size 1/|x|; a zero vector counts as of norm 1."""
    kernel = rf.NormalizedSoftmaxKernel(2.0)
    h = rng.standard_normal((1, DIM))
    np.testing.assert_array_equal(kernel.unit_pull_back(np.zeros((1, DIM)), h), h / 2)
    x = rng.standard_normal((1, DIM))
    expected = kernel.unit_pull_back(x, h)
    for size in (1e-200, 1e200):
        np.testing.assert_allclose(kernel.unit_pull_back(size * x, h) * size, expected, rtol=1e-13)
