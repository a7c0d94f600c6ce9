"""linear, exact or auto: the methods of linear_attention, and the costs by which one is chosen."""

import dataclasses
import functools
import math
from types import SimpleNamespace

import numpy as np
import pytest

import randfeat as rf
from randfeat._array import finish
from randfeat.attention import exact
from randfeat.attention.cost_model import measurement
from randfeat.attention.cost_model.rates import SHIPPED
from randfeat.attention.cost_model.work import exact_work, linear_work
from randfeat.attention.problem import Problem
from tests.arrays import asarray, compiled, same_bits, to_numpy
from tests.attention.test_relations import RELATIONS, D, L, S, numbers
from tests.cases import ATTENTION

RATES = [rate.name for rate in dataclasses.fields(rf.AttentionCosts)]


def costs(**given):
    """Zero, but for what is given."""
    return rf.AttentionCosts(**(dict.fromkeys(RATES, 0.0) | {"generic": 1.0, "generic_causal": 1.0} | given))


# what the methods compute ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*RELATIONS, "window"])
def test_exact_is_kernel_attention(rng, name):
    """To the bit, for every relation, beside masks."""
    options = RELATIONS[name][0] if name in RELATIONS else {"window": 3, "is_causal": True}
    query, key, value = numbers(rng)
    options = options | {"key_mask": rng.random(S) < 0.8}
    phi = rf.PositiveFeatures().draw(D, 8, rng=0)
    expected = rf.softmax_attention(query, key, value, **options)
    assert same_bits(rf.linear_attention(query, key, value, phi, method="exact", **options), expected)
    assert same_bits(rf.linear_attention(query, key, value, phi, **options), expected) == (not expected.any())


def test_exact_on_every_library(xp, rng):
    query, key, value = (asarray(xp, x, "float32") for x in numbers(rng))
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, like=query)
    run = compiled(xp, lambda q, k, v: rf.linear_attention(q, k, v, phi, is_causal=True, method="exact"))
    expected = compiled(xp, lambda q, k, v: rf.softmax_attention(q, k, v, is_causal=True))(query, key, value)
    out = run(query, key, value)
    assert out.dtype == query.dtype
    np.testing.assert_allclose(to_numpy(out), to_numpy(expected), rtol=1e-6)


@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_exact_is_what_the_estimate_is_of(rng, estimator):
    """The kernel of the features, whatever they are."""
    query, key, value = numbers(rng)
    phi = estimator.draw(D, 8, rng=0)
    exact = rf.linear_attention(query, key, value, phi, scale=0.3, method="exact")
    assert same_bits(exact, rf.kernel_attention(query, key, value, estimator.kernel, scale=0.3))


def test_outputs_of_all_methods_have_one_shape(rng):
    """A map for each head gives each head an output, whatever the method; layouts and groups are kept."""
    query, key, value = numbers(rng, heads=1)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, batch_shape=(3, 2))
    linear, exact = (rf.linear_attention(query, key, value, phi, method=name) for name in ("linear", "exact"))
    assert linear.shape == exact.shape == (3, 2, L, 3)
    assert same_bits(exact[2, 1], rf.softmax_attention(query, key, value)[0])
    assert exact.flags.writeable
    query, key, value = (rng.standard_normal((2, n, heads, D)) for n, heads in ((L, 4), (S, 2), (S, 2)))
    options = {"enable_gqa": True, "layout": "blhd"}
    phi = rf.PositiveFeatures().draw(D, 8, rng=0, batch_shape=(4,))
    exact = rf.linear_attention(query, key, value, phi, method="exact", **options)
    assert same_bits(exact, rf.softmax_attention(query, key, value, **options))


