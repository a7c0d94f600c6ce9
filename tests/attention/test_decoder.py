"""AttentionDecoder: token by token, in pieces, reordered and repeated, what one causal pass gives."""

import itertools

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, eps_of, library, to_numpy
from tests.cases import ATTENTION
from tests.reference import naive_attention

LENGTH = 21  # more than what is kept of single keys


def tokens(xp, rng, *lead, length=LENGTH, dim=5, value_dim=3, dtype="float64"):
    query, key = rng.standard_normal((2, *lead, length, dim))
    return [asarray(xp, x, dtype) for x in (query, key, rng.standard_normal((*lead, length, value_dim)))]


def piece(arrays, start, stop):
    return [x[..., start:stop, :] for x in arrays]


def decoded(decoder, arrays, cuts, masks=None):
    """Outputs of steps between the cuts."""
    outputs = []
    for start, stop in itertools.pairwise(cuts):
        mask = None if masks is None else masks[..., start:stop]
        outputs.append(to_numpy(decoder.step(*piece(arrays, start, stop), key_mask=mask)))
    return np.concatenate(outputs, axis=-2)


def cuts_of(length=LENGTH):
    """A prompt, a short piece, then single tokens."""
    return [0, 3, 5, *range(6, length + 1)]


def assert_same_state(actual, expected, rtol=1e-10):
    """Equal up to rounding, after division by the largest key of each feature."""
    for name in ("log_max", "weighted", "total"):
        a, b = to_numpy(getattr(actual, name)), to_numpy(getattr(expected, name))
        assert a.shape == b.shape
        assert np.allclose(a, b, rtol=rtol, atol=rtol * np.max(np.abs(b[np.isfinite(b)]), initial=1.0)), name


@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_steps_are_a_causal_pass(xp, rng, estimator):
    """Against the naive twin, with the state of `linear_attention` at the end."""
    if library(xp) == "jax" and estimator not in (ATTENTION[0], ATTENTION[2]):
        pytest.skip("one estimator of each kind: fast and not")
    arrays = tokens(xp, rng, 2)
    phi = estimator.draw(5, 8, rng=0, like=arrays[0], batch_shape=(2,))
    decoder = rf.AttentionDecoder(phi)
    assert decoder.state is None
    expected = naive_attention(phi, *arrays, is_causal=True, merges=4 * LENGTH)
    expected.check(decoded(decoder, arrays, cuts_of()), eps_of("float64"), most=1e-10 if estimator.positive else 1e-5)
    _, state = rf.linear_attention(*arrays, phi, is_causal=True, return_state=True)
    assert decoder.num_keys == LENGTH
    assert decoder.state.origin is phi
    assert_same_state(decoder.state, state)


SHAPES = {
    "no lead": ((), (), (), False),
    "one map": ((2, 3), (2, 3), (), False),
    "map per head": ((2, 3), (2, 3), (3,), False),
    "map per batch and head": ((2, 3), (2, 3), (2, 3), False),
    "keys shared by the batch": ((2, 3), (1, 3), (3,), False),
    "keys shared by heads": ((2, 3), (2, 1), (), False),
    "keys of one head, maps of all": ((2, 3), (2, 1), (3,), False),
    "grouped, one map": ((2, 4), (2, 2), (), True),
    "grouped, map per query head": ((2, 4), (2, 2), (4,), True),
    "grouped, map per key head": ((2, 4), (2, 2), (2,), True),
    "grouped, one key head": ((2, 4), (2, 1), (4,), True),
}
"""Leading dimensions of queries, of keys and of maps, and whether heads are grouped."""


@pytest.mark.parametrize("case", SHAPES)
def test_leading_dimensions(rng, case):
    queries, keys, maps, grouped = SHAPES[case]
    query, _, _ = tokens(np, rng, *queries)
    _, key, value = tokens(np, rng, *keys)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, batch_shape=maps)
    decoder = rf.AttentionDecoder(phi, enable_gqa=grouped)
    options = {"is_causal": True, "enable_gqa": grouped, "return_state": True}
    expected, state = rf.linear_attention(query, key, value, phi, **options)
    assert np.allclose(decoded(decoder, (query, key, value), cuts_of()), expected, rtol=1e-11, atol=1e-12)
    assert_same_state(decoder.state, state)
    appended = rf.AttentionDecoder(phi, enable_gqa=grouped)
    for start, stop in ((0, 9), (9, 10), (10, LENGTH)):
        appended.append(key[..., start:stop, :], value[..., start:stop, :])
    assert_same_state(appended.state, state)
