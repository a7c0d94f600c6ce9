"""The one module that knows array libraries: what it accepts, what it refuses, and the dtype policy of everything."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

import randfeat as rf
from randfeat import _array
from tests.arrays import (
    HALF,
    asarray,
    compiled,
    computing,
    dtype_of,
    eps_of,
    library,
    same_bits,
    same_numbers,
    to_numpy,
)
from tests.conftest import load_backend

DTYPES = ["float16", "bfloat16", "float32", "float64"]


def gaussian(*shape, seed=0, scale=1.0):
    return np.random.default_rng(seed).standard_normal(shape) * scale


# what is accepted ------------------------------------------------------------------------------------------------


def test_namespace_is_that_of_the_arrays(xp):
    x = asarray(xp, [1.0])
    assert library(_array.namespace(x, None, x)) == library(xp)


@pytest.mark.parametrize("other", ["array_api_strict", "torch", "jax.numpy", "cupy"])
def test_libraries_do_not_mix(other):
    here, there = np.ones((2, 3)), asarray(load_backend(other), np.ones((2, 3)))
    phi = rf.PositiveFeatures().draw(3, 4, rng=0)
    mixtures = [
        lambda: phi(there),
        lambda: phi.estimate(here, there),
        lambda: rf.SoftmaxKernel()(here, there),
        lambda: rf.linear_attention(here, here, there, phi),
        lambda: rf.linear_attention(there, there, there, phi),
        lambda: rf.softmax_attention(there, here, here),
        lambda: phi.queries(here).dot(phi.to(there).keys(there)),
    ]
    for mixture in mixtures:
        with pytest.raises(TypeError, match=r"expected arrays of one array library, got .*numpy.*convert them") as info:
            mixture()
        assert "phi.to(x)" in str(info.value)
        assert "draw(..., like=x)" in str(info.value)


@pytest.mark.parametrize("values", [[[1, 2, 3], [0, 1, 0]], [[0.5, 2.0, 3.0]], ((1, 2, 3),)], ids=repr)
def test_lists_are_numpy_arrays(values):
    phi = rf.PositiveFeatures().draw(3, 4, rng=0)
    assert same_bits(phi(values), phi(np.asarray(values, dtype=np.float64)))
    assert phi(values).dtype == np.float64
    assert same_bits(rf.GaussianKernel()(values, values), rf.GaussianKernel()(np.asarray(values), np.asarray(values)))


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8"])
def test_integers_become_the_default_float(xp, dtype):
    x = asarray(xp, [[1, 2, 3], [0, 1, 0]], dtype)
    default = xp.asarray(0.0).dtype
    phi = rf.PositiveFeatures().draw(3, 4, rng=0, like=x)
    assert phi.arrays["rows"].dtype == default
    assert phi(x).dtype == default
    assert same_bits(phi(x), phi(asarray(xp, [[1, 2, 3], [0, 1, 0]], _array.dtype_name(default))))
    assert rf.SoftmaxKernel()(x, x).dtype == default
    assert rf.linear_attention(x, x, x, phi).dtype == default


REFUSED = {
    "complex": (np.ones((2, 3), complex), r"x must be real floating point .*complex128"),
    "bool": (np.ones((2, 3), bool), r"x must be real floating point .*bool"),
    "object": (np.ones((2, 3), object), r"x must be real floating point .*object"),
    "strings": ([["a", "b", "c"]], r"x must be real floating point .*str"),
    "nothing": (None, r"x must be an array, got NoneType"),
    "dates": (np.zeros((2, 3), "M8[s]"), r"x must be real floating point .*datetime64"),
    "records": (np.zeros(2, [("a", float)]), r"x must be real floating point"),
    "sparse matrix": (sparse.csr_matrix(np.eye(3)), r"x is sparse, got csr_matrix; convert it to a dense array"),
    "sparse array": (sparse.coo_array(np.eye(3)), r"x is sparse, got coo_array; convert it to a dense array"),
    "masked": (np.ma.masked_less(np.eye(3), 1), r"x is a masked array, whose mask would be lost; fill it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(case):
    x, message = REFUSED[case]
    y = np.ones((2, 3))
    phi = rf.PositiveFeatures().draw(3, 4, rng=0)
    for use in (phi, phi.queries, lambda x: phi.estimate(x, y), lambda x: rf.GaussianKernel()(x, y)):
        with pytest.raises(TypeError, match=message):
            use(x)
    with pytest.raises(TypeError, match=message.replace("x ", "query ", 1)):
        rf.linear_attention(x, y, y, phi)
    if x is not None:
        with pytest.raises(TypeError, match=message.replace("x ", "like ", 1)):
            rf.PositiveFeatures().draw(3, 4, rng=0, like=x)


def test_sparse_tensors_are_refused(torch):
    x = torch.eye(3).to_sparse()
    with pytest.raises(TypeError, match="x is sparse, got Tensor"):
        rf.SoftmaxKernel()(x, x)


def test_wide_floats_are_refused():
    if np.finfo(np.longdouble).bits == 64:
        pytest.skip("long double is float64 on this platform")
    with pytest.raises(TypeError, match="x must be real floating point"):
        rf.SoftmaxKernel()(np.ones((2, 3), np.longdouble), np.ones((2, 3)))


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_subclasses_of_ndarray_are_plain_arrays():
    x = gaussian(3, 3)
    phi = rf.TrigonometricFeatures().draw(3, 4, rng=0)
    features = phi(np.matrix(x))
    assert type(features) is np.ndarray
    assert same_bits(features, phi(x))
    assert same_bits(rf.GaussianKernel()(np.matrix(x), np.matrix(x)), rf.GaussianKernel()(x, x))


# layouts in memory -----------------------------------------------------------------------------------------------

LAYOUTS = {
    "read-only": lambda x: np.lib.stride_tricks.as_strided(x, writeable=False),
    "Fortran order": np.asfortranarray,
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "negative strides": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_in_memory_does_not_matter(layout):
    x = LAYOUTS[layout](gaussian(7, 5, scale=0.5))
    plain = np.ascontiguousarray(x, dtype=np.float64)
    phi = rf.PositiveFeatures().draw(5, 16, rng=0)
    assert x.strides != plain.strides or not x.flags.writeable or x.dtype != plain.dtype
    # Products may be added up in another order: d eps of a sum of d products, in an exponent.
    terms = np.max(np.abs(plain) @ np.abs(phi.arrays["rows"]).T) + np.max(np.sum(plain**2, axis=-1))
    rounding = 2 * (5 + 8) * terms * eps_of("float64")
    for use in (phi, lambda x: phi.estimate(x, x), lambda x: rf.GaussianKernel()(x, x), lambda x: phi.keys(x).values):
        np.testing.assert_allclose(use(x), use(plain), rtol=rounding)
    for attention in (rf.linear_attention, lambda q, k, v, phi, **options: rf.softmax_attention(q, k, v, **options)):
        for is_causal in (False, True):
            there, here = (attention(a, a, a, phi, is_causal=is_causal) for a in (x, plain))
            np.testing.assert_allclose(there, here, atol=2 * rounding * np.abs(plain).max())


@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "torch"])  # arrays of JAX cannot be written to
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_are_never_written_to(name, dtype):
    """Values are exponentiated in place where the library can; never the caller's."""
    xp = load_backend(name)
    x = asarray(xp, gaussian(2, 5, 3), dtype)
    before = to_numpy(x).copy()
    for estimator in (rf.PositiveFeatures(), rf.TrigonometricFeatures(rf.GaussianKernel())):
        phi = estimator.draw(3, 4, rng=0, like=x)
        rows = to_numpy(phi.arrays["rows"]).copy()
        phi(x), phi.estimate(x, x), phi.estimate_pairwise(x, x), estimator.kernel(x, x), estimator.kernel.pairwise(x, x)
        for is_causal in (False, True):
            rf.linear_attention(x, x, x, phi, scale=1.0, is_causal=is_causal)
            rf.kernel_attention(x, x, x, estimator.kernel, scale=1.0, is_causal=is_causal)
        features = phi.keys(x)
        values, log_scale = to_numpy(features.values).copy(), to_numpy(features.log_scale).copy()
        features.dot(features), features.pairwise(features), features.to_array()
        rf.AttentionState.empty(4, 3, like=x).append(features, x).read(features)
        assert same_bits(features.values, values)
        assert same_bits(features.log_scale, log_scale)
        assert same_bits(phi.arrays["rows"], rows)
    assert same_bits(x, before)


# dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_device_and_library_are_those_of_the_input(xp, dtype):
    x = asarray(xp, gaussian(4, 3, scale=0.5), dtype)
    phi = rf.PositiveFeatures().draw(3, 8, rng=0, like=x)
    kernel = rf.GaussianKernel()
    state = rf.AttentionState.empty(8, 3, like=x)
    uses = [
        phi,
        lambda x: phi.estimate(x, x),
        lambda x: phi.estimate_pairwise(x, x),
        lambda x: kernel(x, x),
        lambda x: kernel.pairwise(x, x),
        lambda x: kernel.log_gram(x, x),
        lambda x: kernel.log_pairwise(x, x),
        lambda x: rf.linear_attention(x, x, x, phi),
        lambda x: rf.linear_attention(x, x, x, phi, is_causal=True),
        lambda x: rf.softmax_attention(x, x, x),
    ]
    for use in uses:
        out = compiled(xp, use)(x)
        assert type(out) is type(x)
        assert out.dtype == dtype_of(xp, dtype)
        assert _array.device_of(out) == _array.device_of(x)
    for out in (phi.arrays["rows"], phi.queries(x).values, phi.keys(x).log_scale, state.total, state.log_max):
        assert type(out) is type(x)
        assert out.dtype == dtype_of(xp, computing(dtype))


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_float32_rounded_once(xp, dtype):
    x = asarray(xp, gaussian(6, 3, scale=0.7), dtype)
    wide = asarray(xp, to_numpy(x), "float32")
    phi = rf.HyperbolicFeatures().draw(3, 8, rng=0, like=x)
    assert same_bits(phi.arrays["rows"], rf.HyperbolicFeatures().draw(3, 8, rng=0, like=wide).arrays["rows"])
    for use in (
        phi,
        lambda x: phi.estimate(x, x),
        lambda x: rf.GaussianKernel(2.0)(x, x),
        lambda x: rf.linear_attention(x, x, x, phi, is_causal=True),
        lambda x: rf.softmax_attention(x, x, x),
    ):
        expected = compiled(xp, use)(wide)
        assert expected.dtype == dtype_of(xp, "float32")
        size = np.max(np.abs(to_numpy(expected)))
        rounding = (eps_of(dtype) + 250 * eps_of("float32")) * size  # one spacing, beside sums of 250 terms in float32
        assert same_numbers(xp, compiled(xp, use)(x), xp.astype(expected, dtype_of(xp, dtype)), rounding)


