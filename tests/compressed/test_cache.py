"""Key caches: exactness, masses, merging, compression again, on every library."""

import copy
import pickle

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, eps_of, to_numpy
from tests.compressed.heads import edge_cases, head
from tests.compressed.naive import attention, relative

FITS = pytest.mark.parametrize("fit", [False, True], ids=["merged", "fitted"])
ROUNDING = 1e-11  # of sums of some hundred float64 terms, in exponents of some hundred
CASES = list(edge_cases(np.random.default_rng(0)))


def mean_mass(cache, query, key):
    """The mass that the cache has for queries, relative to that of the keys, on average."""
    logits = query @ to_numpy(cache.keys).T / np.sqrt(query.shape[1]) + to_numpy(cache.bias)
    exact = query @ key.T / np.sqrt(query.shape[1])
    top = exact.max(axis=1, keepdims=True)
    return np.mean(np.exp(logits - top).sum(1) / np.exp(exact - top).sum(1))


@FITS
def test_reading_is_softmax_attention_with_biases(xp, rng, fit):
    query, key, value = head(rng, lead=(2,))
    arrays = [asarray(xp, x) for x in (query, key, value)]
    cache = rf.compress(*arrays[1:], num_keys=12, queries=arrays[0], fit=fit)
    keys, bias, values = (to_numpy(x) for x in (cache.keys, cache.bias, cache.values))
    expected = [attention(q @ w.T / np.sqrt(8) + b, u) for q, w, b, u in zip(query, keys, bias, values, strict=True)]
    assert np.max(np.abs(to_numpy(cache.read(arrays[0]).normalized()) - expected)) < ROUNDING
    read = rf.softmax_attention(arrays[0], cache.keys, cache.values, key_bias=cache.bias)
    assert np.max(np.abs(to_numpy(read) - expected)) < ROUNDING
    assert relative(expected, rf.softmax_attention(query, key, value)) < 0.5


def test_libraries_agree(xp, rng):
    query, key, value = head(rng, lead=(2,))
    for fit in (False, True):
        expected = rf.compress(key, value, num_keys=12, queries=query, fit=fit)
        found = rf.compress(*(asarray(xp, x) for x in (key, value)), num_keys=12, queries=asarray(xp, query), fit=fit)
        for name in ("keys", "bias", "values"):
            mine, other = to_numpy(getattr(found, name)), getattr(expected, name)
            finite = np.isfinite(other)
            assert np.array_equal(np.isfinite(mine), finite)
            assert np.max(np.abs(mine[finite] - other[finite])) < ROUNDING


@FITS
@pytest.mark.parametrize("name", CASES)
def test_edge_cases_are_finite(rng, name, fit):
    query, key, value = edge_cases(rng)[name]
    with np.errstate(all="raise", under="ignore"):
        cache = rf.compress(key, value, num_keys=16, queries=query, fit=fit)
        output = cache.read(query).normalized()
    assert np.all(np.isfinite(output))
    assert cache.num_keys <= 16
    slack = 1e-12 * np.abs(value).max()
    if not fit:
        assert np.all((value.min(0) - slack <= output) & (output <= value.max(0) + slack))


@FITS
@pytest.mark.parametrize("name", ["one key", "equal keys", "zero"])
def test_is_exact_where_nothing_is_lost(rng, name, fit):
    query, key, value = edge_cases(rng)[name]
    output = rf.compress(key, value, num_keys=16, queries=query, fit=fit).read(query).normalized()
    assert np.max(np.abs(output - rf.softmax_attention(query, key, value))) < (1e-6 if fit else 1e-12)


@FITS
@pytest.mark.parametrize("num_keys", [149, 150, 151])
def test_as_many_rows_as_keys_are_the_keys(xp, rng, num_keys, fit):
    query, key, value = head(rng)
    arrays = [asarray(xp, x) for x in (query, key, value)]
    cache = rf.compress(*arrays[1:], num_keys=num_keys, queries=arrays[0], fit=fit)
    if num_keys < 150:
        assert cache.num_keys <= num_keys
    else:
        assert np.array_equal(to_numpy(cache.keys), key)
        assert np.all(to_numpy(cache.bias) == 0)
        assert np.array_equal(to_numpy(cache.values), value)


