"""Couplings that exist for some numbers of rows only, that carry weights or a bias, or that have no joint closed form.

Statistical limits: |z| < 4.9 fails by chance once in 10^6; what each test would catch is in its docstring.
"""

import functools
import itertools
import math
import sys
import time

import mpmath as mp
import numpy as np
import pytest
from scipy import special, stats
from scipy.linalg import hadamard
from scipy.stats import qmc

import randfeat as rf
from randfeat.couplings import halton
from randfeat.couplings.fixed_pairs import FixedPairs
from randfeat.couplings.halton import first_primes
from randfeat.couplings.hypergeometric import hyp0f1, hyp0f1_minus_one, log_hyp0f1
from randfeat.couplings.laws import GaussianPair, PairLaw, SpherePair
from randfeat.couplings.matched_laws import ScaledGaussianPair, WhitenedPair
from randfeat.couplings.walsh_hadamard import hadamard_matrix, next_power_of_two, walsh_hadamard
from randfeat.montecarlo import gram_variance, sample_errors
from randfeat.testing import check_coupling, check_estimator
from tests.cases import OTHER_COUPLINGS

LIMIT = 4.9
OPEN_PAIRS = (rf.SimplexPlus, rf.Fastfood, rf.Circulant, rf.Sobol, rf.Halton)
TILTED_OPEN = (rf.MomentMatched(), rf.Antithetic(rf.MomentMatched()))


def generator(seed=0):
    return np.random.default_rng(seed)


# the contract --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", OTHER_COUPLINGS, ids=repr)
@pytest.mark.parametrize("dim", [1, 3])
def test_contract(coupling, dim):
    """False alarm 1e-6 per case; 20 000 draws see 9 % in a second moment of one row, 999 times in 1000."""
    report = check_coupling(coupling, dim=dim, rng=np.random.SeedSequence([dim, 11]))
    assert report.checks or (dim == 1 and "GaussHermite" in repr(coupling))  # nothing is random but a sign
    assert all("randfeat.montecarlo" in note for note in report.notes)
    is_open = isinstance(coupling, rf.Hadamard) or (isinstance(coupling, OPEN_PAIRS) and dim > 2)
    assert bool(report.notes) == (is_open or isinstance(coupling, rf.Sobol | rf.Halton))


@pytest.mark.parametrize("coupling", OTHER_COUPLINGS, ids=repr)
@pytest.mark.parametrize(
    "make",
    [rf.PositiveFeatures, rf.TrigonometricFeatures, functools.partial(rf.OptimalPositiveFeatures, exponent=-0.05)],
)
def test_contract_of_estimators(make, coupling):
    """Means and, where there is a closed form, variances; a bias of 3 %, a variance off by 20 % are caught."""
    estimator = make(coupling=coupling)
    dim = 3 if coupling == rf.GaussHermite(nodes=3) else 4
    report = check_estimator(estimator, dim=dim, num_rows=(dim, 2 * dim), rng=5, detectable_variance=0.2)
    assert all("randfeat.montecarlo" in note for note in report.notes)
    tilted = isinstance(estimator, rf.OptimalPositiveFeatures)
    if isinstance(coupling, rf.Hadamard) or (tilted and coupling in TILTED_OPEN):
        assert report.notes
        assert all(note.startswith("mean and variance not checked") for note in report.notes)
        return
    assert len(report.checks) >= 8
    assert any(check.name.startswith("variance") for check in report.checks) == (not isinstance(coupling, OPEN_PAIRS))
    assert bool(report.notes) == isinstance(coupling, OPEN_PAIRS)


@pytest.mark.parametrize("coupling", OTHER_COUPLINGS, ids=repr)
def test_values_and_batches(coupling):
    (rows,) = coupling.nearest_num_rows(8, 3)
    sample = coupling.sample(rows, 3, rng=generator(), batch_shape=(2, 3))
    assert sample.shape == (2, 3, rows, 3)
    distinct = {entry.tobytes() for entry in sample.reshape(6, rows, 3)}
    assert len(distinct) == 6 or coupling == rf.Hadamard(1, norms="constant")  # that has four sets of signs only
    assert len(distinct) > 1
    assert np.array_equal(sample, coupling.sample(rows, 3, rng=generator(), batch_shape=(2, 3)))
    assert coupling == eval(repr(coupling), vars(rf).copy())
    assert hash(coupling) == hash(eval(repr(coupling), vars(rf).copy()))


