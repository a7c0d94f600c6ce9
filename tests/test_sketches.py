"""Polynomial sketches, random Maclaurin and optical features: against loops, enumerations, and other people's code."""

import itertools
import math

import mpmath
import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, compiled, to_numpy

EXACT = 1e-12  # relative error of closed forms and enumerations: sums of at most 10^5 products of numbers of order 1
X, Y = np.array([0.7, -0.4]), np.array([0.5, 0.9])

ENTRIES = ("rademacher", "gaussian", "complex")


def outcomes(values, count):
    """Every way to fill `count` places, (ways, count)."""
    return np.array(list(itertools.product(values, repeat=count)))


def moments(estimator, width, arrays, x, y, probabilities=None):
    """Mean and variance of the estimate over all maps of a batch, exactly."""
    x, y = np.atleast_2d(x), np.atleast_2d(y)
    phi = rf.FeatureMap(estimator, x.shape[-1], width, arrays)
    estimate = phi.queries(x).pairwise(phi.keys(y))[:, 0]
    probabilities = np.full(len(estimate), 1 / len(estimate)) if probabilities is None else probabilities
    mean = probabilities @ estimate
    return mean, probabilities @ (estimate - mean) ** 2


def assert_moments(estimator, width, arrays, x, y, probabilities=None):
    mean, variance = moments(estimator, width, arrays, x, y, probabilities)
    assert mean == pytest.approx(float(estimator.kernel.pairwise(x, y)), rel=EXACT)
    assert float(estimator.mean(x, y)) == pytest.approx(mean, rel=EXACT)
    assert float(estimator.variance(x, y, num_features=width)) == pytest.approx(variance, rel=EXACT)


# products of projections -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 0.6])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_rademacher_moments_by_enumeration(degree, offset):
    estimator = rf.ProductSketchFeatures(rf.PolynomialKernel(degree, offset, scale=1.7))
    dim = 3 if offset else 2
    rows = outcomes((-1.0, 1.0), degree * dim).reshape(-1, degree, dim)
    assert_moments(estimator, 1, {"rows": rows}, X, Y)


@pytest.mark.parametrize("degree", [1, 2])
def test_complex_moments_by_enumeration(degree):
    estimator = rf.ProductSketchFeatures(rf.PolynomialKernel(degree, offset=0.3), entries="complex")
    rows = outcomes((1, -1, 1j, -1j), degree * 3).reshape(-1, degree, 3)
    assert_moments(estimator, 2, {"rows": rows.real, "imaginary_rows": rows.imag}, X, Y)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_gaussian_moments_by_quadrature(degree):
    """Three Gauss-Hermite nodes are exact for the fourth powers that each entry enters with."""
    estimator = rf.ProductSketchFeatures(rf.PolynomialKernel(degree), entries="gaussian")
    node = outcomes((0, 1, 2), 2 * degree)
    rows = np.array([-math.sqrt(3), 0.0, math.sqrt(3)])[node].reshape(-1, degree, 2)
    probabilities = np.prod(np.array([1 / 6, 2 / 3, 1 / 6])[node], axis=-1)
    assert_moments(estimator, 1, {"rows": rows}, X, Y, probabilities)


@pytest.mark.parametrize("entries", ENTRIES)
def test_product_features_are_those_of_the_formula(entries):
    kernel = rf.PolynomialKernel(degree=3, offset=0.5, scale=2.0)
    phi = rf.ProductSketchFeatures(kernel, entries=entries).draw(2, 8, rng=0)
    rows = phi.arrays["rows"] + 1j * phi.arrays.get("imaginary_rows", 0.0)
    if entries == "complex":
        assert set(np.unique(rows)) == {1, -1, 1j, -1j}
    count = len(rows) // 3
    for x in (X, Y):
        unit = [math.sqrt(2) * x[0], math.sqrt(2) * x[1], math.sqrt(0.5)]
        products = []
        for i in range(count):
            product = 1.0
            for k in range(3):
                product *= sum(rows[k * count + i, j] * unit[j] for j in range(3))
            products.append(product / math.sqrt(count))
        expected = np.real(products) if entries != "complex" else [*np.real(products), *np.imag(products)]
        np.testing.assert_allclose(phi(x[None])[0], expected, rtol=EXACT, atol=EXACT)