def test_the_mean_mass_of_the_references_is_exact(rng):
    query, key, value = head(rng, 40, 300)  # 2 x 20 references: all queries
    cache = rf.compress(key, value, num_keys=20, queries=query, fit=False)
    assert abs(mean_mass(cache, query, key) - 1) < 1e-11


def test_a_fit_lowers_the_error_on_the_references(rng):
    query, key, value = head(rng, 64, 600, lead=(10,), size=2.0)
    exact = rf.softmax_attention(query, key, value)
    errors = [
        relative(rf.compress(key, value, num_keys=16, queries=query, fit=fit).read(query).normalized(), exact)
        for fit in (False, True)
    ]
    assert errors[1] < errors[0]


def test_caches_of_disjoint_keys_are_joined_or_merged(xp, rng):
    query, key, value = (asarray(xp, x) for x in head(rng, lead=(2,)))
    first = rf.compress(key[:, :100, :], value[:, :100, :], num_keys=10, queries=query, fit=False)
    rest = rf.KeyCache.exact(key[:, 100:, :], value[:, 100:, :])
    joined = to_numpy(first.concat(rest).read(query).normalized())
    assert np.max(np.abs(joined - to_numpy(first.read(query).merge(rest.read(query)).normalized()))) < ROUNDING
    assert relative(joined, to_numpy(rf.softmax_attention(query, key, value))) < 0.35


def test_exact_caches_take_masks(xp, rng):
    query, key, value = head(rng, lead=(2,))
    mask = rng.random((2, 150)) < 0.5
    spoiled = (asarray(xp, np.where(mask[..., None], x, np.nan)) for x in (key, value))
    cache = rf.KeyCache.exact(*spoiled, key_mask=xp.asarray(mask))
    found = to_numpy(cache.read(asarray(xp, query)).normalized())
    assert np.max(np.abs(found - rf.softmax_attention(query, key, value, key_mask=mask))) < ROUNDING


def test_compressing_again_carries_the_biases(rng):
    query, key, value = head(rng, 40, 400)
    exact = rf.softmax_attention(query, key, value)
    cache = rf.KeyCache.exact(key[:0], value[:0])
    for start in range(0, 400, 50):
        cache = cache.concat(rf.KeyCache.exact(key[start : start + 50], value[start : start + 50]))
        cache = cache.compress(20, queries=query, fit=False)
    once = rf.compress(key, value, num_keys=20, queries=query, fit=False)
    assert abs(mean_mass(cache, query, key) - 1) < 0.01  # relative to masses that were merged before
    assert relative(cache.read(query).normalized(), exact) < 1.5 * relative(once.read(query).normalized(), exact) + 0.05


@FITS
def test_masked_is_truncated_and_masked_content_is_irrelevant(xp, rng, fit):
    query, key, value = head(rng)
    keys, queries = np.arange(150) < 100, np.arange(150) < 120
    spoiled = [np.where(queries[:, None], query, 1e30), *(np.where(keys[:, None], x, 1e30) for x in (key, value))]
    masks = {"key_mask": xp.asarray(keys), "query_mask": xp.asarray(queries)}
    first, *rest = (asarray(xp, x) for x in spoiled)
    found = rf.compress(*rest, num_keys=12, queries=first, fit=fit, **masks)
    expected = rf.compress(key[:100], value[:100], num_keys=12, queries=query[:120], fit=fit)
    for name in ("keys", "values"):
        assert np.max(np.abs(to_numpy(getattr(found, name)) - getattr(expected, name))) < ROUNDING


def test_heads_with_different_numbers_of_keys(rng):
    query, key, value = head(rng, lead=(3,))
    mask = np.arange(150) < np.array([150, 5, 0])[:, None]
    cache = rf.compress(key, value, num_keys=12, queries=query, key_mask=mask, fit=False)
    exact = rf.softmax_attention(query, key, value, key_mask=mask)
    output = cache.read(query).normalized()
    assert np.max(np.abs(output[1:] - exact[1:])) < ROUNDING
    assert np.sum(np.isfinite(cache.bias), axis=-1).tolist()[1:] == [5, 0]


