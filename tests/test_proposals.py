"""Importance-sampled features: the formula, one component in closed form, the bound for mixtures, fitting."""

import math

import numpy as np
import pytest
from scipy import special

import randfeat as rf
from tests.cases import COUPLINGS, KERNELS

MEANS = np.array([[1.2], [-0.8], [0.1]])
MIXTURE = {"means": MEANS, "variances": [0.7, 1.0, 1.6], "weights": [1.0, 2.0, 1.0]}
GRID = np.linspace(-40, 40, 80_001)


def log_normal(w, mean, variance):
    return -np.sum((w - mean) ** 2, -1) / (2 * variance) - w.shape[-1] / 2 * np.log(2 * math.pi * variance)


def log_density(estimator, w):
    """log p(w) by its definition, w (..., d)."""
    parts = zip(estimator.weights, estimator.means, estimator.variances, strict=True)
    return special.logsumexp([np.log(share) + log_normal(w, mean, variance) for share, mean, variance in parts], axis=0)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_features_are_the_formula(kernel):
    estimator = rf.ImportanceSampledFeatures(
        kernel, means=np.eye(2, 3), variances=[0.8, 1.2], weights=[3, 1], coupling="independent"
    )
    phi = estimator.draw(3, 9, rng=0)
    w = phi.arrays["rows"]
    x = np.random.default_rng(1).standard_normal((4, 3))
    unit = kernel.unit(x)
    expected = np.exp(unit @ w.T - np.sum(unit**2, -1, keepdims=True) / 2)
    expected *= np.exp((log_normal(w, np.zeros(3), 1.0) - np.log(9) - log_density(estimator, w)) / 2)
    expected *= np.exp(kernel.log_envelope(np.sum(unit**2, -1, keepdims=True)))
    np.testing.assert_allclose(phi(x), expected, rtol=1e-12)
    np.testing.assert_allclose(estimator.weights, [0.75, 0.25])


def test_components_are_stratified():
    """Far apart means: of 12 rows, one per stratum, a component has its share up to the two strata at its ends."""
    estimator = rf.ImportanceSampledFeatures(means=[[0.0, 0], [99, 0], [0, 99]], weights=[1, 2, 4])
    rows = estimator.draw(2, 12, rng=0, batch_shape=(200,)).arrays["rows"]
    distance = np.linalg.norm(rows[..., None, :] - estimator.means, axis=-1)
    counts = np.sum(distance.argmin(-1)[..., None] == np.arange(3), axis=1)
    shares = 12 * np.array([1, 2, 4]) / 7
    assert np.all(np.abs(counts - shares) < 2)
    # A count varies in two strata only: standard deviation at most 1/√2, false alarm below 1e-6 each.
    assert np.all(np.abs(counts.mean(axis=0) - shares) < 5 * math.sqrt(0.5 / 200))


def test_no_shift_is_positive_features():
    x = np.random.default_rng(0).standard_normal((5, 4)) / 2
    ours = rf.ImportanceSampledFeatures(means=np.zeros((1, 4))).draw(4, 6, rng=0)(x)
    np.testing.assert_allclose(ours, rf.PositiveFeatures().draw(4, 6, rng=0)(x), rtol=1e-13)


def test_one_shift_is_centering_by_half_of_it_on_each_side():
    """The same estimate draw by draw, from the same seed."""
    mean = np.array([0.7, -1.0, 0.4])
    x, y = np.random.default_rng(5).standard_normal((2, 5, 3)) / 2
    ours = rf.ImportanceSampledFeatures(means=mean[None]).draw(3, 6, rng=0).estimate(x, y)
    centered = rf.CenteredFeatures(query_shift=mean / 2, key_shift=mean / 2).draw(3, 6, rng=0).estimate(x, y)
    np.testing.assert_allclose(ours, centered, rtol=1e-12)


@pytest.mark.parametrize("coupling", COUPLINGS, ids=repr)
def test_one_component_is_optimal_features_at_shifted_inputs(coupling):
    """The same mean and variance at z - μ, relative to the kernel there; zero variance at z = μ for σ = 1."""
    mean = np.array([0.3, -0.2, 0.4])
    x, y = np.random.default_rng(4).standard_normal((2, 5, 3)) / 2
    for variance in (0.8, 1.0, 1.4):
        estimator = rf.ImportanceSampledFeatures(coupling=coupling, means=mean[None], variances=[variance])
        twin = rf.OptimalPositiveFeatures(coupling=coupling, exponent=(1 - variance) / 4)
        for name in ("relative_variance", "relative_mse"):
            ours = getattr(estimator, name)(x, y, num_features=6)
            np.testing.assert_allclose(ours, getattr(twin, name)(x - mean, y, num_features=6), rtol=1e-9, atol=1e-13)
    exact = rf.ImportanceSampledFeatures(coupling=coupling, means=mean[None])
    if coupling.exact_marginals:
        assert np.all(exact.relative_variance(x, mean - x, num_features=6) < 1e-14)


