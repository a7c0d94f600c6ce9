"""Bounds: against exact values, integrals and enumeration; hypotheses; printed versions where they are false."""

import math

import mpmath
import numpy as np
import pytest
from scipy.special import bdtr, hyp1f1, pdtr

import randfeat as rf
from randfeat.bounds.regularized import log_products

U = np.concatenate([[0.0], np.geomspace(1e-3, 60, 40)])
CONSTANT = rf.Orthogonal(norms="constant")


def pair(u, dim):
    """x with |x + x|² = u."""
    return np.sqrt(np.asarray(u))[..., None] / 2 * np.eye(dim)[0]


# bias and orthogonal gain --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3, 16, 64, 1000])
def test_regularized_softmax_is_between_its_bound_and_one(dim):
    ratio = CONSTANT.row_law(dim).row_mean(U)
    bound = rf.bounds.regularized_softmax_bound(U, dim)
    assert np.all(bound <= ratio * (1 + 1e-13))
    assert np.all(ratio <= 1 + 1e-13)
    assert bound[0] == 1


def test_regularized_softmax_bound_has_the_rate_of_the_truth_and_the_published_one_has_not():
    dims = np.array([64, 256, 1024])
    truth = np.array([1 - CONSTANT.row_law(int(d)).row_mean(2.0) for d in dims])
    bound = np.array([1 - rf.bounds.regularized_softmax_bound(2.0, int(d)) for d in dims])
    published = 2 * dims ** (-1 / 3)
    assert np.all(np.abs(bound / truth - 1) < 6 / dims)
    assert np.all(published / truth > 30)
    # Large u: sums over integers are the better bound there.
    assert rf.bounds.regularized_softmax_bound(64.0, 64) > 10 * math.exp(-(64**2) / 256)


def test_the_sum_over_integers_is_the_maximum():
    u, dim = 9.0, 5
    every = [math.prod(dim / (dim + 2 * j) for j in range(n)) * pdtr(n, u / 2) for n in range(60)]
    assert rf.bounds.regularized_softmax_bound(u, dim) == pytest.approx(max(*every, math.exp(-(u**2) / 20)), rel=1e-12)
    np.testing.assert_allclose(np.exp(log_products(dim, 3)), [1, 1, 5 / 7, 5 / 7 * 5 / 9])


@pytest.mark.parametrize("norms", ["chi", "constant"])
@pytest.mark.parametrize(("dim", "rows"), [(2, 2), (3, 2), (8, 8), (8, 21), (64, 64)])
def test_orthogonal_gain_is_at_least_its_bound(norms, dim, rows):
    """Exact gap over the bound: at least 1 everywhere, 1 + O(u) for small u."""
    u = np.geomspace(1e-4, 30, 40)
    orthogonal = rf.Orthogonal(norms)
    own, pairs = orthogonal.row_law(dim), orthogonal.pair_laws(rows, dim)
    assert np.all(own.covariance(u) > 0)
    gap = sum(-count * law.covariance(u) for count, law in pairs) / rows**2
    ratio = gap / rf.bounds.orthogonal_gain_bound(u, dim, rows, norms=norms)
    assert np.all(ratio >= 1 - 1e-10)
    assert ratio[0] == pytest.approx(1, abs=1e-3)
    assert ratio[-1] > 1.5


def test_orthogonal_gain_is_about_the_estimator():
    x = pair([0.5, 3.0], 6)
    gap = np.subtract(
        *[
            rf.PositiveFeatures(coupling=c).relative_variance(x, x, num_features=14)
            for c in ("independent", "orthogonal")
        ]
    )
    exact = 6 * 5 * 2 + 2
    np.testing.assert_allclose(gap, exact / 14**2 * (1 - hyp1f1(6, 3, [0.25, 1.5]) * np.exp([-0.5, -3.0])), rtol=1e-10)
    assert np.all(rf.bounds.orthogonal_gain_bound([0.5, 3.0], 6, 14) < gap)


