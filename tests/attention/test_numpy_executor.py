"""The fast NumPy passes against the generic ones and the naive twin; where they are taken, and what they never do."""

import dataclasses
import os
import threading

import numpy as np
import pytest

import randfeat as rf
from randfeat._array import cumulative_sum, namespace
from randfeat._numpy import threads
from randfeat.attention import executors
from randfeat.attention.numpy import exponents, heads
from randfeat.attention.numpy.executor import NumPyExecutor
from tests.arrays import eps_of, same_bits
from tests.attention.test_causal import FUTURES
from tests.attention.test_linear import LAYOUTS, MAPS, problem, spreads
from tests.cases import ATTENTION
from tests.reference import naive_attention

DENSE = rf.DenseExponentialFeatures(exponents=np.array([-0.1, -0.05, 0.0, 0.02, -0.2]))
SHIFTS = {"query_shift": np.array([1.0, 0.5, 0.0, 0.0, -2.0]), "key_shift": np.array([0.0, -1.0, 1.0, 0.0, 1.0])}
MATRIX = np.eye(5) + np.tri(5, k=-1) / 4
ANCHORS = np.eye(5) / 2 + np.tri(5, k=-1) / 8


@dataclasses.dataclass(frozen=True)
class Lopsided(rf.PositiveFeatures):
    """Weights of features that differ, and differ between queries and keys."""

    symmetric = False

    def exponential_form(self, arrays, *, keys):
        form, xp = super().exponential_form(arrays, keys=keys), namespace(arrays["rows"])
        rows = arrays["rows"]
        number = cumulative_sum(xp.ones_like(rows[..., 0]), -1)[..., None, :]
        return dataclasses.replace(form, log_weights=xp.sin(number) if keys else 2 * xp.cos(2 * number))


FORMS = {
    "positive": rf.PositiveFeatures(),
    "hyperbolic": rf.HyperbolicFeatures(),
    "optimal positive": rf.OptimalPositiveFeatures(exponent=-0.05),
    "antithetic": rf.OptimalPositiveFeatures(exponent=-0.05, antithetic=True),
    "dense": DENSE,
    "posterior": rf.PosteriorFeatures(anchors=ANCHORS, keys=-ANCHORS),
    "importance-sampled": rf.ImportanceSampledFeatures(means=np.eye(3, 5) / 2, variances=[0.6, 1.0, 1.5]),
    "regularized": rf.RegularizedSoftmaxFeatures(),
    "centered": rf.CenteredFeatures(**SHIFTS),
    "balanced": rf.BalancedFeatures(matrix=MATRIX),
    "centered, then balanced": rf.CenteredFeatures(base=rf.BalancedFeatures(base=DENSE, matrix=MATRIX), **SHIFTS),
    "balanced, then centered": rf.BalancedFeatures(base=rf.CenteredFeatures(**SHIFTS), matrix=MATRIX),
    "centered, of a Gaussian": rf.CenteredFeatures(base=rf.HyperbolicFeatures(rf.GaussianKernel(1.3)), **SHIFTS),
    "with a scale": rf.PositiveFeatures(rf.SoftmaxKernel(scale=2.0)),
    "lopsided": Lopsided(),
}
"""Every kind of exponential features, for dimension 5."""

MODES = pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture
def taken(recorded):
    """What the NumPy executor gave, call by call."""
    return recorded(NumPyExecutor, "attend")


def both(monkeypatch, taken, query, key, value, phi, **options):
    """The results of the fast pass, which must be taken, and of the generic one."""
    count = len(taken)
    fast = rf.linear_attention(query, key, value, phi, **options)
    assert len(taken) == count + 1
    assert taken[-1] is not None
    with monkeypatch.context() as patch:
        patch.setattr(executors, "EXECUTORS", executors.EXECUTORS[-1:])
        return fast, rf.linear_attention(query, key, value, phi, **options)


def draw(name, batch_shape=(), num_features=8, dtype="float64"):
    """A map for dimension 5, and the options that its kernel asks for."""
    estimator = FORMS[name]
    phi = estimator.draw(5, num_features, rng=0, like=np.zeros(1, dtype), batch_shape=batch_shape)
    return phi, {} if estimator.kernel == rf.SoftmaxKernel() else {"scale": 0.7}