NAMES = {
    "simplex-plus": rf.SimplexPlus(),
    "hadamard": rf.Hadamard(),
    "fastfood": rf.Fastfood(),
    "circulant": rf.Circulant(),
    "sobol": rf.Sobol(),
    "halton": rf.Halton(),
    "spherical-radial": rf.SphericalRadial(),
    "gauss-hermite": rf.GaussHermite(),
    "moment-matched": rf.MomentMatched(),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_and_declarations(name):
    coupling = NAMES[name]
    assert rf.PositiveFeatures(coupling=name).coupling == coupling
    assert coupling.exact_marginals == (name in ("simplex-plus", "fastfood", "circulant", "sobol", "halton"))
    assert coupling.rotation_invariant == (name not in ("hadamard", "fastfood", "circulant", "sobol", "halton"))


def test_bad_parameters():
    for make in (
        lambda: rf.SimplexPlus(sweeps=-1),
        lambda: rf.SimplexPlus(sweeps=1.5),
        lambda: rf.Hadamard(blocks=0),
        lambda: rf.Hadamard(norms="unit"),
        lambda: rf.GaussHermite(nodes=1),
        lambda: rf.GaussHermite(nodes=33),
        lambda: rf.MomentMatched(order=3),
    ):
        with pytest.raises(ValueError, match=r"must be .*, got"):
            make()


@pytest.mark.parametrize("coupling", [rf.MomentMatched(order=1), rf.MomentMatched(), rf.GaussHermite(2)], ids=repr)
def test_a_bias_that_depends_on_the_width_needs_it(coupling):
    estimator = rf.PositiveFeatures(coupling=coupling)
    x = np.full(2, 0.4)
    with pytest.raises(ValueError, match="pass num_features"):
        estimator.mean(x, x)
    assert 0.8 < estimator.mean(x, x, num_features=4) / np.exp(x @ x) < 1


# SimRF+ --------------------------------------------------------------------------------------------------------------


def test_simplex_plus_is_better_than_the_simplex():
    """d = m = 4, u = 1.1, absolute MSE at |x|² + |y|² = 0.9156: 0.299, 0.327, 0.533, 0.602 (three printed digits).

    The Gram matrices of 2000 draws give the first one to 1 %, with a limit of 5 %; the simplex is 9 % above.
    """
    x = np.eye(4)[0] * np.sqrt(1.1) / 2
    printed = {"simplex": 0.327, "orthogonal": 0.533, "independent": 0.602}
    relative = {c: rf.PositiveFeatures(coupling=c).relative_variance(x, x, num_features=4) for c in printed}
    for name, value in printed.items():
        assert relative[name] / relative["independent"] == pytest.approx(value / 0.602, abs=0.0016)
    plus = rf.PositiveFeatures(coupling="simplex-plus")
    measured = gram_variance(plus, x, x, num_features=4, num_draws=2000, rng=0)
    assert measured.standard_error < 0.011 * measured.value
    ratio, error = measured.value / relative["independent"], measured.standard_error / relative["independent"]
    assert abs(ratio - 0.299 / 0.602) < LIMIT * error + 0.0016
    assert measured.value + LIMIT * measured.standard_error < relative["simplex"]


def simplex_plus_in_loops(norms, sweeps):
    """One block, one draw, one row at a time."""
    size = len(norms)
    vertices = (np.eye(size) - 1 / size) * np.sqrt(size / (size - 1))
    rows = [r * v for r, v in zip(norms, vertices, strict=True)]
    for _ in range(sweeps):
        for i in range(size):
            others = sum(rows[j] for j in range(size) if j != i)
            rows[i] = -norms[i] * others / np.linalg.norm(others)
    return np.array(rows)


@pytest.mark.parametrize("sweeps", [0, 1, 5])
def test_simplex_plus_sweeps(sweeps):
    """Gram matrices of every block are those of the loop, whatever the rotation."""
    sample = rf.SimplexPlus(sweeps).sample(7, 4, rng=generator(3), batch_shape=(2,))
    for draw in sample:
        for block in (draw[:4], draw[4:]):
            expected = simplex_plus_in_loops(np.linalg.norm(block, axis=1), sweeps)
            np.testing.assert_allclose(block @ block.T, expected @ expected.T, atol=1e-12)


def test_simplex_plus_closed_forms():
    """Blocks of one or two rows are those of the simplex, larger ones have no closed form, and one dimension no NaN."""
    assert rf.SimplexPlus().pair_laws(2, 5) == rf.Simplex().pair_laws(2, 5)
    assert rf.SimplexPlus(sweeps=0).pair_laws(9, 5) == rf.Simplex().pair_laws(9, 5)
    with pytest.raises(rf.NoClosedForm, match=r"randfeat\.montecarlo\.gram_variance"):
        rf.PositiveFeatures(coupling="simplex-plus").variance(np.zeros(5), np.ones(5), num_features=3)
    assert np.all(np.isfinite(rf.SimplexPlus().sample(4, 1, rng=generator())))


# Hadamard and Fastfood -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "dense"), [(1, 64), (2, 64), (4, 64), (64, 64), (128, 64), (512, 64), (32, 2), (128, 8)])
def test_walsh_hadamard_transform(monkeypatch, n, dense):
    """Against SciPy's matrix, by one factor or many; the input is left alone."""
    monkeypatch.setattr(sys.modules[walsh_hadamard.__module__], "DENSE", dense)
    x = generator().standard_normal((3, 2, n))
    kept = x.copy()
    np.testing.assert_allclose(walsh_hadamard(x), x @ hadamard(n), atol=1e-13 * n)
    assert np.array_equal(walsh_hadamard(np.sign(x)), np.sign(x) @ hadamard(n))
    assert np.array_equal(x, kept)
    assert np.array_equal(hadamard_matrix(n), hadamard(n))


def test_walsh_hadamard_lengths():
    assert [next_power_of_two(n) for n in (1, 2, 3, 4, 5, 63, 64, 65)] == [1, 2, 4, 4, 8, 64, 64, 128]
    with pytest.raises(ValueError, match="power of two, got 6"):
        walsh_hadamard(np.ones(6))


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize(("dim", "num_rows"), [(4, 4), (8, 11), (4, 2)])
def test_hadamard_rows_are_orthogonal_with_length_root_d(blocks, dim, num_rows):
    rows = rf.Hadamard(blocks, norms="constant").sample(num_rows, dim, rng=generator(blocks))
    for start in range(0, num_rows, dim):
        block = rows[start : start + dim]
        np.testing.assert_allclose(block @ block.T, dim * np.eye(len(block)), atol=1e-12)


@pytest.mark.parametrize("dim", [3, 4])
def test_one_hadamard_factor_makes_rademacher_rows(dim):
    """`E exp(w·z) = Π cosh z_l` for every row, cut or not, of full and of partial blocks: far from e^{|z|²/2}.

    40 000 draws give a standard error of 0.5 %; the bias is 20 % here.
    """
    z = np.array([1.1, 0.3, -0.8, 0.0])[:dim]
    rows = rf.Hadamard(1, norms="constant").sample(7, dim, rng=generator(4), batch_shape=(40_000,))
    assert np.array_equal(np.abs(rows), np.ones_like(rows))
    values = np.exp(rows @ z)
    expected = np.prod(np.cosh(z))
    scores = (values.mean(axis=0) - expected) / (values.std(axis=0) / 200)
    assert np.all(np.abs(scores) < LIMIT)
    assert np.exp(z @ z / 2) / expected > 1.1


def test_hadamard_biases_estimates_and_says_so():
    """Three factors and chi norms: no closed form is offered, and the measured bias of one factor is that of cosh."""
    x = np.eye(4)[0] * 0.4
    one = rf.PositiveFeatures(coupling=rf.Hadamard(1, norms="constant"))
    bias = sample_errors(one, x, x, num_features=4, num_draws=20_000, rng=0).bias()
    assert abs(bias.z(np.cosh(0.8) * np.exp(-0.32) - 1)) < LIMIT
    for method in (one.mean, functools.partial(one.variance, num_features=4)):
        with pytest.raises(rf.NoClosedForm, match=r"randfeat\.montecarlo\.sample_errors"):
            method(x, x)
    with pytest.raises(ValueError, match="not rotation invariant; use sample_errors"):
        gram_variance(one, x, x, num_features=4, num_draws=2)


@pytest.mark.parametrize("dim", [4, 5])
def test_fastfood_rows_are_gaussian(dim):
    """Kolmogorov-Smirnov on a fixed projection of each row, 20 000 draws: p > 1e-6 each; distances of 2 % are seen.

    Planted: rows of the same length within a block (no S) fail, in the law of a difference of squared lengths.
    """
    rows = rf.Fastfood().sample(10, dim, rng=generator(1), batch_shape=(20_000,))
    v = np.arange(1.0, dim + 1) / np.linalg.norm(np.arange(1.0, dim + 1))
    for i in range(10):
        assert stats.kstest(rows[:, i] @ v, "norm").pvalue > 1e-6
        assert stats.kstest(np.sum(rows[:, i] ** 2, axis=-1), stats.chi2(dim).cdf).pvalue > 1e-6
    if dim == 4:  # lengths are independent where nothing is cut
        first, second = np.sum(rows[:, 0] ** 2, axis=-1), np.sum(rows[:, 1] ** 2, axis=-1)
        assert abs(np.corrcoef(first, second)[0, 1]) < LIMIT / np.sqrt(20_000)


def test_circulant_rows_by_loops():
    """Blocks of d, the last cut: each row is g moved by one more place, column l with the sign b_l in all of them."""
    rows = rf.Circulant().sample(11, 4, rng=generator(3), batch_shape=(2,))
    for draw in rows:
        for block in (draw[:4], draw[4:8], draw[8:]):
            g, signs = block[0], [block[1][0] / block[0][3], *(block[1][1:] / block[0][:-1])]
            assert np.all(np.abs(signs) == 1)  # b_l b_{l-1}
            for i in range(1, len(block)):
                for place in range(4):
                    moved = np.prod([signs[(place - step) % 4] for step in range(i)])
                    assert block[i][place] == moved * g[(place - i) % 4]


def test_covariances_of_circulant_exponentials():
    """`E e^r - 1` over all signs, which is not negative; 40 000 draws, |z| < 4.9 for each of six pairs."""
    v = np.array([0.6, -0.5, 0.4, 0.3])
    signs = np.array(list(itertools.product((-1, 1), repeat=4)))
    rows = rf.Circulant().sample(4, 4, rng=generator(5), batch_shape=(40_000,))
    centered = np.exp(rows @ v - v @ v / 2) - 1
    for i, j in itertools.combinations(range(4), 2):
        expected = np.mean(np.expm1(np.sum(signs * v * np.roll(signs * v, i - j, axis=1), axis=1)))
        products = centered[:, i] * centered[:, j]
        assert expected > 0
        assert abs(products.mean() - expected) < LIMIT * products.std() / np.sqrt(40_000)


# quasi-random points -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 6])
def test_sobol_points_are_a_net(dim):
    """2^k rows: one in each of 2^k intervals of every axis; on the first two axes, one in every elementary box."""
    points = special.ndtr(rf.Sobol().sample(32, dim, rng=generator(), batch_shape=(5,)))
    for draw in points:
        for axis in range(dim):
            assert np.array_equal(np.sort(np.floor(32 * draw[:, axis])), np.arange(32))
        for k in range(6) if dim > 1 else ():
            boxes = np.floor(draw[:, 0] * 2**k) * 2 ** (5 - k) + np.floor(draw[:, 1] * 2 ** (5 - k))
            assert np.array_equal(np.sort(boxes), np.arange(32))
    prefix = rf.Sobol().points(5, dim, rng=generator(7))
    assert np.all((prefix > 0) & (prefix < 1))


@pytest.mark.parametrize("dim", [1, 2, 6])
def test_halton_points_are_stratified(dim):
    """The first b² points have one in each of b² intervals of the axis with base b."""
    points = special.ndtr(rf.Halton().sample(169, dim, rng=generator(), batch_shape=(4,)))
    for draw in points:
        for axis, base in enumerate((2, 3, 5, 7, 11, 13)[:dim]):
            strata = np.sort(np.floor(base**2 * draw[: base**2, axis]))
            assert np.array_equal(strata, np.arange(base**2))
    assert first_primes(10) == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]


