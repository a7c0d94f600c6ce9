"""Arc-cosine, angular and activation kernels and their features, against independent quadrature and published forms."""

import math

import mpmath
import numpy as np
import pytest
from numpy.polynomial.legendre import leggauss
from scipy import special as scipy_special

import randfeat as rf
from randfeat.kernels.activations import ACTIVATIONS
from randfeat.kernels.arc_cosine import angular_polynomials
from randfeat.kernels.projected_pair import ProjectedPair
from randfeat.special import erf, erfcx, log_normal_cdf, normal_cdf
from tests.arrays import asarray, eps_of, to_numpy

X = np.array([0.9, -0.4, 0.2])
Y = np.array([0.5, 0.7, -0.6])

# f in plain NumPy and SciPy, as in the papers.
FUNCTIONS = {
    "abs": np.abs,
    "cos": np.cos,
    "elu_plus_one": lambda a: np.where(a > 0, a + 1, np.exp(np.minimum(a, 0))),
    "erf": scipy_special.erf,
    "exp": np.exp,
    "gelu": lambda a: a * scipy_special.ndtr(a),
    "identity": lambda a: a,
    "normal_cdf": scipy_special.ndtr,
    "relu": lambda a: np.maximum(a, 0),
    "relu2": lambda a: np.maximum(a, 0) ** 2,
    "sigmoid": scipy_special.expit,
    "sign": np.sign,
    "sin": np.sin,
    "square": np.square,
    "step": lambda a: np.heaviside(a, 0.0),
    "tanh": np.tanh,
}


def iterated(h, x, y, nodes=160, reach=11.0):
    """`E[h(a) h(b)]`: over a, and inside over b given a, both cut at 0; no polar coordinates, no symmetry."""
    t, w = leggauss(nodes)

    def cut(low, middle, high):
        """Nodes and weights on both sides of `middle`, along a last axis."""
        middle = np.clip(middle, low, high)[..., None]
        sides = [((b - a) / 2 * t + (a + b) / 2, (b - a) / 2 * w) for a, b in ((low, middle), (middle, high))]
        return (np.concatenate(parts, axis=-1) for parts in zip(*sides, strict=True))

    g, weights = cut(-reach, np.zeros(()), reach)
    a = np.linalg.norm(x) * g
    mean = x @ y / np.linalg.norm(x) * g
    spread = math.sqrt(max(y @ y - (x @ y / np.linalg.norm(x)) ** 2, 0.0))
    inner, inner_weights = cut(-reach, -mean / spread, reach)
    b = mean[:, None] + spread * inner
    expected = np.sum(h(b) * np.exp(-(inner**2) / 2) * inner_weights, axis=-1)
    return np.sum(h(a) * expected * np.exp(-(g**2) / 2) * weights) / (2 * math.pi)


def at_angle(theta):
    """Unit vectors in the plane, and their exact angle."""
    x, y = np.array([1.0, 0.0]), np.array([math.cos(theta), math.sin(theta)])
    return x, y, mpmath.atan2(float(y[1]), float(y[0]))


def test_every_activation_has_an_oracle():
    assert set(FUNCTIONS) == set(ACTIVATIONS)


# special functions -------------------------------------------------------------------------------------------------

