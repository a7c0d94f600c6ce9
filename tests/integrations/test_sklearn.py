"""The transformer: the features of the library under scikit-learn's conventions."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

import randfeat as rf

sklearn = pytest.importorskip("sklearn", reason="pip install '.[sklearn]'")
from sklearn.base import clone  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.linear_model import Ridge  # noqa: E402
from sklearn.metrics import pairwise  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline, make_union  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from randfeat.couplings.base import coupling_names  # noqa: E402
from randfeat.integrations.sklearn import (  # noqa: E402
    RandomFeatureRidge,
    RandomFeatureRidgeClassifier,
    RandomFeatures,
)
from randfeat.integrations.sklearn.laws import (  # noqa: E402
    KERNELS,
    WAVES_AND_EXPONENTIALS,
    estimator_classes,
    natural_estimator,
)
from randfeat.integrations.sklearn.sparse_rows import sparse_features  # noqa: E402
from randfeat.selection.entries import example_width  # noqa: E402

CHECKED = [
    RandomFeatures(), RandomFeatures("skewed_chi2"), RandomFeatureRidge(n_components=100),
    RandomFeatureRidgeClassifier(n_components=20),
]  # fmt: skip
MADE_OF_OTHERS = {"ard", "balanced", "centered", "hybrid", "product", "scaled", "sum"}
TWO_SIDED = {"angular_hybrid", "complex_exponential", "control_variate", "gaussian_hybrid", "generalized_exponential"}
OF_DATA = {"dense_exponential", "geometric", "importance_sampled", "optimal_positive", "poisson"}
ALONE = {"posterior"}  # needs keys of its own: as an object


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).standard_normal((40, 4)) / 2 + 0.1


@parametrize_with_checks(CHECKED)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


ARRAY_API = """
import sys
from unittest import SkipTest
import sklearn.utils.estimator_checks as checks
from randfeat.integrations.sklearn import RandomFeatureRidge, RandomFeatureRidgeClassifier, RandomFeatures
tried = RandomFeatures(), RandomFeatureRidge(n_components=100), RandomFeatureRidgeClassifier(n_components=20)
for estimator in tried:
    if sys.argv[1] == "all":
        results = checks.check_estimator(estimator, on_skip=None)
        print(sum("array_api" in result["check_name"] and result["status"] == "passed" for result in results))
    else:
        name = type(estimator).__name__
        for values in (False, True):
            checks.check_array_api_input(name, estimator, "array_api_strict", check_values=values, dtype_name="float64")
        try:
            checks.check_array_api_input(name, estimator, "torch", "cpu", "float32", check_values=True)
        except SkipTest:  # without PyTorch
            pass
        checks.check_array_api_same_namespace(name, estimator, "array_api_strict")
        print(2)
"""


@pytest.mark.skipif(
    not hasattr(sklearn.utils.estimator_checks, "check_array_api_same_namespace"), reason="scikit-learn 1.9"
)
def test_array_api_dispatch():
    """In a process of its own, as SciPy reads the variable once; `python -c ... all` has scikit-learn's whole list."""
    environment = os.environ | {"SCIPY_ARRAY_API": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", ARRAY_API, "some"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2"] * 3


@pytest.mark.parametrize("name", sorted(estimator_classes()))
def test_every_estimator_by_name(X, name):
    """An estimator of the catalogue is the transformer of its name, or an error says why it is none."""
    cls = estimator_classes()[name]
    kernel = next(k for k, v in KERNELS.items() if isinstance(v.make(1.0, 2, 0.0), cls.kernel_type))
    transformer = RandomFeatures(kernel, estimator=name, n_components=8, random_state=3)
    if name == "regularized_softmax":
        transformer.set_params(coupling="orthogonal-constant")
    if name in MADE_OF_OTHERS | TWO_SIDED | ALONE:
        expected = {"made of other": MADE_OF_OTHERS, "queries and keys": TWO_SIDED, "dimension": ALONE}
        with pytest.raises(ValueError, match=next(text for text, names in expected.items() if name in names)):
            transformer.fit(X)
        return
    Z = transformer.fit_transform(X)
    law = transformer.estimator_
    assert type(law) is cls
    if name not in OF_DATA:
        coupling = {"coupling": transformer.coupling} if law.has_coupling else {}
        assert law == cls(kernel=KERNELS[kernel].make(transformer.gamma_, 2, 0.0), **coupling)
    np.testing.assert_array_equal(Z, law.draw(4, 8, rng=3)(X))
    np.testing.assert_array_equal(Z, RandomFeatures(estimator=law, n_components=8, random_state=3).fit_transform(X))


