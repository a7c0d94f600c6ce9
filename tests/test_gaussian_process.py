"""Functions drawn from Gaussian processes: the moments of scikit-learn's exact ones."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import randfeat as rf
from tests.arrays import asarray, eps_of, to_numpy

gaussian_process = pytest.importorskip("sklearn.gaussian_process", reason="pip install '.[test]'")
exact = gaussian_process.kernels

DRAWS, ROWS, NOISE = 6000, 128, 0.1
FALSE_ALARM = 1e-6
POINTS, VALUES = np.array([[-1.0, 0.0], [0.2, 0.5], [1.0, -0.3]]), np.array([1.0, -0.5, 2.0])
PLACES = np.array([[-1.0, 0.0], [0.0, 0.0], [0.7, 0.7], [3.0, -2.0]])
KERNELS = {
    "gaussian": (rf.TrigonometricFeatures(rf.GaussianKernel(0.8), "independent"), exact.RBF(0.8)),
    "matern": (rf.SpectralFeatures(rf.MaternKernel(1.5, 0.8), "orthogonal"), exact.Matern(0.8, nu=1.5)),
    "scaled": (2.5 * rf.SpectralFeatures(rf.MaternKernel(2.5, 1.2)), 2.5 * exact.Matern(1.2, nu=2.5)),
}


def functions(name):
    """One function on each of many maps."""
    phi = KERNELS[name][0].draw(2, 2 * ROWS, rng=0, batch_shape=(DRAWS,))
    return rf.prior_functions(phi, rng=1)


def check_moments(values, kernel, given):
    """Means and covariances of independent functions (draws, places) are the exact ones.

    Means have variance Σ_aa/S. A function is Gaussian given its features, with a covariance C of mean Σ, so products
    have variance `Σ_aa Σ_bb + Σ_ab² + Cov(C_aa, C_bb) + 2 Var(C_ab)`; C is a linear map of the estimated kernel, of
    variance amplitude²/rows at most, by the coefficients of the values at all points: at most their sums of sizes.
    """
    regressor = gaussian_process.GaussianProcessRegressor(kernel, alpha=NOISE, optimizer=None)
    size = np.ones(len(PLACES))
    if given:
        regressor.fit(POINTS, VALUES)
        coefficients = np.linalg.solve(kernel(POINTS) + NOISE * np.eye(len(POINTS)), kernel(POINTS, PLACES))
        size = 1 + np.sum(np.abs(coefficients), axis=0)
    mean, covariance = regressor.predict(PLACES, return_cov=True)
    limit = stats.norm.isf(FALSE_ALARM / (2 * (len(PLACES) + len(PLACES) ** 2)))
    variances = np.diagonal(covariance)
    scores = (np.mean(values, axis=0) - mean) / np.sqrt(variances / len(values))
    assert np.all(np.abs(scores) < limit), f"mean: {scores}"
    excess = 3 * np.outer(size, size) ** 2 * float(kernel(POINTS[:1])[0, 0]) ** 2 / ROWS
    spread = np.sqrt((np.outer(variances, variances) + covariance**2 + excess) / len(values))
    centered = values - mean
    scores = (centered.T @ centered / len(values) - covariance) / spread
    assert np.all(np.abs(scores) < limit), f"covariance: {scores}"


@pytest.mark.parametrize("name", KERNELS)
def test_moments_of_prior_and_posterior(name):
    prior = functions(name)
    posterior = prior.given(POINTS, VALUES, noise_variance=NOISE, rng=2)
    check_moments(prior(PLACES)[..., 0], KERNELS[name][1], given=False)
    check_moments(posterior(PLACES)[..., 0], KERNELS[name][1], given=True)


@pytest.mark.parametrize("mistake", ["no noise in the update", "other noise", "weights too long"])
def test_mistakes_are_seen(mistake):
    prior = functions("gaussian")
    kernel, noise = KERNELS["gaussian"][1], NOISE
    if mistake == "weights too long":
        prior = replace(prior, weights=1.3 * prior.weights)
    posterior = prior.given(POINTS, VALUES, noise_variance=4 * noise if mistake == "other noise" else noise, rng=2)
    if mistake == "no noise in the update":
        gram = kernel(POINTS) + noise * np.eye(len(POINTS))
        update = np.linalg.solve(gram, (VALUES - prior(POINTS)[..., 0]).T).T
        posterior = replace(posterior, update=update[..., None])
    with pytest.raises(AssertionError, match=r"mean|covariance"):
        check_moments(posterior(PLACES)[..., 0], kernel, given=True)


def test_the_mean_is_exact_for_any_features():
    """Matheron's rule is linear: functions without any weight and noise become the exact posterior mean."""
    estimator, kernel = KERNELS["matern"]
    prior = rf.prior_functions(estimator.draw(2, 4, rng=0), rng=1)
    silent = replace(prior, weights=0 * prior.weights)
    regressor = gaussian_process.GaussianProcessRegressor(kernel, alpha=NOISE, optimizer=None).fit(POINTS, VALUES)
    posterior = silent.given(POINTS, VALUES, noise_variance=NOISE, rng=2)
    noise = np.sqrt(NOISE) * np.random.default_rng(2).standard_normal(3)
    undone = np.linalg.solve(kernel(POINTS) + NOISE * np.eye(3), noise)
    expected = regressor.predict(PLACES) - kernel(PLACES, POINTS) @ undone
    np.testing.assert_allclose(posterior(PLACES)[:, 0], expected, atol=1e-12)


