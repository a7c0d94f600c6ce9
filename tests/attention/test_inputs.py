"""Masks, scales and shapes of attention: what they mean, and what is refused with which reason."""

import dataclasses

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, compiled, eps_of, library, same_bits, to_numpy
from tests.cases import ATTENTION
from tests.reference import naive_attention, naive_kernel_attention

CONTENTS = {"NaN": np.nan, "infinite": np.inf, "huge": 1e30, "negative": -1e5}
BOTH = pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])


@BOTH
@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_masked_is_truncated(xp, rng, estimator, is_causal):
    """Keys masked at the end, or anywhere, are absent: the same as leaving them out."""
    if library(xp) == "jax" and estimator not in (ATTENTION[0], ATTENTION[2]):
        pytest.skip("compiled for positive and for signed features")
    query, key, value = rng.standard_normal((3, 2, 5, 5))
    phi = estimator.draw(5, 8, rng=0, like=asarray(xp, query))
    keep = [0, 2] if not is_causal else [0, 1, 2]
    mask = np.isin(np.arange(5), keep)
    run = compiled(xp, lambda q, k, v, m=None: rf.linear_attention(q, k, v, phi, is_causal=is_causal, key_mask=m))
    masked = run(*(asarray(xp, x) for x in (query, key, value)), xp.asarray(mask))
    short = run(*(asarray(xp, x) for x in (query, key[:, keep], value[:, keep])))
    expected = naive_attention(phi, query, key, value, is_causal=is_causal, key_mask=mask)
    bound = 2 * expected.per_eps * eps_of("float64")
    assert np.max(bound) < 1e-7
    assert np.all(np.abs(to_numpy(masked) - to_numpy(short)) <= bound)
    assert np.max(np.abs(to_numpy(masked) - to_numpy(run(*(asarray(xp, x) for x in (query, key, value)))))) > 1e-3


@BOTH
@pytest.mark.parametrize("content", CONTENTS)
def test_masked_content_is_irrelevant(xp, rng, content, is_causal):
    """Bit-equal whatever a masked key and its value hold; also in the exact references."""
    if library(xp) == "jax" and content != "NaN":
        pytest.skip("compiled for one content only, to save time")
    query, key, value = rng.standard_normal((3, 2, 5, 5))
    mask = np.array([True, False, True, True, False])
    other_key, other_value = key.copy(), value.copy()
    other_key[:, ~mask] = other_value[:, ~mask] = CONTENTS[content]
    phis = [estimator.draw(5, 8, rng=0, like=asarray(xp, query)) for estimator in ATTENTION]
    runs = [lambda q, k, v, m, p=p: rf.linear_attention(q, k, v, p, is_causal=is_causal, key_mask=m) for p in phis]
    runs.append(lambda q, k, v, m: rf.softmax_attention(q, k, v, is_causal=is_causal, key_mask=m))
    for run in runs:
        run = compiled(xp, run)
        clean = run(asarray(xp, query), asarray(xp, key), asarray(xp, value), xp.asarray(mask))
        other = run(asarray(xp, query), asarray(xp, other_key), asarray(xp, other_value), xp.asarray(mask))
        assert np.all(np.isfinite(to_numpy(clean)))
        assert same_bits(clean, other)


@BOTH
def test_queries_without_keys_are_zero(xp, rng, is_causal):
    query, key, value = rng.standard_normal((3, 2, 5, 5))
    mask = np.array([[False] * 5, [False, False, True, True, False]])
    phis = [estimator.draw(5, 8, rng=0, like=asarray(xp, query)) for estimator in ATTENTION]
    runs = [lambda q, k, v, m, p=p: rf.linear_attention(q, k, v, p, is_causal=is_causal, key_mask=m) for p in phis]
    runs.append(lambda q, k, v, m: rf.softmax_attention(q, k, v, is_causal=is_causal, key_mask=m))
    for run in runs:
        out = to_numpy(compiled(xp, run)(*(asarray(xp, x) for x in (query, key, value)), xp.asarray(mask)))
        empty = np.array([[True] * 5, [is_causal] * 2 + [False] * 3])
        assert np.all(out[empty] == 0)
        assert np.all(out[~empty] != 0)


# refusals --------------------------------------------------------------------------------------------------------


def attentions(phi):
    return [
        lambda *args, **options: rf.linear_attention(*args, phi, **options),
        rf.softmax_attention,
        lambda *args, **options: rf.kernel_attention(*args, rf.SoftmaxKernel(), **options),
    ]


