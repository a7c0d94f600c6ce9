"""Complex-exponential features: twin by loops, known special cases, moments by quadrature, exact pairs."""

import cmath
import math

import numpy as np
import pytest

import randfeat as rf
from randfeat.couplings.laws import GaussianPair
from tests.cases import DIAGONAL, KERNELS

RNG = np.random.default_rng(0)
GENERAL = RNG.standard_normal((2, 3, 3)) + 1j * RNG.standard_normal((2, 3, 3))


@pytest.mark.parametrize("matrix", [1.3, 0.5 + 1j, [1.0, 0.5j, 0.8 - 0.2j], GENERAL, GENERAL.real])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_estimate_is_the_formula(matrix, kernel):
    """The mean over rows of Re exp(w·(x'+y') - (x'ᵀx' + y'ᵀy')/2), entry by entry."""
    estimator = rf.ComplexExponentialFeatures(kernel, "independent", matrix=matrix)
    x, y = np.random.default_rng(1).standard_normal((2, 4, 3)) / 2
    rows = 5
    phi = estimator.draw(3, rows * estimator.features_per_row, rng=2)
    w = rf.Independent().sample(rows, 3, rng=np.random.default_rng(2), batch_shape=estimator.batch_shape)
    estimate = phi.estimate(x, y)
    full = np.array(matrix, dtype=complex)
    full = np.diag(np.broadcast_to(full, 3)) if full.ndim < 2 else full
    for head in np.ndindex(*full.shape[:-2]):
        m = full[head]
        inverse = np.linalg.inv(m).T
        for i, j in np.ndindex(4, 4):
            a, b = m @ kernel.unit(x[i]), inverse @ kernel.unit(y[j])
            total = np.mean([cmath.exp(r @ (a + b) - (a @ a + b @ b) / 2).real for r in w[head]])
            squares = np.sum(kernel.unit(x[i]) ** 2), np.sum(kernel.unit(y[j]) ** 2)
            total *= math.exp(sum(kernel.log_envelope(s) for s in squares))
            assert estimate[head][i, j] == pytest.approx(total, rel=1e-9, abs=1e-9)


def test_special_cases():
    """M = I is positive features, M = iI trigonometric ones, from the same seed; so are generalized ones at A = 0."""
    x, y = np.random.default_rng(3).standard_normal((2, 4, 3)) / 2
    for unit, twin, sign in ((1, rf.PositiveFeatures(), 1), (1j, rf.TrigonometricFeatures(), -1)):
        estimator = rf.ComplexExponentialFeatures(matrix=unit)
        width = 7 * estimator.features_per_row
        ours = estimator.draw(3, width, rng=0).estimate(x, y)
        np.testing.assert_allclose(ours, twin.draw(3, width, rng=0).estimate(x, y), rtol=1e-12)
        general = rf.GeneralizedExponentialFeatures(sign=sign).draw(3, 14, rng=0)
        np.testing.assert_allclose(ours, general.estimate(x, y), rtol=1e-12)
        assert (estimator.positive, estimator.bounded) == (twin.positive, twin.bounded)
        for coupling in ("orthogonal", "antithetic", rf.Orthogonal(norms="constant"), "simplex"):
            a, b = (e.__class__(coupling=coupling, **o) for e, o in ((estimator, {"matrix": unit}), (twin, {})))
            for name in ("relative_variance", "relative_mse"):
                ours, theirs = (getattr(e, name)(x, y, num_features=12) for e in (a, b))
                np.testing.assert_allclose(ours, theirs, rtol=1e-10)
        np.testing.assert_allclose(estimator.row_kurtosis(x, y), twin.row_kurtosis(x, y))
        np.testing.assert_allclose(estimator.log_joint_moment(x[0], y), twin.log_joint_moment(x[0], y), atol=1e-13)


def test_moments_of_one_row_and_of_two_by_quadrature():
    """Gauss-Hermite in one dimension, over one and over two correlated rows."""
    mu, x, y, rho = 0.9 + 0.6j, 0.8, 0.5, -0.4
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    a, b = mu * x, y / mu

    def s(w):
        return np.exp(w * (a + b) - (a * a + b * b) / 2).real

    second = rho * nodes[:, None] + math.sqrt(1 - rho**2) * nodes
    estimator = rf.ComplexExponentialFeatures(coupling="independent", matrix=mu)
    kernel = math.exp(x * y)
    assert weights @ s(nodes) == pytest.approx(kernel, rel=1e-12)
    variance = weights @ s(nodes) ** 2 / kernel**2 - 1
    covariance = weights @ (s(nodes)[:, None] * s(second)) @ weights / kernel**2 - 1
    x, y = np.array([x]), np.array([y])
    assert estimator.relative_variance(x, y, num_features=2) == pytest.approx(variance, rel=1e-11)
    ours = estimator.relative_covariance(x, y, GaussianPair(rho), same_row=False)
    assert ours == pytest.approx(covariance, rel=1e-10)


