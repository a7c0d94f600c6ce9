"""AttentionState: streaming, prefill and decoding, splitting and merging give what one pass gives."""

import dataclasses

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention.generic import chunks
from tests.arrays import asarray, computing, dtype_of, eps_of, library, same_bits, to_numpy
from tests.cases import ATTENTION
from tests.reference import FUNCTION, naive_attention, naive_features


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "CAUSAL_CHUNK", 4)
    monkeypatch.setattr(chunks, "CHUNK", 3)


def inputs(rng, length=9):
    query, key = rng.standard_normal((2, 2, length, 5))
    return query, key, rng.standard_normal((2, length, 3))


def parts(state):
    return state.log_max, state.weighted, state.total


def assert_same_state(a, b, phi, key, value):
    """Equal up to rounding: that of the exponents of the keys, and of the sums of at most one term |v| for each key."""
    naive = [naive_features(phi, row) for row in to_numpy(key).reshape(-1, *key.shape[-2:])]
    exponent = max(np.max(features.per_eps(phi.dim)) for features in naive) * eps_of("float64")
    assert exponent < 1e-11
    assert np.max(np.abs(to_numpy(a.log_max) - to_numpy(b.log_max))) <= exponent
    terms = key.shape[-2] * max(1.0, np.max(np.abs(to_numpy(value))))
    rounding = 2 * exponent + (40 * FUNCTION + key.shape[-2]) * eps_of("float64")  # at most 40 mergers
    for x, y in ((a.weighted, b.weighted), (a.total, b.total)):
        x, y = to_numpy(x), to_numpy(y)
        assert x.shape == y.shape
        assert np.max(np.abs(x - y)) <= rounding * terms
        assert np.max(np.abs(y)) > 0.1


@pytest.mark.parametrize("name", ["full", "causal", "decoder", "compressed"])
@pytest.mark.parametrize("library_name", ["numpy", "torch"])
def test_a_call_without_tokens_returns_a_state_of_its_own(rng, name, library_name):
    """Whoever writes to one of the two states does not change the other."""
    xp = pytest.importorskip(library_name, reason="pip install '.[frameworks]'")
    query, key, value = (asarray(xp, x) for x in inputs(rng))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=query)
    nothing = [x[..., :0, :] for x in (query, key, value)]
    if name == "compressed":
        _, state = rf.compressed_attention(query, key, value, is_causal=True, return_state=True)
        _, after = rf.compressed_attention(*nothing, is_causal=True, initial_state=state, return_state=True)
    else:
        _, state = rf.linear_attention(query, key, value, phi, return_state=True)
        options = {"is_causal": name == "causal", "initial_state": state, "return_state": True}
        after = rf.AttentionDecoder(phi, state).state
        if name != "decoder":
            _, after = rf.linear_attention(*nothing, phi, **options)
    for mine, other in zip(after.arrays, state.arrays, strict=True):
        assert same_bits(to_numpy(mine), to_numpy(other))
        assert not np.may_share_memory(to_numpy(mine), to_numpy(other))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_streaming_prefill_and_splitting(xp, rng, estimator):
    """Step by step = prefill and decode = split and merge = one pass, each against the naive twin."""
    if library(xp) == "jax" and estimator not in (ATTENTION[0], ATTENTION[2]):
        pytest.skip("compiled for positive and for signed features")
    query, key, value = inputs(rng)
    phi = estimator.draw(5, 8, rng=0, like=asarray(xp, query))
    expected = naive_attention(phi, query, key, value, is_causal=True, merges=40)
    most = 1e-11 if estimator.positive else 1e-6
    q, k, v = (asarray(xp, x) for x in (query, key, value))
    root = 5**-0.25

    def run(part, state=None, is_causal=True):
        piece = (x[:, part, :] for x in (q, k, v))
        return rf.linear_attention(*piece, phi, is_causal=is_causal, initial_state=state, return_state=True)

    whole, final = run(slice(None))
    expected.check(whole, eps_of("float64"), most=most)

    state, steps = rf.AttentionState.empty(8, 3, like=v), []
    for t in range(9):
        state = state.append(phi.keys(k[:, t : t + 1, :] * root), v[:, t : t + 1, :])
        steps.append(state.read(phi.queries(q[:, t : t + 1, :] * root)))
    expected.check(xp.concat(steps, axis=-2), eps_of("float64"), most=most)
    assert_same_state(state, final, phi, key * root, value)

    for split in (4,) if library(xp) == "jax" else (1, 4, 6):  # each split is new shapes, which JAX compiles
        first, state = run(slice(0, split))
        outs = [first]
        for t in range(split, 9):  # decode
            out, state = run(slice(t, t + 1), state)
            outs.append(out)
        expected.check(xp.concat(outs, axis=-2), eps_of("float64"), most=most)
        assert_same_state(state, final, phi, key * root, value)

        _, left = run(slice(0, split))
        second, both = run(slice(split, 9), left)
        expected.check(xp.concat([first, second], axis=-2), eps_of("float64"), most=most)
        assert_same_state(both, final, phi, key * root, value)
        _, right = run(slice(split, 9))
        for merged in (left.merge(right), right.merge(left)):
            assert_same_state(merged, final, phi, key * root, value)

    full, state = run(slice(None), is_causal=False)
    assert_same_state(state, final, phi, key * root, value)
    expected = naive_attention(phi, query, key, value, merges=40)
    expected.check(full, eps_of("float64"), most=most)
    expected.check(final.read(phi.queries(q * root)), eps_of("float64"), most=most)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("queries", [0, 2, 4, 9])