SPECIAL = {
    "erf": (erf, mpmath.erf, np.linspace(-7, 7, 281), lambda a: 2.0),
    "erf, small": (erf, mpmath.erf, np.logspace(-300, -1, 60), lambda a: 2.0),
    "erfcx": (erfcx, lambda a: mpmath.exp(a * a) * mpmath.erfc(a), np.logspace(-12, 5, 200), lambda a: 6.0),
    "normal_cdf": (normal_cdf, mpmath.ncdf, np.linspace(-37, 9, 231), lambda a: 8 + a * a / 2),
    "log_normal_cdf": (log_normal_cdf, lambda a: mpmath.log(mpmath.ncdf(a)), np.linspace(-90, 8, 199), lambda a: 24.0),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_functions_to_a_few_units_in_the_last_place(name):
    ours, exact, points, allowed = SPECIAL[name]
    with mpmath.workdps(60):
        for point, value in zip(points, ours(points), strict=True):
            reference = exact(mpmath.mpf(float(point)))
            error = abs(float((mpmath.mpf(float(value)) - reference) / np.spacing(abs(float(reference)))))
            assert error <= allowed(point), f"{name}({point}): {error} units"


def test_special_functions_on_every_library(xp):
    x = np.linspace(-6, 6, 97)
    for dtype in ("float32", "float64"):
        there = asarray(xp, x, dtype)
        host = to_numpy(there)
        for ours, theirs in ((erf, scipy_special.erf), (normal_cdf, scipy_special.ndtr)):
            values = ours(there)
            assert values.dtype == there.dtype
            np.testing.assert_allclose(to_numpy(values), theirs(host), rtol=64 * eps_of(dtype))


# arc-cosine and angular kernels ------------------------------------------------------------------------------------


def test_polynomials_are_the_published_ones():
    """Cho & Saul 2009 print orders 0 to 2."""
    assert angular_polynomials(1) == ((1.0,), (0.0, 1.0))
    assert angular_polynomials(2) == ((0.0, 3.0), (1.0, 0.0, 2.0))
    assert angular_polynomials(3) == ((4.0, 0.0, 11.0), (0.0, 9.0, 0.0, 6.0))
    assert angular_polynomials(4) == ((0.0, 55.0, 0.0, 50.0), (9.0, 0.0, 72.0, 0.0, 24.0))


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("theta", [0.0, 1e-7, 0.4, math.pi / 2, 2.5, 3.1, math.pi - 1e-7])
def test_arc_cosine_is_the_sector_integral(order, theta):
    """`J_n = 2^n n! ∫_0^{π-θ} (sin t sin(π-θ-t))^n dt`, to a few eps of the value at θ = 0."""
    x, y, exact_angle = at_angle(theta)
    p = mpmath.pi - exact_angle
    integral = mpmath.quad(lambda t: (mpmath.sin(t) * mpmath.sin(p - t)) ** order, [0, p / 2, p])
    expected = float(2**order * mpmath.factorial(order) * integral / mpmath.pi)
    kernel = rf.ArcCosineKernel(order)
    top = math.prod(range(1, 2 * order, 2))
    for value in (kernel.pairwise(x, y), kernel(x[None], y[None])[0, 0]):
        assert abs(value - expected) <= 16 * eps_of("float64") * top
        assert value >= 0
    assert kernel.pairwise(3 * x, y / 2) == pytest.approx(value * 1.5**order, rel=1e-13)


@pytest.mark.parametrize("theta", [1e-12, 1e-9, 1e-4, 1.0, 3.0, 3.14159])
def test_small_angles_keep_their_digits(theta):
    """`acos` of a float64 cosine would return 0 or 1.5e-8 for the first two."""
    x, y, exact_angle = at_angle(theta)
    for kernel, scale in ((rf.AngularKernel(), 2), (rf.ArcCosineKernel(order=0), 1)):
        for value in (kernel.pairwise(x, y), kernel(x[None], y[None])[0, 0]):
            assert abs(value - float(1 - scale * exact_angle / mpmath.pi)) <= 4e-16
    theta_out, supplement = ProjectedPair(x, y, gram=False).angles
    assert float(theta_out) == pytest.approx(float(exact_angle), rel=1e-15)
    assert float(supplement) == pytest.approx(float(mpmath.pi - exact_angle), rel=1e-15)


@pytest.mark.parametrize(
    "kernel",
    [
        rf.AngularKernel(),
        rf.ArcCosineKernel(0),
        rf.ArcCosineKernel(2),
        *map(rf.ActivationKernel, ("abs", "gelu", "relu", "sign", "sin", "tanh")),
    ],
    ids=repr,
)
def test_gram_is_pairwise_and_zero_vectors_are_defined(xp, rng, kernel):
    x = rng.standard_normal((2, 3, 4))
    y = np.concatenate([x[:, :2], -x[:, :1], np.zeros((2, 1, 4))], axis=1)
    gram = to_numpy(kernel(asarray(xp, x), asarray(xp, y)))
    pairs = to_numpy(kernel.pairwise(asarray(xp, x[:, :, None]), asarray(xp, y[:, None])))
    assert gram.shape == (2, 3, 4)
    np.testing.assert_allclose(gram, pairs, rtol=1e-12, atol=1e-12 * np.max(np.abs(pairs)))
    if not isinstance(kernel, rf.ActivationKernel) or kernel.function.degree is not None:
        assert np.all(gram[..., 3] == 0)
        assert to_numpy(kernel.pairwise(asarray(xp, np.zeros(4)), asarray(xp, np.zeros(4)))) == 0
    single = to_numpy(kernel(asarray(xp, x, "float32"), asarray(xp, y, "float32")))
    np.testing.assert_allclose(single, pairs, rtol=2e-5, atol=1e-3 if "sign" in repr(kernel) else 4e-5 * np.max(pairs))


def test_lengths_beyond_the_range_of_squares():
    x, y = 1e200 * X, 1e-200 * Y
    assert rf.AngularKernel().pairwise(x, y) == pytest.approx(rf.AngularKernel().pairwise(X, Y), rel=1e-14)
    assert rf.ArcCosineKernel(1).pairwise(x, y) == pytest.approx(rf.ArcCosineKernel(1).pairwise(X, Y), rel=1e-14)
    short = (1e-25 * X).astype("float32")
    assert rf.AngularKernel().pairwise(short, short) == 1


def test_nan_spoils_its_own_column_only():
    y = np.stack([Y, X])
    y[0, 1] = np.nan
    for kernel in (rf.AngularKernel(), rf.ArcCosineKernel(0), rf.ArcCosineKernel(1), rf.ActivationKernel("tanh")):
        gram = kernel(X[None], y)
        assert np.isnan(gram[0, 0])
        assert gram[0, 1] == pytest.approx(kernel.pairwise(X, X), rel=1e-12)


def test_gradients_at_parallel_and_zero_inputs(torch):
    """∇_x k_1(x, y) is x at y = x, where the angle itself has no derivative; 0 at zero."""
    for place, expected in ((X, X), (0 * X, 0 * X)):
        x = torch.tensor(place, requires_grad=True)
        gram = rf.ArcCosineKernel(order=1)(x[None], torch.tensor(X[None]))
        gram.sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), expected, atol=1e-7)


