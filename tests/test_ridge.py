"""Ridge regression from moments: the numbers of the definitions, which see all rows."""

import numpy as np
import pytest
from scipy.linalg import LinAlgWarning

import randfeat as rf
from randfeat.regression.ridge import RidgeProblem
from randfeat.regression.ridge_path import RidgeSpectrum, RidgeTridiagonal
from tests.arrays import to_numpy

ALPHAS = (1e-3, 0.5, 30.0)
SHAPES = {"long": (60, 10), "wide": (12, 30), "square": (11, 10)}


def problem_of(z, y, **options):
    phi = rf.SignFeatures().draw(1, z.shape[1], rng=0)
    moments = rf.FeatureMoments.empty(phi, y.shape[1])
    return RidgeProblem.of(moments.append_features(z[:5], y[:5]).append_features(z[5:], y[5:]), **options)


def data(rng, shape):
    length, width = SHAPES[shape]
    z = rng.standard_normal((length, width)) + 0.5
    return z, z[:, :2] + 0.3 * rng.standard_normal((length, 2)) + 2.0


def hat_matrix(z, alpha, intercept):
    """`A (AᵀA + αD)^{-1} Aᵀ`, A with a column of ones that D does not penalize."""
    design = np.column_stack([z, np.ones(len(z))]) if intercept else z
    penalty = alpha * np.eye(design.shape[1])
    penalty[z.shape[1] :] = 0
    return design @ np.linalg.solve(design.T @ design + penalty, design.T)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_solution(rng, shape, intercept, alpha):
    """All ways of solving minimize the penalized squares: stacked least squares."""
    z, y = data(rng, shape)
    problem = problem_of(z, y, intercept=intercept)
    mean_z, mean_y = (z.mean(0), y.mean(0)) if intercept else (np.zeros(z.shape[1]), np.zeros(2))
    stacked = np.vstack([z - mean_z, np.sqrt(alpha) * np.eye(z.shape[1])])
    expected = np.linalg.lstsq(stacked, np.vstack([y - mean_y, np.zeros((z.shape[1], 2))]), rcond=None)[0]
    for weights in (problem.weights(alpha), problem.spectrum.weights(alpha), problem.tridiagonal.weights(alpha)):
        np.testing.assert_allclose(weights, expected, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(problem.intercept(weights), mean_y - mean_z @ expected, atol=1e-8)
    root = problem.inverse_root(alpha)
    np.testing.assert_allclose(root @ root.T, np.linalg.inv(stacked.T @ stacked), rtol=1e-7, atol=1e-9 / alpha)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_validation_by_its_definition(rng, shape, intercept):
    """Residuals, degrees of freedom, GCV and noise, from the hat matrix of all rows."""
    z, y = data(rng, shape)
    problem = problem_of(z, y, intercept=intercept)
    spectrum = problem.spectrum
    scores = spectrum.gcv(np.array(ALPHAS))
    assert scores.shape == (3,)
    for alpha, score in zip(ALPHAS, scores, strict=True):
        hat = hat_matrix(z, alpha, intercept)
        squares, left = np.sum((y - hat @ y) ** 2, axis=0), len(z) - np.trace(hat)
        np.testing.assert_allclose(spectrum.residual_squares(alpha), squares, rtol=1e-7)
        np.testing.assert_allclose(spectrum.residual_degrees(alpha), left, rtol=1e-7)
        np.testing.assert_allclose(score, len(z) * np.sum(squares) / left**2, rtol=1e-7)
        noise = problem.noise_variance(alpha, problem.weights(alpha), problem.inverse_root(alpha))
        np.testing.assert_allclose(noise, squares / left, rtol=1e-5)
        if problem.path() is not spectrum:
            np.testing.assert_allclose(problem.path().residual_squares(alpha), squares, rtol=1e-7)
            np.testing.assert_allclose(problem.path().residual_degrees(alpha), left, rtol=1e-7)
    assert isinstance(problem.path(), RidgeTridiagonal if z.shape[1] < problem.degrees else RidgeSpectrum)
    assert spectrum.best(ALPHAS) == problem.path(ALPHAS).best(ALPHAS) == ALPHAS[np.argmin(scores)]


def gcv_of_all_rows(z, y, alphas, intercept):
    """Generalized cross-validation from the singular values of all rows, at many penalties."""
    center_z, center_y = z - z.mean(0) * intercept, y - y.mean(0) * intercept
    left, singular, _ = np.linalg.svd(center_z, full_matrices=False)
    shrunk = singular**2 / (singular**2 + alphas[:, None])
    fitted = np.einsum("ji,ai,ik->ajk", left, shrunk, left.T @ center_y)
    degrees = len(z) - intercept - shrunk.sum(1)
    return len(z) * np.sum((center_y - fitted) ** 2, axis=(1, 2)) / degrees**2


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("noise", [1e-2, 1.0, 30.0])
def test_the_best_penalty_is_that_of_a_dense_search(rng, noise, intercept):
    """At 3000 penalties, a 250th of a decade apart: within a 60th, half a step of the fine grid, and one of the search.

    Eight problems, so that the least is on both sides of the best penalty of the coarse grid.
    """
    alphas, sides = np.geomspace(1e-7, 1e5, 3000), set()
    for _ in range(8):
        z = rng.standard_normal((80, 12)) * np.geomspace(1, 1e-2, 12)
        y = z @ rng.standard_normal((12, 2)) * 3 + noise * rng.standard_normal((80, 2))
        problem = problem_of(z, y, intercept=intercept)
        scores = gcv_of_all_rows(z, y, alphas, intercept)
        least = np.argmin(scores)
        assert isinstance(problem.path(), RidgeTridiagonal)
        for path in (problem.tridiagonal, problem.spectrum):
            best, coarse = path.best(), path.penalties()
            np.testing.assert_allclose(path.gcv(best), scores[least], rtol=1e-3)
            assert path.best(alphas) == pytest.approx(alphas[least])
            if least not in (0, 2999):
                assert abs(np.log10(best / alphas[least])) < 1 / 60 + 12 / 3000
                sides.add(np.sign(alphas[least] - coarse[np.argmin(path.gcv(coarse))]))
    assert sides >= {-1.0, 1.0}


def test_the_heaviest_of_equally_good_penalties_is_taken(rng):
    """A constant target is fitted by the intercept, so every penalty has the score 0."""
    problem = problem_of(rng.standard_normal((40, 5)), np.full((40, 1), 3.0))
    for path in (problem.tridiagonal, problem.spectrum):
        assert not np.any(path.gcv(np.array([1e-3, 1.0, 1e3])))
        assert path.best([1.0, 1e3, 1e-3]) == 1e3
        assert path.best() == path.penalties()[0]


def test_features_that_are_there_twice_in_the_tridiagonal_form(rng):
    """Singular Gram matrices have the same path, and penalties below rounding are left to the spectrum."""
    half = rng.standard_normal((40, 4))
    problem = problem_of(np.hstack([half, half]), half[:, :1] + rng.standard_normal((40, 1)))
    assert len(problem.spectrum.values) == 4
    assert len(problem.tridiagonal.values) == 8
    alphas = np.geomspace(1e-6, 1e3, 19)
    np.testing.assert_allclose(problem.tridiagonal.gcv(alphas), problem.spectrum.gcv(alphas), rtol=1e-7)
    np.testing.assert_allclose(problem.tridiagonal.weights(1e-6), problem.spectrum.weights(1e-6), atol=1e-8)
    assert problem.path().best() == pytest.approx(problem.spectrum.best())
    assert problem.path([1.0, problem.rounding / 2]) is problem.spectrum
    assert np.isnan(problem.tridiagonal.gcv(-1.0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_errors_of_the_sums_are_no_eigenvalues(rng, dtype):
    """Features that are there twice: sums in float32 leave eigenvalues of its rounding, not of that of float64."""
    half = rng.standard_normal((4000, 4)).astype(dtype)
    phi = rf.SignFeatures().draw(1, 8, rng=0, like=half)
    z = np.hstack([half, half * np.array([1, 1 + 1e-3, 3, 0.3], dtype)]) + np.asarray(2, dtype)
    moments = rf.FeatureMoments.empty(phi, 1).append_features(z[:1000], half[:1000, :1])
    problem = RidgeProblem.of(moments.append_features(z[1000:], half[1000:, :1]))
    assert moments.gram.dtype == dtype
    assert len(problem.spectrum.values) == 4
    assert np.max(np.abs(problem.spectrum.weights(0.0))) < 2


def test_one_feature(rng):
    z = rng.standard_normal((30, 1))
    assert problem_of(z, z).path().best() < 1e-6


def test_with_equal_leverages_it_is_the_error_of_leaving_one_out(rng):
    """Cosines and sines at equally spaced points: GCV is the mean squared error at the row that was left out."""
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)[:, None] * np.arange(1, 4)
    z, y = np.hstack([np.cos(angles), np.sin(angles)]), rng.standard_normal((12, 1))
    errors = []
    for j in range(12):
        rest = np.delete(np.arange(12), j)
        left = problem_of(z[rest], y[rest])
        weights = left.weights(0.7)
        errors.append((y[j] - z[j] @ weights - left.intercept(weights)) ** 2)
    np.testing.assert_allclose(problem_of(z, y).spectrum.gcv(0.7), np.mean(errors), rtol=1e-10)


def test_a_forgotten_degree_of_freedom_is_seen(rng, monkeypatch):
    forgetful = RidgeProblem.of

    def of(moments, *, intercept=True):
        from dataclasses import replace

        return replace(forgetful(moments, intercept=intercept), degrees=moments.count)

    monkeypatch.setattr(RidgeProblem, "of", of)
    with pytest.raises(AssertionError):
        test_cross_validation_by_its_definition(rng, "long", True)


@pytest.mark.parametrize("alpha", [0.0, 1e-18])
def test_singular_matrices_are_said_to_be(rng, alpha):
    """Features that are there twice, hardly a penalty: the least-norm solution, with a warning."""
    half = rng.standard_normal((40, 4))
    z, y = np.hstack([half, half]), half[:, :1]
    problem = problem_of(z, y, intercept=False)
    with pytest.warns(LinAlgWarning, match="singular up to rounding") as caught:
        weights = problem.weights(alpha)
    assert [one.filename for one in caught] == [__file__]
    np.testing.assert_allclose(weights, np.linalg.pinv(z) @ y, atol=1e-9)
    with pytest.warns(LinAlgWarning):
        root = problem.inverse_root(alpha)
    if alpha == 0:
        np.testing.assert_allclose(root @ root.T, np.linalg.pinv(z.T @ z), atol=1e-9)
    assert len(problem.spectrum.values) == 4


def test_a_factorization_that_loses_all_digits_is_not_taken(rng):
    """Cholesky's succeeds where one feature is 10^-9 of another: its condition number is above 1/eps."""
    left = np.linalg.qr(rng.standard_normal((40, 2)))[0]
    problem = problem_of(left * np.array([1.0, 1e-9]), left[:, :1], intercept=False)
    with pytest.warns(LinAlgWarning, match="singular up to rounding"):
        weights = problem.weights(0.0)
    np.testing.assert_allclose(weights, [[1.0], [0.0]], atol=1e-9)


def test_nothing_to_learn_from():
    one = problem_of(np.ones((6, 3)), np.full((6, 1), 2.0))  # no feature varies, no target does
    assert one.spectrum.best() == one.path().best() == 1.0
    assert not np.any(one.path().weights(1.0))
    assert not np.any(one.weights(1.0))
    np.testing.assert_allclose(one.intercept(one.weights(1.0)), 2.0)


def test_the_best_penalty_tells_noise_from_signal(rng):
    """With targets of pure noise nearly all weight is taken; without noise nearly none is."""
    z = rng.standard_normal((300, 20))
    signal = z @ rng.standard_normal((20, 1))
    shrunk = problem_of(z, rng.standard_normal((300, 1)))
    exact = problem_of(z, signal)
    for heavy, light in ((shrunk.path(), exact.path()), (shrunk.spectrum, exact.spectrum)):
        assert heavy.best() > 0.5 * 300
        assert light.best() < 1e-6 * 300


def test_errors():
    phi = rf.SignFeatures().draw(1, 3, rng=0)
    with pytest.raises(ValueError, match="at least one row"):
        RidgeProblem.of(rf.FeatureMoments.empty(phi, 1))
    with pytest.raises(ValueError, match=r"batch_shape \(2,\)"):
        RidgeProblem.of(rf.FeatureMoments.empty(rf.SignFeatures().draw(1, 3, rng=0, batch_shape=(2,)), 1))
    with pytest.raises(ValueError, match="alpha must be a finite number, 0 or more, got -1"):
        problem_of(np.eye(6), np.ones((6, 1))).weights(-1)


def test_features_from_elsewhere(xp, rng):
    x, y = (xp.asarray(rng.standard_normal((9, k))) for k in (2, 1))
    phi = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(2, 6, rng=0, like=x)
    there, here = rf.FeatureMoments.empty(phi, 1).append_features(phi(x), y), rf.FeatureMoments.of(phi, x, y)
    for name in ("gram", "cross", "feature_sum", "target_sum", "target_gram"):
        np.testing.assert_allclose(to_numpy(getattr(there, name)), to_numpy(getattr(here, name)), atol=1e-13)
    assert there.count == 9
    with pytest.raises(ValueError, match=r"features must have shape \(n, 6\), got \(9, 5\)"):
        here.append_features(phi(x)[:, :5], y)
