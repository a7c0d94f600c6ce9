"""Sums, products, multiples, length-scales: kernels by definition, estimators by their parts and by quadrature."""

import functools
import math
import operator
from dataclasses import dataclass, field

import mpmath
import numpy as np
import pytest

import randfeat as rf
from randfeat.estimators.product import even_factors
from tests.arrays import asarray, eps_of, to_numpy

GAUSSIAN, SOFTMAX = rf.GaussianKernel(1.5), rf.SoftmaxKernel(0.4)
SCALES = (0.5, None, 2.0)
POSITIVE = rf.PositiveFeatures(SOFTMAX, coupling="independent")
WAVES = rf.TrigonometricFeatures(GAUSSIAN, coupling="independent")


@dataclass(frozen=True)
class LinearKernel(rf.Kernel):
    """The inner product x·y, of either sign, of size |x| |y| (1 for zero vectors)."""

    def _gram(self, x, y):
        return x @ y.swapaxes(-1, -2)

    def _pairwise(self, x, y):
        return (x * y).sum(axis=-1)

    def log_reference(self, x, y):
        norms = (np.linalg.norm(side, axis=-1) for side in (x, y))
        return functools.reduce(operator.add, (np.log(np.where(n == 0, 1.0, n)) for n in norms))


@dataclass(frozen=True)
class Projections(rf.Estimator):
    """`φ_i(x) = w_i·x/√m`: variance `(|x|²|y|² + (x·y)²)/m` for independent rows."""

    kernel: rf.Kernel = LinearKernel()
    coupling: rf.Coupling | str = field(default_factory=rf.Independent)

    def query_features(self, arrays, x):
        values = x @ arrays["rows"].swapaxes(-1, -2) / math.sqrt(arrays["rows"].shape[-2])
        return rf.Features(values, 0 * values[..., :1])

    def relative_row_mean(self, x, y, law):
        return self.kernel.relative(x, y)

    def relative_covariance(self, x, y, law, *, same_row):
        norms = (np.linalg.norm(side, axis=-1) for side in (x, y))
        sized = functools.reduce(operator.mul, ((n > 0) * 1.0 for n in norms))
        return sized + self.kernel.relative(x, y) ** 2


def ard_gaussian(x, y):
    return np.exp(-((x[0] - y[0]) ** 2 / 0.25 + (x[2] - y[2]) ** 2 / 4) / (2 * 1.5**2))


COMBINED = [
    (GAUSSIAN + SOFTMAX, lambda x, y: np.exp(-((x - y) @ (x - y)) / 4.5) + np.exp(0.4 * x @ y)),
    (GAUSSIAN * SOFTMAX, lambda x, y: np.exp(-((x - y) @ (x - y)) / 4.5) * np.exp(0.4 * x @ y)),
    (2.5 * GAUSSIAN, lambda x, y: 2.5 * np.exp(-((x - y) @ (x - y)) / 4.5)),
    (rf.ArdKernel(GAUSSIAN, SCALES), ard_gaussian),
    (
        3 * (rf.ArdKernel(GAUSSIAN, SCALES) + 0.5 * SOFTMAX) * SOFTMAX,
        lambda x, y: 3 * (ard_gaussian(x, y) + 0.5 * np.exp(0.4 * x @ y)) * np.exp(0.4 * x @ y),
    ),
]


