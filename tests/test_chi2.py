"""Chi-squared kernels and their features: values, the secant law, variances, zeros, borders, other samplers."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

import randfeat as rf
from randfeat.estimators.coordinate_waves import CoordinateWaves
from randfeat.kernels.hyperbolic_secant import half_secant, secant_frequencies
from randfeat.testing import check_estimator
from tests.arrays import asarray, compiled, eps_of, to_numpy

ADDITIVE, SKEWED = rf.AdditiveChi2Kernel(), rf.SkewedChi2Kernel(offset=0.5)
BOTH = [ADDITIVE, SKEWED]


def histograms(shape, dim, rng):
    """Histograms with zeros among their numbers."""
    x = rng.random((*shape, dim)) ** 3
    x[..., 0] *= rng.random(shape) < 0.5
    return x


def by_definition(kernel, x, y):
    if kernel == ADDITIVE:
        return math.fsum(2 * a * b / (a + b) if a + b else 0.0 for a, b in zip(x, y, strict=True))
    c = kernel.offset
    return math.prod(2 * math.sqrt((a + c) * (b + c)) / (a + b + 2 * c) for a, b in zip(x, y, strict=True))


# kernels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", BOTH, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(xp, rng, kernel, dtype):
    """Within the bounds of the pages, 3 (d + 1) eps and (d + 4) eps / 2, and those of the definition in float64."""
    x, y = (asarray(xp, histograms((n,), 5, rng), dtype) for n in (3, 4))
    exact = np.array([[by_definition(kernel, a, b) for b in to_numpy(y)] for a in to_numpy(x)])
    bound = 18 * eps_of(dtype) + 30 * eps_of("float64")
    for found in (kernel(x, y), kernel.pairwise(x[:, None, :], y[None, :, :])):
        assert found.dtype == x.dtype
        assert np.all(np.abs(to_numpy(found) / exact - 1) <= bound)
    if kernel.has_logarithm:
        for found in (kernel.log_gram(x, y), kernel.log_pairwise(x[:, None, :], y[None, :, :])):
            assert np.all(np.abs(to_numpy(found) - np.log(exact)) <= bound)


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1.0, 1e300])
def test_values_of_any_size(size):
    x, y = np.array([3.0, 1.0, 0.0]) * size, np.array([1.0, 0.0, 0.0]) * size
    assert ADDITIVE.pairwise(x, y) == pytest.approx(1.5 * size)
    assert ADDITIVE.pairwise(x, x) == pytest.approx(4 * size)
    assert SKEWED.pairwise(x, x) == 1
    assert ADDITIVE(x[None], 0 * x[None]) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_where_ratios_of_coordinates_are_out_of_range(xp, dtype):
    """`2^-n` for coordinates c and 4^(n + 1) c, of which the ratio is no number of the dtype, and its logarithm."""
    n, exponent = (79, -60) if dtype == "float32" else (599, -400)
    kernel = rf.SkewedChi2Kernel(2.0**exponent)
    x, y = (asarray(xp, np.array([[number]]), dtype) for number in (0.0, 2.0 ** (2 * n + 2 + exponent)))
    expected = 2.0**-n
    np.testing.assert_allclose(to_numpy(kernel(x, y)), expected, rtol=6 * eps_of(dtype))
    np.testing.assert_allclose(to_numpy(kernel.log_gram(x, y)), math.log(expected), rtol=6 * eps_of(dtype))


def test_against_scikit_learn(rng):
    """Its kernel `additive_chi2` is the negative distance, `Σ -(x - y)²/(x + y) = 2k(x, y) - |x|_1 - |y|_1`."""
    pairwise = pytest.importorskip("sklearn.metrics.pairwise", reason="pip install '.[test]'")
    x, y = histograms((2, 6), 4, rng)
    sums = x.sum(axis=-1)[:, None] + y.sum(axis=-1)
    np.testing.assert_allclose(2 * ADDITIVE(x, y) - sums, pairwise.additive_chi2_kernel(x, y), atol=1e-14)
    gamma = 0.7
    phi = rf.SpectralFeatures(ADDITIVE).draw(4, 8, rng=0)
    squares = sums - 2 * ADDITIVE(x, y)
    np.testing.assert_allclose(np.exp(-gamma * squares), pairwise.chi2_kernel(x, y, gamma=gamma), rtol=1e-12)
    assert phi.estimate(x, x).shape == (6, 6)


def test_gradients(torch):
    """By PyTorch: `∂k/∂x_l = 2y_l²/(x_l + y_l)²` also at equal inputs, and 0 of all parts at zeros."""
    x = torch.tensor([[0.3, 2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[0.3, 1.0, 0.0]], dtype=torch.float64)
    for function in (ADDITIVE, ADDITIVE.pairwise):
        (slope,) = torch.autograd.grad(function(x, y).sum(), x)
        np.testing.assert_allclose(slope.numpy()[0, :2], [1 / 2, 2 / 9], rtol=1e-12)
    (slope,) = torch.autograd.grad(SKEWED(x, y).sum(), x)
    a, b = 2.5, 1.5
    np.testing.assert_allclose(
        slope.numpy(), [[0, math.sqrt(b / a) / (a + b) - 2 * math.sqrt(a * b) / (a + b) ** 2, 0]]
    )
    phi = rf.SpectralFeatures(ADDITIVE).draw(3, 6, rng=0, like=x)
    (slope,) = torch.autograd.grad(phi(x).sum(), x)
    features = phi.queries(x)
    np.testing.assert_allclose(
        slope.numpy(), phi.pull_back(x, features, torch.ones_like(features.values)).detach().numpy(), rtol=1e-12
    )
    assert slope[0, 2] == 0


# the law of the frequencies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 5.0, 20.0])
def test_the_secant_is_the_transform_of_the_secant(t):
    value, _ = integrate.quad(lambda w: np.cos(w * t) / np.cosh(np.pi * w), -12, 12, limit=400, epsabs=1e-13)
    assert half_secant(np.array(t * t)) == pytest.approx(value, abs=1e-12)
    assert half_secant(np.array(t * t)) == pytest.approx(1 / math.cosh(t / 2), rel=1e-14)
    assert half_secant(np.array(np.inf)) == 0


def test_frequencies_are_quantiles():
    """`F(w(g)) = Φ(g)` far out on both sides, odd and increasing: what couplings order stays in order."""
    g = np.array([-37.0, -9.0, -3.0, -0.5, -1e-9, 0.0, 1e-9, 0.5, 3.0, 9.0, 37.0])
    w = secant_frequencies(g)
    assert np.all(np.diff(w) > 0)
    assert np.array_equal(w, -w[::-1])
    assert np.all(np.isfinite(secant_frequencies(np.array([-np.inf, 50.0]))))
    np.testing.assert_allclose(stats.hypsecant.cdf(np.pi * w[:5]), stats.norm.cdf(g[:5]), rtol=1e-10)


@pytest.mark.parametrize("kernel", BOTH, ids=repr)
@pytest.mark.parametrize("coupling", ["independent", "orthogonal", "simplex", "sobol"])
def test_coordinates_of_rows_are_independent_secant_variables(rng, kernel, coupling):
    """However rows are coupled: each coordinate of a row (Kolmogorov-Smirnov), and the signs of two of them."""
    draws = 4000
    estimator = rf.SpectralFeatures(kernel, coupling)
    rows = estimator.draw(2, estimator.num_features(4, 2), rng=rng, batch_shape=(draws,)).arrays["rows"]
    for row in range(0, 4, 3):
        for coordinate in range(2):
            assert stats.kstest(np.pi * rows[:, row, coordinate], stats.hypsecant.cdf).pvalue > 1e-7
        signs = np.sign(rows[:, row, 0] * rows[:, row, 1])
        assert abs(np.mean(signs)) < 5.3 / math.sqrt(draws)


# features --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["pairs", "phase"])
def test_formula(rng, variant):
    """Coordinate by coordinate, rows in order; first all cosines, then all sines."""
    x, m = histograms((3,), 4, rng), 2
    estimator = rf.SpectralFeatures(ADDITIVE, variant=variant)
    phi = estimator.draw(4, estimator.num_features(m, 4), rng=0)
    w, features = phi.arrays["rows"], phi(x)
    for n, coordinate, i in np.ndindex(3, 4, m):
        size, place = math.sqrt(x[n, coordinate] / m), coordinate * m + i
        angle = w[i, coordinate] * math.log(x[n, coordinate]) if size else 0.0
        if variant == "pairs":
            expected, places = [size * math.cos(angle), size * math.sin(angle)], [place, 4 * m + place]
        else:
            expected = [math.sqrt(2) * size * math.cos(angle + phi.arrays["phases"][0, place])]
            places = [place]
        np.testing.assert_allclose(features[n, places], expected, atol=1e-14)


def test_zeros_are_zeros_and_the_diagonal_is_exact(xp, rng):
    x = histograms((6,), 4, rng)
    x[0] = 0
    phi = rf.SpectralFeatures(ADDITIVE).draw(4, 16, rng=0, like=asarray(xp, x))
    features = to_numpy(phi(asarray(xp, x))).reshape(6, 2, 4, 2)
    assert np.all((features == 0).all(axis=(1, 3)) == (x == 0))
    np.testing.assert_allclose(
        np.diagonal(to_numpy(phi.estimate(asarray(xp, x), asarray(xp, x)))), x.sum(-1), rtol=1e-13
    )


def test_features_of_histograms_of_any_size(rng):
    """`k(c x, c y) = c k(x, y)` holds in the mean only, and the variance is homogeneous of degree 2."""
    x, y = histograms((2, 5), 4, rng)
    estimator = rf.SpectralFeatures(ADDITIVE, "independent")
    for factor in (1e-200, 1e-3, 1e6, 1e200):
        mean, variance = estimator.mean(factor * x, factor * y), estimator.relative_variance(x, y, num_features=8)
        np.testing.assert_allclose(mean, factor * ADDITIVE.pairwise(x, y), rtol=1e-12)
        scaled = estimator.relative_variance(factor * x, factor * y, num_features=8)
        np.testing.assert_allclose(scaled, variance, rtol=1e-9, atol=1e-15)


def test_variances_by_hand(rng):
    """The rational form of the additive variance, and `(1 + k(2δ))/2 - k(δ)²` of the skewed one."""
    x, y = histograms((2, 20), 4, rng)
    total = np.where(x + y > 0, x + y, 1.0)
    squares = np.where(x + y > 0, x * x + y * y, 1.0)
    expected = np.sum(x * y * (x - y) ** 4 / (2 * squares * total**2), axis=-1)
    phases = expected + np.sum(x * y, axis=-1) / 2
    for variant, exact in (("pairs", expected), ("phase", phases)):
        estimator = rf.SpectralFeatures(ADDITIVE, "independent", variant)
        found = estimator.variance(x, y, num_features=estimator.num_features(3, 4))
        np.testing.assert_allclose(found, exact / 3, rtol=1e-9, atol=1e-15)
    delta = np.log(x + 0.5) - np.log(y + 0.5)
    own = (1 + np.prod(1 / np.cosh(delta), -1)) / 2 - np.prod(1 / np.cosh(delta / 2), -1) ** 2
    found = rf.SpectralFeatures(SKEWED, "independent").variance(x, y, num_features=6)
    np.testing.assert_allclose(found, own / 3, rtol=1e-9, atol=1e-15)


def test_the_contract_catches_another_law(monkeypatch):
    """Frequencies of density sech(w)/π, which is that of other books; the kernel is then sech(πδ/2)."""
    from randfeat.kernels import additive_chi2

    monkeypatch.setattr(additive_chi2, "secant_frequencies", lambda rows: np.pi * secant_frequencies(rows))
    with pytest.raises(AssertionError, match="mean"):
        check_estimator(rf.SpectralFeatures(ADDITIVE, "independent"), num_rows=[4], rng=0)


def test_the_contract_catches_a_forgotten_amplitude(monkeypatch):
    features = CoordinateWaves.features
    monkeypatch.setattr(CoordinateWaves, "features", lambda self, x: features(self, x).scaled(0.05))
    with pytest.raises(AssertionError, match=r"mean|exact"):
        check_estimator(rf.SpectralFeatures(ADDITIVE, "independent"), num_rows=[4], rng=0)


def test_arrays_are_not_broadcast():
    """As a file may have them that was changed: one frequency for all coordinates, one phase for all waves."""
    for arrays in ({"rows": np.ones((1, 1))}, {"rows": np.ones((2, 4)), "phases": np.ones((1, 1))}):
        estimator = rf.SpectralFeatures(ADDITIVE, variant="phase" if "phases" in arrays else "pairs")
        with pytest.raises(ValueError, match="do not fit"):
            rf.FeatureMap(estimator, 4, 8, arrays).queries(np.ones((3, 4)))


def test_widths():
    estimator = rf.SpectralFeatures(ADDITIVE)
    assert estimator.nearest_num_features(100, 64) == (128,)
    assert estimator.nearest_num_features(300, 64) == (256, 384)
    assert estimator.num_rows(256, 64) == 2
    with pytest.raises(ValueError, match="cannot have 100 features; nearest: 128"):
        estimator.draw(64, 100)
    with pytest.raises(ValueError, match="for each coordinate: pass dim"):
        estimator.num_features(3)
    assert rf.SpectralFeatures(ADDITIVE, variant="phase").nearest_num_features(100, 64) == (64, 128)


# borders ---------------------------------------------------------------------------------------------------------

PHI = rf.SpectralFeatures(ADDITIVE)
COMPOSED = [PHI, 2.0 * PHI, PHI + rf.SpectralFeatures(), PHI * rf.SpectralFeatures(), rf.ArdFeatures(PHI, (1.0, 2.0))]


@pytest.mark.parametrize("estimator", [*COMPOSED, rf.SpectralFeatures(SKEWED)], ids=repr)
def test_negative_inputs_are_refused(xp, estimator):
    good, bad = (asarray(xp, np.array([[0.5, last]])) for last in (0.2, -0.6))
    phi = estimator.draw(2, estimator.nearest_num_features(16, 2)[-1], rng=0, like=good)
    assert not estimator.kernel.takes_negative
    message = r"Negative values .* (inputs from 0 on|inputs above -0\.5)"
    for call in (phi, phi.queries, lambda x: phi.estimate(good, x), lambda x: estimator.kernel(good, x),
                 lambda x: estimator.kernel.pairwise(x, good)):  # fmt: skip
        call(good)
        with pytest.raises(ValueError, match=message):
            call(bad)
    with pytest.raises(ValueError, match=message):
        estimator.mean(to_numpy(bad), to_numpy(good))


def test_negative_inputs_where_there_are_no_values(jax):
    """Compiled, NaN says it."""
    phi = rf.SpectralFeatures(SKEWED).draw(2, 4, rng=0, like=jax.numpy.ones(1))
    found = compiled(jax.numpy, phi)(jax.numpy.asarray([[0.1, -0.6], [0.1, 0.2]]))
    assert np.array_equal(np.isnan(to_numpy(found)).all(axis=-1), [True, False])


def test_nan_inputs_spread_over_their_row_only():
    x = np.array([[0.3, np.nan], [0.1, 0.2]])
    for kernel in BOTH:
        assert np.array_equal(np.isnan(kernel(x, x)), [[True, True], [True, False]])
        features = rf.SpectralFeatures(kernel).draw(2, 8, rng=0)(x)
        assert np.array_equal(np.isnan(features).any(axis=-1), [True, False])


def test_parameters():
    with pytest.raises(ValueError, match="offset must be positive and finite, got 0"):
        rf.SkewedChi2Kernel(0)
    with pytest.raises(ValueError, match="a reference row needs a kernel that depends on x - y only"):
        rf.SpectralFeatures(SKEWED).draw(2, 4, rng=0).about(np.ones(2))
    assert rf.SkewedChi2Kernel(1) == rf.SkewedChi2Kernel()


# against scikit-learn's samplers ---------------------------------------------------------------------------------


def test_less_error_than_scikit_learns_samplers():
    """On images of digits, as histograms: mean squared errors of Gram matrices of the same width, over 8 draws.

    Skewed: 256 features, a ratio of 0.12 with a standard deviation of 0.02 between sets of draws. Additive: 4 features
    for each coordinate against the 5 of three sampling steps, a ratio of 0.20, 0.03 between sets of draws.
    """
    approximation = pytest.importorskip("sklearn.kernel_approximation", reason="pip install '.[test]'")
    from sklearn.datasets import load_digits

    x = load_digits().data[:100] / 16

    def error(kernel, features):
        sizes = np.sqrt(np.diagonal(kernel(x, x)))
        return np.mean([np.mean(((z @ z.T - kernel(x, x)) / np.outer(sizes, sizes)) ** 2) for z in features])

    skewed = rf.SkewedChi2Kernel()
    ours = [rf.SpectralFeatures(skewed).draw(64, 256, rng=seed)(x) for seed in range(8)]
    samplers = [approximation.SkewedChi2Sampler(n_components=256, random_state=seed) for seed in range(8)]
    assert error(skewed, ours) < 0.3 * error(skewed, [sampler.fit_transform(x) for sampler in samplers])
    ours = [PHI.draw(64, 256, rng=seed)(x) for seed in range(8)]
    theirs = [approximation.AdditiveChi2Sampler(sample_steps=3).fit_transform(x)]
    assert error(ADDITIVE, ours) < 0.5 * error(ADDITIVE, theirs)