def test_halton_in_many_dimensions():
    """Axes of large bases: distinct digits, each uniform (fails once in 10^6), and no quadratic cost.

    Whole permutations of all bases are 2.6e9 numbers here and take minutes.
    """
    num, dim = 5, 22_000
    start = time.process_time()
    points = rf.Halton().points(num, dim, rng=generator(), batch_shape=(1,))[0]
    assert time.process_time() - start < 30
    bases = np.array(first_primes(dim))
    assert bases[[0, 9_999, 21_999]].tolist() == [2, 104_729, 249_439]
    digits = np.sort(np.floor(points * bases), axis=0)
    assert np.all(np.diff(digits[:, 2:], axis=0) > 0)
    for row in points[:, 600:]:
        counts = np.bincount((16 * row).astype(int), minlength=16)
        assert stats.chisquare(counts).pvalue > 1e-6 / num
    correlation = np.corrcoef(points[:, 600:])[np.triu_indices(num, 1)]
    assert np.all(np.abs(correlation) < LIMIT / np.sqrt(dim - 600))


def test_halton_permutations_of_many_digits():
    """The images of the first digits are all ordered pairs of different digits, equally often (fails once in 10^6)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(halton, "LONGEST", 1)
        pairs = halton.permutations(4, 2, rng=generator(), batch_shape=(60, 100))
    assert pairs.shape == (60, 100, 2)
    counts = np.zeros((4, 4))
    np.add.at(counts, (pairs[..., 0], pairs[..., 1]), 1)
    assert np.all(np.diagonal(counts) == 0)
    assert stats.chisquare(counts[~np.eye(4, dtype=bool)]).pvalue > 1e-6


@pytest.mark.parametrize(("ours", "theirs"), [(rf.Sobol(), qmc.Sobol), (rf.Halton(), qmc.Halton)])
def test_variance_is_that_of_scipy(ours, theirs):
    """Scrambled by SciPy or here: equal variances (1000 draws each, |z| < 4.9 sees 35 %), below independent rows."""
    v = np.array([0.3, -0.4, 0.2])
    here = np.exp(ours.sample(16, 3, rng=generator(2), batch_shape=(1000,)) @ v).mean(axis=1)
    there = np.array(  # `seed` is called `rng` from SciPy 1.15 on, which takes both
        [np.exp(special.ndtri(theirs(3, scramble=True, seed=seed).random(16)) @ v).mean() for seed in range(1000)]
    )
    squares = [(means - np.exp(v @ v / 2)) ** 2 for means in (here, there)]
    error = np.hypot(*(s.std() / np.sqrt(1000) for s in squares))
    assert abs(squares[0].mean() - squares[1].mean()) < LIMIT * error
    assert squares[0].mean() < 0.5 * np.exp(v @ v) * np.expm1(v @ v) / 16


def test_quasi_random_limits():
    with pytest.raises(ValueError, match="up to dimension 21201"):
        rf.Sobol().sample(4, 30_000, rng=generator())
    for coupling in (rf.Sobol(), rf.Halton()):
        estimator = rf.PositiveFeatures(coupling=coupling)
        assert estimator.relative_variance(np.ones(2), np.ones(2), num_features=1) == pytest.approx(np.expm1(8.0))
        with pytest.raises(rf.NoClosedForm, match=r"randfeat\.montecarlo\.sample_errors"):
            estimator.variance(np.ones(2), np.ones(2), num_features=2)


# quadrature rules ----------------------------------------------------------------------------------------------------


def gaussian_moment(powers):
    """E Π_l w_l^{powers_l} for w ~ N(0, I)."""
    return math.prod(0 if p % 2 else math.prod(range(1, p, 2)) for p in powers)


def monomials(dim, degree):
    return [p for p in itertools.product(range(degree + 1), repeat=dim) if sum(p) <= degree]


@pytest.mark.parametrize(("dim", "num_rows"), [(1, 2), (3, 6), (3, 12), (4, 8)])
def test_spherical_radial_is_exact_to_degree_three(dim, num_rows):
    rows = rf.SphericalRadial().sample(num_rows, dim, rng=generator(dim))
    for powers in monomials(dim, 3):
        assert np.prod(rows**powers, axis=1).mean() == pytest.approx(gaussian_moment(powers), abs=1e-13)
    fourth = np.mean(np.sum(rows**2, axis=1) ** 2)
    assert fourth == pytest.approx(dim**2)  # not d (d + 2)
    half = rf.SphericalRadial().sample(2 * dim + 2, dim, rng=generator(dim))
    assert dim == 1 or not np.allclose(half.T @ half / len(half), np.eye(dim))


def test_spherical_radial_is_antithetic_orthogonal_rows():
    x, y = generator().standard_normal((2, 5, 4)) / 2
    twin = rf.Antithetic(rf.Orthogonal(norms="constant"))
    for cls in (rf.PositiveFeatures, rf.HyperbolicFeatures):
        ours, theirs = cls(coupling="spherical-radial"), cls(coupling=twin)
        assert np.array_equal(ours.mse(x, y, num_features=16), theirs.mse(x, y, num_features=16))
        assert np.array_equal(ours.draw(4, 16, rng=0).estimate(x, y), theirs.draw(4, 16, rng=0).estimate(x, y))


@pytest.mark.parametrize(("nodes", "dim"), [(2, 1), (2, 3), (3, 2), (5, 2), (4, 3)])
def test_gauss_hermite_is_exact_to_degree_2n_minus_1(nodes, dim):
    """Every monomial, through the rotation; |w|^{2n} is off by the known defect n! of the rule on each axis."""
    coupling = rf.GaussHermite(nodes)
    rows = coupling.sample(nodes**dim, dim, rng=generator(nodes), batch_shape=(2,))
    weights = coupling.weights(nodes**dim, dim)
    assert weights.sum() == pytest.approx(1)
    assert np.all(weights > 0)
    for powers in monomials(dim, 2 * nodes - 1):
        size = weights @ np.prod(np.abs(rows[0]) ** powers, axis=-1) + 1
        measured = np.prod(rows**powers, axis=-1) @ weights
        np.testing.assert_allclose(measured, gaussian_moment(powers), atol=1e-12 * size)
    unrotated = rows[0] @ np.linalg.inv(rows[0, :dim] / rows[0, :dim]) if dim == 1 else None
    if unrotated is not None:
        defect = weights @ rows[0, :, 0] ** (2 * nodes)
        assert gaussian_moment([2 * nodes]) - defect == pytest.approx(math.factorial(nodes))


def test_gauss_hermite_is_a_weighted_map():
    """The estimate is `Σ weight_i exp(w_i·(x + y) - (|x|² + |y|²)/2)`, and nearly exact with enough nodes."""
    x, y = generator().standard_normal((2, 3, 2)) / 3
    phi = rf.PositiveFeatures(coupling=rf.GaussHermite(3)).draw(2, 9, rng=0)
    rows, weights = phi.arrays["rows"], rf.GaussHermite(3).weights(9, 2)
    for i, j in itertools.product(range(3), repeat=2):
        terms = [
            w * np.exp(row @ (x[i] + y[j]) - (x[i] @ x[i] + y[j] @ y[j]) / 2)
            for w, row in zip(weights, rows, strict=True)
        ]
        assert phi.estimate(x, y)[i, j] == pytest.approx(sum(terms), rel=1e-12)
    fine = rf.PositiveFeatures(coupling=rf.GaussHermite(12)).draw(2, 144, rng=0)
    np.testing.assert_allclose(fine.estimate(x, y), np.exp(x @ y.T), rtol=1e-10)


@pytest.mark.parametrize("cls", [rf.PositiveFeatures, rf.HyperbolicFeatures, rf.TrigonometricFeatures])
@pytest.mark.parametrize(("nodes", "size"), [(2, 1.0), (3, 1.5), (2, 4.0)])
def test_gauss_hermite_mean_and_variance_by_quadrature(cls, nodes, size):
    """In the plane, over 720 equally spaced rotations (the trapezoidal rule of an analytic periodic function)."""
    x = np.array([np.sqrt(size) / 2, 0.0])
    y = x if cls is not rf.TrigonometricFeatures else -x
    estimator = cls(coupling=rf.GaussHermite(nodes))
    grid = np.array(list(itertools.product(np.polynomial.hermite_e.hermegauss(nodes)[0], repeat=2)))
    weights = rf.GaussHermite(nodes).weights(nodes**2, 2)
    projections = []
    for angle in np.linspace(0, 2 * np.pi, 720, endpoint=False):
        projections.append(grid @ [np.cos(angle), np.sin(angle)] * np.sqrt(size))
    function = {rf.PositiveFeatures: np.exp, rf.HyperbolicFeatures: np.cosh, rf.TrigonometricFeatures: np.cos}[cls]
    sign = -1 if cls is rf.TrigonometricFeatures else 1
    estimates = function(np.array(projections)) @ weights * np.exp(-sign * size / 2)
    width = nodes**2 * estimator.features_per_row
    mean = estimator.mean(x, y, num_features=width) / rf.SoftmaxKernel().pairwise(x, y)
    assert mean == pytest.approx(estimates.mean(), rel=1e-12)
    variance = estimator.relative_variance(x, y, num_features=width)
    assert variance == pytest.approx(estimates.var(), rel=1e-9, abs=1e-15)


def test_gauss_hermite_is_for_small_dimensions():
    estimator = rf.PositiveFeatures(coupling="gauss-hermite")
    with pytest.raises(ValueError, match=r"cannot have 10 features; nearest: 9"):
        estimator.draw(2, 10, rng=0)
    with pytest.raises(ValueError, match=r"3\^20 rows in dimension 20, more than 4096; it is for small"):
        estimator.draw(20, 64, rng=0)
    with pytest.raises(ValueError, match="has 9 rows in dimension 2, got 4"):
        rf.GaussHermite().sample(4, 2, rng=generator())
    with pytest.raises(ValueError, match="have weights; use the closed form"):
        gram_variance(estimator, np.ones(2), np.ones(2), num_features=9, num_draws=2)


# moment-matched rows -------------------------------------------------------------------------------------------------


def test_moments_are_matched():
    for coupling in (rf.MomentMatched(order=1), rf.MomentMatched()):
        rows = coupling.sample(9, 4, rng=generator(), batch_shape=(3,))
        np.testing.assert_allclose(rows.mean(axis=-2), 0, atol=1e-14)
    np.testing.assert_allclose(np.swapaxes(rows, -1, -2) @ rows / 9, np.broadcast_to(np.eye(4), (3, 4, 4)), atol=1e-13)
    simplex = rf.MomentMatched().sample(5, 4, rng=generator())
    np.testing.assert_allclose(simplex @ simplex.T, 5 * np.eye(5) - 1, atol=1e-13)


def test_whitened_by_the_inverse_root_is_the_same_law():
    """Symmetric whitening instead of QR: the mean of exp(v·w_1) and the variance of the estimate agree (|z| < 4.9)."""
    num, dim, draws = 6, 3, 40_000
    g = generator(1).standard_normal((draws, num, dim))
    g -= g.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.swapaxes(g, 1, 2) @ g / num)
    rows = g @ (vectors * values[:, None, :] ** -0.5) @ np.swapaxes(vectors, 1, 2)
    x = np.array([0.3, 0.4, -0.2])
    estimator = rf.PositiveFeatures(coupling="moment-matched")
    estimates = np.exp(rows @ (2 * x) - 2 * x @ x).mean(axis=1)
    mean = estimator.mean_over_reference(x, x, num)
    variance = estimator.relative_variance(x, x, num_features=num)
    assert abs(estimates.mean() - mean) < LIMIT * estimates.std() / np.sqrt(draws)
    squares = (estimates - mean) ** 2
    assert abs(squares.mean() - variance) < LIMIT * squares.std() / np.sqrt(draws)


@pytest.mark.parametrize("coupling", [rf.MomentMatched(order=1), rf.MomentMatched(), rf.SphericalRadial()], ids=repr)
@pytest.mark.parametrize("cls", [rf.PositiveFeatures, rf.TrigonometricFeatures])
def test_gram_formula_knows_biased_rows(cls, coupling):
    """The mean over rotations is taken exactly, and agrees with the closed form (200 draws, |z| < 4.9)."""
    x, y = generator(1).standard_normal((2, 4, 5)) / 2
    estimator = cls(coupling=coupling)
    width = 12 * estimator.features_per_row
    gram = gram_variance(estimator, x, y, num_features=width, num_draws=200, rng=2)
    expected = estimator.relative_variance(x, y, num_features=width)
    close = np.isclose(gram.value, expected, rtol=1e-9)  # spherical-radial rows leave nothing random
    assert np.all(close | (np.abs(gram.z(expected)) < LIMIT))


def test_bias_of_centering_without_rescaling():
    x = np.array([0.5, 0.2, 0.0])
    estimator = rf.PositiveFeatures(coupling=rf.MomentMatched(order=1))
    u = 4 * x @ x
    for m in (2, 7, 50):
        expected = np.exp(x @ x - u / (2 * m))
        assert estimator.mean(x, x, num_features=m) == pytest.approx(expected, rel=1e-14)


def test_whitened_rows_need_enough_of_them():
    estimator = rf.PositiveFeatures(coupling="moment-matched")
    with pytest.raises(ValueError, match="cannot have 4 features; nearest: 5"):
        estimator.draw(4, 4, rng=0)
    with pytest.raises(ValueError, match="needs at least 5 rows in dimension 4, got 4"):
        rf.MomentMatched().sample(4, 4, rng=generator())
    with pytest.raises(ValueError, match="nearest: 2"):
        rf.PositiveFeatures(coupling=rf.MomentMatched(order=1)).draw(4, 1, rng=0)


# laws ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [100.0, 450.0, 3000.0, 1e5])
def test_bessel_functions_of_large_order(order):
    """40 digits: logarithms to 1e-12 of themselves for z > 0, absolutely for z < 0, where |0F1| <= 1."""
    with mp.workdps(60):
        for ratio in (1e-6, 0.5, 1.1, 20.0, 33.0, 200.0, 700.0):
            z = np.array(ratio * order)
            exact = mp.log(mp.hyp0f1(order, mp.mpf(float(z))))
            assert abs(float(log_hyp0f1(order, z)) - exact) < 2e-12 * (1 + abs(exact))
            assert abs(float(hyp0f1(order, -z)) - mp.hyp0f1(order, -mp.mpf(float(z)))) < 2e-12
            exact = mp.hyp0f1(order, mp.mpf(float(z))) - 1
            if ratio < 30:
                assert abs(float(hyp0f1_minus_one(order, z)) / exact - 1) < 1e-12


def test_constant_norms_in_thousands_of_dimensions():
    """d -> infinity is the Gaussian law: differences are O(1/d)."""
    for s in (20.0, 100.0, 300.0):
        law = SpherePair(200_000, cosine=0.0)
        assert law.row_mean(s) == pytest.approx(np.exp(-(s**2) / (4 * 200_000)), rel=1e-2)
        assert -1 < law.covariance(s) < 0
        assert SpherePair(200_000, cosine=1.0).covariance(s) > 0.5 * np.exp(s - s**2 / 50_000)


@pytest.mark.parametrize("law", [ScaledGaussianPair(0.8, 1.0), ScaledGaussianPair(0.8, -0.25)], ids=repr)
def test_scaled_gaussian_rows_by_quadrature(law):
    """Gauss-Hermite with 60 × 60 nodes in one dimension, tilts included; products over axes in two."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    root = np.sqrt(law.variance)
    first = root * nodes[:, None] + 0 * nodes
    second = root * (law.correlation * nodes[:, None] + np.sqrt(1 - law.correlation**2) * nodes)
    joint = np.multiply.outer(weights, weights)
    for v, a in ((0.7, 0.0), (0.7, -0.1), (-1.2, 0.05)):

        def tilted(w, v=v, a=a):
            return np.sqrt(1 - 4 * a) * np.exp(2 * a * w**2 + np.sqrt(1 - 4 * a) * v * w - v**2 / 2)

        mean, moment = np.sum(joint * tilted(first)), np.sum(joint * tilted(first) * tilted(second))
        other = np.sum(joint * tilted(first) * tilted(-second))
        arguments = np.array([v]), np.array([a])
        assert law.tilted_row_mean(*arguments) == pytest.approx(mean, rel=1e-12)
        assert law.tilted_covariance(*arguments) == pytest.approx(moment - mean**2, rel=1e-11)
        assert law.negated().tilted_covariance(*arguments) == pytest.approx(other - mean**2, rel=1e-11)
        even = (moment + other) / 2 - mean**2
        assert law.tilted_covariance(*arguments, even=True) == pytest.approx(even, rel=1e-11)
        if a == 0:
            assert law.covariance(v * v) == pytest.approx(moment - mean**2, rel=1e-11)
            assert law.even_covariance(v * v) == pytest.approx(even, rel=1e-11)
            assert law.row_mean(v * v) == pytest.approx(mean, rel=1e-12)
    squares = np.sum(joint * first**2 * second**2) - law.variance**2
    assert law.sqnorm_covariance(3) == pytest.approx(3 * squares)
    v, a = np.array([0.5, -0.8]), np.array([-0.1, 0.04])
    axes = [np.array(pair) for pair in zip(v[:, None], a[:, None], strict=True)]
    means = [law.tilted_row_mean(*pair) for pair in axes]
    moments = [law.tilted_covariance(*pair) + m**2 for pair, m in zip(axes, means, strict=True)]
    assert law.tilted_row_mean(v, a) == pytest.approx(math.prod(means))
    assert law.tilted_covariance(v, a) == pytest.approx(math.prod(moments) - math.prod(means) ** 2)


