"""Under JAX what is traced does not grow with the length, and the loop in it is the loop in Python elsewhere."""

import numpy as np
import pytest

import randfeat as rf
from randfeat._array import fold
from randfeat.attention import passes, sweeps
from tests.arrays import computing, eps_of, to_numpy

HEADS, DIM, WIDTH, FEATURES = 2, 4, 3, 64


@pytest.fixture
def small_chunks(monkeypatch):
    for module in (passes, sweeps):
        monkeypatch.setattr(module, "CHUNK", 4)
        monkeypatch.setattr(module, "CAUSAL_CHUNK", 4)


@pytest.fixture
def attend(jax):
    """The operator whose backward pass is `linear_attention_vjp`."""
    from randfeat.integrations.jax_autograd import linear_attention

    return linear_attention


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
    "full": lambda jax, length: {},
    "full and masked": lambda jax, length: {"key_mask": jax.numpy.arange(length) % 3 > 0},
    "causal": lambda jax, length: {"is_causal": True},
    "offset": lambda jax, length: {"is_causal": True, "causal_offset": 256},
    "negative offset": lambda jax, length: {"is_causal": True, "causal_offset": -256},
    "decay": lambda jax, length: {"is_causal": True, "decay": 0.9},
    "gates": gates,
    "ends": lambda jax, length: {"key_ends": jax.numpy.arange(length)},
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
    """As many equations at any length with the same remainder, at most twice as many with one."""
    short, long = (list(equations(traced(jax, function, n, options(jax, n)))) for n in (1024, 4096))
    assert 50 < len(long) == len(short)
    odd = list(equations(traced(jax, function, 1131, options(jax, 1131))))
    assert len(odd) < 2 * len(long) + 100
    return long


@pytest.mark.parametrize("name", OPTIONS)
def test_the_trace_does_not_grow_with_the_length(jax, name):
    check_trace(jax, rf.linear_attention, OPTIONS[name])


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("analytic", [False, True])
def test_nor_does_that_of_gradients_which_keep_no_features(jax, attend, is_causal, analytic):
    function = attend if analytic else rf.linear_attention
    found = check_trace(jax, gradient(jax, function), lambda jax, length: {"is_causal": is_causal})
    largest = max(np.prod(out.aval.shape) for equation in found for out in equation.outvars)
    assert HEADS * 4096 * DIM <= largest < HEADS * 4096 * FEATURES / 4
    states = HEADS * FEATURES * (WIDTH + 2) * 4096 / sweeps.CAUSAL_CHUNK
    assert states < largest


def test_a_loop_in_python_grows(jax, monkeypatch):
    """The count sees what it is there to see."""
    monkeypatch.setattr("randfeat._array.is_traced", lambda *arrays: False)
    with pytest.raises(AssertionError):
        check_trace(jax, rf.linear_attention, OPTIONS["full"])