def test_what_exact_cannot_do_is_refused(rng):
    query, key, value = numbers(rng)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0)
    state = rf.AttentionState.empty(8, 3, like=value)
    gates = {"decay": rng.random((2, S, 8)), "is_causal": True}
    for options, message in (
        ({"return_state": True}, 'method="exact" does without'),
        ({"initial_state": state}, 'method="exact" does without'),
        (gates, "decay per feature has no exact form"),
    ):
        with pytest.raises(ValueError, match=message):
            rf.linear_attention(query, key, value, phi, method="exact", **options)
        found = rf.attention_method(query, key, value, phi, **options, costs=costs(linear_call=1.0))
        assert found == rf.attention.AttentionMethod("linear", 1.0, math.inf)
    out, _ = rf.linear_attention(query, key, value, phi, method="auto", return_state=True)
    assert same_bits(out, rf.linear_attention(query, key, value, phi))
    for wrong in ("fast", None, True):
        with pytest.raises(ValueError, match=r'method must be "linear", "exact" or "auto", got'):
            rf.linear_attention(query, key, value, phi, method=wrong)


# which is chosen -------------------------------------------------------------------------------------------------

PROBLEMS = {
    "short": (40, 64, {}),
    "long": (1500, 16, {}),
    "long and causal": (1500, 16, {"is_causal": True}),
    "short and causal": (40, 64, {"is_causal": True}),
    "packed of short ones": (800, 32, {"cu_seqlens": list(range(0, 801, 40))}),
    "window": (600, 16, {"window": 20}),
    "relative": (100, 16, {"relative_bias": np.zeros(199)}),
    "masked": (100, 16, {"key_mask": np.arange(100) < 70}),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_auto_follows_attention_method(rng, name):
    """To the bit."""
    length, num_features, options = PROBLEMS[name]
    query, key, value = rng.standard_normal((3, length, 8)).astype(np.float32)
    phi = rf.PositiveFeatures().draw(8, num_features, rng=0, like=query)
    found = rf.attention_method(query, key, value, phi, **options)
    outs = [rf.linear_attention(query, key, value, phi, method=m, **options) for m in ("auto", "linear", "exact")]
    assert same_bits(outs[0], outs[1]) == (found.name == "linear")
    assert same_bits(outs[0], outs[2]) == (found.name == "exact")
    assert (found.name == "exact") == (found.exact_seconds < found.linear_seconds)
    if "long" in name or "short" in name:
        assert found.name == ("linear" if "long" in name else "exact")


def test_values_do_not_matter():
    """NaN, or numbers that are not there yet: shapes decide."""
    phi = rf.PositiveFeatures().draw(8, 16, rng=0)
    for length in (30, 3000):
        x = np.ones((length, 8))
        assert rf.attention_method(x, x, x, phi) == rf.attention_method(x * np.nan, x, 1e300 * x, phi)


def test_shapes_are_no_arrays():
    for given in ((8, 3000, 64), [8, 3000, 64]):
        with pytest.raises(TypeError, match=r"expected arrays, not shapes, got query = .8, 3000, 64.; np.broadcast_to"):
            rf.attention_method(given, given, given)


def test_auto_under_jit(jax, rng):
    seen = []

    def attend(q, k, v):
        seen.append(rf.attention_method(q, k, v, phi))
        return rf.linear_attention(q, k, v, phi, method="auto")

    x = jax.numpy.asarray(rng.standard_normal((3, 30, 8)))
    phi = rf.PositiveFeatures().draw(8, 64, rng=0, like=x)
    out = jax.jit(attend)(*x)
    assert seen == [rf.attention_method(*x, phi)]
    assert seen[0].name == "exact"
    np.testing.assert_allclose(out, rf.softmax_attention(*x), rtol=1e-12)


def test_rates_are_those_of_the_library(xp):
    """Each library and computing dtype has rates; whatever has none of its own takes those of PyTorch."""
    for dtype in ("float32", "float64"):
        like = asarray(xp, np.zeros((20, 4)), dtype)
        phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=like)
        name = {"array_api_strict": "torch", "cupy": "torch"}.get(like.__class__.__module__.split(".")[0])
        name = name or ("jax" if "jax" in xp.__name__ else "torch" if "torch" in xp.__name__ else "numpy")
        expected = rf.attention_method(like, like, like, phi, costs=SHIPPED[name, dtype])
        assert rf.attention_method(like, like, like, phi) == expected
    if hasattr(xp, "float16"):
        half = asarray(xp, np.zeros((20, 4)), "float16")
        assert rf.attention_method(half, half, half, phi) == rf.attention_method(
            half, half, half, phi, costs=SHIPPED[name, "float32"]
        )


