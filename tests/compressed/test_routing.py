"""Caches with a route: pieces of queries of one cluster, in libraries whose shapes are known beforehand."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.compressed.pieces import Pieces
from randfeat.compressed.routing import pieces_of
from tests.arrays import asarray, library, to_numpy
from tests.attention.test_linear import one_under_jax
from tests.compressed.heads import head

ROUNDING = 1e-12
LENGTHS = {"no query": 0, "one": 1, "a piece for each": 10, "pieces of several": 11, "many": 203}


def test_pieces_are_those_of_the_host(xp, rng):
    for num_groups, length in one_under_jax(xp, [(5, 100), (7, 33), (21, 400), (3, 10)], 1):
        for skew in (0.02, 0.3, 0.9):
            groups = np.minimum(rng.geometric(skew, (2, length)) - 1, num_groups - 1)
            found = [np.asarray(x) for x in pieces_of(xp.asarray(groups), num_groups)]
            for positions, owner, place, own in zip(*found, groups, strict=True):
                expected = Pieces.of(np.bincount(own, minlength=num_groups), num_groups, length)
                order = np.argsort(own, kind="stable")
                assert np.array_equal(positions[expected.filled], order[expected.positions][expected.filled])
                assert np.array_equal(owner[expected.filled.any(1)], expected.owner[expected.filled.any(1)])
                assert np.array_equal(positions.reshape(-1)[place], np.arange(length))


def routed(rng, xp, lead=(3,)):
    """A cache with a route, of the host and of a library."""
    query, key, value = head(rng, 300, lead=lead)
    cache = rf.QueryClusters.fit(query, key, num_clusters=5).compress(key, value)
    return cache, rf.KeyCache(*(asarray(xp, getattr(cache, name)) for name in ("keys", "bias", "values", "route")))


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_libraries_read_what_the_host_reads(xp, rng, length):
    """Whether the shape of heads is that of the caches or not, eager, compiled and with gradients recorded."""
    cache, other = routed(rng, xp)
    leads = [((3,), {}), ((2, 3), {}), ((2, 6), {"enable_gqa": True}), ((1,), {})]
    for lead, options in one_under_jax(xp, leads, length):
        query = head(rng, length, lead=lead)[0]
        expected = cache.read(query, **options)
        given = asarray(xp, query)
        results = [other.read(given, **options)]
        if library(xp) == "torch":
            results.append(other.read(given.requires_grad_(), **options))
        if library(xp) == "jax":
            results.append(rf.attention.PartialOutput(*compiled_read(other, given, options)))
        for result in results:
            for mine, theirs in zip(result.columns, expected.columns, strict=True):
                assert tuple(mine.shape) == theirs.shape
                assert np.max(np.abs(to_numpy(mine) - theirs), initial=0) < ROUNDING * (
                    1 + np.abs(theirs).max(initial=0)
                )


def compiled_read(cache, query, options):
    jax = pytest.importorskip("jax")
    import randfeat.integrations.jax  # noqa: F401 (caches are pytrees)

    return jax.jit(lambda cache, query: cache.read(query, **options).columns)(cache, query)


def test_gradients_of_a_routed_read(rng):
    torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")
    cache, _ = routed(rng, np, lead=(1,))
    query = torch.from_numpy(head(rng, 13, lead=(1,))[0]).requires_grad_()
    arrays = [torch.from_numpy(x).requires_grad_() for x in (cache.keys, cache.bias, cache.values)]

    def read(query, keys, bias, values):
        return rf.KeyCache(keys, bias, values, torch.from_numpy(cache.route)).read(query).normalized()

    assert torch.autograd.gradcheck(read, (query, *arrays), fast_mode=True)


def test_a_query_that_is_not_finite_spoils_its_own_output_only(xp, rng):
    cache, other = routed(rng, xp)
    query = head(rng, 50, lead=(3,))[0]
    expected = cache.read(query).normalized()
    query[1, 7] = np.nan
    found = to_numpy(other.read(asarray(xp, query)).normalized())
    assert np.all(np.isnan(found[1, 7]))
    found[1, 7] = expected[1, 7]
    assert np.max(np.abs(found - expected)) < ROUNDING