# activation kernels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation_kernels_are_their_definition(name, offset):
    for x, y in ((X, Y), (2.5 * X, -Y), (0.1 * X, X + 0.3 * Y)):
        expected = iterated(lambda a: FUNCTIONS[name](a) + offset, x, y)
        size = iterated(lambda a: (FUNCTIONS[name](a) + offset) ** 2, x, y) ** 0.5
        kernel = rf.ActivationKernel(name, offset=offset)
        assert abs(kernel.pairwise(x, y) - expected) < 2e-13 * size


def test_activation_kernels_relate():
    pairwise = {name: rf.ActivationKernel(name).pairwise for name in ACTIVATIONS}
    for name, order in (("step", 0), ("relu", 1), ("relu2", 2)):
        assert pairwise[name](X, Y) == pytest.approx(rf.ArcCosineKernel(order).pairwise(X, Y) / 2, rel=1e-15)
    assert pairwise["sign"](X, Y) == rf.AngularKernel().pairwise(X, Y)
    assert pairwise["abs"](X, Y) == pytest.approx(2 * (pairwise["relu"](X, Y) + pairwise["relu"](X, -Y)), rel=1e-14)
    assert pairwise["sigmoid"](X, Y) == pytest.approx((1 + pairwise["tanh"](X / 2, Y / 2)) / 4, rel=1e-13)
    assert pairwise["exp"](X, Y) == pytest.approx(math.exp(np.sum((X + Y) ** 2) / 2), rel=1e-14)
    assert pairwise["cos"](X, Y) + pairwise["sin"](X, Y) == pytest.approx(math.exp(-np.sum((X - Y) ** 2) / 2))