def test_unit_variance_is_the_gaussian_law():
    s = np.array([-3.0, -0.1, 0.4, 5.0])
    v, a = generator().standard_normal((2, 6, 3)) * np.array([1.0, 0.03])[:, None, None]
    for rho in (1.0, -0.3):
        scaled, plain = ScaledGaussianPair(1.0, rho), GaussianPair(rho)
        assert scaled.exact_marginals
        for even in (False, True):
            np.testing.assert_allclose(
                scaled.tilted_covariance(v, a, even=even), plain.tilted_covariance(v, a, even=even), rtol=1e-12
            )
        np.testing.assert_allclose(scaled.covariance(s), plain.covariance(s), rtol=1e-14)
        np.testing.assert_allclose(scaled.even_covariance(s), plain.even_covariance(s), rtol=1e-14)


@pytest.mark.parametrize(("num_rows", "dim"), [(5, 4), (6, 4), (12, 3), (2, 1), (3, 1)])
def test_squared_norms_of_whitened_rows(num_rows, dim):
    """n times a Beta(d/2, (n-d)/2), n = m-1: by SciPy's variance; the covariances with the other rows cancel it."""
    n = num_rows - 1
    own, other = WhitenedPair(num_rows, 1.0), WhitenedPair(num_rows, -1 / n)
    expected = n**2 * stats.beta(dim / 2, (n - dim) / 2).var() if n > dim else 0.0
    assert own.sqnorm_covariance(dim) == pytest.approx(expected)
    assert own.sqnorm_covariance(dim) + n * other.sqnorm_covariance(dim) == pytest.approx(0, abs=1e-12)


