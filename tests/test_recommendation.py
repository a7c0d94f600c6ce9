"""Recommendations: the table, the ranking, what is refused and why; and that a best choice is a good one."""

from dataclasses import dataclass

import numpy as np
import pytest

import randfeat as rf
from randfeat.couplings.base import coupling_names
from randfeat.selection import operators, recommendation
from randfeat.selection.pilot import Pilot, Sequences

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
    assert text.splitlines()[9] == "above, the best, drawn 9 times; below, the others, drawn 3 times"
    assert {line.split()[-1] for line in text.splitlines()[1:9]} <= set(coupling_names())
    few = rf.recommend(*sharp, num_features=64, estimators=[rf.PositiveFeatures(rf.SoftmaxKernel(), rf.Hadamard(2))])
    assert few[0].coupling in str(few)  # no name stands for it
    assert "above" not in str(few)
    assert ranking[0].name in text.splitlines()[1]
    assert ranking[0].error < 0.7 * next(c.error for c in ranking if c.name == "PositiveFeatures")
    assert ranking[0].error < ranking.average_error


def test_finalists_keep_their_first_errors_and_get_new_ones(sharp, monkeypatch):
    """Nine errors: three of the first round, and six that are other numbers."""
    options = {"estimators": [rf.PositiveFeatures(), rf.HyperbolicFeatures()], "num_features": 32, "num_queries": 16}
    final = {one.name: one.errors for one in rf.recommend(*sharp, **options)}
    monkeypatch.setattr(recommendation, "FINALISTS", 0)
    first = {one.name: one.errors for one in rf.recommend(*sharp, **options)}
    for name, errors in final.items():
        assert errors.shape == (9, 2)
        np.testing.assert_array_equal(errors[:3], first[name])
        assert len(np.unique(errors)) == errors.size


def test_an_error_is_the_median_over_draws_then_over_heads():
    errors = np.array([[1.0, 10.0, 5.0], [2.0, 60.0, 7.0], [9.0, 20.0, 4.0]])  # medians 2, 20, 5
    assert recommendation.Candidate("any", rf.PositiveFeatures(), errors).error == 5


def test_best_is_a_frozen_fit_for_all_heads(sharp):
    query, key, value = sharp
    best = rf.recommend(query, key, value, num_features=64, **CHEAP).best
    phi = best.draw(8, 64, rng=1)
    assert phi.batch_shape == (2,)
    exact = rf.softmax_attention(query, key, value)
    error = np.linalg.norm(rf.linear_attention(query, key, value, phi) - exact) / np.linalg.norm(exact)
    assert error < 0.7


def pilot_of(query, key, value, *, kernel=None, scale=1.0, is_causal=False, key_mask=None, query_mask=None, gqa=False):
    """With all queries in it."""
    sequences = Sequences.of(query, key, value, key_mask=key_mask, query_mask=query_mask, enable_gqa=gqa)
    rows = np.arange(sequences.query.shape[-2])
    return Pilot.of(sequences, rows, kernel=kernel or rf.SoftmaxKernel(), scale=scale, is_causal=is_causal)


def test_predicted_errors_are_measured_errors(sharp):
    """With all queries in the pilot, the error of a draw is that of linear attention, to rounding."""
    query, key, value = (x[0] for x in sharp)
    for is_causal in (False, True):
        pilot = pilot_of(query, key, value, scale=8**-0.5, is_causal=is_causal)
        exact = rf.softmax_attention(query, key, value, is_causal=is_causal)
        np.testing.assert_allclose(pilot.exact, exact, atol=1e-12)
        for estimator in (rf.PositiveFeatures(), rf.adapt(query, key, num_features=32)):
            phi = estimator.draw(8, 32, rng=np.random.default_rng(3))
            output = rf.linear_attention(query, key, value, phi, is_causal=is_causal)
            expected = np.linalg.norm(output - exact) / np.linalg.norm(exact)
            np.testing.assert_allclose(pilot.error(estimator, 32, np.random.default_rng(3)), expected, rtol=1e-9)


def test_the_verdict_is_that_of_the_best(sharp):
    """Balanced features beat the average of the values here, trigonometric ones do not."""
    options = {"num_features": 64, "num_queries": 16, "couplings": "orthogonal"}
    good, bad = "adapt, level 'posterior'", "TrigonometricFeatures"
    both = rf.recommend(*sharp, estimators=[bad, good], **options)
    assert both[0].error < both.average_error < both[1].error
    assert both.average_error < both.largest_error
    assert both.verdict == "useful"
    assert "useful: 1 of 2 estimators are better than the average of the values; positive features err" in str(both)
    alone = rf.recommend(*sharp, estimators=bad, **options)
    assert alone.verdict == "poor"
    assert "poor: 0 of 1 estimators" in str(alone)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("cls", [rf.PositiveFeatures, rf.TrigonometricFeatures])
