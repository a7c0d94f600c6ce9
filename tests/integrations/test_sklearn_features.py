"""What the table of scikit-learn's features says: names, frames, routing of weights, meta-estimators, and the no's."""

import numpy as np
import pytest
from scipy import sparse

import randfeat as rf

sklearn = pytest.importorskip("sklearn", reason="pip install '.[sklearn]'")
from sklearn.base import clone  # noqa: E402
from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor  # noqa: E402
from sklearn.ensemble import StackingRegressor, VotingClassifier  # noqa: E402
from sklearn.exceptions import UnsetMetadataPassedError  # noqa: E402
from sklearn.linear_model import LogisticRegression, Ridge  # noqa: E402
from sklearn.metrics import get_scorer  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_validate  # noqa: E402
from sklearn.pipeline import Pipeline, make_pipeline, make_union  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from randfeat.integrations.sklearn import (  # noqa: E402
    RandomFeatureRidge,
    RandomFeatureRidgeClassifier,
    RandomFeatures,
)

SMALL = {"n_components": 20, "random_state": 0}
RIDGES = [RandomFeatureRidge(**SMALL), RandomFeatureRidgeClassifier(**SMALL)]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((90, 3))
    return X, (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int), rng.integers(1, 4, 90).astype(float)


def name_of(model):
    return type(model).__name__


# names and frames ------------------------------------------------------------------------------------------------


def test_names_of_features_pass_through_pipelines_unions_and_columns(data):
    X = data[0]
    one, two = RandomFeatures(n_components=4), RandomFeatures("laplacian", n_components=2)
    own, other = [f"randomfeatures{i}" for i in range(4)], [f"randomfeatures{i}" for i in range(2)]
    pipeline = make_pipeline(StandardScaler(), one).fit(X)
    assert list(pipeline.get_feature_names_out(["a", "b", "c"])) == own
    union = make_union(one, two).fit(X)
    expected = [f"randomfeatures-1__{name}" for name in own] + [f"randomfeatures-2__{name}" for name in other]
    assert list(union.get_feature_names_out()) == expected
    columns = ColumnTransformer([("f", two, [0, 1])], remainder="passthrough").fit(X)
    assert list(columns.get_feature_names_out()) == [*(f"f__{name}" for name in other), "remainder__x2"]
    with pytest.raises(sklearn.exceptions.NotFittedError):
        RandomFeatures().get_feature_names_out()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames(data, library):
    """Columns are remembered and asked for, and transformers give frames; index and numbers stay."""
    frames = pytest.importorskip(library, reason=f"pip install {library}")
    X = frames.DataFrame({name: data[0][:, i] for i, name in enumerate("abc")})
    transformer = RandomFeatures(n_components=4, random_state=0).set_output(transform=library)
    Z = transformer.fit_transform(X)
    assert isinstance(Z, frames.DataFrame)
    assert list(Z.columns) == list(transformer.get_feature_names_out())
    assert list(transformer.feature_names_in_) == ["a", "b", "c"]
    np.testing.assert_array_equal(Z.to_numpy(), clone(transformer).set_output(transform="default").fit_transform(X))
    if library == "pandas":
        assert transformer.transform(X[20:30]).index.tolist() == list(range(20, 30))
    for model in RIDGES:
        model = clone(model).fit(X, data[1])
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(X[["c", "b", "a"]])
        weights, target = (frames.Series(column) for column in (data[2], data[1]))
        weighted = clone(model).fit(X, target, sample_weight=weights)
        expected = clone(model).fit(data[0], data[1], sample_weight=data[2])
        np.testing.assert_array_equal(weighted.predict(X), expected.predict(data[0]))
        assert weighted.score(X, target, sample_weight=weights) == expected.score(data[0], data[1], data[2])
    blocks = RandomFeatureRidgeClassifier(**SMALL).partial_fit(X, target, classes=frames.Series([0, 1]))
    np.testing.assert_array_equal(blocks.classes_, [0, 1])
    columns = ColumnTransformer([("f", RandomFeatures(n_components=2), ["a", "b"])]).set_output(transform=library)
    assert list(columns.fit_transform(X).columns) == ["f__randomfeatures0", "f__randomfeatures1"]


