"""Fields of objects as parameters in a grid, and models from sums that were made elsewhere."""

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn", reason="pip install '.[sklearn]'")
from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402

import randfeat as rf  # noqa: E402
from randfeat.integrations.sklearn import RandomFeatureRidge, RandomFeatures  # noqa: E402


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 3))
    return X, np.sin(3 * X[:, 0]) + 0.05 * rng.standard_normal(120)


def test_a_grid_over_fields_of_a_kernel(data):
    model = RandomFeatureRidge(rf.MaternKernel(1.5, 1.0), n_components=60, random_state=0)
    grid = {"kernel__length_scale": [0.5, 50.0], "coupling": ["orthogonal", "independent"]}
    search = GridSearchCV(model, grid, cv=3).fit(*data)
    best = search.best_estimator_.kernel
    assert best == rf.MaternKernel(1.5, search.best_params_["kernel__length_scale"])
    expected = RandomFeatureRidge(best, n_components=60, random_state=0, coupling=search.best_params_["coupling"])
    assert np.array_equal(search.predict(data[0]), expected.fit(*data).predict(data[0]))
    assert model.kernel == rf.MaternKernel(1.5, 1.0)


def test_objects_are_replaced_and_never_changed():
    kernel = rf.GaussianKernel(2.0)
    models = [RandomFeatures(kernel), RandomFeatures(kernel)]
    models[0].set_params(kernel__length_scale=5.0, n_components=10)
    assert (models[0].kernel.length_scale, models[1].kernel.length_scale, kernel.length_scale) == (5.0, 2.0, 2.0)
    both = RandomFeatures().set_params(kernel=rf.GaussianKernel(1.0), kernel__length_scale=3.0)
    assert both.kernel == rf.GaussianKernel(3.0)


def test_fields_of_fields():
    model = RandomFeatures(estimator=rf.PositiveFeatures(rf.GaussianKernel(2.0)))
    assert model.get_params()["estimator__kernel__length_scale"] == 2.0
    model.set_params(estimator__kernel__length_scale=4.0, estimator__coupling="simplex")
    assert model.estimator == rf.PositiveFeatures(rf.GaussianKernel(4.0), coupling="simplex")
    assert clone(model).get_params().keys() == model.get_params().keys()
    assert set(model.get_params(deep=False)) == set(RandomFeatures().get_params())


@pytest.mark.parametrize(
    ("model", "parameters", "message"),
    [
        (RandomFeatures("rbf"), {"kernel__length_scale": 1.0}, r"'rbf' has no .* kernel=rf.GaussianKernel\("),
        (RandomFeatures("Matern32"), {"kernel__length_scale": 1.0},
         r"kernel='Matern32' has no fields .* kernel=rf.MaternKernel\(smoothness=1.5, length_scale=1.0\)\."),
        (RandomFeatures("laplacian"), {"kernel__length_scale": 1.0}, r"=rf.LaplacianKernel\(length_scale=1.0\)\."),
        (RandomFeatures("poly"), {"kernel__degree": 3}, r"=rf.PolynomialKernel\(degree=2, offset=0.0, scale=1.0\)"),
        (RandomFeatures("skewed_chi2"), {"kernel__offset": 3}, r"=rf.SkewedChi2Kernel\(offset=1.0\)\."),
        (RandomFeatures("gausian"), {"kernel__length_scale": 1.0}, r"=rf.GaussianKernel\(length_scale=1.0\)\."),
        (RandomFeatures(coupling="simplex"), {"coupling__norms": "chi"}, r"coupling=rf.Simplex\("),
        (RandomFeatures(estimator="positive"), {"estimator__kernel": 1}, r"estimator=rf.PositiveFeatures\(\)\."),
        (RandomFeatures(rf.GaussianKernel()), {"kernel__gamma": 1.0}, "no field 'gamma'; it has length_scale"),
        (RandomFeatures(), {"colour": 1.0}, "Invalid parameter 'colour'"),
        (RandomFeatures(), {"num_features": 9}, "'num_features' for RandomFeatures; the word here is n_components."),
        (RandomFeatures(), {"length_scale": 1.0}, "the word here is gamma .gamma = 1/.2 length_scale²"),
        (RandomFeatures(rf.GaussianKernel()), {"length_scale": 1.0}, "'length_scale' .*; it is kernel__length_scale."),
    ],
)  # fmt: skip
def test_mistakes(model, parameters, message):
    with pytest.raises(ValueError, match=message):
        model.set_params(**parameters)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("alpha", ["gcv", 0.1])
def test_sums_made_anywhere_end_in_the_same_model(data, many, alpha):
    X, y = data
    y = np.stack([y, X[:, 1]], axis=1) if many else y
    estimator = rf.TrigonometricFeatures(rf.GaussianKernel(0.7))
    fitted = RandomFeatureRidge(estimator=estimator, n_components=40, alpha=alpha, random_state=0).fit(X, y)
    phi = estimator.draw(3, 40, rng=0)
    parts = [rf.FeatureMoments.of(phi, X[rows], y[rows]) for rows in (slice(0, 50), slice(50, None))]
    model = RandomFeatureRidge.from_moments(phi, parts[0].merge(parts[1]), alpha=alpha)
    assert model.alpha_ == pytest.approx(fitted.alpha_)
    for found, expected in zip(model.predict(X, return_std=True), fitted.predict(X, return_std=True), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(model.partial_fit(X, y).predict(X), fitted.partial_fit(X, y).predict(X), rtol=1e-7)
    assert clone(model).get_params() == model.get_params()


def test_mistakes_in_moments(data):
    X, y = data
    phi, other = (rf.TrigonometricFeatures(rf.GaussianKernel()).draw(3, 8, rng=seed) for seed in (0, 1))
    with pytest.raises(ValueError, match="of another feature map"):
        RandomFeatureRidge.from_moments(other, rf.FeatureMoments.of(phi, X, y))
    with pytest.raises(ValueError, match="no targets"):
        RandomFeatureRidge.from_moments(phi, rf.FeatureMoments.of(phi, X))
    with pytest.raises(TypeError, match="moments must be FeatureMoments, got ndarray"):
        RandomFeatureRidge.from_moments(phi, X)
    with pytest.raises(ValueError, match="at least one row"):
        RandomFeatureRidge.from_moments(phi, rf.FeatureMoments.empty(phi, 1))
