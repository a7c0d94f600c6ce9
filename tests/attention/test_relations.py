"""Which keys a query sees, and with what weight: every option against its definition, pair by pair."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention import exact
from randfeat.attention.generic import chunks, toeplitz
from randfeat.attention.partial import query_weights
from tests.arrays import asarray, compiled, eps_of, library, same_bits, to_numpy
from tests.cases import ATTENTION
from tests.conftest import load_backend
from tests.reference import naive_attention, naive_kernel_attention

L, S, D = 11, 13, 5
EPS = eps_of("float64")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Positions on both sides of the borders of chunks, and transforms of short sequences."""
    monkeypatch.setattr(chunks, "CHUNK", 4)
    monkeypatch.setattr(chunks, "CAUSAL_CHUNK", 4)
    monkeypatch.setattr(exact, "BLOCK", 4)
    monkeypatch.setattr(toeplitz, "DIRECT", 2)
    monkeypatch.setattr(toeplitz, "GROUP", 3)


def numbers(rng, heads=2, queries=L, keys=S):
    return [rng.standard_normal(shape) for shape in ((heads, queries, D), (heads, keys, D), (heads, keys, 3))]


def pair_weights(rule, lead=(), queries=L, keys=S):
    """(*lead, L, S) from `rule(head, i, j)`: the factor of the kernel, 0 for a key that is not seen."""
    table = np.zeros((*lead, queries, keys))
    for index in np.ndindex(*table.shape):
        table[index] = rule(index[:-2], *index[-2:])
    with np.errstate(divide="ignore"):
        return np.log(table)


def causal(offset=0):
    return lambda head, i, j: j <= i + offset


GATES = np.random.default_rng(1).uniform(0.2, 1.0, (2, S, 1))
GATES[1, 4] = 0.0
RELATIVE = np.random.default_rng(2).uniform(-2.0, 2.0, (2, L + S - 1))
ENDS = np.array([3, 0, 13, 7, 7, 1, 12, 2, 0, 13, 5])
ENDS_PER_HEAD = np.stack([ENDS, np.sort(ENDS)])
QUERY_CUTS, KEY_CUTS = [0, 2, 2, 7, 11], [0, 4, 6, 6, 13]


def together(i, j):
    """Whether query i and key j are of one sequence."""
    return np.searchsorted(QUERY_CUTS, i, "right") == np.searchsorted(KEY_CUTS, j, "right")


def in_sequence(i, j):
    """Positions within their sequences."""
    starts = (
        QUERY_CUTS[np.searchsorted(QUERY_CUTS, i, "right") - 1],
        KEY_CUTS[np.searchsorted(KEY_CUTS, j, "right") - 1],
    )
    return i - starts[0], j - starts[1]


def gated(head, i, j, offset):
    return np.prod(GATES[head[0], j + 1 : i + offset + 1, 0]) if j <= i + offset else 0.0


# name: (options, factor of the kernel for (head, i, j))
RELATIONS = {
    "causal": ({"is_causal": True}, causal()),
    "offset": ({"is_causal": True, "causal_offset": 2}, causal(2)),
    "negative offset": ({"is_causal": True, "causal_offset": -5}, causal(-5)),
    "offset past all keys": ({"is_causal": True, "causal_offset": 40}, causal(40)),
    "offset before all keys": ({"is_causal": True, "causal_offset": -40}, causal(-40)),
    "lengths": ({"key_lengths": np.array([9, 0])}, lambda head, i, j: j < [9, 0][head[0]]),
    "one length": ({"key_lengths": 6, "is_causal": True}, lambda head, i, j: j < 6 and j <= i),
    "ends": ({"key_ends": ENDS}, lambda head, i, j: j < ENDS[i]),
    "ends per head": ({"key_ends": ENDS_PER_HEAD}, lambda head, i, j: j < ENDS_PER_HEAD[(*head, i)]),
    "causal ends": (
        {"key_ends": ENDS, "is_causal": True, "causal_offset": 2},
        lambda head, i, j: j < ENDS[i] and j <= i + 2,
    ),
    "packed": ({"cu_seqlens": (QUERY_CUTS, KEY_CUTS)}, lambda head, i, j: together(i, j)),
    "packed and causal": (
        {"cu_seqlens": (QUERY_CUTS, np.array(KEY_CUTS)), "is_causal": True, "causal_offset": -1},
        lambda head, i, j: together(i, j) and in_sequence(i, j)[1] <= in_sequence(i, j)[0] - 1,
    ),
    "decay": ({"decay": 0.7, "is_causal": True}, lambda head, i, j: 0.7 ** (i - j) if j <= i else 0.0),
    "decay per head and offset": (
        {"decay": np.array([0.5, 1.0]), "is_causal": True, "causal_offset": 6},
        lambda head, i, j: [0.5, 1.0][head[0]] ** (i + 6 - j) if j <= i + 6 else 0.0,
    ),
    "decay and negative offset": (
        {"decay": 0.3, "is_causal": True, "causal_offset": -3},
        lambda head, i, j: 0.3 ** (i - 3 - j) if j <= i - 3 else 0.0,
    ),
    "no memory": ({"decay": 0.0, "is_causal": True}, lambda head, i, j: i == j),
    "gates": (
        {"decay": GATES, "is_causal": True, "causal_offset": 2},
        lambda head, i, j: gated(head, i, j, 2),
    ),
    "packed decay": (
        {"decay": 0.6, "is_causal": True, "cu_seqlens": (QUERY_CUTS, KEY_CUTS)},
        lambda head, i, j: (
            0.6 ** (in_sequence(i, j)[0] - in_sequence(i, j)[1])
            if together(i, j) and in_sequence(i, j)[1] <= in_sequence(i, j)[0]
            else 0.0
        ),
    ),
    "relative": ({"relative_bias": RELATIVE[0]}, lambda head, i, j: np.exp(RELATIVE[0, j - i + L - 1])),
    "relative per head": ({"relative_bias": RELATIVE}, lambda head, i, j: np.exp(RELATIVE[(*head, j - i + L - 1)])),
    **{
        f"relative and causal {offset}": (
            {"relative_bias": RELATIVE, "is_causal": True, "causal_offset": offset},
            lambda head, i, j, offset=offset: np.exp(RELATIVE[(*head, j - i + L - 1)]) * (j <= i + offset),
        )
        for offset in (0, 4, -4, 12, -12)
    },
    "packed relative": (
        {"relative_bias": RELATIVE, "cu_seqlens": (QUERY_CUTS, KEY_CUTS), "is_causal": True},
        lambda head, i, j: (
            np.exp(RELATIVE[(*head, in_sequence(i, j)[1] - in_sequence(i, j)[0] + L - 1)])
            if together(i, j) and in_sequence(i, j)[1] <= in_sequence(i, j)[0]
            else 0.0
        ),
    ),
}