@pytest.mark.parametrize("coupling", coupling_names())
def test_every_coupling_by_name(X, coupling):
    width = 2 * 3**4 if coupling == "gauss-hermite" else 12
    kernel = rf.GaussianKernel(1.3)
    Z = RandomFeatures(kernel, coupling=coupling, n_components=width, random_state=0).fit_transform(X)
    np.testing.assert_array_equal(Z, rf.TrigonometricFeatures(kernel, coupling).draw(4, width, rng=0)(X))


def test_kernels_have_features_of_their_own(X):
    for name in KERNELS:
        transformer = RandomFeatures(name, n_components=8, random_state=0).fit(np.abs(X))
        assert type(transformer.estimator_) is estimator_classes()[KERNELS[name].estimator]
        assert natural_estimator(transformer.estimator_.kernel) == KERNELS[name].estimator
        assert transformer.transform(np.abs(X)).shape == (40, 8)
    for kernel, estimator in (
        (rf.ExponentialPowerKernel(0.7), rf.SpectralFeatures),
        (rf.DotProductKernel(), rf.MaclaurinFeatures),
        (rf.MaternKernel(3.5), rf.SpectralFeatures),
    ):
        assert type(RandomFeatures(kernel).fit(X).estimator_) is estimator


@pytest.mark.parametrize(
    ("kernel", "parameters", "exact"),
    [
        ("rbf", {"gamma": 0.3}, lambda X: pairwise.rbf_kernel(X, gamma=0.3)),
        ("laplacian", {"gamma": 0.3}, lambda X: pairwise.laplacian_kernel(X, gamma=0.3)),
        ("polynomial", {"gamma": 0.3, "coef0": 2.0, "degree": 3},
         lambda X: pairwise.polynomial_kernel(X, gamma=0.3, coef0=2.0, degree=3)),
        ("softmax", {"gamma": 0.3}, lambda X: np.exp(0.3 * X @ X.T)),
        ("cauchy", {"gamma": 0.3}, lambda X: np.prod(1 / (1 + 0.6 * (X[:, None] - X) ** 2), axis=-1)),
        ("rational_quadratic", {"gamma": 0.3}, lambda X: 1 / (1 + 0.3 * pairwise.euclidean_distances(X) ** 2)),
        ("exponential", {"gamma": 0.5}, lambda X: np.exp(-pairwise.euclidean_distances(X))),
        ("rbf", {"gamma": "scale"}, lambda X: pairwise.rbf_kernel(X, gamma=1 / (4 * X.var()))),
        ("laplacian", {"gamma": "scale"}, lambda X: pairwise.laplacian_kernel(X, gamma=1 / (4 * X.std()))),
        ("rbf", {"gamma": "median"}, lambda X: np.exp(-pairwise.euclidean_distances(X) ** 2 / (2 * median(X) ** 2))),
    ],
)  # fmt: skip
def test_gamma_is_that_of_scikit_learn(X, kernel, parameters, exact):
    """The law's exact kernel; unbiased features of it are those of the library, whose mean is tested there."""
    law = RandomFeatures(kernel, n_components=6, **parameters).fit(X).estimator_
    np.testing.assert_allclose(law.kernel(X, X), exact(X), rtol=1e-9, atol=1e-12)
    assert np.allclose(law.mean(X[:5], X[5:10]), law.kernel.pairwise(X[:5], X[5:10]))


def median(X):
    return np.median(pairwise.euclidean_distances(X)[np.triu_indices(len(X), 1)])


