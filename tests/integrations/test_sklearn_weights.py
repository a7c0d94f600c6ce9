"""Weights of rows and of classes, several labels of a row: a row of weight w is w equal rows, on every path."""

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn", reason="pip install '.[sklearn]'")
from scipy.sparse import csr_array  # noqa: E402
from sklearn.multioutput import MultiOutputClassifier  # noqa: E402

import randfeat as rf  # noqa: E402
from randfeat.integrations.sklearn import RandomFeatureRidge, RandomFeatureRidgeClassifier, RandomFeatures  # noqa: E402

SMALL = {"n_components": 40, "random_state": 0}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((90, 3))
    Y = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], axis=1) + 0.1 * rng.standard_normal((90, 2))
    return X, Y, rng.integers(0, 4, 90).astype(float)


def repeated(weights, *arrays):
    return [np.repeat(x, weights.astype(int), axis=0) for x in arrays]


def fitted(model, how, X, y, weights):
    if how == "blocks":
        for rows in (slice(0, 40), slice(40, None)):
            model.partial_fit(X[rows], y[rows], sample_weight=None if weights is None else weights[rows])
        return model
    return model.fit(csr_array(X) if how == "sparse" else X, y, sample_weight=weights)


@pytest.mark.parametrize("how", ["rows", "sparse", "blocks"])
@pytest.mark.parametrize("alpha", ["auto", "gcv", [1e-3, 1e-1, 10.0], 0.1])
@pytest.mark.parametrize("intercept", [True, False])
def test_a_row_of_weight_w_is_w_rows(data, how, alpha, intercept):
    X, Y, weights = data
    gamma = 0.2 if how == "blocks" else "scale"  # the first block decides it, and repeated rows have another one
    options = {**SMALL, "alpha": alpha, "fit_intercept": intercept, "gamma": gamma}
    one = fitted(RandomFeatureRidge(**options), how, X, Y, weights)
    other = fitted(
        RandomFeatureRidge(**options), "sparse" if how == "sparse" else "rows", *repeated(weights, X, Y), None
    )
    assert one.features_.gamma_ == pytest.approx(other.features_.gamma_, rel=1e-12)
    assert one.alpha_ == pytest.approx(other.alpha_, rel=1e-6)
    for found, expected in zip(one.predict(X, return_std=True), other.predict(X, return_std=True), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(one.noise_variance_, other.noise_variance_, rtol=1e-6)
    assert one.score(X, Y, sample_weight=weights) == pytest.approx(other.score(*repeated(weights, X, Y)), rel=1e-9)


@pytest.mark.parametrize("labels", ["two", "three", "several"])
@pytest.mark.parametrize("how", ["rows", "sparse", "blocks"])
def test_classifiers(data, labels, how):
    X, Y, weights = data
    y = {
        "two": np.where(Y[:, 0] > 0, "up", "down"),
        "three": np.digitize(Y[:, 0], [-0.5, 0.5]),
        "several": (Y > 0).astype(int),
    }[labels]
    options = {**SMALL, "gamma": 0.2}
    one, other = (RandomFeatureRidgeClassifier(**options) for _ in range(2))
    if how == "blocks":
        classes = None if labels == "several" else np.unique(y)
        for rows in (slice(0, 40), slice(40, None)):
            one.partial_fit(X[rows], y[rows], classes=classes, sample_weight=weights[rows])
    else:
        one.fit(csr_array(X) if how == "sparse" else X, y, sample_weight=weights)
    other.fit(*repeated(weights, X, y))
    np.testing.assert_allclose(one.decision_function(X), other.decision_function(X), rtol=1e-6, atol=1e-8)
    assert np.array_equal(one.predict(X), other.predict(X))


def test_weights_of_zero_leave_rows_out(data):
    X, Y, weights = data
    for y, model in ((Y, RandomFeatureRidge), (Y[:, 0] > 0, RandomFeatureRidgeClassifier)):
        one = model(**SMALL).fit(X, y, sample_weight=np.minimum(weights, 1))
        other = model(**SMALL).fit(X[weights > 0], y[weights > 0])
        found, expected = (m.decision_function(X) if hasattr(m, "classes_") else m.predict(X) for m in (one, other))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        assert one.n_samples_seen_ == np.sum(weights > 0)


def test_one_number_is_the_weight_of_all_rows(data):
    X, Y, _ = data
    models = [RandomFeatureRidge(**SMALL).fit(X, Y, sample_weight=w) for w in (2.0, np.full(90, 2.0))]
    assert np.array_equal(models[0].coef_, models[1].coef_)


def test_several_labels_are_as_many_classifiers(data):
    X, Y, _ = data
    y = (Y > 0).astype(int)
    options = {**SMALL, "alpha": 0.1}
    one = RandomFeatureRidgeClassifier(**options).fit(X, y)
    other = MultiOutputClassifier(RandomFeatureRidgeClassifier(**options)).fit(X, y)
    assert np.array_equal(one.predict(X), other.predict(X))
    assert one.predict(X).shape == (90, 2)
    assert one.classes_.tolist() == [0, 1]
    with pytest.raises(ValueError, match="0 or 1 each"):
        RandomFeatureRidgeClassifier(**SMALL).fit(X, y + 1)
    blocks = RandomFeatureRidgeClassifier(**SMALL).partial_fit(X, y)
    with pytest.raises(ValueError, match="as many labels for each row as before"):
        blocks.partial_fit(X, y[:, 0], classes=[0, 1])


@pytest.mark.parametrize("class_weight", ["balanced", {0: 3.0, 2: 0.5}])
def test_weights_of_classes_are_weights_of_their_rows(data, class_weight):
    X, Y, weights = data
    y = np.digitize(Y[:, 0], [-0.8, 0.5])
    totals = np.bincount(y, weights=weights)
    table = totals.sum() / (3 * totals) if class_weight == "balanced" else np.asarray([3.0, 1.0, 0.5])
    one = RandomFeatureRidgeClassifier(class_weight=class_weight, **SMALL).fit(X, y, sample_weight=weights)
    other = RandomFeatureRidgeClassifier(**SMALL).fit(X, y, sample_weight=weights * table[y])
    np.testing.assert_allclose(one.decision_function(X), other.decision_function(X), rtol=1e-9, atol=1e-12)
    if class_weight == "balanced":
        with pytest.raises(ValueError, match="needs all rows at once"):
            RandomFeatureRidgeClassifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])


