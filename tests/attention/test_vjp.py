"""linear_attention_vjp against the quadratic form differentiated by PyTorch, differences, and its laws at any scale."""

import tracemalloc
from itertools import product

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention.generic import causal_gradient, sweeps
from tests.arrays import asarray, compiled, computing, dtype_of, eps_of, library, same_bits, to_numpy
from tests.attention.test_linear import LAYOUTS, MAPS, MASK, problem
from tests.cases import ATTENTION, POSITIVE

BOTH = pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])


def quadratic(
    torch, phi, query, key, value, cotangent, *, is_causal=False, scale=None, key_mask=None, enable_gqa=False
):
    """Gradients of `Σ cotangent · (Σ_j K̂_ij v_j / Σ_j K̂_ij)`, every K̂_ij from its products of features, float64."""
    inputs = [asarray(torch, x).requires_grad_(True) for x in (query, key, value)]
    q, k, v = inputs
    if enable_gqa:
        group = q.shape[-3] // k.shape[-3]
        k, v = k.repeat_interleave(group, -3), v.repeat_interleave(group, -3)
        if phi.batch_shape and phi.batch_shape[-1] not in (1, q.shape[-3]):
            arrays = {name: array.repeat_interleave(group, -3) for name, array in phi.arrays.items()}
            phi = rf.FeatureMap(phi.estimator, phi.dim, phi.num_features, arrays)
    root = (q.shape[-1] ** -0.5 if scale is None else scale) ** 0.5
    queries, keys = phi.queries(root * q), phi.keys(root * k)
    log = queries.log_scale[..., :, None, :] + keys.log_scale[..., None, :, :]
    seen = torch.ones(log.shape[-3:-1], dtype=torch.bool)
    if is_causal:
        seen = torch.tril(seen)
    if key_mask is not None:
        mask = np.broadcast_to(key_mask, key.shape[:-1])
        mask = np.repeat(mask, group, -2) if enable_gqa else mask
        seen = seen & torch.tensor(mask)[..., None, :]
    log = torch.where(seen[..., None], log, -torch.inf)
    top = log.detach().amax((-2, -1), keepdim=True)
    terms = queries.values[..., :, None, :] * keys.values[..., None, :, :]
    weights = (terms * torch.exp(log - torch.where(top == -torch.inf, 0.0, top))).sum(-1)
    total = weights.sum(-1, keepdim=True)
    output = (weights @ v) / torch.where(seen.any(-1, keepdim=True), total, 1.0)
    return [to_numpy(g) for g in torch.autograd.grad((output * asarray(torch, cotangent)).sum(), inputs)]


def vjp(xp, phi, query, key, value, cotangent, dtype="float64", **options):
    """linear_attention_vjp on a library, compiled under JAX; NumPy arrays out."""
    mask = options.pop("key_mask", None)
    mask = None if mask is None else xp.asarray(mask)
    run = compiled(xp, lambda q, k, v, g: rf.linear_attention_vjp(q, k, v, phi, g, key_mask=mask, **options))
    gradients = run(*(asarray(xp, x, dtype) for x in (query, key, value, cotangent)))
    assert all(g.dtype == dtype_of(xp, dtype) for g in gradients)
    return [to_numpy(g) for g in gradients]


def cotangent_of(rng, phi, query, key, value, **options):
    """A random gradient in the output, of its shape."""
    here = phi.to(np.zeros(1))
    return rng.standard_normal(rf.linear_attention(query, key, value, here, **options).shape)


def close(actual, expected, relative):
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.max(np.abs(ours - theirs), initial=0.0) <= relative * np.max(np.abs(theirs), initial=0.0)


# against the quadratic form --------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_quadratic_form(xp, torch, rng, layout, is_causal):
    """Masked, grouped, broadcast; more keys and more queries; value and key dimensions differ."""
    if library(xp) == "jax" and layout not in ("grouped batch", "more queries"):
        pytest.skip("compiled for some layouts only, to save time")
    query, key, value, options = problem(rng, layout)
    estimators = {"numpy": ATTENTION, "jax": ATTENTION[:1]}.get(library(xp), ATTENTION[:3:2])
    for estimator in estimators:
        phi = estimator.draw(5, 8, rng=0)
        options = {**options, "is_causal": is_causal}
        g = cotangent_of(rng, phi, query, key, value, **options)
        expected = quadratic(torch, phi.to(torch.zeros(1, dtype=torch.float64)), query, key, value, g, **options)
        actual = vjp(xp, phi.to(asarray(xp, query)), query, key, value, g, **options)
        # rounding of exponents, over denominators that are small for signed features
        close(actual, expected, 1e-12 if estimator.positive else 1e-9)