@pytest.mark.parametrize("name", FORMS)
def test_forms_are_the_features(xp, rng, name):
    """The exponential form of an estimator states the logarithm of its features, on every library."""
    x = rng.standard_normal((7, 5))
    phi = FORMS[name].draw(5, 8, rng=0, like=xp.asarray(x), batch_shape=(2,))
    for keys in (False, True):
        unit = phi.estimator.kernel.unit(xp.asarray(x))
        log = np.asarray(phi.exponential_form(keys=keys).log_features(unit))
        own = (phi.keys if keys else phi.queries)(xp.asarray(x))
        np.testing.assert_allclose(log, np.asarray(own.log_scale), rtol=1e-13, atol=1e-13)
        assert np.all(np.asarray(own.values) == 1)


def test_quadrature_weights_are_in_the_form(rng):
    phi = rf.PositiveFeatures(coupling=rf.GaussHermite(nodes=3)).draw(3, 27, rng=0)
    assert np.ptp(phi.arrays["log_row_weights"]) > 1
    x = rng.standard_normal((4, 3))
    np.testing.assert_allclose(phi.exponential_form(keys=True).log_features(x), phi.keys(x).log_scale, rtol=1e-13)


@pytest.mark.usefixtures("small_blocks")
@MODES
@pytest.mark.parametrize("base", [rf.PositiveFeatures, rf.HyperbolicFeatures])
def test_weights_of_rows_in_attention(monkeypatch, taken, rng, base, is_causal):
    """A quadrature rule weights its rows: outputs and gradients with them, in both executors."""
    estimator = base(coupling=rf.GaussHermite(nodes=3))
    phi = estimator.draw(2, estimator.nearest_num_features(9, 2)[0], rng=0)
    query, key, value, cotangent = rng.standard_normal((4, 23, 2))
    fast, generic = both(monkeypatch, taken, query, key, value, phi, is_causal=is_causal)
    weights = phi.estimate(query * 2**-0.25, key * 2**-0.25) * (np.tri(23) if is_causal else 1)
    expected = weights @ value / weights.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(fast, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(generic, expected, rtol=1e-11, atol=1e-13)
    ours = rf.linear_attention_vjp(query, key, value, phi, cotangent, is_causal=is_causal)
    monkeypatch.setattr(executors, "EXECUTORS", executors.EXECUTORS[-1:])
    for mine, theirs in zip(
        ours, rf.linear_attention_vjp(query, key, value, phi, cotangent, is_causal=is_causal), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("small_blocks")
@DTYPES
@MODES
@pytest.mark.parametrize("name", FORMS)
def test_equals_the_naive_twin_and_the_generic_pass(monkeypatch, taken, rng, name, is_causal, dtype):
    """At moderate logits without shifts, and at large ones with them, beside absent keys."""
    phi, options = draw(name, (2,), dtype=dtype)
    for scale in (0.5, 8.0):
        inputs = [scale * x for x in rng.standard_normal((2, 2, 23, 5))] + [rng.standard_normal((2, 23, 3))]
        inputs = [x.astype(dtype) for x in inputs]
        options |= {"is_causal": is_causal, "key_mask": rng.random((2, 23)) < 0.8}
        fast, generic = both(monkeypatch, taken, *inputs, phi, **options)
        assert fast.dtype == dtype
        expected = naive_attention(phi, *inputs, merges=40, **options)
        expected.check(fast, eps_of(dtype), most=1.0 if dtype == "float32" else 1e-8)
        error = np.linalg.norm(fast - expected.output) / np.linalg.norm(expected.output)
        limit = 8 * np.linalg.norm(generic - expected.output) / np.linalg.norm(expected.output)
        assert error <= limit + 1000 * eps_of(dtype)


@pytest.mark.usefixtures("small_blocks")
@MODES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(taken, rng, layout, is_causal):
    """Leading dimensions, groups, masks, unequal lengths."""
    query, key, value, options = problem(rng, layout)
    for batch_shape in [(), *(shape for name, shape in MAPS if name == layout)]:
        phi, _ = draw("hyperbolic", batch_shape)
        expected = naive_attention(phi, query, key, value, is_causal=is_causal, **options)
        expected.check(rf.linear_attention(query, key, value, phi, is_causal=is_causal, **options), 2.0**-52)
        assert taken[-1] is not None


@pytest.mark.usefixtures("small_blocks")
@MODES
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_states_in_and_out(monkeypatch, taken, rng, is_causal, scale):
    """The state is that of the generic pass, to rounding, and goes on where it ended; asking for it changes no bit."""
    query, key = scale * rng.standard_normal((2, 2, 29, 5))
    value, mask = rng.standard_normal((2, 29, 3)), rng.random((2, 29)) < 0.7
    phi, _ = draw("optimal positive")
    options = {"is_causal": is_causal, "key_mask": mask}
    (out, state), (_, expected) = both(monkeypatch, taken, query, key, value, phi, return_state=True, **options)
    assert same_bits(out, rf.linear_attention(query, key, value, phi, **options))
    for name in ("log_max", "weighted", "total"):
        ours, theirs = getattr(state, name), getattr(expected, name)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-9 * scale, atol=1e-9)
    outs, state = [], None
    for part in (slice(0, 11), slice(11, 12), slice(12, 29)):
        piece = (x[:, part] for x in (query, key, value))
        options["key_mask"] = mask[:, part]
        out, state = rf.linear_attention(*piece, phi, initial_state=state, return_state=True, **options)
        assert taken[-1] is not None
        outs.append(out)
    options["key_mask"] = mask
    whole = naive_attention(phi, query, key, value, merges=60, **options)
    if is_causal:
        whole.check(np.concatenate(outs, axis=-2), eps_of("float64"), most=1e-8)
    else:
        naive_last = dataclasses.replace(whole, output=whole.output[:, 12:], per_eps=whole.per_eps[:, 12:])
        naive_last.check(outs[-1], eps_of("float64"), most=1e-8)


@pytest.mark.parametrize("threshold", [0, 1 << 62])
@MODES
@DTYPES
def test_threads_change_no_bit(monkeypatch, rng, dtype, is_causal, threshold):
    monkeypatch.setattr(heads, "FEW", threshold)
    query, key, value = (scale * rng.standard_normal((3, 700, 5)).astype(dtype) for scale in (1.5, 1.5, 1))
    phi, _ = draw("positive", num_features=32, dtype=dtype)
    outs = [
        rf.linear_attention(query, key, value, phi, is_causal=is_causal, num_threads=num, return_state=True)
        for num in (1, 2, 3, None)
    ]
    for out, state in outs[1:]:
        assert same_bits(out, outs[0][0])
        assert same_bits(state.weighted, outs[0][1].weighted)


# adversarial scales ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
@MODES
@DTYPES
def test_outputs_are_convex_combinations_at_any_scale(taken, rng, dtype, is_causal):
    """min v <= out <= max v with logits of ten thousand: nothing overflows, no denominator vanishes."""
    value = rng.standard_normal((2, 6, 3)).astype(dtype)
    seen = [slice(0, i + 1) if is_causal else slice(None) for i in range(6)]
    low = np.stack([value[:, s].min(axis=1) for s in seen], axis=1)
    high = np.stack([value[:, s].max(axis=1) for s in seen], axis=1)
    for name in FORMS:
        phi, options = draw(name, num_features=16, dtype=dtype)
        for _, query, key in spreads(rng):
            query, key = query.astype(dtype), key.astype(dtype)
            out = rf.linear_attention(query, key, value, phi, is_causal=is_causal, **options)
            slack = 300 * eps_of(dtype) * np.abs(value).max()
            assert taken[-1] is not None
            assert np.all((out >= low - slack) & (out <= high + slack)), name


EXTREMES = {
    "one long key": lambda q, k, v: (q, k * np.where(np.arange(40) == 17, 60.0, 1.0)[:, None], v),
    "a long first key": lambda q, k, v: (q, k * np.where(np.arange(40) == 0, 60.0, 1.0)[:, None], v),
    "keys that grow": lambda q, k, v: (q, k * np.geomspace(0.01, 100.0, 40)[:, None], v),
    "keys that shrink": lambda q, k, v: (q, k * np.geomspace(100.0, 0.01, 40)[:, None], v),
    "long queries": lambda q, k, v: (50 * q, k, v),
    "aligned": lambda q, k, v: (40 * np.abs(q), 40 * np.abs(k), v),
    "opposed": lambda q, k, v: (40 * np.abs(q), -40 * np.abs(k), v),
    "a large common part": lambda q, k, v: (q, k + 300.0, v),
    "values of 1e30": lambda q, k, v: (q, k, 1e30 * v),
    "values of 1e30, long inputs": lambda q, k, v: (10 * q, 10 * k, 1e30 * v),
    "values of 1e-30": lambda q, k, v: (q, k, 1e-30 * v),
    "one value of 1e30": lambda q, k, v: (q, k, v * np.where(np.arange(40) == 30, 1e30, 1.0)[:, None]),
    "zero values": lambda q, k, v: (q, k, np.where(np.arange(40)[:, None] % 3 == 0, v, 0.0)),
    "zero inputs": lambda q, k, v: (0 * q, 0 * k, v),
}


def worst_error(phi, query, key, value, out, **options):
    """The largest error of an output relative to the values that it may mix, beyond what rounding explains.

    An exponent of size t is off by t eps, and so is each weight, relative to itself.
    """
    expected = naive_attention(phi, query, key, value, **options).output
    logs = max(np.max(np.abs(side(x * 5**-0.25).log_scale)) for side, x in ((phi.queries, query), (phi.keys, key)))
    causal = options.get("is_causal", False)
    size = np.maximum.accumulate(np.abs(value).max(axis=-1), axis=-1) if causal else np.abs(value).max()
    error = np.max(np.abs(out - expected), axis=-1) / np.maximum(size, 1e-45)
    return np.max(error) / ((32 * logs + 256) * float(np.finfo(out.dtype).eps))


@pytest.mark.usefixtures("small_blocks")
@MODES
@DTYPES
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extremes(taken, rng, extreme, dtype, is_causal):
    query, key = rng.standard_normal((2, 40, 5))
    query, key, value = (x.astype(dtype) for x in EXTREMES[extreme](query, key, rng.standard_normal((40, 3))))
    for name in ("positive", "dense", "posterior", "centered"):
        phi, _ = draw(name, num_features=16, dtype=dtype)
        out = rf.linear_attention(query, key, value, phi, is_causal=is_causal)
        assert taken[-1] is not None
        assert worst_error(phi, query, key, value, out, is_causal=is_causal) < 1, name


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("extreme", ["long queries", "aligned", "opposed", "values of 1e30, long inputs"])
def test_a_pass_that_never_shifts_is_caught(monkeypatch, rng, extreme):
    """The extremes above do tell: without the conditions of `Limits` they fail."""
    limits = exponents.Limits.of(np.dtype("float32"))
    careless = dataclasses.replace(limits, limit=1e30, rise=1e30, lowest=-1.0, largest_value=1e150)
    monkeypatch.setattr(exponents.Limits, "of", lambda dtype: careless)
    query, key = rng.standard_normal((2, 40, 5))
    inputs = [x.astype("float32") for x in EXTREMES[extreme](query, key, rng.standard_normal((40, 3)))]
    phi, _ = draw("positive", num_features=16, dtype="float32")
    out = rf.linear_attention(*inputs, phi)
    assert not worst_error(phi, *inputs, out) < 1


# causality -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("future", FUTURES)
@pytest.mark.parametrize("scale", [1.0, 6.0, 60.0])
def test_outputs_never_see_the_future(taken, rng, scale, future):
    """Bit-equal, whatever later queries, keys and values become, with shifts and without."""
    length = 21
    for name in ("positive", "centered"):
        phi, _ = draw(name)
        inputs = rng.standard_normal((3, 2, length, 5)) * np.array([scale, scale, 1.0])[:, None, None, None]
        clean = rf.linear_attention(*inputs, phi, is_causal=True)
        for now in (0, 2, 3, 6, 7, 8, 14):
            changed = inputs.copy()
            with np.errstate(invalid="ignore"):
                changed[:, :, now + 1 :] = FUTURES[future](changed[:, :, now + 1 :])
            out = rf.linear_attention(*changed, phi, is_causal=True)
            assert same_bits(out[:, : now + 1], clean[:, : now + 1]), f"{name}: position {now} saw the future"
            assert scale > 10 or not same_bits(out, clean)
    assert all(result is not None for result in taken)


@pytest.mark.usefixtures("small_blocks")
def test_masks_of_the_future_do_not_matter(rng):
    query, key, value = rng.standard_normal((3, 21, 5))
    masks = rng.random((2, 21)) < 0.5
    masks[:, :10] = masks[0, :10]
    masks[:, :3] = False
    for name in ("positive", "centered"):
        phi, _ = draw(name)
        outs = [rf.linear_attention(query, key, value, phi, is_causal=True, key_mask=mask) for mask in masks]
        assert same_bits(outs[0][:10], outs[1][:10])
        assert not same_bits(*outs)
        assert np.all(outs[0][:3] == 0)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("is_causal", [False, True])
def test_nan_spoils_what_sees_it_and_nothing_else(rng, is_causal):
    for position in (0, 2, 9, 20):
        for which in range(3):
            inputs = rng.standard_normal((3, 2, 21, 5))
            inputs[which, 0, position, 1] = np.nan
            out = rf.linear_attention(*inputs, draw("hyperbolic")[0], is_causal=is_causal)
            sees = np.arange(21) == position if which == 0 else (np.arange(21) >= position) | (not is_causal)
            spoilt = np.zeros((2, 21, 5), dtype=bool)
            spoilt[0, sees, slice(None) if which < 2 else 1] = True
            assert np.array_equal(np.isnan(out), spoilt)


# where it is taken -----------------------------------------------------------------------------------------------


def test_where_the_fast_pass_is_taken(taken, rng):
    query, key, value = rng.standard_normal((3, 2, 100, 5))

    def is_fast(phi, query=query, key=key, value=value, **options):
        rf.linear_attention(query, key, value, phi, **options)
        return taken[-1] is not None

    for name in FORMS:
        phi, options = draw(name)
        assert is_fast(phi, **options)
        assert is_fast(phi, is_causal=True, **options)
    phi, _ = draw("positive")
    assert is_fast(phi, *(x.astype(np.float16) for x in (query, key, value)))
    assert not is_fast(phi, query[:, :8], key[:, :8], value[:, :8])
    assert not is_fast(phi, value=value[..., :0])
    assert is_fast(phi, query[:, :70], is_causal=True)
    wider = rf.AttentionState.empty(8, 5, like=value, batch_shape=(3, 2))
    assert not is_fast(phi, initial_state=wider)
    for estimator in ATTENTION:
        if not estimator.positive:
            assert not is_fast(estimator.draw(5, 8, rng=0))
    assert not is_fast(rf.PositiveFeatures(rf.NormalizedSoftmaxKernel()).draw(5, 8, rng=0), scale=1.0)


def test_what_numpy_may_not_read_takes_the_generic_pass(torch, taken):
    query = torch.ones((100, 5), dtype=torch.float64)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=query)
    trained = rf.FeatureMap(phi.estimator, 5, 8, {"rows": phi.arrays["rows"].clone().requires_grad_()})
    rf.linear_attention(query, query, query, trained)
    assert taken == [None]
    rf.linear_attention(query, query, query, phi)
    assert [answer is None for answer in taken[1:]] == [True, False]  # asked for tensors, then for views of them


