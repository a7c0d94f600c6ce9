"""Regularized softmax features and the kernel of normalized inputs (RFA)."""

import math

import mpmath
import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, to_numpy

X, Y = np.array([0.6, -0.3, 0.5]), np.array([0.4, 0.2, 0.7])
CONSTANT = [rf.Orthogonal(norms="constant"), rf.Antithetic(rf.Orthogonal(norms="constant"))]


def test_mean_and_variance_are_hypergeometric():
    """`Λ 0F1(; d/2; du/4)` and `Λ² [0F1(; d/2; du) - 0F1(; d/2; du/4)²]`, with 40 digits."""
    estimator = rf.RegularizedSoftmaxFeatures()
    u, size = np.sum((X + Y) ** 2), math.exp(-(X @ X + Y @ Y) / 2)
    with mpmath.workdps(40):
        first, second = (mpmath.hyp0f1(mpmath.mpf(3) / 2, 3 * u * k * k / 4) for k in (1, 2))
    assert estimator.mean(X, Y) == pytest.approx(size * float(first), rel=1e-13)
    assert estimator.variance(X, Y, num_features=1) == pytest.approx(size**2 * float(second - first**2), rel=1e-12)
    bias = float(first) * size - math.exp(X @ Y)
    assert estimator.mse(X, Y, num_features=1) == pytest.approx(size**2 * float(second - first**2) + bias**2, rel=1e-12)


@pytest.mark.parametrize(
    ("dim", "ratios"),
    [
        (16, (0.987, 0.952, 0.837, 0.547, 0.152)),
        (64, (0.996, 0.986, 0.945, 0.810, 0.471)),
        (256, (0.999, 0.996, 0.985, 0.942, 0.795)),
    ],
)
def test_bias_shrinks_with_the_dimension(dim, ratios):
    """SMREG/SM at u = 1, 2, 4, 8, 16, to three digits; low everywhere; `1 - u²/(4(d+2))` for small u."""
    estimator = rf.RegularizedSoftmaxFeatures()
    for u, ratio in zip((1, 2, 4, 8, 16), ratios, strict=True):
        x = np.full(dim, math.sqrt(u / dim) / 2)
        assert round(float(estimator.mean(x, x) / math.exp(x @ x)), 3) == ratio
    x = np.full(dim, math.sqrt(0.01 / dim) / 2)
    assert 1 - estimator.mean(x, x) / math.exp(x @ x) == pytest.approx(1e-4 / (4 * (dim + 2)), rel=0.01)


def quadrature():
    """Rows on the sphere of radius √3 with their weights."""
    height, weights = np.polynomial.legendre.leggauss(50)
    angle = np.arange(100) * 2 * np.pi / 100
    radius = np.sqrt(1 - height**2)[:, None]
    rows = [radius * np.cos(angle), radius * np.sin(angle), np.broadcast_to(height[:, None], (50, 100))]
    return math.sqrt(3) * np.stack(rows, -1).reshape(-1, 3), np.repeat(weights / 200, 100)


def test_joint_moment_and_kurtosis_by_quadrature():
    rows, weights = quadrature()
    keys = np.array([Y, [-0.5, 0.3, 0.2]])
    s = np.exp(rows @ (X + keys).T - np.sum((X + keys) ** 2, -1) / 2)
    estimator = rf.RegularizedSoftmaxFeatures()
    np.testing.assert_allclose(estimator.log_joint_moment(X, keys), np.log((s.T * weights) @ s), atol=1e-12)
    error = s[:, 0] - weights @ s[:, 0]
    expected = weights @ error**4 / (weights @ error**2) ** 2
    assert estimator.row_kurtosis(X, Y) == pytest.approx(expected, rel=1e-9)
    assert np.all(np.isfinite(estimator.row_kurtosis(np.array([X, 9 * X]), np.array([-X, 9 * X]))))


@pytest.mark.parametrize("kernel", [rf.SoftmaxKernel(2.0), rf.GaussianKernel(1.3)], ids=repr)
def test_the_bound_holds_and_is_reached(kernel):
    """No estimate of 2000 draws of one row is above it; the row along x + y reaches it."""
    estimator = rf.RegularizedSoftmaxFeatures(kernel)
    bound = estimator.bound(X, Y)
    estimates = estimator.draw(3, 1, rng=0, batch_shape=(2000,)).estimate(X[None], Y[None])
    assert np.max(estimates) <= bound * (1 + 1e-12)
    assert np.max(estimates) > 0.95 * bound
    row = math.sqrt(3) * (X + Y) / np.linalg.norm(X + Y)
    along = rf.FeatureMap(estimator, 3, 1, {"rows": row[None]})
    assert along.estimate(X[None], Y[None])[0, 0] == pytest.approx(bound, rel=1e-13)


def test_is_positive_features_on_constant_rows():
    for coupling in CONSTANT:
        ours, theirs = (cls(coupling=coupling) for cls in (rf.RegularizedSoftmaxFeatures, rf.PositiveFeatures))
        assert np.array_equal(ours.draw(3, 6, rng=0)(X[None]), theirs.draw(3, 6, rng=0)(X[None]))
        assert ours.mse(X, Y, num_features=6) == theirs.mse(X, Y, num_features=6)
    assert ours.bounded
    assert not theirs.bounded