def test_a_misspelt_class_has_no_weight(data):
    X, Y, _ = data
    y = np.digitize(Y[:, 0], [-0.8, 0.5])
    with pytest.raises(ValueError, match=r"names \['lo'\], which are no classes; without a weight are \[1, 2\]"):
        RandomFeatureRidgeClassifier(class_weight={0: 2.0, "lo": 3.0}, **SMALL).fit(X, y)
    RandomFeatureRidgeClassifier(class_weight={0: 2.0, 1: 1.0, 2: 1.0, 7: 3.0}, **SMALL).fit(X, y)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(90), "non-zero"),
        (-np.ones(90), "Negative"),
        (np.ones(89), "90"),
        (np.full(90, np.nan), "NaN"),
        (np.full(90, 1e-3), "multiply them"),
    ],
    ids=["zeros", "negative", "shape", "nan", "small"],
)
def test_mistakes(data, weights, message):
    with pytest.raises(ValueError, match=message):
        RandomFeatureRidge(**SMALL).fit(data[0], data[1], sample_weight=weights)


def test_metadata_is_routed(data):
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, Y, weights = data
    with sklearn.config_context(enable_metadata_routing=True):
        model = RandomFeatureRidge(**SMALL).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model)
        search = GridSearchCV(pipeline, {"randomfeatureridge__gamma": [0.1, 1.0]}, cv=3)
        search.fit(X, Y, sample_weight=weights + 1)
    assert search.best_estimator_.predict(X).shape == (90, 2)


def test_moments_are_sums_with_weights(rng, xp):
    phi = rf.PositiveFeatures().draw(3, 16, rng=0, like=xp.asarray(rng.standard_normal((2, 3))))
    x, y, w = (
        xp.asarray(a) for a in (rng.standard_normal((20, 3)), rng.standard_normal((20, 2)), rng.uniform(0, 2, 20))
    )
    moments = rf.FeatureMoments.of(phi, x[:8, :], y[:8, :], sample_weight=w[:8])
    moments = moments.append_features(phi(x[8:, :]), y[8:, :], sample_weight=w[8:])
    z, y, w = (np.asarray(a) for a in (phi(x), y, w))
    for found, expected in {
        "gram": z.T @ (w[:, None] * z), "cross": z.T @ (w[:, None] * y), "feature_sum": w @ z, "target_sum": w @ y,
        "target_gram": y.T @ (w[:, None] * y), "count": w.sum(),
    }.items():  # fmt: skip
        np.testing.assert_allclose(np.asarray(getattr(moments, found)), expected, rtol=1e-10)
    assert moments.num_rows == 20
    with pytest.raises(ValueError, match=r"shape \(20,\)"):
        rf.FeatureMoments.of(phi, x, sample_weight=xp.asarray(w[:5]))
    with pytest.raises(ValueError, match="finite, 0 or more"):
        rf.FeatureMoments.of(phi, x, sample_weight=xp.asarray(-w))


@pytest.mark.parametrize("class_weight", [{0: 0, 1: 0, 2: 0}, {0: -1}, {1: np.nan}, {2: np.inf}], ids=repr)
def test_weights_of_classes_that_are_no_weights(class_weight):
    X, y = np.arange(12.0).reshape(6, 2), np.array([0, 1, 2, 0, 1, 2])
    with pytest.raises(ValueError, match=r"class_weight must be finite, 0 or more, and not 0 for all rows, got \{"):
        RandomFeatureRidgeClassifier(n_components=4, class_weight=class_weight).fit(X, y)


@pytest.mark.parametrize("sparse", [False, True])
def test_variances_out_of_range_are_infinite(sparse):
    """Then gamma is 1, as for a variance of 0; Python's powers of floats would raise an OverflowError."""
    X = np.diag([1e200, 2e200, -3e200])
    with np.errstate(over="ignore", invalid="ignore"):
        features = RandomFeatures(n_components=4).partial_fit(csr_array(X) if sparse else X)
        assert features.partial_fit(csr_array(-X) if sparse else -X).gamma_ == 1
