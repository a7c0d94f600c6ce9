"""Biases of keys: summands of the logits, which multiply the features of a key, against the definition pair by pair."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention.generic import chunks
from tests.arrays import asarray, compiled, eps_of, library, same_bits, to_numpy
from tests.reference import naive_attention, naive_kernel_attention

L, S, D = 11, 13, 5
BIAS = np.random.default_rng(1).uniform(-3, 3, (2, S))
BIAS[0, 3], BIAS[1, 0] = -np.inf, -np.inf
ENDS = np.random.default_rng(2).integers(0, S + 1, L)

# name: (options, factor of the kernel for head h, query i, key j)
RELATIONS = {
    "full": ({}, lambda h, i, j: 1.0),
    "causal": ({"is_causal": True, "causal_offset": 2}, lambda h, i, j: float(j <= i + 2)),
    "decay": ({"is_causal": True, "decay": 0.7}, lambda h, i, j: 0.7 ** (i - j) if j <= i else 0.0),
    "ends": ({"key_ends": ENDS}, lambda h, i, j: float(j < ENDS[i])),
    "relative": (
        {"relative_bias": np.linspace(-1, 1, L + S - 1)},
        lambda h, i, j: np.exp((j - i + L - 1) * 2 / 22 - 1),
    ),
    "packed": ({"cu_seqlens": ([0, 4, L], [0, 6, S])}, lambda h, i, j: float((i < 4) == (j < 6))),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 4)
    monkeypatch.setattr(chunks, "CAUSAL_CHUNK", 4)


def numbers(rng, queries=L, keys=S):
    return [rng.standard_normal(shape) for shape in ((2, queries, D), (2, keys, D), (2, keys, 3))]


def log_weights(rule, bias=BIAS):
    table = np.array([[[rule(h, i, j) for j in range(S)] for i in range(L)] for h in range(2)])
    with np.errstate(divide="ignore"):
        return np.log(table) + bias[:, None]


@pytest.mark.parametrize("name", RELATIONS)
def test_equals_the_definition(xp, rng, name):
    """`exp(b_j) K̂_ij` with every relation, estimated and exact; -inf is a masked key, whatever it contains."""
    if library(xp) == "jax" and name not in ("full", "causal"):
        pytest.skip("two cases are compiled")
    options, rule = RELATIONS[name]
    query, key, value = numbers(rng)
    mask = np.arange(S) != 7
    poisoned = key.copy(), value.copy()
    for array in poisoned:
        array[0, 3] = array[:, 7] = np.nan
    logs = log_weights(rule)
    given = {"key_bias": asarray(xp, BIAS), "key_mask": xp.asarray(mask)}
    inputs = [asarray(xp, x) for x in (query, *poisoned)]
    for estimator in (rf.PositiveFeatures(), rf.TrigonometricFeatures()):
        phi = estimator.draw(D, 8, rng=0, like=inputs[0])
        expected = naive_attention(phi, query, key, value, key_mask=mask, log_weights=logs, merges=40)
        most = 1e-9 if estimator.positive else 1e-5
        if name == "relative":
            expected.per_eps[...] *= 1e3
            most *= 1e2
        run = compiled(xp, lambda *x, phi=phi: rf.linear_attention(*x[:3], phi, **options, **given))
        expected.check(run(*inputs), eps_of("float64"), most=most)
    expected = naive_kernel_attention(rf.SoftmaxKernel(), query, key, value, key_mask=mask, log_weights=logs)
    run = compiled(xp, lambda *x: rf.softmax_attention(*x, **options, **given))
    expected.check(run(*inputs), eps_of("float64"), most=1e-10)


def test_kernels_without_a_logarithm(rng):
    query, key, value = numbers(rng)
    kernel = rf.ArcCosineKernel(1)
    weights = kernel(query, key) * np.exp(BIAS)[:, None]
    actual = rf.kernel_attention(query, key, value, kernel, scale=1.0, key_bias=BIAS)
    np.testing.assert_allclose(actual, weights @ value / weights.sum(axis=-1, keepdims=True), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_lowest_number_is_as_good_as_a_mask(xp, rng, dtype):
    """Other libraries add it to the logits of padding. Nothing overflows, even while a query sees no other key."""
    if library(xp) == "jax":
        pytest.skip("takes long where nothing is compiled")
    query, key, value = (asarray(xp, x, dtype) for x in numbers(rng))
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=query)
    present = np.arange(S) >= 4
    bias = asarray(xp, np.where(present, 0.0, np.finfo(dtype).min), dtype)
    for is_causal in (False, True):
        expected = rf.linear_attention(query, key, value, phi, key_mask=xp.asarray(present), is_causal=is_causal)
        actual = to_numpy(rf.linear_attention(query, key, value, phi, key_bias=bias, is_causal=is_causal))
        seen = slice(4, None) if is_causal else slice(None)
        np.testing.assert_allclose(actual[:, seen], to_numpy(expected)[:, seen], rtol=0, atol=40 * eps_of(dtype))
        assert np.all(np.isfinite(actual))


def test_a_bias_of_zeros_and_minus_infinity_is_a_mask(xp, rng):
    if library(xp) == "jax":
        pytest.skip("takes long where nothing is compiled")
    query, key, value = (asarray(xp, x) for x in numbers(rng))
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=query)
    present = rng.random((2, S)) < 0.7
    bias = asarray(xp, np.where(present, 0.0, -np.inf))
    for options in ({}, {"is_causal": True}):
        actual = rf.linear_attention(query, key, value, phi, key_bias=bias, **options)
        if library(xp) != "numpy":  # which has a fast path for masks
            assert same_bits(
                actual, rf.linear_attention(query, key, value, phi, key_mask=xp.asarray(present), **options)
            )
        exact = [
            rf.softmax_attention(query, key, value, **given, **options)
            for given in ({"key_bias": bias}, {"key_mask": xp.asarray(present)})
        ]
        assert same_bits(*exact)


@pytest.mark.parametrize("is_causal", [False, True])
def test_long_sequences(rng, is_causal):
    """Of a length at which NumPy arrays have a fast path, which knows no biases."""
    query, key, value = numbers(rng, queries=500, keys=500)
    phi = rf.PositiveFeatures().draw(D, 32, rng=0)
    bias = rng.uniform(-3, 3, (2, 500))
    weights = phi.estimate(query * D**-0.25, key * D**-0.25) * np.exp(bias)[:, None]
    weights = np.tril(weights) if is_causal else weights
    expected = weights @ value / weights.sum(axis=-1, keepdims=True)
    actual = rf.linear_attention(query, key, value, phi, key_bias=bias, is_causal=is_causal)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-10)
    gradients = rf.linear_attention_vjp(query, key, value, phi, np.ones_like(value), key_bias=bias, is_causal=is_causal)
    shares = (weights / weights.sum(axis=-1, keepdims=True)).sum(axis=-2)[..., None]
    np.testing.assert_allclose(gradients[2], np.broadcast_to(shares, value.shape), rtol=0, atol=1e-9)


def test_states_and_streams(rng):
    """A part of the keys with its biases leaves a state that the rest continues; no key at all gives zeros."""
    query, key, value = numbers(rng, queries=S)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0)
    whole = rf.linear_attention(query, key, value, phi, is_causal=True, key_bias=BIAS)
    outputs, state = [], None
    for part in (slice(0, 6), slice(6, S)):
        output, state = rf.linear_attention(
            query[:, part], key[:, part], value[:, part], phi,
            is_causal=True, key_bias=BIAS[:, part], initial_state=state, return_state=True,
        )  # fmt: skip
        outputs.append(output)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), whole, rtol=1e-10, atol=1e-12)
    nothing = rf.linear_attention(query, key, value, phi, key_bias=np.full(S, -np.inf))
    np.testing.assert_array_equal(nothing, 0.0)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"cu_seqlens": ([0, 4, L], [0, 6, S])}], ids=str)
def test_gradients(rng, options):
    """The analytic gradient of query, key and value, with the bias held fixed, against differences."""
    inputs = numbers(rng)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0)
    seed, step = rng.standard_normal((2, L, 3)), 1e-5
    given = options | {"key_bias": BIAS}
    gradients = rf.linear_attention_vjp(*inputs, phi, seed, **given)
    for position, gradient in enumerate(gradients):
        direction = rng.standard_normal(gradient.shape)
        ends = []
        for sign in (step, -step):
            moved = [x + sign * direction if i == position else x for i, x in enumerate(inputs)]
            ends.append(np.sum(seed * rf.linear_attention(*moved, phi, **given)))
        np.testing.assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / (2 * step), rtol=1e-6)


def test_grouped_heads_and_layouts(rng):
    query, (key, value) = rng.standard_normal((3, 4, L, D)), rng.standard_normal((2, 3, 2, S, D))
    phi = rf.PositiveFeatures().draw(D, 8, rng=0)
    bias = rng.standard_normal((3, 2, S))
    expected = rf.linear_attention(
        query, np.repeat(key, 2, axis=1), np.repeat(value, 2, axis=1), phi, key_bias=np.repeat(bias, 2, axis=1)
    )
    actual = rf.linear_attention(query, key, value, phi, key_bias=bias, enable_gqa=True)
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)
    swapped = (np.swapaxes(x, 1, 2) for x in (query, key, value))
    actual = rf.linear_attention(*swapped, phi, key_bias=bias, enable_gqa=True, layout="blhd")
    np.testing.assert_allclose(np.swapaxes(actual, 1, 2), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key_bias": np.zeros((L, S))}, ValueError, r"key_bias must have shape \(13,\) or \(2, 13\)"),
        ({"key_bias": np.zeros(S - 1)}, ValueError, "key_bias must have shape"),
        ({"key_bias": ["a"] * S}, TypeError, "key_bias must be"),
        ({"key_bias": np.zeros(S), "window": 3}, ValueError, "window cannot be combined with key_bias"),
        ({"key_mask": np.zeros(S)}, TypeError, "summands of the logits are key_bias"),
    ],
)
def test_refusals(rng, options, error, message):
    query, key, value = numbers(rng)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0)
    with pytest.raises(error, match=message):
        rf.linear_attention(query, key, value, phi, **options)