def test_a_draw_is_exact_at_the_mean():
    mean = np.array([[2.0, -3.0]])
    x = np.array([[1.5, 1.0]])
    phi = rf.ImportanceSampledFeatures(means=mean).draw(2, 1, rng=0, batch_shape=(30,))
    np.testing.assert_allclose(phi.estimate(x, mean - x), np.exp(x @ (mean - x).T)[0, 0], rtol=1e-12)


def second_moment(estimator, z):
    """`E S² / K²` of one row drawn from p, in one dimension: the integral of `N(w)² e^{2wz - z²} / p(w)`."""
    w = GRID[:, None]
    log = -(GRID**2) + 2 * GRID * z - z * z - log_density(estimator, w) - math.log(2 * math.pi)
    return np.trapezoid(np.exp(log), GRID)


def test_the_bound_holds_and_is_exact_for_one_component():
    estimator = rf.ImportanceSampledFeatures(coupling="independent", **MIXTURE)
    shares = np.array([0.25, 0.5, 0.25])
    for z in (-2.0, -0.8, 0.0, 0.5, 1.2, 3.0):
        x, y = np.array([z / 2 + 0.1]), np.array([z / 2 - 0.1])
        exact, bound = second_moment(estimator, z), estimator.second_moment_bound(x, y)
        alone = [
            rf.ImportanceSampledFeatures(means=[m], variances=[v], coupling="independent")
            for m, v in zip(MEANS, MIXTURE["variances"], strict=True)
        ]
        single = np.array([float(one.second_moment_bound(x, y)) for one in alone])
        for one, value in zip(alone, single, strict=True):
            assert value == pytest.approx(second_moment(one, z), rel=1e-8)
            assert value == pytest.approx(1 + one.relative_variance(x, y, num_features=1), rel=1e-12)
        assert bound == pytest.approx(1 / np.sum(shares / single), rel=1e-12)
        assert 1 < exact < bound < np.min(single / shares)
    unit = rf.ImportanceSampledFeatures(means=MEANS)
    offsets = (np.array([0.4]) - MEANS[:, 0]) ** 2
    assert unit.second_moment_bound([0.3], [0.1]) == pytest.approx(3 / np.sum(np.exp(-offsets)), rel=1e-12)


def test_narrow_components_add_nothing_to_the_bound():
    """A variance of 1/2 or less alone has no second moment; beside a wide one it is left out."""
    wide = rf.ImportanceSampledFeatures(means=[[0.0]], variances=[1.2])
    both = rf.ImportanceSampledFeatures(means=[[0.0], [0.0]], variances=[1.2, 0.4])
    np.testing.assert_allclose(both.second_moment_bound([0.5], [0.2]), 2 * wide.second_moment_bound([0.5], [0.2]))


def test_boundedness_is_what_it_says():
    """Along every direction the feature of a given input falls, if the mixture is wider than N(0, I) somewhere."""
    x = np.array([3.0])
    w = np.array([10.0, 100.0, 1000.0])
    for wide, bounded in ((1.5, True), (1.0, False)):
        estimator = rf.ImportanceSampledFeatures(means=[[0.0], [0.5]], variances=[wide, 0.8])
        log_ratio = np.log(0.5) - np.log(wide) / 2 + w**2 / 2 * (1 - 1 / wide)  # of the wide part, dominating here
        assert bool((w * x - log_ratio / 2)[-1] < 0) == bounded == estimator.bounded


def test_heads():
    """One mixture for each head: maps, closed forms and bounds are those of the heads alone."""
    means = np.random.default_rng(0).standard_normal((3, 1, 4)) / 2
    together = rf.ImportanceSampledFeatures(means=means, variances=[[1.0], [1.2], [0.9]], coupling="orthogonal")
    x = np.random.default_rng(1).standard_normal((3, 5, 4)) / 2
    assert together.batch_shape == (3,)
    phi = together.draw(4, 6, rng=0, batch_shape=(2, 3))
    assert phi.estimate(x, x).shape == (2, 3, 5, 5)
    for head, variance in enumerate((1.0, 1.2, 0.9)):
        alone = rf.ImportanceSampledFeatures(means=means[head], variances=[variance])
        for name, options in (("relative_variance", {"num_features": 6}), ("second_moment_bound", {})):
            ours = getattr(together, name)(x, x, **options)[head]
            np.testing.assert_allclose(ours, getattr(alone, name)(x[head], x[head], **options), rtol=1e-12)


