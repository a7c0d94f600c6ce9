"""Exact kernels: values, shapes, range, accuracy far from the origin, parameters."""

import dataclasses
import math

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, eps_of, same_bits, shape_of, to_numpy
from tests.cases import KERNELS


def naive_log(kernel, x, y):
    """The exponent by definition, (n, k), from differences and products of float64."""
    log = np.empty((len(x), len(y)))
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            if isinstance(kernel, rf.GaussianKernel):
                log[i, j] = -math.fsum((a - b) ** 2) / (2 * kernel.length_scale**2)
            else:
                log[i, j] = kernel.scale * math.fsum(a * b)
    return log


def gram_bound(kernel, x, y, dtype="float64"):
    """Bound on the error of the exponent of a Gram matrix, in the expanded form, about the mean of y."""
    d = x.shape[-1]
    if isinstance(kernel, rf.GaussianKernel):
        x, y = ((a - y.mean(axis=0)) / kernel.length_scale for a in (x, y))
        terms = np.sum(x**2, axis=-1)[:, None] + np.sum(y**2, axis=-1) + 2 * np.abs(x) @ np.abs(y).T
    else:
        terms = kernel.scale * np.abs(x) @ np.abs(y).T
    return (d + 8) * terms * eps_of(dtype)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(xp, rng, kernel, dtype):
    x, y = (asarray(xp, rng.standard_normal((n, 4)), dtype) for n in (3, 5))
    log = naive_log(kernel, to_numpy(x), to_numpy(y))
    bound = gram_bound(kernel, to_numpy(x), to_numpy(y), dtype)
    assert np.max(bound) < 1e3 * eps_of(dtype)
    assert np.all(np.abs(to_numpy(kernel.log_gram(x, y)) - log) <= bound)
    np.testing.assert_allclose(to_numpy(kernel(x, y)), np.exp(log), rtol=np.max(bound) + 8 * eps_of(dtype))
    pairs = kernel.log_pairwise(x[:, None, :], y[None, :, :])
    assert np.all(np.abs(to_numpy(pairs) - log) <= bound)
    np.testing.assert_allclose(
        to_numpy(kernel.pairwise(x[:, None, :], y[None, :, :])), np.exp(log), rtol=np.max(bound) + 8 * eps_of(dtype)
    )


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_envelope(kernel, rng):
    """`k(x, y) = e(x) exp(x'·y') e(y)` with `x' = unit(x)`: what makes one estimator serve every kernel."""
    x, y = rng.standard_normal((2, 6, 3))
    u, v = kernel.unit(x), kernel.unit(y)
    log = np.sum(u * v, -1) + kernel.log_envelope(np.sum(u * u, -1)) + kernel.log_envelope(np.sum(v * v, -1))
    np.testing.assert_allclose(kernel.log_pairwise(x, y), log, atol=1e-13)


def test_a_point_with_itself(xp, rng):
    """The Gaussian kernel of a point with itself is exactly 1, by pairs and in a Gram."""
    x = rng.standard_normal((6, 8)) + 3.0
    kernel = rf.GaussianKernel(0.7)
    assert same_bits(kernel.pairwise(asarray(xp, x), asarray(xp, x)), np.ones(6))
    diagonal = np.diagonal(to_numpy(kernel(asarray(xp, x), asarray(xp, x))))
    assert same_bits(diagonal, np.ones(6))
    np.testing.assert_allclose(rf.SoftmaxKernel(0.5).pairwise(x, x), np.exp(0.5 * np.sum(x * x, -1)), rtol=1e-14)


@pytest.mark.parametrize(("dtype", "offset"), [("float64", 1e7), ("float32", 1e3)])
def test_gaussian_gram_far_from_the_origin(xp, rng, dtype, offset):
    """Accuracy is that of the distances, not of the distance from the origin; a NaN in y spoils its column only."""
    x, y = (asarray(xp, offset + rng.standard_normal((n, 4)), dtype) for n in (5, 6))
    x_host, y_host = to_numpy(x), to_numpy(y)
    kernel = rf.GaussianKernel(1.5)
    log = naive_log(kernel, x_host, y_host)
    bound = 2 * gram_bound(kernel, x_host, y_host, dtype)  # about the mean, or the mean of all but one
    assert np.max(bound) < 1e3 * eps_of(dtype)
    assert np.max(np.abs(log)) > 1
    assert np.all(np.abs(to_numpy(kernel.log_gram(x, y)) - log) <= bound)
    spoilt = y_host.copy()
    spoilt[2, 1] = np.nan
    gram = to_numpy(kernel.log_gram(x, asarray(xp, spoilt, dtype)))
    assert np.all(np.isnan(gram[:, 2]))
    others = [0, 1, 3, 4, 5]
    assert np.all(np.abs(gram - log)[:, others] <= bound[:, others])