@BOTH
@pytest.mark.parametrize(("layout", "batch_shape"), MAPS, ids=str)
def test_maps_per_head(torch, rng, layout, batch_shape, is_causal):
    query, key, value, options = problem(rng, layout)
    options = {**options, "is_causal": is_causal}
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, batch_shape=batch_shape)
    g = cotangent_of(rng, phi, query, key, value, **options)
    expected = quadratic(torch, phi.to(torch.zeros(1, dtype=torch.float64)), query, key, value, g, **options)
    close(vjp(np, phi, query, key, value, g, **options), expected, 1e-12)


@BOTH
@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
@pytest.mark.parametrize(("num_queries", "num_keys"), [(300, 300), (257, 513), (300, 129), (128, 256)], ids=str)
def test_over_chunks(torch, rng, num_queries, num_keys, estimator, is_causal):
    """Lengths of several chunks, multiples of a chunk and not."""
    query, key = rng.standard_normal((num_queries, 4)), rng.standard_normal((num_keys, 4))
    value, mask = rng.standard_normal((num_keys, 3)), rng.random(num_keys) < 0.8
    phi = estimator.draw(4, 8, rng=0)
    g = rng.standard_normal((num_queries, 3))
    options = {"is_causal": is_causal, "key_mask": mask}
    expected = quadratic(torch, phi.to(torch.zeros(1, dtype=torch.float64)), query, key, value, g, **options)
    close(vjp(np, phi, query, key, value, g, **options), expected, 1e-11 if estimator.positive else 1e-7)


@BOTH
def test_equals_central_differences(rng, is_causal):
    """Along random directions in query, key and value together; third derivatives times 1e-10."""
    for estimator in (*ATTENTION, rf.CenteredFeatures(query_shift=np.full(5, 0.3), key_shift=np.full(5, 0.2))):
        query, key, value, options = problem(rng, "grouped and masked", scale=0.7)
        inputs = (query, key, value)
        phi = estimator.draw(5, 16, rng=0)
        g = cotangent_of(rng, phi, *inputs, is_causal=is_causal, **options)
        gradients = vjp(np, phi, *inputs, g, is_causal=is_causal, **options)
        directions = [rng.standard_normal(x.shape) for x in inputs]
        ends = [
            np.sum(g * rf.linear_attention(
                *(x + step * e for x, e in zip(inputs, directions, strict=True)), phi, is_causal=is_causal, **options
            ))
            for step in (1e-5, -1e-5)
        ]  # fmt: skip
        slope = sum(np.sum(d * e) for d, e in zip(gradients, directions, strict=True))
        size = sum(np.sum(np.abs(d * e)) for d, e in zip(gradients, directions, strict=True))
        assert abs((ends[0] - ends[1]) / 2e-5 - slope) <= (1e-7 if estimator.positive else 1e-5) * size


@pytest.mark.parametrize("mistake", ["no denominator", "diagonal twice", "half of the shift put back"])
def test_planted_mistakes_are_seen(torch, rng, monkeypatch, mistake):
    if mistake == "no denominator":
        whole = sweeps.Kept.inner
        monkeypatch.setattr(
            sweeps.Kept, "inner", lambda kept, g: np.concatenate([whole(kept, g)[..., :-1], 0 * kept.dot], axis=-1)
        )
    elif mistake == "diagonal twice":
        once = sweeps.query_gradient
        monkeypatch.setattr(
            sweeps, "query_gradient",
            lambda log, shift, k, v, g: once(log, shift, k, v, g)
            + np.exp(log + k.log_scale - shift) * k.values * np.sum(g * v, axis=-1, keepdims=True),
        )  # fmt: skip
    else:
        shifted = causal_gradient.key_weights
        monkeypatch.setattr(causal_gradient, "key_weights", lambda keys: (shifted(keys)[0], shifted(keys)[1] / 2))
    query, key, value, _ = problem(rng, "heads")
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    g = rng.standard_normal(value.shape)
    expected = quadratic(torch, phi.to(torch.zeros(1, dtype=torch.float64)), query, key, value, g, is_causal=True)
    with pytest.raises(AssertionError):
        close(vjp(np, phi, query, key, value, g, is_causal=True), expected, 1e-3)