def test_random_states(X):
    def features(state):
        return RandomFeatures(random_state=state).fit_transform(X)

    np.testing.assert_array_equal(features(5), features(np.random.default_rng(5)))
    np.testing.assert_array_equal(features(np.random.RandomState(5)), features(np.random.RandomState(5)))
    generator = np.random.default_rng(5)
    assert not np.array_equal(features(generator), features(generator))  # it advances
    assert not np.array_equal(features(None), features(None))
    with pytest.raises(TypeError, match="rng must be None, a non-negative int"):
        features("seed")


@pytest.mark.parametrize(
    "options",
    [*({"kernel": kernel} for kernel in ("rbf", "matern32", "laplacian", "softmax")),
     {"estimator": "hyperbolic"}, {"estimator": "optimal_positive", "gamma": 0.3}, {"n_components": 7},
     {"dtype": np.float32}, {"estimator": rf.SpectralFeatures()}],
    ids=str,
)  # fmt: skip
def test_sparse_rows(X, options):
    """The features of the dense rows; zero rows among them."""
    options = dict(options)
    dtype = options.pop("dtype", np.float64)
    dense = np.where(X > 0.2, X, 0).astype(dtype)
    dense[3] = 0
    transformer = RandomFeatures(**{"n_components": 8, "random_state": 0} | options)
    expected = transformer.fit_transform(dense)
    for matrix in (sparse.csr_array(dense), sparse.coo_matrix(dense)):
        assert np.isclose(transformer.fit(matrix).gamma_, clone(transformer).fit(dense).gamma_)
        Z = transformer.transform(matrix)
        assert Z.dtype == dtype
        np.testing.assert_allclose(Z, expected, rtol=64 * np.finfo(dtype).eps, atol=64 * np.finfo(dtype).eps)


def test_sparse_rows_are_never_made_dense():
    """Rows of a hundred thousand columns, ten of which are not zero."""
    rng = np.random.default_rng(0)
    rows, columns = np.repeat(np.arange(20), 10), rng.integers(10**5, size=200)
    X = sparse.csr_array((rng.random(200), (rows, columns)), shape=(20, 10**5))
    Z = RandomFeatures("rbf", coupling="independent", n_components=4, random_state=0).fit_transform(X)
    assert Z.shape == (20, 4)


def test_blocks(X):
    """The variance of all blocks together, features drawn once."""
    whole = RandomFeatures(random_state=0).fit(X)
    blocks = RandomFeatures(random_state=0)
    for part in np.array_split(X, 3):
        blocks.partial_fit(part)
    assert np.isclose(blocks.gamma_, whole.gamma_, rtol=1e-14)
    np.testing.assert_allclose(blocks.transform(X), whole.transform(X), atol=1e-13)
    apart = RandomFeatures(random_state=0).partial_fit(X[:5])
    assert abs(apart.gamma_ / whole.gamma_ - 1) > 0.01
    with pytest.raises(AttributeError, match="partial_fit") as raised:
        RandomFeatures(gamma="median").partial_fit(X)
    assert "needs all rows at once" in str(raised.value.__cause__)


def test_nothing_varies():
    constant = np.ones((5, 3))
    assert RandomFeatures().fit(constant).gamma_ == 1.0
    assert RandomFeatures(gamma="median").fit(constant).gamma_ == 1.0
    assert RandomFeatures(gamma="median").fit(constant[:1]).gamma_ == 1.0


def test_it_is_a_citizen(X):
    """Pipelines, searches, unions, columns, pickles, names, frames of names, pictures."""
    y = np.sin(X[:, 0])
    search = GridSearchCV(
        make_pipeline(RandomFeatures(random_state=0), Ridge(1e-3)),
        {"randomfeatures__gamma": [0.1, "scale"], "randomfeatures__kernel": ["rbf", "matern52"]},
        cv=2,
    ).fit(X, y)
    assert search.best_score_ > 0.8
    union = make_union(RandomFeatures("laplacian", n_components=6), RandomFeatures("arccos1", n_components=3))
    assert union.fit_transform(X).shape == (40, 9)
    columns = ColumnTransformer([("a", RandomFeatures(n_components=4), [0, 2]), ("b", "passthrough", [1])])
    assert columns.fit_transform(X).shape == (40, 5)
    fitted = RandomFeatures(rf.MaternKernel(1.5), coupling=rf.Orthogonal(), n_components=4, random_state=0).fit(X)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(X), fitted.transform(X))
    assert clone(fitted).get_params() == fitted.get_params()
    assert list(fitted.get_feature_names_out()) == [f"randomfeatures{i}" for i in range(4)]
    assert "RandomFeatures" in fitted._repr_html_()
    assert fitted.feature_map_.num_features == 4


