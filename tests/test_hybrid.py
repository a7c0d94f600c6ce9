"""Hybrid features: mixers, composite maps, covariances of different estimators at common rows, published numbers."""

import dataclasses
import itertools
import math

import mpmath
import numpy as np
import pytest

import randfeat as rf
from randfeat.couplings.hypergeometric import orthogonal_covariance
from randfeat.couplings.laws import GaussianPair, RadialPair, SpherePair
from randfeat.estimators.exponential_sum import ExponentialSum
from tests.arrays import asarray, to_numpy

D = 3
ROTATION = np.linalg.qr(np.random.default_rng(5).standard_normal((D, D)))[0]

BASES = [
    rf.PositiveFeatures(),
    rf.HyperbolicFeatures(),
    rf.TrigonometricFeatures(),
    rf.OptimalPositiveFeatures(exponent=-0.1),
    rf.OptimalPositiveFeatures(exponent=0.04, antithetic=True),
    rf.GeneralizedExponentialFeatures(parameter=-0.03 + 0.2j),
    rf.GeneralizedExponentialFeatures(parameter=-0.2 - 0.1j, sign=-1),
    rf.DenseExponentialFeatures(exponents=[-0.1, -0.2, 0.05], rotation=ROTATION),
    rf.CenteredFeatures(base=rf.TrigonometricFeatures(), query_shift=[0.1, 0.2, 0.0], key_shift=[-0.2, 0.0, 0.1]),
    rf.BalancedFeatures(matrix=np.diag([1.0, 2.0, 0.5])),
]
ISOTROPIC = [base for base in BASES if not isinstance(base, rf.DenseExponentialFeatures)]


def pairs(num=5, dim=D, seed=0, size=0.4):
    return np.random.default_rng(seed).standard_normal((2, num, dim)) * size


def evaluate(terms, w):
    """Re Σ_c exp(c + Σ_l α_l w_l² + ζ_c·w) for rows w (k, d): (..., k)."""
    exponent = terms.log_coefficients[..., None, :] + np.sum(terms.tilts[..., None, :] * w**2, axis=-1)[..., None]
    return np.real(np.sum(np.exp(exponent + w @ np.swapaxes(terms.slopes, -1, -2)), axis=-1))