# laws at any scale -----------------------------------------------------------------------------------------------


@BOTH
def test_log_normal_key_norms(torch, rng, is_causal):
    """Norms of keys over many orders of magnitude (σ = 4): right to the rounding of exponents of their size."""
    query, value = rng.standard_normal((2, 300, 4))
    key = rng.standard_normal((300, 4))
    key *= (np.exp(4 * rng.standard_normal(300)) / np.linalg.norm(key, axis=-1))[:, None]
    key *= np.minimum(1, 300 / np.linalg.norm(key, axis=-1))[:, None]
    g = rng.standard_normal((300, 4))
    for estimator in POSITIVE:
        phi = estimator.draw(4, 16, rng=0)
        expected = quadratic(
            torch, phi.to(torch.zeros(1, dtype=torch.float64)), query, key, value, g, is_causal=is_causal
        )
        close(vjp(np, phi, query, key, value, g, is_causal=is_causal), expected, 1e5 * eps_of("float64"))


@BOTH
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_finite_and_bounded_at_any_logit(xp, rng, dtype, is_causal):
    """Positive features: no overflow; weights of a query are a convex combination, so `Σ_j dv_j = Σ_i g_i` and
    `|dv_j| <= Σ_i |g_i|`, to the rounding of exponents as large as the logits."""
    fewer = library(xp) == "jax"
    if fewer and dtype in ("float16", "float64"):
        pytest.skip("compiled for two dtypes only, to save time")
    for size, estimator in [(1e4, POSITIVE[0])] if fewer else product((1e1, 1e3, 1e4), POSITIVE):
        query, key = rng.standard_normal((2, 2, 6, 5))
        query, key = (x * np.sqrt(size) / np.linalg.norm(x, axis=-1, keepdims=True) * 5**0.25 for x in (query, key))
        value, g = (to_numpy(asarray(xp, x, dtype)) for x in rng.standard_normal((2, 2, 6, 3)))
        phi = estimator.draw(5, 16, rng=0, like=asarray(xp, value, dtype))
        dq, dk, dv = vjp(xp, phi, query, key, value, g, dtype, is_causal=is_causal)
        assert all(np.all(np.isfinite(x)) for x in (dq, dk, dv))
        largest = 4 * (size + 30) + 200  # |x|²/2, |w·x| of queries and keys, and lengths of sums
        rounding = largest * eps_of(computing(dtype)) + 6 * eps_of(dtype)
        scale = np.sum(np.abs(g), axis=-2)
        assert np.all(np.abs(np.sum(dv, axis=-2) - np.sum(g, axis=-2)) <= rounding * scale)
        assert np.all(np.abs(dv) <= (1 + rounding) * scale[:, None])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@BOTH
def test_half_precision_is_computed_in_float32(xp, rng, dtype, is_causal):
    """As float64 on the rounded inputs, to the rounding of float32 and of the result."""
    if library(xp) == "jax" and dtype != "bfloat16":
        pytest.skip("compiled for one dtype only, to save time")
    inputs = [to_numpy(asarray(xp, x, dtype)) for x in rng.standard_normal((4, 2, 6, 5))]
    for estimator in ATTENTION[: 1 if library(xp) == "jax" else 3]:
        phi = estimator.draw(5, 16, rng=0, like=asarray(xp, inputs[0], dtype))
        exact = vjp(np, phi.to(np.zeros(1)), *inputs, is_causal=is_causal)
        actual = vjp(xp, phi, *inputs, dtype, is_causal=is_causal)
        # exponents of at most 30 and sums of 200 terms; small denominators of signed features take another factor
        close(actual, exact, eps_of(dtype) / 2 + (250 if estimator.positive else 1e4) * eps_of("float32"))


