"""Shift-invariant kernels and their spectral features: values, laws of the scales, variances, limits, rounding."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from scipy import special, stats

import randfeat as rf
from randfeat.couplings import norms
from tests.arrays import asarray, compiled, eps_of, shape_of, to_numpy
from tests.cases import OPEN, OTHERS

KERNELS = [
    rf.MaternKernel(0.5, 1.3),
    rf.MaternKernel(),
    rf.MaternKernel(2.5, 0.7),
    rf.MaternKernel(7.5),
    rf.ExponentialKernel(1.3),
    rf.LaplacianKernel(0.8),
    rf.ExponentialPowerKernel(0.4, 1.2),
    rf.ExponentialPowerKernel(1.7),
    rf.ExponentialPowerKernel(2.0),
    rf.RationalQuadraticKernel(0.3, 1.1),
    rf.RationalQuadraticKernel(4.0),
    rf.CauchyKernel(0.8),
]
BESSEL = [rf.MaternKernel(0.3, 1.2), rf.MaternKernel(1.0), rf.MaternKernel(3.2)]
ISOTROPIC = [kernel for kernel in KERNELS + BESSEL if not kernel.scales_per_coordinate]
SHIFTED = [e for e in OTHERS + OPEN if isinstance(e.kernel, rf.kernels.ShiftInvariantKernel)]
SPECTRAL = [e for e in SHIFTED if isinstance(e, rf.SpectralFeatures)]


def by_definition(kernel, x, y):
    """The kernel of two vectors as its page defines it, in 40 digits."""
    mp = mpmath.mp.clone()
    mp.dps = 40
    delta = [(mp.mpf(float(a)) - mp.mpf(float(b))) / mp.mpf(kernel.length_scale) for a, b in zip(x, y, strict=True)]
    r = mp.sqrt(sum(z * z for z in delta))
    match kernel:
        case rf.MaternKernel():
            nu = mp.mpf(kernel.smoothness)
            a = mp.sqrt(2 * nu) * r
            return float(2 ** (1 - nu) / mp.gamma(nu) * a**nu * mp.besselk(nu, a)) if r else 1.0
        case rf.ExponentialKernel():
            return float(mp.exp(-r))
        case rf.LaplacianKernel():
            return float(mp.exp(-sum(abs(z) for z in delta)))
        case rf.ExponentialPowerKernel():
            return float(mp.exp(-(r ** mp.mpf(kernel.power))))
        case rf.RationalQuadraticKernel():
            return float((1 + r * r / (2 * mp.mpf(kernel.alpha))) ** -mp.mpf(kernel.alpha))
        case rf.CauchyKernel():
            return float(1 / mp.fprod(1 + z * z for z in delta))


# kernels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(xp, rng, kernel, dtype):
    """Pairs to a relative error of a few eps times the exponent; Gram matrices of smooth kernels to an absolute one."""
    x, y = (asarray(xp, 1.5 * rng.standard_normal((n, 3)), dtype) for n in (3, 4))
    host_x, host_y = to_numpy(x), to_numpy(y)
    exact = np.array([[by_definition(kernel, a, b) for b in host_y] for a in host_x])
    pairs, gram = kernel.pairwise(x[:, None, :], y[None, :, :]), kernel(x, y)
    assert pairs.dtype == gram.dtype == x.dtype
    exponent = 1 + np.abs(np.log(exact))
    assert np.all(np.abs(to_numpy(pairs) / exact - 1) <= 16 * eps_of(dtype) * exponent)
    assert np.all(np.abs(to_numpy(gram) - exact) <= 64 * eps_of(dtype))


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_equal_vectors_have_the_kernel_one(xp, rng, kernel):
    x = asarray(xp, 30 + rng.standard_normal((4, 5)), "float32")
    assert np.all(to_numpy(kernel.pairwise(x, x)) == 1)
    diagonal = np.diagonal(to_numpy(kernel(x, x)))
    assert np.all(np.abs(diagonal - 1) <= 200 * eps_of("float32"))
    if getattr(kernel, "smooth", False) is False:
        assert np.all(diagonal == 1)


def test_rough_kernels_take_differences(rng):
    """Near each other and far from the origin an expanded square would lose the distance altogether."""
    x = 1e4 + rng.standard_normal((4, 3))
    y = np.concatenate([x + 1e-6, -x])
    for kernel in (rf.ExponentialKernel(1e-5), rf.LaplacianKernel(1e-5), rf.ExponentialPowerKernel(0.5, 1e-5)):
        np.testing.assert_allclose(kernel(x, y), kernel.pairwise(x[:, None], y), rtol=1e-12)
        assert np.all(np.diagonal(kernel(x, y)[:, :4]) > 0.1)


@pytest.mark.parametrize("nu", [0.1, 0.5, 0.9, 1.0, 1.5, 2.2, 10.5, 20.3, 50.5, 101.7, 171.3, 200.0])
def test_matern_of_any_smoothness_at_any_distance(nu):
    kernel = rf.MaternKernel(nu)
    for r in (1e-300, 1e-12, 1e-4, 0.01, 0.3, 1.0, 3.0, 10.0, 30.0):
        exact = by_definition(kernel, [r], [0.0])
        value = kernel.pairwise(np.array([r]), np.zeros(1))
        assert abs(value - exact) <= 1e-12 * exact * max(1.0, nu / 20), (nu, r)
    assert kernel.pairwise(np.zeros(2), np.zeros(2)) == 1
    with np.errstate(invalid="ignore", over="ignore"):
        assert kernel.pairwise(np.array([1e200]), np.zeros(1)) == 0
        assert np.isnan(kernel.pairwise(np.array([np.nan]), np.zeros(1)))


def test_against_scikit_learn(rng):
    gp = pytest.importorskip("sklearn.gaussian_process.kernels", reason="pip install '.[test]'")
    from sklearn.metrics.pairwise import laplacian_kernel

    x, y = rng.standard_normal((2, 6, 4))
    for nu in (0.5, 0.8, 1.5, 2.5, 4.0):
        np.testing.assert_allclose(rf.MaternKernel(nu, 1.7)(x, y), gp.Matern(1.7, nu=nu)(x, y), rtol=1e-11)
    theirs = gp.RationalQuadratic(length_scale=0.6, alpha=0.4)(x, y)
    np.testing.assert_allclose(rf.RationalQuadraticKernel(0.4, 0.6)(x, y), theirs, rtol=1e-12)
    np.testing.assert_allclose(rf.LaplacianKernel(1 / 0.3)(x, y), laplacian_kernel(x, y, gamma=0.3), rtol=1e-12)


def test_members_that_are_equal(rng):
    x, y = rng.standard_normal((2, 5, 3))
    exponential = rf.ExponentialKernel(1.4)(x, y)
    np.testing.assert_allclose(rf.MaternKernel(0.5, 1.4)(x, y), exponential, rtol=1e-14)
    np.testing.assert_allclose(rf.ExponentialPowerKernel(1.0, 1.4)(x, y), exponential, rtol=1e-14)
    gaussian = rf.GaussianKernel(1.4 / math.sqrt(2))(x, y)
    np.testing.assert_allclose(rf.ExponentialPowerKernel(2.0, 1.4)(x, y), gaussian, rtol=1e-13)
    line = x[:, :1], y[:, :1]
    np.testing.assert_allclose(rf.LaplacianKernel(1.4)(*line), rf.ExponentialKernel(1.4)(*line), rtol=1e-14)
    rational = rf.RationalQuadraticKernel(1.0, 1.4 / math.sqrt(2))
    np.testing.assert_allclose(rf.CauchyKernel(1.4)(*line), rational(*line), rtol=1e-13)


@pytest.mark.parametrize("make", [rf.MaternKernel, rf.RationalQuadraticKernel])
def test_gaussian_limit(make):
    """The distance to the Gaussian kernel is of order 1/parameter: it halves when the parameter doubles."""
    x = np.linspace(0.3, 3.0, 7)[:, None]
    gaussian = rf.GaussianKernel(1.2).pairwise(x, 0 * x)
    errors = [make(p, 1.2).pairwise(x, 0 * x) - gaussian for p in (250.5, 500.5, 1000.5)]
    assert np.all(np.abs(errors[2]) < 1e-3)
    np.testing.assert_allclose(errors[0] / errors[1], 2.0, rtol=0.05)
    np.testing.assert_allclose(errors[1] / errors[2], 2.0, rtol=0.05)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_shapes_and_spoilt_rows(xp, rng, kernel):
    x, y = asarray(xp, np.ones((2, 1, 3, 4))), asarray(xp, np.ones((5, 6, 4)))
    assert shape_of(xp, kernel, x, y) == (2, 5, 3, 6)
    assert shape_of(xp, kernel.pairwise, x, y[:, :1, :]) == (2, 5, 3)
    assert shape_of(xp, kernel, x[..., :0, :], y) == (2, 5, 0, 6)
    host_x, host_y = rng.standard_normal((2, 4, 3))
    clean = to_numpy(kernel(asarray(xp, host_x), asarray(xp, host_y)))
    host_x[1, 0], host_y[2, 2] = np.nan, np.nan
    with np.errstate(invalid="ignore"):
        gram = to_numpy(kernel(asarray(xp, host_x), asarray(xp, host_y)))
    keep = np.ix_([0, 2, 3], [0, 1, 3])
    np.testing.assert_allclose(gram[keep], clean[keep], rtol=1e-12)
    gram[keep] = np.nan
    assert np.all(np.isnan(gram))


def test_large_distances_underflow_to_zero(xp):
    x, y = asarray(xp, np.full((1, 2), 1e18), "float32"), asarray(xp, np.zeros((1, 2)), "float32")
    kernels = (*KERNELS[:6], rf.ExponentialPowerKernel(1.7), rf.MaternKernel(20.5))
    run = compiled(xp, lambda x, y: [function(x, y) for kernel in kernels for function in (kernel.pairwise, kernel)])
    for value in run(x, y):
        assert to_numpy(value) == 0


def test_gradients_at_equal_vectors_are_finite(torch, jax):
    """Zero, by symmetry where the kernel has a derivative and by convention where it has a cusp."""
    for kernel in KERNELS:
        for function in (kernel, kernel.pairwise):
            x = torch.ones((2, 3), dtype=torch.float64, requires_grad=True)
            function(x, torch.ones((2, 3), dtype=torch.float64)).sum().backward()
            assert torch.all(x.grad == 0), kernel
    ones = jax.numpy.ones((2, 3))
    functions = [function for kernel in KERNELS[1:6] for function in (kernel, kernel.pairwise)]
    slopes = jax.jit(lambda x: [jax.grad(lambda x, f=f: jax.numpy.sum(f(x, ones)))(x) for f in functions])
    for function, gradient in zip(functions, slopes(ones), strict=True):
        assert np.all(to_numpy(gradient) == 0), function


# scales and frequencies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS + BESSEL, ids=repr)
def test_scales_have_the_mixture_as_laplace_transform(rng, kernel):
    """E exp(-τs/2) = L(s), with Var exp(-τs/2) = L(2s) - L(s)². False alarm 1e-6; a deviation of 1 % is seen."""
    s, draws = np.array([0.01, 0.1, 0.5, 2.0, 8.0]), 200_000
    tau = kernel.sample_scales((draws, 1), rng)
    assert tau.shape == (draws, 1)
    assert np.all((tau > 0) | np.isinf(tau))
    mean, variance = kernel.mixture(s), np.maximum(kernel.mixture(2 * s) - kernel.mixture(s) ** 2, 0.0)
    error = np.abs(np.mean(np.exp(-tau * s / 2), axis=0) - mean)
    limit = stats.norm.isf(1e-6 / (2 * s.size))
    tolerance = limit * np.sqrt(variance / draws) + draws * eps_of("float64")
    assert np.max(tolerance) < 0.01
    assert np.all(error < tolerance)


@pytest.mark.parametrize("kernel", KERNELS + BESSEL, ids=repr)
@pytest.mark.parametrize("coupling", [rf.Independent(), rf.Orthogonal()], ids=repr)
def test_frequencies_have_the_kernel_as_characteristic_function(rng, kernel, coupling):
    """Every single row, in directions along and between the axes. False alarm 1e-6; a deviation of 3 % is seen."""
    draws, dim = 60_000, 3
    delta = np.array([[0.2, 0.0, 0.0], [1.5, 0.0, 0.0], [0.3, -0.4, 0.1], [1.0, 1.0, 1.0], [0.0, 4.0, -2.0]])
    phi = rf.SpectralFeatures(kernel, coupling).draw(dim, 4, rng=rng, batch_shape=(draws,))
    exact, double = (kernel.pairwise(c * kernel.length_scale * delta, np.zeros(dim)) for c in (1, 2))
    limit = stats.norm.isf(1e-6 / (4 * len(delta)))
    tolerance = limit * np.sqrt(((1 + double) / 2 - exact**2) / draws)
    assert np.max(tolerance) < 0.03
    for row in range(2):
        mean = np.mean(np.cos(phi.arrays["rows"][:, row] @ delta.T), axis=0)
        assert np.all(np.abs(mean - exact) < tolerance)


def test_coordinates_of_laplacian_rows_are_cauchy_however_rows_are_coupled(rng):
    """One Gaussian row of a block-orthogonal matrix, each coordinate times its own scale (Kolmogorov-Smirnov)."""
    draws = 20_000
    cases = ((rf.LaplacianKernel(), stats.cauchy), (rf.CauchyKernel(), stats.laplace))
    for kernel, law in cases:
        rows = rf.SpectralFeatures(kernel).draw(3, 6, rng=rng, batch_shape=(draws,)).arrays["rows"]
        for row, coordinate in itertools.product(range(3), range(3)):
            assert stats.kstest(rows[:, row, coordinate], law.cdf).pvalue > 1e-7
        signs = np.sign(rows[:, 0]) @ np.ones(3)  # independent signs: a sum of three
        assert abs(np.mean(signs**2) - 3) < 5 * np.sqrt(12 / draws)


def test_heavy_tails_stay_finite_in_float32():
    like = np.zeros(1, dtype=np.float32)
    phi = rf.SpectralFeatures(rf.ExponentialPowerKernel(0.1)).draw(2, 2**14, rng=0, like=like)
    rows = phi.arrays["rows"]
    assert np.all(np.isfinite(rows))
    assert np.max(np.abs(rows)) > 1e25
    x = np.ones((1, 2), dtype=np.float32)
    assert np.all(np.isfinite(phi(x)))
    np.testing.assert_allclose(phi.estimate(x, x), 1.0, rtol=1e-5)


# features --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["pairs", "phase"])
@pytest.mark.parametrize("kernel", [rf.ExponentialKernel(0.5), rf.LaplacianKernel(2.0)], ids=repr)
def test_formula(rng, kernel, variant):
    x = rng.standard_normal((3, 4))
    estimator = rf.SpectralFeatures(kernel, variant=variant)
    phi = estimator.draw(4, 12, rng=0)
    frequencies, m = phi.arrays["rows"] / kernel.length_scale, estimator.num_rows(12)
    features = phi(x)
    for n, i in itertools.product(range(3), range(m)):
        projection = math.fsum(frequencies[i] * x[n])
        if variant == "pairs":
            expected = [math.cos(projection) / math.sqrt(m), math.sin(projection) / math.sqrt(m)]
            actual = features[n, [i, m + i]]
        else:
            expected = [math.sqrt(2 / m) * math.cos(projection + phi.arrays["phases"][0, i])]
            actual = features[n, [i]]
        terms = np.sum(np.abs(frequencies[i] * x[n])) + 7
        assert np.all(np.abs(actual - expected) <= 8 * eps_of("float64") * terms)


@pytest.mark.parametrize("estimator", SPECTRAL, ids=repr)
def test_rounding_is_that_of_the_projection(xp, estimator):
    """A feature is off by the error of f·x, at most (d+2) eps Σ|f_l x_l| from products and sums, and 4 eps.

    This is what long frequencies cost, in any library: in float32 those beyond 1e7 have lost their phase.
    """
    host = (np.random.default_rng(0).standard_normal((6, 5)) / 4).astype(np.float32)
    there = asarray(xp, host, "float32")
    width = 2048
    phi = estimator.draw(5, width, rng=1, like=there)
    rows = to_numpy(phi.arrays["rows"])
    exact = rf.FeatureMap(estimator, 5, width, {name: to_numpy(a) for name, a in phi.arrays.items()})
    error = np.abs(to_numpy(phi.queries(there).values) - exact.queries(host.astype(np.float64)).values)
    size = np.abs(host / estimator.kernel.length_scale) @ np.abs(rows).T + 2 * np.pi
    bound = (np.tile(size, width // len(rows)) * 7 + 4) * eps_of("float32")
    assert np.all(error <= bound * math.sqrt(2 / len(rows)))


def test_bounded_and_exact_on_the_diagonal(rng):
    x = 10 * rng.standard_normal((5, 4))
    for kernel in KERNELS:
        phi = rf.SpectralFeatures(kernel).draw(4, 16, rng=0)
        np.testing.assert_allclose(np.diagonal(phi.estimate(x, x)), 1.0, rtol=1e-14)
        assert np.all(np.abs(phi.estimate(x, -x)) <= 1 + 1e-14)
        if kernel in ISOTROPIC:
            assert np.all(phi.estimator.variance(x, x, num_features=16) == 0)


# moments ---------------------------------------------------------------------------------------------------------


def pairs_at(t, dim):
    x = np.sqrt(t)[:, None] * np.eye(dim)[0]
    return x, 0 * x


@pytest.mark.parametrize("dim", [1, 2, 3, 8, 65])
@pytest.mark.parametrize("variant", ["pairs", "phase"])
@pytest.mark.parametrize("coupling", [rf.Independent(), rf.Orthogonal(), rf.Orthogonal(norms="constant")], ids=repr)
def test_the_gaussian_member_has_the_moments_of_trigonometric_features(dim, variant, coupling):
    x, y = pairs_at(np.array([0.0, 1e-4, 0.1, 1.0, 5.0, 30.0, 150.0]), dim)
    spectral = rf.SpectralFeatures(rf.ExponentialPowerKernel(2.0, 1.3), coupling, variant)
    gaussian = rf.TrigonometricFeatures(rf.GaussianKernel(1.3 / math.sqrt(2)), coupling, variant)
    width = 6 * dim + 4
    for moment in ("mean", "variance", "mse"):
        ours, theirs = (getattr(e, moment)(x, y, num_features=width) for e in (spectral, gaussian))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=2e-14)


def by_scales_and_angle(nodes, weights, t, dim):
    """E[1F1(d; d/2; -qt/2)], q = τ1 cos²φ + τ2 sin²φ: given both scales and R² ~ χ²_{2d}, in even dimension d."""
    angle, angle_weights = np.polynomial.legendre.leggauss(32)
    phi = np.pi / 4 * (angle + 1)
    angle_weights = angle_weights * (np.sin(phi) * np.cos(phi)) ** (dim - 1)
    angle_weights /= angle_weights.sum()
    b, k = dim // 2, np.arange(dim // 2 + 1)  # 1F1(d; d/2; -z) = e^{-z} 1F1(-d/2; d/2; z), a polynomial times e^{-z}
    kummer = special.poch(-b, k) / special.poch(b, k) / special.factorial(k)
    total = 0.0
    for p, w in zip(phi, angle_weights, strict=True):
        z = t / 2 * (nodes[:, None] * np.cos(p) ** 2 + nodes * np.sin(p) ** 2)
        total += w * weights @ (np.exp(-z) * np.polynomial.polynomial.polyval(np.minimum(z, 1e3), kummer)) @ weights
    return total


@pytest.mark.parametrize("dim", [2, 4, 8])
def test_orthogonal_rows_against_quadrature_over_scales(dim):
    """Rational quadratic and Matérn kernels: the law of τ is known, and both scales and the angle are integrated."""
    alpha = 2.0
    nodes, weights = special.roots_genlaguerre(60, alpha - 1)
    rational = rf.RationalQuadraticKernel(alpha)
    step = 0.2
    log_gamma = np.arange(-30, 5, step)
    for nu in (0.5, 1.5):
        density = np.exp(nu * log_gamma - np.exp(log_gamma) - special.gammaln(nu)) * step
        for t in (0.05, 1.0, 6.0):
            matern = norms.orthogonal_mean(rf.MaternKernel(nu).mixture, np.array(t), dim)
            quadrature = by_scales_and_angle(nu * np.exp(-log_gamma), density, t, dim)
            assert abs(matern - quadrature) < 1e-6  # the cut tail of τ has probability e^{-30ν}
    for t in (0.05, 1.0, 6.0):
        quadrature = by_scales_and_angle(nodes / alpha, weights / special.gamma(alpha), t, dim)
        assert abs(norms.orthogonal_mean(rational.mixture, np.array(t), dim) - quadrature) < 1e-10


@pytest.mark.parametrize("kernel", ISOTROPIC, ids=repr)
@pytest.mark.parametrize("dim", [3, 16])
def test_norms_put_in_and_taken_out(kernel, dim):
    """`E[f(t R²)] = F(t)`, R² ~ χ²_d, for the f that the contour makes of F = H²: another quadrature inverts it."""
    t = 0.7
    nodes, weights = np.polynomial.legendre.leggauss(100)
    low, high = stats.chi2.ppf([1e-13, 1 - 1e-13], dim)
    log_r = (np.log(high) - np.log(low)) / 2 * (nodes + 1) + np.log(low)
    sqnorm, density = np.exp(log_r), stats.chi2.pdf(np.exp(log_r), dim) * np.exp(log_r)
    weights = weights * density * (np.log(high) - np.log(low)) / 2
    f = norms.orthogonal_mean(kernel.mixture, t * sqnorm, dim)
    expected = (weights @ kernel.mixture(t * sqnorm)) ** 2
    assert abs(weights @ f - expected) < 1e-11
    assert np.all(np.abs(f) <= 1 + 1e-12)


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k != rf.ExponentialPowerKernel(2.0)], ids=repr)
def test_constant_norms_by_bessel_functions(kernel):
    """E cos(v·w) = E_τ 0F1(; d/2; -d Σ τ_l v_l²/4), averaged over draws of the scales; false alarm 1e-6."""
    dim, draws = 3, 100_000
    delta = np.array([0.3, -0.8, 0.5])
    tau = kernel.sample_scales((draws, dim if kernel.scales_per_coordinate else 1), np.random.default_rng(5))
    size = np.sqrt(dim * np.sum(tau * delta**2, axis=-1))
    bessel = np.sinc(size / np.pi)  # 0F1(; 3/2; -z²/4) = sin z/z
    estimator = rf.SpectralFeatures(kernel, rf.Orthogonal(norms="constant"))
    closed = estimator.mean(kernel.length_scale * delta, np.zeros(dim))
    standard_error = bessel.std() / math.sqrt(draws)
    assert standard_error < 0.004
    assert abs(bessel.mean() - closed) < stats.norm.isf(5e-7) * standard_error


def test_moments_at_extreme_distances_are_finite_or_nan():
    """Within [0, 1] whatever the distance; where rounding would decide, constant norms give NaN and no number."""
    for kernel in ISOTROPIC:
        for coupling in (rf.Orthogonal(), rf.Orthogonal(norms="constant")):
            estimator = rf.SpectralFeatures(kernel, coupling)
            for r in (1e-150, 1e-10, 30.0, 1e4, 1e100):
                x = np.array([r, 0.0, 0.0]) * kernel.length_scale
                mean, variance = estimator.mean(x, 0 * x), estimator.variance(x, 0 * x, num_features=6)
                if np.isnan(mean):
                    assert r > 40
                    assert kernel == rf.ExponentialPowerKernel(2.0)
                    assert coupling.norms == "constant"
                    continue
                assert -0.5 < mean < 1 + 1e-12
                assert 0 <= variance <= 1 / 2
                if r < 1e-9 and kernel.smooth:
                    assert variance < 1e-14
                if r == 1e100 and kernel != rf.RationalQuadraticKernel(0.3, 1.1):
                    assert variance == pytest.approx(1 / 6, abs=1e-12)  # independent phases


def test_variances_by_hand():
    """Laplacian pairs and phases at |x - y|_1 = log 2: k = 1/2, k(2δ) = 1/4, so 3/8 and 7/8."""
    x, y = np.array([math.log(2) / 2, 0.0]), np.array([0.0, -math.log(2) / 2])
    for variant, expected in (("pairs", 3 / 8), ("phase", 7 / 8)):
        estimator = rf.SpectralFeatures(rf.LaplacianKernel(), "independent", variant)
        width = 5 * estimator.features_per_row
        assert estimator.variance(x, y, num_features=width) == pytest.approx(expected / 5, rel=1e-13)
        assert estimator.relative_variance(x, y, num_features=width) == pytest.approx(4 * expected / 5, rel=1e-13)


def test_orthogonal_rows_gain_where_the_kernel_is_large():
    """Below independent rows up to a distance of about a length scale, and not by more than to zero."""
    x, y = pairs_at(np.array([0.01, 0.1, 0.5]), 16)
    for kernel in (rf.MaternKernel(), rf.ExponentialKernel(), rf.RationalQuadraticKernel()):
        orthogonal, independent = (
            rf.SpectralFeatures(kernel, coupling).variance(x, y, num_features=32)
            for coupling in ("orthogonal", "independent")
        )
        assert np.all(orthogonal < independent)
        assert np.all(orthogonal > 0)


def test_moments_without_closed_form_say_so():
    x = np.full(4, 0.3)
    laplacian = rf.LaplacianKernel()
    for estimator in (
        rf.SpectralFeatures(laplacian),
        rf.SpectralFeatures(laplacian, rf.Orthogonal(norms="constant")),
        rf.SpectralFeatures(coupling="simplex"),
        rf.SpectralFeatures(coupling="centered"),
        rf.SpectralFeatures(coupling="antithetic"),
    ):
        with pytest.raises(rf.NoClosedForm, match=r"frequencies under .* is not known; .*randfeat\.montecarlo"):
            estimator.variance(x, -x, num_features=16)
        estimator.mean(x, -x)
    # a single row is independent of nothing
    assert rf.SpectralFeatures(laplacian).variance(x, -x, num_features=2) > 0


# parameters ------------------------------------------------------------------------------------------------------


def test_parameters():
    for cls in (rf.MaternKernel, rf.ExponentialKernel, rf.LaplacianKernel, rf.CauchyKernel, rf.RationalQuadraticKernel):
        with pytest.raises(ValueError, match="length_scale must be positive and finite, got 0"):
            cls(length_scale=0)
        with pytest.raises(TypeError, match="length_scale must be a positive number, got '1'"):
            cls(length_scale="1")
        assert cls(length_scale=2) == cls(length_scale=2.0)
    with pytest.raises(ValueError, match="smoothness must be positive and finite"):
        rf.MaternKernel(math.inf)
    with pytest.raises(ValueError, match=r"smoothness above 200 must be a half-integer, got 300\.3"):
        rf.MaternKernel(300.3)
    with pytest.raises(ValueError, match="alpha must be positive and finite, got -1"):
        rf.RationalQuadraticKernel(-1)
    with pytest.raises(ValueError, match=r"power must be at most 2 for a positive definite kernel, got 2\.5"):
        rf.ExponentialPowerKernel(2.5)
    with pytest.raises(ValueError, match="variant must be 'pairs' or 'phase', got 'both'"):
        rf.SpectralFeatures(variant="both")
    with pytest.raises(TypeError, match=r"kernel must be a SpectralKernel .* for SpectralFeatures"):
        rf.SpectralFeatures(rf.SoftmaxKernel())
    assert rf.MaternKernel(2.5).smoothness == 2.5  # the first parameter is what names the member of the family


def test_values_of_other_smoothness_need_numpy(torch):
    kernel = rf.MaternKernel(0.8)
    x = torch.ones((2, 3), dtype=torch.float64)
    with pytest.raises(
        TypeError, match=r"smoothness 0\.8 need NumPy arrays, got Tensor; convert, or choose a half-int"
    ):
        kernel(x, x)
    features = rf.SpectralFeatures(kernel).draw(3, 8, rng=0, like=x)(x)  # features need no value of the kernel
    assert features.shape == (2, 8)