@pytest.mark.parametrize("place", SHIPPED, ids=str)
def test_shipped_rates_have_a_crossing(place):
    """Exact at the shortest lengths, linear from some length on, once and for all; later with more features."""
    for is_causal in (False, True):
        crossings = []
        for num_features in (64, 1024):
            phi = rf.PositiveFeatures().draw(64, num_features, rng=0)
            names = []
            for length in (int(2 ** (k / 2)) for k in range(6, 34)):
                x = np.broadcast_to(0.0, (8, length, 64))
                names.append(rf.attention_method(x, x, x, phi, is_causal=is_causal, costs=SHIPPED[place]).name)
            crossings.append(names.index("linear"))
            assert names == ["exact"] * crossings[-1] + ["linear"] * (len(names) - crossings[-1])
        assert 0 < crossings[0] < crossings[1]


# the work --------------------------------------------------------------------------------------------------------

MORE = {
    "full": {},
    "window": {"window": 3},
    "causal window": {"window": 2, "is_causal": True},
    "causal ends": {"key_ends": np.full(L, 5), "is_causal": True},
}


@pytest.mark.parametrize("name", [*RELATIONS, *MORE])
def test_work_is_what_is_done(monkeypatch, rng, name):
    """The pairs and features that are predicted are those that are computed, counted by spies."""
    options = MORE[name] if name in MORE else RELATIONS[name][0]
    monkeypatch.setattr(exact, "BLOCK", 4)
    done = {"exact_pair": 0, "feature": 0}

    class Spy(rf.PositiveFeatures):
        def query_features(self, arrays, x):
            done["feature"] += math.prod(x.shape[:-1]) * 8
            return super().query_features(arrays, x)

    class SpyKernel(rf.SoftmaxKernel):
        def _log_gram(self, x, y):
            gram = super()._log_gram(x, y)
            done["exact_pair"] += gram.size
            return gram

    query, key, value = numbers(rng)
    rf.kernel_attention(query, key, value, SpyKernel(), scale=1.0, **options)
    phi = Spy().draw(D, 8, rng=0)
    rf.linear_attention(query, key, value, phi, **options)
    problem = Problem.of(query, key, value, phi, **options)
    work = linear_work(problem)
    assert exact_work(problem.inputs, problem.relation)["exact_pair"] == done["exact_pair"]
    lost = 0
    if name == "packed and causal" or "offset" in name:  # queries and keys that meet nobody may be left out
        lost = work["feature"] // 4
    assert 0 <= work["feature"] - done["feature"] <= lost
    assert ("transform" in work) == ("relative_bias" in options)


def test_times_are_sums_of_rates(rng):
    """By hand: two heads, 11 queries and 13 keys of 5 numbers, values of 3, eight features."""
    query, key, value = numbers(rng)
    phi = rf.PositiveFeatures().draw(D, 8, rng=0)

    def seconds(name, rate, **options):
        found = rf.attention_method(query, key, value, phi, costs=costs(**{rate: 1.0}), **options)
        return getattr(found, f"{name}_seconds")

    assert seconds("exact", "exact_call") == 1
    assert seconds("exact", "exact_pair") == 2 * L * S
    assert seconds("exact", "exact_pair_dim") == 2 * L * S * 8
    assert seconds("exact", "exact_pass") == 0
    assert seconds("exact", "exact_pass", key_mask=np.ones(S, bool)) == 2 * L * S
    assert seconds("exact", "exact_pass", is_causal=True) == 2 * 2 * L * L
    assert seconds("linear", "linear_call", cu_seqlens=([0, 5, L], [0, 5, S])) == 2
    assert seconds("linear", "linear_head") == 2
    assert seconds("linear", "feature") == 2 * (L + S) * 8
    assert seconds("linear", "feature_dim") == 2 * (L + S) * 8 * 8
    assert seconds("linear", "causal_feature") == 0
    assert seconds("linear", "causal_feature", is_causal=True) == 2 * (L + S) * 8
    assert seconds("linear", "transform", relative_bias=np.zeros(L + S - 1)) == 2 * 8 * 4 * 32 * 5
    three = {"feature": 1.0, "generic": 3.0, "generic_causal": 5.0}
    for options, factor in (
        ({}, 1),
        ({"key_ends": np.full(L, S)}, 10),
        ({"key_bias": np.zeros(S)}, 3),
        ({"cu_seqlens": ([0, L], [0, S])}, 1),
    ):
        found = rf.attention_method(query, key, value, phi, costs=costs(**three), **options)
        assert found.linear_seconds == factor * 2 * (L + S) * 8
    signed = rf.TrigonometricFeatures().draw(D, 8, rng=0)
    assert rf.attention_method(query, key, value, signed, costs=costs(**three)).linear_seconds == 6 * (L + S) * 8


