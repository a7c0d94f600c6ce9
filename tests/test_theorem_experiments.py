"""The experiments on theorems: published digits, and verdicts that can fail."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.special import hyp1f1

import randfeat as rf
from experiments import orthogonal_gain, regularized_softmax, tail_bounds, trig_vs_positive
from experiments.pairs import judge, pairs_at, worst
from experiments.uniform_convergence.measure import largest_error, normal_median
from tests.test_experiments import TINY, tiny_results


@pytest.fixture(scope="module")
def results():
    names = ("trig_vs_positive", "orthogonal_gain", "regularized_softmax", "tail_bounds", "uniform_convergence")
    return {name: tiny_results(name) for name in names}


def times(column, factor):
    return lambda row: row | {column: row[column] * factor}


DOCTORED = [
    ("trig_vs_positive", "surface", times("ratio", 1.001), "ratio of the errors"),
    ("trig_vs_positive", "surface", lambda row: row | {"ratio": 1 / row["ratio"] if row["ratio"] else 2.0}, "acute"),
    ("trig_vs_positive", "rays", times("positive", 1e60), "vanishes"),
    ("trig_vs_positive", "rays", times("positive", 0.0), "not enough"),
    ("trig_vs_positive", "points", times("z", 1e3), "measured errors"),
    ("orthogonal_gain", "gap", times("bound", 1.05), "Theorem 2"),
    ("orthogonal_gain", "gap", lambda row: row | {"orthogonal": row["independent"]}, "Theorem 2"),
    ("orthogonal_gain", "ordering", lambda row: row | {"ratio": 1.0}, "simplex rows beat orthogonal"),
    ("orthogonal_gain", "ordering", lambda row: row | {"ratio": 1.0}, "orthogonal rows beat simplex"),
    ("orthogonal_gain", "measured", times("z", 1e3), "measured errors"),
    ("orthogonal_gain", "sign", times("change", 1.01), "turns into a loss"),
    ("orthogonal_gain", "sign", times("z", 1e3), "largest loss"),
    ("orthogonal_gain", "sign", times("expected", 0.9), "largest loss"),
    ("regularized_softmax", "curves", lambda row: row | {"ratio": 1.0 + 1e-6}, "below SM"),
    ("regularized_softmax", "curves", times("bound", 1.02), "below SM"),
    ("regularized_softmax", "curves", lambda row: row | {"ratio": 1 - row["dim"] ** (-1 / 3) / 4}, "like 1/d"),
    ("regularized_softmax", "curves", lambda row: row | {"ratio": 1 - row["u"] ** 2 / row["dim"] / 4}, "1 - R = u"),
    ("regularized_softmax", "matrices", times("smallest", 0.5), "random attention matrices"),
    ("regularized_softmax", "draws", times("z", 1e3), "drawn features"),
    ("regularized_softmax", "orthogonal", lambda row: row | {"ratio": 0.5}, "not enough"),
    ("tail_bounds", "tails", times("bound", 1e-3), "independent directions: shares"),
    ("tail_bounds", "tails", times("bound", 1e-3), "orthogonal directions: shares"),
    ("tail_bounds", "tails", times("high", 1e-3), "Gaussian rows"),
    ("tail_bounds", "tails", lambda row: row | {"bound": 0.5}, "smaller bound"),
    ("tail_bounds", "rare", times("probability", 100), "rare levels"),
    ("tail_bounds", "moments", times("corrected", 2), "constant corrected"),
    ("tail_bounds", "moments", times("library", 1.5), "constant corrected"),
    ("tail_bounds", "moments", times("printed", 0.5), "as printed"),
    ("uniform_convergence", "tokens", times("normal", 0.5), "independent normal errors"),
    ("uniform_convergence", "tokens", times("ceiling", 2), "number of tokens"),
    ("uniform_convergence", "tokens", times("ceiling", 0.5), "number of tokens"),
    ("uniform_convergence", "tokens", lambda row: row | {"median": row["median"] / row["rows"]}, "proportional to ε"),
    ("uniform_convergence", "tokens", times("hoeffding", 0.2), "Hoeffding"),
    ("uniform_convergence", "ball", lambda row: row | {"median": 0.1}, "whole ball"),
    ("uniform_convergence", "sup", times("library", 0.01), "all three bounds"),
    ("uniform_convergence", "sup", lambda row: row | {"median": row["median"] * row["diameter"]}, "slowly"),
    ("uniform_convergence", "spectral", times("bound", 0.01), "below its bound but"),
    ("uniform_convergence", "spectral", times("prediction", 100), "predictions"),
]


@pytest.mark.parametrize(("name", "table", "change", "claim"), DOCTORED, ids=lambda v: v if isinstance(v, str) else "")
def test_claims_fail_on_bad_numbers(results, name, table, change, claim):
    experiment, good = TINY[name], results[name]
    chosen = [verdict for verdict in good.verdicts if claim in verdict.claim]
    assert [verdict.holds for verdict in chosen] == [True]
    tables = good.tables | {table: [change(row) for row in good.tables[table]]}
    bad = {verdict.claim: verdict.holds for verdict in experiment.verdicts(tables, experiment.configure())}
    assert False in [
        holds for text, holds in bad.items() if claim in text or text not in {v.claim for v in good.verdicts}
    ]


def test_every_claim_of_the_theorem_experiments_can_fail(results):
    for name, good in results.items():
        doctored = [claim for other, _, _, claim in DOCTORED if other == name]
        missing = [v.claim for v in good.verdicts if not any(claim in v.claim for claim in doctored)]
        assert missing in ([], [v.claim for v in good.verdicts if "overtake" in v.claim])


# published digits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "digits"),
    [
        (0.5, ("0.0080", "0.197", "2.45", "20.8")),
        (1.0, ("0.0060", "0.432", "17.8", "231")),
        (1.5, ("4.6e-4", "0.494", "396", "1.3e4")),
        (2.0, ("5.0e-6", "0.500", "4.5e4", "6.3e6")),
    ],
)
def test_ratio_of_trigonometric_and_positive_errors(length, digits):
    ratio = trig_vs_positive.relative_mse("trig pairs", length, trig_vs_positive.ANGLES)
    ratio = ratio / trig_vs_positive.relative_mse("positive", length, trig_vs_positive.ANGLES)
    for value, text in zip(ratio, digits, strict=True):
        significant = len(text.split("e")[0].replace(".", "").lstrip("0"))
        assert float(f"{value:.{significant - 1}e}") == float(text)


def test_overtaking_fails_without_the_crossing(monkeypatch, results):
    experiment, good = TINY["trig_vs_positive"], results["trig_vs_positive"]
    right = trig_vs_positive.crossing
    monkeypatch.setattr(trig_vs_positive, "crossing", lambda name, length: 0.9 * right(name, length))
    bad = [v.holds for v in experiment.verdicts(good.tables, experiment.configure()) if "overtake" in v.claim]
    assert bad == [False]


TABLE = """
4   0.5 0.915 0.330 0.290 0.393 0.337 0.445 0.691
4   1   0.887 0.510 0.505 0.632 0.557 0.409 0.668
4   2   0.905 0.761 0.772 0.865 0.801 0.406 0.652
4   4   0.972 0.956 0.959 0.982 0.963 0.605 0.720
16  0.5 0.847 0.135 0.242 0.393 0.251 0.143 0.204
16  1   0.782 0.274 0.437 0.632 0.428 0.158 0.217
16  2   0.791 0.552 0.707 0.865 0.669 0.284 0.333
16  4   0.922 0.882 0.934 0.982 0.909 0.671 0.690
64  0.5 0.819 0.064 0.232 0.393 0.215 0.052 0.067
64  1   0.731 0.170 0.423 0.632 0.367 0.098 0.112
64  2   0.722 0.432 0.692 0.865 0.591 0.276 0.288
64  4   0.879 0.818 0.928 0.982 0.862 0.691 0.695
"""


def test_errors_of_coupled_rows_relative_to_independent_ones():
    """To all printed digits: orthogonal, simplex, centered, antithetic, both; trigonometric orthogonal, simplex."""
    kinds = [("positive", c) for c in orthogonal_gain.ORDERED]
    kinds += [("trig pairs", "orthogonal"), ("trig pairs", "simplex")]
    for line in TABLE.strip().splitlines():
        dim, distance, *digits = line.split()
        for (estimator, coupling), text in zip(kinds, digits, strict=True):
            both = (
                float(orthogonal_gain.relative_mse(estimator, c, float(distance), int(dim), int(dim)))
                for c in (coupling, "independent")
            )
            assert next(both) / next(both) == pytest.approx(float(text), abs=6e-4), (line, coupling)


@pytest.mark.parametrize("dim", [3, 4, 5, 6, 8, 12, 16])
def test_change_of_sign_is_a_root_of_the_kummer_function(dim):
    settings = dataclasses.replace(TINY["orthogonal_gain"].settings, sign_draws=10)
    (row,) = orthogonal_gain.SignCell(dim).measure(settings)["sign"]
    assert row["change"] == pytest.approx(orthogonal_gain.SIGN_CHANGES[dim], rel=5e-3)
    for factor, sign in ((0.99, -1), (1.01, 1)):
        t = factor * row["change"]
        assert np.sign(hyp1f1(dim, dim / 2, -t / 2) - math.exp(-t)) == sign


@pytest.mark.parametrize(
    ("dim", "digits"),
    [
        (16, (0.987, 0.952, 0.837, 0.548, 0.152)),
        (64, (0.996, 0.986, 0.945, 0.810, 0.471)),
        (256, (0.999, 0.996, 0.985, 0.942, 0.795)),
    ],
)
def test_regularized_over_softmax(dim, digits):
    u = np.array([1.0, 2, 4, 8, 16])
    np.testing.assert_allclose(regularized_softmax.ratio(u, dim), digits, atol=6e-4)
    law = rf.Orthogonal(norms="constant").row_law(dim)  # what the matrices are evaluated with
    np.testing.assert_allclose(law.row_mean(u), regularized_softmax.ratio(u, dim), rtol=1e-12)


# what they are measured with -----------------------------------------------------------------------------------------


def test_pairs_have_their_distances():
    x, y = pairs_at([[1.0, 2.0], [0.0, 5.0]], 0.7, 5)
    np.testing.assert_allclose(np.sum((x + y) ** 2, axis=-1), [[1, 2], [0, 5]], atol=1e-14)
    np.testing.assert_allclose(np.sum((x - y) ** 2, axis=-1), 0.7)
    assert judge(1.0, 0.0, 1.0)["z"] == 0
    assert judge(1.1, 0.0, 1.0)["z"] == math.inf
    assert worst([], 0.01)[2] is False


def test_importance_sampling_has_the_probability_of_a_single_row():
    """One row: P[e^{4s} > a] is a tail of the coordinate s; limit of 5 standard errors."""
    from scipy.special import betainc

    settings = dataclasses.replace(TINY["tail_bounds"].settings, num_rows=1, tilted_draws=20_000)
    for level in (3.0, 8.0):
        (row,) = tail_bounds.RareCell(level).measure(settings)["rare"]
        s = math.log(level * math.exp(0.5)) / 4
        exact = betainc(7.5, 0.5, 1 - s * s) / 2
        assert abs(row["probability"] - exact) < 5 * row["standard_error"]
        assert row["standard_error"] < 0.05 * exact


def test_binomial_interval():
    low, high = tail_bounds.interval(0, 100, 0.1)
    assert (low, high) == (0.0, pytest.approx(1 - 0.05**0.01))
    low, high = tail_bounds.interval(100, 100, 0.1)
    assert (low, high) == (pytest.approx(0.05**0.01), 1.0)


def test_ascent_finds_the_largest_error_that_a_fine_grid_finds():
    rows = np.random.default_rng(0).standard_normal((50, 1))
    delta = np.linspace(-3, 3, 20_001)
    exact = np.max(np.abs(np.mean(np.cos(delta[:, None] * rows[:, 0]), axis=1) - np.exp(-(delta**2) / 2)))
    assert largest_error(rows, 3.0, np.linspace(-3, 3, 12)[:, None]) == pytest.approx(exact, rel=1e-4)


def test_median_of_the_largest_of_normal_errors():
    """One entry: the median of |N(0, v)|, 0.6745 standard deviations."""
    estimator, counts = rf.TrigonometricFeatures(coupling="independent"), np.zeros(400)
    counts[200] = 1
    t = 200.5 / 100
    deviation = math.sqrt(math.exp(2) * (1 - math.exp(-t)) ** 2 / 2 / 64)
    assert normal_median(estimator, counts, 64) == pytest.approx(0.6744897501960817 * deviation, rel=1e-9)