COMPILED = ("offset", "lengths", "ends per head", "packed and causal", "gates", "relative and causal 4")


def few_under_jax(xp, name):
    """Compiling takes seconds for each; what remains passes through every module."""
    if library(xp) == "jax" and name not in COMPILED:
        pytest.skip("one case for each module is compiled")


def attend(xp, phi, inputs, options, *, on_device=False, dtype="float64"):
    """linear_attention; options that may be arrays of the library are, if asked, and traced under JAX."""
    arrays = {}
    if on_device:
        for name in ("key_lengths", "key_ends", "decay", "relative_bias"):
            if isinstance(options.get(name), np.ndarray):
                arrays[name] = xp.asarray(options[name])
    others = {name: option for name, option in options.items() if name not in arrays}
    names = list(arrays)

    def function(q, k, v, *given):
        return rf.linear_attention(q, k, v, phi, **others, **dict(zip(names, given, strict=True)))

    return compiled(xp, function)(*(asarray(xp, x, dtype) for x in inputs), *arrays.values())


@pytest.mark.parametrize("name", RELATIONS)
def test_equals_the_definition(xp, rng, name):
    """The weighted, masked quadratic form; the same from options of the library itself, which jit may trace."""
    few_under_jax(xp, name)
    options, rule = RELATIONS[name]
    weights = pair_weights(rule, (2,))
    query, key, value = numbers(rng)
    mask = rng.random(S) < 0.8
    for estimator in (rf.PositiveFeatures(), rf.TrigonometricFeatures())[: 1 if library(xp) == "jax" else 2]:
        phi = estimator.draw(D, 8, rng=0, like=asarray(xp, query))
        masked = options | {"key_mask": xp.asarray(mask)}
        expected = naive_attention(phi, query, key, value, key_mask=mask, log_weights=weights, merges=40)
        most = 1e-9 if estimator.positive else 1e-5
        if "relative_bias" in options:  # transforms: relative to the largest weight, e^4 and a few features of a query
            expected.per_eps[...] *= 1e3
            most *= 1e2
        if library(xp) != "jax":
            expected.check(attend(xp, phi, (query, key, value), masked), EPS, most=most)
        on_device = attend(xp, phi, (query, key, value), masked, on_device=True)
        expected.check(on_device, EPS, most=most)
        if estimator.positive and name != "causal":
            plain = naive_attention(phi, query, key, value, key_mask=mask, is_causal="is_causal" in options)
            assert np.max(np.abs(plain.output - expected.output)) > 1e-2, "the option changes nothing"


@pytest.mark.parametrize("name", RELATIONS)
def test_exact_references_take_the_same_arguments(xp, rng, name):
    few_under_jax(xp, name)
    options, rule = RELATIONS[name]
    query, key, value = numbers(rng)
    expected = naive_kernel_attention(rf.SoftmaxKernel(), query, key, value, log_weights=pair_weights(rule, (2,)))
    run = compiled(xp, lambda q, k, v: rf.softmax_attention(q, k, v, **options))
    expected.check(run(*(asarray(xp, x) for x in (query, key, value))), EPS, most=1e-10)


POWERS = [(1, 1), (1, 2), (1, 3), (2, 4), (5, 5), (3, 7), (9, 9), (1, 17), (17, 17), (4, 30), (33, 33)]
"""Lengths with L + S - 2 a power of two or 0, which the period of a transform must exceed."""