MISTAKES = [
    ({"estimator": "trigonometric", "n_components": 101}, ValueError, "cannot have 101 features; nearest: 100, 102"),
    ({"kernel": "gausian"}, ValueError, "unknown kernel 'gausian'; expected a Kernel, or one of rbf, "),
    ({"kernel": 3}, TypeError, "kernel must be a name or a Kernel, got 3"),
    ({"estimator": "rft"}, ValueError, "unknown estimator 'rft'; expected an Estimator, or one of auto, activation, "),
    ({"estimator": rf.Orthogonal()}, TypeError, "estimator must be a name or an Estimator"),
    ({"coupling": "sobel"}, ValueError, "unknown coupling 'sobel'"),
    ({"kernel": "polynomial", "coupling": "simplex"}, ValueError, "'tensor_sketch' have no coupling to choose"),
    ({"gamma": "auto"}, ValueError, "gamma must be a positive number, \"scale\" or \"median\", got 'auto'"),
    ({"gamma": 0}, ValueError, "gamma must be"),
    ({"kernel": "arccos1", "gamma": 2.0}, ValueError, "'arccos1' has no scale: leave out gamma, got 2.0"),
    ({"kernel": "polynomial", "gamma": "median"}, ValueError, "is of distances"),
    ({"kernel": rf.GaussianKernel(), "gamma": 2.0}, ValueError, "own gamma: leave out gamma, and set kernel__length"),
    ({"estimator": rf.PositiveFeatures(), "kernel": "softmax"}, ValueError, "carries its own kernel"),
    ({"estimator": rf.PositiveFeatures(), "coupling": "simplex"}, ValueError, "carries its own coupling"),
    ({"kernel": "matern32", "estimator": "positive"}, ValueError, "estimate a SoftmaxFamily .rbf, softmax."),
    ({"kernel": "chi2"}, ValueError, r"scikit-learn's chi2 is exp.* no unbiased features .*\"additive_chi2\" is "),
    ({"kernel": "Chi2Kernel"}, ValueError, "unknown kernel 'Chi2Kernel'; .*optical, additive_chi2, skewed_chi2"),
    ({"kernel": "linear"}, ValueError, "kernel='linear' has no features here: .* are the inputs themselves"),
    ({"kernel": "Cosine"}, ValueError, "kernel='cosine' has no features here: .*normalize"),
    ({"kernel": "sigmoid"}, ValueError, "not positive definite"),
    ({"kernel": "precomputed"}, ValueError, "features are computed from inputs"),
    ({"kernel": "additive_chi2", "n_components": 8}, ValueError, "Negative values .* AdditiveChi2Kernel, which"),
    ({"kernel": "skewed_chi2", "gamma": 0.5}, ValueError, "'skewed_chi2' has no scale: leave out gamma, got 0.5"),
    ({"n_components": 0}, ValueError, "n_components must be a positive integer, got 0"),
    ({"estimator": rf.ComplexExponentialFeatures()}, ValueError, "different features for queries and keys"),
]  # fmt: skip


ALIASES = {
    "rbf": "gaussian Gaussian GaussianKernel RBF squared_exponential gauss", "polynomial": "poly PolynomialKernel",
    "exponential": "matern12 ExponentialKernel", "laplacian": "laplace", "rational_quadratic": "rq RationalQuadratic",
    "matern52": "Matern52 matern-52", "matern32": "matern_32", "softmax": "SoftmaxKernel", "arccos1": "ArcCos1",
    "cauchy": "Cauchy CauchyKernel", "additive_chi2": "AdditiveChi2Kernel additive_chi_squared additive-chi2",
    "skewed_chi2": "SkewedChi2 skewed_chi_squared",
}  # fmt: skip


