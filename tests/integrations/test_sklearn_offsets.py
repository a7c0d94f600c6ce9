"""Laws of the transformer and of ridge regression: x -> x + c and y -> a y + c, by fit, blocks, targets and dtypes."""

import numpy as np
import pytest

import randfeat as rf

pytest.importorskip("sklearn", reason="pip install '.[sklearn]'")
from scipy import sparse

from randfeat.integrations.sklearn import RandomFeatureRidge, RandomFeatureRidgeClassifier, RandomFeatures
from randfeat.integrations.sklearn.laws import KERNELS
from randfeat.regression.ridge import RidgeProblem

SHIFT_INVARIANT = [name for name, named in KERNELS.items() if named.make(1.0, 2, 0.0).shift_invariant]
OFFSETS = {"far": [1e6, -1e6, 1e6], "one far column": [0.0, 1e5, 0.0], "very far": [-3e7, 1e8, 2e7]}


def rows(n=240):
    """Sixteenths: numbers that float32 has, also at the offsets of 10^5 and 10^6; at 10^8 they are eighths of 64."""
    return np.random.default_rng(0).integers(-32, 33, (n, 3)) / 16


def far_rows(offset, dtype):
    """Rows at an offset as this dtype has them, and the same rows near 0, exactly."""
    there = (rows() * (1024.0 if offset == "very far" else 1.0) + OFFSETS[offset]).astype(dtype)
    return there, there.astype(float) - OFFSETS[offset]


@pytest.mark.parametrize("kernel", SHIFT_INVARIANT)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", OFFSETS)
def test_features_lose_nothing_to_an_offset(kernel, dtype, offset):
    """Products of features, and so all that is fitted to them, are those of the same rows near 0."""
    X, near = far_rows(offset, dtype)
    gamma = 0.3 / (np.std(near[:, 0]) if kernel == "laplacian" else np.var(near[:, 0]))
    found = RandomFeatures(kernel, gamma=gamma, n_components=40, random_state=0).fit(X)
    expected = RandomFeatures(kernel, gamma=gamma, n_components=40, random_state=0).fit_transform(near)
    Z = found.transform(X)
    assert Z.dtype == dtype
    tolerance = 2e-5 if kernel in ("laplacian", "exponential") else 1e-5  # of angles of 100, Cauchy rows are long
    np.testing.assert_allclose(Z @ Z.T, expected @ expected.T, atol=tolerance if dtype == "float32" else 1e-12)
    origin = found.feature_map_.arrays["origin"][0]
    np.testing.assert_array_equal(origin, np.where(np.array(OFFSETS[offset]) != 0, X[0], 0).astype(np.float32))


def test_near_data_have_the_features_of_the_draw():
    """No row is subtracted where nothing would be gained, whatever the length scale, and from few rows."""
    X = rows() + 3.0
    for shifted in (X, X[:1], X * 1e6, X * 1e-6, np.ones((5, 3))):
        for gamma in ("scale", 0.7):
            if gamma == 0.7 and abs(shifted).max() > 1e3:
                continue
            found = RandomFeatures(gamma=gamma, n_components=10, random_state=3).fit(shifted)
            assert "origin" not in found.feature_map_.arrays
            np.testing.assert_array_equal(found.transform(X), found.estimator_.draw(3, 10, rng=3)(X))