def test_which_sketch_is_better(rng):
    """Gaussian entries never; complex ones at equal width exactly where Σ_{j≠k} x_j y_j x_k y_k > 0."""
    x, y = rng.standard_normal((2, 2000, 3))
    c = np.sum(x * y, axis=-1) ** 2 - np.sum(x**2 * y**2, axis=-1)
    assert 0.2 < np.mean(c > 0) < 0.8
    for degree in (2, 3, 4, 5):
        real, gauss, both = (
            rf.ProductSketchFeatures(rf.PolynomialKernel(degree), entries=entries).variance(x, y, num_features=8)
            for entries in ENTRIES
        )
        assert np.all(gauss > real)
        assert np.array_equal(both < real, c > 0)
    real, both = (
        rf.ProductSketchFeatures(rf.PolynomialKernel(1), entries=e).variance(x, y, num_features=8)
        for e in ("rademacher", "complex")
    )
    np.testing.assert_allclose(both, real, rtol=1e-9)


def test_one_dimension_is_exact(rng):
    """Products of signs and of unit complex numbers have nothing to vary; Gaussian ones have (3^p - 1)."""
    x, y = rng.standard_normal((2, 5, 1))
    kernel = rf.PolynomialKernel(degree=3)
    for estimator in (
        rf.ProductSketchFeatures(kernel),
        rf.ProductSketchFeatures(kernel, entries="complex"),
        rf.TensorSketchFeatures(kernel),
    ):
        assert np.all(estimator.variance(x, y, num_features=4) == 0)
        estimate = estimator.draw(1, 4, rng=rng).estimate(x, y)
        np.testing.assert_allclose(estimate, kernel(x, y), rtol=1e-13)
    gaussian = rf.ProductSketchFeatures(kernel, entries="gaussian")
    np.testing.assert_allclose(gaussian.relative_variance(x, y, num_features=2), (3**3 - 1) / 2, rtol=EXACT)


def test_widths():
    estimator = rf.ProductSketchFeatures(entries="complex")
    with pytest.raises(ValueError, match=r"cannot have 7 features; nearest: 6, 8\."):
        estimator.draw(3, 7)
    with pytest.raises(ValueError, match=r"cannot have 7 features; nearest: 6, 8\."):
        estimator.variance(X, Y, num_features=7)
    assert rf.ProductSketchFeatures().draw(3, 7, rng=0).arrays["rows"].shape == (14, 3)


# TensorSketch ------------------------------------------------------------------------------------------------------


def sketches_of(buckets, signs, num):
    """Dense count sketches: (..., p, d) hashes and signs -> (..., p · num, d)."""
    dense = (buckets[..., None, :] == np.arange(num)[:, None]) * signs[..., None, :]
    return dense.reshape(*buckets.shape[:-2], -1, buckets.shape[-1]).astype(float)


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("degree", [1, 2])
def test_tensor_sketch_moments_by_enumeration(degree, num):
    """Over all hashes and signs, for even and odd numbers of buckets."""
    estimator = rf.TensorSketchFeatures(rf.PolynomialKernel(degree))
    buckets = outcomes(range(num), 2 * degree).reshape(-1, 1, degree, 2)
    signs = outcomes((-1.0, 1.0), 2 * degree).reshape(1, -1, degree, 2)
    buckets, signs = (np.broadcast_to(a, np.broadcast_shapes(buckets.shape, signs.shape)) for a in (buckets, signs))
    sketches = sketches_of(buckets.reshape(-1, degree, 2), signs.reshape(-1, degree, 2), num)
    assert_moments(estimator, num, {"sketches": sketches}, X, Y)