def test_the_performer_offset():
    """`½ k_1 + ε (|x| + |y|)/√2π + ε²`."""
    value = rf.ActivationKernel("relu", offset=1e-3).pairwise(X, Y)
    norms = np.linalg.norm(X) + np.linalg.norm(Y)
    expected = rf.ArcCosineKernel(1).pairwise(X, Y) / 2 + 1e-3 * norms / math.sqrt(2 * math.pi) + 1e-6
    assert value == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("name", "norm", "allowed"),
    [
        ("tanh", 3, 1e-11),
        ("tanh", 8, 1e-8),
        ("tanh", 60, 1e-5),
        ("sigmoid", 60, 1e-5),
        ("elu_plus_one", 8, 1e-12),
        ("elu_plus_one", 60, 1e-9),
    ],
)
def test_accuracy_of_the_quadrature(name, norm, allowed):
    """As the page states it; sharp functions against 2000 × 2000 nodes."""
    for theta in (0.3, 2.0):
        x, y, _ = at_angle(theta)
        expected = iterated(FUNCTIONS[name], norm * x, norm * y, nodes=1000)
        size = rf.ActivationKernel(name).pairwise(norm * x, norm * x)
        assert abs(rf.ActivationKernel(name).pairwise(norm * x, norm * y) - expected) < allowed * size


# features ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_features_in_plain_loops(name):
    estimator = rf.ActivationFeatures(rf.ActivationKernel(name, offset=0.2))
    phi = estimator.draw(3, 5, rng=1)
    for i, row in enumerate(phi.arrays["rows"]):
        expected = (FUNCTIONS[name](math.fsum(row * X)) + 0.2) / math.sqrt(5)
        assert phi(X[None])[0, i] == pytest.approx(expected, rel=1e-12)


def test_arc_cosine_and_sign_features_in_plain_loops():
    for order in range(4):
        phi = rf.ArcCosineFeatures(rf.ArcCosineKernel(order)).draw(3, 5, rng=1)
        for i, row in enumerate(phi.arrays["rows"]):
            a = math.fsum(row * X)
            assert phi(X[None])[0, i] == pytest.approx(math.sqrt(2 / 5) * a**order if a > 0 else 0.0, rel=1e-12)
    phi = rf.SignFeatures().draw(3, 4, rng=1)
    np.testing.assert_array_equal(phi(X[None])[0], np.sign(phi.arrays["rows"] @ X) / 2)


@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_variances_are_their_definition(name, offset):
    """One independent row, and one antithetic pair of rows."""
    estimator = rf.ActivationFeatures(rf.ActivationKernel(name, offset=offset), "independent")
    mean = estimator.kernel.pairwise(X, Y)

    def h(a):
        return FUNCTIONS[name](a) + offset

    second, cross = iterated(lambda a: h(a) ** 2, X, Y), iterated(lambda a: h(a) * h(-a), X, Y)
    fourth = iterated(lambda a: h(a) ** 4, X, Y) ** 0.5
    variance = estimator.variance(X, Y, num_features=1)
    assert abs(variance - (second - mean**2)) < 2e-12 * fourth
    antithetic = rf.ActivationFeatures(estimator.kernel, "antithetic").variance(X, Y, num_features=2)
    assert abs(antithetic - max((second + cross) / 2 - mean**2, 0.0)) < 2e-12 * fourth
    np.testing.assert_allclose(estimator.mean(X, Y), mean, rtol=1e-13)


@pytest.mark.parametrize("order", range(4))
def test_arc_cosine_variance(order):
    """`2 k_2n - k_n²`, and half of the first term without the second for antithetic rows."""
    k, k2 = (rf.ArcCosineKernel(n).pairwise(X, Y) for n in (order, 2 * order))
    estimator = rf.ArcCosineFeatures(rf.ArcCosineKernel(order), "independent")
    assert estimator.variance(X, Y, num_features=3) == pytest.approx((2 * k2 - k**2) / 3, rel=1e-13)
    antithetic = rf.ArcCosineFeatures(rf.ArcCosineKernel(order), "antithetic")
    assert antithetic.variance(X, Y, num_features=2) == pytest.approx(k2 - k**2, rel=1e-13)