def test_changed_features_lose_the_form_they_no_longer_have(taken, rng):
    class Flatter(rf.PositiveFeatures):
        def query_features(self, arrays, x):
            return super().query_features(arrays, x / 2)

    query, key, value = rng.standard_normal((3, 100, 5))
    phi = Flatter().draw(5, 8, rng=0)
    out = rf.linear_attention(query, key, value, phi)
    assert taken == [None]
    assert not np.allclose(out, rf.linear_attention(query, key, value, rf.PositiveFeatures().draw(5, 8, rng=0)))


@DTYPES
@pytest.mark.parametrize(("power", "unit"), [(np.exp2, np.log2(np.e)), (np.exp, 1.0)])
def test_features_of_very_negative_exponents(dtype, power, unit):
    """The power up to the smallest normal number, which is taken off where exponents go below it; then zero."""
    info = np.finfo(dtype)
    least = int(np.ceil(np.log(float(info.tiny)) * unit))
    limits = dataclasses.replace(exponents.Limits.of(np.dtype(dtype)), power=power, exponent_unit=unit, least=least)
    grid = np.linspace(3 * least, 20, 1000).astype(dtype)
    expected = power(grid)
    features = limits.features(np.concatenate([grid, [-np.inf]]).astype(dtype))
    bound = 2 * np.exp(1 / unit) * info.tiny
    assert np.all(features >= 0)
    assert np.all(np.abs(features[:-1] - expected) <= 4 * info.eps * expected + bound)
    assert np.all(features[:-1][grid <= least] == 0)
    assert features[-1] == 0
    short = grid[grid >= least]
    assert same_bits(limits.features(short.copy()), power(short))
    assert same_bits(limits.features(short.copy(), bound=-least), power(short))
    assert np.isnan(limits.features(np.array([np.nan, 0.0, 2.0 * least], dtype))[0])