def test_every_library(xp):
    estimator = KERNELS["matern"][0]
    phi = estimator.draw(2, 8, rng=0, batch_shape=(2,))
    here = rf.prior_functions(phi, 3, rng=1)
    there = rf.prior_functions(phi.to(xp.asarray(POINTS)), 3, rng=1)
    results = [
        f.given(*data, noise_variance=NOISE, rng=2)(data[0])
        for f, data in ((here, (POINTS, VALUES)), (there, (xp.asarray(POINTS), xp.asarray(VALUES))))
    ]
    assert tuple(results[1].shape) == (2, 3, 3)
    np.testing.assert_allclose(to_numpy(results[1]), results[0], atol=1e-12)
    moved = here.given(POINTS, VALUES, noise_variance=NOISE, rng=2).to(xp.asarray(POINTS))
    np.testing.assert_allclose(to_numpy(moved(xp.asarray(POINTS))), results[0], atol=1e-12)


def test_single_precision():
    prior = rf.prior_functions(KERNELS["matern"][0].draw(2, 8, rng=0), 2, rng=1)
    x, y = POINTS.astype(np.float32), VALUES.astype(np.float32)
    posterior = prior.given(x, y, noise_variance=NOISE, rng=2)
    assert posterior(x).dtype == np.float32
    np.testing.assert_allclose(
        posterior(x), prior.given(POINTS, VALUES, noise_variance=NOISE, rng=2)(POINTS), atol=1e-4
    )


