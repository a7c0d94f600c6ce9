"""Gradients: the generic path is differentiable by PyTorch and JAX, and correct at any scale."""

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, same_bits, to_numpy
from tests.cases import ATTENTION

BOTH = pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
MASK = np.array([[True, False, True, True, True], [False] * 5])


def problem(rng, scale=1.0):
    query, key, value = rng.standard_normal((3, 2, 5, 4))
    return scale * query, scale * key, value[..., :3]


def torch_gradients(torch, function, inputs, cotangent, dtype="float64"):
    inputs = [asarray(torch, x, dtype).requires_grad_(True) for x in inputs]
    out = function(*inputs)
    return [to_numpy(g) for g in torch.autograd.grad((out * asarray(torch, cotangent, dtype)).sum(), inputs)]


@BOTH
@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_gradcheck(torch, rng, estimator, is_causal):
    """Against finite differences, query, key and value together, masked and grouped too."""
    query, key, value = (x[:, :3, :2] for x in problem(rng))
    for options in ({}, {"key_mask": torch.tensor(MASK[:, :3])}, {"enable_gqa": True}):
        q = np.concatenate([query, -query]) if "enable_gqa" in options else query
        phi = estimator.draw(2, 4, rng=0, like=torch.zeros(1, dtype=torch.float64))
        assert torch.autograd.gradcheck(
            lambda q, k, v, phi=phi, options=options: rf.linear_attention(q, k, v, phi, is_causal=is_causal, **options),
            [asarray(torch, x).requires_grad_(True) for x in (q, key, value)],
        )


NO_KEY = {
    "behind the keys": {"is_causal": True, "causal_offset": -9},
    "faded": {"is_causal": True, "causal_offset": -9, "decay": 0.5},
    "packed": {"is_causal": True, "causal_offset": -9, "cu_seqlens": [0, 0, 5]},
    "with sums": {"is_causal": True, "causal_offset": -9, "return_state": True},
    "prefixes": {"key_ends": np.zeros(5, int)},
    "exact": {"is_causal": True, "causal_offset": -9, "method": "exact"},
    "keys": {},
    "causal": {"is_causal": True},
}


@pytest.mark.parametrize("name", NO_KEY)
def test_gradients_in_keys_that_no_query_sees_are_zeros(torch, rng, name):
    """As in PyTorch's own attention; the gradient is there, and the output is as it was: no query, or no key."""
    shapes = {"keys": ((5, 0), (0, 5)), "causal": ((0, 5), (0, 0))}.get(name, ((5, 5),))
    for num_queries, num_keys in shapes:
        for estimator in (ATTENTION[0], rf.TrigonometricFeatures()):
            q, k, v = (asarray(torch, rng.standard_normal((2, n, 4))) for n in (num_queries, num_keys, num_keys))
            bias = asarray(torch, rng.standard_normal(num_keys))
            given = {"key_bias": bias.requires_grad_()} if name == "behind the keys" else {}
            phi = estimator.draw(4, 8, rng=0, like=q)
            arrays = [q.requires_grad_(), k.requires_grad_(), v.requires_grad_(), *given.values()]
            output = rf.linear_attention(q, k, v, phi, **NO_KEY[name], **given)
            output = output[0] if isinstance(output, tuple) else output
            assert output.shape == (2, num_queries, 4)
            assert torch.all(output == 0)
            output.sum().backward()
            for x in arrays:
                assert x.grad is not None
                assert torch.all(x.grad == 0)


@BOTH
def test_gradcheck_of_the_references_and_the_features(torch, rng, is_causal):
    query, key, value = (asarray(torch, x).requires_grad_(True) for x in problem(rng))
    mask = torch.tensor(MASK)
    for kernel in (rf.SoftmaxKernel(), rf.GaussianKernel(1.3)):
        assert torch.autograd.gradcheck(
            lambda q, k, v, kernel=kernel: rf.kernel_attention(
                q, k, v, kernel, scale=0.5, is_causal=is_causal, key_mask=mask
            ),
            [query, key, value],
        )
    for estimator in ATTENTION:
        phi = estimator.draw(4, 8, rng=0, like=query)
        for function in (
            lambda q, phi=phi: phi.queries(q).to_array(),
            lambda q, phi=phi: phi.estimate(q, key),
            lambda q, phi=phi: phi.estimate_pairwise(q, key),
        ):
            assert torch.autograd.gradcheck(function, [query])


