"""Under JAX what is traced does not grow with the length, and the loop in it is the loop in Python elsewhere."""

from functools import partial

import numpy as np
import pytest

import randfeat as rf
from randfeat._array import fold
from randfeat.attention.generic import chunks
from tests.arrays import computing, eps_of, to_numpy

HEADS, DIM, WIDTH, FEATURES = 2, 4, 3, 64


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 4)
    monkeypatch.setattr(chunks, "CAUSAL_CHUNK", 4)


@pytest.fixture
def attend(jax):
    """The operator whose backward pass is `linear_attention_vjp`, computed by JAX."""
    from randfeat.integrations.jax_autograd import linear_attention

    return partial(linear_attention, host=False)


def equations(jaxpr):
    """Every equation of a trace, with those inside of loops and calls once."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, (tuple, list)) else [parameter]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def gates(jax, length):
    return {"is_causal": True, "decay": jax.numpy.full((HEADS, length, FEATURES), 0.9)}


OPTIONS = {
    "full": lambda jax, length: {"key_mask": jax.numpy.arange(length) % 3 > 0},
    "causal": lambda jax, length: {"is_causal": True},
    "offset": lambda jax, length: {"is_causal": True, "causal_offset": -256},
    "gates": gates,
    "ends": lambda jax, length: {"key_ends": jax.numpy.arange(length)},
    "window": lambda jax, length: {"window": 200},
    "causal window": lambda jax, length: {"window": 200, "is_causal": True},
}


def traced(jax, function, length, options):
    """The trace of a function of query, key, value and features."""
    x = [jax.ShapeDtypeStruct((HEADS, length, width), np.float32) for width in (DIM, DIM, WIDTH)]
    like = jax.numpy.zeros(1, dtype=np.float32)
    phi = rf.PositiveFeatures().draw(DIM, FEATURES, rng=0, like=like)
    return jax.make_jaxpr(lambda *x: function(*x, phi, **options))(*x).jaxpr


def gradient(jax, function):
    def attend(query, key, value, phi, **options):
        return jax.grad(lambda *x: jax.numpy.sum(function(*x, phi, **options) ** 2), argnums=(0, 1, 2))(
            query, key, value
        )

    return attend


def check_trace(jax, function, options):
    """As many equations at any length with the same remainder; returns the longer trace."""
    short, long = (list(equations(traced(jax, function, n, options(jax, n)))) for n in (1024, 4096))
    assert 50 < len(long) == len(short)
    return long


@pytest.mark.parametrize("name", OPTIONS)
def test_the_trace_does_not_grow_with_the_length(jax, name):
    whole = check_trace(jax, rf.linear_attention, OPTIONS[name])
    if name not in ("full", "causal"):
        return
    odd = equations(traced(jax, rf.linear_attention, 1131, OPTIONS[name](jax, 1131)))
    assert len(whole) < len(list(odd)) < 2 * len(whole) + 100  # what remains of the length has a step of its own


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"window": 3}], ids=str)
def test_no_heads_and_no_values(jax, options):
    phi = rf.PositiveFeatures().draw(DIM, 8, rng=0, like=jax.numpy.zeros(1))
    for heads, width in ((0, WIDTH), (HEADS, 0)):
        x = [jax.numpy.zeros((heads, 600, size)) for size in (DIM, DIM, width)]
        out = jax.eval_shape(lambda *x: rf.linear_attention(*x, phi, **options), *x)
        assert out.shape == (heads, 600, width)


@pytest.mark.parametrize(("is_causal", "analytic"), [(False, True), (True, True), (True, False)])
def test_nor_does_that_of_gradients_which_keep_no_features(jax, attend, is_causal, analytic):
    function = attend if analytic else rf.linear_attention
    found = check_trace(jax, gradient(jax, function), lambda jax, length: {"is_causal": is_causal})
    largest = max(np.prod(out.aval.shape) for equation in found for out in equation.outvars)
    assert HEADS * 4096 * DIM <= largest < HEADS * 4096 * FEATURES / 4
    states = HEADS * FEATURES * (WIDTH + 2) * 4096 / chunks.CAUSAL_CHUNK
    assert states < largest


def test_a_loop_in_python_grows(jax, monkeypatch):
    """The count sees what it is there to see."""
    monkeypatch.setattr("randfeat._array.loops.is_traced", lambda *arrays: False)
    with pytest.raises(AssertionError):
        check_trace(jax, rf.linear_attention, OPTIONS["full"])


@pytest.mark.parametrize(("length", "backwards"), [(8, True), (23, False), (23, True)])
def test_a_fold_is_the_loop_in_python(jax, length, backwards):
    """On integers, bit by bit: the carry, which broadcasts, the results and their order, derivatives, and batches."""
    rows = np.arange(3.0 * length * 2).reshape(3, length, 2) % 7
    start = np.ones((1, 2))

    def step(carry, parts):
        (total,), (x, absent) = carry, parts
        assert absent is None
        return (x.sum(-2, keepdims=True) - total,), (x * total, x[..., :1] - total)

    def run(start, rows):
        (carry,), found = fold(step, (start,), (rows, None), 4, backwards=backwards)
        return carry, *(jax.numpy.concat(column, axis=-2) for column in zip(*found, strict=True))

    def slope(start, rows):
        return jax.grad(lambda *x: sum((x**2).sum() for x in run(*x)), argnums=(0, 1))(start, rows)

    def same(found, expected):
        return all(x.shape == y.shape and np.array_equal(x, y) for x, y in zip(found, expected, strict=True))

    arrays = jax.numpy.asarray(start), jax.numpy.asarray(rows)
    expected, slopes = run(start, rows), slope(*arrays)
    assert same(jax.jit(run)(*arrays), expected)
    assert same(jax.jit(slope)(*arrays), slopes)
    one_by_one = jax.jit(jax.vmap(run, in_axes=(None, 0)))(*arrays)
    assert same(one_by_one, [x if x.ndim == 3 else x[:, None] for x in expected])
    assert all(np.any(x != 0) for x in (*expected, *slopes))


KEYS = 13
CASES = {  # number of queries, dtype, options
    "masked": (15, "bfloat16", {"is_causal": True, "key_mask": np.arange(KEYS) % 5 > 0, "causal_offset": -1}),
    "offset": (9, "float32", {"is_causal": True, "causal_offset": 8}),
    "full": (15, "float64", {}),
    "gates": (13, "float64", {"is_causal": True, "decay": np.linspace(0.2, 1, KEYS * 8).reshape(1, 1, KEYS, 8)}),
}


def case(jax, rng, name):
    """Grouped heads: inputs of the case's dtype for JAX, the same numbers for NumPy, and a map for each."""
    num, dtype, options = CASES[name]
    shapes = (2, 4, num, DIM), (2, 2, KEYS, DIM), (2, 2, KEYS, WIDTH)
    there = [jax.numpy.asarray(rng.standard_normal(shape), dtype=dtype) for shape in shapes]
    phi = rf.PositiveFeatures().draw(DIM, 8, rng=0, like=there[0])
    masks = [{}, {}]
    if "key_mask" in options:
        masks = [{"key_mask": xp.asarray(options["key_mask"])} for xp in (jax.numpy, np)]
    both = [{"enable_gqa": True, **options, **mask} for mask in masks]
    return (there, phi, both[0]), ([to_numpy(x) for x in there], phi.to(np.zeros(1)), both[1])


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_states_are_those_of_numpy(jax, rng, name):
    """Also after a state of keys before, whose arrays the first chunk broadcasts."""

    def run(query, key, value, phi, options):
        first = key[:1, :1, :2], value[:1, :1, :2]
        _, state = rf.linear_attention(first[0], *first, phi, return_state=True)
        columns = (x[:, :, None] for x in (state.log_max, state.weighted, state.total))
        state = rf.AttentionState(*columns)  # as for grouped heads
        out, after = rf.linear_attention(query, key, value, phi, initial_state=state, return_state=True, **options)
        return after.log_max, after.weighted, after.total, out

    (there, phi, options), (here, same_phi, same_options) = case(jax, rng, name)
    found, expected = jax.jit(lambda *x: run(*x, phi, options))(*there), run(*here, same_phi, same_options)
    dtype = CASES[name][1]
    dtypes = [*3 * [computing(dtype)], dtype]
    for one, other, kind in zip(found, expected, dtypes, strict=True):
        assert one.dtype == kind
        size = np.max(np.abs(other[other > -np.inf]))
        np.testing.assert_allclose(to_numpy(one), other, rtol=0, atol=200 * eps_of(kind) * size)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", ["masked", "offset"])