@pytest.mark.parametrize("offset", [None, 0, 2, -1])
@pytest.mark.parametrize("xp", ["numpy", "array_api_strict", "torch"])
def test_biases_of_every_length(xp, rng, offset):
    """All short lengths, those where a period is just enough, and those around them; full and causal."""
    xp = load_backend(xp)
    phi = rf.PositiveFeatures().draw(D, 4, rng=0, like=xp.zeros(1, dtype=xp.float64))
    host = phi.to(np.zeros(1))
    around = [(queries, keys + more) for queries, keys in POWERS for more in (-1, 0, 1) if keys + more > 0]
    for queries, keys in sorted({(q, k) for q in range(1, 7) for k in range(1, 7)} | set(around)):
        query, key, value = rng.standard_normal((queries, D)), *rng.standard_normal((2, keys, D))
        bias = rng.uniform(-1, 1, queries + keys - 1)
        i, j = np.arange(queries)[:, None], np.arange(keys)
        options = {"relative_bias": bias} | ({} if offset is None else {"is_causal": True, "causal_offset": offset})
        visible = j <= i + offset if offset is not None else np.ones((queries, keys), bool)
        weights = np.where(visible, host.estimate(query, key) * np.exp(bias[j - i + queries - 1]), 0.0)
        total = weights.sum(axis=-1, keepdims=True)
        expected = weights @ value / np.where(total == 0, 1.0, total)
        actual = attend(xp, phi, (query, key, value), options | {"scale": 1.0})
        np.testing.assert_allclose(to_numpy(actual), expected, atol=1e-9 * np.max(np.abs(value)))


def test_kernels_without_a_logarithm(rng):
    """The weights multiply the values of the kernel, zeros included."""
    query, key, value = numbers(rng)
    kernel = rf.ArcCosineKernel(1)
    for options, rule in RELATIONS.values():
        weights = np.exp(pair_weights(rule, (2,))) * kernel(query, key)
        total = weights.sum(axis=-1, keepdims=True)
        expected = weights @ value / np.where(total == 0, 1.0, total)
        actual = rf.kernel_attention(query, key, value, kernel, scale=1.0, **options)
        np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_gates_per_feature(xp, rng):
    """`S_t = g_t ⊙ S_{t-1} + φ_t v_tᵀ`, step by step."""
    query, key, value = numbers(rng, queries=S)
    gates = rng.uniform(0.0, 1.0, (2, S, 8))
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=asarray(xp, query))
    root = D**-0.25
    host = phi.to(query)
    features_q, features_k = host.queries(query * root).to_array(), host.keys(key * root).to_array()
    memory, total, expected = np.zeros((2, 8, 3)), np.zeros((2, 8, 1)), np.zeros_like(value)
    for t in range(S):
        gate = gates[:, t, :, None]
        memory = gate * memory + features_k[:, t, :, None] * value[:, t, None, :]
        total = gate * total + features_k[:, t, :, None]
        expected[:, t] = ((features_q[:, t, None] @ memory) / (features_q[:, t, None] @ total))[:, 0]
    actual = attend(xp, phi, (query, key, value), {"decay": gates, "is_causal": True})
    np.testing.assert_allclose(to_numpy(actual), expected, rtol=1e-10, atol=1e-12)


WINDOWS = [
    {"window": 3, "is_causal": True},
    {"window": 3},
    {"window": 0},
    {"window": 1},
    {"window": 5, "is_causal": True, "causal_offset": 4},
    {"window": 2, "is_causal": True, "causal_offset": -4},
    {"window": 40},
    {"window": 2, "cu_seqlens": (QUERY_CUTS, KEY_CUTS)},
    {"window": 3, "is_causal": True, "num_sinks": 2},
    {"window": 2, "num_sinks": 3},
    {"window": 0, "num_sinks": 1},
    {"window": 0, "is_causal": True, "num_sinks": 5},
    {"window": 2, "is_causal": True, "causal_offset": 6, "num_sinks": 6},
    {"window": 2, "is_causal": True, "causal_offset": -3, "num_sinks": 3},
    {"window": 1, "is_causal": True, "num_sinks": 40},
    {"window": 2, "num_sinks": 1, "cu_seqlens": (QUERY_CUTS, KEY_CUTS)},
]


@pytest.mark.parametrize("options", WINDOWS, ids=str)
def test_windows_are_exact_inside_and_estimated_outside(xp, rng, options):
    """Kernel weights near, estimated weights far, one normalizer: the absolute size of both counts."""
    if library(xp) == "jax" and options not in WINDOWS[:2]:
        pytest.skip("two cases are compiled")
    query, key, value = numbers(rng)
    mask = rng.random((2, S)) < 0.8
    offset, width = options.get("causal_offset", 0), options["window"]
    estimators = rf.PositiveFeatures(), rf.TrigonometricFeatures(), rf.PositiveFeatures(rf.GaussianKernel(2.0))
    for estimator in estimators[: 1 if library(xp) == "jax" else 3]:
        phi = estimator.draw(D, 8, rng=0, like=asarray(xp, query))
        host, scale = phi.to(query), D**-0.5 if isinstance(estimator.kernel, rf.SoftmaxKernel) else 1.0
        q, k = query * scale**0.5, key * scale**0.5
        near, far = estimator.kernel(q, k), host.estimate(q, k)

        def weight(head, i, j, near=near, far=far):
            if "cu_seqlens" in options:
                if not together(i, j):
                    return 0.0
                a, b = in_sequence(i, j)
            else:
                a, b = i, j
            if not mask[(*head, j)] or ("is_causal" in options and b > a + offset):
                return 0.0
            is_exact = abs(a + offset - b) < width or b < options.get("num_sinks", 0)
            return near[(*head, i, j)] if is_exact else far[(*head, i, j)]

        weights = np.zeros((2, L, S))
        for index in np.ndindex(*weights.shape):
            weights[index] = weight(index[:1], *index[1:])
        total = weights.sum(axis=-1, keepdims=True)
        expected = weights @ value / np.where(total == 0, 1.0, total)
        actual = attend(xp, phi, (query, key, value), options | {"key_mask": xp.asarray(mask), "scale": scale})
        np.testing.assert_allclose(to_numpy(actual), expected, atol=1e-9 * np.max(np.abs(expected)))
    assert expected.shape == (2, L, 3)