def test_grouped_heads_share_a_cache(xp, rng):
    query, key, value = head(rng, lead=(2, 6))[0], *head(rng, lead=(2, 2))[1:]
    q, k, v = (asarray(xp, x) for x in (query, key, value))
    cache = rf.compress(k, v, num_keys=20, queries=q, fit=False, enable_gqa=True)
    pooled = rf.compress(key, value, num_keys=20, queries=query.reshape(2, 2, 450, 8), fit=False)
    assert cache.batch_shape == (2, 2)
    assert np.max(np.abs(to_numpy(cache.keys) - pooled.keys)) < ROUNDING
    found = to_numpy(cache.read(q, enable_gqa=True).normalized())
    expected = pooled.read(query.reshape(2, 2, 450, 8)).normalized().reshape(2, 6, 150, 5)
    assert np.max(np.abs(found - expected)) < ROUNDING


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_caches_have_the_dtype_of_the_keys(xp, rng, dtype):
    query, key, value = (asarray(xp, x, dtype) for x in head(rng))
    cache = rf.compress(key, value, num_keys=12, queries=query, fit=False)
    assert cache.keys.dtype == key.dtype == cache.values.dtype
    assert cache.bias.dtype == xp.float32
    exact = rf.softmax_attention(*(to_numpy(x) for x in (query, key, value)))
    wide = rf.compress(*(to_numpy(x) for x in (key, value)), num_keys=12, queries=to_numpy(query), fit=False)
    mine = relative(to_numpy(rf.softmax_attention(query, cache.keys, cache.values, key_bias=cache.bias)), exact)
    assert mine < 1.3 * relative(wide.read(to_numpy(query)).normalized(), exact) + 8 * eps_of(dtype)


def test_an_offset_of_all_keys_moves_the_rows(rng):
    query, key, value = head(rng)
    cache = rf.compress(key, value, num_keys=12, queries=query, fit=False)
    moved = rf.compress(key + 1000.0, value, num_keys=12, queries=query, fit=False)
    assert np.max(np.abs(moved.keys - 1000.0 - cache.keys)) < 1e-7
    assert np.max(np.abs(moved.bias - cache.bias)) < 1e-6


def test_the_rows_are_differentiable(rng):
    torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")
    query, key, value = head(rng, 40, dim=3, value_dim=2)
    arrays = [torch.from_numpy(x).requires_grad_() for x in (key, value)]
    cache = rf.compress(*arrays, num_keys=5, queries=torch.from_numpy(query), fit=False)
    ((cache.keys**2).sum() + cache.values.sum()).backward()
    merged = rf.compress(key, value, num_keys=5, queries=query, fit=False)
    assert arrays[1].grad.sum().item() == pytest.approx(2 * merged.num_keys)  # shares sum to 1
    assert np.isfinite(arrays[0].grad.numpy()).all()


def test_routed_caches_read_like_clustered_attention(xp, rng):
    query, key, value = head(rng, 120, 90, lead=(2,))
    clusters = rf.QueryClusters.fit(query, key, num_clusters=5)
    cache = clusters.compress(asarray(xp, key), asarray(xp, value), num_exact=7)
    expected = rf.clustered_attention(query, key, value, clusters=clusters, num_exact=7)
    assert np.max(np.abs(to_numpy(cache.read(asarray(xp, query)).normalized()) - expected)) < ROUNDING
    extra = rf.KeyCache.exact(asarray(xp, key[:, :9]), asarray(xp, value[:, :9]))
    joined = to_numpy(cache.concat(extra).read(asarray(xp, query)).normalized())
    merged = cache.read(asarray(xp, query)).merge(extra.read(asarray(xp, query))).normalized()
    assert np.max(np.abs(joined - to_numpy(merged))) < ROUNDING


def test_clusters_compress_lists(rng):
    query, key, value = head(rng)
    clusters = rf.QueryClusters.fit(query, key, num_clusters=5)
    found = clusters.compress(key.tolist(), value.tolist())
    assert np.array_equal(found.keys, clusters.compress(key, value).keys)


def test_copies_and_pickles(rng):
    query, key, value = head(rng)
    cache = rf.compress(key, value, num_keys=12, queries=query)
    clusters = rf.QueryClusters.fit(query, key, num_clusters=5)
    for again in (pickle.loads(pickle.dumps(cache)), copy.deepcopy(cache)):
        assert np.array_equal(again.read(query).normalized(), cache.read(query).normalized())
    again = pickle.loads(pickle.dumps(clusters))
    assert np.array_equal(again.compress(key, value).keys, clusters.compress(key, value).keys)