# compressed attention --------------------------------------------------------------------------------------------

RATE = {"compressed_pair": 1.0}


def test_compressed_work_is_counted():
    """5 C (L + S) pairs of clusters; references, labels, two sweeps and reads of D rows; chunk by chunk in a stream."""
    x = np.zeros((3, 1000, 8), np.float32)
    found = rf.attention_method(x, x, x, num_clusters=7, num_keys=20, costs=costs(**RATE))
    assert found.clustered_seconds == 3 * 5 * 7 * 2000
    assert found.compressed_seconds == 3 * (1000 * (40 + 20) + (2 * 640 + 1000) * 20)
    causal = rf.attention_method(x, x, x, is_causal=True, num_keys=20, costs=costs(**RATE))
    assert causal.compressed_seconds == 3 * (50 * 40 * (40 + 60) + 1000 * 50)
    assert causal.clustered_seconds == math.inf
    grouped = rf.attention_method(x, x[:1], x[:1], num_clusters=7, enable_gqa=True, costs=costs(**RATE))
    assert grouped.clustered_seconds == 5 * 7 * (3000 + 1000)


def test_the_fastest_of_all_methods():
    """Exact for short inputs, the linear ones for long ones; times grow in proportion to the length."""
    phi = rf.PositiveFeatures().draw(64, 256, rng=0)
    long, longer = (np.broadcast_to(np.float32(0), (8, n, 64)) for n in (2**16, 2**17))
    assert rf.attention_method(long[:, :128], long[:, :128], long[:, :128], phi).fastest == "exact"
    first, second = (rf.attention_method(x, x, x, phi, num_clusters=11) for x in (long, longer))
    assert first.fastest in ("linear", "clustered", "compressed")
    assert first.fastest == second.fastest
    assert second.clustered_seconds / first.clustered_seconds == pytest.approx(2, rel=0.05)
    alone = rf.attention_method(long, long, long)
    assert (alone.linear_seconds, alone.name) == (math.inf, "exact")
    assert alone.fastest in ("clustered", "compressed")
    made = rf.attention.AttentionMethod("linear", 2.0, 3.0, 1.0, 0.5)
    assert made.fastest == "compressed"
    assert rf.attention.AttentionMethod("linear", 1.0, 1.0, 1.0, 1.0).fastest == "exact"


def test_compressed_attention_has_no_form_beside_other_relations():
    x = np.zeros((2, 100, 8))
    for options in (
        {"window": 3},
        {"decay": 0.9, "is_causal": True},
        {"key_bias": np.zeros(100)},
        {"cu_seqlens": [0, 100]},
    ):
        found = rf.attention_method(x, x, x, **options)
        assert (found.clustered_seconds, found.compressed_seconds) == (math.inf, math.inf)
        assert found.fastest == "exact"
    with pytest.raises(ValueError, match="are sums over features; give features, too"):
        rf.attention_method(x, x, x, return_state=True)


