"""Exact attention, the reference: against its naive twin, PyTorch's own, and the estimate that converges to it."""

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, compiled, computing, eps_of, to_numpy
from tests.attention.test_linear import LAYOUTS, one_under_jax, problem, spreads
from tests.cases import KERNELS
from tests.reference import naive_kernel_attention

BOTH = pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])


@BOTH
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_naive_twin(xp, rng, layout, is_causal):
    query, key, value, options = problem(rng, layout)
    mask = options.pop("key_mask", None)
    for kernel in one_under_jax(xp, KERNELS, list(LAYOUTS).index(layout) + is_causal):
        given = {"scale": 0.5, **options} if kernel != rf.SoftmaxKernel() else options
        expected = naive_kernel_attention(kernel, query, key, value, key_mask=mask, is_causal=is_causal, **given)
        run = compiled(
            xp,
            lambda q, k, v, kernel=kernel, given=given: rf.kernel_attention(
                q, k, v, kernel, key_mask=None if mask is None else xp.asarray(mask), is_causal=is_causal, **given
            ),
        )
        expected.check(run(*(asarray(xp, x) for x in (query, key, value))), eps_of("float64"), most=1e-11)


@BOTH
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_rows_are_convex_at_any_scale(xp, rng, dtype, is_causal):
    value = to_numpy(asarray(xp, rng.standard_normal((2, 6, 3)), dtype))
    rounding = 2 * (6 + 16) * eps_of(computing(dtype))
    run = compiled(xp, lambda q, k, v: rf.softmax_attention(q, k, v, is_causal=is_causal))
    for name, query, key in spreads(rng):
        query, key, v, ones = (asarray(xp, x, dtype) for x in (query, key, value, np.ones_like(value)))
        assert np.max(np.abs(to_numpy(run(query, key, ones)) - 1)) <= rounding, name
        out = to_numpy(run(query, key, v))
        assert np.all(np.abs(out) <= np.abs(value).max() * (1 + rounding)), name
        if is_causal:
            assert np.max(np.abs(out[:, 0] - value[:, 0])) <= rounding * np.abs(value).max(), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", ["full", "causal", "more keys", "more queries", "grouped", "masked", "own scale"])
def test_is_what_pytorch_computes(torch, rng, case, dtype):
    """The same function as `scaled_dot_product_attention`, argument by argument."""
    length, keys = {"more keys": (3, 8), "more queries": (8, 3)}.get(case, (6, 6))
    heads = 4 if case == "grouped" else 2
    options = {
        "causal": {"is_causal": True},
        "more keys": {"is_causal": True},
        "more queries": {"is_causal": True},
        "grouped": {"enable_gqa": True},
        "own scale": {"scale": 0.7},
    }.get(case, {})
    query, key, value = (
        asarray(torch, rng.standard_normal((2, h, n, 5)), dtype) for h, n in ((heads, length), (2, keys), (2, keys))
    )
    mask = torch.tensor([True, False, True, True, False, True]) if case == "masked" else None
    pairs = None if mask is None else mask.expand(length, keys)
    theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=pairs, **options)
    ours = rf.softmax_attention(query, key, value, key_mask=mask, **options)
    expected = naive_kernel_attention(rf.SoftmaxKernel(), query, key, value, key_mask=mask, **options)
    expected.check(ours, eps_of(dtype), most=1e-2)
    expected.check(theirs, eps_of(dtype), most=1e-2)


@pytest.mark.parametrize("estimator", [rf.PositiveFeatures, rf.HyperbolicFeatures, rf.TrigonometricFeatures])
def test_linear_attention_converges_to_it(estimator):
    """The error is the predicted one: no other limit, and no other rate.

    With A = Σ_j K̂_j (v_j - o) / Σ_j K_j and B = Σ_j K̂_j / Σ_j K_j, an output is exactly o + A/B, draw by draw. A has
    mean zero and the variance that `predict_attention_error` states, without any approximation, for independent rows.

    The mean of |A|² over 6000 draws lies within 4.9 of its standard errors of the prediction (false alarm 1e-6 for each
    of three estimators and two widths), which are 3 %: a prediction off by 25 % is caught 999 times in 1000.
    """
    draws, length, dim = 6000, 8, 4
    rng = np.random.default_rng(11)
    query, key, value = (rng.standard_normal((length, dim)) * scale for scale in (0.4, 0.4, 1.0))
    exact = rf.softmax_attention(query, key, value)
    law = estimator(coupling="independent")
    logits = query @ key.T / np.sqrt(dim)
    size = np.sum(exact**2)
    for width in (32, 128):
        phi = law.draw(dim, width, rng=rng, batch_shape=(draws,))
        gram = phi.estimate(query * dim**-0.25, key * dim**-0.25)
        weights = gram / np.sum(np.exp(logits), axis=-1, keepdims=True)
        numerator = weights @ value - exact * np.sum(weights, axis=-1, keepdims=True)
        squared = np.sum(numerator**2, axis=(1, 2)) / size
        predicted = float(rf.predict_attention_error(law, query, key, value, width).leading_order) ** 2
        error = np.std(squared, ddof=1) / np.sqrt(draws)
        assert error < 0.25 * predicted / (4.9 + 3.1), "too few draws to see a prediction that is off by 25 %"
        assert abs(np.mean(squared) - predicted) < 4.9 * error
        out = rf.linear_attention(query, key, value, phi)
        denominator = np.sum(weights, axis=-1, keepdims=True)
        clear = np.abs(denominator) > 0.1  # where rounding is not divided by next to nothing
        assert clear.mean() > 0.99
        np.testing.assert_allclose(((out - exact) * denominator)[clear[..., 0]], numerator[clear[..., 0]], atol=1e-11)