def test_moves_between_libraries(xp, rng):
    query, key, value = head(rng)
    cache = rf.compress(key, value, num_keys=12, queries=query)
    moved = cache.to(asarray(xp, query, "float32"))
    assert moved.keys.dtype == xp.float32
    assert (
        relative(to_numpy(moved.read(asarray(xp, query, "float32")).normalized()), cache.read(query).normalized())
        < 1e-5
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_keys": 0}, ValueError, "num_keys must be a positive integer"),
        ({"folds": "time"}, ValueError, 'folds must be "random" or "blocks"'),
        ({"fit": 1}, TypeError, "fit must be True or False"),
        ({"key_bias": np.zeros(149)}, ValueError, "key_bias must have shape"),
        ({"rng": "seed"}, TypeError, "rng must be"),
    ],
    ids=["no keys", "folds", "number", "bias", "rng"],
)
def test_bad_arguments(rng, options, error, message):
    query, key, value = head(rng)
    with pytest.raises(error, match=message):
        rf.compress(key, value, **{"num_keys": 12, "queries": query, **options})


def test_caches_that_do_not_fit_are_refused(rng):
    query, key, value = head(rng)
    cache = rf.compress(key, value, num_keys=12, queries=query)
    routed = rf.QueryClusters.fit(query, key, num_clusters=5).compress(key, value)
    for other, error, message in (
        ((key, value), TypeError, "expected a KeyCache, got tuple"),
        (rf.KeyCache.exact(key, value, scale=1.0), ValueError, "different scales, None and 1.0"),
        (rf.KeyCache.exact(key[:, :3], value), ValueError, "dimensions"),
    ):
        with pytest.raises(error, match=message):
            cache.concat(other)
    with pytest.raises(ValueError, match="two caches with routes"):
        routed.concat(routed)
    with pytest.raises(ValueError, match="with a route cannot be compressed"):
        routed.compress(5, queries=query)


@pytest.mark.parametrize("shape", [(0, 100), (2, 0)], ids=["no heads", "no keys"])
def test_nothing_to_compress(xp, shape):
    heads, length = shape
    query, key, value = (asarray(xp, np.zeros((heads, n, 4))) for n in (9, length, length))
    cache = rf.compress(key, value, num_keys=12, queries=query)
    assert cache.read(query).normalized().shape == (heads, 9, 4)
    assert rf.compressed_attention(query, key, value, num_keys=12).shape == (heads, 9, 4)
    assert rf.clustered_attention(query, key, value).shape == (heads, 9, 4)
    assert rf.compressed_attention(query, query, query, num_keys=2, window=3, is_causal=True).shape == (heads, 9, 4)


def test_exact_caches_check_their_mask(rng):
    _, key, value = head(rng, lead=(2, 3))
    with pytest.raises(ValueError, match="key_mask must have shape"):
        rf.KeyCache.exact(key, value, key_mask=np.ones((2, 150), bool))


def test_a_key_that_is_not_finite_spoils_every_read(xp, rng):
    query, key, value = head(rng, lead=(2,))
    key[0, 3] = np.nan
    arrays = [asarray(xp, x) for x in (query, key, value)]
    caches = [
        rf.compress(*arrays[1:], num_keys=12, queries=arrays[0]),
        rf.KeyCache.exact(*arrays[1:]),
        rf.QueryClusters.fit(query, key, num_clusters=4).compress(*arrays[1:]),
    ]
    for cache in caches:
        output = to_numpy(cache.read(arrays[0]).normalized())
        assert np.all(np.isnan(output[0]))
        assert np.all(np.isfinite(output[1]))


def test_caches_own_their_arrays(rng):
    query, key, value = head(rng)
    for cache in (rf.KeyCache.exact(key, value), rf.compress(key, value, num_keys=500, queries=query)):
        before = cache.read(query).normalized()
        key[:], value[:] = 0, 0
        assert np.array_equal(cache.read(query).normalized(), before)
        query, key, value = head(rng)


def test_entries_of_padding_only_have_finite_caches(rng):
    query, key, value = head(rng, lead=(2,))
    mask = np.array([[True], [False]]) & np.ones(150, bool)
    cache = rf.compress(key, value, num_keys=12, queries=query, query_mask=mask)
    assert np.all(np.isfinite(cache.read(query).normalized()))
    with pytest.raises(ValueError, match="queries must have at least one"):
        rf.compress(key, value, num_keys=12, queries=query[:, :0])
