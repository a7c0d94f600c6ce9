"""Control variates: the map is the formula, moments by quadrature over two rows, series where differences cancel."""

import math
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
from scipy import special

import randfeat as rf
from randfeat.couplings.laws import GaussianPair, RadialPair
from tests.arrays import asarray, to_numpy
from tests.cases import KERNELS

BASES = ["positive", "trigonometric"]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_map_is_the_formula(xp, base, kernel):
    """The inner product of d + 2 more coordinates is the mean over rows of S, number by number."""
    x, y = np.random.default_rng(0).standard_normal((2, 3, 4)) / 2
    estimator = rf.ControlVariateFeatures(kernel, base=base)
    phi = estimator.draw(4, estimator.num_features(6, 4), rng=1, like=asarray(xp, x))
    rows = to_numpy(phi.arrays["rows"])
    estimate = to_numpy(phi.estimate(asarray(xp, x), asarray(xp, y)))
    for i, j in np.ndindex(3, 3):
        a, b = kernel.unit(x[i]), kernel.unit(y[j])
        sizes = a @ a, b @ b
        if base == "positive":
            terms = [math.exp(w @ (a + b)) - w @ (a + b) - ((w @ (a + b)) ** 2 - (a + b) @ (a + b)) / 2 for w in rows]
            total = np.mean(terms) * math.exp(-sum(sizes) / 2)
        else:
            terms = [math.cos(w @ (a - b)) + ((w @ (a - b)) ** 2 - (a - b) @ (a - b)) / 2 for w in rows]
            total = np.mean(terms) * math.exp(sum(sizes) / 2)
        assert estimate[i, j] == pytest.approx(total * math.exp(sum(map(kernel.log_envelope, sizes))), rel=1e-11)


def relative_s(base, s):
    """S/K as a function of the component of w along z (or δ) of squared length s."""
    if base == "positive":
        return lambda p: np.exp(-s / 2) * (np.exp(p) - p - (p**2 - s) / 2)
    return lambda p: np.exp(s / 2) * (np.cos(p) + (p**2 - s) / 2)


def pair(base, s, dim):
    """x, y with |x + y|² = s (positive) or |x - y|² = s."""
    x = np.full(dim, math.sqrt(s / dim) / 2)
    return x, x if base == "positive" else -x


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("rho", [1.0, 0.6, -0.7, -1.0])
def test_gaussian_covariance_by_quadrature(base, rho):
    nodes, weights = np.polynomial.hermite_e.hermegauss(70)
    weights = weights / weights.sum()
    for s in (0.3, 1.7):
        f = relative_s(base, s)
        first, second = (
            math.sqrt(s) * w for w in (nodes[:, None], rho * nodes[:, None] + math.sqrt(1 - rho**2) * nodes)
        )
        assert weights @ f(first)[:, 0] == pytest.approx(1.0, rel=1e-12)
        expected = weights @ ((f(first) - 1) * (f(second) - 1)) @ weights
        estimator = rf.ControlVariateFeatures(base=base)
        ours = estimator.relative_covariance(*pair(base, s, 3), GaussianPair(rho), same_row=False)
        assert ours == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("dim", "cosine"), [(4, 0.0), (4, -1 / 3), (5, 0.4)])
def test_radial_covariance_by_quadrature(base, dim, cosine):
    """Over both norms, the height of the first direction, and that of the part of the second across it."""
    r, weight_r = np.polynomial.legendre.leggauss(50)
    r, weight_r = 6 * (r + 1), weight_r * (6 * (r + 1)) ** (dim - 1) * np.exp(-((6 * (r + 1)) ** 2) / 2)
    height, weight_h = special.roots_gegenbauer(30, dim / 2 - 1)
    across, weight_a = (
        special.roots_gegenbauer(24, (dim - 1) / 2 - 1) if dim > 4 else np.polynomial.legendre.leggauss(24)
    )
    weight_r, weight_h, weight_a = (w / w.sum() for w in (weight_r, weight_h, weight_a))
    second = cosine * height[:, None] + math.sqrt(1 - cosine**2) * np.sqrt(1 - height**2)[:, None] * across
    for s in (0.4, 2.0):
        f = relative_s(base, s)
        inner_first = weight_r @ f(math.sqrt(s) * r[:, None] * height)  # norms are independent: mean over each
        inner_second = np.tensordot(weight_r, f(math.sqrt(s) * r[:, None, None] * second), 1)
        expected = weight_h @ (inner_first[:, None] * inner_second) @ weight_a - 1
        estimator = rf.ControlVariateFeatures(base=base)
        ours = estimator.relative_covariance(*pair(base, s, dim), RadialPair(dim, cosine), same_row=False)
        assert ours == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_printed_variances():
    """`Λ² [e^u (e^u-1-u-u²/2) + (e^{u/2}-1)² (u+u²/2)]` and its trigonometric counterpart, for the kernel itself."""
    x, y = np.array([0.5, 0.3]), np.array([0.4, -0.2])
    u, t, scale = np.sum((x + y) ** 2), np.sum((x - y) ** 2), math.exp(-(x @ x + y @ y))
    positive, trigonometric = (rf.ControlVariateFeatures(coupling="independent", base=b) for b in BASES)
    expected = scale * (math.exp(u) * (math.exp(u) - 1 - u - u**2 / 2) + (math.exp(u / 2) - 1) ** 2 * (u + u**2 / 2))
    assert positive.variance(x, y, num_features=5 + 4) == pytest.approx(expected / 5, rel=1e-12)
    expected = (math.exp(-t) * (math.cosh(t) - 1 - t**2 / 2) + t**2 / 2 * (1 - math.exp(-t / 2)) ** 2) / scale
    assert trigonometric.variance(x, y, num_features=10 + 4) == pytest.approx(expected / 5, rel=1e-11)