# measured rates --------------------------------------------------------------------------------------------------


def test_rates_are_found_again(monkeypatch):
    """Times made from known rates give these rates back."""
    known = rf.AttentionCosts(3e-4, 9e-10, 4e-11, 1.5e-9, 6e-4, 3e-4, 2e-10, 2e-11, 1e-9, 3e-10, 1.2, 3.5)
    works = []
    of = measurement.TimedCall.of.__func__

    def spied(cls, *arguments):
        works.append((arguments[0], of(cls, *arguments)))
        return works[-1][1]

    def predicted(calls, *, pause):
        times = {}
        for (kind, call), (_, problem) in zip(calls, works, strict=True):
            factor = 1.0
            if call.is_generic or call.has_bias:
                factor = known.generic_causal if call.is_causal else known.generic
            times[kind, call] = factor * known.seconds(problem.work)
        return times

    monkeypatch.setattr(measurement.TimedCall, "of", classmethod(spied))
    monkeypatch.setattr(measurement, "interleaved", predicted)
    found = rf.AttentionCosts.measure(np.zeros(1, np.float32), 64, 32, 256)
    shipped = SHIPPED["numpy", "float32"]
    speed = (9e-10 + 96 * 4e-11) / (shipped.exact_pair + 96 * shipped.exact_pair_dim)
    for name in RATES:
        expected = speed * getattr(shipped, name) if name.startswith("compressed") else getattr(known, name)
        assert getattr(found, name) == pytest.approx(expected, rel=1e-6), name


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_measuring(monkeypatch, library):
    """Every call is made and finished; rates are numbers, and some of either method are positive."""
    array = pytest.importorskip(library).zeros(1)
    monkeypatch.setattr(measurement, "BUDGET", 0.0)
    monkeypatch.setattr(measurement, "ROUNDS", (1, 1))
    calls = []
    monkeypatch.setattr(measurement, "finish", lambda x: calls.append(x.shape) or finish(x))
    found = rf.AttentionCosts.measure(array, 8, num_features=16)
    assert len(calls) == 2 * 14
    assert max(found.exact_pair, found.exact_pair_dim) > 0
    assert max(found.feature, found.feature_dim, found.linear_call, found.linear_head) > 0
    assert found.generic >= 1 <= found.generic_causal


@pytest.mark.parametrize(("pause", "expected"), [(0.0, 3.0), (0.1, 1.0)])
def test_calls_after_a_pause_are_timed_awake(monkeypatch, pause, expected):
    """A call is three times as slow where it follows another one, or a pause; none is timed so after a pause."""
    now, last = 0.0, None

    def sleep(seconds):
        nonlocal now, last
        now, last = now + seconds, None

    def call(name):
        nonlocal now, last
        now, last = now + (0.01 if last == name else 0.03), name

    monkeypatch.setattr(measurement, "time", SimpleNamespace(perf_counter=lambda: now, sleep=sleep))
    calls = {name: functools.partial(call, name) for name in "AB"}
    found = measurement.interleaved(calls, budget=0.0, rounds=(3, 3), pause=pause)
    assert found == pytest.approx({"A": 0.01 * expected, "B": 0.01 * expected})


def test_wrong_rates():
    with pytest.raises(TypeError, match="exact_call must be a number of seconds, got '1'"):
        costs(exact_call="1")
    for wrong in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="feature must be finite and not negative, got"):
            costs(feature=wrong)
    assert isinstance(costs(feature=np.float32(1)).feature, float)


def test_diagnostics_name_the_method(xp, rng):
    query, key, value = (asarray(xp, x, "float32") for x in rng.standard_normal((3, 30, D)))
    phi = rf.PositiveFeatures().draw(D, 64, rng=0, like=query)
    for is_causal in (False, True):
        expected = rf.attention_method(query, key, value, phi, is_causal=is_causal)
        assert rf.attention_diagnostics(query, key, phi, value, is_causal=is_causal).method == expected
        assert rf.attention_diagnostics(query, key, phi, is_causal=is_causal).method == expected
