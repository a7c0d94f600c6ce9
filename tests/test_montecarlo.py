"""Monte Carlo: right intervals, paired comparisons, and no trust where an empirical MSE is falsely low."""

import warnings

import numpy as np
import pytest

import randfeat as rf
from randfeat import montecarlo
from randfeat.montecarlo import HeavyTailWarning, Measured, compare, gram_variance, sample_errors, sampling

X, Y = np.random.default_rng(5).standard_normal((2, 4, 6)) / 5
LIMIT = 4.5  # false alarm 7e-6 per z-score


def test_errors_agree_with_closed_forms():
    """20 000 draws see a relative bias of 1 % and an MSE off by 8 % (kurtosis below 8), 999 times in 1000."""
    estimator = rf.PositiveFeatures(coupling="simplex")
    sample = sample_errors(estimator, X, Y, num_features=16, num_draws=20_000, rng=1)
    expected = estimator.relative_variance(X, Y, num_features=16)
    assert sample.errors.shape == (20_000, 4)
    assert np.all(np.abs(sample.bias().z(0)) < LIMIT)
    assert np.all(np.abs(sample.mse().z(expected)) < LIMIT)
    assert np.all(np.abs(sample.variance().z(expected)) < LIMIT)
    low, high = sample.mse().interval(0.95)
    assert np.all((low < sample.mse().value) & (sample.mse().value < high))


def test_the_z_score_sees_another_variance():
    """Planted: the independent formula for orthogonal rows."""
    sample = sample_errors(rf.TrigonometricFeatures(), X, Y, num_features=32, num_draws=20_000, rng=1)
    wrong = rf.TrigonometricFeatures(coupling="independent").relative_variance(X, Y, num_features=32)
    assert np.max(np.abs(sample.mse().z(wrong))) > 10


def test_same_seed_same_errors_in_any_leading_shape():
    estimator = rf.PositiveFeatures()
    flat = sample_errors(estimator, X, Y, num_features=8, num_draws=50, rng=3).errors
    folded = sample_errors(
        estimator, X.reshape(2, 2, 6), Y.reshape(2, 2, 6), num_features=8, num_draws=50, rng=3
    ).errors
    assert np.array_equal(flat, folded.reshape(50, 4))
    assert not np.array_equal(flat, sample_errors(estimator, X, Y, num_features=8, num_draws=50, rng=4).errors)


def test_memory_is_bounded(monkeypatch):
    """A batch never holds more rows than its budget, and every draw is made."""
    sizes = sampling.batch_sizes([rf.PositiveFeatures()], X, Y, 256, 10_000)
    assert sum(sizes) == 10_000
    assert max(sizes) * 256 * 6 * 8 < sampling.BATCH_BYTES
    monkeypatch.setattr(sampling, "BATCH_BYTES", 1)
    assert sampling.batch_sizes([rf.PositiveFeatures()], X, Y, 256, 3) == [1, 1, 1]


@pytest.mark.parametrize("coupling", ["independent", "orthogonal"])
def test_threads_and_pieces_change_no_number(monkeypatch, coupling):
    """Batches have generators of their own, and which thread takes them, in how many pieces, does not matter."""
    monkeypatch.setattr(sampling, "BATCH_BYTES", 2**16)
    estimator, samples = rf.TrigonometricFeatures(coupling=coupling), []
    for threads, features in ((1, 2**17), (3, 2**17), (2, 1), (2, 100)):
        monkeypatch.setenv("RANDFEAT_NUM_THREADS", str(threads))
        monkeypatch.setattr(sampling, "FEATURES_IN_CACHE", features)
        samples.append(montecarlo.sample_errors(estimator, X, Y, num_features=8, num_draws=150, rng=0).errors)
    assert len(sampling.batch_sizes([estimator], X, Y, 8, 150)) > 4
    assert all(np.array_equal(sample, samples[0]) for sample in samples)


def test_quantiles_and_sup_error():
    """Order-statistic intervals cover the true quantile of a known law: 95 % nominal, 400 trials, within 5 sigma."""
    rng = np.random.default_rng(0)
    samples = montecarlo.ErrorSample(rng.standard_normal((200, 400)))
    _, low, high = samples.quantile(0.9)
    covered = np.mean((low <= 1.2815515655) & (high >= 1.2815515655))
    assert covered > 0.95 - 5 * np.sqrt(0.95 * 0.05 / 400)
    value, low, high = samples.sup_error(0.5)
    assert low <= value <= high
    assert value == np.median(np.max(np.abs(samples.errors), axis=1))
    with pytest.raises(ValueError, match="probability must be between 0 and 1"):
        samples.quantile(1.5)