# tails ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dim", "u", "theta"), [(2, 1.0, 0.5), (4, 0.3, 0.4), (16, 2.0, 3.0), (64, 4.0, 1e-4), (5, 9.0, 2.9)]
)
def test_moment_generating_function_is_the_integral(dim, u, theta):
    slope = math.sqrt(dim * u)

    def density(s):  # of an angle: the sine of a uniform direction
        return mpmath.cos(s) ** (dim - 2)

    weight = mpmath.quad(density, [-mpmath.pi / 2, 0, mpmath.pi / 2])
    total = mpmath.quad(lambda s: density(s) * mpmath.exp(theta * mpmath.exp(slope * mpmath.sin(s))),
                        mpmath.linspace(-mpmath.pi / 2, mpmath.pi / 2, 9))  # fmt: skip
    expected = float(mpmath.log(total / weight))
    assert rf.bounds.log_moment_generating_function(theta, u, dim, 3) == pytest.approx(3 * expected, rel=1e-11)


def exact_pair_of_orthogonal_rows(u, theta, dim=4):
    """`M²` and `E exp(θ(X_1 + X_2))` in d = 4, where two coordinates of a unit vector are uniform on the disc."""
    assert dim == 4
    nodes, weights = np.polynomial.legendre.leggauss(200)
    radius, angle = (nodes[:, None] + 1) / 2, (np.arange(400) + 0.5) * 2 * np.pi / 400
    x, y = (np.exp(theta * np.exp(np.sqrt(dim * u) * radius * f(angle))) for f in (np.cos, np.sin))
    mean = lambda values: float(np.sum(weights[:, None] * radius * values) / 400)  # noqa: E731
    return mean(x) ** 2, mean(x * y)


@pytest.mark.parametrize(("u", "theta"), [(0.5, 0.5), (1.0, 0.45), (0.3, 0.4), (2.0, 0.1), (0.01, 2.0)])
def test_orthogonal_rows_have_the_smaller_moments_that_are_claimed(u, theta):
    independent, orthogonal = exact_pair_of_orthogonal_rows(u, theta)
    gap = rf.bounds.orthogonal_moment_gap(theta, u, 4, 2)
    ours = np.exp(rf.bounds.log_moment_generating_function(theta, u, 4, 2, coupling="orthogonal"))
    assert 0 < gap < independent - orthogonal
    assert orthogonal <= ours * (1 + 1e-12)
    assert ours < independent - gap  # sharper than the published argument
    assert np.exp(rf.bounds.log_moment_generating_function(theta, u, 4, 2)) == pytest.approx(independent, rel=1e-12)


def test_the_printed_orthogonal_gap_is_false_for_two_rows():
    """Λ^m θ⁴ in place of e^{mθΛ} (θΛ)² (1+θΛ)²."""
    envelope, u, theta = 0.02, 0.3, 20.0
    independent, orthogonal = exact_pair_of_orthogonal_rows(u, theta * envelope)
    printed = envelope**2 * theta**4 * 2 / (4 * 6) * u**2
    assert printed == pytest.approx(0.48, abs=0.005)
    assert independent - orthogonal == pytest.approx(0.0091, abs=5e-5)
    assert rf.bounds.orthogonal_moment_gap(theta * envelope, u, 4, 2) < independent - orthogonal


def test_blocks_of_orthogonal_rows_multiply():
    whole = rf.bounds.log_moment_generating_function(0.3, 1.0, 4, 10, coupling="orthogonal")
    parts = [rf.bounds.log_moment_generating_function(0.3, 1.0, 4, n, coupling="orthogonal") for n in (4, 4, 2)]
    assert whole == pytest.approx(sum(parts), rel=1e-13)
    assert rf.bounds.log_moment_generating_function(0.3, 1.0, 4, 1, coupling="orthogonal") == pytest.approx(
        rf.bounds.log_moment_generating_function(0.3, 1.0, 4, 1), rel=1e-13
    )