@pytest.mark.parametrize(("kernel", "formula"), COMBINED, ids=lambda k: repr(k) if isinstance(k, rf.Kernel) else "")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_are_their_formulas(xp, kernel, formula, dtype, rng):
    x, y = (asarray(xp, rng.standard_normal((n, 3)), dtype) for n in (3, 4))
    expected = np.array([[formula(a, b) for b in to_numpy(y)] for a in to_numpy(x)])
    rtol = 400 * eps_of(dtype)
    np.testing.assert_allclose(to_numpy(kernel(x, y)), expected, rtol=rtol)
    np.testing.assert_allclose(to_numpy(kernel.pairwise(x[:, None, :], y[None, :, :])), expected, rtol=rtol)
    np.testing.assert_allclose(to_numpy(kernel.log_gram(x, y)), np.log(expected), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(to_numpy(kernel.log_pairwise(x[:, None, :], y)), np.log(expected), rtol=rtol, atol=rtol)
    assert kernel(x, y).dtype == x.dtype
    np.testing.assert_allclose(kernel.relative(x[:, None, :], y), 1, rtol=rtol)  # positive parts: the size is the value
    assert kernel.has_logarithm


def test_logarithms_do_not_overflow():
    """`e^{900} + e^{901}`, and an overflowing factor against a vanishing one, with 30 digits of mpmath as reference."""
    x = np.array([[30.0, 0.0]])
    total = (rf.SoftmaxKernel() + rf.SoftmaxKernel(901 / 900)).log_gram(x, x)
    with mpmath.workdps(30):
        assert float(total.item()) == pytest.approx(float(mpmath.log(mpmath.exp(900) + mpmath.exp(901))), rel=1e-15)
    x, y = np.array([[40.0]]), np.array([[30.0]])
    product = rf.SoftmaxKernel() * rf.GaussianKernel(0.2)
    with np.errstate(over="ignore"):
        assert np.isinf(rf.SoftmaxKernel()(x, y)).all()
    assert product(x, y).item() == pytest.approx(math.exp(-50), rel=1e-12)
    assert product.pairwise(x, y).item() == pytest.approx(math.exp(-50), rel=1e-12)


def test_logarithms_need_those_of_all_parts():
    mixed = GAUSSIAN + LinearKernel()
    assert not mixed.has_logarithm
    assert not (2 * mixed * GAUSSIAN).has_logarithm
    x = np.ones((2, 3))
    for broken in (mixed.log_gram, mixed.log_pairwise, LinearKernel().log_gram):
        with pytest.raises(TypeError, match=r"LinearKernel\(\) gives no logarithms"):
            broken(x, x)
    np.testing.assert_allclose(mixed(x, -2 * x), np.exp(-27 / 4.5) - 6)
    np.testing.assert_allclose((mixed * LinearKernel())(x, -2 * x), -6 * (np.exp(-27 / 4.5) - 6))


def test_exact_attention_sums_logarithms():
    """Weights e^{800}, e^{801} and their like: normalized in logarithms, as for one softmax kernel."""
    kernel = rf.SoftmaxKernel() + 2 * rf.SoftmaxKernel(0.5)
    query, key = np.array([[40.0, 0.0]]), np.array([[20.0, 0.0], [20.025, 0.0]])
    out = rf.kernel_attention(query, key, np.array([[0.0], [1.0]]), kernel, scale=1.0)
    with mpmath.workdps(40):
        weights = [mpmath.exp(s) + 2 * mpmath.exp(s / 2) for s in (mpmath.mpf(800), mpmath.mpf(801))]
        expected = float(weights[1] / sum(weights))
    assert out.item() == pytest.approx(expected, rel=1e-12)


EXPRESSIONS = [kernel for kernel, _ in COMBINED] + [
    2 * WAVES,
    WAVES + POSITIVE,
    WAVES * POSITIVE,
    rf.ArdFeatures(WAVES, SCALES),
    0.5 * (WAVES + rf.ArdFeatures(POSITIVE, SCALES)) * POSITIVE,
]


@pytest.mark.parametrize("thing", EXPRESSIONS, ids=repr)
def test_expressions_are_values(thing):
    again = eval(repr(thing), {**vars(rf), **vars(rf.kernels)})
    assert again == thing
    assert hash(again) == hash(thing)
    assert thing + thing == thing + again
    assert thing != 2 * thing


@pytest.mark.parametrize(("a", "b", "c"), [(GAUSSIAN, SOFTMAX, 2 * SOFTMAX), (WAVES, POSITIVE, 2 * POSITIVE)])
def test_operators(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert (a * b) * c == a * (b * c)
    assert len(((a + b) + c).parts) == len(((a * b) * c).parts) == 3
    assert a * b + c != a * (b + c)
    assert 2 * a == a * 2 == 2.0 * a == np.float64(2) * a == np.int64(2) * a
    if isinstance(a, rf.Estimator):
        assert (a + b * c).kernel == a.kernel + b.kernel * c.kernel
        assert rf.SumFeatures((a + b, c)).kernel == a.kernel + b.kernel + c.kernel
        uneven = rf.SumFeatures((a, b), shares=(3, 1))
        assert (uneven + c).parts == (uneven, c)  # keeps its proportions
        with pytest.raises(TypeError, match="unsupported operand"):
            a + b.kernel
    for wrong in ("2", None, np.ones(2), [a], 1j):
        with pytest.raises(TypeError):
            a + wrong
        with pytest.raises(TypeError):
            a * wrong
        with pytest.raises(TypeError):
            wrong * a
    for zero in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="factor must be positive and finite"):
            zero * a
    with pytest.raises(TypeError, match="factor must be a positive number, got True"):
        True * a


def test_errors_of_construction():
    for cls, kind, part in (
        (rf.kernels.SumKernel, "Kernel", GAUSSIAN),
        (rf.ProductFeatures, "Estimator", WAVES),
    ):
        with pytest.raises(TypeError, match=f"parts must be a tuple of {kind}s"):
            cls(part)
        with pytest.raises(TypeError, match=f"parts must be a tuple of {kind}s"):
            cls(())
        with pytest.raises(TypeError, match=f"each part must be of type {kind}"):
            cls((part, "gaussian"))
    for cls, kind in ((rf.kernels.ScaledKernel, "Kernel"), (rf.ScaledFeatures, "Estimator")):
        with pytest.raises(TypeError, match=f"base must be an? {kind}"):
            cls("gaussian", 2.0)
    for scales, error, message in (
        ((), TypeError, "one positive number per dimension"),
        (2.0, TypeError, "one positive number per dimension"),
        ((1.0, "2"), TypeError, "each length_scale must be a positive number"),
        ((1.0, 0.0), ValueError, "each length_scale must be positive"),
        ((1.0, -2.0), ValueError, "each length_scale must be positive"),
        ((1.0, math.nan), ValueError, "each length_scale must be positive"),
    ):
        for make, base in ((rf.ArdKernel, GAUSSIAN), (rf.ArdFeatures, WAVES)):
            with pytest.raises(error, match=message):
                make(base, scales)
    assert rf.ArdFeatures(WAVES, [1, math.inf]) == rf.ArdFeatures(WAVES, (1.0, None))
    for shares in ((1,), (1, 2, 3), 3):
        with pytest.raises(ValueError, match="shares must be 2 integers, one for each part"):
            rf.SumFeatures((WAVES, POSITIVE), shares)
    with pytest.raises(ValueError, match="each share must be a positive integer"):
        rf.SumFeatures((WAVES, POSITIVE), (1, 0))


def test_length_scales_must_fit_the_inputs():
    kernel, x = rf.ArdKernel(GAUSSIAN, SCALES), np.zeros((2, 4))
    message = "the inputs have dimension 4, but there are 3 length_scales"
    for call in (kernel, kernel.pairwise, kernel.log_gram, kernel.log_reference, kernel.relative):
        with pytest.raises(ValueError, match=message):
            call(x, x)
    estimator = rf.ArdFeatures(WAVES, SCALES)
    with pytest.raises(ValueError, match=message):
        estimator.draw(4, 8, rng=0)
    with pytest.raises(ValueError, match=message):
        (estimator + WAVES).draw(4, 8, rng=0)
    with pytest.raises(ValueError, match=message):
        estimator.variance(x, x, num_features=8)


# estimators ------------------------------------------------------------------------------------------------------

CENTERED = rf.CenteredFeatures(query_shift=np.array([0.3, 0.0, 0.1]), key_shift=np.array([0.1, -0.2, 0.0]))


@pytest.mark.parametrize("parts", [(WAVES, POSITIVE), (POSITIVE, CENTERED, WAVES)], ids=repr)
def test_features_are_those_of_the_parts(parts, rng):
    """The parts are drawn one after the other from one generator; estimates add or multiply."""
    x, y = rng.standard_normal((2, 5, 3)) / 2
    for cls, combine in ((rf.SumFeatures, operator.add), (rf.ProductFeatures, operator.mul)):
        estimator = cls(parts)
        assert estimator.symmetric == all(part.symmetric for part in parts)
        width = 8 * estimator.features_per_row
        phi = estimator.draw(3, width, rng=np.random.default_rng(3))
        generator = np.random.default_rng(3)
        maps = [part.draw(3, own, rng=generator) for part, own in zip(parts, estimator.widths(width), strict=True)]
        expected = functools.reduce(combine, (own.estimate(x, y) for own in maps))
        np.testing.assert_allclose(phi.estimate(x, y), expected, rtol=1e-12, atol=1e-13)
        assert phi.queries(x).num_features == width


@dataclass(frozen=True)
class Weighted(rf.Independent):
    """Rows with unequal weights."""

    def weights(self, num_rows, dim):
        return np.arange(1.0, num_rows + 1) / (num_rows * (num_rows + 1) / 2)


def test_wrapped_features_are_those_of_the_base(rng):
    """The same seed draws the same rows; row weights are applied once."""
    x, y = rng.standard_normal((2, 5, 3)) / 2
    ell = np.array([0.5, np.inf, 2.0])
    for base in (WAVES, CENTERED, WAVES * POSITIVE, rf.PositiveFeatures(coupling=Weighted())):
        width = 6 * base.features_per_row
        phi = base.draw(3, width, rng=0)
        scaled = (7 * base).draw(3, width, rng=0)
        np.testing.assert_allclose(scaled.estimate(x, y), 7 * phi.estimate(x, y), rtol=1e-12)
        ard = rf.ArdFeatures(base, SCALES).draw(3, width, rng=0)
        np.testing.assert_allclose(ard.estimate(x, y), phi.estimate(x / ell, y / ell), rtol=1e-12)
        total = (base + WAVES).draw(3, 2 * width, rng=np.random.default_rng(5))
        generator = np.random.default_rng(5)
        parts = [part.draw(3, width, rng=generator).estimate(x, y) for part in (base, WAVES)]
        np.testing.assert_allclose(total.estimate(x, y), sum(parts), rtol=1e-12)


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def quadrature_moments(estimator, x, y):
    """Mean and variance over two independent one-dimensional rows, from the features on a Gauss-Hermite grid."""
    grid = np.stack(np.meshgrid(NODES, NODES, indexing="ij"), axis=-1).reshape(-1, 2)
    drawn = estimator.draw(1, estimator.features_per_row, rng=0)
    arrays = {name: np.ascontiguousarray(grid[:, i, None, None]) for i, name in enumerate(drawn.arrays)}
    assert len(arrays) == 2
    values = rf.FeatureMap(estimator, 1, drawn.num_features, arrays).estimate(x, y)[:, 0, 0]
    weights = np.outer(WEIGHTS, WEIGHTS).ravel()
    mean = weights @ values
    return mean, weights @ (values - mean) ** 2


@pytest.mark.parametrize(
    "estimator",
    [
        rf.SumFeatures((WAVES, 3 * POSITIVE), shares=(2, 1)),
        rf.ProductFeatures((WAVES, POSITIVE), shares=(2, 1)),
        POSITIVE * rf.PositiveFeatures(coupling="independent"),
        rf.ArdFeatures(rf.SumFeatures((2 * WAVES, POSITIVE), shares=(2, 1)), (0.7,)),
        0.1 * rf.ArdFeatures(POSITIVE, (0.7,)) * rf.PositiveFeatures(GAUSSIAN, coupling="independent"),
    ],
    ids=repr,
)
def test_moments_by_quadrature(estimator):
    for x, y in ((0.5, 0.4), (-0.8, 0.3), (0.0, 0.9)):
        x, y = np.array([[x]]), np.array([[y]])
        mean, variance = quadrature_moments(estimator, x, y)
        width = estimator.features_per_row
        assert mean == pytest.approx(estimator.kernel(x, y).item(), rel=1e-12)
        assert estimator.mean(x, y).item() == pytest.approx(mean, rel=1e-12)
        assert estimator.variance(x, y, num_features=width).item() == pytest.approx(variance, rel=1e-10)
        relative = estimator.relative_mse(x, y, num_features=width).item()
        assert relative == pytest.approx(variance / mean**2, rel=1e-10)


def test_parts_of_different_sizes_and_signs(rng):
    """A part with values of both signs, vanishing ones among them, relative to |x| |y|: exact moments by hand."""
    linear = Projections()
    x = np.array([[3e100, 0.0], [1e-120, 0.0], [1.0, 0.0], [0.0, 0.0], [0.6, 0.3]])
    y = np.array([[1e-101, 0.0], [1e119, 0.0], [0.0, 2.0], [1.0, 1.0], [0.2, -0.5]])
    inner = np.sum(x * y, axis=-1)
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    own = (norms**2 + inner**2) / 4  # of 4 features
    np.testing.assert_allclose(linear.variance(x, y, num_features=4), own, rtol=1e-12)
    bounded = rf.TrigonometricFeatures(rf.GaussianKernel(1e3), coupling="independent")
    x, y, inner, own = x[2:], y[2:], inner[2:], own[2:]
    added = bounded + linear
    other = bounded.variance(x, y, num_features=4)
    np.testing.assert_allclose(added.mean(x, y), inner + bounded.kernel.pairwise(x, y), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(added.variance(x, y, num_features=8), own + other, rtol=1e-12)
    product = bounded * linear
    k = bounded.kernel.pairwise(x, y)
    np.testing.assert_allclose(product.mean(x, y), inner * k, rtol=1e-12, atol=1e-15)
    expected = (own + inner**2) * (other + k**2) - inner**2 * k**2
    np.testing.assert_allclose(product.variance(x, y, num_features=16), expected, rtol=1e-12, atol=1e-30)
    huge = np.full(2, 1e70)  # the square of the product is out of range, its relative variance is not
    assert (linear * linear).relative_variance(huge, huge, num_features=4) == pytest.approx(3.0)  # (1 + 2/2)² - 1
    report = rf.testing.check_estimator(LINEAR_SUM, dim=3, num_rows=[1, 3], rng=0)
    assert report.notes == ()


@dataclass(frozen=True)
class DocumentedProjections(Projections):
    """Random projections. Shapes: (..., n, m). Exact: x·y. Error: (|x|²|y|² + (x·y)²)/m. Source: folklore."""


LINEAR_SUM = 0.5 * DocumentedProjections() + WAVES


def test_sizes_that_overflow():
    """Kernel values e^{900}, e^{450}: relative moments stay finite and exact, and so do features and their ratio."""
    x = np.array([30.0, 0.0])
    estimator = rf.SumFeatures(
        (
            rf.PositiveFeatures(coupling="independent"),
            rf.PositiveFeatures(rf.SoftmaxKernel(0.5), coupling="independent"),
        )
    )
    y = np.array([30.0, 1.0])  # |x - y| = 1
    assert estimator.relative_variance(x, -x, num_features=8) == 0  # exact at y = -x
    waves = rf.TrigonometricFeatures(coupling="independent") + rf.TrigonometricFeatures(
        rf.SoftmaxKernel(0.5), coupling="independent"
    )
    with mpmath.workdps(30):
        k1, k2 = mpmath.exp(900), mpmath.exp(450)
        v1, v2 = (2 * mpmath.sinh(t / 2) ** 2 / 4 for t in (mpmath.mpf(1), mpmath.mpf("0.5")))
        expected = float((v1 * k1**2 + v2 * k2**2) / (k1 + k2) ** 2)
        v1, v2 = 2 * v1, 2 * v2  # four features of each are two rows
        product = float((1 + v1) * (1 + v2) - 1)
    assert waves.relative_variance(x, y, num_features=16) == pytest.approx(expected, rel=1e-12)
    factors = waves.parts[0] * waves.parts[1]
    assert factors.relative_variance(x, y, num_features=16) == pytest.approx(product, rel=1e-12)
    with np.errstate(over="ignore"):
        assert np.isinf(np.exp(x @ y))
        assert np.isinf(estimator.variance(x, y, num_features=8))
    sample = rf.montecarlo.sample_errors(waves, x, y, num_features=64, num_draws=200, rng=0)
    assert np.abs(sample.errors).max() < 1


@pytest.mark.parametrize("combine", [operator.add, operator.mul], ids=["sum", "product"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_positive_parts_make_convex_attention(combine, dtype, rng):
    """Logits up to 1000 in float16: finite, inside the range of the values, causal or not."""
    estimator = combine(rf.PositiveFeatures(), rf.ArdFeatures(rf.HyperbolicFeatures(GAUSSIAN), (1.0, 0.5, 2.0, None)))
    assert estimator.positive
    assert not combine(rf.PositiveFeatures(), WAVES).positive
    query, key, value = (10 * rng.standard_normal((3, 2, 40, 4))).astype(dtype)
    phi = estimator.draw(4, 64, rng=0, like=query, batch_shape=(2,))
    for is_causal in (False, True):
        out = rf.linear_attention(query, key, value, phi, scale=1.0, is_causal=is_causal)
        assert out.dtype == query.dtype
        slack = 1e-2 if dtype == "float16" else 1e-4
        low, high = (extreme(value, axis=-2, keepdims=True) for extreme in (np.min, np.max))
        assert np.all((out >= low - slack) & (out <= high + slack))
    with pytest.raises(ValueError, match=r"pass scale=1\.0"):
        rf.linear_attention(query, key, value, phi)


def test_attention_estimates_that_of_the_kernel(rng):
    """The ratio of sums over an increasing number of features approaches exact attention of the kernel: the error of
    4096 features is below a quarter of that of 64 (an eighth is expected; the mean of 20 draws of each)."""
    query, key, value = rng.standard_normal((3, 30, 3)) / 2
    for estimator in (WAVES + 2 * POSITIVE, POSITIVE * rf.PositiveFeatures(GAUSSIAN)):
        exact = rf.kernel_attention(query, key, value, estimator.kernel, scale=1.0)
        errors = []
        for width in (36, 36 * 64) if isinstance(estimator, rf.SumFeatures) else (36, 36 * 64**2):
            draws = [
                rf.linear_attention(query, key, value, estimator.draw(3, width, rng=seed), scale=1.0)
                for seed in range(20 if width < 10_000 else 3)
            ]
            errors.append(np.sqrt(np.mean((np.stack(draws) - exact) ** 2)))
        assert errors[1] < errors[0] / 4


def test_signs_and_bounds_combine():
    class Bounded(rf.PositiveFeatures):
        bounded = True

    for combine in (operator.add, operator.mul):
        assert combine(Bounded(), Bounded()).bounded
        assert not combine(Bounded(), POSITIVE).bounded
        assert not combine(POSITIVE, CENTERED).symmetric
        assert combine(POSITIVE, WAVES).symmetric
    assert (2 * Bounded()).bounded
    assert not (2 * CENTERED).symmetric
    assert rf.ArdFeatures(POSITIVE, SCALES).positive
    with pytest.raises(TypeError, match="different query and key features"):
        (POSITIVE + CENTERED).draw(3, 4, rng=0)(np.zeros((1, 3)))


def test_heads_of_parametric_parts(rng):
    """One map for each head of the shifts; closed forms are those of each head alone."""
    shifts = rng.standard_normal((2, 3)) / 3
    centered = rf.CenteredFeatures(
        base=rf.PositiveFeatures(coupling="independent"), query_shift=shifts, key_shift=-shifts
    )
    x, y = rng.standard_normal((2, 2, 5, 3)) / 2
    for combine in (operator.add, operator.mul):
        estimator = 2 * combine(POSITIVE, centered)
        assert estimator.batch_shape == (2,)
        phi = estimator.draw(3, 16, rng=0)
        assert phi.batch_shape == (2,)
        assert phi.estimate(x, y).shape == (2, 5, 5)
        variance = estimator.variance(x, y, num_features=16)
        for head in range(2):
            alone = rf.CenteredFeatures(base=centered.base, query_shift=shifts[head], key_shift=-shifts[head])
            expected = (2 * combine(POSITIVE, alone)).variance(x[head], y[head], num_features=16)
            np.testing.assert_allclose(variance[head], expected, rtol=1e-12)
        with pytest.raises(ValueError, match="must end with"):
            estimator.draw(3, 16, rng=0, batch_shape=(3,))


def test_what_a_part_does_not_know_the_whole_does_not_know():
    x = np.zeros(1)
    for combine in (operator.add, operator.mul):
        estimator = combine(POSITIVE, rf.PosteriorFeatures())
        np.testing.assert_allclose(estimator.mean(x, x), estimator.kernel.pairwise(x, x))
        with pytest.raises(rf.NoClosedForm, match=r"randfeat\.montecarlo"):
            estimator.variance(x, x, num_features=4)
    with pytest.raises(rf.NoClosedForm):
        (2 * rf.PosteriorFeatures()).variance(x, x, num_features=4)
    rows = np.zeros((2, 1))
    with pytest.raises(rf.NoClosedForm, match=r"softmax family only, not for ScaledKernel.* kernel_attention"):
        rf.predict_attention_error(2 * POSITIVE, rows, rows, rows, 4, scale=1.0)
    with pytest.raises(rf.NoClosedForm, match="SumFeatures"):
        rf.montecarlo.gram_variance(POSITIVE + WAVES, x, x, num_features=8, num_draws=2, rng=0)


def test_multiples_and_length_scales_keep_rows():
    """Whatever is measured by rows is measured for the wrapped estimator as well."""
    x, y = np.array([0.5, 0.2, 0.1]), np.array([0.3, 0.9, -0.2])
    base = rf.PositiveFeatures(coupling="orthogonal")
    wrapped = 3 * rf.ArdFeatures(base, SCALES)
    measured = rf.montecarlo.gram_variance(wrapped, x, y, num_features=3, num_draws=400, rng=0)
    exact = wrapped.relative_variance(x, y, num_features=3)
    assert exact == base.relative_variance(x / [0.5, np.inf, 2.0], y / [0.5, np.inf, 2.0], num_features=3)
    assert abs(measured.z(exact)) < 5  # false alarm below 1e-6
    assert wrapped.row_kurtosis(x, y) == base.row_kurtosis(x / [0.5, np.inf, 2.0], y / [0.5, np.inf, 2.0])


# widths ----------------------------------------------------------------------------------------------------------


def test_widths_of_sums():
    phases = rf.TrigonometricFeatures(variant="phase", coupling="antithetic")
    estimator = rf.SumFeatures((WAVES, POSITIVE, phases), shares=(1, 3, 2))
    assert estimator.least_widths == (2, 6, 4)  # a multiple of two, of one, and two antithetic rows
    assert estimator.widths(36) == (6, 18, 12)
    assert rf.SumFeatures((WAVES, POSITIVE), shares=(4, 1)).least_widths == (4, 1)
    assert rf.SumFeatures((WAVES, POSITIVE)).least_widths == (2, 2)
    for wrong in (26, 28, 35):
        with pytest.raises(ValueError, match=rf"cannot have {wrong} features; nearest: 24, 36"):
            estimator.widths(wrong)
    with pytest.raises(ValueError, match="cannot have 1 features; nearest: 12"):
        estimator.draw(3, 1, rng=0)


def test_widths_of_products():
    assert [even_factors(n, 2) for n in (1, 7, 12, 36)] == [(1, 1), (1, 7), (3, 4), (6, 6)]
    assert [even_factors(n, 3) for n in (1, 8, 12, 27, 64)] == [(1, 1, 1), (2, 2, 2), (2, 2, 3), (3, 3, 3), (4, 4, 4)]
    estimator = rf.ProductFeatures((POSITIVE, WAVES), shares=(8, 3))
    assert estimator.features_per_row == 96
    assert estimator.widths(96) == (16, 6)
    assert estimator.widths(96 * 6) == (32, 18)
    with pytest.raises(ValueError, match="cannot have 480 features; nearest: 384, 576"):  # 5 is only 1 · 5
        estimator.widths(480)
    for num_features in range(1, 200):
        for widths in (even_factors(num_features, 2), even_factors(num_features, 3)):
            assert math.prod(widths) == num_features
            assert list(widths) == sorted(widths)
    for best in range(1, 400):  # against all factorizations
        a, b = even_factors(best, 2)
        assert b - a == min(best // f - f for f in range(1, best + 1) if best % f == 0 and f * f <= best)


def test_best_shares_are_the_best_split():
    """Against the variances of all splits of 24 features, for one pair and for several."""
    parts = (WAVES, 3 * POSITIVE, rf.PositiveFeatures(GAUSSIAN, coupling="independent"))
    pairs = np.random.default_rng(0).standard_normal((2, 4, 2)) / 2
    for x, y in ((pairs[0, 0], pairs[1, 0]), pairs):
        best = rf.SumFeatures.for_pairs(parts, x, y, num_features=24)
        found = np.mean(best.relative_variance(x, y, num_features=24))
        splits = [(2 * a, b, 24 - 2 * a - b) for a in range(1, 12) for b in range(1, 24 - 2 * a)]
        assert len(splits) > 100
        assert 24 % best.features_per_row == 0
        of_all = [np.mean(rf.SumFeatures(parts, s).relative_variance(x, y, num_features=24)) for s in splits]
        # Greedy steps are optimal for rows of one width; pairs of features may round one step off.
        assert found <= min(of_all) * 1.01
        assert found < 0.9 * np.mean(rf.SumFeatures(parts).relative_variance(x, y, num_features=24))
    equal = rf.SumFeatures.for_pairs((POSITIVE, POSITIVE), pairs[0], pairs[1], num_features=10)
    assert equal.shares == (1, 1)
    with pytest.raises(ValueError, match="needs at least 3 features, got 2"):
        rf.SumFeatures.for_pairs((WAVES, POSITIVE), pairs[0], pairs[1], num_features=2)


def test_widths_for_an_error():
    x, y = np.array([0.5, 0.1]), np.array([0.3, 0.4])
    for estimator in (WAVES + POSITIVE, WAVES * POSITIVE, 2 * WAVES, rf.ArdFeatures(WAVES, (1.0, 2.0))):
        width = int(rf.num_features_for(estimator, x, y, rel_error=0.05))
        assert estimator.relative_mse(x, y, num_features=width) <= 0.05 * 0.05**2
        assert estimator.relative_mse(x, y, num_features=estimator.features_per_row) > 0.05 * 0.05**2


def test_equal_relative_variances_are_the_best_product():
    """`Π (1 + v_i/D_i)` at fixed Π D_i is least for D_i proportional to v_i."""
    x = np.array([0.5, 0.5])
    parts = rf.PositiveFeatures(rf.SoftmaxKernel(1.0), "independent"), rf.PositiveFeatures(SOFTMAX, "independent")
    v = [float(part.relative_variance(x, x, num_features=1)) for part in parts]
    errors = {}
    for shares in ((4, 36), (9, 16), (12, 12), (16, 9), (18, 8), (24, 6), (36, 4)):
        estimator = rf.ProductFeatures(parts, shares)
        errors[shares] = float(estimator.relative_variance(x, x, num_features=144))
        assert errors[shares] == pytest.approx((1 + v[0] / shares[0]) * (1 + v[1] / shares[1]) - 1, rel=1e-12)
    best = min(errors, key=errors.get)
    nearest = min(errors, key=lambda s: abs(math.log(s[0] / s[1] / (v[0] / v[1]))))
    assert best == nearest != (12, 12)
