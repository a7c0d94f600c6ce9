"""The backward pass for JAX: the generic function's gradients, under jit, vmap and twice."""

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import eps_of, to_numpy
from tests.attention.test_linear import problem
from tests.cases import ATTENTION
from tests.reference import naive_attention


@pytest.fixture
def attend(jax):
    from randfeat.integrations.jax_autograd import linear_attention

    return linear_attention


def close(actual, expected, relative=1e-10):
    for one, other in zip(actual, expected, strict=True):
        one, other = to_numpy(one), to_numpy(other)
        np.testing.assert_allclose(one, other, atol=relative * np.max(np.abs(other)))


def loss_of(jax, function, phi, **options):
    return lambda q, k, v: jax.numpy.sum(function(q, k, v, phi, **options) ** 2)


@pytest.mark.parametrize(("layout", "is_causal"), [("grouped and masked", True), ("broadcasting", False)])
def test_equals_the_generic_function_compiled(jax, attend, rng, layout, is_causal):
    *inputs, options = problem(rng, layout)
    inputs = [jax.numpy.asarray(x) for x in inputs]
    if "key_mask" in options:
        options["key_mask"] = jax.numpy.asarray(options["key_mask"])
    phi = ATTENTION[0].draw(5, 8, rng=0, like=inputs[0])
    options["is_causal"] = is_causal
    naive = naive_attention(phi, *inputs, **options)
    for function in (attend, rf.linear_attention):
        out = jax.jit(lambda *x, f=function: f(*x, phi, **options))(*inputs)
        naive.check(out, eps_of("float64"), most=1e-11)
    gradients = [
        jax.jit(jax.grad(loss_of(jax, function, phi, **options), argnums=(0, 1, 2)))(*inputs)
        for function in (attend, rf.linear_attention)
    ]
    close(*gradients)


def test_traced_masks_and_batches(jax, attend, rng):
    """jit with the mask as an argument, and vmap of grad; the generic function does the same."""
    query, key, value = (jax.numpy.asarray(x) for x in rng.standard_normal((3, 2, 5, 4)))
    mask = jax.numpy.asarray([[True, False, True, True, True], [True, True, False, True, False]])
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=query)

    def gradient(function):
        def loss(q, k, v, m):
            return jax.numpy.sum(function(q, k, v, phi, is_causal=True, key_mask=m) ** 2)

        return jax.grad(loss, argnums=(0, 1, 2))

    expected = jax.jit(gradient(rf.linear_attention))(query, key, value, mask)
    for function in (attend, rf.linear_attention):
        close(jax.jit(jax.vmap(gradient(function)))(query, key, value, mask), expected)
    close(jax.jit(gradient(attend))(query, key, value, mask), expected)


def test_second_derivatives(jax, attend, rng):
    """grad of grad, along a direction."""
    inputs = tuple(jax.numpy.asarray(x) for x in rng.standard_normal((3, 4, 3)))
    directions = [jax.numpy.asarray(x) for x in rng.standard_normal((3, 4, 3))]
    phi = rf.PositiveFeatures().draw(3, 4, rng=0, like=inputs[0])

    def along(function):
        first = jax.grad(loss_of(jax, function, phi), argnums=(0, 1, 2))
        slope = lambda *x: sum(jax.numpy.sum(g * e) for g, e in zip(first(*x), directions, strict=True))  # noqa: E731
        return jax.jit(jax.grad(slope, argnums=(0, 1, 2)))(*inputs)

    close(along(attend), along(rf.linear_attention))


def test_residuals_are_the_inputs(jax, attend, rng):
    inputs = [jax.numpy.asarray(x) for x in rng.standard_normal((3, 300, 4))]
    phi = rf.PositiveFeatures().draw(4, 64, rng=0, like=inputs[0])
    _, backward = jax.vjp(lambda q, k, v: attend(q, k, v, phi), *inputs)
    kept = sum(leaf.size for leaf in jax.tree.leaves(backward))
    assert kept <= 3 * 300 * 4


def test_refused(jax, attend, rng):
    query = jax.numpy.asarray(rng.standard_normal((5, 4)))
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=query)
    sign = rf.SignFeatures().draw(4, 8, rng=0, like=query)
    with pytest.raises(ValueError, match=r"randfeat\.linear_attention"):
        attend(query, query, query, phi, return_state=True)
    with pytest.raises(ValueError, match="SignFeatures has no analytic"):
        attend(query, query, query, sign, scale=1.0)
    with pytest.raises(TypeError, match="FeatureMap"):
        attend(query, query, query, phi.estimator)

    def of_rows(rows):
        return attend(query, query, query, rf.FeatureMap(phi.estimator, 4, 8, {"rows": rows})).sum()

    with pytest.raises(ValueError, match="traced"):
        jax.grad(of_rows)(phi.arrays["rows"])