def test_fit_by_chunks():
    """Means of equal stretches of queries and keys, added; in the units of attention."""
    q, k = np.random.default_rng(2).standard_normal((2, 2, 12, 4))
    fitted = rf.ImportanceSampledFeatures.fit(q, k, num_components=3)
    for head in range(2):
        for c in range(3):
            part = slice(4 * c, 4 * c + 4)
            expected = (q[head, part].mean(0) + k[head, part].mean(0)) / 4**0.25
            np.testing.assert_allclose(fitted.means[head, c], expected, atol=1e-14)
    assert rf.ImportanceSampledFeatures.fit(q, k[:, :5], num_components=50).means.shape == (2, 5, 4)
    raw = rf.ImportanceSampledFeatures.fit(q, k, num_components=3, scale=1.0)
    np.testing.assert_allclose(raw.means, fitted.means * 4**0.25, rtol=1e-13)


def test_fit_by_k_means():
    """Two separate clusters of queries are found; the same seed gives the same mixture; the bound is small there."""
    rng = np.random.default_rng(3)
    center = np.array([3.0, 0.0, 0.0])
    q = np.concatenate([center + rng.standard_normal((30, 3)) / 10, -center + rng.standard_normal((10, 3)) / 10])
    k = rng.standard_normal((25, 3)) / 10 + np.array([0.0, 1.0, 0.0])
    fit = rf.ImportanceSampledFeatures.fit
    fitted = fit(q, k, num_components=2, pooling="k-means", scale=1.0)
    assert fitted == fit(q, k, num_components=2, pooling="k-means", scale=1.0)
    order = np.argsort(fitted.means[:, 0])
    np.testing.assert_allclose(np.asarray(fitted.weights)[order], [0.25, 0.75])
    for c, x in zip(order, (q[30:].mean(0), q[:30].mean(0)), strict=True):
        weights = np.exp(k @ x)
        np.testing.assert_allclose(fitted.means[c], x + weights @ k / weights.sum(), rtol=1e-10)
    bound = fitted.second_moment_bound(q[:, None], k)
    plain = 1 + rf.PositiveFeatures(coupling="independent").relative_variance(q[:, None], k, num_features=1)
    assert np.max(bound) < 10
    assert np.min(plain) > 1000
    same = fit(np.ones((6, 2)), np.ones((4, 2)), num_components=3, pooling="k-means")
    assert np.all(np.isfinite(same.means))
    assert same.draw(2, 4, rng=0).estimate(np.ones((1, 2)), np.ones((1, 2))).shape == (1, 1)


def test_what_cannot_be():
    make = rf.ImportanceSampledFeatures
    with pytest.raises(ValueError, match=r"means must have shape \(..., components >= 1, d\), got \(3,\)"):
        make(means=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"variances must have shape \(..., 2\)"):
        make(means=np.zeros((2, 3)), variances=1.0)
    with pytest.raises(ValueError, match="one of each mixture above 1/2"):
        make(means=np.zeros((2, 3)), variances=[0.5, 0.4])
    with pytest.raises(ValueError, match="weights must not be negative, and not all 0"):
        make(means=np.zeros((2, 3)), weights=[1, -1])
    with pytest.raises(ValueError, match="the parameters of ImportanceSampledFeatures are for dimension 3"):
        make(means=np.zeros((2, 3))).draw(4, 8, rng=0)
    with pytest.raises(ValueError, match="pooling must be 'chunks' or 'k-means', got 'mean'"):
        make.fit(np.zeros((2, 2)), np.zeros((2, 2)), pooling="mean")
    with pytest.raises(rf.NoClosedForm, match="second_moment_bound bounds it"):
        make(means=np.eye(2)).variance(np.zeros(2), np.zeros(2), num_features=2)


def test_mixtures_refuse_biased_rows():
    """Rows are shuffled over the components, so that weights and biases of a coupling would be lost; one is not."""
    for coupling in ("gauss-hermite", "orthogonal-constant", "moment-matched", "hadamard"):
        with pytest.raises(ValueError, match="mixtures are unbiased only for rows that are N"):
            rf.ImportanceSampledFeatures(means=np.eye(2) / 2, coupling=coupling)
        with pytest.raises(ValueError, match="posterior features are unbiased only for rows that are N"):
            rf.PosteriorFeatures.example().with_coupling(coupling)
    one = rf.ImportanceSampledFeatures(means=np.ones((1, 2)) / 2, coupling=rf.GaussHermite(nodes=3))
    x = np.array([[0.3, 0.1]])
    assert abs(one.draw(2, 9, rng=0).estimate(x, x).item() - np.exp(0.1)) < 1e-3