def test_a_forgotten_query_scale_is_caught(monkeypatch):
    """Scales of queries cancel in a ratio of estimates; beside exact weights they do not."""
    from randfeat.attention import state

    def relative(queries, key_top):
        weights, log_scale = query_weights(queries, key_top)
        return weights, log_scale - np.max(queries.log_scale, axis=-1, keepdims=True)

    numpy = load_backend("numpy")
    test_windows_are_exact_inside_and_estimated_outside(numpy, np.random.default_rng(0), WINDOWS[0])
    monkeypatch.setattr(state, "query_weights", relative)
    with pytest.raises(AssertionError):
        test_windows_are_exact_inside_and_estimated_outside(numpy, np.random.default_rng(0), WINDOWS[0])


def test_a_gate_too_many_is_caught(monkeypatch):
    """What is stored at a position fades from the next one on."""
    from randfeat.attention.generic import gates as decay

    def too_many(log_gates):
        return np.flip(np.cumsum(np.flip(log_gates, axis=-2), axis=-2), axis=-2)

    monkeypatch.setattr(decay, "remaining", too_many)
    with pytest.raises(AssertionError):
        test_gates_per_feature(load_backend("numpy"), np.random.default_rng(0))


@pytest.mark.parametrize("num_keys", [0, 5])
@pytest.mark.parametrize("num_queries", [0, 3])
@pytest.mark.parametrize("offset", [-20, -2])
@pytest.mark.parametrize("width", [1, 10])
def test_windows_of_queries_before_every_key(xp, rng, num_queries, num_keys, offset, width):
    """A query at a negative position sees no key, so that its output is zero; there may be no query at all."""
    if library(xp) == "jax" and offset != (-2 if num_keys else -20):
        pytest.skip("one offset is compiled for each number of keys")
    phi = rf.PositiveFeatures().draw(4, 6, rng=0, like=xp.zeros(1, dtype=xp.float64))
    query, key, value = rng.standard_normal((num_queries, 4)), *rng.standard_normal((2, num_keys, 4))
    options = {"is_causal": True, "causal_offset": offset}
    actual = attend(xp, phi, (query, key, value), options | {"window": width})
    if width <= 1:
        expected = attend(xp, phi, (query, key, value), options)
        first = 1 - offset  # the query at position 1 has more than its own key
    else:
        expected, first = rf.softmax_attention(query, key, value, **options), None
    assert actual.shape == (num_queries, 4)
    np.testing.assert_allclose(to_numpy(actual)[:first], to_numpy(expected)[:first], rtol=0, atol=1e-12)


def test_a_window_over_everything_is_exact(xp, rng):
    query, key, value = numbers(rng)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=asarray(xp, query))
    for options in ({}, {"is_causal": True}):
        actual = attend(xp, phi, (100 * query, key, value), options | {"window": 40})
        exact = rf.softmax_attention(100 * query, key, value, **options)
        np.testing.assert_allclose(to_numpy(actual), exact, rtol=1e-9, atol=1e-12)


# laws ------------------------------------------------------------------------------------------------------------

CAUSAL = {
    "offset": {"is_causal": True, "causal_offset": 0},
    "decay": {"is_causal": True, "decay": 0.7},
    "gates": {"is_causal": True, "decay": np.linspace(0.1, 1.0, L)[:, None] * np.ones((2, L, 1))},
    "relative": {"is_causal": True, "relative_bias": np.linspace(-3, 3, 2 * L - 1)},
    "window": {"is_causal": True, "window": 3},
    "sinks": {"is_causal": True, "window": 1, "num_sinks": 5},
    "ends": {"key_ends": np.arange(1, L + 1)},
}


@pytest.mark.parametrize("name", CAUSAL)
def test_outputs_never_see_the_future(xp, rng, name):
    """Bit-equal, whatever later keys and values become, NaN included."""
    if library(xp) == "jax" and name not in ("window", "gates", "relative"):
        pytest.skip("one case for each module is compiled")
    query, key, value = numbers(rng, keys=L)
    for estimator in (rf.PositiveFeatures(), rf.TrigonometricFeatures())[: 1 if library(xp) == "jax" else 2]:
        phi = estimator.draw(D, 8, rng=0, like=asarray(xp, query))
        run = compiled(xp, lambda q, k, v, phi=phi: rf.linear_attention(q, k, v, phi, **CAUSAL[name]))
        clean = to_numpy(run(*(asarray(xp, x) for x in (query, key, value))))
        for now in (0, 3, 4, 9):
            for bad in (1e4, np.nan):
                k, v = key.copy(), value.copy()
                k[:, now + 1 :] *= bad
                v[:, now + 1 :] *= bad
                with np.errstate(all="ignore"):
                    out = to_numpy(run(*(asarray(xp, x) for x in (query, k, v))))
                assert np.array_equal(out[:, : now + 1], clean[:, : now + 1]), f"position {now} saw the future"
                assert not np.any(np.all(out[:, now + 1 :] == clean[:, now + 1 :], axis=-1)), "nothing was changed"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("xp", ["numpy", "array_api_strict", "torch"])