def test_errors_of_estimates_out_of_range_are_those_of_attention(sharp, cls, is_causal):
    """Logits of thousands: estimates in units of the kernel under- or overflow, and the outputs are as ever."""
    query, key, value = (20 * sharp[0][0], 20 * sharp[1][0], sharp[2][0])
    mask = np.arange(150) % 4 > 0
    pilot = pilot_of(query, key, value, scale=8**-0.5, is_causal=is_causal, key_mask=mask)
    phi = cls().draw(8, 32, rng=3)
    options = {"is_causal": is_causal, "key_mask": mask}
    exact = rf.softmax_attention(query, key, value, **options)
    expected = np.linalg.norm(rf.linear_attention(query, key, value, phi, **options) - exact) / np.linalg.norm(exact)
    np.testing.assert_allclose(pilot.error_of(phi), expected, rtol=1e-9)


def test_the_pilot_has_random_queries_that_take_part(sharp, monkeypatch):
    seen, mask = [], np.arange(150) % 2 > 0
    original = Pilot.of

    def recorded(sequences, rows, **options):
        seen.append(rows)
        return original(sequences, rows, **options)

    monkeypatch.setattr(Pilot, "of", recorded)
    for seed in (0, 1):
        rf.recommend(
            *sharp, estimators=rf.PositiveFeatures(), num_features=8, query_mask=mask, num_queries=20, rng=seed
        )
    for rows in seen:
        assert len(np.unique(rows)) == 20
        assert np.all(np.diff(rows) > 0)
        assert np.all(mask[rows])
        assert rows[-1] > 100  # of 75 queries 20 are all below the 51st once in 10^5
    assert not np.array_equal(*seen)


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
    with pytest.raises(ValueError, match=r"query must have shape .*, got \(8,\)"):
        rf.recommend(query[0, 0], key, value)
    with pytest.raises(ValueError, match="do not fit together"):
        rf.recommend(query, key, value[:, :10])
    with pytest.raises(ValueError, match="key holds NaN or infinity; leave out padding"):
        rf.recommend(query, np.where(key > 5, np.nan, key), value)
    with pytest.raises(ValueError, match="unknown coupling 'ortho'"):
        rf.recommend(query, key, value, couplings=["ortho"])
    with pytest.raises(ValueError, match=r"enable_gqa=True\): \(6, 25, 16\)"):
        rf.recommend(query.reshape(6, 25, 16), key.reshape(3, 50, 16))
    with pytest.raises(ValueError, match=r"key_mask must have the shape \(2, 150\) .*, got \(149,\)"):
        rf.recommend(query, key, value, key_mask=np.ones(149, bool))
    with pytest.raises(
        TypeError, match=r"estimators must be estimators, classes of them, or names: 'built-in'.*got 'FAVOR"
    ):
        rf.recommend(query, key, value, estimators=["FAVOR+"])
    with pytest.raises(TypeError, match=r"got <class 'randfeat.estimators.base.Estimator'>"):
        rf.recommend(query, key, value, estimators=[rf.Estimator])
    with pytest.raises(ValueError, match=r"no estimator could be tried. PositiveFeatures, Antithetic"):
        rf.recommend(query, key, value, num_features=33, estimators=rf.PositiveFeatures(coupling="antithetic"))
    with pytest.raises(TypeError, match=r"kernel must be of the softmax family, .* got MaternKernel\("):
        rf.recommend(query, key, value, kernel=rf.MaternKernel(), scale=1.0)
    with pytest.raises(ValueError, match="num_draws must be a positive integer"):
        rf.recommend(query, key, value, num_draws=0)


@dataclass(frozen=True)
class Mirrored(rf.PositiveFeatures):
    """An estimator that is not of the library: positive features of the opposite inputs, of the same law."""

    def query_features(self, arrays, x):
        return super().query_features(arrays, -x)