def test_count_sketch_variance():
    """Degree 1: (|x|²|y|² + (x·y)² - 2 Σ x_l² y_l²)/D (Charikar, Chen & Farach-Colton 2002)."""
    estimator = rf.TensorSketchFeatures(rf.PolynomialKernel(1))
    expected = ((X @ X) * (Y @ Y) + (X @ Y) ** 2 - 2 * np.sum(X**2 * Y**2)) / 7
    assert float(estimator.variance(X, Y, num_features=7)) == pytest.approx(expected, rel=EXACT)


def test_tensor_sketch_is_a_convolution():
    phi = rf.TensorSketchFeatures(rf.PolynomialKernel(degree=2)).draw(2, 5, rng=3)
    first, second = phi.arrays["sketches"][:5] @ X, phi.arrays["sketches"][5:] @ X
    expected = [sum(first[i] * second[(j - i) % 5] for i in range(5)) for j in range(5)]
    np.testing.assert_allclose(phi(X[None])[0], expected, rtol=0, atol=EXACT)


def test_one_sign_in_each_column_of_a_count_sketch():
    phi = rf.TensorSketchFeatures(rf.PolynomialKernel(degree=3, offset=1.0)).draw(6, 4, rng=0, batch_shape=(2,))
    sketches = phi.arrays["sketches"].reshape(2, 3, 4, 7)
    assert np.all(np.sum(np.abs(sketches), axis=-2) == 1)
    assert set(np.unique(sketches)) == {-1, 0, 1}


def test_tensor_sketch_equals_that_of_scikit_learn(rng):
    """With the same hashes and signs."""
    reason = "scikit-learn is the oracle of this test: pip install '.[test]'"
    sketcher = pytest.importorskip("sklearn.kernel_approximation", reason=reason).PolynomialCountSketch(
        degree=3, gamma=0.7, coef0=0.4, n_components=16, random_state=0
    )
    x = rng.standard_normal((5, 6))
    expected = sketcher.fit_transform(x)
    sketches = sketches_of(sketcher.indexHash_, sketcher.bitHash_, 16)
    estimator = rf.TensorSketchFeatures(rf.PolynomialKernel(degree=3, offset=0.4, scale=0.7))
    phi = rf.FeatureMap(estimator, 6, 16, {"sketches": sketches})
    np.testing.assert_allclose(phi(x), expected, rtol=0, atol=1e-12 * np.max(np.abs(expected)))


def test_tensor_sketch_is_nearly_complex_products(rng):
    """The same variance up to a term of D^{-2}, which favors odd D where c > 0."""
    x, y = np.abs(rng.standard_normal((2, 20, 6)))
    kernel = rf.PolynomialKernel(degree=3)
    product = rf.ProductSketchFeatures(kernel, entries="complex")
    sketch = rf.TensorSketchFeatures(kernel)
    ratios = [sketch.variance(x, y, num_features=d) / product.variance(x, y, num_features=d) - 1 for d in (512, 1024)]
    assert np.all(ratios[0] > 0)
    np.testing.assert_allclose(ratios[0], 2 * ratios[1], rtol=1e-9)
    scaled = [num * sketch.variance(x, y, num_features=num) for num in (96, 97)]
    assert np.all(scaled[1] < scaled[0])


# scale, precision, edges -------------------------------------------------------------------------------------------

POLYNOMIAL = [*(rf.ProductSketchFeatures(rf.PolynomialKernel(25), entries=e) for e in ENTRIES)]
POLYNOMIAL += [rf.TensorSketchFeatures(rf.PolynomialKernel(25))]


