"""Optimal, dense and generalized exponential features: optima, published numbers, and special cases of one another."""

import numpy as np
import pytest
from scipy import optimize

import randfeat as rf
from randfeat.estimators.balanced import balancing_transform
from randfeat.estimators.optimal_positive import optimal_exponent

INDEPENDENT = {"coupling": "independent"}


def pair_at(dim, u):
    x = np.eye(dim)[0] * np.sqrt(u) / 2
    return x, x


# d, u: optimal ρ, relative variance of one row
TABLE = {
    (4, 1): (0.562, 1.07), (4, 4): (0.281, 5.56), (4, 16): (0.102, 44.3),
    (16, 1): (0.815, 1.46), (16, 4): (0.562, 17.2), (16, 16): (0.281, 1.85e3),
    (64, 1): (0.943, 1.64), (64, 4): (0.815, 35.4), (64, 16): (0.562, 1.1e5), (64, 32): (0.414, 2.4e8),
}  # fmt: skip


@pytest.mark.parametrize(("dim", "u"), TABLE)
def test_table_of_optimal_features(dim, u):
    rho, printed = TABLE[dim, u]
    estimator = rf.OptimalPositiveFeatures.for_sqnorm(u, dim, **INDEPENDENT)
    assert 1 / (1 - 8 * estimator.exponent) == pytest.approx(rho, abs=0.00051)
    variance = estimator.relative_variance(*pair_at(dim, u), num_features=1)
    assert variance == pytest.approx(printed, rel=0.005 if printed < 1e4 else 0.03)  # printed digits


def test_table_of_log_variances_at_random_pairs():
    table = {0.1: 0.89, 0.2: 4.5, 0.3: 9.0, 0.5: 19.3, 0.7: 29.7, 0.85: 37.2, 1.0: 44.1}
    for sigma, printed in table.items():
        u = 2 * 64 * sigma**2
        estimator = rf.OptimalPositiveFeatures.for_sqnorm(u, 64, **INDEPENDENT)
        log_variance = np.log(estimator.relative_variance(*pair_at(64, u), num_features=1))
        assert log_variance == pytest.approx(printed, abs=0.051 if printed > 1 else 0.0051)


@pytest.mark.parametrize("u", [0.0, 1e-12, 1e-3, 0.5, 3.0, 100.0, 600.0])
def test_the_exponent_is_the_optimum(u):
    """Against a search, and exact in the limits: 0 at 0, without cancellation."""
    dim = 8
    a = float(optimal_exponent(u / dim))
    if u < 1e-6:
        assert a == pytest.approx(-u / dim / 2, rel=1e-6, abs=1e-300)
        return

    def log_second_moment(a):
        rho = 1 / (1 - 8 * a)
        return dim / 2 * np.log((1 + rho) ** 2 / (4 * rho)) + rho * u

    found = optimize.minimize_scalar(log_second_moment, bounds=(-3 * abs(a) - 1e-3, 0.1), method="bounded",
                                     options={"xatol": 1e-12})  # fmt: skip
    assert log_second_moment(a) <= found.fun + 1e-12


def test_bounded_features():
    """For a < 0 no feature exceeds `(1-4a)^{d/4} exp(|x|² (½ + 1/|4a|)) / √m` (its supremum over all rows)."""
    x = np.random.default_rng(0).standard_normal((20, 3))
    phi = rf.OptimalPositiveFeatures(exponent=-0.2, **INDEPENDENT).draw(3, 4000, rng=0)
    bound = 1.8**0.75 * np.exp(np.sum(x * x, axis=-1) * (0.5 + 1 / 0.8)) / np.sqrt(4000)
    features = phi(x)
    assert np.all(features <= bound[:, None])
    assert np.any(features > 0.5 * bound[:, None])


def test_zero_exponents_are_plain_features():
    x, y = np.random.default_rng(0).standard_normal((2, 5, 4)) / 2
    plain = rf.PositiveFeatures().draw(4, 12, rng=1).estimate(x, y)
    for estimator in (rf.OptimalPositiveFeatures(), rf.DenseExponentialFeatures(exponents=np.zeros(4))):
        np.testing.assert_allclose(estimator.draw(4, 12, rng=1).estimate(x, y), plain, rtol=1e-13)
    hyperbolic = rf.HyperbolicFeatures().draw(4, 12, rng=1).estimate(x, y)
    antithetic = rf.OptimalPositiveFeatures(antithetic=True).draw(4, 12, rng=1).estimate(x, y)
    np.testing.assert_allclose(antithetic, hyperbolic, rtol=1e-13)
    trigonometric = rf.TrigonometricFeatures().draw(4, 12, rng=1).estimate(x, y)
    generalized = rf.GeneralizedExponentialFeatures(sign=-1).draw(4, 12, rng=1).estimate(x, y)
    np.testing.assert_allclose(generalized, trigonometric, rtol=1e-12)


def test_real_generalized_is_optimal_positive():
    x, y = np.random.default_rng(0).standard_normal((2, 6, 4)) / 2
    for coupling in ("independent", "orthogonal", "centered"):
        generalized = rf.GeneralizedExponentialFeatures(parameter=-0.07, coupling=coupling)
        optimal = rf.OptimalPositiveFeatures(exponent=-0.07, coupling=coupling)
        np.testing.assert_allclose(
            generalized.relative_variance(x, y, num_features=16), optimal.relative_variance(x, y, num_features=8)
        )