def test_keys_that_no_query_sees_are_remembered(rng, queries):
    """The state after a causal pass holds all keys, also those after the last query."""
    query, key, value = inputs(rng)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    causal = rf.linear_attention(query[:, :queries], key, value, phi, is_causal=True, return_state=True)[1]
    full = rf.linear_attention(query, key, value, phi, return_state=True)[1]
    assert_same_state(causal, full, phi, key * 5**-0.25, value)


@pytest.mark.usefixtures("small_chunks")
def test_streaming_with_masks_groups_and_maps_per_head(rng):
    """The state of grouped heads goes back in as it came out."""
    query, key, value = rng.standard_normal((4, 9, 5)), rng.standard_normal((2, 9, 5)), rng.standard_normal((2, 9, 3))
    mask = rng.random((2, 9)) < 0.6
    mask[1, :3] = False
    for batch_shape in ((), (2,), (4,)):
        phi = rf.PositiveFeatures().draw(5, 8, rng=0, batch_shape=batch_shape)
        options = {"is_causal": True, "enable_gqa": True}
        expected = naive_attention(phi, query, key, value, key_mask=mask, merges=40, **options)
        outs, state = [], None
        for part in (slice(0, 2), slice(2, 7), slice(7, 8), slice(8, 9)):
            out, state = rf.linear_attention(
                query[:, part], key[:, part], value[:, part], phi,
                key_mask=mask[:, part], initial_state=state, return_state=True, **options,
            )  # fmt: skip
            outs.append(out)
        expected.check(np.concatenate(outs, axis=-2), eps_of("float64"))


@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_is_an_associative_monoid(xp, rng, estimator):
    query, key, value = inputs(rng, 12)
    phi = estimator.draw(5, 8, rng=0, like=asarray(xp, query))
    empty = rf.AttentionState.empty(8, 3, like=asarray(xp, value))
    scales = (1.0, 30.0, 0.01)  # pieces whose sizes differ by hundreds in the exponent
    a, b, c = (
        empty.append(phi.keys(asarray(xp, s * key[:, 4 * i : 4 * i + 4])), asarray(xp, value[:, 4 * i : 4 * i + 4]))
        for i, s in enumerate(scales)
    )
    before = [to_numpy(x).copy() for x in parts(a)]
    for one, other in ((a.merge(b).merge(c), a.merge(b.merge(c))), (a.merge(b), b.merge(a))):
        assert same_bits(one.log_max, other.log_max)
        for x, y in ((one.weighted, other.weighted), (one.total, other.total)):
            # at most 12 terms |v|, each rescaled twice, by the exponential of a difference of exponents
            rounding = 12 * 4 * (np.max(np.abs(to_numpy(a.log_max))) + FUNCTION) * eps_of("float64")
            assert np.max(np.abs(to_numpy(x) - to_numpy(y))) <= rounding * np.max(np.abs(value))
    for one in (a, b, c):
        for same in (one.merge(empty), empty.merge(one)):
            assert all(same_bits(x, y) for x, y in zip(parts(same), parts(one), strict=True))
    a.append(phi.keys(asarray(xp, key)), asarray(xp, value)), a.read(phi.queries(asarray(xp, query)))
    assert all(same_bits(x, y) for x, y in zip(parts(a), before, strict=True))
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.total = None


ORIGINS = ("map", "fingerprint", "unknown")


@pytest.mark.parametrize("other", ["empty", *ORIGINS])
@pytest.mark.parametrize("own", ORIGINS)
def test_the_origin_of_merged_states(xp, rng, own, other):
    """That of either state, whichever knows it; merging with `empty` keeps it, on both sides."""
    _, key, value = inputs(rng)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=asarray(xp, key))
    known = {"map": phi, "fingerprint": phi.fingerprint, "unknown": None, "empty": None}
    empty = rf.AttentionState.empty(8, 3, like=asarray(xp, value))
    bare = empty.append(phi.keys(asarray(xp, key)), asarray(xp, value))
    mine = dataclasses.replace(bare, origin=known[own])
    theirs = empty if other == "empty" else dataclasses.replace(bare, origin=known[other])
    expected = known[own] if known[own] is not None else known[other]
    fingerprint = None if own == "unknown" and other in ("unknown", "empty") else phi.fingerprint
    for merged in (mine.merge(theirs), theirs.merge(mine)):
        assert merged.fingerprint == fingerprint
    assert mine.merge(theirs).origin is expected
    for same in (mine.decay(0.5), mine.append(phi.keys(asarray(xp, key)), asarray(xp, value))):
        assert same.origin is known[own]


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("length", [9, 80])
def test_a_returned_state_knows_its_map(xp, rng, length, is_causal):
    """In every executor, with heads grouped or not; and no other map is let near it."""
    if library(xp) == "jax" and (is_causal or length > 9):
        pytest.skip("takes long where nothing is compiled")
    query, key, value = inputs(rng, length)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=asarray(xp, query))
    other = phi.redraw(1)
    arrays = [asarray(xp, x) for x in (query, key, value)]
    options = {"is_causal": is_causal, "return_state": True}
    for more in ({}, {"enable_gqa": True}):
        _, state = rf.linear_attention(*arrays, phi, **options, **more)
        assert state.origin is phi
        _, after = rf.linear_attention(*arrays, phi, initial_state=state, **options, **more)
        assert after.origin is phi
        with pytest.raises(ValueError, match="the state was made with another feature map"):
            rf.linear_attention(*arrays, other, initial_state=state, **options, **more)
        with pytest.raises(ValueError, match="the state was made with another feature map"):
            state.merge(rf.linear_attention(*arrays, other, **options, **more)[1])