def test_fixed_pairs_near_zero():
    """Small arguments keep their digits: against 40-digit sums, for a rule whose variance is O(s^4)."""
    coupling = rf.GaussHermite(2)
    (own,), (pairs,) = coupling.own_laws(4, 2), coupling.pair_laws(4, 2)
    with mp.workdps(40):
        for s in (1e-3, 0.1, 1.9, 2.1, 30.0, -0.1, -3.0):
            for _, law in (own, pairs):
                for function, lengths in (
                    (law.covariance, (law.sum_sqnorm,)),
                    (law.even_covariance, (law.sum_sqnorm, law.difference_sqnorm)),
                ):
                    means = [
                        sum(w * mp.hyp0f1(1, mp.mpf(s) * z / 4) for w, z in zip(law.weights, length, strict=True))
                        for length in lengths
                    ]
                    row = mp.hyp0f1(1, mp.mpf(s) * 2 / 4)  # all four nodes have the squared length 2
                    exact = (sum(means) / len(means) - row**2) * mp.exp(-mp.mpf(s))
                    assert abs(float(function(s)) - exact) < 1e-13 * max(abs(exact), min(abs(s), 1) * mp.exp(abs(s)))


class Mystery(PairLaw):
    """Rows that are not N(0, I), of which nothing is said."""

    exact_marginals = False

    def covariance(self, s):
        return 0 * np.asarray(s)

    def even_covariance(self, s):
        return 0 * np.asarray(s)

    def sqnorm_covariance(self, dim):
        return 0.0

    def negated(self):
        return self


