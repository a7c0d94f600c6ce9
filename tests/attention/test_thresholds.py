"""Every branch that a size decides, at the sizes that decide it in practice.

Other tests set block and chunk sizes to a few rows. Here they are as they are: blocks, tasks, chunks, squares and
groups all have more than one of each, and borders in their midst.
"""

import numpy as np
import pytest

import randfeat as rf
from randfeat import maps
from randfeat._numpy import blockwise
from randfeat.attention import exact, executors
from randfeat.attention.generic import chunks, toeplitz
from randfeat.attention.numpy import exponents, full, heads, key_block
from randfeat.attention.numpy.executor import NumPyExecutor
from tests.arrays import asarray, eps_of
from tests.conftest import load_backend
from tests.reference import naive_attention, naive_kernel_attention

EPS = eps_of("float64")
DIM, VALUES = 3, 2
WIDE = 600  # features, of which few rows make a block


def block_rows(width):
    return exponents.block_rows(width, np.dtype("float64"))


# (queries, keys, features) on both sides of each threshold of the NumPy passes
SIZES = {
    "just long enough": (heads.SHORTEST, 3, 4),
    "more keys than queries": (3, heads.SHORTEST, 4),
    "a block": (block_rows(WIDE), block_rows(WIDE), WIDE),
    "a block and one more": (block_rows(WIDE) + 1, block_rows(WIDE) + 1, WIDE),
    "a task and one more": (full.TASK + 1, full.TASK + 1, 4),
    "tasks of two pieces": (full.MOST_TASKS * full.TASK + 5, full.MOST_TASKS * full.TASK + 900, 2),
}


def problem(rng, num_queries, num_keys, lead=()):
    query, key, value = (
        rng.standard_normal((*lead, n, c)) for n, c in ((num_queries, DIM), (num_keys, DIM), (num_keys, VALUES))
    )
    return query, key, value, rng.random(num_keys) < 0.8


def generic(function, *inputs, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "EXECUTORS", executors.EXECUTORS[-1:])
        return function(*inputs, **options)


@pytest.fixture
def taken(recorded):
    """What the NumPy executor gave, call by call."""
    return recorded(NumPyExecutor, "attend", "pull_back")


def rounding(*sizes):
    """Exponents of at most 40, products of them, and sums of as many terms as there are."""
    return (400 + 4 * sum(sizes)) * EPS


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("size", SIZES)
def test_numpy_passes(taken, rng, size, is_causal):
    num_queries, num_keys, width = SIZES[size]
    if is_causal:
        num_queries = num_keys = min(max(num_queries, num_keys), 2 * full.TASK + 77)
    lead = (2,) if width * num_keys < 10**6 and num_keys < 10_000 else ()
    query, key, value, mask = problem(rng, num_queries, num_keys, lead)
    phi = rf.PositiveFeatures().draw(DIM, width, rng=0, batch_shape=lead)
    options = {"is_causal": is_causal, "key_mask": mask}
    bound = rounding(num_queries, num_keys, width)
    out, state = rf.linear_attention(query, key, value, phi, return_state=True, **options)
    expected, last = generic(rf.linear_attention, query, key, value, phi, return_state=True, **options)
    assert np.max(np.abs(out - expected)) <= bound * np.max(np.abs(value))
    for name in ("log_max", "weighted", "total"):
        ours, theirs = getattr(state, name), getattr(last, name)
        assert np.max(np.abs(ours - theirs)) <= bound * max(np.max(np.abs(theirs)), 1.0)
    cotangent = rng.standard_normal(out.shape)
    ours = rf.linear_attention_vjp(query, key, value, phi, cotangent, **options)
    theirs = generic(rf.linear_attention_vjp, query, key, value, phi, cotangent, **options)
    total = np.sum(np.abs(cotangent))
    for mine, right in zip(ours, theirs, strict=True):
        assert np.max(np.abs(mine - right)) <= bound * max(np.max(np.abs(right)), total / num_keys)
    assert len(taken) == 2
    assert all(found is not None for found in taken)


def test_short_sequences_are_left_to_the_generic_pass(taken, rng):
    phi = rf.PositiveFeatures().draw(DIM, 4, rng=0)
    for longest, is_taken in ((heads.SHORTEST - 1, False), (heads.SHORTEST, True)):
        query, key, value, mask = problem(rng, longest, longest)
        for is_causal in (False, True):
            rf.linear_attention(query, key, value, phi, is_causal=is_causal, key_mask=mask)
            assert (taken[-1] is not None) == is_taken