def test_causality_to_the_last_bit(rng):
    """dq_i from keys j <= i and the query itself; dk_j and dv_j from queries i >= j; whatever the others hold."""
    for estimator in ATTENTION:
        phi = estimator.draw(4, 8, rng=0)
        inputs = list(rng.standard_normal((4, 300, 4)))
        clean = rf.linear_attention_vjp(*inputs[:3], phi, inputs[3], is_causal=True)
        for cut in (1, 100, 128, 261):
            for other in (1e3, np.nan):
                later = [x.copy() for x in inputs]
                earlier = [x.copy() for x in inputs]
                for x in later:
                    x[cut:] *= -other
                for x in (earlier[0], earlier[3]):
                    x[:cut] *= -other
                with np.errstate(invalid="ignore", over="ignore"):
                    dq, _, _ = rf.linear_attention_vjp(*later[:3], phi, later[3], is_causal=True)
                    _, dk, dv = rf.linear_attention_vjp(*earlier[:3], phi, earlier[3], is_causal=True)
                assert same_bits(dq[:cut], clean[0][:cut])
                assert not same_bits(dq[cut:], clean[0][cut:])
                assert same_bits(dk[cut:], clean[1][cut:])
                assert same_bits(dv[cut:], clean[2][cut:])
                assert not same_bits(dv[:cut], clean[2][:cut])


@BOTH
def test_masked_keys_and_queries_without_keys(xp, rng, is_causal):
    """Exactly zero, whatever masked keys and values hold; a row of nothing but masked keys gives nothing."""
    query, key, value, g = rng.standard_normal((4, 2, 5, 5))
    mask = np.stack([MASK, [False] * 5])
    spoiled = [x.copy() for x in (key, value)]
    for x in spoiled:
        x[~mask] = np.nan
    for estimator in ATTENTION[: 1 if library(xp) == "jax" else None]:
        phi = estimator.draw(5, 8, rng=0, like=asarray(xp, query))
        clean = vjp(xp, phi, query, key, value, g, key_mask=mask, is_causal=is_causal)
        dirty = vjp(xp, phi, query, *spoiled, g, key_mask=mask, is_causal=is_causal)
        for one, other in zip(clean, dirty, strict=True):
            assert same_bits(one, other)
        assert np.all(clean[0][1] == 0)
        assert all(np.all(x[~mask] == 0) for x in clean[1:])
        assert np.all(np.any(clean[2][0][MASK] != 0, axis=-1))


@BOTH
def test_empty_and_single(xp, rng, is_causal):
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=asarray(xp, np.zeros(1)))
    for num_queries, num_keys in ((0, 3), (3, 0), (0, 0))[: 1 if library(xp) == "jax" else None]:
        q, k, v, g = (np.ones((2, n, c)) for n, c in ((num_queries, 5), (num_keys, 5), (num_keys, 2), (num_queries, 2)))
        gradients = vjp(xp, phi, q, k, v, g, is_causal=is_causal)
        assert [x.shape for x in gradients] == [q.shape, k.shape, v.shape]
        assert all(np.all(x == 0) for x in gradients)
    q, k, v, g = rng.standard_normal((4, 1, 5))
    dq, dk, dv = vjp(xp, phi, *(x[None] for x in (q, k, v, g)), is_causal=is_causal)
    np.testing.assert_allclose(dv[0], g, rtol=1e-13)  # one key: the output is its value
    assert np.max(np.abs(np.concatenate([dq, dk]))) < 1e-13


@BOTH
def test_memory_grows_by_inputs_only(rng, is_causal):
    """Per position: a few copies of its 16 numbers in inputs and gradients, and not its 512 features."""
    phi = rf.PositiveFeatures().draw(4, 512, rng=0)

    def peak(length):
        q, k, v, g = rng.standard_normal((4, length, 4))
        tracemalloc.start()
        rf.linear_attention_vjp(q, k, v, phi, g, is_causal=is_causal, num_threads=1)  # scratch of one
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(300)
    assert (peak(6144) - peak(2048)) / 4096 < 8 * 100


# what is refused -------------------------------------------------------------------------------------------------


def test_refused(rng):
    q, k, v, g = rng.standard_normal((4, 2, 6, 5))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    for error, match, arguments in (
        (ValueError, r"grad_output must have the shape.*\(2, 6, 5\), got \(6, 5\)", (q, k, v, phi, g[0])),
        (TypeError, "grad_output must have the dtype .*, float64, got float32", (q, k, v, phi, np.float32(g))),
        (TypeError, "features must be a FeatureMap", (q, k, v, rf.PositiveFeatures(), g)),
        (ValueError, "drawn for 5", (q[..., :4], k[..., :4], v, phi, g)),
        (ValueError, "SignFeatures has no analytic", (q, k, v, rf.SignFeatures().draw(5, 8, rng=0), g)),
    ):  # fmt: skip
        options = {"scale": 1.0} if "Sign" in match else {}
        with pytest.raises(error, match=match):
            rf.linear_attention_vjp(*arguments, **options)


