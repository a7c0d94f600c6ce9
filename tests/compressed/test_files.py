"""Key caches, clusters and states of streams: in files, in pytrees, and damaged files refused."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.storage import archive
from tests.arrays import asarray, to_numpy
from tests.attention.test_linear import one_under_jax
from tests.compressed.heads import head


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "file.npz")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_loaded_cache_reads_the_same_bits(rng, path, dtype):
    query, key, value = (x.astype(dtype) for x in head(rng, lead=(2,)))
    for cache in (
        rf.compress(key, value, num_keys=12, queries=query),
        rf.KeyCache.exact(key, value, scale=0.5),
        rf.QueryClusters.fit(query, key, num_clusters=4).compress(key, value),
    ):
        rf.save(path, cache)
        again = rf.load(path)
        assert again.scale == cache.scale
        for name in ("keys", "bias", "values", "route"):
            mine, other = getattr(again, name), getattr(cache, name)
            assert (mine is None and other is None) or (mine.dtype == other.dtype and np.array_equal(mine, other))


def test_bfloat16_is_kept_as_float32(rng, path):
    torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")
    query, key, value = (torch.from_numpy(x).to(torch.bfloat16) for x in head(rng))
    cache = rf.compress(key, value, num_keys=12, queries=query)
    rf.save(path, cache)
    again = rf.load(path, like=query)
    assert torch.equal(again.keys, cache.keys)
    assert torch.equal(again.bias, cache.bias)
    assert rf.load(path).keys.dtype == np.float32


def test_loaded_clusters_attend_the_same(xp, rng, path):
    query, key, value = head(rng)
    clusters = rf.QueryClusters.fit(query, key, num_clusters=4)
    rf.save(path, clusters)
    arrays = [asarray(xp, x) for x in (query, key, value)]
    expected = to_numpy(rf.clustered_attention(*arrays, clusters=clusters))
    assert np.array_equal(to_numpy(rf.clustered_attention(*arrays, clusters=rf.load(path))), expected)


def test_a_stream_continues_from_a_file(xp, rng, path):
    arrays = [asarray(xp, x) for x in head(rng, 150, lead=(2,))]
    options = {"is_causal": True, "return_state": True}
    for first, num_sinks in one_under_jax(xp, [(5, 0), (5, 3), (100, 0), (100, 3)], 3):
        start, rest = ([x[:, part, :] for x in arrays] for part in (slice(0, first), slice(first, 150)))
        _, state = rf.compressed_attention(*start, num_keys=12, window=8, num_sinks=num_sinks, **options)
        rf.save(path, state)
        expected, _ = rf.compressed_attention(*rest, initial_state=state, **options)
        found, _ = rf.compressed_attention(*rest, initial_state=rf.load(path, like=arrays[0]), **options)
        assert np.array_equal(to_numpy(found), to_numpy(expected)), (first, num_sinks)


def test_damaged_records_are_refused(rng, path):
    query, key, value = head(rng)
    cache = rf.compress(key, value, num_keys=12, queries=query)
    state = rf.compressed_attention(query, key, value, is_causal=True, num_keys=12, window=8, return_state=True)[1]
    clusters = rf.QueryClusters.fit(query, key, num_clusters=4)
    for record, field, content in (
        (cache, "bias", {"rows": "array0"}),
        (cache, "scale", -1.0),
        (cache, "values", None),
        (cache, "colour", 3),
        (clusters, "key_mean", {"rows": "array0"}),
        (state, "window", 3),
        (state, "follows", 1),
        (state, "position", -1),
        (state, "merged", 5),
    ):
        rf.save(path, record)
        with open(path, "rb") as file:
            header, arrays = archive.read(file)
        header["object"]["fields"][field] = content
        archive.write(path, header, arrays)
        with pytest.raises(ValueError, match="holds nothing that this randfeat can make"):
            rf.load(path)


def test_caches_and_states_are_pytrees(rng):
    jax = pytest.importorskip("jax", reason="pip install '.[frameworks]'")
    import randfeat.integrations.jax  # noqa: F401 (registers them)

    query, key, value = (jax.numpy.asarray(x) for x in head(rng))
    cache = rf.compress(key, value, num_keys=12, queries=query)
    expected = cache.read(query).normalized()
    found = jax.jit(lambda cache, q: cache.read(q).normalized())(cache, query)
    assert np.max(np.abs(np.asarray(found - expected))) < 1e-12
    gradient = jax.grad(lambda cache: (cache.read(query).normalized() ** 2).sum())(cache)
    assert gradient.keys.shape == cache.keys.shape