WRONG_MASKS = {
    "pairs": ((4, 6), bool, ValueError, r"\(query, key\) pairs has no linear-time form, other than is_causal"),
    "pairs of every head": ((2, 3, 4, 6), bool, ValueError, r"\(query, key\) pairs has no linear-time form"),
    "padding of a batch": ((2, 6), bool, ValueError, r"must have shape \(6,\) or \(2, 3, 6\).*key_mask\[:, None, :\]"),
    "wrong length": ((5,), bool, ValueError, r"must have shape \(6,\) or \(2, 3, 6\) .*got \(5,\)"),
    "one for all keys": ((1,), bool, ValueError, r"must have shape \(6,\)"),
    "no dimension": ((), bool, ValueError, r"must have shape \(6,\).*got \(\)"),
    "wrong heads": ((2, 5, 6), bool, ValueError, r"must have shape \(6,\) or \(2, 3, 6\) .*got \(2, 5, 6\)"),
    "integers": ((6,), np.int64, TypeError, r"key_mask must be boolean, True = take part, got dtype int64"),
    "additive": ((6,), np.float64, TypeError, r"key_mask must be boolean, True = take part, got dtype float64"),
}


@pytest.mark.parametrize("case", WRONG_MASKS)
def test_wrong_masks(xp, case):
    shape, dtype, error, message = WRONG_MASKS[case]
    query, key = asarray(xp, np.ones((2, 3, 4, 5))), asarray(xp, np.ones((2, 3, 6, 5)))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=query)
    mask = xp.asarray(np.ones(shape, dtype))
    for attention in attentions(phi):
        with pytest.raises(error, match=message):
            attention(query, key, key, key_mask=mask)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 6), (2, 1, 6), (1, 3, 6), (1, 1, 6)])
def test_masks_that_fit(rng, shape):
    query, key, value = (rng.standard_normal((2, 3, n, 5)) for n in (4, 6, 6))
    mask = rng.random(shape) < 0.7
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    expected = naive_attention(phi, query, key, value, key_mask=mask)
    expected.check(rf.linear_attention(query, key, value, phi, key_mask=mask), eps_of("float64"))
    expected.check(rf.linear_attention(query, key, value, phi, key_mask=mask.tolist()), eps_of("float64"))


def test_mask_of_another_library(torch):
    query = torch.ones((4, 5))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=query)
    for attention in attentions(phi):
        with pytest.raises(TypeError, match=r"one array library, got numpy\.ndarray, torch\.Tensor"):
            attention(query, query, query, key_mask=np.ones(4, bool))


GROUPED = {"enable_gqa": True}
WRONG_SHAPES = {
    "one dimension": ((5,), (6, 5), (6, 3), {}, r"query must have shape \(\.\.\., length, dim\), got \(5,\)"),
    "no dimension": ((4, 5), (6, 5), (), {}, r"value must have shape \(\.\.\., length, dim\), got \(\)"),
    "other dimension": ((4, 5), (6, 4), (6, 3), {}, r"must share their last dimension: query \(4, 5\), key \(6, 4\)"),
    "other length": ((4, 5), (6, 5), (5, 3), {}, r"must have the same length .*key \(6, 5\), value \(5, 3\)"),
    "other batch": ((2, 4, 5), (3, 6, 5), (3, 6, 3), {}, r"do not fit together \(grouped heads need enable_gqa"),
    "groups without heads": ((4, 5), (6, 5), (6, 3), GROUPED, r"query must have shape \(\.\.\., heads, length, dim\)"),
    "uneven groups": ((5, 4, 5), (2, 6, 5), (2, 6, 3), GROUPED, r"query heads must be a multiple of the key heads"),
    "no key heads": ((4, 4, 5), (0, 6, 5), (0, 6, 3), GROUPED, r"query heads must be a multiple of the key heads"),
    "other value heads": ((4, 4, 5), (2, 6, 5), (4, 6, 3), GROUPED, r"key and value heads equal"),
    "other batch of groups": (
        (2, 4, 4, 5),
        (3, 2, 6, 5),
        (3, 2, 6, 3),
        GROUPED,
        r"leading dimensions do not fit together:",
    ),
}


@pytest.mark.parametrize("case", WRONG_SHAPES)
def test_wrong_shapes(xp, case):
    *shapes, options, message = WRONG_SHAPES[case]
    query, key, value = (asarray(xp, np.ones(shape)) for shape in shapes)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=query)
    for attention in attentions(phi):
        with pytest.raises(ValueError, match=message):
            attention(query, key, value, **options)


