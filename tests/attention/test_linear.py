"""linear_attention against its naive twin on every library, and the laws that hold at any scale and in any dtype."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention import exact
from randfeat.attention.generic import chunks
from tests.arrays import asarray, compiled, dtype_of, eps_of, library, same_bits, to_numpy
from tests.cases import ATTENTION, POSITIVE
from tests.conftest import load_backend
from tests.reference import naive_attention, naive_kernel_attention

MASK = np.array([True, False, True, True, False])
PADDING = np.array([[[True] * 5], [[True] * 3 + [False] * 2]])

# name: (query, key, value shapes, options); d = 5, dv = 3
LAYOUTS = {
    "no leading dimension": ((5, 5), (5, 5), (5, 3), {}),
    "heads": ((2, 5, 5), (2, 5, 5), (2, 5, 3), {}),
    "three leading dimensions": ((1, 2, 2, 5, 5), (1, 2, 2, 5, 5), (1, 2, 2, 5, 3), {}),
    "more keys": ((2, 3, 5), (2, 7, 5), (2, 7, 3), {}),
    "more queries": ((2, 7, 5), (2, 3, 5), (2, 3, 3), {}),
    "broadcasting": ((2, 1, 5, 5), (2, 5, 5), (2, 1, 5, 3), {}),
    "broadcasting twice": ((2, 2, 5, 5), (1, 1, 5, 5), (1, 1, 5, 3), {}),
    "one key head for all": ((2, 5, 5), (5, 5), (2, 5, 3), {}),
    "masked keys": ((2, 5, 5), (2, 5, 5), (2, 5, 3), {"key_mask": MASK}),
    "padding": ((2, 2, 5, 5), (2, 2, 5, 5), (2, 2, 5, 3), {"key_mask": PADDING}),
    "grouped": ((4, 5, 5), (2, 5, 5), (2, 5, 3), {"enable_gqa": True}),
    "grouped and masked": ((4, 5, 5), (2, 5, 5), (2, 5, 3), {"enable_gqa": True, "key_mask": MASK & PADDING[1]}),
    "grouped batch": ((2, 2, 5, 5), (2, 1, 5, 5), (2, 1, 5, 3), {"enable_gqa": True, "key_mask": PADDING}),
    "own scale": ((5, 5), (5, 5), (5, 3), {"scale": 0.3}),
}


def problem(rng, layout, scale=1.0):
    *shapes, options = LAYOUTS[layout]
    query, key, value = (rng.standard_normal(shape) for shape in shapes)
    return scale * query, scale * key, value, dict(options)


def one_under_jax(xp, cases, number):
    """All cases; under JAX, where each is a program to compile, one of them: another one for the next number."""
    return [cases[number % len(cases)]] if library(xp) == "jax" else cases


def attend(xp, phi, query, key, value, dtype="float64", **options):
    """linear_attention on a library, compiled under JAX."""
    mask = options.pop("key_mask", None)
    mask = None if mask is None else xp.asarray(mask)
    function = compiled(xp, lambda q, k, v: rf.linear_attention(q, k, v, phi, key_mask=mask, **options))
    return function(*(asarray(xp, x, dtype) for x in (query, key, value)))


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_naive_twin(xp, rng, layout, is_causal):
    """Every estimator: the masked quadratic form, to the rounding of the exponents."""
    query, key, value, options = problem(rng, layout)
    for estimator in one_under_jax(xp, ATTENTION, list(LAYOUTS).index(layout) + is_causal):
        phi = estimator.draw(5, 8, rng=0, like=asarray(xp, query))
        expected = naive_attention(phi, query, key, value, is_causal=is_causal, **options)
        actual = attend(xp, phi, query, key, value, is_causal=is_causal, **options)
        # denominators of signed features may be small: their bound grows, but must stay well below the outputs
        expected.check(actual, eps_of("float64"), most=1e-11 if estimator.positive else 1e-6)


MAPS = [
    ("heads", (2,)),
    ("no leading dimension", (3,)),
    ("three leading dimensions", (2, 1)),
    ("padding", (2, 1)),
    ("grouped", (4,)),
    ("grouped", (2,)),
    ("grouped", (1,)),
    ("grouped and masked", (3, 4)),
    ("grouped batch", (2, 2)),
]


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize(("layout", "batch_shape"), MAPS, ids=str)
def test_maps_per_head(xp, rng, layout, batch_shape, is_causal):
    """One map per query head, one per key head, one for all, with heads of their own or grouped."""
    query, key, value, options = problem(rng, layout)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=asarray(xp, query), batch_shape=batch_shape)
    expected = naive_attention(phi, query, key, value, is_causal=is_causal, **options)
    expected.check(attend(xp, phi, query, key, value, is_causal=is_causal, **options), eps_of("float64"), most=1e-11)
    heads_differ = naive_attention(phi.redraw(1), query, key, value, is_causal=is_causal, **options)
    assert np.max(np.abs(heads_differ.output - expected.output)) > 1e-2


def test_gqa_is_repetition(xp, rng):
    """Grouped heads are key and value heads repeated, as in PyTorch."""
    query, key, value, options = problem(rng, "grouped")
    phi = rf.TrigonometricFeatures().draw(5, 8, rng=0, like=asarray(xp, query))
    repeated = attend(xp, phi, query, np.repeat(key, 2, axis=0), np.repeat(value, 2, axis=0))
    np.testing.assert_allclose(to_numpy(attend(xp, phi, query, key, value, **options)), to_numpy(repeated), rtol=1e-9)


# laws of positive features ---------------------------------------------------------------------------------------


def spreads(rng):
    """Queries and keys of more and more extreme logits: (name, query, key)."""
    query, key = rng.standard_normal((2, 2, 6, 5))
    for scale in (1.0, 10.0, 100.0):
        yield f"scaled by {scale}", scale * query, scale * key
    aligned = np.zeros((2, 6, 5))
    aligned[..., 0] = 150.0
    signs = np.array([1.0, -1.0, 1.0, 1.0, -1.0, -1.0])[:, None]
    yield "logits of ten thousand", aligned, aligned * signs + 0.1 * key


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_outputs_are_convex_combinations(xp, rng, is_causal):
    """All positive features, any scale: rows sum to one, min v <= out <= max v, the first causal row is v_0.

    Numerator and denominator are sums of the same positive weights, S f + 16 terms at most, and so each is off by that
    many eps relative to itself. `test_scales.py` has these laws and others in every dtype, for three kinds of features.
    """
    dtype = "float32"
    rounding = 2 * (6 * 16 + 16) * eps_of(dtype)
    value = to_numpy(asarray(xp, rng.standard_normal((2, 6, 3)), dtype))
    worst = 0.0
    for estimator in one_under_jax(xp, POSITIVE, is_causal):
        phi = estimator.draw(5, 16, rng=0, like=asarray(xp, value, dtype))
        run = compiled(xp, lambda q, k, v, phi=phi: rf.linear_attention(q, k, v, phi, is_causal=is_causal))
        for name, query, key in spreads(rng):
            query, key, v, ones = (asarray(xp, x, dtype) for x in (query, key, value, np.ones_like(value)))
            logits = np.abs(to_numpy(query) @ np.swapaxes(to_numpy(key), -1, -2)) / np.sqrt(5)
            worst = max(worst, np.max(logits))
            sums, out = run(query, key, ones), run(query, key, v)
            assert out.dtype == dtype_of(xp, dtype)
            sums, out = to_numpy(sums), to_numpy(out)
            assert np.max(np.abs(sums - 1)) <= rounding, name
            seen = [slice(0, i + 1) if is_causal else slice(None) for i in range(6)]
            low = np.stack([value[:, s].min(axis=1) for s in seen], axis=1)
            high = np.stack([value[:, s].max(axis=1) for s in seen], axis=1)
            slack = rounding * np.abs(value).max()
            assert np.all(out >= low - slack), name
            assert np.all(out <= high + slack), name
            if is_causal:
                assert np.max(np.abs(out[:, 0] - value[:, 0])) <= slack, name
    assert worst > 9e3


@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_first_causal_row_is_the_first_value(xp, rng, estimator):
    """For signed features too, up to the rounding of a product and a quotient."""
    query, key, value, _ = problem(rng, "heads", scale=3.0)
    phi = estimator.draw(5, 8, rng=0, like=asarray(xp, query))
    out = to_numpy(attend(xp, phi, query, key, value, is_causal=True))
    np.testing.assert_allclose(out[:, 0], value[:, 0], rtol=4 * eps_of("float64"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_head_with_large_positive_logits(xp, rng, dtype):
    """Logits in 106 .. 282, like those of some heads of trained vision transformers, where exp overflows float32."""
    dim, length = 64, 24
    axis = np.zeros(dim)
    axis[:16] = 0.25
    middle, spread = np.sqrt(194 * 8), 88 * 8 / np.sqrt(194 * 8)
    across = 0.2 * rng.standard_normal((2, length, dim))
    across -= (across @ axis)[..., None] * axis
    query = middle * axis + across[0]
    key = (middle + spread * np.linspace(-1, 1, length)[:, None]) * axis + across[1]
    value = rng.standard_normal((length, 3))
    query, key, value = (to_numpy(asarray(xp, x, dtype)) for x in (query, key, value))
    logits = query @ key.T / 8
    assert 100 < logits.min() < 112
    assert 276 < logits.max() < 288
    for is_causal in (False, True):
        phi = rf.PositiveFeatures().draw(dim, 64, rng=0, like=asarray(xp, query, dtype))
        out = attend(xp, phi, query, key, value, dtype, is_causal=is_causal)
        expected = naive_attention(phi, query, key, value, is_causal=is_causal)
        output_eps = eps_of(dtype) if dtype != "float32" else 0.0
        # |k|² of 3000 in an exponent of float32: the bound is a worst case over 64 roundings, a few tenths
        expected.check(out, eps_of("float32"), output_eps=output_eps, most=1.0)
        error = np.linalg.norm(to_numpy(out) - expected.output) / np.linalg.norm(expected.output)
        # and a random walk of them is 64 times less: 3000 eps in each exponent
        assert error < 4 * 3000 * eps_of("float32") + output_eps
        assert np.all(to_numpy(out) <= value.max())
        assert np.all(to_numpy(out) >= value.min())


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_float32_at_norm_fifty(xp, rng, is_causal):
    """|x|² = 50 in kernel units: float32 within 1e-4 of float64."""
    query, key = rng.standard_normal((2, 2, 20, 8))
    query, key = (np.sqrt(50) * x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, key))
    value = rng.standard_normal((2, 20, 3))
    query, key, value = (x.astype(np.float32).astype(np.float64) for x in (query, key, value))
    for estimator in POSITIVE:
        outs = []
        for dtype in ("float32", "float64"):
            phi = estimator.draw(8, 32, rng=0, like=asarray(xp, query, dtype))
            outs.append(to_numpy(attend(xp, phi, query, key, value, dtype, is_causal=is_causal, scale=1.0)))
        assert np.all(np.isfinite(outs[0]))
        assert np.linalg.norm(outs[0] - outs[1]) < 1e-4 * np.linalg.norm(outs[1])


# chunks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 8, 64, 1000])
def test_chunk_size_does_not_matter(monkeypatch, rng, name, chunk):
    xp = load_backend(name)
    monkeypatch.setattr(chunks, "CHUNK", chunk)
    monkeypatch.setattr(chunks, "CAUSAL_CHUNK", chunk)
    query, key, value = 2 * rng.standard_normal((2, 23, 5)), 2 * rng.standard_normal((2, 29, 5)), rng.random((2, 29, 3))
    mask = rng.random((2, 29)) < 0.8
    for estimator in ATTENTION:
        phi = estimator.draw(5, 8, rng=0, like=asarray(xp, query))
        for is_causal in (False, True):
            expected = naive_attention(phi, query, key, value, is_causal=is_causal, key_mask=mask, merges=40)
            actual = attend(xp, phi, query, key, value, is_causal=is_causal, key_mask=mask)
            expected.check(actual, eps_of("float64"), most=1e-10 if estimator.positive else 1e-5)


def test_blocks_of_exact_attention_do_not_matter(monkeypatch, rng):
    query, key, value = rng.standard_normal((2, 23, 5)), rng.standard_normal((2, 29, 5)), rng.random((2, 29, 3))
    for is_causal in (False, True):
        expected = naive_kernel_attention(rf.SoftmaxKernel(), query, key, value, is_causal=is_causal)
        for block in (1, 7, 1000):
            monkeypatch.setattr(exact, "BLOCK", block)
            expected.check(rf.softmax_attention(query, key, value, is_causal=is_causal), eps_of("float64"))


# empty sequences -------------------------------------------------------------------------------------------------


# leading dimensions and length of queries, and of keys
EMPTY = [
    ((2,), 0, (2,), 4),
    ((2,), 3, (2,), 0),
    ((2,), 0, (2,), 0),
    ((), 3, (2,), 0),
    ((2, 1), 3, (4,), 0),
    ((0,), 3, (0,), 4),
]


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_empty_sequences(xp, is_causal):
    """No queries: no outputs. No keys: zeros, in the shape that all leading dimensions broadcast to."""
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=asarray(xp, np.zeros(1)))

    def exact(query, key, value, phi, **options):
        return rf.softmax_attention(query, key, value, **options)

    for attention in (rf.linear_attention, exact):
        run = compiled(xp, lambda q, k, v, attention=attention: attention(q, k, v, phi, is_causal=is_causal))
        for lead_q, length, lead_k, keys in EMPTY:
            query, key = (asarray(xp, np.ones(shape)) for shape in ((*lead_q, length, 5), (*lead_k, keys, 5)))
            out = to_numpy(run(query, key, key[..., :3]))
            assert out.shape == (*np.broadcast_shapes(lead_q, lead_k), length, 3)
            assert np.all(out == 0)
    inputs = np.ones((4, 3, 5)), np.ones((2, 0, 5)), np.ones((2, 0, 3))
    grouped = attend(xp, phi, *inputs, enable_gqa=True, is_causal=is_causal)
    assert same_bits(grouped, np.zeros((4, 3, 3)))


def test_values_of_any_width(xp, rng):
    query, key = rng.standard_normal((2, 2, 5, 5))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=asarray(xp, query))
    for width in (0, 1, 9):
        value = rng.standard_normal((2, 5, width))
        for is_causal in (False, True):
            expected = naive_attention(phi, query, key, value, is_causal=is_causal)
            expected.check(attend(xp, phi, query, key, value, is_causal=is_causal), eps_of("float64"))