def test_two_precisions_meet_in_the_wider(xp):
    """float32 with float64 promotes on every library, torch included, whose matrix product would not."""
    x, y = asarray(xp, gaussian(4, 3), "float32"), asarray(xp, gaussian(5, 3, seed=1), "float64")
    wide = asarray(xp, to_numpy(x), "float64")
    phi = rf.TrigonometricFeatures().draw(3, 8, rng=0, like=y)
    kernel, estimate = compiled(xp, rf.GaussianKernel()), compiled(xp, phi.estimate)
    # values up to 1, exponents of 11 terms up to 80
    assert same_numbers(xp, kernel(x, y), kernel(wide, y), 11 * 80 * eps_of("float64"))
    assert compiled(xp, rf.SoftmaxKernel())(y, x).dtype == y.dtype
    assert estimate(x, y).dtype == y.dtype
    # Features of x are computed in float32: d products, the norm, one cosine, times its scale.
    np.testing.assert_allclose(to_numpy(estimate(x, y)), to_numpy(estimate(wide, y)), atol=200 * 2.0**-23)


def test_drawn_arrays_are_host_arrays_rounded_by_numpy(xp):
    host = rf.TrigonometricFeatures(variant="phase").draw(5, 12, rng=7).arrays
    assert same_bits(host["rows"], rf.Orthogonal().sample(12, 5, rng=np.random.default_rng(7)))
    assert not same_bits(host["rows"], host["rows"].astype(np.float32))
    for dtype in ("float64", "float32"):
        arrays = rf.TrigonometricFeatures(variant="phase").draw(5, 12, rng=7, like=asarray(xp, [0.0], dtype)).arrays
        for name in ("rows", "phases"):
            assert same_bits(arrays[name], host[name].astype(dtype))