def test_rows_on_the_sphere():
    """Orders 0 and 1 stay exact, order 2 is scaled by d/(d+2); the contract measures mean and variance."""
    coupling = rf.Orthogonal(norms="constant")
    for order, factor in ((0, 1.0), (1, 1.0), (2, 3 / 5), (3, 9 / 35)):
        estimator = rf.ArcCosineFeatures(rf.ArcCosineKernel(order), coupling)
        assert estimator.mean(X, Y) == pytest.approx(factor * estimator.kernel.pairwise(X, Y), rel=1e-14)
    estimator = rf.ActivationFeatures(rf.ActivationKernel("relu2"), coupling)
    assert estimator.mean(X, Y) == pytest.approx(0.6 * estimator.kernel.pairwise(X, Y), rel=1e-14)
    report = rf.testing.check_estimator(rf.ArcCosineFeatures(rf.ArcCosineKernel(2), coupling), num_rows=[1], rng=0)
    assert report.notes == ()
    with pytest.raises(rf.NoClosedForm, match=r"not known for rows that are not N\(0, I\); use randfeat.montecarlo"):
        rf.ActivationFeatures(rf.ActivationKernel("tanh"), coupling).mean(X, Y)


def test_what_is_open_says_so():
    message = r"at two different rows is not known .* use independent or antithetic rows, or randfeat.montecarlo"
    for estimator in (rf.ArcCosineFeatures(), rf.SignFeatures(), rf.ActivationFeatures()):
        assert estimator.mean(X, Y) == pytest.approx(estimator.kernel.pairwise(X, Y), rel=1e-13)
        with pytest.raises(rf.NoClosedForm, match=message):
            estimator.variance(X, Y, num_features=2)
        assert estimator.variance(X, Y, num_features=1) > 0


def test_exponentials_are_positive_features_without_their_envelope():
    for coupling in ("independent", "orthogonal", "simplex", rf.Orthogonal(norms="constant")):
        estimator = rf.ActivationFeatures(rf.ActivationKernel("exp"), coupling)
        softmax = rf.PositiveFeatures(coupling=coupling)
        for moment in ("relative_variance", "relative_mse"):
            ours, theirs = (getattr(e, moment)(X, Y, num_features=3) for e in (estimator, softmax))
            assert ours == pytest.approx(theirs, rel=1e-13)
    phi = estimator.draw(3, 4, rng=0, batch_shape=())
    far = phi.queries(1e4 * X[None])
    assert np.all(np.isfinite(far.log_scale))
    assert rf.ActivationFeatures(rf.ActivationKernel("exp"), "independent").relative_variance(
        50 * X, -50 * X, num_features=1
    ) == pytest.approx(0.0, abs=1e-12)


def test_exact_cases():
    antithetic = rf.ArcCosineFeatures(rf.ArcCosineKernel(0), "antithetic")
    assert antithetic.variance(X, 3 * X, num_features=4) == 0
    assert np.all(antithetic.draw(3, 4, rng=0).estimate(X[None], 3 * X[None]).round(14) == 1)
    sign = rf.SignFeatures(coupling="independent")
    for y, value in ((2 * X, 1), (-X, -1), (0 * X, 0)):
        assert sign.variance(X, y, num_features=5) == 0
        assert sign.draw(3, 5, rng=0).estimate(X[None], y[None]).item() == pytest.approx(value, abs=1e-15)
    relu = rf.ActivationFeatures(coupling="independent")
    for y in (-X, 0 * X):
        assert relu.variance(X, y, num_features=5) == 0
        assert relu.draw(3, 5, rng=0).estimate(X[None], y[None]).item() == 0


def test_what_is_positive_and_bounded():
    features = {name: rf.ActivationFeatures(rf.ActivationKernel(name)) for name in ACTIVATIONS}
    offset = {name: rf.ActivationFeatures(rf.ActivationKernel(name, offset=0.1)) for name in ACTIVATIONS}
    positive = {"exp", "sigmoid", "normal_cdf", "elu_plus_one"}
    assert {name for name, e in features.items() if e.positive} == positive
    never_negative = positive | {"relu", "relu2", "abs", "square", "step"}
    assert {name for name, e in offset.items() if e.positive} == never_negative
    assert {name for name, e in features.items() if e.bounded} == {
        "cos", "erf", "normal_cdf", "sigmoid", "sign", "sin", "step", "tanh",
    }  # fmt: skip
    assert rf.ArcCosineFeatures(rf.ArcCosineKernel(0)).bounded
    assert not rf.ArcCosineFeatures().bounded


