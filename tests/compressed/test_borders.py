"""Arguments that used to load, to fill the memory, or to raise by chance."""

import numpy as np
import pytest

import randfeat as rf
from tests.compressed.heads import head

CALLS = {
    "compress": lambda q, k, v: rf.compress(k, v, queries=q, num_keys=16),
    "clustered": lambda q, k, v: rf.clustered_attention(q, k, v, num_clusters=4, num_exact=8),
    "compressed": lambda q, k, v: rf.compressed_attention(q, k, v, num_keys=16),
    "causal": lambda q, k, v: rf.compressed_attention(q, k, v, is_causal=True, num_keys=16, window=16),
    "error": lambda q, k, v: rf.output_error(q, k, v, v),
    "clusters": lambda q, k, v: rf.QueryClusters.fit(q, k, num_clusters=4).compress(k, v).read(q),
}


@pytest.mark.parametrize("name", CALLS)
def test_dask_arrays_are_not_loaded(rng, name):
    dask = pytest.importorskip("dask.array", reason="pip install '.[dask]'")
    lazy = [dask.from_array(x) for x in head(rng, 100)]
    with pytest.raises(TypeError, match=r"key must be in memory, got a dask Array; key\.compute\(\)"):
        CALLS[name](*lazy)


def test_other_dask_arguments_are_not_loaded(rng):
    dask = pytest.importorskip("dask.array", reason="pip install '.[dask]'")
    query, key, value = head(rng, 100)
    with pytest.raises(TypeError, match="output must be in memory, got a dask Array"):
        rf.output_error(query, key, value, dask.from_array(value))
    with pytest.raises(TypeError, match="query_mask must be in memory, got a dask Array"):
        rf.clustered_attention(query, key, value, query_mask=dask.ones(100, dtype=bool))
    with pytest.raises(TypeError, match="key must be in memory, got a dask Array"):
        rf.QueryClusters.fit(query, key).compress(*map(dask.from_array, (key, value)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [*CALLS, "exact", "linear"])
def test_underflow_is_no_error(rng, name, dtype):
    """Logits of hundreds, whose smallest weights are below every dtype; the numbers are those without the setting."""
    query, key, value = (rng.standard_normal((3, 2, 300, 8)) * 30).astype(dtype)
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=query)
    more = {"exact": rf.softmax_attention, "linear": lambda *x: rf.linear_attention(*x, phi, is_causal=True)}
    call = (CALLS | more)[name]
    expected = call(query, key, value)
    with np.errstate(all="raise"):
        found = call(query, key, value)
    if isinstance(expected, np.ndarray):
        assert np.array_equal(found, expected)


def test_huge_counts_take_no_memory(rng):
    """More rows than keys are all keys; clusters of frozen parameters are refused."""
    query, key, value = head(rng, 100)
    exact, huge = rf.softmax_attention(query, key, value, is_causal=True), 10**9
    for options in ({"num_keys": huge}, {"window": huge}, {"num_sinks": huge}):
        found = rf.compressed_attention(query, key, value, is_causal=True, **options)
        assert np.max(np.abs(found - exact)[:64]) < 1e-12
    exact = rf.softmax_attention(query, key, value)
    for options in ({"num_clusters": huge}, {"num_exact": huge}, {"num_merged": huge}):
        assert np.max(np.abs(rf.clustered_attention(query, key, value, **options) - exact)) < 1e-12
    with pytest.raises(ValueError, match="num_clusters must be at most 4096 for 100 vectors, got 1000000000"):
        rf.QueryClusters.fit(query, key, num_clusters=huge)
    with pytest.raises(ValueError, match="num_merged must be at most 4096 for 100 vectors, got 1000000000"):
        rf.QueryClusters.fit(query, key, num_merged=huge)