def test_empty(xp):
    like = asarray(xp, np.ones(1), "float32")
    empty = rf.AttentionState.empty(4, 3, like=like, batch_shape=(2,))
    assert [tuple(x.shape) for x in parts(empty)] == [(2, 1, 1), (2, 4, 3), (2, 4, 1)]
    phi = rf.PositiveFeatures().draw(5, 4, rng=0, like=like)
    queries, nothing = (
        phi.queries(asarray(xp, np.ones((2, 6, 5)), "float32")),
        asarray(xp, np.ones((2, 0, 5)), "float32"),
    )
    assert same_bits(empty.read(queries), np.zeros((2, 6, 3)))
    still = empty.append(phi.keys(nothing), nothing[..., :3])
    assert same_bits(still.read(queries), np.zeros((2, 6, 3)))
    full = rf.AttentionState.empty(4, 3, like=like, batch_shape=(2,), per_feature=True)
    assert [tuple(x.shape) for x in parts(full)] == [(2, 1, 4), (2, 4, 3), (2, 4, 1)]
    assert same_bits(full.read(queries), np.zeros((2, 6, 3)))
    for like in (np.arange(3), [1.0]):
        assert rf.AttentionState.empty(4, 3, like=like).total.dtype == np.float64


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_is_kept_in_the_computing_dtype(xp, rng, dtype):
    """float32 for half precision; a state of half precision would round away what comes late."""
    query, key, value = (asarray(xp, x, dtype) for x in inputs(rng))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=query)
    out, state = rf.linear_attention(query, key, value, phi, return_state=True)
    assert out.dtype == dtype_of(xp, dtype)
    assert all(x.dtype == dtype_of(xp, computing(dtype)) for x in parts(state))
    assert rf.linear_attention(query, key, value, phi, initial_state=state).dtype == dtype_of(xp, dtype)


def test_memory_does_not_depend_on_the_length(rng):
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    sizes = set()
    for length in (1, 9, 900):
        state = rf.linear_attention(*inputs(rng, length), phi, return_state=True, is_causal=True)[1]
        sizes.add(tuple(x.shape for x in parts(state)))
    assert sizes == {((2, 1, 8), (2, 8, 3), (2, 8, 1))}


def test_long_sums_of_half_precision(rng):
    """Ten thousand equal keys in float16: the mean of the values, where a float16 sum would stop growing at 2048."""
    length = 10_000
    query, key = np.zeros((1, 4), np.float16), np.zeros((length, 4), np.float16)
    value = (np.arange(length) % 2).astype(np.float16)[:, None]
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=query)
    assert rf.linear_attention(query, key, value, phi)[0, 0] == 0.5
    assert rf.linear_attention(np.zeros((length, 4), np.float16), key, value, phi, is_causal=True)[-1, 0] == 0.5


def test_wrong_initial_state(rng):
    query, key, value = inputs(rng)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    with pytest.raises(TypeError, match="initial_state must be an AttentionState, got tuple"):
        rf.linear_attention(query, key, value, phi, initial_state=(1, 2))
    for features, width in ((4, 3), (8, 2)):
        state = rf.AttentionState.empty(features, width, like=value)
        with pytest.raises(ValueError, match=rf"initial_state has .* \({features}, {width}\), expected \(8, 3\)"):
            rf.linear_attention(query, key, value, phi, initial_state=state)
    state = rf.AttentionState.empty(8, 3, like=value, batch_shape=(7,))
    with pytest.raises(ValueError, match=r"initial_state has leading shape \(7,\), expected \("):
        rf.linear_attention(query, key, value, phi, initial_state=state)


def test_a_state_prints_its_shapes():
    state = rf.AttentionState.empty(4, 3, like=np.ones(1), batch_shape=(2,))
    assert repr(state) == "AttentionState of shapes log_max=(2, 1, 1), weighted=(2, 4, 3), total=(2, 4, 1)"
