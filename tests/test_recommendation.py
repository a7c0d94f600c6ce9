"""Recommendations: the table, the ranking, what is refused and why; and that a best choice is a good one."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.selection import recommendation
from randfeat.selection.recommendation import Pilot

CHEAP = {"couplings": ["orthogonal"], "num_queries": 16}


@pytest.fixture(scope="module")
def sharp():
    """Two heads with a mean and a spread that plain features cannot carry."""
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 2, 150, 8))
    slope = np.array([4.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25])
    return q * slope + 1.0, k * slope - 1.0, v


def test_the_ranking_is_of_errors_and_reads_well(sharp):
    ranking = rf.recommend(*sharp, num_features=64, **CHEAP)
    errors = [candidate.error for candidate in ranking]
    assert errors[:8] == sorted(errors[:8])
    assert errors[8:] == sorted(errors[8:])
    assert len(ranking) == len(list(ranking)) >= 10
    assert ranking[0].errors.shape == (9, 2)  # a finalist
    assert ranking[-1].errors.shape == (3, 2)
    text = str(ranking)
    assert "average of the values" in text
    assert ranking[0].name in text.splitlines()[1]
    assert ranking[0].error < 0.7 * next(c.error for c in ranking if c.name == "PositiveFeatures")
    assert ranking[0].error < ranking.average_error


def test_best_is_a_frozen_fit_for_all_heads(sharp):
    query, key, value = sharp
    best = rf.recommend(query, key, value, num_features=64, **CHEAP).best
    phi = best.draw(8, 64, rng=1)
    assert phi.batch_shape == (2,)
    exact = rf.softmax_attention(query, key, value)
    error = np.linalg.norm(rf.linear_attention(query, key, value, phi) - exact) / np.linalg.norm(exact)
    assert error < 0.7


def test_predicted_errors_are_measured_errors(sharp):
    """With all queries in the pilot, the error of a draw is that of linear attention, to rounding."""
    query, key, value = (x[0] for x in sharp)
    for is_causal in (False, True):
        pilot = Pilot.of(query, key, value, np.arange(150), scale=8**-0.5, is_causal=is_causal)
        exact = rf.softmax_attention(query, key, value, is_causal=is_causal)
        np.testing.assert_allclose(pilot.exact, exact, atol=1e-12)
        for estimator in (rf.PositiveFeatures(), rf.adapt(query, key, num_features=32)):
            phi = estimator.draw(8, 32, rng=np.random.default_rng(3))
            output = rf.linear_attention(query, key, value, phi, is_causal=is_causal)
            expected = np.linalg.norm(output - exact) / np.linalg.norm(exact)
            np.testing.assert_allclose(pilot.error(estimator, 32, np.random.default_rng(3)), expected, rtol=1e-9)


def test_one_seed_one_ranking(sharp):
    first, again, other = (
        [(c.name, c.error) for c in rf.recommend(*sharp, num_features=32, rng=seed, **CHEAP)] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_what_does_not_apply_is_named(sharp):
    ranking = rf.recommend(*sharp, num_features=33, couplings=["independent", "antithetic"], num_queries=8, num_draws=1)
    refused = {name: reason for name, reason in ranking.refused.items() if name.startswith(("Hyper", "Positive"))}
    assert "cannot have 33 features; nearest: 32, 34" in refused["HyperbolicFeatures, Independent()"]
    assert any("Antithetic" in name for name in refused)
    assert "not tried: HyperbolicFeatures" in str(ranking)
    assert {c.coupling for c in ranking if c.name == "PositiveFeatures"} == {"Independent()"}


def test_every_estimator_of_the_softmax_kernel_is_tried_or_refused(sharp):
    """With every coupling; what has another kernel, or cannot have the width, is named with the reason."""
    query, key, value = (x[0, :60] for x in sharp)
    ranking = rf.recommend(query, key, value, num_features=64, couplings="all", num_queries=4, num_draws=1)
    tried = {type(candidate.estimator).__name__ for candidate in ranking}
    inside = {"CenteredFeatures", "BalancedFeatures", "PosteriorFeatures"}  # what adapt makes
    special = {"GeneralizedExponentialFeatures", "GaussianHybridFeatures", "HybridFeatures"}  # parameters of one's own
    for entry in rf.catalogue("estimator"):
        if entry.kernel != "SoftmaxKernel":
            assert "not of the softmax kernel" in ranking.refused[entry.name]
        else:
            assert entry.name in tried | inside | special
    assert len({c.coupling for c in ranking if c.name == "PositiveFeatures"}) >= 12
    assert "for small dimensions only" in ranking.refused["PositiveFeatures, GaussHermite(nodes=3)"]


def test_exact_attention_is_named_where_it_is_cheaper(sharp):
    query, key, value = sharp
    for width, cheaper in ((74, False), (75, True)):  # 150 · 150 / 300 = 75
        ranking = rf.recommend(query, key, value, num_features=width, num_draws=1, **CHEAP)
        assert ranking.exact_is_cheaper == cheaper
        assert ("exact attention takes no more" in str(ranking)) == cheaper


def test_a_recipe_that_cannot_be_fitted_is_reported_not_raised(sharp, monkeypatch):
    def broken(*arguments):
        raise ValueError("not for these data.")

    monkeypatch.setitem(recommendation.RECIPES, "broken", broken)
    assert rf.recommend(*sharp, num_features=32, num_draws=1, **CHEAP).refused["broken"] == "not for these data."


def test_mistakes_are_named(sharp):
    query, key, value = sharp
    with pytest.raises(ValueError, match=r"query must have shape .*, got \(1, 2, 150, 8\)"):
        rf.recommend(query[None], key, value)
    with pytest.raises(ValueError, match="do not fit together"):
        rf.recommend(query, key, value[:, :10])
    with pytest.raises(ValueError, match="key holds NaN or infinity; leave out padding"):
        rf.recommend(query, np.where(key > 5, np.nan, key), value)
    with pytest.raises(ValueError, match="unknown coupling 'ortho'"):
        rf.recommend(query, key, value, couplings=["ortho"])
    with pytest.raises(ValueError, match="num_draws must be a positive integer"):
        rf.recommend(query, key, value, num_draws=0)
