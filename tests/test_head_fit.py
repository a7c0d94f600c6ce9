"""The parts of `adapt`: what the fit of one head states of itself, and how the scale of its anchors is chosen."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.selection.adaptation import LEVELS, posterior, transformed
from randfeat.selection.anchor_scale import SCALES, AnchorPilot
from randfeat.selection.head_fit import HeadFit, anchor_queries

X, Y, V = np.random.default_rng(0).standard_normal((3, 60, 4)) * [2.0, 1.0, 1.0, 0.5] + [0.5, 0.0, -0.3, 0.2]
EVERY = np.ones(60, bool)


def fit_of(level, present=EVERY):
    return HeadFit.of(X, Y, present, level=level, num_anchors=8, rng=np.random.default_rng(1))


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("level", LEVELS)
def test_fits_say_what_they_hold(level, scale):
    """Moments are of the coordinates that the fit leads to; logits are those of the inputs, but for a number a query.

    Keys are shifted and balanced, and a query's own shift is in the biases: `(x - c)·(y - b) + c·(y - b)`, which is x·y
    less the same number x·b for every key.
    """
    fit = fit_of(level).scaled(scale)
    queries = (X - fit.query_shift) @ fit.matrix.T
    keys = (Y - fit.key_shift) @ np.linalg.inv(fit.matrix)
    np.testing.assert_allclose(fit.keys, keys, atol=1e-12)
    np.testing.assert_allclose(fit.query_moment, queries.T @ queries / 60, atol=1e-12)
    if level in ("center", "balance", "dense"):
        np.testing.assert_allclose(fit.key_moment, keys.T @ keys / 60, atol=1e-12)
    logits = queries @ fit.keys.T + fit.biases
    difference = logits - X @ Y.T
    np.testing.assert_allclose(difference - difference[:, :1], 0, atol=1e-10)
    assert fit.masses.sum() == pytest.approx(1)


@pytest.mark.parametrize("level", ["weighted", "posterior"])
def test_keys_are_weighted_by_the_attention_of_the_anchors(level):
    """The mean of the keys under that attention is the shift, and their second moment is `key_moment`."""
    fit = fit_of(level)
    anchors = fit.anchors @ np.linalg.inv(fit.matrix).T + fit.query_shift
    logits = anchors @ Y.T
    attention = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights = fit.masses @ (attention / attention.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(weights @ Y, fit.key_shift, atol=1e-12)
    np.testing.assert_allclose((fit.keys * weights[:, None]).T @ fit.keys, fit.key_moment, atol=1e-12)


def test_anchors_are_means_with_the_shares_of_their_clusters():
    """Three clusters far apart, of 30, 20 and 10 points."""
    centers = np.repeat([[10.0, 0.0], [0.0, 10.0], [-10.0, -10.0]], [30, 20, 10], axis=0)
    points = centers + np.random.default_rng(0).standard_normal((60, 2)) / 10
    for seed in range(20):  # k-means may begin with two points of one cluster
        anchors, masses = anchor_queries(points, points, 8, np.random.default_rng(seed))
        np.testing.assert_allclose(masses @ anchors, points.mean(axis=0), atol=1e-12)
        shares = [masses[np.linalg.norm(anchors - c, axis=1) < 2].sum() for c in ([10, 0], [0, 10], [-10, -10])]
        np.testing.assert_allclose(shares, [1 / 2, 1 / 3, 1 / 6], atol=1e-12)


@pytest.mark.parametrize("kernel", [rf.SoftmaxKernel(), rf.GaussianKernel(1.5)], ids=["softmax", "Gaussian"])
@pytest.mark.parametrize("masked", [False, True], ids=["all keys", "masked"])
def test_pilots_are_maps_of_the_fitted_estimator(kernel, masked):
    """At each scale the outputs, computed in float32, are those of a map that is drawn with the same random numbers.

    The scale of least error is the best one. For some seeds it is another than for others.
    """
    present = np.arange(60) < 45 if masked else EVERY
    options = {"coupling": rf.Orthogonal(), "kernel": kernel, "defensive_share": 0.1}
    example = rf.PosteriorFeatures(anchors=np.zeros((1, 4)), keys=np.zeros((1, 4)), **options)
    chosen = set()
    for seed in range(12):
        query, key, value = (x * (0.5 + seed / 6) for x in (X, Y, V))
        key, value = np.where(present[:, None], key, 0), np.where(present[:, None], value, 0)
        x, y = kernel.unit(query), kernel.unit(key)
        fit = HeadFit.of(x, y, present, level="posterior", num_anchors=4, rng=rng_of(seed))
        pilot = AnchorPilot.of(fit, example, x, y, value, 16, rng_of(seed))
        exact = rf.kernel_attention(query, key, value, kernel, scale=1.0, key_mask=present)
        size, errors = np.max(np.abs(value)), []
        np.testing.assert_allclose(size * pilot.exact, exact, rtol=1e-5, atol=1e-5)
        for scale in SCALES:
            generator = rng_of(seed)
            generator.permutation(60)
            scaled = [fit.scaled(scale)]
            estimator = transformed(posterior(scaled, False, **options), scaled, False, balanced=True)
            phi = estimator.draw(4, 16, rng=generator)
            output = rf.linear_attention(query, key, value, phi, scale=1.0, key_mask=present)
            np.testing.assert_allclose(size * pilot.output(scale), output, rtol=1e-3, atol=1e-3 * size)
            errors.append(np.linalg.norm(output - exact))
        assert pilot.best() == SCALES[int(np.argmin(errors))]
        chosen.add(pilot.best())
    assert len(chosen) > 1


def test_pilots_that_overflow_leave_the_scale_at_one():
    """Squares of such queries leave the range of float32, in which pilots are computed."""
    fit = fit_of("posterior")
    example = rf.PosteriorFeatures(anchors=np.zeros((1, 4)), keys=np.zeros((1, 4)))
    pilot = AnchorPilot.of(fit.scaled(1e30), example, X, Y, V, 16, rng_of(0))
    assert [pilot.error(scale) for scale in SCALES] == [np.inf] * 3
    assert pilot.best() == 1.0
    with np.errstate(all="raise"):
        estimator = rf.adapt(1e20 * X, 1e20 * Y, num_features=16)
    assert np.all(np.isfinite(estimator.base.base.keys))


def rng_of(seed):
    return np.random.default_rng(seed)