class Column:
    """Like a Series of pandas: numbers with a dtype, and a method `get` that is not that of CuPy's arrays."""

    def __init__(self, values):
        self.values = np.asarray(values)
        self.dtype, self.shape = self.values.dtype, self.values.shape

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=dtype)

    def get(self, key):
        raise AssertionError("this is no array of CuPy")


@pytest.mark.parametrize("model", RIDGES, ids=name_of)
def test_columns_of_frames_are_weights_and_targets(data, model):
    X, y, weights = data
    found = clone(model).fit(X, Column(y), sample_weight=Column(weights))
    np.testing.assert_array_equal(found.predict(X), clone(model).fit(X, y, sample_weight=weights).predict(X))


# routing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", RIDGES, ids=name_of)
def test_weights_are_routed_through_pipelines_and_grids(data, model):
    """To the model and to its score: as if it were fitted and scored with these weights, outside of a pipeline."""
    X, y, weights = data
    train, test = np.arange(60), np.arange(60, 90)
    with sklearn.config_context(enable_metadata_routing=True):
        asked = clone(model).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipeline = Pipeline([("scale", StandardScaler().set_fit_request(sample_weight=False)), ("model", asked)])
        grid = {"model__gamma": [0.2, 1.0]}
        search = GridSearchCV(pipeline, grid, cv=[(train, test)], refit=False).fit(X, y, sample_weight=weights)
        found = cross_validate(pipeline, X, y, cv=[(train, test)], params={"sample_weight": weights})
    scaler = StandardScaler().fit(X[train])
    for gamma, score in zip(grid["model__gamma"], search.cv_results_["mean_test_score"], strict=True):
        alone = clone(model).set_params(gamma=gamma).fit(scaler.transform(X[train]), y[train], weights[train])
        assert score == pytest.approx(alone.score(scaler.transform(X[test]), y[test], weights[test]))
        assert score != pytest.approx(alone.score(scaler.transform(X[test]), y[test]))
    alone = clone(model).fit(scaler.transform(X[train]), y[train], weights[train])
    assert found["test_score"] == pytest.approx(alone.score(scaler.transform(X[test]), y[test], weights[test]))


@pytest.mark.parametrize("model", RIDGES, ids=name_of)
def test_what_is_not_asked_for_is_refused(data, model):
    X, y, weights = data
    with sklearn.config_context(enable_metadata_routing=True):
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            make_pipeline(RandomFeatures(), clone(model)).fit(X, y, sample_weight=weights)
        ignoring = clone(model).set_fit_request(sample_weight=False)
        scorer = get_scorer("accuracy" if model is RIDGES[1] else "r2").set_score_request(sample_weight=True)
        search = GridSearchCV(ignoring, {"gamma": [0.5]}, scoring=scorer, cv=[(np.arange(60), np.arange(60, 90))])
        search.fit(X, y, sample_weight=weights)
    alone = clone(model).set_params(gamma=0.5).fit(X[:60], y[:60])
    assert search.best_score_ == pytest.approx(alone.score(X[60:], y[60:], weights[60:]))


def test_requests_of_all_methods():
    """`sample_weight` of fit, partial_fit and score; `classes` of the first block; `return_std` of predictions."""
    with sklearn.config_context(enable_metadata_routing=True):
        of_ridge, of_classes = (model.get_metadata_routing() for model in RIDGES)
        assert set(of_ridge.fit.requests) == set(of_ridge.partial_fit.requests) == {"sample_weight"}
        assert set(of_ridge.score.requests) == set(of_classes.score.requests) == {"sample_weight"}
        assert set(of_classes.fit.requests) == {"sample_weight"}
        assert set(of_classes.partial_fit.requests) == {"sample_weight", "classes"}
        assert set(of_ridge.predict.requests) == {"return_std"}
        assert all(not requests for requests in vars(RandomFeatures().get_metadata_routing()).values()
                   if isinstance(requests, dict))  # fmt: skip


