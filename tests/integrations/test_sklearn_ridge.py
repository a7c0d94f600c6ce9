"""Ridge regression on random features: scikit-learn's own on the transformed rows, from blocks or at once."""

import pickle

import numpy as np
import pytest
from scipy import sparse, stats
from scipy.linalg import LinAlgWarning

import randfeat as rf

pytest.importorskip("sklearn", reason="pip install '.[sklearn]'")
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import BayesianRidge, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from randfeat.integrations.sklearn import (
    RandomFeatureRidge,
    RandomFeatureRidgeClassifier,
    RandomFeatures,
    ridge,
)

SMALL = {"n_components": 30, "random_state": 0, "gamma": 0.4}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((200, 3))
    Y = np.column_stack([np.sin(X[:, 0]) + X[:, 1], X[:, 2] ** 2 + 5]) + 0.1 * rng.standard_normal((200, 2))
    return X, Y


@pytest.fixture(params=[False, True], ids=["one block", "blocks of features"])
def _small_blocks(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(ridge, "BLOCK_NUMBERS", 30 * 17)


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("intercept", [True, False])
def test_it_is_ridge_on_the_features(data, intercept, outputs):
    X, Y = data
    y = Y[:, 0] if outputs == 1 else Y
    model = RandomFeatureRidge(alpha=0.3, fit_intercept=intercept, **SMALL).fit(X, y)
    Z = RandomFeatures(**SMALL).fit_transform(X)
    expected = Ridge(0.3, fit_intercept=intercept).fit(Z, y)
    np.testing.assert_allclose(model.predict(X), expected.predict(Z), atol=1e-9)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-8)
    np.testing.assert_allclose(model.intercept_, expected.intercept_, atol=1e-8)
    assert model.score(X, y) == pytest.approx(expected.score(Z, y))


@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("alpha", [0.3, "auto", "gcv", [0.01, 1.0]])
def test_blocks_are_all_rows(data, alpha, form):
    X, Y = data
    X = np.where(X > 0, X, 0.0)
    whole = RandomFeatureRidge(alpha=alpha, **SMALL).fit(X, Y)
    take = sparse.csr_array if form == "sparse" else np.asarray
    parts = RandomFeatureRidge(alpha=alpha, **SMALL)
    for rows in np.array_split(np.arange(200), 7):
        parts.partial_fit(take(X[rows]), Y[rows])
        assert parts.predict(take(X[:3])).shape == (3, 2)  # solved in between: no harm
    assert parts.alpha_ == pytest.approx(whole.alpha_)
    assert parts.n_samples_seen_ == parts.moments_.count == 200
    np.testing.assert_allclose(parts.predict(take(X)), whole.predict(X), atol=1e-8)
    again = RandomFeatureRidge(alpha=alpha, **SMALL).fit(take(X), Y)
    np.testing.assert_allclose(again.predict(take(X)), whole.predict(X), atol=1e-8)


def test_the_first_block_decides_gamma(data):
    X, Y = data
    model = RandomFeatureRidge(n_components=10, random_state=0).partial_fit(X[:20], Y[:20])
    gamma = model.features_.gamma_
    assert gamma == RandomFeatures().fit(X[:20]).gamma_
    assert model.partial_fit(X[20:], Y[20:]).features_.gamma_ == gamma


def test_alpha_by_cross_validation(data):
    """Of the listed ones the best by the statistics; "gcv" is as good as any of a wide grid on held-out rows."""
    X, Y = data
    y = Y[:, 0]
    alphas = np.geomspace(1e-6, 1e3, 10)
    listed = RandomFeatureRidge(alpha=alphas, **SMALL).fit(X[:100], y[:100])
    free = RandomFeatureRidge(**SMALL).fit(X[:100], y[:100])
    assert listed.alpha_ in alphas
    errors = [
        np.mean((RandomFeatureRidge(alpha=a, **SMALL).fit(X[:100], y[:100]).predict(X[100:]) - y[100:]) ** 2)
        for a in alphas
    ]
    assert np.mean((free.predict(X[100:]) - y[100:]) ** 2) < 1.3 * min(errors) < max(errors) / 4


