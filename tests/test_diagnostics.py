"""attention_diagnostics against its definition, feature by feature."""

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, same_bits


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("estimator", [rf.PositiveFeatures(), rf.TrigonometricFeatures()], ids=repr)
def test_equals_the_definition(rng, estimator, is_causal):
    query, key, value = rng.standard_normal((3, 2, 7, 5))
    mask = np.array([True, False, True, True, True, False, True])
    phi = estimator.draw(5, 8, rng=0)
    found = rf.attention_diagnostics(query, key, phi, value, is_causal=is_causal, key_mask=mask)
    out = rf.linear_attention(query, key, value, phi, is_causal=is_causal, key_mask=mask)
    q, k = (getattr(phi, side)(x * 5**-0.25).to_array() for side, x in (("queries", query), ("keys", key)))
    squared = np.zeros((2, 2))
    for head, i in np.ndindex(2, 7):
        seen = mask & (np.arange(7) <= i if is_causal else True)
        terms = q[head, i] * k[head, seen].sum(axis=0)
        share = np.abs(terms) / np.abs(terms).sum()
        np.testing.assert_allclose(found.effective_features[head, i], 1 / np.sum(share**2), rtol=1e-9)
        np.testing.assert_allclose(found.heaviest_share[head, i], share.max(), rtol=1e-9)
        np.testing.assert_allclose(found.sign[head, i], terms.sum() / np.abs(terms).sum(), atol=1e-9)
        mean = value[head, seen].mean(axis=0)
        squared[head] += np.sum((out[head, i] - mean) ** 2), np.sum(out[head, i] ** 2)
    np.testing.assert_allclose(found.distance_to_mean, np.sqrt(squared[:, 0] / squared[:, 1]), rtol=1e-9)
    predicted = rf.predict_attention_error(estimator, query, key, value, 8, is_causal=is_causal, key_mask=mask)
    np.testing.assert_array_equal(found.predicted_error, predicted)


def test_more_queries_than_keys(rng):
    """Causal queries beyond the last key see all keys, and their average is over all values."""
    query, key, value = (rng.standard_normal((n, 5)) for n in (7, 4, 4))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    found = rf.attention_diagnostics(query, key, phi, value, is_causal=True)
    out = rf.linear_attention(query, key, value, phi, is_causal=True)
    mean = np.stack([value[: min(i, 3) + 1].mean(axis=0) for i in range(7)])
    expected = np.linalg.norm(out - mean) / np.linalg.norm(out)
    assert found.distance_to_mean == pytest.approx(expected, rel=1e-12)
    forecast = rf.predict_attention_error(rf.PositiveFeatures(), query, key, value, 8, is_causal=True)
    exact = rf.softmax_attention(query, key, value, is_causal=True)
    assert forecast.average_error == pytest.approx(np.linalg.norm(mean - exact) / np.linalg.norm(exact), rel=1e-12)


def test_extremes(rng):
    """No overflow at logits of ten thousand; one feature decides; without keys there is nothing."""
    x = 150 * rng.standard_normal((20, 5))
    phi = rf.PositiveFeatures().draw(5, 16, rng=0)
    wild = rf.attention_diagnostics(x, x, phi)
    assert np.all((wild.effective_features >= 1) & (wild.effective_features < 1.5))
    np.testing.assert_allclose(wild.sign, 1, rtol=1e-14)
    assert wild.predicted_error is None is wild.distance_to_mean
    flat = rf.attention_diagnostics(0 * x, x, phi, key_mask=np.zeros(20, bool))
    assert np.all(flat.effective_features == 0)
    even = rf.attention_diagnostics(0 * x, 0 * x, phi)
    np.testing.assert_allclose(even.effective_features, 16)
    signed = rf.TrigonometricFeatures().draw(5, 16, rng=0)
    assert np.any(rf.attention_diagnostics(x / 50, x / 50, signed, is_causal=True).sign < 0.5)
    relu = rf.ActivationFeatures().draw(5, 8, rng=0)
    assert rf.attention_diagnostics(x, x, relu, x, scale=1.0).predicted_error is None


def test_arrays_of_every_library(xp, rng):
    query, key, value = rng.standard_normal((3, 2, 6, 5))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, batch_shape=(2,))
    mask = np.array([True, True, False, True, True, False])
    expected = rf.attention_diagnostics(query, key, phi, value, key_mask=mask)
    inputs = [asarray(xp, x) for x in (query, key)]
    found = rf.attention_diagnostics(*inputs, phi.to(inputs[0]), asarray(xp, value), key_mask=xp.asarray(mask))
    assert same_bits(expected.effective_features, found.effective_features)
    assert same_bits(expected.predicted_error, found.predicted_error)


def test_what_is_not_a_map_is_refused():
    with pytest.raises(TypeError, match="features must be a FeatureMap"):
        rf.attention_diagnostics(np.ones((2, 3)), np.ones((2, 3)), rf.PositiveFeatures())