@pytest.mark.parametrize("gamma", ["scale", "median"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gamma_does_not_depend_on_an_offset(gamma, dtype):
    X = rows()
    expected = RandomFeatures(gamma=gamma, random_state=0).fit(X).gamma_
    assert RandomFeatures(gamma=gamma, random_state=0).fit((X + 1e6).astype(dtype)).gamma_ == pytest.approx(expected)


def test_blocks_have_the_row_of_the_first():
    """However the rows are cut, and whatever comes later: near 0, or farther."""
    X = (rows() + 1e6).astype(np.float32)
    whole = RandomFeatures(gamma=0.5, n_components=20, random_state=0).fit(X)
    blocks = RandomFeatures(gamma=0.5, n_components=20, random_state=0)
    for part in (X[:7], X[7:8], X[8:] - 1e6, X[8:]):
        blocks.partial_fit(part)
    np.testing.assert_array_equal(blocks.transform(X), whole.transform(X))
    assert blocks.feature_map_.fingerprint == whole.feature_map_.fingerprint


@pytest.mark.parametrize("kernel", ["softmax", "polynomial", "arccos1"])
def test_other_kernels_are_not_shifted(kernel):
    X = rows() / 64 + 100.0
    options = {} if kernel == "arccos1" else {"gamma": 1e-5}
    found = RandomFeatures(kernel, n_components=10, random_state=0, **options).fit(X)
    assert "origin" not in found.feature_map_.arrays


def test_objects_are_shifted_if_they_are_waves():
    waves = rf.TrigonometricFeatures(rf.GaussianKernel())
    several = waves + 2.0 * rf.SpectralFeatures(rf.MaternKernel()) * waves
    ard = rf.ArdFeatures(waves, (1.0, 2.0, None))
    positive = rf.PositiveFeatures(rf.GaussianKernel())
    X = rows() + 1e4
    for estimator, shifted in (
        (waves, True),
        (several, True),
        (ard, True),
        (positive, False),
        (waves + positive, False),
    ):
        found = RandomFeatures(estimator=estimator, n_components=32, random_state=0).fit(X)
        assert ("origin" in found.feature_map_.arrays) is shifted, estimator


@pytest.mark.parametrize("estimator", ["positive", "optimal_positive"])
def test_fitted_and_positive_features_see_the_shifted_rows(estimator):
    X = rows() / 2
    options = {"estimator": estimator, "gamma": 0.2, "n_components": 2000, "random_state": 0}
    found = RandomFeatures(**options).fit(X + 1e4)
    Z, exact = found.transform(X + 1e4), rf.GaussianKernel(1 / np.sqrt(0.4))(X, X)
    assert np.mean((Z @ Z.T - exact) ** 2) < 0.05
    assert "origin" in found.feature_map_.arrays


def test_sparse_rows_of_features_about_a_row():
    X = np.where(rows() > 0, rows(), 0.0)
    X[:, 1] = 200.0
    for kernel, estimator in (("rbf", "auto"), ("rbf", "positive"), ("laplacian", "auto")):
        model = RandomFeatures(kernel, gamma=0.5, estimator=estimator, n_components=20, random_state=0).fit(X)
        assert "origin" in model.feature_map_.arrays
        np.testing.assert_allclose(model.transform(sparse.csr_array(X)), model.transform(X), atol=1e-10)


def model_of(how, X, y, **options):
    """A fitted model: at once, by blocks, or with a second target."""
    model = RandomFeatureRidge(gamma=0.5, n_components=60, random_state=0, **options)
    if how == "blocks":
        for start in range(0, len(X), 70):
            model.partial_fit(X[start : start + 70], y[start : start + 70])
        return model
    return model.fit(X, np.stack([y, y[::-1]], axis=1) if how == "two targets" else y)


def report(how, X, y, scale=1.0, shift=0.0, **options):
    """What a model says, in the units of the target before `scale y + shift`."""
    model = model_of(how, X, y, **options)
    mean, deviation = (z if z.ndim == 1 else z[:, 0] for z in model.predict(X, return_std=True))
    noise = float(np.atleast_1d(model.noise_variance_)[0])
    score = 1 - np.mean((mean - y) ** 2) / np.var(y)
    return score, noise / scale**2, deviation / scale, (mean - shift) / scale, model.alpha_


def target(X):
    return np.sin(X[:, 0] * X[:, 1]) + 0.1 * np.random.default_rng(1).standard_normal(len(X))


@pytest.mark.parametrize("how", ["fit", "blocks", "two targets"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", OFFSETS)
def test_ridge_does_not_depend_on_an_offset_of_the_inputs(how, dtype, offset):
    X, near = far_rows(offset, dtype)
    X, near = (X / np.float32(1024), near / 1024) if offset == "very far" else (X, near)
    y = target(near)
    expected, found = report(how, near, y), report(how, X, y)
    tolerance = 2e-4 if dtype == "float32" else 1e-6
    for ours, theirs in zip(found[:4], expected[:4], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.max(np.abs(theirs)))


@pytest.mark.parametrize("how", ["fit", "blocks", "two targets"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shift", [1e4, 1e6, 1e8, 1.7e9])
def test_ridge_does_not_depend_on_the_mean_of_the_target(how, dtype, shift):
    """To six digits, or to the rounding of y + c; predictions are float64 if the target is."""
    X = rows().astype(dtype)
    y = target(rows())
    expected, found = report(how, X, y), report(how, X, y + shift, 1.0, shift)
    rounding = 1e-6 + 1000 * np.spacing(shift)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rounding, atol=rounding * np.max(np.abs(theirs)))
    model = model_of(how, X, y + shift)
    assert all(z.dtype == np.float64 for z in model.predict(X, return_std=True))
    assert model_of(how, X, (y + shift).astype(np.float32)).predict(X).dtype == dtype
    assert model_of(how, X, np.round(100 * (y + shift)).astype(int)).predict(X).dtype == np.float64


@pytest.mark.parametrize("how", ["fit", "blocks", "two targets"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("scale", [1e-6, 1e6, -3.0])
def test_ridge_follows_multiples_of_the_target(how, scale, intercept):
    X = rows()
    expected = report(how, X, target(X), fit_intercept=intercept)
    found = report(how, X, scale * target(X), scale, fit_intercept=intercept)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.abs(ours) if ours is found[2] else ours, theirs, rtol=1e-7, atol=1e-9)


def problems(shift):
    """The ridge problem of a target plus `shift`, from all rows, and merged from parts in two orders."""
    X = rows()
    y = target(X) + shift
    phi = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(3, 60, rng=0)
    parts = [rf.FeatureMoments.of(phi, X[part], y[part]) for part in (slice(100), slice(100, 101), slice(101, None))]
    first, second, third = parts
    merged = first.merge(second).merge(third), third.merge(first.merge(second))
    return [RidgeProblem.of(moments) for moments in (rf.FeatureMoments.of(phi, X, y), *merged)]


@pytest.mark.parametrize("shift", [0.0, 1e4, 1e6, 1e8, 1.7e9])
def test_merged_problems_do_not_depend_on_the_mean_of_the_target(shift):
    expected = problems(0.0)[0]
    best = expected.path().best()
    noise = expected.noise_variance(best, expected.weights(best), expected.inverse_root(best))
    rounding = 100 * np.spacing(shift)
    for problem in problems(shift):
        weights = problem.weights(best)
        np.testing.assert_allclose(problem.path().best(), best, rtol=1e-9)
        found = problem.noise_variance(best, weights, problem.inverse_root(best))
        np.testing.assert_allclose(found, noise, rtol=1e-6 + rounding)
        np.testing.assert_allclose(
            problem.intercept(weights) - shift, expected.intercept(weights), atol=1e-6 + rounding
        )


def test_the_classifier_does_not_depend_on_an_offset():
    X = rows()
    labels = (X[:, 0] * X[:, 1] > 0) * 1 + (X[:, 2] > 1)
    options = {"gamma": 0.5, "n_components": 60, "random_state": 0}
    expected = RandomFeatureRidgeClassifier(**options).fit(X, labels).decision_function(X)
    far = (X + 1e5).astype(np.float32)
    found = RandomFeatureRidgeClassifier(**options).fit(far, labels).decision_function(far)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_each_target_has_its_own_noise_and_deviation():
    X = rows()
    targets = [target(X), 5 * np.random.default_rng(2).standard_normal(len(X)), X[:, 2] + 1e6]
    options = {"alpha": 0.3, "gamma": 0.5, "n_components": 60, "random_state": 0}
    together = RandomFeatureRidge(**options).fit(X, np.stack(targets, axis=1))
    apart = [RandomFeatureRidge(**options).fit(X, y) for y in targets]
    np.testing.assert_allclose(together.noise_variance_, [model.noise_variance_ for model in apart], rtol=1e-6)
    for which, found in enumerate(together.predict(X, return_std=True)):
        expected = np.stack([model.predict(X, return_std=True)[which] for model in apart], axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