def crowded(offset):
    """60 points in a row, as near as a fiftieth of a length scale, and smooth values, both float32 numbers."""
    rng = np.random.default_rng(3)
    x = (np.sort(rng.uniform(-1, 1, (60, 1)), axis=0) + offset).astype(np.float32)
    return x, np.sin(4 * (x - np.float32(offset)))[:, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("noise", [1e-2, 1e-6, 1e-10])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_single_precision_is_double_precision_rounded_once(xp, dtype, noise, offset):
    """Little noise makes the update as large as y/σ; data with an offset make phases of a million."""
    x, y = crowded(offset)
    estimator = rf.TrigonometricFeatures(rf.GaussianKernel(0.8))
    phi = estimator.draw(1, 100, rng=0).to(asarray(xp, x, "float32"))  # rows that float32 has
    prior = rf.prior_functions(phi, 2, rng=1)
    found = prior.given(asarray(xp, x, dtype), asarray(xp, y, dtype), noise_variance=noise, rng=2)
    there = asarray(xp, x[:-1] + np.diff(x, axis=0) / 2, dtype)
    double = rf.prior_functions(phi.to(np.empty(0)), 2, rng=1)
    double = replace(double, weights=to_numpy(prior.weights))
    expected = double.given(x.astype(float), y.astype(float), noise_variance=noise, rng=2)(to_numpy(there))
    assert found(there).dtype == there.dtype
    rounding = (
        1e-16 * 60 * np.max(np.abs(to_numpy(found.update))) * 60
    )  # of sums of 60 terms, in the solve and after it
    np.testing.assert_allclose(to_numpy(found(there)), expected, rtol=eps_of(dtype), atol=rounding)
    at_points = to_numpy(found(asarray(xp, x, dtype)))
    assert np.max(np.abs(at_points - y[:, None])) < 8 * np.sqrt(noise) + 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_points_without_noise_are_refused(xp, dtype):
    """One error in all libraries, whether or not the elimination meets an exact zero; with noise they are data."""
    x = np.array([[0.3, 0.1], [1.0, 0.7], [0.3, 0.1], [-0.4, 0.2]])
    y = np.array([0.1, 0.5, 0.2, -1.0])
    phi = KERNELS["matern"][0].draw(2, 8, rng=0).to(asarray(xp, x, dtype))
    prior = rf.prior_functions(phi, 2, rng=1)
    x, y = asarray(xp, x, dtype), asarray(xp, y, dtype)
    with pytest.raises(
        ValueError, match=r"4 points plus the noise variance 0 is singular.*Give a larger noise_variance"
    ):
        prior.given(x, y, noise_variance=0.0)
    assert np.all(np.isfinite(to_numpy(prior.given(x, y, noise_variance=0.01)(x))))
    prior.given(x[:2, :], y[:2], noise_variance=0.0)


def test_points_too_near_for_float64_are_refused():
    """Elimination meets no exact zero, but no digit of the solution is right; a little noise makes it right."""
    x = np.linspace(0, 1, 30)[:, None]
    prior = rf.prior_functions(rf.TrigonometricFeatures(rf.GaussianKernel(2.0)).draw(1, 8, rng=0), rng=1)
    with pytest.raises(ValueError, match="singular up to rounding"):
        prior.given(x, np.sign(x[:, 0] - 0.5), noise_variance=0.0)
    assert np.all(np.isfinite(prior.given(x, np.sign(x[:, 0] - 0.5), noise_variance=1e-6)(x)))


def test_errors():
    phi = KERNELS["matern"][0].draw(2, 8, rng=0)
    prior = rf.prior_functions(phi, rng=1)
    with pytest.raises(ValueError, match=r"y must have shape \(3,\).*got \(2,\)"):
        prior.given(POINTS, VALUES[:2], noise_variance=1.0)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 2\), got \(3, 1\)"):
        prior.given(POINTS[:, :1], VALUES, noise_variance=1.0)
    with pytest.raises(ValueError, match="noise_variance must be a finite number, 0 or more, got -1"):
        prior.given(POINTS, VALUES, noise_variance=-1.0)
    with pytest.raises(ValueError, match="have seen data"):
        prior.given(POINTS, VALUES, noise_variance=1.0).given(POINTS, VALUES, noise_variance=1.0)
    with pytest.raises(TypeError, match="different query and key features"):
        rf.prior_functions(rf.ComplexExponentialFeatures().draw(2, 8, rng=0))
    for use in (lambda thing: rf.prior_functions(thing, 3), rf.FeatureMoments.empty):
        with pytest.raises(TypeError, match=r"must be a FeatureMap, from estimator\.draw.*got PositiveFeatures"):
            use(rf.PositiveFeatures())
        with pytest.raises(TypeError, match=r"write PositiveFeatures\(\)\.draw\(dim, num_features\)"):
            use(rf.PositiveFeatures)