def test_the_sizes_have_more_than_one_of_everything():
    """What the tests of this file rely on: if a threshold is moved, so are the sizes."""
    assert block_rows(WIDE) < block_rows(4) <= full.TASK
    assert block_rows(WIDE) > 2 * key_block.CHUNK
    assert min(L, S) > 2 * max(chunks.CHUNK // 2, chunks.CAUSAL_CHUNK, toeplitz.DIRECT)
    assert WIDTH > toeplitz.GROUP
    assert MANY > exact.BLOCK
    num_rows, num_features = PLAIN
    assert num_rows > max(blockwise.BLOCK, maps.SHORTEST)
    assert num_features // 2 > blockwise.PANEL // (8 * blockwise.BLOCK)
    assert num_rows * num_features > maps.LEAST


# the generic passes ------------------------------------------------------------------------------------------------

L, S, WIDTH, MANY = 290, 300, 20, 530


def pairs(queries=L, keys=S):
    return np.arange(queries)[:, None], np.arange(keys)


def logs_of(visible, logs=0.0):
    return np.where(visible, logs, -np.inf)


def decay(rng):
    i, j = pairs()
    return {"decay": 0.97, "is_causal": True, "causal_offset": 4}, logs_of(j <= i + 4, (i + 4 - j) * np.log(0.97))


def gates(rng):
    i, j = pairs()
    gate = rng.uniform(0.9, 1.0, (S, 1))
    sums = np.cumsum(np.log(gate[:, 0]))
    return {"decay": gate, "is_causal": True, "causal_offset": 7}, logs_of(j <= i + 7, sums[i + 7] - sums[j])


def ends(rng):
    _, j = pairs()
    key_ends = rng.integers(0, S + 1, L)
    return {"key_ends": key_ends}, logs_of(j < key_ends[:, None])


def bias(rng):
    i, j = pairs()
    table = rng.uniform(-1, 1, L + S - 1)
    return {"relative_bias": table}, table[j - i + L - 1]


def causal_bias(offset):
    def relation(rng):
        i, j = pairs()
        options, logs = bias(rng)
        return options | {"is_causal": True, "causal_offset": offset}, logs_of(j <= i + offset, logs)

    return relation


def offset(number):
    i, j = pairs()
    return lambda rng: ({"is_causal": True, "causal_offset": number}, logs_of(j <= i + number))


def packed(rng):
    i, j = pairs()
    starts, stops = np.array([0, 140, 140]), np.array([0, 3, 200])
    which_query, which_key = np.searchsorted(starts, i, "right") - 1, np.searchsorted(stops, j, "right") - 1
    seen = (which_query == which_key) & (j - stops[which_key] <= i - starts[which_query])
    return {"cu_seqlens": ([0, 140, 140, L], [0, 3, 200, S]), "is_causal": True}, logs_of(seen)


RELATIONS = {
    "decay": decay,
    "gates": gates,
    "ends": ends,
    "bias": bias,
    **{f"causal bias {number}": causal_bias(number) for number in (0, 10, -140)},
    **{f"offset {number}": offset(number) for number in (0, 10, 200, -200)},
    "packed": packed,
}


@pytest.mark.parametrize("name", RELATIONS)
@pytest.mark.parametrize("xp", ["numpy", "torch"])
def test_generic_passes(xp, rng, name):
    """Each relation over several chunks, squares and groups of features, against its definition."""
    xp = load_backend(xp)
    query, key, value, mask = problem(rng, L, S)
    options, logs = RELATIONS[name](rng)
    phi = rf.PositiveFeatures().draw(DIM, WIDTH, rng=0, like=asarray(xp, query))
    expected = naive_attention(phi, query, key, value, key_mask=mask, log_weights=logs, merges=40)
    if "relative_bias" in options:  # transforms: relative to the largest weight
        expected.per_eps[...] *= 1e3
    inputs = [asarray(xp, x) for x in (query, key, value)]
    expected.check(generic(rf.linear_attention, *inputs, phi, key_mask=xp.asarray(mask), **options), EPS)


@pytest.mark.parametrize("slope", [-40.0, 40.0, None])
@pytest.mark.parametrize("xp", ["numpy", "torch"])
def test_steep_biases_of_short_sequences(xp, rng, slope):
    """Squares that are multiplied out have no limits: biases of thousands, in float32, as steep as they like."""
    xp, length = load_backend(xp), toeplitz.DIRECT
    query, key, value, mask = problem(rng, length, length)
    mask[0] = True
    distance = np.arange(2.0 * length - 1) - (length - 1)
    bias = slope * distance if slope else rng.uniform(-1e3, 1e3, 2 * length - 1)
    i, j = pairs(length, length)
    query, key, value, bias = (x.astype(np.float32).astype(np.float64) for x in (query, key, value, bias))
    phi = rf.PositiveFeatures().draw(DIM, WIDTH, rng=0, like=asarray(xp, query, "float32"))
    logs = logs_of(j <= i, bias[j - i + length - 1])
    expected = naive_attention(phi, query, key, value, key_mask=mask, log_weights=logs, merges=20)
    inputs = [asarray(xp, x, "float32") for x in (query, key, value)]
    options = {"is_causal": True, "relative_bias": bias, "key_mask": xp.asarray(mask)}
    expected.check(rf.linear_attention(*inputs, phi, **options), eps_of("float32"), most=1.0)


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("width", [1, chunks.CAUSAL_CHUNK, chunks.CAUSAL_CHUNK + 1, 250, 400])
def test_windows(rng, width, is_causal):
    """Windows within a chunk, as long as one, and over several."""
    query, key, value, mask = problem(rng, L, S)
    i, j = pairs()
    phi = rf.PositiveFeatures().draw(DIM, WIDTH, rng=0)
    scaled = query * DIM**-0.25, key * DIM**-0.25
    exact_logs = np.log(phi.estimator.kernel(*scaled)) - np.log(phi.estimate(*scaled))
    logs = np.where(np.abs(i - j) < width, exact_logs, 0.0)
    logs = logs_of(j <= i, logs) if is_causal else logs
    expected = naive_attention(phi, query, key, value, key_mask=mask, log_weights=logs, merges=40)
    expected.check(rf.linear_attention(query, key, value, phi, is_causal=is_causal, window=width, key_mask=mask), EPS)


@pytest.mark.parametrize("name", ["full", *RELATIONS])
def test_blocks_of_exact_attention(monkeypatch, rng, name):
    """Relations know the positions of a block of queries."""
    query, key, value, mask = problem(rng, L, S)
    options, logs = RELATIONS[name](rng) if name != "full" else ({}, 0.0)
    expected = naive_kernel_attention(rf.SoftmaxKernel(), query, key, value, key_mask=mask, log_weights=logs)
    for block in (exact.BLOCK, 100):
        monkeypatch.setattr(exact, "BLOCK", block)
        expected.check(rf.softmax_attention(query, key, value, key_mask=mask, **options), EPS)


def test_exact_attention_of_more_than_a_block(rng):
    query, key, value, mask = problem(rng, MANY, 40)
    i, j = pairs(MANY, 40)
    for options, logs in (({}, 0.0), ({"is_causal": True, "causal_offset": -MANY + 20}, logs_of(j <= i - MANY + 20))):
        expected = naive_kernel_attention(rf.SoftmaxKernel(), query, key, value, key_mask=mask, log_weights=logs)
        expected.check(rf.softmax_attention(query, key, value, key_mask=mask, **options), EPS)


# plain features ----------------------------------------------------------------------------------------------------

PLAIN = (530, 1100)
"""Rows and features: more than one block and panel in float64."""


KINDS = {
    "positive": rf.PositiveFeatures(),
    "hyperbolic": rf.HyperbolicFeatures(),
    "pairs": rf.TrigonometricFeatures(),
    "phase": rf.TrigonometricFeatures(variant="phase"),
}


@pytest.mark.parametrize("estimator", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("batch_shape", [(), (2,)], ids=["one map", "two maps"])
def test_plain_features(monkeypatch, rng, estimator, batch_shape):
    """Panels of features and blocks of rows, for one map and for a batch."""
    num_rows, num_features = PLAIN
    calls = []
    monkeypatch.setattr(maps, "blockwise_features", lambda *a: calls.append(a) or blockwise.blockwise_features(*a))
    phi = estimator.draw(DIM, num_features, rng=0, batch_shape=batch_shape)
    x = rng.standard_normal((*batch_shape, num_rows, DIM)) / 2
    expected = phi.queries(x).to_array()
    np.testing.assert_allclose(phi(x), expected, rtol=1e-12, atol=1e-13 * np.max(np.abs(expected)))
    assert len(calls) == 1