class Biased(rf.Independent):
    """A coupling with that law."""

    exact_marginals = False

    def row_law(self, dim, num_rows=None):
        return Mystery()


@pytest.mark.parametrize(
    "make",
    [
        rf.PositiveFeatures,
        rf.HyperbolicFeatures,
        rf.TrigonometricFeatures,
        functools.partial(rf.OptimalPositiveFeatures, exponent=-0.1),
        functools.partial(rf.OptimalPositiveFeatures, exponent=-0.1, antithetic=True),
        functools.partial(rf.DenseExponentialFeatures, exponents=np.array([-0.1, 0.0])),
        functools.partial(rf.GeneralizedExponentialFeatures, parameter=0.02j),
    ],
)
def test_unknown_laws_never_give_a_number(make):
    """No estimator takes 1 for the mean of a row that is not N(0, I)."""
    estimator = make(coupling=Biased())
    for method in (estimator.mean, estimator.mse, estimator.relative_mse):
        with pytest.raises(rf.NoClosedForm, match=r"randfeat\.montecarlo"):
            method(np.zeros(2), np.ones(2), num_features=4)
    with pytest.raises(rf.NoClosedForm, match=r"randfeat\.montecarlo"):
        Mystery().second_moment(3)


@pytest.mark.parametrize("coupling", [rf.MomentMatched(order=1), rf.GaussHermite(2), rf.SphericalRadial()], ids=repr)
def test_real_generalized_is_optimal_positive(coupling):
    """The two families of tilted moments agree where both exist; a zero parameter exists under every law."""
    x, y = generator().standard_normal((2, 5, 2)) / 2
    options = {"coupling": coupling}
    pairs = [(0.0, rf.OptimalPositiveFeatures(exponent=0.0, **options))]
    if not isinstance(coupling, rf.GaussHermite):
        pairs.append((-0.07, rf.OptimalPositiveFeatures(exponent=-0.07, **options)))
    for parameter, optimal in pairs:
        generalized = rf.GeneralizedExponentialFeatures(parameter=parameter, **options)
        np.testing.assert_allclose(
            generalized.mean(x, y, num_features=8), optimal.mean(x, y, num_features=4), rtol=1e-12
        )
        np.testing.assert_allclose(
            generalized.variance(x, y, num_features=8), optimal.variance(x, y, num_features=4), rtol=1e-8, atol=1e-14
        )
    if isinstance(coupling, rf.GaussHermite):
        with pytest.raises(rf.NoClosedForm, match="under FixedPairs; use randfeat"):
            rf.GeneralizedExponentialFeatures(parameter=0.02, **options).mean(x, y, num_features=8)


def test_planning_with_restricted_widths():
    """The least width of the rule that a coupling allows; an error where there is only one and it does not suffice."""
    x = np.array([0.5, 0.0])
    matched = rf.PositiveFeatures(coupling="moment-matched")
    width = int(rf.num_features_for(matched, x, x, rel_error=0.1))
    assert matched.relative_mse(x, x, num_features=width) <= 0.05 * 0.1**2
    assert matched.relative_mse(x, x, num_features=width - 1) > 0.05 * 0.1**2
    assert rf.num_features_for(rf.PositiveFeatures(coupling=rf.GaussHermite(4)), x, x, rel_error=0.1) == 16
    with pytest.raises(ValueError, match="does not reach a relative MSE"):
        rf.num_features_for(rf.PositiveFeatures(coupling=rf.GaussHermite(2)), 3 * x, 3 * x, rel_error=0.1)


def test_fixed_pairs_negated_keep_their_row():
    law = rf.GaussHermite(2).row_law(2, 4)
    assert isinstance(law, FixedPairs)
    assert law.negated().row_mean(0.7) == law.row_mean(0.7)
    assert law.negated().negated().covariance(0.7) == law.covariance(0.7)
    assert law.second_moment(2) == pytest.approx(1)
