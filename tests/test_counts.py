"""Poisson and geometric features: twins by loops, moments by enumeration of all counts, optima, signs and zeros."""

import itertools
import math

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, compiled, to_numpy

X, Y = np.array([0.7, -0.4]), np.array([0.5, 0.9])
COUNTS = np.array(list(itertools.product(range(40), repeat=2)))


def probability(estimator, counts):
    """Of vectors of counts (..., d)."""
    if isinstance(estimator, rf.PoissonFeatures):
        rate = float(estimator.rate)
        return math.prod(math.exp(-rate) * rate**c / math.factorial(c) for c in counts)
    p = float(estimator.success_probability)
    return math.prod(p * (1 - p) ** c for c in counts)


def feature(estimator, counts, v):
    """One feature of one input times √m, from `Π v^c / √(c! p(c))`."""
    weight = probability(estimator, counts) * math.prod(math.factorial(c) for c in counts)
    return math.prod(float(a) ** c for a, c in zip(v, counts, strict=True)) / math.sqrt(weight)


ESTIMATORS = [rf.PoissonFeatures(rate=0.6), rf.GeometricFeatures(success_probability=0.55)]
by_name = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)


@by_name
def test_features_are_the_formula(xp, estimator):
    """Negative and zero inputs included; `0^0` is 1."""
    x = np.array([[0.7, -0.4, 0.0], [-1.5, -0.0, 2.0], [0.0, 0.0, 0.0], [-0.3, 0.2, -1.1]])
    phi = estimator.draw(3, 200, rng=0, like=asarray(xp, x))
    counts = to_numpy(phi.arrays["counts"]).astype(int)
    assert counts.max() > 3
    assert np.any(counts.sum(axis=1) == 0)
    expected = np.array([[feature(estimator, c.tolist(), v) for c in counts] for v in x]) / math.sqrt(200)
    ours = compiled(xp, lambda x: phi.queries(x).to_array())(asarray(xp, x))
    np.testing.assert_allclose(to_numpy(ours), expected, rtol=1e-12, atol=0)


@by_name
def test_moments_by_enumeration(estimator):
    """Mean and variance of one feature as sums over all counts; 40 counts per axis leave less than 1e-12."""
    p = np.array([probability(estimator, c.tolist()) for c in COUNTS])
    s = np.array([feature(estimator, c.tolist(), X) * feature(estimator, c.tolist(), Y) for c in COUNTS])
    kernel = math.exp(X @ Y)
    assert p @ s == pytest.approx(kernel, rel=1e-9)
    assert estimator.mean(X, Y) == pytest.approx(kernel, rel=1e-14)
    assert estimator.variance(X, Y, num_features=3) == pytest.approx((p @ s**2 - kernel**2) / 3, rel=1e-8)
    assert estimator.mse(X, Y, num_features=3) == pytest.approx((p @ s**2 - kernel**2) / 3, rel=1e-8)


def test_joint_moment_of_two_keys_by_enumeration():
    estimator = ESTIMATORS[0]
    keys = np.array([Y, [0.2, -0.3]])
    p = np.array([probability(estimator, c.tolist()) for c in COUNTS])
    s = np.array(
        [[feature(estimator, c.tolist(), X) * feature(estimator, c.tolist(), y) for c in COUNTS] for y in keys]
    )
    expected = np.log((s * p) @ s.T) - (keys @ X)[:, None] - keys @ X
    np.testing.assert_allclose(estimator.log_joint_moment(X, keys), expected, atol=1e-9)


def test_poisson_is_exact_where_all_products_are_the_rate():
    x = np.array([[0.5, -2.0, 1.0]])
    y = 0.3 / x
    estimate = rf.PoissonFeatures(rate=0.3).draw(3, 1, rng=1, batch_shape=(50,)).estimate(x, y)
    np.testing.assert_allclose(estimate, math.exp(0.9), rtol=1e-13)
    assert rf.PoissonFeatures(rate=0.3).variance(x[0], y[0], num_features=1) < 1e-29