def test_intervals_cover_as_often_as_they_say():
    """Normal errors of known law, 4000 trials: two-sided, within 4.5 standard deviations of the nominal coverage.

    That is 1.6 % at 95 % and 2.8 % at 80 %. An interval of one side's quantile covers 90 % and 60 %.
    """
    rng, trials, draws = np.random.default_rng(0), 4000, 800
    first = 0.5 + 2 * rng.standard_normal((draws, trials))
    second = 0.8 * first + rng.standard_normal((draws, trials))
    sample = montecarlo.ErrorSample(first)
    ratio = montecarlo.Comparison(sample, montecarlo.ErrorSample(second)).mse_ratio()
    truths = {sample.bias: 0.5, sample.mse: 4.25, sample.variance: 4.0, (lambda: ratio): 4.25 / (0.64 * 4.25 + 1)}
    for confidence in (0.95, 0.8):
        tolerance = 4.5 * np.sqrt(confidence * (1 - confidence) / trials)
        for measured, truth in truths.items():
            low, high = measured().interval(confidence)
            below, above = np.mean(high < truth), np.mean(low > truth)
            assert abs(below + above - (1 - confidence)) < tolerance
            assert abs(below - above) < 2 * tolerance  # of both sides alike; skew makes up some
    np.testing.assert_allclose(sample.variance().value, first.var(axis=0, ddof=1), rtol=1e-12)


