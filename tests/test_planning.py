"""predict_attention_error: equal to what is measured, where it is small."""

import numpy as np
import pytest

import randfeat as rf

Q, K, V = np.random.default_rng(0).standard_normal((3, 40, 6))
Q, K = Q / 4, K / 4
ESTIMATORS = [
    rf.PositiveFeatures(coupling="independent"),
    rf.HyperbolicFeatures(coupling="independent"),
    rf.TrigonometricFeatures(coupling="independent"),
    rf.TrigonometricFeatures(coupling="independent", variant="phase"),
]


def measured_square(estimator, num_features, draws, **options):
    """Per draw, squared error over squared norm of the output."""
    exact = rf.softmax_attention(Q, K, V, **options)
    phi = estimator.draw(6, num_features, rng=1, batch_shape=(draws,))
    error = rf.linear_attention(Q, K, V, phi, **options) - exact
    return np.sum(error**2, axis=(-2, -1)) / np.sum(exact**2)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"key_mask": np.arange(40) < 25}], ids=str)
def test_prediction_is_what_is_measured(estimator, options):
    """512 features, 400 draws: equal within 4.5 standard errors and ten times the next order, which is relative G/m.

    G = e^{max |x + y|²} is the largest second moment of a pair. Errors off by a third would be seen.
    """
    measured = measured_square(estimator, 512, 400, **options)
    predicted = rf.predict_attention_error(estimator, Q, K, V, 512, num_queries=40, **options) ** 2
    largest = np.max(np.sum((Q[:, None] + K) ** 2, axis=-1)) / np.sqrt(6)
    tolerance = 4.5 * measured.std(ddof=1) / np.sqrt(400) + 10 * np.exp(largest) / 512 * predicted
    assert abs(measured.mean() - predicted) < tolerance
    assert tolerance < predicted / 3


def test_prediction_scales_and_broadcasts():
    estimator = rf.PositiveFeatures()
    single = rf.predict_attention_error(estimator, Q, K, V, 256, num_queries=40)
    assert rf.predict_attention_error(estimator, Q, K, V, 1024, num_queries=40) == pytest.approx(single / 2)
    heads = rf.predict_attention_error(estimator, np.stack([Q, 2 * Q]), K, V, 256, num_queries=40)
    assert heads.shape == (2,)
    assert heads[0] == pytest.approx(single)
    assert heads[1] > single
    subset = rf.predict_attention_error(estimator, Q, K, V, 256, num_queries=20, rng=0)
    assert subset == rf.predict_attention_error(estimator, Q, K, V, 256, num_queries=20, rng=0)
    assert single / 2 < subset < 2 * single


def test_huge_logits_give_infinity_not_nan():
    assert rf.predict_attention_error(rf.PositiveFeatures(), 60 * Q, 60 * K, V, 256) == np.inf


def test_masked_content_is_irrelevant():
    mask = np.arange(40) < 30
    k, v = K.copy(), V.copy()
    k[30:], v[30:] = np.nan, np.inf
    truncated = rf.predict_attention_error(rf.PositiveFeatures(), Q, K[:30], V[:30], 256, num_queries=40)
    masked = rf.predict_attention_error(rf.PositiveFeatures(), Q, k, v, 256, num_queries=40, key_mask=mask)
    assert masked == pytest.approx(truncated, rel=1e-12)