@pytest.mark.parametrize("base", BASES)
def test_small_arguments_keep_their_digits(base):
    """Against 60 digits, where e^u - 1 - u - u²/2 has lost all of its own; 5u³/12 and t⁴/6 to leading order."""
    estimator = rf.ControlVariateFeatures(coupling="independent", base=base)
    width = estimator.num_features(1, 1)
    with mpmath.workdps(60):
        for s in (1e-6, 1e-3, 0.1, 0.999, 1.001, 7.0):
            x, y = pair(base, s, 1)
            v = mpmath.mpf(float(x[0] + (y[0] if base == "positive" else -y[0]))) ** 2
            if base == "positive":
                exact = mpmath.e**v - 1 - v - v**2 / 2 + (1 - mpmath.e ** (-v / 2)) ** 2 * (v + v**2 / 2)
            else:
                exact = mpmath.cosh(v) - 1 - v**2 / 2 + (mpmath.e ** (v / 2) - 1) ** 2 * v**2 / 2
            ours = estimator.relative_variance(x, y, num_features=width)
            assert ours == pytest.approx(float(exact), rel=1e-13, abs=0)
    leading = 5 * 1e-6**3 / 12 if base == "positive" else 1e-6**4 / 6
    assert estimator.relative_variance(*pair(base, 1e-6, 1), num_features=width) == pytest.approx(
        leading, rel=1e-5, abs=0
    )


def test_better_than_the_base_where_the_page_says():
    """At equal rows: positive always, trigonometric up to t = 2 log 2 and not beyond."""
    s = np.linspace(0.05, 6, 60)
    for base, plain in (("positive", rf.PositiveFeatures), ("trigonometric", rf.TrigonometricFeatures)):
        x, y = (np.stack(side) for side in zip(*(pair(base, v, 2) for v in s), strict=True))
        estimator = rf.ControlVariateFeatures(coupling="independent", base=base)
        ours = estimator.relative_variance(x, y, num_features=estimator.num_features(4, 2))
        theirs = plain(coupling="independent").relative_variance(x, y, num_features=4 * estimator.features_per_row)
        assert np.array_equal(ours < theirs, np.ones(60, bool) if base == "positive" else s < 2 * math.log(2))


def test_exact_where_the_base_is():
    x = np.random.default_rng(2).standard_normal((3, 4))
    for base, y in (("positive", -x), ("trigonometric", x)):
        estimator = rf.ControlVariateFeatures(base=base)
        phi = estimator.draw(4, estimator.num_features(3, 4), rng=0)
        np.testing.assert_allclose(phi.estimate_pairwise(x, y), np.exp(np.sum(x * y, -1)), rtol=1e-10)
        assert np.all(estimator.variance(x, y, num_features=phi.num_features) == 0)


def test_widths_need_the_dimension():
    estimator = rf.ControlVariateFeatures()
    assert estimator.num_rows(64, 10) == 52
    assert estimator.num_features(52, 10) == 64
    with pytest.raises(ValueError, match="pass dim"):
        estimator.num_rows(64)
    with pytest.raises(ValueError, match=r"cannot have 12 features; nearest: 13\."):
        estimator.draw(10, 12, rng=0)
    pairs = rf.ControlVariateFeatures(base="trigonometric")
    with pytest.raises(ValueError, match=r"cannot have 15 features; nearest: 14, 16\."):
        pairs.draw(10, 15, rng=0)
    with pytest.raises(ValueError, match="base must be 'positive' or 'trigonometric', got 'hyperbolic'"):
        rf.ControlVariateFeatures(base="hyperbolic")


@dataclass(frozen=True)
class Weighted(rf.Independent):
    """Rows of unequal weight."""

    def weights(self, num_rows, dim):
        return np.arange(1.0, num_rows + 1) / (num_rows * (num_rows + 1) / 2)


def test_quadrature_rules_are_refused():
    with pytest.raises(ValueError, match="control variates need rows of equal weight"):
        rf.ControlVariateFeatures(coupling=Weighted()).draw(2, 8, rng=0)