@BOTH
def test_gradient_through_an_initial_state(torch, rng, is_causal):
    query, key, value = (asarray(torch, x).requires_grad_(True) for x in problem(rng))
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=query)

    def in_two_pieces(q, k, v):
        options = {"is_causal": is_causal}
        first, state = rf.linear_attention(q[:, :2], k[:, :2], v[:, :2], phi, return_state=True, **options)
        return torch.cat(
            [first, rf.linear_attention(q[:, 2:], k[:, 2:], v[:, 2:], phi, initial_state=state, **options)], -2
        )

    assert torch.autograd.gradcheck(in_two_pieces, [query, key, value])


@BOTH
@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_jax_gradients_are_those_of_torch(torch, jax, rng, estimator, is_causal):
    """jax.grad, compiled, with masks and queries without keys."""
    inputs, cotangent = problem(rng), rng.standard_normal((2, 5, 3))
    here = estimator.draw(4, 8, rng=0, like=torch.zeros(1, dtype=torch.float64))
    there = here.to(jax.numpy.zeros(1))
    expected = torch_gradients(
        torch,
        lambda q, k, v: rf.linear_attention(q, k, v, here, is_causal=is_causal, key_mask=torch.tensor(MASK)),
        inputs,
        cotangent,
    )

    def loss(q, k, v):
        out = rf.linear_attention(q, k, v, there, is_causal=is_causal, key_mask=jax.numpy.asarray(MASK))
        return jax.numpy.sum(out * cotangent)

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*map(jax.numpy.asarray, inputs))
    for ours, theirs in zip(gradients, expected, strict=True):
        # equal up to the rounding of two programs for one function; finite differences are checked above
        np.testing.assert_allclose(to_numpy(ours), theirs, atol=1e-10 * np.max(np.abs(theirs)))


@BOTH
@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_gradients_are_finite_at_any_scale(torch, rng, scale, is_causal):
    """No NaN, whatever the logits and the masks; nothing flows into masked keys, nor into a row without keys."""
    inputs, cotangent = problem(rng, scale), rng.standard_normal((2, 5, 3))
    mask = torch.tensor(MASK)
    for estimator in (estimator for estimator in ATTENTION if estimator.positive):
        for dtype in ("float32", "float64"):
            phi = estimator.draw(4, 8, rng=0, like=asarray(torch, np.zeros(1), dtype))
            gradients = torch_gradients(
                torch,
                lambda q, k, v, phi=phi: rf.linear_attention(q, k, v, phi, is_causal=is_causal, key_mask=mask),
                inputs,
                cotangent,
                dtype,
            )
            assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
            for gradient in gradients[1:]:
                assert np.all(gradient[~MASK] == 0)
            assert all(np.all(gradient[1] == 0) for gradient in gradients)
            assert np.max(np.abs(gradients[2][0])) > 0.1
    for gradient in torch_gradients(
        torch, lambda q, k, v: rf.softmax_attention(q, k, v, is_causal=is_causal, key_mask=mask), inputs, cotangent
    ):
        assert np.all(np.isfinite(gradient))


def test_gradients_do_not_come_from_masked_content(torch, rng):
    query, key, value = problem(rng)
    cotangent = rng.standard_normal((2, 5, 3))
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=torch.zeros(1, dtype=torch.float64))

    def gradients(key, value):
        mask = torch.tensor(MASK)
        function = lambda q, k, v: rf.linear_attention(q, k, v, phi, key_mask=mask)  # noqa: E731
        return torch_gradients(torch, function, (query, key, value), cotangent)

    clean = gradients(key, value)
    key, value = key.copy(), value.copy()
    key[~MASK], value[~MASK] = np.nan, np.inf
    for one, other in zip(clean, gradients(key, value), strict=True):
        assert same_bits(one, other)


def test_no_gradient_reaches_the_future(torch, rng):
    """The gradient of outputs up to t in keys and values after t is exactly zero."""
    inputs = problem(rng)
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=torch.zeros(1, dtype=torch.float64))
    cotangent = rng.standard_normal((2, 5, 3))
    cotangent[:, 3:] = 0
    gradients = torch_gradients(
        torch, lambda q, k, v: rf.linear_attention(q, k, v, phi, is_causal=True), inputs, cotangent
    )
    for gradient in gradients:
        assert np.all(gradient[:, 3:] == 0)
        assert np.all(np.any(gradient[:, 1:3] != 0, axis=-1))


def test_compiled_is_eager(jax, rng):
    query, key, value = (jax.numpy.asarray(x[:, :3]) for x in problem(rng))
    mask = jax.numpy.asarray(MASK[:, :3])
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=query)

    def run(q, k, v, m):
        return rf.linear_attention(q, k, v, phi, is_causal=True, key_mask=m)

    eager, traced = run(query, key, value, mask), jax.jit(run)(query, key, value, mask)
    np.testing.assert_allclose(to_numpy(eager), to_numpy(traced), rtol=1e-11, atol=1e-13)
