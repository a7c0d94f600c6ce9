"""Arguments at the border: what is accepted, and the one line that refuses everything else."""

import re

import numpy as np
import pytest

import randfeat as rf
from randfeat import testing
from randfeat.montecarlo import sample_errors

X = np.random.default_rng(0).standard_normal((2, 6, 4)) / 2
PHI = rf.PositiveFeatures().draw(dim=4, num_features=8, rng=0)
HEADS = np.repeat(X, 2, axis=0)

SWITCHES = {
    "linear_attention is_causal": lambda b: rf.linear_attention(X, X, X, PHI, is_causal=b),
    "linear_attention enable_gqa": lambda b: rf.linear_attention(HEADS, X, X, PHI, enable_gqa=b),
    "linear_attention return_state": lambda b: rf.linear_attention(X, X, X, PHI, return_state=b)[0],
    "linear_attention_vjp is_causal": lambda b: rf.linear_attention_vjp(X, X, X, PHI, X, is_causal=b)[0],
    "linear_attention_vjp enable_gqa": lambda b: rf.linear_attention_vjp(HEADS, X, X, PHI, HEADS, enable_gqa=b)[0],
    "softmax_attention is_causal": lambda b: rf.softmax_attention(X, X, X, is_causal=b),
    "softmax_attention enable_gqa": lambda b: rf.softmax_attention(HEADS, X, X, enable_gqa=b),
    "kernel_attention is_causal": lambda b: rf.kernel_attention(X, X, X, rf.SoftmaxKernel(), is_causal=b),
    "attention_method is_causal": lambda b: rf.attention_method(X, X, X, PHI, is_causal=b).name,
    "attention_method return_state": lambda b: rf.attention_method(X, X, X, PHI, return_state=b).name,
    "predict_attention_error is_causal": lambda b: rf.predict_attention_error(
        rf.PositiveFeatures(), X, X, X, 8, is_causal=b
    ),
    "recommend is_causal": lambda b: rf.recommend(X, X, X, num_features=8, num_draws=2, is_causal=b, rng=0)[0].error,
    "recommend enable_gqa": lambda b: rf.recommend(
        HEADS, X, X, num_features=8, num_draws=2, enable_gqa=b, rng=0
    )[0].error,
    "adapt enable_gqa": lambda b: rf.adapt(HEADS, X, num_features=8, enable_gqa=b, rng=0).batch_shape,
    "audit_attention is_causal": lambda b: testing.audit_attention(
        lambda q, k, v: rf.softmax_attention(q, k, v, is_causal=bool(b)), is_causal=b, dim=4, length=8
    ).passed,
    "OptimalPositiveFeatures antithetic": lambda b: rf.OptimalPositiveFeatures(antithetic=b).features_per_row,
    "AngularHybridFeatures shared_rows": lambda b: rf.AngularHybridFeatures(shared_rows=b).shared_rows,
}  # fmt: skip


@pytest.mark.parametrize("wrong", ["no", 1, 0.0, None, np.array([True])], ids=repr)
@pytest.mark.parametrize("name", SWITCHES)
def test_switches_are_true_or_false(name, wrong):
    """Text counts as true in Python, so "no" would switch on."""
    message = f"{name.split()[1]} must be True or False, got {wrong!r}."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        SWITCHES[name](wrong)


@pytest.mark.parametrize("name", SWITCHES)
def test_switches_of_numpy_are_those_of_python(name):
    np.testing.assert_array_equal(SWITCHES[name](np.True_), SWITCHES[name](True))


@pytest.mark.parametrize("wrong", [3, 2.5, object], ids=repr)
def test_the_batch_of_a_draw_is_a_tuple(wrong):
    message = f"batch_shape must be a tuple of sizes, such as (8,), got {wrong!r}."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        rf.PositiveFeatures().draw(dim=4, num_features=8, batch_shape=wrong)
    assert rf.PositiveFeatures().draw(dim=4, num_features=8, batch_shape=[np.int64(3)]).batch_shape == (3,)


@pytest.mark.parametrize("leaf", [object(), None, 0.0, "rows"], ids=lambda leaf: type(leaf).__name__)
def test_a_map_has_a_repr_whatever_its_leaves_are(leaf):
    """Transformations of trees of arrays put other things in their place."""
    changed = rf.FeatureMap(PHI.estimator, PHI.dim, PHI.num_features, dict.fromkeys(PHI.arrays, leaf))
    assert repr(changed) == repr(PHI)


def test_a_sample_of_errors_has_a_short_repr():
    sample = sample_errors(rf.TrigonometricFeatures(), X[0], X[0], num_features=8, num_draws=25, rng=0)
    assert repr(sample) == f"ErrorSample(<errors of shape {sample.errors.shape}>)"


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", ">i4", "<f2", "<f4", "<f8", "<i4"])
def test_byte_order_is_no_part_of_a_number(dtype):
    """Files of another machine: one side or all of them, the results are those of native arrays, and native."""
    given = (2 * X).astype(dtype)
    same = given.astype(given.dtype.newbyteorder("="))
    phi, expected = PHI.to(same), rf.linear_attention(same, same, same, PHI.to(same), is_causal=True)
    results = {
        "all": rf.linear_attention(given, given, given, phi, is_causal=True),
        "one": rf.linear_attention(same, given, same, phi, is_causal=True),
        "lengths": rf.linear_attention(same, same, same, phi, is_causal=True, key_lengths=np.array(6, ">i8")),
    }
    for result in results.values():
        assert result.dtype == expected.dtype
        assert result.dtype.isnative
        np.testing.assert_array_equal(result, expected)
    features = phi(given)
    assert features.dtype.isnative
    np.testing.assert_array_equal(features, phi(same))
    drawn = rf.PositiveFeatures().draw(dim=4, num_features=8, rng=0, like=given)
    assert all(array.dtype.isnative for array in (*drawn.arrays.values(), *PHI.to(given).arrays.values()))
    np.testing.assert_array_equal(rf.SoftmaxKernel()(given, given), rf.SoftmaxKernel()(same, same))


def test_integers_of_another_byte_order_reach_other_libraries():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    x = torch.asarray(X)
    options = {"key_lengths": np.array([2, 5])}
    swapped = {"key_lengths": options["key_lengths"].astype(">i8")}
    phi = PHI.to(x)
    torch.testing.assert_close(
        rf.linear_attention(x, x, x, phi, **swapped), rf.linear_attention(x, x, x, phi, **options), rtol=0, atol=0
    )


@pytest.mark.parametrize("count", [2**53 + 1, 10**30])
def test_counts_beyond_all_memory_are_refused(count):
    q = np.zeros((6, 4))
    for call in (
        lambda: rf.PositiveFeatures().draw(4, count),
        lambda: rf.clustered_attention(q, q, q, num_clusters=count),
        lambda: rf.adapt(q, q, num_features=count),
    ):
        with pytest.raises(ValueError, match=rf"must be at most 9007199254740992, got {count}\."):
            call()