def test_outputs_are_convex_combinations(xp, rng, dtype, name):
    """At logits of ten thousand, in every dtype: rows of ones give ones, and the outputs stay within the values."""
    xp = load_backend(xp)
    query, key, value = numbers(rng, keys=L)
    if name == "relative":  # transforms are accurate relative to the largest weight
        query, key = query / 100, key / 100
    query, key = (to_numpy(asarray(xp, 100 * x, dtype)) for x in (query, key))
    assert name == "relative" or np.max(np.abs(query @ np.swapaxes(key, -1, -2))) / np.sqrt(D) > 1e4
    options, slack = CAUSAL[name], (1e-5 if name != "relative" else 1e-4)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=asarray(xp, query, dtype))
    out = to_numpy(attend(xp, phi, (query, key, value), options, dtype=dtype))
    ones = to_numpy(attend(xp, phi, (query, key, np.ones_like(value)), options, dtype=dtype))
    slack = max(slack, eps_of(dtype)) * np.max(np.abs(value))
    np.testing.assert_allclose(ones, 1, atol=slack)
    assert np.all(out <= np.maximum.accumulate(value, axis=1) + slack)
    assert np.all(out >= np.minimum.accumulate(value, axis=1) - slack)
    np.testing.assert_allclose(out[:, 0], value[:, 0], atol=slack)


@pytest.mark.parametrize("cut", [0, 1, 5, 10, 11])
@pytest.mark.parametrize("name", ["offset", "decay", "gates"])
@pytest.mark.parametrize("xp", ["numpy", "torch"])
def test_streams_equal_the_whole(xp, rng, name, cut):
    """A prefix leaves a state; the rest, from that state, continues the whole sequence."""
    xp = load_backend(xp)
    query, key, value = numbers(rng, keys=L)
    options = dict(CAUSAL[name])
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=asarray(xp, query))

    def part(which, state=None, **more):
        given = options | more
        if name == "gates":
            given["decay"] = given["decay"][:, which]
        q, k, v = (asarray(xp, x[:, which]) for x in (query, key, value))
        return rf.linear_attention(q, k, v, phi, initial_state=state, return_state=True, **given)

    whole, final = part(slice(None))
    first, state = part(slice(0, cut))
    second, last = part(slice(cut, None), state)
    joined = np.concatenate([to_numpy(first), to_numpy(second)], axis=1)
    np.testing.assert_allclose(joined, to_numpy(whole), rtol=1e-10, atol=1e-12)
    for a, b in ((final.weighted, last.weighted), (final.total, last.total), (final.log_max, last.log_max)):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-9, atol=1e-12)


REMEMBERED = {
    "causal": ({"is_causal": True}, 1.0),
    "decay": ({"is_causal": True, "decay": 0.7}, 0.7),
    "gates": ({"is_causal": True, "decay": GATES[:, :, :] + 0.01}, GATES[:, :, 0] + 0.01),
    "window": ({"window": 2}, 1.0),
    "causal window": ({"is_causal": True, "window": 3}, 1.0),
    "full": ({}, 1.0),
}


@pytest.mark.parametrize("queries", [0, 2, 4, 9, S])
@pytest.mark.parametrize("name", REMEMBERED)
@pytest.mark.parametrize("xp", ["numpy", "torch"])
def test_states_hold_every_key(xp, rng, name, queries):
    """Whatever queries there are, and whatever they see: each key, faded until the last position."""
    xp = load_backend(xp)
    options, gate = REMEMBERED[name]
    query, key, value = numbers(rng, queries=S)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=asarray(xp, query))
    for offset in (0, S - queries, -2) if "is_causal" in options and name != "gates" else (0,):
        q, k, v = (asarray(xp, x) for x in (query[:, :queries], key, value))
        given = options | ({"causal_offset": offset} if offset else {})
        _, state = rf.linear_attention(q, k, v, phi, return_state=True, **given)
        logs = np.log(np.broadcast_to(gate, (2, S)))
        later = np.flip(np.cumsum(np.flip(logs, -1), -1), -1) - logs  # of the gates after each position
        expected = naive_attention(phi, query, key, value, log_weights=later[:, None, :], merges=40)
        expected.check(state.read(phi.queries(asarray(xp, query * D**-0.25))), EPS)