def test_analytic_gradients_are_those_of_numpy(jax, rng, name):
    (there, phi, options), (here, same_phi, same_options) = case(jax, rng, name)
    cotangent = rng.standard_normal((2, 4, here[0].shape[-2], WIDTH))
    there, phi = [x.astype(np.float64) for x in there], phi.to(jax.numpy.zeros(1))
    run = jax.jit(lambda *x: rf.linear_attention_vjp(*x[:3], phi, x[3], **options))
    expected = rf.linear_attention_vjp(*here, same_phi, cotangent, **same_options)
    for one, other in zip(run(*there, jax.numpy.asarray(cotangent)), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.max(np.abs(other)))


@pytest.mark.usefixtures("small_chunks")
def test_differentiated_loops_are_those_in_python(jax, rng, monkeypatch):
    """By JAX, in inputs, gates and rows."""
    (there, phi, options), _ = case(jax, rng, "gates")
    cotangent = rng.standard_normal((2, 4, KEYS, WIDTH))
    rows, decay = phi.arrays["rows"], jax.numpy.asarray(options.pop("decay"))

    def loss(rows, decay, *x):
        drawn = rf.FeatureMap(phi.estimator, DIM, 8, {**phi.arrays, "rows": rows})
        return jax.numpy.sum(cotangent * rf.linear_attention(*x, drawn, decay=decay, **options))

    found = []
    for looped in (True, False):
        with monkeypatch.context() as patch:
            if not looped:
                patch.setattr("randfeat._array.loops.is_traced", lambda *arrays: False)
            found.append(jax.jit(jax.grad(lambda *x: loss(*x), argnums=(0, 1, 2, 3, 4)))(rows, decay, *there))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.max(np.abs(other)))
