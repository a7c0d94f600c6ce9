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


def test_causal_prediction_by_hand():
    """Two queries. The first sees one key, and is exact; the second sees both, its own key included.

    With weights p and 1 - p the error is `p² (1-p)² |v_0 - v_1|² (G_00 + G_11 - 2 G_01)/m`, `G_jk = e^{z_j·z_k}`.
    """
    q, k, v = np.random.default_rng(3).standard_normal((3, 2, 4)) / 2
    estimator = rf.PositiveFeatures(coupling="independent")
    forecast = rf.predict_attention_error(estimator, q, k, v, 64, is_causal=True)
    z = q[1] / np.sqrt(2) + k / np.sqrt(2)  # d^{1/4} = √2
    p = 1 / (1 + np.exp((q[1] @ k[1] - q[1] @ k[0]) / 2))
    output = p * v[0] + (1 - p) * v[1]
    growth = np.exp(z[0] @ z[0]) + np.exp(z[1] @ z[1]) - 2 * np.exp(z[0] @ z[1])
    squared = p**2 * (1 - p) ** 2 * np.sum((v[0] - v[1]) ** 2) * growth / 64
    assert forecast.leading_order**2 == pytest.approx(squared / (v[0] @ v[0] + output @ output), rel=1e-12)
    average = np.sum(((v[0] + v[1]) / 2 - output) ** 2) / (v[0] @ v[0] + output @ output)
    assert forecast.average_error**2 == pytest.approx(average, rel=1e-12)


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


def test_huge_logits_give_infinity_to_leading_order_and_not_nan():
    forecast = rf.predict_attention_error(rf.PositiveFeatures(), 60 * Q, 60 * K, V, 256)
    assert forecast.leading_order == np.inf
    assert forecast < forecast.largest_error < np.inf


def test_masked_content_is_irrelevant():
    mask = np.arange(40) < 30
    k, v = K.copy(), V.copy()
    k[30:], v[30:] = np.nan, np.inf
    truncated = rf.predict_attention_error(rf.PositiveFeatures(), Q, K[:30], V[:30], 256, num_queries=40)
    masked = rf.predict_attention_error(rf.PositiveFeatures(), Q, k, v, 256, num_queries=40, key_mask=mask)
    assert masked == pytest.approx(truncated, rel=1e-12)


@pytest.mark.parametrize("coupling", ["independent", "orthogonal", "antithetic", "simplex"])
@pytest.mark.parametrize("cls", [rf.PositiveFeatures, rf.HyperbolicFeatures, rf.TrigonometricFeatures])
def test_num_features_is_the_least_that_suffices(cls, coupling):
    estimator = cls(coupling=coupling)
    x, y = np.array([[0.3, 0.1, 0.0], [0.6, 0.0, 0.2]]), np.array([0.2, -0.2, 0.4])
    needed = rf.num_features_for(estimator, x, y, rel_error=0.2, confidence=0.9)
    (step,) = estimator.nearest_num_features(1)[-1:]
    for pair, width in zip(x, needed, strict=True):
        assert estimator.relative_variance(pair, y, num_features=int(width)) <= 0.1 * 0.2**2
        assert width == step or estimator.relative_variance(pair, y, num_features=int(width) - step) > 0.1 * 0.2**2


def test_num_features_keeps_its_promise():
    """At the least width the share of 4000 draws outside is below 10 %: Chebyshev, so far below."""
    estimator, x = rf.PositiveFeatures(coupling="independent"), np.array([0.5, 0.0])
    width = int(rf.num_features_for(estimator, x, x, rel_error=0.3, confidence=0.9))
    errors = rf.montecarlo.sample_errors(estimator, x, x, num_features=width, num_draws=4000, rng=0).errors
    assert np.mean(np.abs(errors) > 0.3) < 0.1


def test_num_features_says_when_none_suffice():
    biased = rf.PositiveFeatures(coupling=rf.Orthogonal(norms="constant"))
    with pytest.raises(ValueError, match="does not reach a relative MSE"):
        rf.num_features_for(biased, np.ones(3), np.ones(3), rel_error=0.01)
    with pytest.raises(ValueError, match="fit features to the data"):
        rf.num_features_for(rf.PositiveFeatures(), 4 * np.ones(3), 4 * np.ones(3))
    for cls in (rf.PositiveFeatures, rf.HyperbolicFeatures):  # variances overflow: no warning, no number, one error
        with pytest.raises(ValueError, match=r"it is inf with .* attention output is bounded by the values"):
            rf.num_features_for(cls(), 40 * np.ones(3), 40 * np.ones(3))
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        rf.num_features_for(biased, np.ones(3), np.ones(3), confidence=1.0)


def test_masks_may_be_on_a_device():
    """As in the diagnostics: array-api-strict, too, has arrays that NumPy cannot read at once."""
    xp = pytest.importorskip("array_api_strict")
    q, k, v = np.random.default_rng(0).standard_normal((3, 20, 8)) / 4
    mask = np.arange(20) < 15
    there = xp.asarray(mask, device=xp.Device("device1"))
    expected, found = (
        rf.predict_attention_error(rf.PositiveFeatures(), q, k, v, 64, key_mask=m) for m in (mask, there)
    )
    assert expected == found
    for level in ("center", "dense"):
        one, two = (rf.adapt(q, k, level=level, key_mask=m) for m in (mask, there))
        assert one == two