@pytest.mark.parametrize("xp", ["numpy", "torch"])
def test_decoding_with_an_offset(xp, rng):
    """The last queries alone, with the offset S - L, are the last rows of the whole."""
    xp = load_backend(xp)
    query, key, value = numbers(rng, queries=S)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=asarray(xp, query))
    for more in ({}, {"decay": 0.8}, {"window": 3}):
        whole = to_numpy(attend(xp, phi, (query, key, value), {"is_causal": True} | more))
        for last in (1, 4):
            options = {"is_causal": True, "causal_offset": S - last} | more
            out = to_numpy(attend(xp, phi, (query[:, -last:], key, value), options))
            np.testing.assert_allclose(out, whole[:, -last:], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("per_head", [False, True], ids=["number", "heads"])
@pytest.mark.parametrize("num_keys", [0, 1, 20])
@pytest.mark.parametrize("offset", [0, 1, -2])
def test_decay_reaches_queries_beyond_the_last_key(xp, rng, offset, num_keys, per_head):
    """The factor is decay^(i - j) there too: without memory such a query sees no key, and its output is zero."""
    if library(xp) == "jax" and (offset, num_keys) not in ((0, 0), (1, 1), (-2, 20)):
        pytest.skip("each offset and each number of keys is compiled once")
    phi = rf.PositiveFeatures().draw(4, 6, rng=0, like=xp.zeros(1, dtype=xp.float64))
    num_queries, decays = num_keys + 3, [0.0, 0.3, 1.0]
    query, (key, value) = rng.standard_normal((3, num_queries, 4)), rng.standard_normal((2, 3, num_keys, 4))
    distance = np.arange(num_queries)[:, None] + offset - np.arange(num_keys)
    for decay in [np.array(decays)] if per_head else decays:
        options = {"decay": decay, "is_causal": True, "causal_offset": offset}
        with np.errstate(divide="ignore"):
            log = np.log(np.broadcast_to(decay, (3,)))[:, None, None]
        faded = np.multiply(distance, log, where=distance != 0, out=np.zeros((3, *distance.shape)))
        logs = np.where(distance >= 0, faded, -np.inf)
        inputs = [asarray(xp, x) for x in (query, key, value)]
        expected = naive_attention(phi, query, key, value, log_weights=logs, merges=40)
        expected.check(rf.linear_attention(*inputs, phi, **options), EPS, most=1e-9)
        expected = naive_kernel_attention(rf.SoftmaxKernel(), query, key, value, log_weights=logs)
        expected.check(rf.softmax_attention(*inputs, **options), EPS, most=1e-9)


def test_no_memory_of_a_state(xp, rng):
    """The keys of a state are before position 0: without memory no query sees them, whether or not there are keys."""
    phi = rf.PositiveFeatures().draw(4, 6, rng=0, like=xp.zeros(1, dtype=xp.float64))
    query, key, value = (asarray(xp, x) for x in rng.standard_normal((3, 5, 4)))
    _, state = rf.linear_attention(query, key, value, phi, is_causal=True, return_state=True)
    for num_keys in (0, 2):
        given = query, key[:num_keys, :], value[:num_keys, :]
        after = rf.linear_attention(*given, phi, is_causal=True, decay=0.0, initial_state=state)
        alone = rf.linear_attention(*given, phi, is_causal=True, decay=0.0)
        np.testing.assert_array_equal(to_numpy(after), to_numpy(alone))
        np.testing.assert_array_equal(to_numpy(after)[num_keys:], 0.0)


def test_strong_decay_is_never_divided_by(rng):
    """Factors of e^-60 for each position, whose products leave every range: only the own key is left."""
    query, key, value = (x.astype(np.float32) for x in numbers(rng, queries=100, keys=100))
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=query)
    out = rf.linear_attention(query, key, value, phi, is_causal=True, decay=1e-26)
    np.testing.assert_allclose(out, value, atol=1e-4)
    gentle = rf.linear_attention(query, key, value, phi, is_causal=True, decay=1.0)
    np.testing.assert_allclose(gentle, rf.linear_attention(query, key, value, phi, is_causal=True), atol=1e-5)


def test_states_decay(xp, rng):
    """Decay of a state is decay of its keys' weights; zero forgets them."""
    if library(xp) == "jax":
        pytest.skip("takes long where nothing is compiled")
    query, key, value = numbers(rng)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=asarray(xp, query))
    query, key, value = (asarray(xp, x) for x in (query, key, value))
    empty = rf.AttentionState.empty(8, 3, like=value)
    old, new = (empty.append(phi.keys(key[:, a:b, :]), value[:, a:b, :]) for a, b in ((0, 6), (6, S)))
    keys = phi.keys(key)
    for factor in (0.25, 1.0, np.array([[[0.5]], [[0.1]]])):
        weight = np.ones((2, S, 1))
        weight[:, :6] = factor
        expected = empty.append(keys.scaled(asarray(xp, np.log(weight))), value).read(phi.queries(query))
        for given in (factor, asarray(xp, factor)):
            actual = old.decay(given).merge(new).read(phi.queries(query))
            np.testing.assert_allclose(to_numpy(actual), to_numpy(expected), rtol=1e-10)
    forgotten = old.decay(0.0).merge(new).read(phi.queries(query))
    np.testing.assert_allclose(to_numpy(forgotten), to_numpy(new.read(phi.queries(query))), rtol=1e-12)
    assert np.all(to_numpy(old.decay(0.0).read(phi.queries(query))) == 0)
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="factor must be finite and not negative"):
            old.decay(bad)


