"""Callbacks of compiled JAX functions to NumPy: the function of XLA, its gradients and its batches."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import randfeat as rf
from randfeat.integrations.jax import dot_product_attention
from randfeat.integrations.jax_callback import linear_attention

L, D, M = 70, 4, 8
MASK = jnp.asarray(np.random.default_rng(2).random((2, 1, L)) < 0.7)


@pytest.fixture
def inputs():
    """Query, key, value and the weights of the outputs in a loss, (2, 2, L, D)."""
    return [jnp.asarray(x) for x in np.random.default_rng(0).standard_normal((4, 2, 2, L, D))]


@pytest.fixture
def phi():
    return rf.PositiveFeatures().draw(D, M, rng=0, like=jnp.zeros(1), batch_shape=(2,))


def calls_numpy(function, *arguments):
    return "callback" in jax.jit(function).lower(*arguments).as_text()


def close(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("options", [{"is_causal": True}, {"key_mask": MASK}], ids=["causal", "mask"])
def test_outputs_and_gradients(inputs, phi, options):
    """In the inputs by NumPy, in the rows of the map by JAX."""
    *given, weights = inputs
    by_numpy = partial(linear_attention, host=True)

    def loss(function, q, k, v, features):
        return jnp.sum(function(q, k, v, features, **options) * weights)

    assert calls_numpy(lambda *x: loss(by_numpy, *x), *given, phi)
    every = [jax.jit(jax.value_and_grad(loss, argnums=(1, 2, 3)), static_argnums=0)(f, *given, phi)
             for f in (by_numpy, rf.linear_attention)]  # fmt: skip
    close(*every)
    rows = [jax.jit(jax.grad(loss, argnums=4), static_argnums=0)(f, *given, phi)
            for f in (by_numpy, rf.linear_attention)]  # fmt: skip
    close(*rows)
    assert jnp.abs(rows[0].arrays["rows"]).max() > 0


@pytest.mark.parametrize(
    "options",
    [
        {"cu_seqlens": [0, 5, 5, 60, L]},
        {"cu_seqlens": jnp.asarray([0, 64, L]), "is_causal": True, "key_mask": MASK},
        {"window": 3, "num_sinks": 2, "is_causal": True},
    ],
    ids=["packed", "packed, causal", "window"],
)
def test_relations_with_a_gradient_of_their_own(inputs, phi, options):
    """By NumPy, as they are in NumPy; packed sequences always."""
    *given, weights = inputs

    def loss(q, k, v):
        return jnp.sum(linear_attention(q, k, v, phi, **options) * weights)

    assert calls_numpy(jax.value_and_grad(loss, argnums=(0, 1, 2)), *given)
    output, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*given)
    q, k, v, weights = map(np.asarray, inputs)
    twin = phi.to(q)
    options = {name: np.asarray(x) if isinstance(x, jax.Array) else x for name, x in options.items()}
    close(output, np.sum(rf.linear_attention(q, k, v, twin, **options) * weights))
    close(gradients, rf.linear_attention_vjp(q, k, v, twin, weights, **options))


def test_outside_of_compiled_functions(inputs, phi):
    """Eager calls and eager gradients have no callback."""
    q, k, v, weights = inputs
    close(linear_attention(q, k, v, phi), rf.linear_attention(q, k, v, phi))
    found = jax.grad(lambda q: jnp.sum(linear_attention(q, k, v, phi) * weights))(q)
    close(found, rf.linear_attention_vjp(q, k, v, phi, weights)[0])


def test_batches_and_second_derivatives(inputs, phi):
    q, k, v, weights = inputs
    by_numpy = partial(linear_attention, host=True)
    mapped = jax.jit(jax.vmap(lambda q, mask: by_numpy(q, k[0], v[0], phi, key_mask=mask)))(q, MASK)
    each = [rf.linear_attention(q[i], k[0], v[0], phi, key_mask=MASK[i]) for i in range(2)]
    close(mapped, jnp.stack(each))

    def slope(function):
        first = jax.grad(lambda q: jnp.sum(function(q, k, v, phi) * weights))
        return jax.jit(jax.grad(lambda q: jnp.sum(first(q) * weights)))(q)

    close(slope(by_numpy), slope(rf.linear_attention))


def test_where_there_is_a_callback(inputs, phi):
    """Not if it is refused, not for what NumPy has no fast way, and not in `randfeat.linear_attention`.

    Full attention has one only if it is asked for.
    """
    q, k, v, _ = inputs
    waves = rf.TrigonometricFeatures().draw(D, M, rng=0, like=q)
    lengths_first = [x.swapaxes(1, 2) for x in (q, k, v)]
    for host, is_causal in itertools.product((None, True, False), (True, False)):
        options = {"features": phi, "host": host, "is_causal": is_causal}
        found = calls_numpy(partial(dot_product_attention, **options), *lengths_first)
        assert found is (is_causal if host is None else host)
    causal = {"is_causal": True}
    for function in (
        lambda q: linear_attention(q, k, v, phi, host=False, **causal),
        lambda q: linear_attention(q, k, v, waves, **causal),
        lambda q: linear_attention(q[..., :8, :], k[..., :8, :], v[..., :8, :], phi, **causal),
        lambda q: linear_attention(q, k, v, phi, return_state=True, **causal)[0],
        lambda q: linear_attention(q, k, v, phi, method="exact", **causal),
        lambda q: rf.linear_attention(q, k, v, phi, **causal),
    ):
        assert not calls_numpy(function, q)
    with pytest.raises(TypeError, match="host"):
        jax.jit(lambda q: linear_attention(q, k, v, phi, host="cpu"))(q)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types(inputs, phi, dtype):
    q, k, v = (x.astype(dtype) for x in inputs[:3])
    found, slope = jax.jit(jax.value_and_grad(lambda q: jnp.sum(linear_attention(q, k, v, phi)[..., 0, 0])))(q)
    assert found.dtype == slope.dtype == q.dtype
    close(found, jnp.sum(rf.linear_attention(q, k, v, phi)[..., 0, 0]))
