"""Partial outputs of exact attention, and biases of keys in it, for every option, kernel and library."""

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, compiled, eps_of, to_numpy

OPTIONS = {
    "full": {},
    "causal": {"is_causal": True},
    "offset": {"is_causal": True, "causal_offset": -2},
    "lengths": {"key_lengths": 5},
    "ends": {"key_ends": [0, 3, 7, 2, 7, 1, 4]},
    "packed": {"cu_seqlens": [0, 3, 7]},
    "decay": {"is_causal": True, "decay": 0.7},
    "relative": {"relative_bias": np.linspace(-2, 2, 13)},
}
KERNELS = {
    "softmax": rf.SoftmaxKernel(),
    "gaussian": rf.GaussianKernel(1.5),
    "laplacian": rf.LaplacianKernel(2.0),  # without a logarithm
}
TOLERANCE = 1e-12  # sums of 7 terms of size 1 in float64


@pytest.fixture
def data(rng):
    return rng.standard_normal((2, 7, 4)), rng.standard_normal((2, 7, 4)), rng.standard_normal((2, 7, 3))


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_bias_multiplies_the_weight_of_its_key(xp, rng, data, options, kernel):
    query, key, value = data
    bias = rng.standard_normal((2, 7))
    bias[0, 3] = -np.inf
    # One key at a time: weights from values that are unit vectors, times exp(bias), normalized again.
    weights = rf.kernel_attention(query, key, np.eye(7), kernel, scale=0.5, **options)
    factors = np.exp(bias)[:, None, :] * weights
    total = factors.sum(-1, keepdims=True)
    expected = (factors / np.where(total == 0, 1, total)) @ value
    run = compiled(xp, lambda q, k, v, b: rf.kernel_attention(q, k, v, kernel, scale=0.5, key_bias=b, **options))
    found = to_numpy(run(*(asarray(xp, x) for x in (query, key, value, bias))))
    assert np.max(np.abs(found - expected)) < TOLERANCE


def test_minus_infinity_is_a_mask(xp, rng, data):
    query, key, value = (asarray(xp, x) for x in data)
    mask = rng.random((2, 7)) < 0.5
    mask[1] = False
    bias = asarray(xp, np.where(mask, 0.0, -np.inf))
    expected = to_numpy(rf.softmax_attention(query, key, value, key_mask=xp.asarray(mask)))
    found = to_numpy(rf.softmax_attention(query, key, value, key_bias=bias))
    assert np.max(np.abs(found - expected)) < TOLERANCE
    assert np.all(found[1] == 0)


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_a_shift_of_all_biases_cancels(rng, data, kernel, size):
    bias = rng.standard_normal((2, 7))
    expected = rf.kernel_attention(*data, kernel, scale=1.0, key_bias=bias)
    found = rf.kernel_attention(*data, kernel, scale=1.0, key_bias=bias + size)
    assert np.max(np.abs(found - expected)) < 1e-9  # rounding of the biases at 1e4


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_partial_outputs_over_parts_of_the_keys_merge(xp, rng, data, kernel):
    query, key, value = (asarray(xp, x) for x in data)
    bias = asarray(xp, 30 * rng.standard_normal((2, 7)))
    expected = to_numpy(rf.kernel_attention(query, key, value, kernel, scale=1.0, key_bias=bias))
    parts = [
        rf.kernel_attention(
            query, key[:, part, :], value[:, part, :], kernel, scale=1.0, key_bias=bias[:, part], return_partial=True
        )
        for part in (slice(0, 1), slice(1, 5), slice(5, 5), slice(5, 7))
    ]
    for order in ([0, 1, 2, 3], [3, 2, 0, 1]):
        whole = parts[order[0]]
        for index in order[1:]:
            whole = whole.merge(parts[index])
        assert np.max(np.abs(to_numpy(whole.normalized()) - expected)) < TOLERANCE