# layouts, groups and libraries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"key_lengths": [3, 5]}], ids=str)
def test_heads_after_the_length(xp, rng, options):
    """(B, L, H, d) in and out, up to rounding: products of the layout's own; masks, lengths and maps as always."""
    if library(xp) == "jax" and options:
        pytest.skip("one case is compiled")
    query, key, value = rng.standard_normal((2, 3, 7, D)), rng.standard_normal((2, 3, 5, D)), rng.random((2, 3, 5, 2))
    mask = rng.random((2, 1, 5)) < 0.8
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=asarray(xp, query), batch_shape=(3,))
    swapped = [np.ascontiguousarray(np.swapaxes(x, 1, 2)) for x in (query, key, value)]
    more = options | {"key_mask": xp.asarray(mask)}
    expected = attend(xp, phi, (query, key, value), more)
    actual = attend(xp, phi, swapped, more | {"layout": "blhd"})
    # means of values up to 1; exponents are 13 terms of at most 30, for a query and a key, above and below the line
    rounding = 4 * 13 * 30 * EPS
    np.testing.assert_allclose(np.swapaxes(to_numpy(expected), 1, 2), to_numpy(actual), rtol=0, atol=rounding)
    exact = [
        rf.softmax_attention(*(asarray(xp, x) for x in inputs), **more, layout=layout)
        for inputs, layout in (((query, key, value), "bhld"), (swapped, "blhd"))
    ]
    np.testing.assert_allclose(np.swapaxes(to_numpy(exact[0]), 1, 2), to_numpy(exact[1]), rtol=0, atol=rounding)


GROUPED = [
    ({"decay": np.array([0.5, 0.6, 0.7, 0.8]), "is_causal": True}, "per query head"),
    ({"decay": np.array([0.5, 0.6]), "is_causal": True}, "per key head"),
    ({"relative_bias": np.random.default_rng(3).standard_normal((4, L + S - 1))}, "per query head"),
    ({"key_ends": np.random.default_rng(4).integers(0, S + 1, (4, L))}, "per query head"),
    ({"key_ends": np.random.default_rng(4).integers(0, S + 1, (1, L))}, "for all"),
    ({"window": 3}, "for all"),
    ({"key_lengths": np.array([4, 9])}, "per key head"),
    ({"cu_seqlens": (QUERY_CUTS, KEY_CUTS)}, "for all"),
]


@pytest.mark.parametrize(("options", "which"), GROUPED, ids=[f"{next(iter(o))} {which}" for o, which in GROUPED])
@pytest.mark.parametrize("xp", ["numpy", "array_api_strict", "torch"])
def test_grouped_heads_are_repeated(xp, rng, options, which):
    xp = load_backend(xp)
    query = rng.standard_normal((4, L, D))
    _, key, value = numbers(rng)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=asarray(xp, query))
    repeated = {
        name: np.repeat(option, 2, axis=0) if which == "per key head" and isinstance(option, np.ndarray) else option
        for name, option in options.items()
    }
    expected = attend(xp, phi, (query, np.repeat(key, 2, 0), np.repeat(value, 2, 0)), repeated)
    actual = attend(xp, phi, (query, key, value), options | {"enable_gqa": True})
    np.testing.assert_allclose(to_numpy(actual), to_numpy(expected), rtol=1e-9, atol=1e-12)
    if "cu_seqlens" not in options:
        exact = rf.softmax_attention(query, np.repeat(key, 2, 0), np.repeat(value, 2, 0), **repeated)
        grouped = rf.softmax_attention(query, key, value, enable_gqa=True, **options)
        np.testing.assert_allclose(grouped, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("xp", ["numpy", "array_api_strict", "torch"])
def test_integers_of_any_library(xp, rng):
    """Lengths and ends as lists, NumPy arrays or those of the inputs' library, of any integer dtype."""
    xp = load_backend(xp)
    query, key, value = numbers(rng)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=asarray(xp, query))
    inputs = [asarray(xp, x) for x in (query, key, value)]
    expected = rf.linear_attention(*inputs, phi, key_lengths=[9, 2], key_ends=None)
    for lengths in ((9, 2), np.array([9, 2], np.int32), xp.asarray([9, 2]), xp.asarray(np.array([9, 2], np.int16))):
        assert same_bits(expected, rf.linear_attention(*inputs, phi, key_lengths=lengths))
    expected = rf.linear_attention(*inputs, phi, key_ends=ENDS.tolist())
    for ends in (ENDS, ENDS.astype(np.int16), xp.asarray(ENDS.astype(np.int32))):
        assert same_bits(expected, rf.linear_attention(*inputs, phi, key_ends=ends))


@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_every_estimator_honours_them(rng, estimator):
    query, key, value = numbers(rng)
    phi = estimator.draw(D, 8, rng=0, like=query)
    for name in ("offset", "ends per head", "packed and causal", "gates", "relative and causal 4"):
        options, rule = RELATIONS[name]
        expected = naive_attention(phi, query, key, value, log_weights=pair_weights(rule, (2,)), merges=40)
        expected.per_eps[...] *= 1e3 if "relative" in name else 1
        expected.check(rf.linear_attention(query, key, value, phi, **options), EPS, most=1e-4)