def test_estimators_of_ones_own(sharp):
    """A list is exactly what is tried: objects as they are, classes with every coupling, names of the table."""
    mine = Mirrored(coupling="simplex")
    given = [mine, Mirrored, "TrigonometricFeatures"]
    ranking = rf.recommend(*sharp, num_features=32, estimators=given, couplings=["orthogonal", "independent"])
    assert ranking.refused == {}
    tried = sorted((candidate.name, candidate.coupling) for candidate in ranking)
    orthogonal, independent, simplex = (repr(c()) for c in (rf.Orthogonal, rf.Independent, rf.Simplex))
    assert tried == [
        ("Mirrored", independent),
        ("Mirrored", orthogonal),
        ("Mirrored", simplex),
        ("TrigonometricFeatures", independent),
        ("TrigonometricFeatures", orthogonal),
    ]
    assert any(candidate.estimator is mine for candidate in ranking)
    beside = rf.recommend(*sharp, num_features=32, estimators=[mine, "built-in"], num_draws=1, **CHEAP)
    alone = rf.recommend(*sharp, num_features=32, num_draws=1, **CHEAP)
    assert {c.name for c in beside} == {c.name for c in alone} | {"Mirrored"}
    assert set(beside.refused) == set(alone.refused)


def test_objects_of_one_class_have_names_of_their_own(sharp):
    given = [rf.OptimalPositiveFeatures(exponent=exponent) for exponent in (-0.05, -0.1)]
    names = {candidate.name for candidate in rf.recommend(*sharp, num_features=32, estimators=given)}
    assert len(names) == 2
    assert all(name.startswith("OptimalPositiveFeatures(exponent=") for name in names)


def test_estimators_of_another_kernel_are_refused_with_the_reason(sharp):
    given = [rf.PositiveFeatures(), rf.TrigonometricFeatures(rf.GaussianKernel(2.0))]
    ranking = rf.recommend(*sharp, num_features=32, estimators=given)
    assert [candidate.name for candidate in ranking] == ["PositiveFeatures"]
    assert (
        "of GaussianKernel(length_scale=2.0), not of SoftmaxKernel(scale=1.0)"
        in ranking.refused["TrigonometricFeatures"]
    )


@pytest.mark.parametrize("kernel", [rf.SoftmaxKernel(0.5), rf.GaussianKernel(3.0), rf.NormalizedSoftmaxKernel(2.0)])
def test_other_kernels_of_the_family(sharp, kernel):
    """The errors are those of `linear_attention` against `kernel_attention`; every estimator of the kernel is tried."""
    query, key, value = (x[0] for x in sharp)
    pilot = pilot_of(query, key, value, kernel=kernel)
    exact = rf.kernel_attention(query, key, value, kernel, scale=1.0)
    np.testing.assert_allclose(pilot.exact, exact, atol=1e-12)
    ranking = rf.recommend(query, key, value, kernel=kernel, scale=1.0, num_features=32, num_draws=1, **CHEAP)
    assert len(ranking) >= 15
    for candidate in ranking:
        assert candidate.estimator.kernel == kernel
        phi = candidate.estimator.draw(8, 32, rng=np.random.default_rng(3))
        output = rf.linear_attention(query, key, value, phi, scale=1.0)
        expected = np.linalg.norm(output - exact) / np.linalg.norm(exact)
        actual = pilot.error(candidate.estimator, 32, np.random.default_rng(3))
        np.testing.assert_allclose(actual, expected, rtol=1e-6, err_msg=candidate.name)
    with pytest.raises(ValueError, match="has a scale of its own"):
        rf.recommend(query, key, value, kernel=kernel)


@pytest.mark.parametrize("is_causal", [False, True])
def test_batches_masks_and_groups(rng, is_causal):
    """(batch, heads, L, d) with padding and grouped heads: one error a head, that of `linear_attention`."""
    query, key, value = rng.standard_normal((2, 4, 30, 8)), *rng.standard_normal((2, 2, 2, 30, 8))
    mask = np.arange(30) < np.array([30, 20])[:, None, None]
    options = {"is_causal": is_causal, "key_mask": mask, "enable_gqa": True}
    exact = rf.softmax_attention(query, key, value, **options)
    pilot = pilot_of(query, key, value, is_causal=is_causal, scale=8**-0.5, key_mask=mask, query_mask=mask, gqa=True)
    counted = np.broadcast_to(mask[..., None], exact.shape)
    np.testing.assert_allclose(pilot.exact[counted], exact[counted], atol=1e-12)
    for estimator in (rf.PositiveFeatures(), rf.adapt(query, key, key_mask=mask, enable_gqa=True, num_features=32)):
        phi = estimator.draw(8, 32, rng=np.random.default_rng(3))
        output = rf.linear_attention(query, key, value, phi, **options)
        norms = [np.sqrt(np.sum(np.where(counted, x * x, 0.0), axis=(0, 2, 3))) for x in (output - exact, exact)]
        actual = pilot.error(estimator, 32, np.random.default_rng(3))
        assert actual.shape == (4,)
        np.testing.assert_allclose(actual, norms[0] / norms[1], rtol=1e-9)
    both = {"num_features": 32, "num_draws": 1, "couplings": "orthogonal", **options, "query_mask": mask}
    ranking = rf.recommend(query, key, value, **both)
    assert ranking[-1].errors.shape == (1, 4)
    assert ranking.best.draw(8, 32, rng=0).batch_shape in ((), (4,))
    spoiled = [np.where(mask[..., None], x, np.nan) for x in (query, key, value)]  # what padding holds does not matter
    again = rf.recommend(*spoiled, **both)
    assert [(c.name, c.error) for c in again] == [(c.name, c.error) for c in ranking]
    with pytest.raises(ValueError, match="query holds NaN or infinity; leave out padding, by key_mask or query_mask"):
        rf.recommend(*spoiled, **{**both, "query_mask": None})