@pytest.mark.parametrize("estimator", POLYNOMIAL, ids=repr)
@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_high_degrees_of_long_and_short_vectors(estimator, size):
    """Values do not depend on the length; float32 would leave its range at 10^150."""
    x = np.array([[0.6, 0.8]], dtype=np.float32)
    phi = estimator.draw(2, 4, rng=0, like=x)
    unit, scaled = phi.queries(x), phi.queries(np.float32(size) * x)
    assert scaled.values.dtype == np.float32
    np.testing.assert_allclose(scaled.values, unit.values, rtol=1e-4, atol=1e-5 * np.max(np.abs(unit.values)))
    np.testing.assert_allclose(scaled.log_scale, 25 * math.log(size), rtol=1e-5)
    x = x.astype(np.float64)
    closed = estimator.variance_over_reference(size * x, x / size, 4)
    np.testing.assert_allclose(closed, estimator.variance_over_reference(x, x, 4), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", [*POLYNOMIAL, rf.MaclaurinFeatures(), rf.OpticalFeatures()], ids=repr)
def test_zero_and_spoilt_vectors(estimator):
    """A zero vector has the kernel's value, without variance unless the kernel is no single power; NaN stays NaN."""
    x = np.array([[0.0, 0.0], [0.6, 0.8], [np.nan, 0.0]])
    phi = estimator.draw(2, 4, rng=0)
    with np.errstate(invalid="ignore"):
        estimate = phi.estimate(x, x)
    assert np.array_equal(np.isnan(estimate), [[False, False, True]] * 2 + [[True] * 3])
    y = x[:2]
    if not isinstance(estimator, rf.MaclaurinFeatures):
        assert np.all(estimate[0, :2] == 0)
        assert np.all(estimator.variance(y[0], y, num_features=4) == 0)
        assert np.all(estimator.mean(y[0], y) == 0)
    else:
        np.testing.assert_allclose(estimator.variance(y[0], y, num_features=4), (math.e - 1) / 4, rtol=EXACT)
    assert np.isnan(estimator.variance(x[2], y, num_features=4)).all()
    assert np.isnan(estimator.mean(x[2], y)).all()


# random Maclaurin --------------------------------------------------------------------------------------------------


def law_of(coefficients, law, rate):
    """Probabilities of degrees, written once more."""
    weights = [(a if law == "series" else float(a > 0)) * rate**n for n, a in enumerate(coefficients)]
    return np.array(weights) / sum(weights)


@pytest.mark.parametrize(("law", "rate"), [("series", 1.0), ("series", 0.4), ("geometric", 0.5)])
def test_maclaurin_moments_by_enumeration(law, rate):
    """Over all degrees and all signs."""
    coefficients = (0.3, 0.0, 1.2, 0.5)
    estimator = rf.MaclaurinFeatures(rf.DotProductKernel(coefficients), degree_law=law, rate=rate)
    signs = outcomes((-1.0, 1.0), 6).reshape(-1, 3, 2)
    maps, probabilities = [], []
    for n, q in enumerate(law_of(coefficients, law, rate)):
        if q == 0:
            continue
        one = np.ones((len(signs), 1, 1))
        arrays = {"degrees": n * one, "weights": math.sqrt(coefficients[n] / q) * one}
        for k in range(3):
            arrays |= {f"rows_{k}": signs[:, k : k + 1] * (k < n), f"constants_{k}": one * (k >= n)}
        maps.append(arrays)
        probabilities.append(np.full(len(signs), q / len(signs)))
    arrays = {name: np.concatenate([m[name] for m in maps]) for name in maps[0]}
    assert_moments(estimator, 1, arrays, X, Y, np.concatenate(probabilities))


@pytest.mark.parametrize(
    "estimator",
    [
        rf.MaclaurinFeatures(),
        rf.MaclaurinFeatures(rf.SoftmaxKernel(scale=0.7), degree_law="geometric", rate=0.6),
        rf.MaclaurinFeatures(rf.GaussianKernel(length_scale=1.3), rate=0.8),
    ],
    ids=lambda value: repr(value) if isinstance(value, rf.Estimator) else "",
)
def test_maclaurin_variance_of_the_infinite_series(estimator):
    """Term by term, with 40 digits."""
    x, y = estimator.kernel.unit(X), estimator.kernel.unit(Y)
    rate = mpmath.mpf(estimator.rate)
    cross = (x @ y) ** 2 - np.sum(x**2 * y**2)
    t = mpmath.mpf((x @ x) * (y @ y) + 2 * cross)

    def probability(n):
        if estimator.degree_law == "series":
            return mpmath.exp(-rate) * rate**n / mpmath.factorial(n)
        return (1 - rate) * rate**n

    with mpmath.workdps(40):
        second = mpmath.nsum(lambda n: t**n / mpmath.factorial(n) ** 2 / probability(n), [0, mpmath.inf])
        expected = second / mpmath.exp(2 * mpmath.mpf(x @ y)) - 1
    assert float(estimator.relative_variance(X, Y, num_features=1)) == pytest.approx(float(expected), rel=1e-11)


@pytest.mark.parametrize(
    ("estimator", "ratio"),
    [
        (rf.MaclaurinFeatures(degree_law="geometric"), lambda n: 2.0 ** (n + 1) / math.factorial(n)),
        (rf.MaclaurinFeatures(rate=1.5), lambda n: math.exp(1.5) / 1.5**n),
    ],
    ids=lambda value: repr(value) if isinstance(value, rf.Estimator) else "",
)
def test_maclaurin_features_are_those_of_the_formula(estimator, ratio):
    """Degrees from the arrays, products by loops; batches, where the number of factors differs, included."""
    phi = estimator.draw(2, 7, rng=5, batch_shape=(3,))
    features = phi.queries(X[None]).to_array()
    assert features.shape == (3, 1, 7)
    degrees = phi.arrays["degrees"][:, 0].astype(int)
    assert np.all(np.diff(degrees, axis=-1) <= 0)
    assert len({*degrees.ravel().tolist()}) > 2
    for batch, i in np.ndindex(3, 7):
        n = degrees[batch, i]
        product = math.sqrt(ratio(n) / 7)
        for k in range(n):
            row = phi.arrays[f"rows_{k}"][batch, i]
            assert np.all(np.abs(row) == 1)
            product *= row @ X
        assert features[batch, 0, i] == pytest.approx(product, rel=EXACT)


@pytest.mark.parametrize(
    ("estimator", "law"),
    [
        (rf.MaclaurinFeatures(rate=1.5), lambda n: math.exp(-1.5) * 1.5**n / math.factorial(n)),
        (rf.MaclaurinFeatures(degree_law="geometric"), lambda n: 2.0 ** -(n + 1)),
        (rf.MaclaurinFeatures(rf.DotProductKernel((1.0, 0.0, 3.0))), lambda n: (0.25, 0.0, 0.75, 0.0)[n]),
    ],
    ids=lambda value: repr(value) if isinstance(value, rf.Estimator) else "",
)
def test_degrees_have_their_law(estimator, law):
    """Counts of 20 000 degrees within 5 binomial standard deviations: false alarm below 1e-5."""
    degrees = estimator.draw(1, 20_000, rng=1).arrays["degrees"]
    for n in range(4):
        p = law(n)
        assert abs(np.sum(degrees == n) - 20_000 * p) <= 5 * math.sqrt(20_000 * p * (1 - p))


def test_the_best_rate_is_the_root_of_t():
    """`f(√T)²`, which no other law of degrees goes below (Cauchy-Schwarz)."""
    kernel = rf.DotProductKernel((1.0, 0.5, 2.0, 0.1))
    t = (X @ X) * (Y @ Y) + 2 * ((X @ Y) ** 2 - np.sum(X**2 * Y**2))

    def second_moment(**options):
        estimator = rf.MaclaurinFeatures(kernel, **options)
        return estimator.variance(X, Y, num_features=1) + kernel.pairwise(X, Y) ** 2

    best = second_moment(rate=math.sqrt(t))
    root = math.sqrt(t)
    assert float(best) == pytest.approx((1 + 0.5 * root + 2 * root**2 + 0.1 * root**3) ** 2, rel=EXACT)
    for rate in (0.2, 0.5, 0.9 * root, 1.1 * root, 1.0, 3.0):
        assert second_moment(rate=rate) > best
        assert rate >= 1 or second_moment(rate=rate, degree_law="geometric") > best


def test_truncated_series_approach_the_softmax_kernel():
    softmax = rf.MaclaurinFeatures()
    truncated = [rf.MaclaurinFeatures(rf.DotProductKernel.exponential(n)) for n in (2, 20)]
    variances = [e.variance(X, Y, num_features=3) for e in truncated]
    exact = softmax.variance(X, Y, num_features=3)
    assert abs(variances[0] / exact - 1) > 0.01
    assert float(variances[1]) == pytest.approx(float(exact), rel=1e-12)


def test_maclaurin_joint_moment():
    """`E[S_j S_k]`: degrees by their series, signs by enumeration."""
    y = np.array([[0.5, 0.9], [-0.8, 0.2], [0.3, -0.4]])
    estimator = rf.MaclaurinFeatures(rate=0.7)
    w = outcomes((-1.0, 1.0), 2)
    one_factor = np.einsum("r,rj,rk->jk", (w @ X) ** 2, w @ y.T, w @ y.T) / len(w)
    moment = sum(math.exp(0.7) / 0.7**n / math.factorial(n) * one_factor**n for n in range(60))
    kernels = np.exp(y @ X)
    expected = np.log(moment / np.outer(kernels, kernels))
    np.testing.assert_allclose(estimator.log_joint_moment(X, y), expected, rtol=0, atol=1e-11)
    own = estimator.relative_variance(X, y, num_features=1)
    np.testing.assert_allclose(np.expm1(np.diag(expected)), own, rtol=1e-10)
    with pytest.raises(rf.NoClosedForm, match=r"randfeat\.montecarlo"):
        rf.MaclaurinFeatures(degree_law="geometric").log_joint_moment(X, y)


def test_attention_through_maclaurin_features(rng):
    q, k, v = rng.standard_normal((3, 6, 4)) / 2
    phi = rf.MaclaurinFeatures().draw(4, 64, rng=0)
    weights = phi.estimate(q, k)
    expected = weights @ v / np.sum(weights, axis=-1, keepdims=True)
    np.testing.assert_allclose(rf.linear_attention(q, k, v, phi, scale=1.0), expected, rtol=1e-10)


# optical features --------------------------------------------------------------------------------------------------


def permanent(matrix):
    """Sum over permutations."""
    count = len(matrix)
    orders = np.array(list(itertools.permutations(range(count))))
    return float(np.sum(np.prod(matrix[np.arange(count), orders], axis=-1)))


@pytest.mark.parametrize("s", [1, 2, 3])
def test_optical_kernel_is_a_permanent(s):
    """`E|z_1|²..|z_n|²` of a complex Gaussian vector is the permanent of its covariance (Wick)."""
    vectors = np.array([X] * s + [Y] * s)
    assert float(rf.OpticalKernel(s).pairwise(X, Y)) == pytest.approx(permanent(vectors @ vectors.T), rel=EXACT)


def test_optical_variance_in_closed_form():
    """`|x|⁴|y|⁴ (3 + 14c² + 3c⁴)` for s = 1, and the permanent of order 8 for s = 2."""
    size, c2 = (X @ X) * (Y @ Y), (X @ Y) ** 2 / ((X @ X) * (Y @ Y))
    variance = rf.OpticalFeatures().variance(X, Y, num_features=3)
    assert float(variance) == pytest.approx(size**2 * (3 + 14 * c2 + 3 * c2**2) / 3, rel=EXACT)
    vectors = np.array([X] * 4 + [Y] * 4)
    variance = rf.OpticalFeatures(rf.OpticalKernel(2)).variance(X, Y, num_features=1)
    mean = rf.OpticalKernel(2).pairwise(X, Y)
    assert float(variance + mean**2) == pytest.approx(permanent(vectors @ vectors.T), rel=EXACT)


@pytest.mark.parametrize("s", [0.05, 0.25, 0.5, 1.5, 2.7, 11.5])
def test_optical_kernel_against_mpmath(s):
    """`Γ(1+s)² 2F1(-s, -s; 1; c²)` from right angles to parallel vectors, and as an integral over |r·x|²."""
    kernel = rf.OpticalKernel(s)
    for angle in (0.0, 1e-9, 1e-5, 1e-3, 0.1, 0.5, 1.0, 1.5, math.pi / 2, 2.0, math.pi):
        y = np.array([math.cos(angle), math.sin(angle)])
        hypergeometric = mpmath.hyp2f1(-s, -s, 1, mpmath.cos(angle) ** 2)
        expected = float(mpmath.gamma(1 + s) ** 2 * hypergeometric)
        assert float(kernel.pairwise(np.array([1.0, 0.0]), y)) == pytest.approx(expected, rel=1e-12)
    if s < 3:  # |r·y|² given |r·x|² is a noncentral chi-square of two degrees of freedom
        c2 = mpmath.mpf(X @ Y) ** 2 / mpmath.mpf((X @ X) * (Y @ Y))

        def given(u):
            return (1 - c2) ** s * mpmath.hyp1f1(-s, 1, -c2 * u / (1 - c2))

        integral = mpmath.quad(lambda u: u**s * mpmath.exp(-u) * given(u), [0, 1, 5, 20, mpmath.inf])
        expected = mpmath.gamma(1 + s) * integral * mpmath.mpf((X @ X) * (Y @ Y)) ** s
        assert float(kernel.pairwise(X, Y)) == pytest.approx(float(expected), rel=1e-9)


def test_modulus_kernel():
    """s = 1/2 from right angles, π/4, to parallel, 1."""
    kernel = rf.OpticalKernel(0.5)
    x = np.array([3.0, 4.0])
    assert float(kernel.pairwise(x, np.array([-4.0, 3.0]))) == pytest.approx(25 * math.pi / 4, rel=EXACT)
    assert float(kernel.pairwise(x, x)) == pytest.approx(25, rel=EXACT)


def test_optical_features_are_those_of_the_formula():
    phi = rf.OpticalFeatures(rf.OpticalKernel(0.75)).draw(2, 4, rng=0)
    rows = phi.arrays["rows"] + 1j * phi.arrays["imaginary_rows"]
    np.testing.assert_allclose(phi(Y[None])[0], [abs(r @ Y) ** 1.5 / 2 for r in rows], rtol=EXACT)


def test_optical_kurtosis():
    """Fourth central moment from the kernels of exponent s .. 4s, at right angles: products of factorials squared."""
    x, y = np.eye(2)
    m = [math.factorial(n) ** 2 for n in range(5)]
    fourth = m[4] - 4 * m[3] * m[1] + 6 * m[2] * m[1] ** 2 - 3 * m[1] ** 4
    assert float(rf.OpticalFeatures().row_kurtosis(x, y)) == pytest.approx(fourth / (m[2] - 1) ** 2, rel=EXACT)


# kernels -----------------------------------------------------------------------------------------------------------

NEW_KERNELS = [
    rf.PolynomialKernel(),
    rf.PolynomialKernel(degree=3, offset=0.5, scale=2.0),
    rf.DotProductKernel((0.5, 0.0, 1.0, 2.0)),
    rf.DotProductKernel((0.0, 1.0)),
    rf.OpticalKernel(2),
    rf.OpticalKernel(0.5),
]


@pytest.mark.parametrize("kernel", NEW_KERNELS, ids=repr)
def test_kernels_agree_with_themselves(xp, kernel):
    """Gram matrix, pairs, size times relative value; on every array library, in its precision."""
    x, y = np.random.default_rng(0).standard_normal((2, 4, 3))
    y[0] = 0.0
    pairs = kernel.pairwise(x[:, None], y)
    gram = compiled(xp, kernel)
    np.testing.assert_allclose(to_numpy(gram(asarray(xp, x), asarray(xp, y))), pairs, rtol=1e-9, atol=1e-12)
    single = [asarray(xp, side, "float32") for side in (x, y)]
    assert gram(*single).dtype == single[0].dtype
    size, relative = kernel.log_reference(x[:, None], y), kernel.relative(x[:, None], y)
    assert np.all(np.isfinite(size))
    assert np.all(np.abs(relative) <= 1 + 1e-12)
    np.testing.assert_allclose(np.exp(size) * relative, pairs, rtol=1e-9, atol=1e-12)
    assert eval(repr(kernel), vars(rf)) == kernel


def test_kernels_by_loops():
    inner = X[0] * Y[0] + X[1] * Y[1]
    assert float(rf.PolynomialKernel(3, 0.5, 2.0).pairwise(X, Y)) == pytest.approx((2 * inner + 0.5) ** 3, rel=EXACT)
    series = rf.DotProductKernel((0.5, 0.0, 1.0, 2.0))
    assert float(series.pairwise(X, Y)) == pytest.approx(0.5 + inner**2 + 2 * inner**3, rel=EXACT)
    unit = rf.PolynomialKernel(3, 0.5, 2.0).unit
    assert unit(X) @ unit(Y) == pytest.approx(2 * inner + 0.5, rel=EXACT)
    assert unit(X).shape == (3,)


def test_sizes_do_not_overflow():
    x = np.array([1e100, 0.0])
    kernel = rf.PolynomialKernel(50)
    assert float(kernel.log_reference(x, x)) == pytest.approx(100 * 100 * math.log(10))
    assert float(kernel.relative(x, np.array([1e50, 1e50]))) == pytest.approx(2.0**-25)
    series = rf.DotProductKernel((1.0,) * 11)
    assert float(series.log_reference(x, x)) == pytest.approx(2000 * math.log(10))


def test_what_is_refused():
    for degree in (0, -1, True):
        with pytest.raises(ValueError, match="degree must be a positive integer"):
            rf.PolynomialKernel(degree)
    with pytest.raises(TypeError, match=r"degree must be a positive integer, got 2\.0"):
        rf.PolynomialKernel(2.0)
    with pytest.raises(ValueError, match="offset must be"):
        rf.PolynomialKernel(offset=-1.0)
    with pytest.raises(ValueError, match="not negative"):
        rf.DotProductKernel((1.0, -0.5))
    with pytest.raises(ValueError, match="a positive one"):
        rf.DotProductKernel((0.0, 0.0))
    with pytest.raises(TypeError, match="coefficients must be numbers, got 'a' for degree 1"):
        rf.DotProductKernel((1.0, "a"))
    with pytest.raises(ValueError, match="exponent must be positive"):
        rf.OpticalKernel(0)
    with pytest.raises(ValueError, match="entries must be"):
        rf.ProductSketchFeatures(entries="uniform")
    with pytest.raises(TypeError, match="kernel must be a PolynomialKernel"):
        rf.TensorSketchFeatures(rf.SoftmaxKernel())
    with pytest.raises(TypeError, match="DotProductKernel or of the softmax family"):
        rf.MaclaurinFeatures(rf.PolynomialKernel())
    with pytest.raises(ValueError, match="degree_law must be"):
        rf.MaclaurinFeatures(degree_law="poisson")
    with pytest.raises(ValueError, match="below 1 for the geometric law"):
        rf.MaclaurinFeatures(degree_law="geometric", rate=1.0)