def test_standard_deviation_is_that_of_the_bayesian_linear_model(data):
    """scikit-learn's, with its precisions fixed at ours; and without an intercept."""
    X, Y = data
    y = Y[:, 0]
    Z = RandomFeatures(**SMALL).fit_transform(X)
    for intercept in (True, False):
        model = RandomFeatureRidge(alpha=0.3, fit_intercept=intercept, **SMALL).fit(X, y)
        mean, std = model.predict(X, return_std=True)
        noise = model.noise_variance_
        center = Z.mean(0) if intercept else 0.0
        spread = Z - center
        covariance = noise * np.linalg.inv(spread.T @ spread + 0.3 * np.eye(30))
        expected = noise * (1 + intercept / 200) + np.sum(spread @ covariance * spread, axis=1)
        np.testing.assert_allclose(std**2, expected, rtol=1e-7)
        np.testing.assert_array_equal(mean, model.predict(X))
    bayes = BayesianRidge(fit_intercept=False, max_iter=1).fit(Z, y)
    model = RandomFeatureRidge(alpha=bayes.lambda_ / bayes.alpha_, fit_intercept=False, **SMALL).fit(X, y)
    ratio = model.predict(X, return_std=True)[1] / bayes.predict(Z, return_std=True)[1]
    np.testing.assert_allclose(ratio, np.sqrt(model.noise_variance_ * bayes.alpha_), rtol=0.02)
    both = RandomFeatureRidge(**SMALL).fit(X, Y).predict(X, return_std=True)[1]
    assert both.shape == (200, 2)


def test_standard_deviation_covers():
    """The noise of data from the model itself: as many of 2000 new observations within one std as should be."""
    rng = np.random.default_rng(0)
    phi = RandomFeatures(**SMALL).fit(np.zeros((1, 2))).feature_map_
    X = rng.standard_normal((2300, 2))
    y = phi(X) @ rng.standard_normal(30) + 0.5 * rng.standard_normal(2300)
    model = RandomFeatureRidge(alpha=0.25, **SMALL).fit(X[:300], y[:300])
    mean, std = model.predict(X[300:], return_std=True)
    covered = np.mean(np.abs(y[300:] - mean) < std)
    # Binomial error of the count, and 1/√(2·270) relative error of the estimated σ, which moves coverage by
    # 2·density(1) = 0.48 times that, each at 5 standard deviations.
    assert abs(covered - 0.6827) < 5 * (np.sqrt(0.683 * 0.317 / 2000) + 2 * stats.norm.pdf(1) / np.sqrt(2 * 270))
    wrong = np.mean(np.abs(y[300:] - mean) < 2 * std)
    assert abs(wrong - 0.6827) > 0.2


@pytest.mark.parametrize("classes", [2, 10])
def test_classifier_is_ridge_classifier_on_the_features(classes):
    X, y = load_digits(n_class=classes, return_X_y=True)
    X, names = X[:400] / 8, np.array([f"digit {i}" for i in range(10)])[y[:400]]
    model = RandomFeatureRidgeClassifier(alpha=0.5, n_components=60, gamma=0.01, random_state=0).fit(X, names)
    Z = model.features_.transform(X)
    expected = RidgeClassifier(0.5).fit(Z, names)
    np.testing.assert_array_equal(model.predict(X), expected.predict(Z))
    np.testing.assert_allclose(model.decision_function(X), expected.decision_function(Z), atol=1e-8)
    np.testing.assert_array_equal(model.classes_, expected.classes_)
    parts = clone(model)
    for rows in np.array_split(np.arange(len(X)), 5):
        parts.partial_fit(X[rows], names[rows], classes=names)
    np.testing.assert_allclose(parts.decision_function(X), model.decision_function(X), atol=1e-8)


