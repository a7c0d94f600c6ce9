"""`CompressedState.to`: a stream that began with one array library goes on with another."""

import numpy as np

import randfeat as rf
from tests.arrays import asarray, to_numpy

Q, K, V = np.random.default_rng(0).standard_normal((3, 2, 60, 4))
OPTIONS = {"num_keys": 5, "window": 8, "num_sinks": 1, "is_causal": True, "return_state": True}


def parts(state):
    return [x for part in (state.sinks, state.merged, state.recent) for x in part.arrays] + [state.references]


def test_streams_go_on_in_another_library(xp):
    _, state = rf.compressed_attention(Q[:, :40], K[:, :40], V[:, :40], rng=0, **OPTIONS)
    moved = state.to(asarray(xp, V))
    for before, after in zip(parts(state), parts(moved), strict=True):
        assert type(after) is type(asarray(xp, V))
        np.testing.assert_array_equal(to_numpy(after), before)
    assert repr(moved) == repr(state)
    rest = [x[:, 40:] for x in (Q, K, V)]
    expected, _ = rf.compressed_attention(*rest, initial_state=state, **OPTIONS)
    output, _ = rf.compressed_attention(*(asarray(xp, x) for x in rest), initial_state=moved, **OPTIONS)
    np.testing.assert_allclose(to_numpy(output), expected, rtol=1e-9, atol=1e-12)


def test_the_dtype_is_that_of_the_array():
    _, state = rf.compressed_attention(Q, K, V, rng=0, **OPTIONS)
    assert {x.dtype for x in parts(state.to(np.zeros(1, np.float32)))} == {np.dtype(np.float32)}