@pytest.mark.parametrize("coupling", ["independent", "orthogonal"])
def test_tails_stay_below_their_bounds(coupling):
    """40 000 estimates: a share above its bound by 5 standard errors would be a false alarm in 1e-6 of runs."""
    dim, rows, u, draws = 6, 9, 1.0, 40_000
    law = rf.Orthogonal(norms="constant")
    rng = np.random.default_rng(0)
    if coupling == "orthogonal":
        samples = law.sample(rows, dim, rng=rng, batch_shape=(draws,))
    else:
        samples = law.sample(1, dim, rng=rng, batch_shape=(draws * rows,)).reshape(draws, rows, dim)
    estimate = np.mean(np.exp(samples[..., 0] * math.sqrt(u)), axis=-1) * math.exp(-u / 2)
    levels = np.array([0.95, 1.2, 1.5, 2.0, 2.5])
    share = np.mean(estimate[:, None] > levels, axis=0)
    bound = rf.bounds.chernoff_bound(levels, u, dim, rows, coupling=coupling)
    assert np.all(share <= bound + 5 * np.sqrt(bound / draws))
    assert np.all(bound[1:3] < 20 * share[1:3])
    lower = rf.bounds.lower_tail_bound([0.4, 0.6, 0.8], CONSTANT.row_law(dim).covariance(u), rows)
    if coupling == "independent":  # levels relative to the mean, which is SMREG here
        low = np.mean(estimate[:, None] <= np.array([0.4, 0.6, 0.8]) * CONSTANT.row_law(dim).row_mean(u), axis=0)
        assert np.all(low <= lower)
        assert np.any(low > 0)


def test_chernoff_bounds_are_ordered_and_end_where_the_estimate_does():
    levels = np.linspace(0.5, 40, 30)
    independent, orthogonal = (
        rf.bounds.chernoff_bound(levels, 1.0, 16, 16, coupling=c) for c in ("independent", "orthogonal")
    )
    assert np.all(orthogonal <= independent)
    assert np.all(np.diff(independent) <= 0)
    assert independent[0] == 1
    largest = math.exp(math.sqrt(16) - 0.5)
    assert np.all((independent == 0) == (levels >= largest))
    assert rf.bounds.chernoff_bound(0.99, 0.0, 4, 3) == 1
    assert rf.bounds.chernoff_bound(1.01, 0.0, 4, 3) == 0


@pytest.mark.parametrize("u", [0.25, 1.0])
def test_rows_of_random_length_have_a_heavy_upper_tail_and_a_light_lower_one(u):
    """One row: the first is the exact tail. Several: a bound, by simulation with a limit of 5 standard errors."""
    levels = np.array([1.5, 3.0, 6.0])
    exact = 0.5 * np.array([math.erfc((math.log(a) + u / 2) / math.sqrt(2 * u)) for a in levels])
    np.testing.assert_allclose(rf.bounds.heavy_tail_bound(levels, u, 1), exact, rtol=1e-12)
    draws = np.exp(math.sqrt(u) * np.random.default_rng(1).standard_normal((100_000, 4)) - u / 2).mean(axis=1)
    share, bound = np.mean(draws[:, None] > levels, axis=0), rf.bounds.heavy_tail_bound(levels, u, 4)
    assert np.all(bound <= share + 5 * np.sqrt(share / 1e5) + 5e-5)
    low = np.array([0.2, 0.5, 0.8])
    assert np.all(np.mean(draws[:, None] <= low, axis=0) <= rf.bounds.lower_tail_bound(low, np.expm1(u), 4))
    assert rf.bounds.heavy_tail_bound(0.5, 0.0, 1) == 1
    assert rf.bounds.heavy_tail_bound(1.5, 0.0, 1) == 0


# uniform error -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variance", "rows"), [(6, 400), (6, 1000), (19, 400), (19, 1000)])
def test_the_lower_tail_of_rare_rows(variance, rows):
    """Estimates 0 or 1 + V, exactly binomial: a tail of variance V, for which `exp(-m (1-l)²/(2 + V))` is too low."""
    p = 1 / (1 + variance)
    levels = np.array([0.3, 0.5, 0.7, 0.8])
    exact = bdtr(np.floor(levels * rows * p + 1e-9), rows, p)
    bound = rf.bounds.lower_tail_bound(levels, variance, rows)
    assert np.all(exact <= bound)
    assert np.any(exact > np.exp(-rows * (1 - levels) ** 2 / (2 + variance)))
    np.testing.assert_allclose(bound, np.exp(-rows * (1 - levels) ** 2 / (2 * (1 + variance))), rtol=1e-12)