@pytest.mark.parametrize(
    ("batch_shape", "options", "message"),
    [
        ((3,), {}, r"features with batch_shape \(3,\) do not fit the leading dimensions: query \(2, 4, 4, 5\)"),
        ((3,), {"enable_gqa": True}, r"features have 3 maps .*one per query head \(4\), one per key head \(4\), or 1"),
        ((3, 4), {"enable_gqa": True}, r"features with batch_shape \(3, 4, 1\) do not fit"),
        ((4,), {}, 'heads come before the length, or say layout="blhd"'),
    ],
    ids=str,
)
def test_maps_that_do_not_fit_the_heads(batch_shape, options, message):
    x = np.ones((2, 7, 4, 5) if batch_shape == (4,) else (2, 4, 4, 5))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, batch_shape=batch_shape)
    for is_causal in (False, True):
        with pytest.raises(ValueError, match=message):
            rf.linear_attention(x, x, x, phi, is_causal=is_causal, **options)


def test_wrong_features(xp):
    x = asarray(xp, np.ones((4, 5)))
    for features in (rf.PositiveFeatures(), 256, None):
        with pytest.raises(TypeError, match=r"features must be a FeatureMap, from estimator.draw\(\.\.\.\), got"):
            rf.linear_attention(x, x, x, features)
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=x)
    with pytest.raises(ValueError, match="query and key have dimension 5, but the features were drawn for 4"):
        rf.linear_attention(x, x, x, phi)


def test_one_dtype(xp):
    x, y = asarray(xp, np.ones((4, 5)), "float32"), asarray(xp, np.ones((4, 5)), "float64")
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=x)
    for attention in attentions(phi):
        with pytest.raises(TypeError, match="must have one dtype, got float32, float32, float64"):
            attention(x, x, y)


# scale -----------------------------------------------------------------------------------------------------------

OTHER_KERNELS = [rf.SoftmaxKernel(2.0), rf.GaussianKernel(), rf.GaussianKernel(1.2)]


@pytest.mark.parametrize("kernel", OTHER_KERNELS, ids=repr)
@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_a_kernel_with_a_scale_needs_an_explicit_one(rng, kernel, estimator):
    """The default 1/√d on top of a kernel's own scale would scale twice; 1.0 is the kernel as it is."""
    query, key, value = rng.standard_normal((3, 4, 5))
    phi = dataclasses.replace(estimator, kernel=kernel).draw(5, 8, rng=0)
    for attention in (rf.linear_attention, rf.kernel_attention):
        other = phi if attention is rf.linear_attention else kernel
        with pytest.raises(ValueError, match=r"the default scale 1/√d would be a second one; pass scale=1.0"):
            attention(query, key, value, other)
    most = 1e-11 if estimator.positive else 1e-6
    for scale in (1.0, 0.4):
        for is_causal in (False, True):
            options = {"scale": scale, "is_causal": is_causal}
            expected = naive_attention(phi, query, key, value, **options)
            expected.check(rf.linear_attention(query, key, value, phi, **options), eps_of("float64"), most=most)
            expected = naive_kernel_attention(kernel, query, key, value, **options)
            expected.check(rf.kernel_attention(query, key, value, kernel, **options), eps_of("float64"))


def test_scale_enters_once(rng):
    """scale = s is the softmax kernel of scale s, and queries and keys multiplied by √s."""
    query, key, value = rng.standard_normal((3, 4, 5))
    out = rf.linear_attention(query, key, value, rf.PositiveFeatures().draw(5, 8, rng=0), scale=0.3)
    kernel_scale = rf.PositiveFeatures(rf.SoftmaxKernel(0.3)).draw(5, 8, rng=0)
    np.testing.assert_allclose(rf.linear_attention(query, key, value, kernel_scale, scale=1.0), out, rtol=1e-12)
    root = np.sqrt(0.3)
    plain = rf.PositiveFeatures().draw(5, 8, rng=0)
    np.testing.assert_allclose(rf.linear_attention(root * query, root * key, value, plain, scale=1.0), out, rtol=1e-12)
    default = rf.linear_attention(query, key, value, plain)
    assert same_bits(default, rf.linear_attention(query, key, value, plain, scale=5**-0.5))
    assert same_bits(default, rf.linear_attention(query, key, value, plain, scale=np.float64(5**-0.5)))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 0])
def test_wrong_scale(scale):
    x = np.ones((4, 5))
    for attention in attentions(rf.PositiveFeatures().draw(5, 8, rng=0)):
        with pytest.raises(ValueError, match="scale must be positive and finite"):
            attention(x, x, x, scale=scale)
    with pytest.raises(TypeError, match="scale must be a positive number"):
        rf.softmax_attention(x, x, x, scale=np.ones(1))