# the other arguments of linear_attention -------------------------------------------------------------------------

OPTIONS = {
    "more keys, ends aligned": ({"is_causal": True, "causal_offset": 4}, 7, 11),
    "an offset beyond the keys": ({"is_causal": True, "causal_offset": 9}, 5, 6),
    "queries before every key": ({"is_causal": True, "causal_offset": -3}, 9, 6),
    "all queries before every key": ({"is_causal": True, "causal_offset": -9}, 5, 6),
    "lengths of the batch": ({"key_lengths": np.array([3, 0])}, 6, 6),
    "causal, with lengths": ({"is_causal": True, "key_lengths": np.array([3, 6])}, 6, 6),
    "packed": ({"cu_seqlens": [0, 2, 2, 9]}, 9, 9),
    "packed, causal": ({"cu_seqlens": ([0, 2, 5, 9], [0, 4, 4, 8]), "is_causal": True}, 9, 8),
    "heads after the length": ({"layout": "blhd", "is_causal": True}, 6, 6),
}


@pytest.mark.parametrize("after_a_state", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_those_of_linear_attention(torch, rng, name, after_a_state):
    """The gradient of linear_attention with the same arguments, as PyTorch differentiates the generic pass."""
    options, num_queries, num_keys = OPTIONS[name]
    if after_a_state and "cu_seqlens" in options:
        pytest.skip("packed sequences have no state")
    query, key, value = (rng.standard_normal((2, 3, n, 4)) for n in (num_queries, num_keys, num_keys))
    cotangent = rng.standard_normal(query.shape)
    if "layout" in options:
        query, key, value, cotangent = (np.swapaxes(x, -2, -3).copy() for x in (query, key, value, cotangent))
    for estimator in ATTENTION[:2]:
        phi = estimator.draw(4, 8, rng=0, batch_shape=(3,))
        there = phi.to(torch.zeros(1, dtype=torch.float64))
        states = {}
        if after_a_state:
            earlier = rng.standard_normal((3, 2, 3, 5, 4))
            for name, xp, map_ in (("ours", np, phi), ("theirs", torch, there)):
                inputs = [asarray(xp, x) for x in earlier]
                states[name] = {"initial_state": rf.linear_attention(*inputs, map_, return_state=True)[1]}
        tensors = [asarray(torch, x).requires_grad_(True) for x in (query, key, value)]
        out = rf.linear_attention(*tensors, there, **options, **states.get("theirs", {}))
        total = (out * asarray(torch, cotangent)).sum()
        expected = torch.autograd.grad(total, tensors, allow_unused=True, materialize_grads=True)
        ours = rf.linear_attention_vjp(query, key, value, phi, cotangent, **options, **states.get("ours", {}))
        close(ours, [to_numpy(x) for x in expected], 1e-11)


@pytest.mark.parametrize("length", [4, 80], ids=["generic", "blocks"])
@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("lead", [(1,), (), (1, 1)], ids=str)
def test_values_that_all_heads_share_under_a_mask_of_each_head(xp, rng, lead, is_causal, length):
    """The gradient of a shared value is the sum over the heads that see it."""
    phi = rf.PositiveFeatures().draw(2, 6, rng=0, like=xp.zeros(1, dtype=xp.float64))
    query, key, cotangent = rng.standard_normal((3, *(1 for _ in lead[1:]), 3, length, 2))
    value, mask = rng.standard_normal((*lead, length, 2)), rng.random(key.shape[:-1]) < 0.6
    options = {"is_causal": is_causal, "key_mask": mask}
    actual = vjp(xp, phi, query, key, value, cotangent, **options)
    in_query, in_key, in_value = vjp(xp, phi, query, key, np.broadcast_to(value, key.shape), cotangent, **options)
    in_value = np.sum(in_value, axis=-3, keepdims=bool(lead)).reshape(value.shape)
    close(actual, (in_query, in_key, in_value), 1e-12)


@pytest.mark.parametrize("is_causal", [False, True])
def test_gradients_of_numpy_arrays_may_be_written_to(rng, is_causal):
    """They own their memory, by the path for NumPy and by the generic one."""
    for length in (70, 9):
        query, key, value = rng.standard_normal((3, 2, length, 4))
        phi = rf.PositiveFeatures().draw(4, 8, rng=0)
        for gradient in rf.linear_attention_vjp(query, key, value, phi, value, is_causal=is_causal):
            assert gradient.flags.writeable
