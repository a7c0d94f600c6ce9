"""Queries whose features all vanish, as ReLU features can: their outputs are zeros, in every pass, and never NaN."""

import dataclasses

import numpy as np
import pytest

import randfeat as rf
from randfeat._array import namespace
from tests.arrays import asarray, compiled, library, to_numpy
from tests.conftest import load_backend

L, DIM, VALUES = 9, 5, 3
GONE = np.isin(np.arange(L), [0, 3, 4, 8])


@dataclasses.dataclass(frozen=True)
class Relu(rf.ActivationFeatures):
    """ReLU features with their gradient."""

    def pull_back(self, arrays, x, values, gradient, row, *, keys):
        xp, rows = namespace(values), arrays["rows"]
        slopes = xp.where(values > 0, gradient, xp.zeros_like(gradient)) / rows.shape[-2] ** 0.5
        return slopes @ rows


ESTIMATORS = {
    "activation": rf.ActivationFeatures(),
    "step": rf.ArcCosineFeatures(rf.ArcCosineKernel(order=0)),
    "arc-cosine": rf.ArcCosineFeatures(rf.ArcCosineKernel(order=1)),
}

OPTIONS = {
    "full": {},
    "causal": {"is_causal": True},
    "offset": {"is_causal": True, "causal_offset": 2},
    "decay": {"is_causal": True, "decay": 0.7},
    "gates": {"is_causal": True, "decay": np.linspace(0.1, 1.0, L)[:, None] * np.ones((2, 1, 1))},
    "no memory": {"is_causal": True, "decay": 0.0},
    "ends": {"key_ends": np.arange(L)[::-1].copy()},
    "bias": {"relative_bias": np.linspace(-1, 1, 2 * L - 1)},
    "causal bias": {"is_causal": True, "relative_bias": np.linspace(-1, 1, 2 * L - 1)},
    "no window": {"window": 0},
    "packed": {"cu_seqlens": [0, 4, L]},
    "masked": {"key_mask": np.arange(L) % 3 > 0},
}


def inputs_of(rng, xp, estimator):
    """A map with fewer rows than dimensions, and queries (2, L, d) with negative products with all rows where GONE."""
    like = asarray(xp, np.zeros(1))
    phi = estimator.draw(DIM, 4, rng=0, like=like)
    rows = to_numpy(phi.arrays["rows"])
    wanted = np.where(GONE[:, None], -1.0, np.abs(rng.standard_normal((2, L, 4))) + 0.1)
    query = wanted @ np.linalg.pinv(rows).T
    key = (np.abs(rng.standard_normal((2, L, 4))) + 0.1) @ np.linalg.pinv(rows).T
    return phi, query, key, rng.standard_normal((2, L, VALUES))


def relative_to_none(phi, query, key, value, visible):
    """Outputs from the matrix of estimates, zeros where the weights are all 0."""
    weights = to_numpy(phi.to(np.zeros(1)).estimate(query, key)) * visible
    total = weights.sum(axis=-1, keepdims=True)
    return np.where(total == 0, 0.0, weights @ value / np.where(total == 0, 1.0, total))


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("name", OPTIONS)
def test_outputs_are_zeros(xp, rng, name, estimator):
    if library(xp) == "jax" and (name not in ("full", "causal") or estimator is not ESTIMATORS["activation"]):
        pytest.skip("two cases are compiled")
    phi, query, key, value = inputs_of(rng, xp, estimator)
    options = dict(OPTIONS[name])
    if "key_mask" in options:
        options["key_mask"] = xp.asarray(options["key_mask"])
    run = compiled(xp, lambda q, k, v: rf.linear_attention(q, k, v, phi, scale=1.0, **options))
    out = to_numpy(run(*(asarray(xp, x) for x in (query, key, value))))
    assert np.all(out[:, GONE] == 0)
    assert np.all(np.isfinite(out))
    if name in ("full", "causal"):
        visible = np.tri(L) if name == "causal" else np.ones((L, L))
        np.testing.assert_allclose(out, relative_to_none(phi, query, key, value, visible), rtol=1e-11, atol=1e-12)
        assert np.all(np.any(out[:, ~GONE] != 0, axis=-1))


def test_states_and_no_keys_that_count(xp, rng):
    """Read from a state, after a state, and where all features of the keys vanish."""
    if library(xp) == "jax":
        pytest.skip("takes long where nothing is compiled")
    phi, query, key, value = inputs_of(rng, xp, ESTIMATORS["activation"])
    q, k, v, gone = (asarray(xp, x) for x in (query, key, value, np.repeat(query[:, :1], L, axis=1)))
    options = {"scale": 1.0, "is_causal": True}
    _, state = rf.linear_attention(q, k, v, phi, return_state=True, scale=1.0)
    out = to_numpy(state.read(phi.queries(q)))
    assert np.all(out[:, GONE] == 0)
    assert np.all(np.isfinite(out))
    for keys in (k, gone):
        out = to_numpy(rf.linear_attention(q, keys, v, phi, initial_state=state, **options))
        assert np.all(out[:, GONE] == 0)
        assert np.all(np.isfinite(out))
    assert np.all(to_numpy(rf.linear_attention(q, gone, v, phi, **options)) == 0)


@pytest.mark.parametrize("window", [1, 3, 20])
def test_beside_exact_weights(rng, window):
    """A query without features still has the exact weights of its window, and those alone."""
    phi, query, key, value = inputs_of(rng, np, ESTIMATORS["activation"])
    position = np.arange(L)
    near = np.abs(position[:, None] - position) < window
    kernel = phi.estimator.kernel(query, key)
    weights = np.where(near, kernel, phi.estimate(query, key))
    expected = weights @ value / weights.sum(axis=-1, keepdims=True)
    out = rf.linear_attention(query, key, value, phi, scale=1.0, window=window)
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"cu_seqlens": [0, 4, L]}], ids=str)
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_gradients_are_zeros(rng, torch, name, options):
    """None of a query without weights, and none that it gives to keys and values; those of the others as always."""
    xp = load_backend(name)
    phi, query, key, value = inputs_of(rng, xp, Relu())
    cotangent = rng.standard_normal((2, L, VALUES))
    arrays = [asarray(xp, x) for x in (query, key, value, cotangent)]
    found = rf.linear_attention_vjp(*arrays[:3], phi, arrays[3], scale=1.0, **options)
    leaves = [torch.tensor(x, requires_grad=True) for x in (query, key, value)]
    there = phi.to(leaves[0])
    out = rf.linear_attention(*leaves, there, scale=1.0, **options)
    expected = torch.autograd.grad(out, leaves, torch.tensor(cotangent))
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_numpy(mine), to_numpy(theirs), rtol=1e-10, atol=1e-12)
    assert np.all(to_numpy(found[0])[:, GONE] == 0)
    assert np.any(to_numpy(found[0])[:, ~GONE] != 0)
