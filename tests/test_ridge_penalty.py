"""The default penalty of ridge regression: GCV, and maximum likelihood where GCV would leave nothing to residuals."""

import numpy as np
import pytest
from scipy import stats

import randfeat as rf
from randfeat.integrations.sklearn import RandomFeatureRidge, RandomFeatureRidgeClassifier
from randfeat.regression.ridge_path import LEAST_SHARE
from tests.test_ridge import problem_of

ALPHAS = np.array([1e-3, 0.5, 30.0])
SHAPES = {"long": (60, 10), "wide": (12, 30), "square": (11, 10)}


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_likelihood_is_the_density_of_the_targets(rng, shape, intercept):
    """Differences of -2 log N(y; 0, σ²(I + ZZᵀ/α)) in a basis of the rows without their mean, at the best σ² of all k.

    Two targets share σ², so the sum over both is twice the score.
    """
    length, width = SHAPES[shape]
    z, y = rng.standard_normal((length, width)) + 0.5, rng.standard_normal((length, 2)) * 2 + 1
    contrasts = np.linalg.svd(np.ones((1, length)))[2][1:] if intercept else np.eye(length)
    expected = []
    for alpha in ALPHAS:
        within, targets = contrasts @ z, contrasts @ y
        covariance = np.eye(len(contrasts)) + within @ within.T / alpha
        noise = np.sum(targets * np.linalg.solve(covariance, targets)) / targets.size
        law = stats.multivariate_normal(np.zeros(len(contrasts)), noise * covariance)
        expected.append(-2 * np.sum(law.logpdf(targets.T)) / 2)
    problem = problem_of(z, y, intercept=intercept)
    for path in (problem.spectrum, problem.path()):
        found = path.likelihood(ALPHAS)
        np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=1e-6)  # |y|² - Σ c²/s cancels


def few_rows(rng, repeated):
    """100 rows of 4 columns with two noisy classes of ±1, some rows twice: 400 features can fit all of them."""
    x = rng.standard_normal((100, 4))
    y = np.sign(x[:, 0] + x[:, 1] + 0.5 * rng.standard_normal(100))
    rows = np.concatenate([np.arange(100), np.arange(repeated)])
    test = rng.standard_normal((1000, 4))
    return x[rows], y[rows], test, np.sign(test[:, 0] + test[:, 1])


@pytest.mark.parametrize("repeated", [1, 3])
def test_rows_that_are_there_twice_do_not_switch_the_penalty_off(rng, repeated):
    """Rows that repeat others leave degrees and no residual: the score of GCV tends to 0 with the penalty."""
    x, y, test, truth = few_rows(rng, repeated)
    options = {"gamma": 0.25, "n_components": 400, "random_state": 0}
    gcv, auto = (RandomFeatureRidgeClassifier(alpha=a, **options).fit(x, y) for a in ("gcv", "auto"))
    assert gcv.alpha_ < 1e-8
    assert auto.alpha_ > 0.03
    wrong = [np.mean(model.predict(test) != truth) for model in (gcv, auto)]
    assert wrong[1] < 0.6 * wrong[0]


@pytest.mark.parametrize("width", [102, 150, 400])
@pytest.mark.parametrize("how", ["a third twice", "all twice", "weights of 2", "weights of 1.3"])
def test_many_rows_that_are_there_twice_do_not_either(rng, how, width):
    """They leave more than a fifth of the degrees, and still no residual: nearly the penalty of the single rows.

    With 102 and 150 features that are more than the single rows, and fewer than all of them.
    """
    x, y, test, truth = few_rows(rng, {"a third twice": 33, "all twice": 100}.get(how, 0))
    weight = {"weights of 2": 2.0, "weights of 1.3": 1.3}.get(how)
    options = {"gamma": 0.25, "n_components": width, "random_state": 0}
    once = RandomFeatureRidgeClassifier(**options).fit(x[:100], y[:100])
    model = RandomFeatureRidgeClassifier(**options).fit(x, y, sample_weight=weight)
    assert 0.1 < model.alpha_ / once.alpha_ < 10
    assert np.mean(model.predict(test) != truth) < np.mean(once.predict(test) != truth) + 0.05


def test_where_gcv_leaves_a_fifth_for_the_residuals_it_is_taken(rng):
    z = rng.standard_normal((60, 10))
    y = z @ rng.standard_normal((10, 1)) + rng.standard_normal((60, 1))
    problem = problem_of(z, y)
    best, path = problem.best_path(guarded=True)
    assert best == problem.best_path()[0]
    assert path.residual_degrees(best) > LEAST_SHARE * path.degrees