# meta-estimators, and what is not there --------------------------------------------------------------------------


def test_models_inside_others(data):
    X, y, _ = data
    ridge, classifier = RIDGES
    assert make_pipeline(RandomFeatures(**SMALL), LogisticRegression(C=100)).fit(X, y).predict_proba(X).shape == (90, 2)
    calibrated = CalibratedClassifierCV(classifier, cv=3).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)
    assert VotingClassifier([("a", classifier), ("b", LogisticRegression())]).fit(X, y).score(X, y) > 0.7
    target = np.exp(X[:, 0])
    logged = TransformedTargetRegressor(ridge, func=np.log, inverse_func=np.exp).fit(X, target)
    np.testing.assert_allclose(logged.predict(X), np.exp(clone(ridge).fit(X, X[:, 0]).predict(X)), rtol=1e-9)
    assert StackingRegressor([("ours", ridge)], Ridge(1e-6), cv=3).fit(X, target).score(X, target) > 0.5


@pytest.mark.parametrize(
    "absent", ["predict_proba", "predict_log_proba", "inverse_transform", "warm_start", "n_jobs", "set_callbacks"]
)
def test_what_is_not_there(absent):
    """A no in the table: neither a method, nor a parameter."""
    for model in (RandomFeatures(), *RIDGES):
        assert not hasattr(model, absent)


def test_refused_inputs(data):
    """Missing values, words, several classes for each row of several outputs; sparse rows of features that need all."""
    X, y, _ = data
    for model in RIDGES:
        with pytest.raises(ValueError, match="NaN"):
            clone(model).fit(np.where(X > 2, np.nan, X), y)
        with pytest.raises(ValueError, match="could not convert string"):
            clone(model).fit(np.full((90, 2), "word", dtype=object), y)
    with pytest.raises(ValueError, match="must be 0 or 1 each"):
        RIDGES[1].fit(X, np.stack([y + 1, 2 * y], axis=1))
    for kernel in ("polynomial", "additive_chi2", "skewed_chi2", "arccos1"):
        transformer = RandomFeatures(kernel, n_components=12)
        assert not transformer.__sklearn_tags__().input_tags.sparse
        with pytest.raises(ValueError, match=r"need dense inputs|sparse X needs features"):
            transformer.fit(sparse.csr_array(np.abs(X)))
    with pytest.raises(ValueError, match="SpectralFeatures of SkewedChi2Kernel need dense inputs"):
        RandomFeatures(rf.SkewedChi2Kernel(0.5)).fit(sparse.csr_array(np.abs(X)))


def test_histograms_from_end_to_end():
    """A grid over chi-squared kernels by name and by object, on images of digits as histograms."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    X, y = X[:400] / 16, y[:400]
    model = RandomFeatureRidgeClassifier(n_components=256, random_state=0)
    kernels = ["additive_chi2", "skewed_chi2", rf.SkewedChi2Kernel(2.0)]
    search = GridSearchCV(model, {"kernel": kernels}, cv=2, error_score="raise").fit(X, y)
    assert np.min(search.cv_results_["mean_test_score"]) > 0.85
    with pytest.raises(ValueError, match="Negative values in data"):
        search.predict(-X)
    grid = {"kernel__offset": [0.1, 1.0]}
    nested = GridSearchCV(clone(model).set_params(kernel=rf.SkewedChi2Kernel()), grid, cv=2).fit(X, y)
    assert nested.best_estimator_.kernel.offset in (0.1, 1.0)
    twice = make_pipeline(
        RandomFeatures("additive_chi2", n_components=256, random_state=0), RandomFeatures("rbf", gamma=0.1, **SMALL)
    )
    assert twice.fit_transform(X).shape == (400, 20)