def test_published_constants():
    """66 and 98 are the largest values, over d, of the constants that belong to σℓ/ε = 1."""
    dims = np.arange(10, 200)
    for variant, constant, rate in (("pairs", 66, lambda d: 4 * (d + 2)), ("phase", 98, lambda d: 32 * (d + 1))):
        error = 0.01
        values = [
            rf.bounds.sutherland_schneider_bound(
                error, 1.000001 * error / math.sqrt(d), int(d), 250 * rate(d) / error**2, variant=variant
            )
            * math.exp(250)
            for d in dims
        ]
        assert max(values) == pytest.approx(constant, rel=1e-3)
    rows = 6000
    expected = 2**8 * 3 * (2 / 0.3) ** 2 * math.exp(-rows * 0.09 / 20)
    assert rf.bounds.rahimi_recht_bound(0.3, 2.0, 3, rows) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("variant", ["pairs", "phase"])
@pytest.mark.parametrize("dim", [1, 2, 16])
def test_the_net_is_the_best_one(variant, dim):
    """No radius of the net makes the sum of its two terms smaller."""
    error, diameter = 0.2, 3.0
    rows = int(rf.bounds.sup_error_num_rows(error, diameter, dim, failure=1e-3, variant=variant))
    bound = rf.bounds.sup_error_bound(error, diameter, dim, rows, variant=variant)
    radius, g = np.geomspace(1e-6, 10, 4001), math.exp(-0.5)
    if variant == "pairs":
        log_net = dim * np.log(4 * diameter / radius) - rows * error**2 / 8
        slope = math.sqrt(dim) + g
    else:
        log_net = 2 * dim * np.log(math.sqrt(8) * diameter / radius) - rows * error**2 / 32
        slope = 2 * math.sqrt(dim) + math.sqrt(2) * g
    total = 2 * np.exp(np.minimum(log_net, 600)) + (2 * radius * slope / error) ** 2
    assert bound == pytest.approx(np.min(total), rel=2e-3, abs=0)  # approx has an absolute tolerance of its own
    assert 0.9e-3 < bound <= 1e-3
    assert rf.bounds.sutherland_schneider_bound(error, diameter, dim, rows, variant=variant) < bound < 1


def test_the_slope_is_a_supremum():
    """For one row in one dimension the mean squared largest slope is above σ² = 1, and below (σ + g)²."""
    w = np.random.default_rng(0).standard_normal(4000)
    delta = np.linspace(-8, 8, 2001)
    slope = np.max(np.abs(-w[:, None] * np.sin(w[:, None] * delta) + delta * np.exp(-(delta**2) / 2)), axis=1)
    mean, spread = np.mean(slope**2), np.std(slope**2) / math.sqrt(4000)
    assert mean > 1 + 5 * spread
    assert mean < (1 + math.exp(-0.5)) ** 2


@pytest.mark.parametrize("variant", ["pairs", "phase"])
def test_number_of_rows_inverts_the_bound(variant):
    rows = rf.bounds.sup_error_num_rows([0.1, 0.3], 2.0, 5, failure=0.05, variant=variant)
    for error, m in zip((0.1, 0.3), rows, strict=True):
        bounds = rf.bounds.sup_error_bound(error, 2.0, 5, [m, m - 1], variant=variant)
        assert bounds[0] <= 0.05 < bounds[1]


def test_attention_needs_the_error_of_its_kernel():
    dim, radius, error = 16, 2.0, 0.2
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 50, dim))
    q, k = (radius * v / np.linalg.norm(v, axis=1, keepdims=True) for v in (q, k))
    rows = int(rf.bounds.attention_num_rows(error, dim, radius, failure=0.1))
    assert rows == rf.bounds.sup_error_num_rows(error / math.e, 2.0, dim, failure=0.1)
    phi = rf.TrigonometricFeatures(coupling="independent").draw(dim, 2 * 2000, rng=0)
    exact = np.exp(q @ k.T / math.sqrt(dim))
    difference = np.max(np.abs(phi.estimate(q / dim**0.25, k / dim**0.25) - exact))
    gaussian = rf.TrigonometricFeatures(rf.GaussianKernel(), coupling="independent").draw(dim, 2 * 2000, rng=0)
    kernel_error = gaussian.estimate(q / dim**0.25, k / dim**0.25) - exact / math.e
    assert difference == pytest.approx(math.e * np.max(np.abs(kernel_error)), rel=1e-9)
    assert difference < error  # with 2000 rows; the bound asks for more
    assert rows > 20 * 2000
    # Hoeffding over the 2500 entries asks for less.
    assert rf.bounds.finite_num_rows(error / math.e, 2500, failure=0.1) < rows / 45