def test_equal_exponents_are_optimal_features():
    x, y = np.random.default_rng(0).standard_normal((2, 6, 4)) / 2
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0]
    for coupling in ("independent", "orthogonal", "simplex", "centered"):
        dense = rf.DenseExponentialFeatures(exponents=np.full(4, -0.07), rotation=rotation, coupling=coupling)
        optimal = rf.OptimalPositiveFeatures(exponent=-0.07, coupling=coupling)
        np.testing.assert_allclose(
            dense.relative_variance(x, y, num_features=8), optimal.relative_variance(x, y, num_features=8), rtol=1e-11
        )


def test_dense_fit_is_the_optimum_of_the_mean_log_second_moment():
    """Against a search over exponents and rotations in three dimensions."""
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 60, 3)) @ np.array([[1.0, 0.3, 0], [0, 0.6, 0.2], [0, 0, 0.3]])
    fitted = rf.DenseExponentialFeatures.fit(q, k, scale=1.0, **INDEPENDENT)

    def objective(exponents, rotation):
        estimator = rf.DenseExponentialFeatures(exponents=exponents, rotation=rotation, **INDEPENDENT)
        return np.mean(np.log1p(estimator.relative_variance(q[:, None], k, num_features=1)))

    best = objective(fitted.exponents, fitted.rotation)
    for _ in range(40):
        step = np.linalg.qr(np.eye(3) + 0.05 * rng.standard_normal((3, 3)))[0]
        exponents = fitted.exponents * np.exp(0.1 * rng.standard_normal(3))
        assert best <= objective(exponents, fitted.rotation @ step) + 1e-12
    single = rf.OptimalPositiveFeatures.fit(q, k, scale=1.0, **INDEPENDENT)
    assert best < np.mean(np.log1p(single.relative_variance(q[:, None], k, num_features=1)))


def test_anisotropic_tilts_have_no_closed_form_under_orthogonal_rows():
    estimator = rf.DenseExponentialFeatures(exponents=np.array([-0.1, 0.0]), coupling="orthogonal")
    with pytest.raises(rf.NoClosedForm, match="use independent rows, or randfeat"):
        estimator.variance(np.zeros(2), np.ones(2), num_features=4)


@pytest.mark.parametrize("dim", [1, 3, 8])
def test_balancing_equalizes_moments(dim):
    rng = np.random.default_rng(dim)
    x, y = (rng.standard_normal((200, dim)) * np.exp(rng.standard_normal(dim)) for _ in range(2))
    moments = [side.T @ side / len(side) for side in (x, y)]
    ridged = [m + np.eye(dim) * (0.01 * np.trace(m) / dim) for m in moments]
    t = balancing_transform(*moments)
    inverse = np.linalg.inv(t)
    np.testing.assert_allclose(t, t.T, atol=1e-12 * np.abs(t).max())
    np.testing.assert_allclose(t @ ridged[0] @ t, inverse @ ridged[1] @ inverse, rtol=1e-8, atol=1e-10)
    diagonal = np.diagonal(balancing_transform(*moments, kind="diagonal"))
    np.testing.assert_allclose(
        diagonal**2 * np.diagonal(ridged[0]), np.diagonal(ridged[1]) / diagonal**2, rtol=1e-12
    )  # fmt: skip
    if dim > 1:  # the matrix form is the minimum over all invertible T of the mean of |Tx|² + |T^{-ᵀ}y|²

        def cost(matrix):
            return np.trace(matrix @ ridged[0] @ matrix.T) + np.trace(np.linalg.inv(matrix @ matrix.T) @ ridged[1])

        assert cost(t) <= cost(np.diag(diagonal)) + 1e-12
        assert all(cost(t) <= cost(t @ (np.eye(dim) + 0.02 * rng.standard_normal((dim, dim)))) for _ in range(20))


def test_fitting_takes_raw_inputs_at_the_scale_of_attention():
    q, k = np.random.default_rng(0).standard_normal((2, 30, 16)) + 0.5
    by_default = rf.OptimalPositiveFeatures.fit(q, k)
    assert by_default == rf.OptimalPositiveFeatures.fit(q / 2, k / 2, scale=1.0)
    u = np.mean(np.sum((q[:, None] + k) ** 2, axis=-1)) / 4
    assert by_default.exponent == pytest.approx(float(optimal_exponent(u / 16)), rel=1e-12)
    heads = rf.OptimalPositiveFeatures.fit(np.stack([q, 2 * q]), np.stack([k, k]))
    assert heads.batch_shape == (2,)
    assert heads.draw(16, 8, rng=0).batch_shape == (2,)
    assert heads.exponent[0] == pytest.approx(float(by_default.exponent), rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rf.OptimalPositiveFeatures(exponent=0.2), "below 1/8"),
        (lambda: rf.OptimalPositiveFeatures(exponent=np.nan), "must be finite"),
        (lambda: rf.GeneralizedExponentialFeatures(parameter=0.2 + 1j), "real part below 1/8"),
        (lambda: rf.GeneralizedExponentialFeatures(sign=2), "sign must be 1 or -1"),
        (lambda: rf.DenseExponentialFeatures(exponents=np.zeros(2), rotation=np.eye(3)), r"must be \(..., 2, 2\)"),
        (lambda: rf.DenseExponentialFeatures(exponents=np.zeros(2), rotation=2 * np.eye(2)), "must be orthogonal"),
        (lambda: rf.BalancedFeatures(matrix=np.zeros((2, 2))), "must be invertible"),
        (lambda: rf.OptimalPositiveFeatures.fit(np.full((3, 2), np.nan), np.ones((3, 2))), "NaN or infinity"),
        (lambda: rf.OptimalPositiveFeatures.fit(np.ones((3, 2)), np.ones((3, 3))), "share their last dimension"),
    ],
)  # fmt: skip
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