@pytest.mark.parametrize("name", ["sigmoid", "normal_cdf", "exp", "elu_plus_one"])
def test_positive_features_do_not_underflow(name):
    """Convex combinations where plain features would all be 0, in float32."""
    far = np.array([[[0.0, 0.0, 900.0]], [[0.0, 0.0, -900.0]]], dtype="float32")
    phi = rf.ActivationFeatures(rf.ActivationKernel(name)).draw(3, 4, rng=0, like=far)
    value = np.array([[2.0], [4.0]], dtype="float32")
    keys = np.array([[0.0, 0.0, -900.0], [0.0, 900.0, 0.0]], dtype="float32")
    with np.errstate(under="ignore"):
        output = rf.linear_attention(far, keys, value, phi, scale=1.0)
    assert np.all((output >= 2) & (output <= 4))


# attention ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e-3])
@pytest.mark.parametrize("is_causal", [False, True])
def test_relu_attention_converges_to_kernel_attention(rng, offset, is_causal):
    """Root mean square error at 16384 features: 1/16 of that at 64, within a factor 2, and below 0.02."""
    q, k, v = rng.standard_normal((3, 20, 6))
    kernel = rf.ActivationKernel("relu", offset=offset)
    exact = rf.kernel_attention(q, k, v, kernel, is_causal=is_causal, scale=1.0)
    errors = []
    for num_features in (64, 16384):
        phi = rf.ActivationFeatures(kernel).draw(6, num_features, rng=0, batch_shape=(4,))
        output = rf.linear_attention(q[None], k[None], v[None], phi, is_causal=is_causal, scale=1.0)
        errors.append(np.sqrt(np.mean((output - exact) ** 2)))
    assert errors[1] < 0.02
    assert 8 < errors[0] / errors[1] < 32


@pytest.mark.parametrize("is_causal", [False, True])
def test_queries_whose_weights_all_vanish_give_zeros(is_causal):
    """As in exact attention with the ReLU kernel, which is 0 at opposite inputs; finite without warnings."""
    q, k, v = np.ones((3, 1)), np.array([[-1.0], [-2.0], [1.0]]), np.array([[5.0], [6.0], [7.0]])
    phi = rf.ActivationFeatures(coupling="antithetic").draw(1, 6, rng=0)
    output = rf.linear_attention(q, k, v, phi, is_causal=is_causal, scale=1.0)
    exact = rf.kernel_attention(q, k, v, phi.estimator.kernel, is_causal=is_causal, scale=1.0)
    np.testing.assert_allclose(output, exact, rtol=1e-14)
    np.testing.assert_array_equal(exact[:, 0], [0, 0, 7] if is_causal else [7, 7, 7])


# errors ------------------------------------------------------------------------------------------------------------


def test_errors_name_what_was_expected():
    with pytest.raises(ValueError, match="unknown activation 'swish'; expected one of 'abs', 'cos'"):
        rf.ActivationKernel("swish")
    with pytest.raises(ValueError, match="unknown activation"):
        rf.ActivationKernel(np.tanh)
    with pytest.raises(ValueError, match=r"offset must be finite and at least 0, got -0\.1"):
        rf.ActivationKernel("relu", offset=-0.1)
    with pytest.raises(TypeError, match="offset must be a number, at least 0, got 'small'"):
        rf.ActivationKernel("relu", offset="small")
    for order, error in ((-1, ValueError), (1.5, TypeError), (True, ValueError)):
        with pytest.raises(error, match="order must be an integer"):
            rf.ArcCosineKernel(order)
    with pytest.raises(TypeError, match="kernel must be a ActivationKernel"):
        rf.ActivationFeatures(rf.AngularKernel())
    with pytest.raises(ValueError, match=r"pass scale=1\.0 to use the kernel as it is"):
        rf.kernel_attention(X[None], X[None], X[None], rf.ActivationKernel())