@pytest.mark.parametrize("coupling", ["independent", "orthogonal", "simplex", "antithetic", "centered"])
def test_other_couplings_are_refused(coupling):
    with pytest.raises(ValueError, match=r"do not all have the length √d; use Orthogonal\(norms='constant'\)"):
        rf.RegularizedSoftmaxFeatures(coupling=coupling)


# the kernel of normalized inputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normalized_kernel_values(xp, dtype):
    """By loops; zero vectors, lengths near the ends of the range, and NaN in its own row only."""
    big, small = (1e30, 1e-30) if dtype == "float32" else (1e300, 1e-300)
    x = np.array([[1.0, 2.0], [3 * big, -4 * big], [3 * small, 4 * small], [0.0, 0.0], [np.nan, 1.0]])
    unit = np.array([[1.0, 2.0] / np.sqrt(5), [0.6, -0.8], [0.6, 0.8], [0.0, 0.0]])
    for scale in (1.0, 0.7, (0.5, 2.0)):
        kernel = rf.NormalizedSoftmaxKernel(scale)
        with np.errstate(invalid="ignore"):
            ours = to_numpy(kernel(asarray(xp, x, dtype), asarray(xp, x, dtype)))
        scaled = unit / np.array(scale)
        np.testing.assert_allclose(ours[:4, :4], np.exp(scaled @ scaled.T), rtol=1e-5 if dtype == "float32" else 1e-13)
        assert np.all(np.isnan(ours[4]))
        assert np.all(np.isnan(ours[:, 4]))
        pairs = to_numpy(kernel.pairwise(asarray(xp, x[:4], dtype), asarray(xp, x[3::-1], dtype)))
        np.testing.assert_allclose(pairs, ours[np.arange(4), np.arange(3, -1, -1)], rtol=1e-5)


def test_normalized_kernel_is_one_of_the_softmax_family():
    """Moments are those of the softmax kernel at the units; lengths do not matter."""
    x, y = np.random.default_rng(0).standard_normal((2, 5, 4))
    kernel = rf.NormalizedSoftmaxKernel(0.8)
    for cls in (rf.PositiveFeatures, rf.TrigonometricFeatures, rf.HyperbolicFeatures):
        ours, plain = cls(kernel), cls()
        units = kernel.unit(x), kernel.unit(y)
        np.testing.assert_allclose(np.linalg.norm(units[0], axis=-1), 1 / 0.8, rtol=1e-14)
        for name in ("mean", "variance"):
            expected = getattr(plain, name)(*units, num_features=8)
            np.testing.assert_allclose(getattr(ours, name)(3 * x, y / 7, num_features=8), expected, rtol=1e-11)
        estimate = plain.draw(4, 8, rng=0).estimate(*units)
        np.testing.assert_allclose(ours.draw(4, 8, rng=0).estimate(3 * x, y / 7), estimate, rtol=1e-11)


def test_random_feature_attention():
    """RFA's features are [sin, cos] of rows N(0, I)/σ on unit vectors; ours have the factor e^{1/σ²}."""
    sigma = 1.3
    q, k = np.random.default_rng(1).standard_normal((2, 6, 4))
    v = np.random.default_rng(2).standard_normal((6, 3))
    estimator = rf.TrigonometricFeatures(rf.NormalizedSoftmaxKernel(sigma), "independent")
    phi = estimator.draw(4, 64, rng=0)
    w = phi.arrays["rows"] / sigma
    unit = [side / np.linalg.norm(side, axis=-1, keepdims=True) for side in (q, k)]
    a, b = (np.concatenate([np.sin(u @ w.T), np.cos(u @ w.T)], -1) / math.sqrt(32) for u in unit)
    gram = a @ b.T
    np.testing.assert_allclose(phi.estimate(q, k), math.exp(1 / sigma**2) * gram, rtol=1e-12, atol=1e-12)
    output = rf.linear_attention(q, k, v, phi, scale=1.0)
    np.testing.assert_allclose(output, gram @ v / gram.sum(-1, keepdims=True), rtol=1e-8)


def test_gradients_of_the_normalization():
    """Finite at the zero vector; orthogonal to the input elsewhere, for a length changes nothing."""
    torch = pytest.importorskip("torch")
    x = torch.tensor([[0.0, 0.0], [3.0, -4.0]], dtype=torch.float64, requires_grad=True)
    (rf.NormalizedSoftmaxKernel(1.0).unit(x) * torch.tensor([1.0, 2.0], dtype=torch.float64)).sum().backward()
    assert bool(torch.all(torch.isfinite(x.grad)))
    assert abs(float(x.grad[1] @ x[1].detach())) < 1e-12
    np.testing.assert_allclose(x.grad[1].numpy(), (np.array([1.0, 2.0]) + np.array([0.6, -0.8])) / 5, rtol=1e-12)


def test_length_scales():
    assert rf.NormalizedSoftmaxKernel([1, 2.0]) == rf.NormalizedSoftmaxKernel((1.0, 2.0))
    assert hash(rf.NormalizedSoftmaxKernel([1, 2.0])) == hash(rf.NormalizedSoftmaxKernel((1.0, 2.0)))
    for wrong, error in ((0.0, ValueError), ("one", TypeError), ((1.0, -1.0), ValueError), ((), ValueError)):
        with pytest.raises(error, match="length_scale"):
            rf.NormalizedSoftmaxKernel(wrong)
    with pytest.raises(ValueError, match="length_scale has 2 dimensions, the input has 3"):
        rf.NormalizedSoftmaxKernel((1.0, 2.0))(np.ones((1, 3)), np.ones((1, 3)))