SMOOTH = (
    rf.GaussianKernel(1.5),
    rf.RationalQuadraticKernel(0.7, 1.5),
    rf.MaternKernel(2.5, 1.5),
    rf.ExponentialPowerKernel(2.0, 1.5),
    rf.ExponentialKernel(1.5),
    rf.CauchyKernel(1.5),
    2.0 * rf.GaussianKernel(1.5) * rf.LaplacianKernel(1.5),
)


@pytest.mark.parametrize("kernel", SMOOTH, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gram_of_two_clusters_is_that_of_pairs(xp, rng, kernel, dtype):
    """The error of the exponent is that of squares of at most 2^10, however far the clusters are apart."""
    tolerance = (4 + 8) * 2**11 * eps_of(dtype)  # 2 (d + 8) eps r² / 2, r² = 2^10; twice that for a factor 2
    for gap in (0.0, 30.0, 1e3, 1e4, 1e6, 1e8):
        kind = rng.standard_normal((12, 4)) + gap * (np.arange(12) % 2)[:, None]
        x = asarray(xp, kind, dtype)
        y = asarray(xp, np.concatenate([kind[:5], kind[3:4] + 0.5]), dtype)
        gram = to_numpy(kernel(x, x))
        assert same_bits(np.diagonal(gram), kernel.pairwise(x, x)), gap
        for other in (x, y):
            exact = kernel.pairwise(*(to_numpy(a).astype(np.float64) for a in (x[:, None, :], other[None, :, :])))
            found = to_numpy(kernel(x, other))
            np.testing.assert_allclose(found, exact, rtol=0, atol=tolerance, err_msg=f"clusters {gap} apart")


def test_gram_where_squares_overflow(xp):
    x = asarray(xp, np.array([[0.0], [3e30], [3e30]]), "float32")
    with np.errstate(over="ignore"):
        gram = to_numpy(rf.GaussianKernel()(x, x[1:, :]))
    np.testing.assert_array_equal(gram, [[0, 0], [1, 1], [1, 1]])


@pytest.mark.filterwarnings("ignore:Dynamo detected")
def test_far_clusters_in_compiled_and_mapped_functions(rng):
    """JAX decides in the compiled program; PyTorch takes differences."""
    x = rng.standard_normal((6, 3)) + 1e5 * (np.arange(6) % 2)[:, None]
    x = x.astype(np.float32)
    kernel = rf.GaussianKernel()
    exact = kernel.pairwise(x[:, None], x)
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    np.testing.assert_allclose(jax.jit(kernel)(x, jax.numpy.asarray(x)), exact, atol=1e-5)
    for one in (lambda a: kernel(a, jax.numpy.asarray(x)), lambda a: kernel(jax.numpy.asarray(x), a)):
        np.testing.assert_allclose(jax.jit(one)(x), exact, atol=1e-5)  # one side is known while the other is traced
    batch = jax.numpy.asarray(np.stack([x, x - x]))
    np.testing.assert_allclose(jax.vmap(kernel)(batch, batch)[0], exact, atol=1e-5)
    slope = jax.grad(lambda a: kernel(a, a).sum())(batch[0])
    assert np.all(np.isfinite(slope))
    there = torch.asarray(np.stack([x, x]))
    np.testing.assert_allclose(torch.vmap(lambda a: kernel(there[0], a))(there)[1], exact, atol=1e-5)
    np.testing.assert_allclose(torch.vmap(kernel)(there, there)[0], exact, atol=1e-5)
    compiled = torch.compile(kernel.__call__, backend="eager")
    np.testing.assert_allclose(compiled(there[0], there[0]), exact, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_of_ten_thousand(xp, rng, dtype):
    """The logarithm has no range to leave; the kernel itself is inf or 0 there, and never NaN."""
    x, y = (asarray(xp, 50 * rng.standard_normal((n, 4)), dtype) for n in (5, 6))
    for kernel in (rf.SoftmaxKernel(2.0), rf.GaussianKernel(0.5)):
        log, bound = naive_log(kernel, to_numpy(x), to_numpy(y)), gram_bound(kernel, to_numpy(x), to_numpy(y), dtype)
        assert np.max(np.abs(log)) > 1e4
        assert np.all(np.abs(to_numpy(kernel.log_gram(x, y)) - log) <= bound)
        pairs = to_numpy(kernel.log_pairwise(x[:, None, :], y[None, :, :]))
        assert np.all(np.abs(pairs - log) <= bound)
        with np.errstate(over="ignore"):
            gram = to_numpy(kernel(x, y))
        top = np.log(float(np.finfo(dtype).max))
        assert np.all(gram[log > top + 1] == np.inf)
        assert np.all(gram[log < -1.2 * top - 1] == 0)
        assert np.any(gram == (np.inf if isinstance(kernel, rf.SoftmaxKernel) else 0))


def test_shapes(xp):
    x, y = asarray(xp, np.ones((2, 1, 3, 4))), asarray(xp, np.ones((5, 6, 4)))
    for kernel in KERNELS:
        assert shape_of(xp, kernel, x, y) == (2, 5, 3, 6)
        assert shape_of(xp, kernel.pairwise, x, y[:, :1, :]) == (2, 5, 3)
        assert shape_of(xp, kernel.pairwise, x[0, 0, 0, :], y[0, 0, :]) == ()
        for n, k in ((0, 6), (3, 0), (0, 0)):
            assert shape_of(xp, kernel, x[..., :n, :], y[..., :k, :]) == (2, 5, n, k)
        assert shape_of(xp, kernel.pairwise, x[..., :0, :], y[:, :1, :]) == (2, 5, 0)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_wrong_shapes_name_both(kernel):
    x = np.ones((3, 4))
    for use in (kernel, kernel.pairwise, kernel.log_gram, kernel.log_pairwise):
        with pytest.raises(ValueError, match="x and y must share their last dimension, got 4 and 5"):
            use(x, np.ones((3, 5)))
        with pytest.raises(ValueError, match=r"y must have shape .*, got \(\)"):
            use(x, 1.0)
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., n, d\), got \(4,\)"):
        kernel(x[0], x)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_nan_stays_in_its_row_and_column(xp, rng, kernel):
    x, y = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    clean = to_numpy(kernel(asarray(xp, x), asarray(xp, y)))
    x[1, 0], y[2, 2] = np.nan, np.nan
    gram = to_numpy(kernel(asarray(xp, x), asarray(xp, y)))
    keep = np.ix_([0, 2, 3], [0, 1, 3, 4])
    np.testing.assert_allclose(gram[keep], clean[keep], rtol=1e-12)
    gram[keep] = np.nan
    assert np.all(np.isnan(gram))


@pytest.mark.parametrize(("make", "name"), [(rf.SoftmaxKernel, "scale"), (rf.GaussianKernel, "length_scale")])
def test_parameters(make, name):
    for value in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"{name} must be positive and finite, got {value!r}"):
            make(value)
    for value in (True, "1", None, np.ones(1), 1j):
        with pytest.raises(TypeError, match=f"{name} must be a positive number"):
            make(value)


@pytest.mark.parametrize("make", [rf.SoftmaxKernel, rf.GaussianKernel])
@pytest.mark.parametrize("number", [np.float64, np.float32, np.int64, int], ids=lambda t: t.__name__)
def test_parameters_never_decide_the_dtype(xp, make, number):
    """A length scale computed by NumPy is a float64 scalar, which would turn float32 features into float64."""
    kernel = make(number(2))
    assert kernel == make(2.0)
    assert repr(kernel) == repr(make(2.0))
    x = asarray(xp, np.ones((3, 4)), "float32")
    assert kernel(x, x).dtype == kernel.pairwise(x, x).dtype == x.dtype
    assert rf.PositiveFeatures(kernel).draw(4, 2, rng=0, like=x).queries(x).log_scale.dtype == x.dtype


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_is_a_value(kernel):
    assert kernel == dataclasses.replace(kernel)
    assert {kernel: 1}[dataclasses.replace(kernel)] == 1
    assert eval(repr(kernel), vars(rf)) == kernel
    field = dataclasses.fields(kernel)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kernel, field, 3.0)