@pytest.mark.parametrize(("name", "alias"), [(name, alias) for name in ALIASES for alias in ALIASES[name].split()])
def test_kernels_by_other_names(X, name, alias):
    """Names of classes and of other libraries, in any case; parameters stay as they were given."""
    X = np.abs(X)
    found, expected = (RandomFeatures(each, n_components=8, random_state=0).fit(X) for each in (alias, name))
    assert found.estimator_ == expected.estimator_
    np.testing.assert_array_equal(found.transform(X), expected.transform(X))
    assert clone(found).get_params()["kernel"] == alias
    ridge = RandomFeatureRidge(alias, n_components=8, random_state=0).fit(X, X[:, 0])
    assert ridge.features_.estimator_ == expected.estimator_


@pytest.mark.parametrize(
    ("alias", "name"),
    [("RFF", "trigonometric"), ("TrigonometricFeatures", "trigonometric"), ("FAVOR+", "positive"), ("auto", "auto")],
)
def test_estimators_by_other_names(X, alias, name):
    found, expected = (RandomFeatures(estimator=each, n_components=6, random_state=0).fit(X) for each in (alias, name))
    assert found.estimator_ == expected.estimator_
    assert found.__sklearn_tags__().input_tags.sparse is expected.__sklearn_tags__().input_tags.sparse is True


@pytest.mark.parametrize(("parameters", "error", "message"), MISTAKES)
def test_mistakes(X, parameters, error, message):
    with pytest.raises(error, match=message):
        RandomFeatures(**parameters).fit(X)


@pytest.mark.parametrize("name", sorted(estimator_classes()))
def test_sparse_rows_of_every_estimator(X, name):
    """The features of the dense rows, or refused where units, origin or a factor are more than lengths."""
    estimator = estimator_classes()[name].example()
    phi = estimator.draw(4, example_width(estimator), rng=0)
    if name in WAVES_AND_EXPONENTIALS:
        np.testing.assert_allclose(sparse_features(phi, sparse.csr_array(X)), phi(X), rtol=1e-12, atol=1e-13)
        return
    with pytest.raises(ValueError, match=r"need dense inputs, got a sparse matrix"):
        sparse_features(phi, sparse.csr_array(X))
    with pytest.raises(ValueError, match=r"sparse X needs features that are waves|queries and keys"):
        RandomFeatures(estimator=estimator, n_components=phi.num_features).fit(sparse.csr_array(X))


def test_sparse_rows_of_other_units(X):
    phi = rf.PositiveFeatures(rf.NormalizedSoftmaxKernel()).draw(4, 8, rng=0)
    transformer = RandomFeatures(rf.NormalizedSoftmaxKernel())
    for call in (lambda: sparse_features(phi, sparse.csr_array(X)), lambda: transformer.fit(sparse.csr_array(X))):
        with pytest.raises(ValueError, match="PositiveFeatures of NormalizedSoftmaxKernel need dense inputs"):
            call()


@pytest.mark.parametrize("estimator", ["trigonometric", "positive", "hyperbolic"])
@pytest.mark.parametrize("gamma", [0.5, "scale"])
def test_columns_of_false_and_true_are_numbers(estimator, gamma):
    X = np.random.default_rng(0).random((30, 3)) < 0.5
    options = {"estimator": estimator, "n_components": 8, "random_state": 0, "gamma": gamma}
    of_numbers, of_bools = (RandomFeatures(**options).fit(x) for x in (X.astype(float), X))
    np.testing.assert_array_equal(of_bools.transform(X), of_numbers.transform(X.astype(float)))
    ridge = RandomFeatureRidge(**options).fit(X, X[:, 0] + X[:, 1] * 2.0)
    expected = RandomFeatureRidge(**options).fit(X.astype(float), X[:, 0] + X[:, 1] * 2.0)
    np.testing.assert_array_equal(ridge.predict(X), expected.predict(X.astype(float)))


def test_big_endian_rows_are_numbers():
    X = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    swapped = X.astype(">f4")
    expected = RandomFeatures(n_components=8, random_state=0).fit(X)
    found = RandomFeatures(n_components=8, random_state=0).fit(swapped)
    np.testing.assert_array_equal(found.transform(swapped), expected.transform(X))
    assert found.transform(swapped).dtype == np.float32