@by_name
def test_fit_is_the_optimum(estimator):
    """Smaller criterion than everything on a grid; one parameter for each head."""
    q, k = np.random.default_rng(0).standard_normal((2, 3, 40, 5)) * np.array([0.3, 1.0, 2.0])[:, None, None]
    fitted = type(estimator).fit(q, k)
    assert fitted.batch_shape == (3,)
    for head in range(3):
        x, y = q[head] / 5**0.25, k[head] / 5**0.25
        scales = np.sqrt(np.mean(x**2, 0) * np.mean(y**2, 0))
        alone = type(estimator).fit(x, y, scale=1.0)

        def criterion(other, x=x, y=y, scales=scales):
            if isinstance(other, rf.PoissonFeatures):
                products = x[:, None] * y  # the mean of log E S² over all pairs
                return np.mean(other.log_second_moment(products) + 2 * products.sum(-1))
            return other.log_second_moment(scales)

        best = criterion(alone)
        for value in np.linspace(0.02, 0.98, 97):
            assert best <= criterion(type(estimator)(**{type_parameter(estimator): value})) + 1e-9
        mine = getattr(fitted, type_parameter(estimator))[head]
        assert mine == pytest.approx(float(getattr(alone, type_parameter(estimator))), rel=1e-5)
    pairs = fitted.variance(q[:, :4] / 3, k[:, :4] / 3, num_features=8)
    assert pairs.shape == (3, 4)
    phi = fitted.draw(5, 8, rng=0)
    assert phi.estimate(q, k).shape == (3, 40, 40)


def type_parameter(estimator):
    return "rate" if isinstance(estimator, rf.PoissonFeatures) else "success_probability"


@by_name
def test_fit_to_nothing_is_an_error(estimator):
    with pytest.raises(ValueError, match="all products of queries and keys vanish"):
        type(estimator).fit(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))


@by_name
def test_hostile_inputs(estimator):
    """Large counts keep their sign in float32; every size is finite in the scale; NaN stays."""
    phi = estimator.draw(2, 64, rng=0)
    x = np.array([[1e300, -1e-300], [0.0, 0.0], [np.nan, 0.0], [5e-324, -0.0]])
    with np.errstate(over="ignore"):  # of |x|², which the softmax kernel has no use for
        features = phi.queries(x)
    assert np.all(np.isfinite(features.log_scale[[0, 1, 3]]))
    assert np.all(np.isnan(features.log_scale[2]))
    assert set(np.unique(features.values[[0, 1, 3]])) <= {-1.0, 0.0, 1.0}
    assert np.array_equal(features.values[1] != 0, phi.arrays["counts"].sum(axis=-1) == 0)
    many = rf.FeatureMap(
        estimator, 2, 2, {"counts": np.array([[2.0**23 + 1, 0], [4, 10_001]]), "log_weights": np.zeros((1, 2))}
    )
    assert many.queries(np.full((1, 2), -1, np.float32)).values.tolist() == [[-1.0, -1.0]]


def test_gradients_are_finite_at_zero():
    torch = pytest.importorskip("torch")
    x = torch.tensor([[0.0, -0.5], [0.3, 0.0]], dtype=torch.float64, requires_grad=True)
    phi = rf.GeometricFeatures().draw(2, 16, rng=0, like=x)
    phi.estimate(x, x).sum().backward()
    assert bool(torch.all(torch.isfinite(x.grad)))


def test_geometric_features_are_bounded_and_poisson_features_are_not():
    """In the counts: the factorial beats every power."""
    v = 3.0
    poisson, geometric = ([feature(e, [c], [v]) for c in (5, 20, 40, 80)] for e in ESTIMATORS)
    assert np.all(np.diff(poisson) > 0)
    assert geometric[-1] < 1e-6 * max(geometric)
    assert (ESTIMATORS[0].bounded, ESTIMATORS[1].bounded) == (False, True)


@pytest.mark.parametrize("rate", [0.0, -1.0, np.nan, [0.5, 0.0]])
def test_rates_are_positive(rate):
    with pytest.raises(ValueError, match=r"rate must be (positive|finite)"):
        rf.PoissonFeatures(rate=rate)


@pytest.mark.parametrize("p", [0.0, 1.0, 1.5, np.inf])
def test_probabilities_are_probabilities(p):
    with pytest.raises(ValueError, match=r"success_probability must be (between 0 and 1|finite)"):
        rf.GeometricFeatures(success_probability=p)
