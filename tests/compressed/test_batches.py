"""Sequences of a batch: random numbers depend on the number of the head alone, so each is as it is alone."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.compressed.heads import head_seeds
from tests.arrays import asarray, same_bits, to_numpy
from tests.compressed.heads import head

FUNCTIONS = {
    "clustered": lambda q, k, v: rf.clustered_attention(q, k, v, num_clusters=3),
    "accurate": lambda q, k, v: rf.clustered_attention(q, k, v, accuracy=0.4),
    "grouped": lambda q, k, v: rf.clustered_attention(q, half(k), half(v), num_clusters=3, enable_gqa=True),
    "on any device": lambda q, k, v: on_device(q, k, v),
    "compressed": lambda q, k, v: rf.compressed_attention(q, k, v, num_keys=9),
    "causal": lambda q, k, v: rf.compressed_attention(q, k, v, num_keys=9, window=16, is_causal=True),
    "cache": lambda q, k, v: rf.compress(k, v, queries=q, num_keys=9, fit=True).keys,
    "clusters": lambda q, k, v: rf.QueryClusters.fit(q, k, num_clusters=3).centers,
    "audit": lambda q, k, v: rf.output_error(q, k, v, v, num_rows=9).rows,
    "grouped audit": lambda q, k, v: rf.output_error(q, half(k), half(v), v, num_rows=9, enable_gqa=True).rows,
}


def half(x):
    return x[..., :2, :, :]


def close(found, expected):
    return np.max(np.abs(found - expected)) < 1e-12


def on_device(query, key, value):
    """With the fit on the host alone, as it is where gradients are recorded."""
    torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")
    query, key, value = (torch.tensor(x.copy(), requires_grad=True) for x in (query, key, value))
    return rf.clustered_attention(query, key, value, num_clusters=3).detach().numpy()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_sequence_is_as_it_is_alone_in_whatever_place(rng, name):
    """With one more leading dimension, or two; and heads of a sequence have random numbers of their own."""
    function = FUNCTIONS[name]
    equal = close if name == "on any device" else same_bits
    arrays = head(rng, 120, lead=(3, 4), value_dim=8)
    found = function(*arrays)
    for place in range(3):
        own = [x[place] for x in arrays]
        expected = function(*own)
        assert equal(found[place], expected)
    deeper = function(*(x[None, ::-1] for x in arrays))
    assert equal(deeper[0, ::-1], found)
    twins = function(*(np.repeat(x[:1, :1], 4, axis=1) for x in arrays))
    assert not np.allclose(twins[0, 0], twins[0, 3])


@pytest.mark.parametrize("grouped", [False, True], ids=["heads", "groups"])
@pytest.mark.parametrize("options", [{"num_clusters": 3}, {"accuracy": 0.1}], ids=["clusters", "accuracy"])
def test_a_padded_sequence_is_as_it_is_alone(xp, rng, options, grouped):
    """Also where gradients are recorded: short sequences are exact, and easy ones have few clusters."""
    query, key, value = head(rng, 120, lead=(3, 2), value_dim=8)
    query, lengths = query * np.array([0.2, 1.0, 1.0])[:, None, None, None], [120, 120, 15]
    key, value = (half(x)[:, : 1 if grouped else 2] for x in (key, value))
    mask = np.arange(120) < np.array(lengths)[:, None, None]
    options = options | {"enable_gqa": grouped}
    arrays = [asarray(xp, x) for x in (query, key, value)]
    found = [rf.clustered_attention(*arrays, key_mask=xp.asarray(mask), query_mask=mask, **options)]
    if hasattr(arrays[0], "requires_grad"):
        arrays = [x.requires_grad_() for x in arrays]
        found.append(rf.clustered_attention(*arrays, key_mask=xp.asarray(mask), query_mask=mask, **options).detach())
    for row, length in enumerate(lengths):
        alone = rf.clustered_attention(*(x[row, :, :length] for x in (query, key, value)), **options)
        for output in found:
            assert close(to_numpy(output)[row, :, :length], alone)


@pytest.mark.parametrize(("lead", "numbers"), [((), [0]), ((3,), [0, 1, 2]), ((2, 1, 2), [0, 1, 0, 1])], ids=str)
def test_head_n_has_the_nth_child_of_the_seed(lead, numbers):
    found = [seed.generate_state(2).tolist() for seed in head_seeds(5, lead)]
    assert found == [np.random.SeedSequence(5, spawn_key=(n,)).generate_state(2).tolist() for n in numbers]
