"""Pair laws against their defining formulas in 40-digit arithmetic: near zero, at large arguments, for all signs.

Tolerances: a covariance is compared relative to itself where its series has terms of one sign (positive argument), and
relative to the variance of one row, 2 sinh²(s/2), where the exact value oscillates through zero (negative argument).
Both are 1e-11: sums of up to a thousand rounded terms, times the condition number of e^s at s = 600.
"""

import math

import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import quad

from randfeat.couplings.laws import GaussianPair, RadialPair, SpherePair
from randfeat.couplings.matched_laws import ScaledGaussianPair

ARGUMENTS = (1e-8, 1e-3, 0.1, 1.0, 1.99, 2.01, 7.0, 20.0, 65.0, 200.0, 600.0)
DIMS = (1, 2, 3, 4, 16, 65, 256)
TOLERANCE = 1e-11


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(60):
        yield


def relative_error(got, expected):
    return float(abs(mp.mpf(float(got)) - expected) / abs(expected))


def row_variance(s):
    return 2 * mp.sinh(mp.mpf(s) / 2) ** 2


@pytest.mark.parametrize("dim", DIMS)
def test_orthogonal_rows_are_kummer_functions(dim):
    law = RadialPair(dim, cosine=0.0)
    for s in ARGUMENTS:
        expected = mp.hyp1f1(dim, mp.mpf(dim) / 2, mp.mpf(s) / 2) * mp.exp(-mp.mpf(s)) - 1
        if dim > 1 and abs(expected) > 1e-25:  # d = 1 has no second orthogonal row; its law is p_k of a full block
            assert relative_error(law.covariance(s), expected) < TOLERANCE, s
        oscillating = mp.hyp1f1(dim, mp.mpf(dim) / 2, -mp.mpf(s) / 2) * mp.exp(mp.mpf(s)) - 1
        assert float(abs(float(law.covariance(-s)) - oscillating) / row_variance(s)) < TOLERANCE, s
        assert law.even_covariance(s) == law.covariance(s)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("cosine", [1.0, 0.0, -1.0, -0.25])
def test_constant_norms_are_bessel_functions(dim, cosine):
    law = SpherePair(dim, cosine)
    b = mp.mpf(dim) / 2
    for s in ARGUMENTS:
        z = mp.mpf(dim) * mp.mpf(s)
        both = [mp.hyp0f1(b, z * (1 + sign * mp.mpf(cosine)) / 2) for sign in (1, -1)]
        squared_mean = mp.hyp0f1(b, z / 4) ** 2
        scale = mp.exp(-mp.mpf(s))
        assert relative_error(law.row_mean(s), mp.sqrt(squared_mean * scale)) < TOLERANCE, s
        for got, expected in (
            (law.covariance(s), (both[0] - squared_mean) * scale),
            (law.even_covariance(s), ((both[0] + both[1]) / 2 - squared_mean) * scale),
        ):
            if abs(expected) > 1e-20:
                assert relative_error(got, expected) < TOLERANCE, s
        cosines = [mp.hyp0f1(b, -z * (1 + sign * mp.mpf(cosine)) / 2) for sign in (1, -1)]
        expected = (sum(cosines) / 2 - mp.hyp0f1(b, -z / 4) ** 2) / scale
        assert float(abs(float(law.even_covariance(-s)) - expected) / row_variance(s)) < TOLERANCE, s


def simplex_moment(dim, kappa, w):
    """`E Φ(w (r1² + r2² - 2κ r1 r2))` by its triple series, r independent chi variables."""
    half = mp.mpf(dim) / 2
    chi = [mp.mpf(2) ** (mp.mpf(j) / 2) * mp.gamma(half + mp.mpf(j) / 2) / mp.gamma(half) for j in range(160)]
    total, k, term = mp.mpf(0), 0, mp.mpf(1)
    while k < 6 or abs(term) > mp.mpf(10) ** -22 * abs(total):
        inner = mp.mpf(0)
        for e in range(k + 1):
            for a in range(k - e + 1):
                b = k - e - a
                count = mp.factorial(k) / (mp.factorial(a) * mp.factorial(b) * mp.factorial(e))
                inner += count * (-2 * kappa) ** e * chi[2 * a + e] * chi[2 * b + e]
        term = (w / 4) ** k / (mp.factorial(k) * mp.rf(half, k)) * inner
        total, k = total + term, k + 1
    return total


@pytest.mark.parametrize(("dim", "block"), [(2, 2), (3, 3), (4, 2), (8, 8)])
def test_simplex_rows_are_their_triple_series(dim, block):
    kappa = mp.mpf(1) / (block - 1)
    law = RadialPair(dim, cosine=-1 / (block - 1))
    with mp.workdps(40):
        for s in (1e-3, 0.5, 2.5, 5.0):
            w = mp.mpf(s)
            plus, minus = simplex_moment(dim, kappa, w), simplex_moment(dim, -kappa, w)
            assert relative_error(law.covariance(s), plus * mp.exp(-w) - 1) < TOLERANCE
            assert relative_error(law.negated().covariance(s), minus * mp.exp(-w) - 1) < TOLERANCE
            assert relative_error(law.even_covariance(s), (plus + minus) / 2 * mp.exp(-w) - 1) < TOLERANCE
            cosines = (simplex_moment(dim, kappa, -w) + simplex_moment(dim, -kappa, -w)) / 2
            error = abs(float(law.even_covariance(-s)) - (cosines * mp.exp(w) - 1)) / row_variance(s)
            assert float(error) < TOLERANCE