@pytest.mark.parametrize("name", ["decay", "gates", "relative", "window", "ends"])
def test_gradients(torch, rng, name):
    """Against finite differences; weights of the relation have gradients, too."""
    options = dict(CAUSAL[name])
    inputs = [torch.tensor(x[:1, :6], requires_grad=True) for x in numbers(rng, keys=L)]
    phi = rf.PositiveFeatures().draw(D, 4, rng=0, like=inputs[0])
    if name == "ends":
        options["key_ends"] = options["key_ends"][:6]
    for weight in ("decay", "relative_bias"):
        if weight in options:
            given = np.asarray(options[weight])
            given = given[5:16] if weight == "relative_bias" else given[:1, :6] if given.ndim else given
            inputs.append(torch.tensor(given, requires_grad=True))
            options[weight] = None
    extra = next((w for w in ("decay", "relative_bias") if w in options), None)

    def function(q, k, v, *more):
        given = options | ({extra: more[0]} if more else {})
        return rf.linear_attention(q, k, v, phi, **given)

    assert torch.autograd.gradcheck(function, inputs)


# errors ----------------------------------------------------------------------------------------------------------

REFUSED = [
    ({"causal_offset": 1}, "causal_offset needs is_causal=True"),
    ({"causal_offset": 1.0, "is_causal": True}, "causal_offset must be an int"),
    ({"decay": 0.5}, "decay needs is_causal=True"),
    ({"decay": 1.5, "is_causal": True}, "decay must be between 0 and 1, got 1.5"),
    ({"decay": np.full((3,), 0.5), "is_causal": True}, "decay of shape .* does not fit"),
    ({"decay": np.full((2, 4, 1), 0.5), "is_causal": True}, "decay must be a number, one for each head, or one"),
    ({"decay": np.full((2, S, 1), 0.5), "is_causal": True, "causal_offset": 9}, "needs every query at the position"),
    ({"decay": 0.5, "is_causal": True, "window": 2}, "decay and window cannot be combined"),
    ({"window": -1}, "window must not be negative"),
    ({"window": 2.0}, "window must be an int"),
    ({"key_lengths": [1, 2, 3]}, "key_lengths must have the first of the leading dimensions of key"),
    ({"key_lengths": [1, 14]}, "key_lengths must be between 0 and the number of keys, 13"),
    ({"key_lengths": [1.0, 2.0]}, "key_lengths must be integers"),
    ({"key_ends": [1, 2]}, "key_ends must have shape"),
    ({"key_ends": ENDS + 5}, "key_ends must be between 0 and the number of keys"),
    ({"key_ends": np.zeros((3, L), int)}, "key_ends has leading dimensions"),
    ({"relative_bias": np.zeros(L)}, r"relative_bias must have shape \(..., L \+ S - 1\) = \(..., 23\)"),
    ({"relative_bias": np.zeros((3, L + S - 1))}, "relative_bias has leading dimensions"),
    ({"cu_seqlens": [0, 3, 11]}, "offsets from 0 to the length of the key, 13"),
    ({"cu_seqlens": ([0, 11], [0, 2, 13])}, "as many sequences of queries as of keys"),
    ({"cu_seqlens": (QUERY_CUTS, KEY_CUTS), "key_lengths": [1, 2]}, "cu_seqlens cannot be combined with key_lengths"),
    ({"layout": "lbhd"}, "layout must be"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=str)
def test_what_does_not_go_together_is_refused(rng, options, message):
    """Before any work is done, by the references too."""
    query, key, value = numbers(rng)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0)
    with pytest.raises((ValueError, TypeError), match=message):
        rf.linear_attention(query, key, value, phi, **options)
    with pytest.raises((ValueError, TypeError), match=message):
        rf.softmax_attention(query, key, value, **options)


def test_states_that_cannot_be_are_refused(rng):
    query, key, value = numbers(rng)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0)
    with pytest.raises(ValueError, match="cu_seqlens cannot be combined with a state"):
        rf.linear_attention(query, key, value, phi, cu_seqlens=(QUERY_CUTS, KEY_CUTS), return_state=True)
    with pytest.raises(ValueError, match="relative_bias has no state"):
        rf.linear_attention(query, key, value, phi, relative_bias=RELATIVE, return_state=True)
    with pytest.raises(ValueError, match="decay must be a number"):
        rf.softmax_attention(query, key, value, is_causal=True, decay=np.full((2, S, 8), 0.5))


@pytest.mark.parametrize("name", RELATIONS)
def test_empty_sequences(rng, name):
    """No queries, or no keys: no outputs, or zeros."""
    phi = rf.PositiveFeatures().draw(D, 8, rng=0)
    for queries, keys in ((0, 4), (4, 0), (0, 0)):
        query, key, value = numbers(rng, queries=queries, keys=keys)
        options = dict(RELATIONS[name][0])
        replaced = {
            "key_lengths": [keys, 0],
            "key_ends": np.full((2, queries), keys),
            "cu_seqlens": ([0, 0, queries], [0, keys, keys]),
            "relative_bias": np.zeros(max(queries + keys - 1, 0)),
        }
        options |= {option: given for option, given in replaced.items() if option in options}
        if np.ndim(options.get("decay")) > 1:
            continue
        for out in (
            rf.linear_attention(query, key, value, phi, **options),
            rf.softmax_attention(query, key, value, **options),
        ):
            assert same_bits(out, np.zeros((2, queries, 3)))