# spectral error ------------------------------------------------------------------------------------------------------


def test_spectral_error_is_the_least_that_sandwiches():
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((12, 12))
    gram, noise = factor @ factor.T, rng.standard_normal((12, 12))
    estimate, ridge = gram + (noise + noise.T) / 5, 0.7
    least = rf.bounds.spectral_error(gram, estimate, ridge)
    base = gram + ridge * np.eye(12)
    above = [np.linalg.eigvalsh((1 + s) * base - estimate - ridge * np.eye(12)).min() for s in (least, 0.99 * least)]
    below = [np.linalg.eigvalsh(estimate + ridge * np.eye(12) - (1 - s) * base).min() for s in (least, 0.99 * least)]
    assert min(above[0], below[0]) == pytest.approx(0, abs=1e-9)
    assert min(above[1], below[1]) < -1e-4
    values = np.linalg.eigvalsh(gram)
    assert rf.bounds.effective_dimension(gram, ridge) == pytest.approx(np.sum(values / (values + ridge)))


def test_spectral_num_rows_suffice():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40, 2))
    gram, ridge = rf.GaussianKernel()(x, x), 6.0
    size = rf.bounds.effective_dimension(gram, ridge)
    rows = int(rf.bounds.spectral_num_rows(0.5, 40, ridge, size, failure=0.1))
    assert rows == math.ceil(8 / 3 * 4 * 40 / ridge * math.log(160 * size))
    phi = rf.TrigonometricFeatures(rf.GaussianKernel(), coupling="independent")
    errors = [rf.bounds.spectral_error(gram, phi.draw(2, 2 * rows, rng=s).estimate(x, x), ridge) for s in range(30)]
    assert max(errors) <= 0.5


# arguments -----------------------------------------------------------------------------------------------------------

B = rf.bounds


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: B.regularized_softmax_bound(-1.0, 4), "u must not be negative"),
        (lambda: B.regularized_softmax_bound(1.0, 0), "dim must be a positive integer"),
        (lambda: B.orthogonal_gain_bound(1.0, 4, 0), "num_rows must be a positive integer"),
        (lambda: B.orthogonal_gain_bound(1.0, 4, 2, norms="gamma"), "norms must be 'chi' or 'constant'"),
        (lambda: B.chernoff_bound(1.0, 1.0, 1, 4), "dim must be at least 2"),
        (
            lambda: B.chernoff_bound(1.0, 1.0, 4, 4, coupling="simplex"),
            "coupling must be 'independent' or 'orthogonal'",
        ),
        (lambda: B.chernoff_bound(float("nan"), 1.0, 4, 4), "level must not be negative"),
        (lambda: B.log_moment_generating_function(1e9, 1.0, 4), "theta .* must be at most 1e\\+08"),
        (lambda: B.orthogonal_moment_gap(1.0, 1.0, 4, 5), "num_rows must be at most dim = 4"),
        (lambda: B.finite_num_rows(0.0, 5, failure=0.1), "error must be positive"),
        (lambda: B.finite_num_rows(0.1, 5, failure=1.0), "failure must be a probability"),
        (lambda: B.sup_error_bound(0.1, 1.0, 2, 100, variant="sines"), "variant must be 'pairs' or 'phase'"),
        (lambda: B.sup_error_num_rows(3.0, 1.0, 2, failure=0.1), "error must be at most √dim"),
        (lambda: B.spectral_num_rows(0.6, 5, 1.0, 1.0, failure=0.1), "error must be at most 1/2"),
        (lambda: B.effective_dimension(np.ones((2, 3)), 1.0), "gram must be a square matrix"),
        (lambda: B.spectral_error(np.eye(2), np.eye(2), 0.0), "ridge must be positive"),
    ],
)
def test_bad_arguments_are_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nothing_is_claimed_where_a_hypothesis_fails():
    for bound in (B.sup_error_bound, B.sutherland_schneider_bound, B.rahimi_recht_bound):
        assert bound(3.0, 1.0, 4, 10**6) == 1