@pytest.mark.parametrize("correlation", [1.0, -1.0, -0.2])
def test_jointly_gaussian_rows(correlation):
    law = GaussianPair(correlation)
    for s in (*ARGUMENTS, *(-a for a in ARGUMENTS)):
        rho = mp.mpf(correlation) * mp.mpf(s)
        assert relative_error(law.covariance(s), mp.expm1(rho)) < TOLERANCE
        assert relative_error(law.even_covariance(s), 2 * mp.sinh(rho / 2) ** 2) < TOLERANCE


@pytest.mark.parametrize("law", [GaussianPair(-0.5), RadialPair(4, 0.0), RadialPair(4, -1 / 3), SpherePair(4, 0.0)])
def test_laws_broadcast_and_pass_nan_on(law):
    s = np.array([[0.0, 0.5, -3.0], [np.nan, 40.0, -40.0]])
    for function in (law.covariance, law.even_covariance, law.row_mean):
        values = function(s)
        assert values.shape == s.shape
        assert values.dtype == np.float64
        for index in np.ndindex(s.shape):
            np.testing.assert_allclose(values[index], function(s[index]), rtol=1e-13, atol=1e-13)
    assert law.covariance(0.0) == 0.0


@pytest.mark.parametrize("law", [RadialPair(5, -0.25), RadialPair(5, 0.25), SpherePair(5, 0.5)])
def test_laws_are_continuous_where_they_change_formula(law):
    for edge in (-2.0, 2.0, 8.0, 64.0):
        below, above = (law.even_covariance(np.nextafter(edge, side)) for side in (-np.inf, np.inf))
        assert abs(below - above) <= 1e-11 * max(abs(above), float(row_variance(edge)))


@pytest.mark.parametrize(
    ("law", "variances"),
    [
        (GaussianPair(1.0), (2.0, 0.0)),
        (GaussianPair(-1.0), (0.0, 2.0)),
        (GaussianPair(0.5), (1.5, 0.5)),
        (GaussianPair(0.0), (1.0, 1.0)),
        (ScaledGaussianPair(0.8, 1.0), (1.6, 0.0)),
        (ScaledGaussianPair(0.8, -0.25), (0.6, 1.0)),
    ],
    ids=repr,
)
def test_tilted_moments_up_to_the_border_and_beyond(law, variances):
    """Adaptive integrals over (w1 ± w2)/√2, N(0, λ±): finite while 4aλ± < 1 and 4a < 1, and infinite from there on.

    T(w1) T(w2) is a product of a function of either, so its mean is a product of two integrals in one dimension.
    """
    v, border = 0.7, 1 / (4 * max(1.0, *variances))

    def mean(variance, a, slope, reach=np.inf):
        """`E exp(2a u² + slope u)` for u ~ N(0, variance), over |u| <= reach."""
        if variance == 0:
            return 1.0
        value, _ = quad(
            lambda u: math.exp((2 * a - 1 / (2 * variance)) * u * u + slope * u) / math.sqrt(2 * math.pi * variance),
            -reach, reach, epsabs=0, epsrel=1e-11, limit=500,
        )  # fmt: skip
        return value

    def moments(a, reach=np.inf):
        slope = math.sqrt(2 * (1 - 4 * a)) * v
        pair = [mean(x, a, slope, reach) * mean(y, a, 0.0, reach) for x, y in (variances, variances[::-1])]
        return (1 - 4 * a) * math.exp(-v * v) * np.array(pair)

    for a in (-0.1, 0.5 * border, 0.9 * border, 0.98 * border):
        arguments = np.array([v]), np.array([a])
        same, other = moments(a) - law.tilted_row_mean(*arguments) ** 2
        assert law.tilted_covariance(*arguments) == pytest.approx(same, rel=1e-9, abs=1e-12)
        assert law.negated().tilted_covariance(*arguments) == pytest.approx(other, rel=1e-9, abs=1e-12)
        assert law.tilted_covariance(*arguments, even=True) == pytest.approx((same + other) / 2, rel=1e-9, abs=1e-12)
    if border < 1 / 4:  # over growing intervals the truncated moment exceeds every bound
        assert moments(1.05 * border, reach=50.0)[0] > 1e3
        assert moments(1.05 * border, reach=80.0)[0] > 1e6 * moments(1.05 * border, reach=50.0)[0]
    for a in (border, 1.05 * border, 0.25, 0.4):
        for even in (False, True):
            assert law.tilted_covariance(np.array([v]), np.array([a]), even=even) == np.inf
            assert law.tilted_covariance(np.array([0.0, v]), np.array([0.01, a]), even=even) == np.inf
    mixed = law.tilted_covariance(np.full((3, 1), v), np.array([[0.05], [border], [-0.1]]))
    assert mixed[1] == np.inf
    for i, a in ((0, 0.05), (2, -0.1)):
        assert mixed[i] == law.tilted_covariance(np.array([v]), np.array([a]))