def test_the_guard_is_the_least_likelihood_score(rng):
    """12 rows, 30 features, no noise: GCV leaves nothing; the least of a dense grid is found to half a fine step."""
    z = rng.standard_normal((12, 30))
    problem = problem_of(z, z[:, :1] + 1e-3 * rng.standard_normal((12, 1)))
    spectrum = problem.spectrum
    if spectrum.residual_degrees(spectrum.best()) >= LEAST_SHARE * spectrum.degrees:
        pytest.fail("this problem should leave GCV without residuals")
    best, _ = problem.best_path(guarded=True)
    alphas = np.geomspace(spectrum.rounding, 1e3 * spectrum.values[-1], 3000)
    np.testing.assert_allclose(spectrum.likelihood(best), np.min(spectrum.likelihood(alphas)), atol=1e-2)


def test_a_smooth_function_without_noise_is_still_interpolated(rng):
    """300 rows and 500 features: the error may be twice that of the best penalty, not that of a heavy one."""
    x = rng.uniform(-2, 2, (600, 2))
    y = np.sin(x[:, 0] * x[:, 1])
    options = {"gamma": 0.5, "n_components": 500, "random_state": 0}
    errors = {}
    for alpha in ("auto", 1.0, *np.geomspace(1e-12, 1e-2, 11)):
        model = RandomFeatureRidge(alpha=alpha, **options).fit(x[:300], y[:300])
        errors[alpha] = np.sqrt(np.mean((model.predict(x[300:]) - y[300:]) ** 2))
    assert errors["auto"] < 2 * min(errors.values()) < 0.02 * errors[1.0]


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("intercept", [True, False])
def test_very_few_rows(rng, length, intercept):
    x, y = rng.standard_normal((length, 2)), rng.standard_normal(length)
    model = RandomFeatureRidge(n_components=20, fit_intercept=intercept, random_state=0).fit(x, y)
    assert model.alpha_ > 0
    assert np.all(np.isfinite(model.predict(x)))
    heavy = RandomFeatureRidge(n_components=20, fit_intercept=intercept, random_state=0, alpha=0.3).fit(x, y)
    assert np.isnan(heavy.noise_variance_) == (length == 1 and intercept)


def test_a_constant_target_and_rows_that_are_all_equal(rng):
    x = rng.standard_normal((30, 2))
    constant = RandomFeatureRidge(n_components=100, random_state=0).fit(x, np.full(30, 7.0))
    np.testing.assert_allclose(constant.predict(x), 7.0, rtol=1e-12)
    equal = RandomFeatureRidge(gamma=1.0, n_components=100, random_state=0).fit(x[:1].repeat(30, 0), np.arange(30.0))
    np.testing.assert_allclose(equal.predict(x[:1]), 14.5, rtol=1e-9)


@pytest.mark.parametrize("how", ["weights", "blocks", "merged"])
def test_weights_and_blocks_have_the_penalty_of_all_rows(rng, how):
    """Where the likelihood decides, too."""
    x, y, _, _ = few_rows(rng, 3)
    weights = rng.integers(0, 3, len(x)).astype(float)
    weights[:3], weights[100:] = 1, 0
    options = {"gamma": 0.25, "n_components": 400, "random_state": 0}
    whole = RandomFeatureRidge(**options).fit(*(np.repeat(a, weights.astype(int), axis=0) for a in (x, y)))
    model = RandomFeatureRidge(**options)
    if how == "weights":
        model.fit(x, y, sample_weight=weights)
    else:
        parts = [slice(start, start + 30) for start in range(0, len(x), 30)]
        for part in parts[: len(parts) if how == "blocks" else 1]:
            model.partial_fit(x[part], y[part], sample_weight=weights[part])
        if how == "merged":
            phi = model.features_.feature_map_
            moments = rf.FeatureMoments.of(phi, x[30:], y[30:, None], sample_weight=weights[30:])
            model = RandomFeatureRidge.from_moments(phi, model.moments_.merge(moments))
    assert model.alpha_ == pytest.approx(whole.alpha_, rel=1e-6)
    np.testing.assert_allclose(model.predict(x), whole.predict(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", ["gcv", [1e-9, 1e-3, 1.0]])
def test_less_than_no_degrees_of_freedom_are_no_score(rng, alpha):
    """20 rows of weight a half: 20 features could fit more than their 10 - 1 degrees; GCV passes a pole on the way."""
    x = rng.standard_normal((20, 3))
    y = x[:, 0] + rng.standard_normal(20)
    model = RandomFeatureRidge(gamma=0.3, n_components=60, alpha=alpha, random_state=0)
    model.fit(x, y, sample_weight=np.full(20, 0.5))
    assert model.alpha_ > 1e-2
    assert np.isfinite(model.noise_variance_)