def test_mean_for_constant_norms_by_quadrature():
    """Rows uniform on the sphere of radius √3: Gauss-Legendre times trapezoid; biased."""
    estimator = rf.ComplexExponentialFeatures(coupling=rf.Orthogonal(norms="constant"), matrix=[1.0, 1j, 0.8 + 0.3j])
    x, y = np.array([0.7, -0.5, 0.3]), np.array([0.4, 0.6, 0.5])
    height, weights = np.polynomial.legendre.leggauss(60)
    angle = np.arange(120) * 2 * np.pi / 120
    radius = np.sqrt(1 - height**2)[:, None]
    w = np.sqrt(3) * np.stack(
        [radius * np.cos(angle), radius * np.sin(angle), np.broadcast_to(height[:, None], (60, 120))], -1
    )
    m = np.array([1.0, 1j, 0.8 + 0.3j])
    a, b = m * x, y / m
    s = np.exp(w @ (a + b) - (a @ a + b @ b) / 2).real
    expected = (weights / 2) @ s.mean(axis=1)
    assert abs(expected / np.exp(x @ y) - 1) > 1e-3
    assert estimator.mean(x, y) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(rf.NoClosedForm, match="use independent rows"):
        estimator.variance(x, y, num_features=2)


def test_a_pair_without_variance():
    """Every draw is exact there, whatever the coupling and the kernel; also with a coordinate that both lack."""
    x, y = np.array([0.9, -0.5, 0.2, 0.0]), np.array([0.4, 0.6, 0.5, 0.0])
    for kernel in KERNELS:
        estimator = rf.ComplexExponentialFeatures.for_pair(x, y, kernel=kernel)
        estimate = estimator.draw(4, 2, rng=0, batch_shape=(20,)).estimate(x[None], y[None])
        np.testing.assert_allclose(estimate, kernel.pairwise(x, y), rtol=1e-12)
    np.testing.assert_allclose(estimator.matrix, [1j * (4 / 9) ** 0.5, 1.2**0.5, 1j * 2.5**0.5, 1.0], rtol=1e-14)
    pair = rf.ComplexExponentialFeatures.for_pair(x, y, coupling="independent")
    assert pair.relative_variance(x, y, num_features=2) < 1e-29
    heads = rf.ComplexExponentialFeatures.for_pair(np.stack([x, -x]), np.stack([y, y]), coupling="independent")
    assert heads.batch_shape == (2,)
    variance = heads.relative_variance(np.stack([x, -x])[:, None], y[None, None], num_features=2)
    assert variance.shape == (2, 1)
    assert np.all(variance < 1e-29)


def test_fit_minimizes_the_mean_of_eta():
    """Against the other kind of entry and other sizes of it, axis by axis."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((30, 3)) * 0.3 + np.array([1.0, -1.0, 0.2])
    y = rng.standard_normal((20, 3)) * 0.5 + np.array([0.6, 0.9, 0.5])

    def eta(matrix):
        zeta = x[:, None] * matrix + y / matrix
        return np.mean(np.sum(np.abs(zeta) ** 2, axis=-1))

    fitted = np.asarray(rf.ComplexExponentialFeatures.fit(x, y, scale=1.0).matrix)
    for axis in range(3):
        for factor in (1j, 1.05, 0.95, 1.05j, 0.95j):
            other = fitted.copy()
            other[axis] *= factor
            assert eta(fitted) < eta(other)
    default = rf.ComplexExponentialFeatures.fit(x, y)
    np.testing.assert_allclose(default.matrix, fitted, rtol=1e-14)  # the scale is that of both sides


def test_diagonal_and_full_matrices_agree():
    x = np.random.default_rng(6).standard_normal((3, 4)) / 2
    diagonal = rf.ComplexExponentialFeatures(matrix=DIAGONAL)
    full = rf.ComplexExponentialFeatures(matrix=np.diag(DIAGONAL))
    a, b = (e.draw(4, 8, rng=0).estimate(x, x) for e in (diagonal, full))
    np.testing.assert_allclose(a, b, rtol=1e-13)
    assert diagonal != full
    assert diagonal == rf.ComplexExponentialFeatures(matrix=list(DIAGONAL))


def test_what_cannot_be():
    make = rf.ComplexExponentialFeatures
    for matrix in (0.0, [1.0, 0.0], np.ones((2, 2)), [[1, 1e-14], [0, 1e-14]]):
        with pytest.raises(ValueError, match="matrix must be invertible"):
            make(matrix=matrix)
    with pytest.raises(ValueError, match=r"a diagonal \(d,\) or \(..., d, d\), got \(2, 3\)"):
        make(matrix=np.ones((2, 3)))
    with pytest.raises(ValueError, match="matrix must be finite"):
        make(matrix=complex(np.nan, 1))
    with pytest.raises(ValueError, match="matrix is for dimension 2, the inputs have dimension 3"):
        make(matrix=[1.0, 2.0]).draw(3, 4, rng=0)
    with pytest.raises(ValueError, match="zero for the queries or the keys only"):
        make.for_pair([1.0, 0.0], [1.0, 1.0])
    with pytest.raises(rf.NoClosedForm):
        make(matrix=1 + 1j).log_joint_moment(np.ones(2), np.ones((3, 2)))