# threads ---------------------------------------------------------------------------------------------------------


def blas_threads():
    return [library["num_threads"] for library in threads.controller().info()]


def test_blas_is_held_and_given_back():
    before, seen, done = blas_threads(), [], threading.Barrier(2, timeout=10)

    def call():
        threads.run_tasks([lambda scratch: (done.wait(), seen.append(blas_threads()))], list, 1)

    others = [threading.Thread(target=call) for _ in range(2)]  # both hold it at one time
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert seen == [[1] * len(before)] * 2
    assert blas_threads() == before
    with pytest.raises(ZeroDivisionError):
        threads.run_tasks([lambda scratch: 1 / 0] * 5, list, 2)
    assert blas_threads() == before


def test_every_task_runs_once_with_scratch_of_its_thread():
    for num in (1, 2, 5):
        seen: list[tuple[int, int]] = []
        run = seen.append
        threads.run_tasks([lambda scratch, i=i, run=run: run((i, id(scratch))) for i in range(20)], list, num)
        assert sorted(i for i, _ in seen) == list(range(20))
        assert len({scratch for _, scratch in seen}) <= num


def test_calls_within_calls_and_after_a_fork(rng):
    query, key, value = rng.standard_normal((3, 2, 300, 5))
    phi, _ = draw("positive", num_features=64)
    expected, outs = rf.linear_attention(query, key, value, phi), []

    def nested(scratch):
        outs.append(rf.linear_attention(query, key, value, phi, num_threads=2))

    threads.run_tasks([nested] * 3, list, 2)
    assert all(same_bits(out, expected) for out in outs)
    if hasattr(os, "fork"):
        hold = threads.BlasHold()
        hold.enter(1)  # what a child finds if another thread of its parent was at work
        hold.lock.acquire()
        hold.forget()
        hold.enter(2)
        hold.leave(2)
        assert not hold.holders


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, "two"])
def test_wrong_numbers_of_threads(monkeypatch, bad):
    x = np.ones((3, 5))
    phi, _ = draw("positive")
    with pytest.raises((TypeError, ValueError), match=r"num_threads must be a positive integer, got"):
        rf.linear_attention(x, x, x, phi, num_threads=bad)
    monkeypatch.setenv("RANDFEAT_NUM_THREADS", str(bad))
    with pytest.raises((TypeError, ValueError), match=r"RANDFEAT_NUM_THREADS must be a positive integer, got"):
        rf.linear_attention(x, x, x, phi)
    monkeypatch.setenv("RANDFEAT_NUM_THREADS", "3")
    assert threads.resolve_num_threads(None) == 3
    assert threads.resolve_num_threads(2) == 2