@pytest.mark.parametrize("probability", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("draws", [40, 200, 1001])
def test_intervals_of_quantiles_are_the_narrowest(draws, confidence, probability):
    """With B ~ Bin(n, p) values below the quantile, each end errs by at most half of what may fail, and barely so."""
    from scipy.stats import binom

    value, low, high = montecarlo.ErrorSample(np.arange(float(draws))).quantile(probability, confidence)
    law, tail = binom(draws, probability), (1 - confidence) / 2
    assert value == pytest.approx(probability * (draws - 1))
    assert low == 0 or law.cdf(low) <= tail < law.cdf(low + 1)  # the end is above the quantile if B <= low
    assert high == draws - 1 or law.sf(high) <= tail < law.sf(high - 1)  # below it if B > high


def test_comparisons_share_draws():
    """One estimator against itself has the ratio 1 without error; two different ones have the ratio of closed forms."""
    first, second = rf.PositiveFeatures(coupling="independent"), rf.TrigonometricFeatures(coupling="independent")
    paired = compare(first, first, X, Y, num_features=16, num_draws=500, rng=0).mse_ratio()
    assert np.all(paired.value == 1)
    assert np.all(paired.standard_error == 0)
    mixed = compare(first, second, X, Y, num_features=16, num_draws=4000, rng=0).mse_ratio()
    expected = first.relative_variance(X, Y, num_features=16) / second.relative_variance(X, Y, num_features=16)
    assert np.all(np.abs(mixed.z(expected)) < LIMIT)


def test_heavy_tails_warn():
    x = np.array([0.9, 0.0])  # |x + y|² = 3.24
    with pytest.warns(HeavyTailWarning, match=r"typically too low .*gram_variance"):
        sample_errors(rf.PositiveFeatures(), x, x, num_features=4, num_draws=1000, rng=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample_errors(rf.TrigonometricFeatures(), x, -x, num_features=4, num_draws=1000, rng=0)
        sample_errors(rf.PositiveFeatures(), x / 2, x / 2, num_features=4, num_draws=1000, rng=0)


@pytest.mark.parametrize(("square", "fraction", "heavy"), [(0.8, 0.9, True), (0.8, 1.1, False), (0.55, 0.9, False)])
def test_where_heavy_tails_begin(square, fraction, heavy):
    """Kurtoses above 30, and a relative standard error √((κ - 1)/N) above 0.3: κ = 58 warns up to 630 draws."""
    x, estimator = np.array([np.sqrt(square) / 2, 0.0]), rf.PositiveFeatures()
    kurtosis = float(estimator.row_kurtosis(x, x))
    assert (kurtosis > 30) == (square == 0.8)
    draws = int(fraction * (kurtosis - 1) / 0.09)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sample_errors(estimator, x, x, num_features=1, num_draws=draws, rng=0)
    assert [one.category for one in caught] == [HeavyTailWarning] * heavy


def test_warnings_name_the_worst_pair_and_point_at_the_line_of_the_user():
    x = np.linspace(0.1, 0.9, 6)[:, None] * np.array([1.0, 0.0])
    y = np.linspace(-0.2, 0.9, 5)[:, None] * np.array([1.0, 0.0])
    first, options = rf.PositiveFeatures(), {"num_features": 4, "num_draws": 200, "rng": 0}
    for call in (
        lambda: sample_errors(first, x[:, None], y, **options),
        lambda: compare(first, rf.TrigonometricFeatures(), x[:, None], y, **options),
    ):
        with pytest.warns(HeavyTailWarning, match="at pair 5, 4, the worst of 30 pairs: an MSE") as caught:
            call()
        assert [(one.filename, one.lineno) for one in caught] == [(__file__, call.__code__.co_firstlineno)]
    with pytest.warns(HeavyTailWarning, match="heavy-tailed: an MSE"):
        sample_errors(first, x[5], y[4], **options)


def test_an_empirical_mse_is_falsely_low_and_the_gram_formula_is_not():
    """At |x + y|² = 6 the median measured MSE of 10^4 rows is below 0.7 of the truth; the Gram formula is right."""
    x = np.eye(8)[0] * np.sqrt(6) / 2
    estimator = rf.PositiveFeatures(coupling="orthogonal")
    truth = estimator.relative_variance(x, x, num_features=1)
    with pytest.warns(HeavyTailWarning):
        measured = [
            sample_errors(estimator, x, x, num_features=1, num_draws=10_000, rng=seed).mse().value for seed in range(9)
        ]
    assert np.median(measured) / truth < 0.7
    gram = gram_variance(estimator, x, x, num_features=8, num_draws=200, rng=0)
    expected = estimator.relative_variance(x, x, num_features=8)
    assert abs(gram.value / expected - 1) < 1e-3
    assert gram.z(expected) < LIMIT


@pytest.mark.parametrize("coupling", ["orthogonal", "simplex", "antithetic-orthogonal"], ids=str)
@pytest.mark.parametrize(("cls", "draws"), [(rf.PositiveFeatures, 3000), (rf.TrigonometricFeatures, 800)])
def test_gram_formula_agrees_with_closed_forms(cls, coupling, draws):
    """False alarm 1e-5 per pair. The planted check below shows that another coupling is told apart."""
    x, y = np.random.default_rng(1).standard_normal((2, 5, 6)) / 2
    estimator = cls(coupling=coupling)
    gram = gram_variance(estimator, x, y, num_features=12, num_draws=draws, rng=2)
    assert np.all(np.abs(gram.z(estimator.relative_variance(x, y, num_features=12))) < LIMIT)
    other = cls(coupling="independent").relative_variance(x, y, num_features=12)
    assert np.max(np.abs(gram.z(other))) > 10


def test_gram_formula_samples_the_pairs_of_wide_maps():
    """Above 2048 pairs each draw looks at other ones, so that few special pairs (w, -w) are not missed or repeated.

    Six seeds, false alarm 4e-5 together; one subset for all draws gave |z| up to 6.8 here.
    """
    x = np.eye(16)[0] / 2
    estimator = rf.PositiveFeatures(coupling="antithetic")
    expected = estimator.relative_variance(x, x, num_features=128)
    for seed in range(6):
        assert abs(gram_variance(estimator, x, x, num_features=128, num_draws=1000, rng=seed).z(expected)) < LIMIT


def test_gram_formula_knows_a_deterministic_gram():
    """Constant norms at right angles leave nothing random: exact to rounding."""
    x, y = np.random.default_rng(1).standard_normal((2, 5, 6)) / 2
    estimator = rf.PositiveFeatures(coupling=rf.Orthogonal(norms="constant"))
    gram = gram_variance(estimator, x, y, num_features=6, num_draws=3, rng=0)
    np.testing.assert_allclose(gram.value, estimator.relative_variance(x, y, num_features=6), rtol=1e-10)


def test_measured_z_of_exact_agreement_is_zero():
    assert Measured(np.array(1.0), np.array(0.0)).z(1.0) == 0


@pytest.mark.parametrize("bad", [{"num_draws": 0}, {"num_features": 0}, {"num_draws": 2.5}])
def test_counts_are_checked(bad):
    arguments = {"num_features": 4, "num_draws": 10, "rng": 0} | bad
    with pytest.raises((ValueError, TypeError), match="must be a positive integer"):
        sample_errors(rf.PositiveFeatures(), X, Y, **arguments)