def test_single_precision(data):
    """float32 in, float32 out; sums in float64 all the same."""
    X, Y = data
    model = RandomFeatureRidge(alpha=0.3, **SMALL).fit(X.astype(np.float32), Y.astype(np.float32))
    mean, std = model.predict(X.astype(np.float32), return_std=True)
    assert model.moments_.gram.dtype == np.float64
    assert mean.dtype == std.dtype == model.coef_.dtype == np.float32
    np.testing.assert_allclose(mean, RandomFeatureRidge(alpha=0.3, **SMALL).fit(X, Y).predict(X), atol=2e-3)


def test_it_is_a_citizen(data):
    X, Y = data
    search = GridSearchCV(
        make_pipeline(StandardScaler(), RandomFeatureRidge(**SMALL)), {"randomfeatureridge__gamma": [0.1, 100.0]}, cv=2
    ).fit(X, Y)
    assert search.best_params_ == {"randomfeatureridge__gamma": 0.1}
    model = RandomFeatureRidge(rf.MaternKernel(2.5), n_components=30, random_state=0).fit(X, Y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    np.testing.assert_array_equal(again.partial_fit(X, Y).predict(X), model.partial_fit(X, Y).predict(X))
    assert "RandomFeatureRidge" in model._repr_html_()


def test_out_of_the_box_it_beats_rbf_sampler_and_ridge():
    X, y = load_digits(return_X_y=True)
    ours = RandomFeatureRidgeClassifier(random_state=0).fit(X[:1000], y[:1000])
    theirs = make_pipeline(RBFSampler(n_components=500, random_state=0), RidgeClassifier()).fit(X[:1000], y[:1000])
    scaled = make_pipeline(RBFSampler(gamma="scale", n_components=500, random_state=0), RidgeClassifier())
    score = ours.score(X[1000:], y[1000:])
    assert score > theirs.score(X[1000:], y[1000:]) + 0.5
    assert score > scaled.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:])


def test_a_singular_problem_is_said_to_be(data):
    X, Y = data
    model = RandomFeatureRidge("arccos0", n_components=30, alpha=0, random_state=0)
    with pytest.warns(LinAlgWarning, match="singular up to rounding") as caught:
        model.fit(X[:10], Y[:10])
    assert {one.filename for one in caught} == {__file__}
    np.testing.assert_allclose(model.predict(X[:10]), Y[:10], atol=1e-8)


MISTAKES = [
    ({"alpha": "loo"}, ValueError, 'alpha must be .*, a list of positive ones, "auto" or "gcv", got .loo'),
    ({"alpha": -1}, ValueError, 'alpha must be a number, 0 or more, a list of positive ones, "auto" or "gcv", got -1'),
    ({"alpha": np.inf}, ValueError, "alpha must be a number, 0 or more, .*, got inf"),
    ({"alpha": np.nan}, ValueError, "alpha must be a number, 0 or more, .*, got nan"),
    ({"alpha": True}, TypeError, "alpha must be a number, 0 or more, .*, got True"),
    ({"alpha": None}, TypeError, "alpha must be a number, 0 or more, .*, got None"),
    ({"alpha": []}, ValueError, "alpha must be"),
    ({"alpha": [1.0, 0.0]}, ValueError, "each alpha of a list must be positive and finite, got 0.0"),
    ({"fit_intercept": "no"}, TypeError, "fit_intercept must be True or False, got 'no'"),
    ({"fit_intercept": 1}, TypeError, "fit_intercept must be True or False, got 1"),
    ({"n_components": 7, "estimator": "trigonometric"}, ValueError, "cannot have 7 features; nearest: 6, 8"),
    ({"kernel": "gausian"}, ValueError, "unknown kernel"),
]


@pytest.mark.parametrize(("parameters", "error", "message"), MISTAKES)
def test_mistakes(data, parameters, error, message):
    with pytest.raises(error, match=message):
        RandomFeatureRidge(**parameters).fit(*data)


