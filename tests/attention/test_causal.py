"""Causality to the last bit: what happens after a position does not exist for it."""

from itertools import product

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention.generic import causal, chunks
from tests.arrays import asarray, compiled, same_bits, to_numpy
from tests.cases import ATTENTION
from tests.reference import naive_attention

LENGTH, CHUNK = 13, 4

FUTURES = {
    "other": lambda x: -2.0 * x + 1.0,
    "ten thousand times as large": lambda x: 1e4 * x,
    "tiny": lambda x: 1e-300 * x,
    "NaN": lambda x: x * np.nan,
    "infinite": lambda x: np.copysign(np.inf, x),
    "zero": np.zeros_like,
}


@pytest.fixture
def small_chunks(monkeypatch):
    """Positions on both sides of the borders of chunks, and of the dyadic blocks within."""
    monkeypatch.setattr(chunks, "CAUSAL_CHUNK", CHUNK)
    monkeypatch.setattr(chunks, "CHUNK", CHUNK)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_outputs_never_see_the_future(xp, rng, estimator):
    """Bit-equal, whatever later queries, keys and values become: position by position."""
    query, key, value = rng.standard_normal((3, 2, LENGTH, 5))
    phi = estimator.draw(5, 8, rng=0, like=asarray(xp, query))
    run = compiled(xp, lambda q, k, v: rf.linear_attention(q, k, v, phi, is_causal=True))
    clean = to_numpy(run(*(asarray(xp, x) for x in (query, key, value))))
    for future, now in product(FUTURES, (0, 1, 3, 4, 6, 7, 11)):
        changed = []
        for x in (query, key, value):
            x = x.copy()
            with np.errstate(invalid="ignore"):
                x[:, now + 1 :] = FUTURES[future](x[:, now + 1 :])
            changed.append(asarray(xp, x))
        with np.errstate(invalid="ignore", over="ignore"):
            out = to_numpy(run(*changed))
        assert np.array_equal(out[:, : now + 1], clean[:, : now + 1]), f"position {now} saw the future, {future}"
        assert not np.any(np.all(out[:, now + 1 :] == clean[:, now + 1 :], axis=-1)), "nothing was changed"


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_spoils_what_sees_it_and_nothing_else(xp, rng, bad):
    """A NaN or infinity in one value or key that takes part spoils exactly the outputs from its position on."""
    query, key, value = rng.standard_normal((3, 2, LENGTH, 5))
    phi = rf.HyperbolicFeatures().draw(5, 8, rng=0, like=asarray(xp, query))
    run = compiled(xp, lambda q, k, v: rf.linear_attention(q, k, v, phi, is_causal=True))
    for position in (0, 2, 5, LENGTH - 1):
        for which in (1, 2):
            inputs = [query.copy(), key.copy(), value.copy()]
            inputs[which][0, position, 1] = bad
            with np.errstate(invalid="ignore"):
                out = to_numpy(run(*(asarray(xp, x) for x in inputs)))
            spoilt = ~np.isfinite(out)
            assert not spoilt[1].any()
            assert not spoilt[0, :position].any()
            columns = slice(None) if which == 1 else 1
            assert spoilt[0, position:, columns].all()
    inputs = [query.copy(), key, value]
    inputs[0][0, 5, 1] = np.nan
    out = to_numpy(run(*(asarray(xp, x) for x in inputs)))
    assert np.isnan(out[0, 5]).all()
    assert np.isnan(out).sum() == out.shape[-1]


@pytest.mark.usefixtures("small_chunks")
def test_masks_of_the_future_do_not_matter(rng):
    query, key, value = rng.standard_normal((3, LENGTH, 5))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    masks = rng.random((2, LENGTH)) < 0.5
    masks[:, :7] = masks[0, :7]
    assert np.any(masks[0] != masks[1])
    outs = [rf.linear_attention(query, key, value, phi, is_causal=True, key_mask=mask) for mask in masks]
    assert same_bits(outs[0][:7], outs[1][:7])
    assert not same_bits(*outs)


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize(("queries", "keys"), [(7, 3), (3, 7), (1, 7), (7, 1)])
@pytest.mark.usefixtures("small_chunks")
def test_unequal_lengths_are_aligned_top_left(xp, rng, queries, keys, scale):
    """Query i sees keys 0 .. i whatever the lengths, as in PyTorch; nothing is truncated, at any scale."""
    query, key = scale * rng.standard_normal((queries, 5)), scale * rng.standard_normal((keys, 5))
    value = rng.standard_normal((keys, 3))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=asarray(xp, query))
    run = compiled(xp, lambda q, k, v: rf.linear_attention(q, k, v, phi, is_causal=True))
    out = run(*(asarray(xp, x) for x in (query, key, value)))
    assert tuple(out.shape) == (queries, 3)
    naive_attention(phi, query, key, value, is_causal=True).check(out, 2.0**-52)
    if scale > 1:
        log_features = to_numpy(compiled(xp, lambda k: phi.keys(k).log_scale)(asarray(xp, key * 5**-0.25)))
        assert np.max(log_features) < -800  # zero beside anything that might fill up a chunk


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_halving_covers_every_pair_once(size):
    """With all weights equal, the denominator of query i counts the keys 0 .. i: each once."""
    n = size
    ones = rf.Features(np.ones((n, 1)), np.zeros((n, 1)))
    partial = causal.causal_partial(ones, ones, np.eye(n))
    counts = partial.denominator * np.exp(partial.log_scale)
    assert same_bits(counts[:, 0], np.arange(1.0, n + 1))
    assert same_bits(partial.numerator * np.exp(partial.log_scale), np.tril(np.ones((n, n))))