def test_masked_is_truncated(sharp):
    """One length of padding for all heads: the ranking is that of the shorter keys."""
    query, key, value = sharp
    mask = np.arange(150) < 100
    options = {"num_features": 32, "num_draws": 1, **CHEAP}
    masked = rf.recommend(query, key, value, key_mask=mask, **options)
    truncated = rf.recommend(query, key[:, :100], value[:, :100], **options)
    for one, other in zip(masked, truncated, strict=True):
        assert one.name == other.name
        np.testing.assert_allclose(one.errors, other.errors, rtol=1e-6)


def test_queries_without_keys_do_not_count(sharp):
    """Causal queries of which every key is masked have no output to compare."""
    query, key, value = sharp
    mask = np.arange(150) >= 100
    ranking = rf.recommend(query, key, value, key_mask=mask, is_causal=True, num_features=32, num_draws=1, **CHEAP)
    assert np.all(np.isfinite([candidate.errors for candidate in ranking if candidate.name == "PositiveFeatures"]))
    assert np.isfinite(ranking.average_error)


@pytest.mark.parametrize("is_causal", [False, True])
def test_operators_without_features_are_ranked_beside_the_estimators(sharp, is_causal, monkeypatch):
    """With all queries in the pilot their errors are those of the outputs; nothing is computed unless asked for."""
    query, key, value = sharp
    mask = np.arange(150) < 140
    calls = []
    original = operators.compressed_attention
    monkeypatch.setattr(operators, "compressed_attention", lambda *x, **o: calls.append(o) or original(*x, **o))
    ranking = rf.recommend(
        query, key, value, estimators=rf.PositiveFeatures(), num_features=40, num_queries=150, is_causal=is_causal,
        key_mask=mask, query_mask=mask, **{"couplings": "orthogonal"},
    )  # fmt: skip
    assert calls == []
    found = {one.name: one for one in ranking.operators}
    assert len(calls) == 3
    errors = [one.error for one in ranking.operators]
    assert errors == sorted(errors)
    exact = rf.softmax_attention(query, key, value, key_mask=mask, is_causal=is_causal)
    options = {"num_keys": 32} | ({"window": 32, "is_causal": True} if is_causal else {})
    output = rf.compressed_attention(query, key, value, key_mask=mask, query_mask=mask, **options)
    expected = [np.linalg.norm((x - y)[:140]) / np.linalg.norm(y[:140]) for x, y in zip(output, exact, strict=True)]
    name = "compressed_attention, " + ("num_keys=32, window=32" if is_causal else "num_keys=32")
    np.testing.assert_allclose(found[name].errors, expected, rtol=1e-9)
    assert (found["softmax_attention"].error, found["softmax_attention"].cost) == (0, 37.5 if is_causal else 75)
    assert any("clustered" in name for name in found) is not is_causal
    if not is_causal:
        assert found["clustered_attention, num_clusters=5"].cost == 14 * 5 / 4  # 14 C L d of 4 m L d multiplications
    lines = str(ranking).splitlines()
    start = lines.index("without features; cost in features, of which the estimators have 40:")
    assert [line.split(maxsplit=2)[2] for line in lines[start + 2 : start + 2 + len(found)]] == list(found)


def test_other_kernels_have_no_operators_without_features(sharp):
    query, key, value = sharp
    options = {
        "kernel": rf.GaussianKernel(2.0),
        "scale": 1.0,
        "estimators": rf.PositiveFeatures(rf.GaussianKernel(2.0)),
    }
    ranking = rf.recommend(query, key, value, num_features=32, num_queries=8, **options)
    assert ranking.operators == ()
    assert "operator" not in str(ranking)