def test_a_penalty_of_zero_is_a_number(data):
    X, Y = data
    model = RandomFeatureRidge(alpha=0, **SMALL).fit(X, Y)
    Z = model.features_.transform(X)
    centered = Z - Z.mean(0)
    expected = Y.mean(0) + centered @ np.linalg.lstsq(centered, Y - Y.mean(0))[0]
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-6)


def test_switches_are_true_or_false(data):
    X, Y = data
    model = RandomFeatureRidge(fit_intercept=np.False_, **SMALL).fit(X, Y)
    assert not np.any(model.intercept_)
    assert len(model.predict(X, return_std=np.True_)) == 2
    with pytest.raises(TypeError, match="return_std must be True or False, got 'no'"):
        model.predict(X, return_std="no")


def test_lists_of_labels_are_refused(data):
    for fit in (RandomFeatureRidgeClassifier().fit, RandomFeatureRidgeClassifier().partial_fit):
        with pytest.raises(ValueError, match=r"one label for each row, .*sklearn.preprocessing.MultiLabelBinarizer"):
            fit(data[0], [[0], [1, 2]] * 100)


def test_mistakes_in_blocks(data):
    X, Y = data
    model = RandomFeatureRidge(**SMALL).partial_fit(X, Y)
    with pytest.raises(ValueError, match=r"as many outputs as before, 2, got shape \(200,\)"):
        model.partial_fit(X, Y[:, 0])
    labels = np.repeat(["a", "b"], 100)
    classifier = RandomFeatureRidgeClassifier(**SMALL)
    with pytest.raises(ValueError, match="needs all classes"):
        classifier.partial_fit(X, labels)
    classifier.partial_fit(X, labels, classes=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"labels .'d'. that are not among the classes"):
        classifier.partial_fit(X, np.repeat("d", 200))
    with pytest.raises(ValueError, match="classes must be those of the first call"):
        classifier.partial_fit(X, labels, classes=["a", "b"])
    with pytest.raises(ValueError, match="at least 2 classes, got one class"):
        RandomFeatureRidgeClassifier(**SMALL).fit(X, np.ones(200, int))


@pytest.mark.parametrize("how", ["fit", "blocks", "two targets"])
@pytest.mark.parametrize(
    ("factor", "offset"), [(1, 1e4), (1, 1e6), (1, 1e8), (1, 1.7e9), (1, -1e8), (1e-3, 1e5), (1e3, 1e8)]
)
def test_what_is_reported_does_not_depend_on_the_mean_of_the_target(how, factor, offset):
    """Penalty, R², noise, deviations, weights, predictions of `a y + c`: to 6 digits, or to the rounding of a y + c."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (400, 2))
    y = np.sin(X[:, 0] * X[:, 1]) + 0.1 * rng.standard_normal(400)

    def reported(target, scale, shift):
        model = RandomFeatureRidge(gamma=0.5, n_components=60, random_state=0)
        many = np.stack([target, X[:, 0] * scale], axis=1) if how == "two targets" else target
        if how == "blocks":
            for start in range(0, 400, 90):
                model.partial_fit(X[start : start + 90], many[start : start + 90])
        else:
            model.fit(X, many)
        mean, deviation = model.predict(X, return_std=True)
        first = (slice(None), 0) if how == "two targets" else slice(None)
        noise, weights = np.atleast_1d(model.noise_variance_)[0], np.atleast_2d(model.coef_)[0]
        mean = (mean[first] - shift) / scale
        return model.alpha_, model.score(X, many), noise / scale**2, deviation[first] / scale, weights / scale, mean

    near = reported(factor * y, factor, 0.0)
    far = reported(factor * y + offset, factor, offset)
    rounding = 100 * np.spacing(abs(offset)) / factor
    for expected, found in zip(near, far, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6 + rounding, atol=rounding * np.max(np.abs(expected)))