def test_jax_without_float64():
    """JAX as it comes: float32 only. In a process of its own, with warnings as errors."""
    load_backend("jax.numpy")
    script = """
import jax, jax.numpy as jnp, numpy as np, randfeat as rf
x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)))
assert x.dtype == jnp.float32
estimator = rf.TrigonometricFeatures()
phi = estimator.draw(3, 8, rng=0, like=x)
assert np.array_equal(phi.arrays["rows"], estimator.draw(3, 8, rng=0).arrays["rows"].astype("float32"))
positive = rf.PositiveFeatures().draw(3, 8, rng=0, like=x)
attention = jax.jit(lambda x: rf.linear_attention(x, x, x, positive, is_causal=True))
for out in (phi(x), phi(jnp.ones((4, 3), int)), phi.to(x).redraw(1)(x), jax.jit(phi.estimate)(x, x), attention(x)):
    assert out.dtype == jnp.float32, out.dtype
    assert bool(jnp.all(jnp.isfinite(out)))
points, values = np.linspace(0, 1, 30, dtype="f4")[:, None], np.linspace(-1, 1, 30, dtype="f4")
rows = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(1, 8, rng=0, like=points)
host, prior = rf.prior_functions(rows, rng=1), rf.prior_functions(rows.to(jnp.asarray(points)), rng=1)
expected = host.given(points, values, noise_variance=1e-8, rng=2)(points)
posterior = prior.given(jnp.asarray(points), jnp.asarray(values), noise_variance=1e-8, rng=2)
found = posterior(jnp.asarray(points))
assert found.dtype == jnp.float32
assert np.max(np.abs(found - expected)) < 1e-5, found - expected  # on the host, in float64
assert jax.jit(posterior)(jnp.asarray(points)).dtype == jnp.float32
print("done")
"""
    environment = {**os.environ, "JAX_ENABLE_X64": "0", "XLA_FLAGS": "", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "done", done.stderr


# the parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_as_host_is_exact(xp, dtype):
    x = asarray(xp, gaussian(3, 2), dtype)
    host = _array.as_host(x, "x")
    assert type(host) is np.ndarray
    assert host.dtype == np.float64
    assert same_bits(host, x)


def test_as_host_of_a_tensor_with_gradient(torch):
    x = torch.ones(2, requires_grad=True)
    assert same_bits(_array.as_host(x, "x"), np.ones(2))


def test_cast_copies_only_where_needed(xp):
    x = asarray(xp, [1.5, 2.5])
    assert _array.cast(x, x.dtype) is x
    assert _array.cast(x, dtype_of(xp, "float32")).dtype == dtype_of(xp, "float32")


def test_exp_in_place_owns_what_it_is_given():
    x = np.array([0.0, 1.0])
    out = _array.exp_in_place(x)
    assert out is x
    assert out[1] == np.exp(1.0)
    assert _array.exp_in_place(np.float64(0.0)) == 1.0


def test_peak_is_a_maximum_even_over_nothing(xp):
    x = asarray(xp, gaussian(2, 3, 4))
    assert same_bits(_array.peak(x, -2), to_numpy(x).max(axis=-2, keepdims=True))
    nothing = _array.peak(asarray(xp, np.empty((2, 0, 4))), -2)
    assert same_bits(nothing, np.full((2, 1, 4), -np.inf))
    assert same_bits(_array.replace_minus_inf(nothing), np.zeros((2, 1, 4)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_times_exp_outlives_the_range_of_exp(xp, dtype):
    """`x exp(log)` in two halves: right wherever the product is in range, inf or 0 beyond, never NaN."""
    top = np.log(float(np.finfo(dtype).max))
    x = np.array([0.0, 1.0, -2.0, np.exp(-top + 2), np.exp(-top / 2), 1.0, 0.0, 0.0])
    log = np.array([5 * top, 1.0, -3.0, 1.5 * top, 1.25 * top, 3 * top, -np.inf, np.inf])
    x, log = x.astype(dtype), log.astype(dtype)
    with np.errstate(over="ignore"):
        out = to_numpy(_array.times_exp(asarray(xp, x, dtype), asarray(xp, log, dtype)))
    with np.errstate(over="ignore", divide="ignore"):
        expected = np.sign(x) * np.exp(np.log(np.abs(x.astype(np.longdouble))) + np.minimum(log, 10 * top))
        expected = expected.astype(dtype)
    assert np.isfinite(expected[3:5]).all()
    assert np.isinf(expected[5])
    assert np.all(out[[0, 6, 7]] == 0)
    # the exponent is rounded, the exponential is squared
    np.testing.assert_allclose(out[1:6], expected[1:6], rtol=4 * eps_of(dtype) * 2 * top)


def test_stop_gradient(torch, jax):
    x = torch.ones(2, requires_grad=True)
    (x * _array.stop_gradient(x)).sum().backward()
    assert same_bits(x.grad, np.ones(2))
    assert jax.grad(lambda x: x * _array.stop_gradient(x))(3.0) == 3.0
    y = np.ones(2)
    assert _array.stop_gradient(y) is y


def test_shapes_broadcast_as_those_of_numpy():
    """One to three shapes of at most two dimensions, of 0 to 3."""
    pool = [shape for dims in range(3) for shape in itertools.product(range(4), repeat=dims)]
    for shapes in (shapes for number in (1, 2, 3) for shapes in itertools.product(pool, repeat=number)):
        try:
            expected = np.broadcast_shapes(*shapes)
        except ValueError:
            with pytest.raises(ValueError, match="do not broadcast"):
                _array.broadcast_shapes(*shapes)
        else:
            assert _array.broadcast_shapes(*shapes) == expected
