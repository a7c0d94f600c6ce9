"""sampled_softmax: the tree and its law, exact biases by brute force, and verdicts that can fail."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import chi2

import randfeat as rf
from experiments import sampled_softmax
from experiments.sampled_softmax import laws
from experiments.sampled_softmax.gradients import GradientCell, sampled_means
from experiments.sampled_softmax.measure import pearson
from experiments.sampled_softmax.settings import FITTED, PLAIN
from experiments.sampled_softmax.tree import KernelTree, log_values
from experiments.sampled_softmax.verdicts import verdicts
from tests.running import run_in_memory

TINY = dataclasses.replace(
    sampled_softmax.EXPERIMENT.quick,
    num_classes=150,
    num_clusters=8,
    dim=6,
    num_queries=6,
    taus=(0.5, 2.0),
    num_features=(64, 512),
    tree_features=32,
    num_draws=4000,
    num_samples=100,
    speed_classes=(64, 4096, 8192, 16384),
    speed_queries=16,
    speed_rounds=1,
    false_alarm=1e-6,
)


def tree_over(num_classes, *, dim=5, num_features=16, length=0.7, seed=0):
    rng = np.random.default_rng(seed)
    classes, queries = (length * rng.standard_normal((n, dim)) for n in (num_classes, 3))
    phi = rf.PositiveFeatures().draw(dim, num_features, rng=rng)
    return KernelTree.of(phi, classes), phi, classes, queries


# the tree ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [1, 2, 3, 7, 8, 9, 100])
def test_law_is_the_feature_kernel_and_every_draw_knows_its_probability(num_classes):
    tree, phi, classes, queries = tree_over(num_classes)
    kernel = phi(queries) @ phi(classes).T
    np.testing.assert_allclose(np.exp(tree.log_law(queries)), kernel / kernel.sum(1, keepdims=True), rtol=1e-12)
    drawn, log_law = tree.draw(queries, 200, rng=1)
    assert drawn.min() >= 0
    assert drawn.max() < num_classes
    np.testing.assert_allclose(log_law, np.take_along_axis(tree.log_law(queries), drawn, axis=1), atol=1e-12)


def chi_square(tree, law, queries, num_draws=20_000):
    drawn = tree.draw(queries[:1], num_draws, rng=2)[0].ravel()
    statistic, bins = pearson(np.bincount(drawn, minlength=tree.num_classes), law[0])
    return chi2.sf(statistic, bins - 1)


def test_frequencies_are_those_of_the_law_and_the_test_sees_a_wrong_sum():
    tree, _, _, queries = tree_over(100)
    law = np.exp(tree.log_law(queries))
    assert chi_square(tree, law, queries) > 1e-6
    broken = dataclasses.replace(tree, sums=tree.sums.copy())
    # One child of node 2 is taken with 1.3/2.3 instead of half: 13 % of half the mass, which adds about 170 to a
    # statistic of mean 99 and deviation 14.
    broken.sums[5] *= 1.3
    assert chi_square(broken, law, queries) < 1e-6


def test_vectors_of_any_length_neither_overflow_nor_lose_the_mass():
    """Logits up to ten thousand: the log of the features far beyond the range of floats."""
    tree, _, _, queries = tree_over(50, length=60.0)
    assert np.all(np.isfinite(tree.sums))
    np.testing.assert_allclose(np.exp(tree.log_law(queries)).sum(1), 1.0, rtol=1e-12)
    assert np.all(np.isfinite(tree.draw(queries, 100, rng=0)[1]))


def replace_classes(tree, indices, classes):
    """Put other vectors (k, d) in the place of these classes, in O(k m log n); in place, for training.

    What was taken out of the features stays as it was. Every sum is added up again from its children, so replacements
    leave no rounding behind.
    """
    nodes = len(tree.sums) // 2 + indices
    tree.sums[nodes] = np.exp(log_values(tree.phi.keys(classes)) - tree.log_tops)
    for _ in range(tree.depth):
        nodes = np.unique(nodes // 2)
        tree.sums[nodes] = tree.sums[2 * nodes] + tree.sums[2 * nodes + 1]


def test_replaced_classes_make_the_tree_that_is_built_from_them():
    tree, phi, classes, queries = tree_over(37)
    before = tree.log_law(queries)
    indices = np.asarray([0, 5, 6, 36])
    changed = classes.copy()
    changed[indices] = classes[indices[::-1]] / 2
    replace_classes(tree, indices, changed[indices])
    expected = KernelTree.of(phi, changed)
    np.testing.assert_allclose(tree.log_law(queries), expected.log_law(queries), atol=1e-12)
    assert not np.allclose(before, tree.log_law(queries), atol=1e-3)
    replace_classes(tree, indices, classes[indices])
    untouched, *_ = tree_over(37)
    replace_classes(untouched, indices, classes[indices])  # by the same products of four rows
    np.testing.assert_array_equal(tree.log_law(queries), untouched.log_law(queries))  # nothing was left behind


def test_bad_input_is_refused():
    tree, _, classes, queries = tree_over(5)
    signed = rf.TrigonometricFeatures(rf.SoftmaxKernel()).draw(5, 16, rng=0)
    with pytest.raises(ValueError, match="phi must have positive features, got TrigonometricFeatures"):
        KernelTree.of(signed, classes)
    with pytest.raises(ValueError, match="classes must be finite"):
        KernelTree.of(tree.phi, np.where(np.arange(5)[:, None] == 2, np.nan, classes))
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        tree.draw(queries, 0)


# biases and distances ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problem():
    return laws.make_problem(12, 4, 3, 3, rng=np.random.default_rng(0))


def skewed(problem, tau, spread=0.7):
    """Weights of the softmax times random factors."""
    logits = problem.logits(tau)
    law = laws.softmax(logits + spread * np.random.default_rng(1).standard_normal(logits.shape))
    return laws.without_target(law, problem.targets)


def enumerated_bias(problem, tau, law, number):
    """The mean over all ordered samples of `number` negatives, less the exact one."""
    result = []
    for i, target in enumerate(problem.targets):
        logits = problem.logits(tau)[i]
        samples = np.stack(np.meshgrid(*[np.arange(12)] * number, indexing="ij"), axis=-1).reshape(-1, number)
        samples = samples[np.all(samples != target, axis=1)]
        with np.errstate(divide="ignore"):
            means = sampled_means(logits, target, samples, np.log(law[i]), problem.classes)
        weights = np.prod(law[i][samples], axis=1)
        result.append(weights @ means - laws.softmax(logits) @ problem.classes)
    return np.asarray(result)


def test_bias_of_one_negative_is_the_sum_over_all_negatives(problem):
    law = skewed(problem, 3.0)
    expected = enumerated_bias(problem, 3.0, law, 1)
    np.testing.assert_allclose(laws.bias_of_one_negative(problem, 3.0, law), expected, atol=1e-14)
    assert np.min(np.linalg.norm(expected, axis=1)) > 1e-3


def test_first_order_of_the_bias_is_its_limit(problem):
    """s times the bias tends to it like 1/s: twice the last value less the one before is nearer still."""
    law = skewed(problem, 1.0, spread=0.3)
    limit = laws.limiting_bias(problem, 1.0, law)
    two, four = (s * enumerated_bias(problem, 1.0, law, s) for s in (2, 4))
    assert np.linalg.norm(2 * four - two - limit) < 0.1 * np.linalg.norm(limit)
    assert np.linalg.norm(four - limit) < 0.6 * np.linalg.norm(two - limit)


def test_exact_negatives_have_no_bias(problem):
    law = laws.without_target(laws.softmax(problem.logits(3.0)), problem.targets)
    for number in (1, 2):
        np.testing.assert_allclose(enumerated_bias(problem, 3.0, law, number), 0, atol=1e-15)
    np.testing.assert_allclose(laws.limiting_bias(problem, 3.0, law), 0, atol=1e-15)


def test_delta_method_uses_the_covariance_of_the_library():
    rng = np.random.default_rng(3)
    query, classes = 0.4 * rng.standard_normal((1, 3)), 0.4 * rng.standard_normal((2, 3))
    p = laws.softmax(query @ classes.T)
    # Two classes: ε_1 - Σ p ε = p_2 (ε_1 - ε_2), and TV ≈ p_1 p_2 |ε_1 - ε_2|.
    estimator = rf.PositiveFeatures(coupling="independent")
    own = [float(estimator.relative_variance(query[0], c, num_features=64)) for c in classes]
    cross = math.expm1((query[0] + classes[0]) @ (query[0] + classes[1])) / 64
    expected = p[0, 0] * p[0, 1] * math.sqrt((own[0] + own[1] - 2 * cross) * 2 / math.pi)
    assert laws.delta_total_variation(query, classes, p, 64)[0] == pytest.approx(expected, rel=1e-12)


def test_bins_of_the_chi_square_test_are_filled():
    law = np.asarray([1e-4] * 50 + [0.1, 0.2, 0.695])
    counts = np.random.default_rng(0).multinomial(10_000, law / law.sum())
    statistic, bins = pearson(counts, law)
    assert bins == 50 * 1e-4 * 10_000 // 5 + 3
    assert chi2.sf(statistic, bins - 1) > 1e-6
    assert pearson(law * 10_000, law)[0] == pytest.approx(0, abs=1e-20)


# the experiment ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results():
    return run_in_memory(sampled_softmax.EXPERIMENT, TINY)


def test_runs_draws_figures_and_repeats_itself(results):
    assert [
        verdict.claim for verdict in results.verdicts if verdict.holds is False and "time" not in verdict.claim
    ] == []
    assert set(sampled_softmax.EXPERIMENT.plot(results)) == {"sampled_softmax", "sampled_softmax_convergence"}
    assert len(sampled_softmax.EXPERIMENT.summaries(results.tables, TINY)) == 3
    cell = GradientCell(1)
    rows = cell.measure(TINY)["gradients"]
    assert repr(rows) == repr([row for row in results.tables["gradients"] if row["query"] == 1])
    assert repr(rows) != repr(cell.measure(dataclasses.replace(TINY, seed=1))["gradients"])


def of_law(law, column, value):
    return lambda row: row | ({column: value} if row["law"] == law else {})


DOCTORED = [
    ("frequencies", lambda row: row | {"disagreement": 1e-6}, "the probability that the tree gives"),
    ("frequencies", lambda row: row | {"p_value": 1e-12}, "frequencies of tree"),
    ("frequencies", lambda row: row | {"p_value": 1e-12}, "frequencies of Gumbel-max"),
    ("laws", lambda row: row | {"predicted": row["predicted"] / 4, "standard_error": 0.0}, "delta method"),
    ("laws", lambda row: row | {"predicted": 1.0}, "delta method"),
    ("laws", of_law(PLAIN, "total_variation", 0.3), "comes closer"),
    ("laws", of_law("uniform", "total_variation", 0.0), "total variation from the softmax:"),
    ("laws", of_law(FITTED, "bias_of_one", 2.0), "bias of the gradient of a sampled loss"),
    ("laws", of_law("softmax", "bias_of_one", 1e-6), "leave the gradient unbiased"),
    ("gradients", lambda row: row | {"z": 9.0}, "mean of sampled gradients"),
]


@pytest.mark.parametrize(("table", "change", "claim"), DOCTORED)
def test_claims_fail_on_bad_numbers(results, table, change, claim):
    tables = results.tables | {table: [change(row) for row in results.tables[table]]}
    chosen = [verdict.holds for verdict in verdicts(tables, TINY) if claim in verdict.claim]
    assert chosen == [False]


@pytest.mark.parametrize(
    ("power", "words"),
    [(0.1, ["holds", "does not hold"]), (1.0, ["does not hold", "holds"]), (0.6, ["does not hold"] * 2)],
)
def test_growth_of_the_time_is_judged_by_its_slope(results, power, words):
    rows = [row | {"processor": row["num_classes"] ** power} for row in results.tables["speed"]]
    judged = [v.word for v in verdicts(results.tables | {"speed": rows}, TINY) if "growth of the time" in v.claim]
    assert judged == words
    few = [row for row in rows if row["num_classes"] < 10_000]
    judged = [v.word for v in verdicts(results.tables | {"speed": few}, TINY) if "growth of the time" in v.claim]
    assert judged == ["reported"] * 2