# estimates as sums of exponentials -------------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES, ids=repr)
def test_terms_are_the_estimate_of_one_row(base):
    x, y = pairs()
    w = base.coupling.sample(1, D, rng=np.random.default_rng(3))
    drawn = base.draw(D, base.features_per_row, rng=np.random.default_rng(3))
    relative = drawn.estimate_pairwise(x, y) / base.kernel.pairwise(x, y)
    terms = base.exponential_terms(x, y)
    np.testing.assert_allclose(evaluate(terms, w)[:, 0], relative, rtol=1e-12)
    np.testing.assert_allclose(np.sum(np.exp(terms.log_means()), axis=-1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("base", BASES, ids=repr)
@pytest.mark.parametrize("correlation", [1.0, -1.0, -1 / 3, 0.4])
def test_covariance_with_itself_is_the_estimators_own(base, correlation):
    x, y = pairs()
    law, terms = GaussianPair(correlation), base.exponential_terms(x, y)
    own = base.relative_covariance(x, y, law, same_row=correlation == 1)
    np.testing.assert_allclose(terms.covariance(terms, law), own, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("base", ISOTROPIC, ids=repr)
def test_orthogonal_covariance_with_itself_is_the_estimators_own(base):
    x, y = pairs()
    law, terms = RadialPair(D, 0.0), base.exponential_terms(x, y)
    own = base.relative_covariance(x, y, law, same_row=False)
    np.testing.assert_allclose(terms.covariance(terms, law), own, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(range(7), 2)))
def test_covariance_of_two_estimators_by_quadrature(first, second):
    """Gauss-Hermite over both rows in one dimension; the product integrand is analytic, 80 nodes are exact to 1e-10."""
    x, y = pairs(dim=1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    terms = [BASES[k].exponential_terms(x, y) for k in (first, second)]
    for correlation in (1.0, 0.5, -1.0):
        other = correlation * nodes[:, None] + math.sqrt(1 - correlation**2) * nodes[None, :]
        values = evaluate(terms[0], nodes[:, None]), evaluate(terms[1], other.reshape(-1, 1)).reshape(-1, 80, 80)
        moment = np.einsum("pi,pij,i,j->p", values[0], values[1], weights, weights)
        closed = terms[0].covariance(terms[1], GaussianPair(correlation))
        np.testing.assert_allclose(closed, moment - 1, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("positive", [rf.PositiveFeatures(), rf.HyperbolicFeatures()], ids=repr)
def test_positive_and_trigonometric_features_at_one_row(positive):
    """`cos(|x|² - |y|²) - 1`, never positive, and zero for equal lengths."""
    x, y = pairs(20, dim=6)
    terms = positive.exponential_terms(x, y), rf.TrigonometricFeatures().exponential_terms(x, y)
    expected = np.cos(np.sum(x**2, axis=-1) - np.sum(y**2, axis=-1)) - 1
    np.testing.assert_allclose(terms[0].covariance(terms[1], GaussianPair(1.0)), expected, atol=1e-14)


def triple_series(dim, a, b, inner_square, terms=18):
    """Σ_kij of the 2 × 2 zonal expansion, with the moments of χ norms, in 50 digits."""
    with mpmath.workdps(50):
        half, total = mpmath.mpf(dim) / 2, mpmath.mpf(0)
        gram = (mpmath.mpf(a) * b - mpmath.mpf(inner_square)) / 4
        rising = [mpmath.rf(half, k) for k in range(4 * terms)]
        factorial = [mpmath.factorial(k) for k in range(terms)]
        for k, i, j in itertools.product(range(terms), repeat=3):
            top = gram**k * mpmath.mpf(a / 2) ** i * mpmath.mpf(b / 2) ** j * rising[k + i] * rising[k + j]
            bottom = rising[2 * k + i + j] * mpmath.rf(half - 0.5, k) * factorial[k] * factorial[i] * factorial[j]
            total += top / bottom
        return float(total * mpmath.exp(-(mpmath.mpf(a) + b) / 2) - 1)


@pytest.mark.parametrize("dim", [2, 3, 16])
@pytest.mark.parametrize(("a", "b", "cosine"), [(1.0, -1.5, 0.3), (2.0, -0.5, 0.9), (-1.0, -2.0, 0.6), (1.0, 2.0, 0.5)])
def test_orthogonal_rows_and_two_vectors(dim, a, b, cosine):
    square = a * b * cosine**2
    closed = orthogonal_covariance(dim, np.array([a, b]), np.array([b, a]), np.array(square))
    np.testing.assert_allclose(closed, triple_series(dim, a, b, square), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dim", [2, 3, 8, 64, 512])
def test_orthogonal_rows_and_one_vector(dim):
    s = np.array([0.0, 0.01, 1.0, 20.0, 200.0, -0.01, -1.0, -8.0])
    error = orthogonal_covariance(dim, s, s, s * s) - RadialPair(dim, 0.0).covariance(s)
    assert np.all(np.abs(error) < 1e-11 * np.exp(np.maximum(-s, 0)))
    assert np.isnan(orthogonal_covariance(dim, np.array(np.nan), np.array(1.0), np.array(0.0)))


def test_covariances_that_are_not_known_say_so():
    x, y = pairs()
    positive, dense = (BASES[k].exponential_terms(x, y) for k in (0, 7))
    for law in (RadialPair(D, -0.5), SpherePair(D, 1.0)):
        with pytest.raises(rf.NoClosedForm, match=r"not known under .*Pair; use .*randfeat\.montecarlo"):
            positive.covariance(positive, law)
    with pytest.raises(rf.NoClosedForm, match="differ from axis to axis"):
        positive.covariance(dense, RadialPair(D, 0.0))
    skew = ExponentialSum.of(np.zeros(5), [(1 + 1j) * x])
    with pytest.raises(rf.NoClosedForm, match="neither real nor imaginary"):
        positive.covariance(skew, RadialPair(D, 0.0))
    with pytest.raises(rf.NoClosedForm, match=r"shared_rows=False, or randfeat\.montecarlo"):
        rf.TrigonometricFeatures(variant="phase").exponential_terms(x, y)


# mixers ----------------------------------------------------------------------------------------------------------

MIXERS = [
    rf.estimators.AngularMixer(num_signs=3),
    rf.estimators.GaussianMixer(num_frequencies=2),
    rf.estimators.GaussianMixer(num_frequencies=2, width=0.7, matrix=-1.0, anchor=[0.2, 0.1, -0.3]),
    rf.estimators.GaussianMixer(num_frequencies=3, matrix=ROTATION),
]


@pytest.mark.parametrize("mixer", MIXERS, ids=repr)
def test_mean_and_variance_of_weights(mixer):
    """|z| < 4.9 for 5 means and 5 variances: false alarm 1e-5; at 100 000 draws a deviation of 0.015 is caught."""
    x, y = pairs()
    num = 100_000
    arrays = mixer.draw_arrays(D, np.random.default_rng(0), (num,))
    query, key = mixer.query_coordinates(arrays, x), mixer.key_coordinates(arrays, y)
    assert query.shape == key.shape == (num, 5, mixer.size)
    weight = mixer.constant + np.sum(query * key, axis=-1)
    for sample, expected in (
        (weight, mixer.mean(x, y)),
        ((weight - mixer.mean(x, y)) ** 2, mixer.variance(x, y)),
    ):
        error = sample.std(axis=0) / np.sqrt(num)
        assert np.all(np.abs(sample.mean(axis=0) - expected) < 4.9 * error)
        assert np.all(8 * error < 0.015)


def test_angles_are_exact_at_their_ends_and_zero_has_none():
    x = np.array([[1e-8, 0.3, 0.0], [2.0, 1.0, 1e3]])
    mixer = rf.estimators.AngularMixer()
    assert np.all(mixer.mean(x, 3 * x) < 1e-15)
    np.testing.assert_allclose(mixer.mean(x, -2 * x), 1.0, rtol=1e-15)
    assert np.all(mixer.variance(x, -2 * x) < 1e-15)
    small = np.array([1.0, 0.0, 0.0]), np.array([1.0, 1e-9, 0.0])
    np.testing.assert_allclose(mixer.mean(*small), 1e-9 / np.pi, rtol=1e-9)
    zero = np.zeros(3)
    assert mixer.mean(zero, x[0]) == 0.5
    assert mixer.variance(x[0], zero) == 0
    assert np.isnan(mixer.mean(np.full(3, np.nan), x[0]))


def test_a_gaussian_weight_is_one_at_its_anchor():
    mixer = rf.estimators.GaussianMixer(anchor=[1.0, 0.0, 0.5], matrix=np.diag([1.0, 2.0, 1.0]))
    y = np.array([0.5, 1.0, 0.0])
    x = np.array([0.5, -2.0, 0.5])
    assert mixer.mean(x, y) == 1
    assert mixer.variance(x, y) == 0
    arrays = mixer.draw_arrays(3, np.random.default_rng(0), ())
    rho = mixer.query_coordinates(arrays, x[None]), mixer.key_coordinates(arrays, y[None])
    assert np.sum(rho[0] * rho[1]) == pytest.approx(1, rel=1e-14)


def test_mixers_are_values_and_say_what_is_wrong():
    assert (
        rf.estimators.GaussianMixer(anchor=[1.0])
        == rf.estimators.GaussianMixer(anchor=[1.0])
        != rf.estimators.GaussianMixer(anchor=[2.0])
    )
    assert (
        len({rf.estimators.AngularMixer(), rf.estimators.AngularMixer(), rf.estimators.AngularMixer(num_signs=2)}) == 2
    )
    with pytest.raises(ValueError, match="num_signs must be a positive integer, got 0"):
        rf.estimators.AngularMixer(num_signs=0)
    with pytest.raises(ValueError, match="width must be positive"):
        rf.estimators.GaussianMixer(width=-1.0)
    with pytest.raises(ValueError, match=r"matrix must be a number or \(..., d, d\), got shape \(2, 3\)"):
        rf.estimators.GaussianMixer(matrix=np.ones((2, 3)))
    with pytest.raises(ValueError, match="the anchor has dimension 2; draw with dim=2"):
        rf.HybridFeatures(mixers=(rf.estimators.GaussianMixer(anchor=[1.0, 2.0]),)).draw(3, 66)


# the composite map -----------------------------------------------------------------------------------------------


def arrays_of(phi, prefix):
    return {name.removeprefix(prefix): array for name, array in phi.arrays.items() if name.startswith(prefix)}


def twin(estimator, phi, x, y):
    """Σ_k λ̂_k K̂_k, from the parts' own maps, base by base and weight by weight."""
    rows = phi.num_features // estimator.features_per_row
    left, total = np.ones((len(x), len(y))), np.zeros((len(x), len(y)))
    for k, base in enumerate(estimator.components):
        drawn = rf.FeatureMap(base, phi.dim, rows * base.features_per_row, arrays_of(phi, f"base{k}."))
        if k < len(estimator.weights):
            mixer, own = estimator.weights[k], arrays_of(phi, f"mixer{k}.")
            coordinates = [estimator.kernel.unit(side) for side in (x, y)]
            query, key = mixer.query_coordinates(own, coordinates[0]), mixer.key_coordinates(own, coordinates[1])
            weight = mixer.constant + query @ key.T
            left = left - weight
        else:
            weight = left
        total += weight * drawn.estimate(x, y)
    return total


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Certain(rf.estimators.AngularMixer):
    """A weight with a constant part beyond one, so that the last base has a negative one."""

    constant = 1.75


HYBRIDS = [
    rf.HybridFeatures(),
    rf.AngularHybridFeatures(rf.GaussianKernel(length_scale=0.7), "simplex", num_signs=3),
    rf.GaussianHybridFeatures(rf.SoftmaxKernel(scale=2.0), num_frequencies=2, shared_rows=False),
    rf.HybridFeatures.multipolar(np.eye(D)[:2], num_frequencies=2),
    rf.HybridFeatures(
        bases=(rf.TrigonometricFeatures(variant="phase"), BASES[3], BASES[5], BASES[8]),
        mixers=(rf.estimators.AngularMixer(2), rf.estimators.GaussianMixer(1, 2.0), rf.estimators.AngularMixer(1)),
    ),
    rf.HybridFeatures(mixers=(Certain(2),)),
    rf.HybridFeatures(bases=(rf.HybridFeatures(), rf.PositiveFeatures()), shared_rows=False),
    rf.HybridFeatures(bases=(rf.PositiveFeatures(),), mixers=()),
]


@pytest.mark.parametrize("estimator", HYBRIDS, ids=repr)
def test_the_map_is_the_weighted_sum(estimator):
    x, y = np.random.default_rng(1).standard_normal((2, 6, D)) / 2
    phi = estimator.draw(D, 4 * estimator.features_per_row, rng=0)
    np.testing.assert_allclose(phi.estimate(x, y), twin(estimator, phi, x, y), rtol=1e-11, atol=1e-12)


def test_widths():
    """4(n + 1) features per row for the angular hybrid, (8n + 2) for the Gaussian one, which has no constant part."""
    assert rf.AngularHybridFeatures(num_signs=8).features_per_row == 36
    assert rf.HybridFeatures().features_per_row == 36
    assert rf.GaussianHybridFeatures(num_frequencies=8).features_per_row == 66
    three = rf.HybridFeatures(
        bases=(rf.PositiveFeatures(), rf.HyperbolicFeatures(), rf.TrigonometricFeatures()),
        mixers=(rf.estimators.AngularMixer(3), rf.estimators.GaussianMixer(2)),
    )
    assert three.features_per_row == 1 * (1 + 3) + 2 * 4 + 2 * (1 + 3 + 4)
    with pytest.raises(ValueError, match=r"cannot have 100 features; nearest: 72, 108"):
        rf.AngularHybridFeatures().draw(4, 100)
    with pytest.raises(ValueError, match=r"nearest: 72"):
        rf.AngularHybridFeatures(coupling="antithetic").draw(4, 36)


def test_rows_are_shared_or_not():
    shared, own = (
        rf.HybridFeatures(shared_rows=shared).draw(D, 72, rng=0, batch_shape=(2,)).arrays for shared in (True, False)
    )
    assert np.array_equal(shared["base0.rows"], shared["base1.rows"])
    assert not np.any(own["base0.rows"] == own["base1.rows"])
    assert not np.any(shared["base0.rows"][0] == shared["base0.rows"][1])
    assert abs(np.corrcoef(shared["base0.rows"][0].ravel(), shared["mixer0.directions"][0, :2].ravel())[0, 1]) < 0.99


def test_spoilt_vectors_stay_spoilt(xp):
    """NaN has no sign in some libraries; the bases carry it."""
    x = np.full((3, D), 0.3)
    x[1, 2] = np.nan
    for estimator in (rf.AngularHybridFeatures(num_signs=2), rf.GaussianHybridFeatures(num_frequencies=1)):
        phi = estimator.draw(D, 2 * estimator.features_per_row, rng=0, like=asarray(xp, x))
        for features in (phi.queries(asarray(xp, x)), phi.keys(asarray(xp, x))):
            assert np.array_equal(np.isnan(to_numpy(features.to_array())).all(axis=-1), [False, True, False])
            assert not np.isnan(to_numpy(features.to_array())[[0, 2]]).any()


def test_one_anchor_for_each_head():
    """Parameters of a head are those of the same estimator without heads."""
    anchors = np.array([[0.5, 0.0, 0.1], [-0.2, 0.3, 0.0]])
    x, y = np.random.default_rng(2).standard_normal((2, 2, 4, D)) / 2

    def make(anchor):
        return rf.HybridFeatures(mixers=(rf.estimators.GaussianMixer(2, anchor=anchor, matrix=ROTATION),))

    batched = make(anchors)
    assert batched.batch_shape == (2,)
    assert batched.draw(D, 18 * 3, rng=0).batch_shape == (2,)
    variance = batched.variance(x, y, num_features=18 * 3)
    assert variance.shape == (2, 4)
    for head in range(2):
        alone = make(anchors[head]).variance(x[head], y[head], num_features=18 * 3)
        np.testing.assert_allclose(variance[head], alone, rtol=1e-13)


def test_transformed_hybrids():
    """A hybrid is a base like any other: features, mean and variance at the moved pair."""
    x, y = pairs()
    for hybrid in (rf.HybridFeatures(), rf.AngularHybridFeatures(rf.GaussianKernel(1.3))):
        centered = rf.CenteredFeatures(base=hybrid, query_shift=[0.2, 0.0, 0.1], key_shift=[0.1, 0.1, 0.0])
        assert centered.kernel == hybrid.kernel
        phi, plain = (e.draw(D, 72, rng=0) for e in (centered, hybrid.with_kernel(rf.SoftmaxKernel())))
        unit = [hybrid.kernel.unit(side) for side in (x, y)]
        moved = unit[0] - centered.query_shift, unit[1] - centered.key_shift
        ratio = phi.estimate_pairwise(x, y) / hybrid.kernel.pairwise(x, y)
        expected = plain.estimate_pairwise(*moved) / rf.SoftmaxKernel().pairwise(*moved)
        np.testing.assert_allclose(ratio, expected, rtol=1e-11)
        expected = plain.estimator.relative_variance(*moved, num_features=72)
        np.testing.assert_allclose(centered.relative_variance(x, y, num_features=72), expected, rtol=1e-11)
        np.testing.assert_allclose(centered.mean(x, y), hybrid.kernel.pairwise(x, y), rtol=1e-12)


def test_hybrids_say_what_is_wrong():
    positive, trigonometric = rf.PositiveFeatures(), rf.TrigonometricFeatures()
    with pytest.raises(ValueError, match="p mixers weigh p \\+ 1 bases, got 1 mixers and 3 bases"):
        rf.HybridFeatures(bases=(positive, positive, trigonometric))
    with pytest.raises(TypeError, match="bases must be a tuple of SoftmaxEstimators"):
        rf.HybridFeatures(bases=(positive, "trigonometric"))
    with pytest.raises(TypeError, match="mixers must be a tuple of Mixers"):
        rf.HybridFeatures(mixers=rf.estimators.AngularMixer())
    with pytest.raises(ValueError, match=r"same kernel, got SoftmaxKernel\(scale=1.0\), GaussianKernel"):
        rf.HybridFeatures(bases=(positive, rf.TrigonometricFeatures(rf.GaussianKernel())))
    with pytest.raises(ValueError, match=r"same coupling, got Orthogonal\(norms='chi'\), Independent\(\)"):
        rf.HybridFeatures(bases=(positive, rf.TrigonometricFeatures(coupling="independent")))
    with pytest.raises(ValueError, match=r"anchors must have shape \(p, d\)"):
        rf.HybridFeatures.multipolar(np.zeros(3))
    with pytest.raises(ValueError, match="num_signs must be a positive integer"):
        rf.AngularHybridFeatures(num_signs=0)


# errors ----------------------------------------------------------------------------------------------------------

COMPOSED = [
    rf.HybridFeatures(
        bases=(BASES[3], rf.GeneralizedExponentialFeatures(parameter=0.04j, sign=-1), rf.PositiveFeatures()),
        mixers=(rf.estimators.AngularMixer(1), rf.estimators.GaussianMixer(1, 4.0, matrix=-1.0, anchor=[0.2])),
    ),
    rf.HybridFeatures.multipolar(np.eye(D)[:2] / 2, num_frequencies=1, width=3.0),
    rf.HybridFeatures(
        bases=(rf.AngularHybridFeatures(num_signs=1), BASES[0]), mixers=(rf.estimators.GaussianMixer(1, 4.0),)
    ),
    rf.AngularHybridFeatures(coupling="antithetic-orthogonal", num_signs=2),
]


@pytest.mark.parametrize("estimator", COMPOSED, ids=repr)
def test_composed_hybrids_keep_the_contract(estimator):
    """At 4 rows of dimension 3: a full orthogonal block and one row more. A nested hybrid has no terms to share."""
    report = rf.testing.check_estimator(estimator, dim=D, num_rows=[4], rng=0)
    nested = isinstance(estimator.components[0], rf.AngularHybridFeatures)
    assert bool(report.notes) == nested
    assert all("covariance of AngularHybridFeatures with other estimators" in note for note in report.notes)
    assert len(report.checks) > 5


def at_angle(radius, angle, dim=64):
    """Two vectors of equal length at each angle."""
    radius, angle = np.broadcast_arrays(radius, angle)
    x, y = np.zeros((*radius.shape, dim)), np.zeros((*radius.shape, dim))
    x[..., 0] = radius
    y[..., 0], y[..., 1] = radius * np.cos(angle), radius * np.sin(angle)
    return x, y


TABLE = {
    1.0: ((0.11, 1.66, 4.74), (6.77, 2.53, 0.41), (4.74, 1.66, 0.11), (0.82, 1.25, 0.82)),
    1.25: ((0.17, 3.23, 14.3), (20.2, 4.66, 0.52), (14.3, 3.23, 0.17), (2.44, 2.42, 2.44)),
    1.5: ((0.24, 6.63, 53.6), (75.8, 9.43, 0.64), (53.6, 6.63, 0.24), (9.18, 4.98, 9.18)),
    2.0: ((0.44, 38.6, 1.6e3), (2.2e3, 54.6, 0.92), (1.6e3, 38.6, 0.44), (266.0, 28.9, 266.0)),
}


@pytest.mark.parametrize("radius", TABLE)
@pytest.mark.parametrize("shared", [True, False])
def test_relative_errors_of_the_angular_hybrid(radius, shared):
    """Relative root-mean-square error of one row, n = 8. Sharing makes no difference at equal lengths."""
    x, y = at_angle(radius, np.pi * np.array([1 / 8, 1 / 2, 7 / 8]))
    independent = {"coupling": "independent"}
    columns = (
        rf.TrigonometricFeatures(**independent),
        rf.PositiveFeatures(**independent),
        rf.HyperbolicFeatures(**independent),
        rf.AngularHybridFeatures(num_signs=8, shared_rows=shared, **independent),
    )
    for estimator, printed in zip(columns, TABLE[radius], strict=True):
        error = np.sqrt(estimator.relative_variance(x, y, num_features=estimator.features_per_row))
        for value, digits in zip(error, printed, strict=True):
            shown = f"{digits:.2g}" if digits >= 1000 else f"{digits:.3g}" if digits >= 1 else f"{digits:.2f}"
            places = 2 if digits >= 1000 or digits < 1 else 3
            assert abs(value - digits) <= 0.501 * 10 ** (math.floor(math.log10(value)) + 1 - places), shown


@pytest.mark.parametrize("coupling", ["independent", "orthogonal"])
def test_the_angular_hybrid_is_exact_at_both_ends(coupling):
    estimator = rf.AngularHybridFeatures(coupling=coupling)
    x = np.random.default_rng(0).standard_normal((20, 8)) / 2
    phi = estimator.draw(8, 36 * 5, rng=0)
    for y in (x, -x):
        assert np.all(estimator.relative_variance(x, y, num_features=36 * 5) < 1e-14)
        np.testing.assert_allclose(phi.estimate_pairwise(x, y), np.exp(np.sum(x * y, axis=-1)), rtol=1e-11)


def test_a_weight_of_zero_removes_an_infinite_variance():
    """Long vectors: the variance of the base that is bad there overflows, and its weight and its variance are 0."""
    estimator = rf.AngularHybridFeatures(coupling="independent")
    x = np.array([[40.0, 0.0, 0.0], [0.0, 50.0, 0.0]])
    with np.errstate(over="ignore"):
        for sign in (1, -1):
            assert np.all(estimator.relative_variance(x, sign * x, num_features=36) < 1e-9)
        assert np.all(np.isinf(estimator.relative_variance(x, x[::-1], num_features=36)))


def test_largest_error_of_the_angular_hybrid():
    """In units of √2 sinh(2r²), the largest error of either base, it approaches (πnr√(2e))^{-1/2} like 1/r."""
    gaps = []
    for radius in (6.0, 12.0):
        angle = np.pi - np.linspace(0.0, 0.6, 4001)
        x, y = at_angle(radius, angle, dim=2)
        n = 4
        estimator = rf.AngularHybridFeatures(num_signs=n, coupling="independent")
        variance = estimator.relative_variance(x, y, num_features=estimator.features_per_row)
        peak = np.sqrt(variance.max() / 2) / np.sinh(2 * radius**2)
        gaps.append(peak * math.sqrt(math.pi * n * radius * math.sqrt(2 * math.e)) - 1)
        assert angle[np.argmax(variance)] == pytest.approx(np.pi - 1 / (math.sqrt(2) * radius), abs=0.2 / radius)
    assert abs(gaps[1]) < 0.04
    assert abs(gaps[1]) < 0.6 * abs(gaps[0])


def test_shared_rows_are_never_worse_for_gaussian_rows():
    x, y = np.random.default_rng(0).standard_normal((2, 200, 6)) / 2
    shared, own = (
        rf.AngularHybridFeatures(coupling="independent", shared_rows=shared).relative_variance(x, y, num_features=36)
        for shared in (True, False)
    )
    assert np.all(shared <= own * (1 + 1e-12))
    assert np.any(shared < 0.9 * own)


def test_angular_variance_is_its_formula():
    """The closed form of the docstring, written out."""
    x, y = pairs(50, dim=6, size=0.5)
    n, m = 5, 7
    u, t = np.sum((x + y) ** 2, axis=-1), np.sum((x - y) ** 2, axis=-1)
    p = np.arccos(np.sum(x * y, axis=-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)) / np.pi
    q = p * (1 - p) / n
    own = (p**2 + q) * 2 * np.sinh(u / 2) ** 2 + ((1 - p) ** 2 + q) * 2 * np.sinh(t / 2) ** 2
    cross = 2 * (p * (1 - p) - q) * (np.cos(np.sum(x**2, axis=-1) - np.sum(y**2, axis=-1)) - 1)
    for shared in (True, False):
        estimator = rf.AngularHybridFeatures(coupling="independent", num_signs=n, shared_rows=shared)
        expected = (own + shared * cross) / m
        closed = estimator.relative_variance(x, y, num_features=m * estimator.features_per_row)
        np.testing.assert_allclose(closed, expected, rtol=1e-10)


def test_multipolar_hybrids_are_exact_at_an_anchor():
    """One anchor c: at x + y = c the weight is 1 and its base exact. Others keep a weight of variance 1/2n far away."""
    x, anchor = np.array([3.0, 0.1, -0.2]), np.array([6.0, 0.0, 0.0])
    one = rf.HybridFeatures.multipolar(anchor[None], coupling="independent")
    assert one.relative_variance(x, anchor - x, num_features=one.features_per_row) < 1e-20
    assert one.relative_variance(x, -anchor - x, num_features=one.features_per_row) > 1
    assert one.features_per_row == 2 * 16 + 2 * 17
    n = 3
    mixers = rf.HybridFeatures.multipolar(np.stack([anchor, -anchor]), num_frequencies=n).weights
    np.testing.assert_allclose([mixer.mean(x, anchor - x) for mixer in mixers], [1.0, 0.0], atol=1e-15)
    np.testing.assert_allclose([mixer.variance(x, anchor - x) for mixer in mixers], [0.0, 1 / (2 * n)], atol=1e-15)