def test_partial_outputs_have_the_layout_of_the_call(rng):
    query, key, value = (
        rng.standard_normal((2, 6, 4, 3)),
        rng.standard_normal((2, 6, 2, 3)),
        rng.standard_normal((2, 6, 2, 5)),
    )
    bias = rng.standard_normal((2, 2, 6))
    options = {"enable_gqa": True, "layout": "blhd", "key_bias": bias}
    part = rf.softmax_attention(query, key, value, return_partial=True, **options)
    assert [x.shape for x in part.columns] == [(2, 6, 4, 5), (2, 6, 4, 1), (2, 6, 4, 1)]
    assert np.max(np.abs(part.normalized() - rf.softmax_attention(query, key, value, **options))) < TOLERANCE
    repeated = rf.softmax_attention(
        query, np.repeat(key, 2, 2), np.repeat(value, 2, 2), layout="blhd", key_bias=np.repeat(bias, 2, 1)
    )
    assert np.max(np.abs(part.normalized() - repeated)) < TOLERANCE


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_biases_of_another_dtype_are_cast_to_the_computing_one(xp, rng, data, dtype):
    query, key, value = (asarray(xp, x, dtype) for x in data)
    bias = asarray(xp, rng.standard_normal((2, 7)), "float32")
    output = rf.softmax_attention(query, key, value, key_bias=bias)
    assert output.dtype == value.dtype
    exact = rf.softmax_attention(*(to_numpy(x) for x in (query, key, value)), key_bias=to_numpy(bias))
    assert np.max(np.abs(to_numpy(output) - exact)) < 8 * eps_of(dtype)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradients_equal_finite_differences(rng, data, options):
    torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")
    bias = rng.standard_normal((2, 7))
    arrays = [torch.from_numpy(x).requires_grad_() for x in (*data, bias)]

    def output(q, k, v, b):
        return rf.softmax_attention(q, k, v, key_bias=b, **options)

    assert torch.autograd.gradcheck(output, arrays)


def test_equals_the_bias_row_of_pytorch(rng, data):
    torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")
    query, key, value = (torch.from_numpy(x) for x in data)
    bias = torch.from_numpy(rng.standard_normal((2, 7)))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias[:, None, :])
    found = rf.softmax_attention(query, key, value, key_bias=bias)
    assert np.max(np.abs(to_numpy(found) - to_numpy(expected))) < TOLERANCE


def test_jax_differentiates(rng, data):
    jax = pytest.importorskip("jax", reason="pip install '.[frameworks]'")
    torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")
    bias = rng.standard_normal((2, 7))
    bias[0, 2] = -np.inf
    cotangent = rng.standard_normal((2, 7, 3))

    def loss(*arrays):
        q, k, v, b = arrays
        return (rf.softmax_attention(q, k, v, key_bias=b, is_causal=True) * cotangent).sum()

    found = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*map(jax.numpy.asarray, (*data, bias)))
    arrays = [torch.from_numpy(x).requires_grad_() for x in (*data, bias)]
    q, k, v, b = arrays
    (rf.softmax_attention(q, k, v, key_bias=b, is_causal=True) * torch.from_numpy(cotangent)).sum().backward()
    for mine, array in zip(found, arrays, strict=True):
        assert np.max(np.abs(np.asarray(mine) - array.grad.numpy())) < TOLERANCE


@pytest.mark.parametrize(
    ("bias", "error", "message"),
    [
        (np.zeros(6), ValueError, r"key_bias must have shape \(7,\) or \(2, 7\)"),
        (np.zeros((7, 7)), ValueError, "no linear-time form"),
        (np.zeros((3, 7)), ValueError, "key_bias must have shape"),
        (np.zeros(7, bool), TypeError, "key_bias must be real floating point"),
    ],
    ids=["length", "pairs", "heads", "mask"],
)
def test_refuses_what_is_no_bias_of_keys(data, bias, error, message):
    with pytest.raises(error, match=message):
        rf.softmax_attention(*data, key_bias=bias)


def test_a_bias_that_is_nan_spoils_the_outputs(xp, data):
    query, key, value = (asarray(xp, x) for x in data)
    bias = asarray(xp, np.where(np.arange(7) == 2, np.nan, 0.0))
    assert np.all(np.isnan(to_numpy(rf.softmax_attention(query, key, value, key_bias=bias))))


def test_masses_under_decay_are_not_known(data):
    with pytest.raises(ValueError, match="return_partial cannot be combined with decay"):
        rf.softmax_attention(*data, is_causal=True, decay=0.5, return_partial=True)


def test_refuses_a_number_for_return_partial(data):
    with pytest.raises(TypeError, match="return_partial must be True or False"):
        rf.softmax_attention(*data, return_partial=1)


def test_masked_keys_may_have_any_bias(xp, data):
    query, key, value = (asarray(xp, x) for x in data)
    mask = np.arange(7) < 4
    bias = asarray(xp, np.where(mask, 0.5, np.nan))
    found = to_numpy(rf.softmax_attention(query, key, value, key_bias=bias, key_mask=xp.asarray(mask)))
    expected = to_numpy(rf.softmax_attention(query, key[:, :4, :], value[:, :4, :]))
    assert np.max(np.abs(found - expected)) < TOLERANCE
