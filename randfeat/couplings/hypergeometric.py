"""Hypergeometric functions of orthogonal and spherical rows, where those of SciPy overflow or lose digits."""

import numpy as np

LARGE_ORDER = 300.0  # beyond, the uniform expansion of Bessel functions has all digits


def hyp0f1(b: float, z: np.ndarray) -> np.ndarray:
    """`0F1(; b; z)` for z <= 0, where it oscillates and |0F1| <= 1 (b >= 1/2).

    By its power series where that does not cancel (|z| <= max(b, 1)), else `Γ(b) x^{1-b} J_{b-1}(2x)`, x = √-z.
    """
    from scipy.special import gammaln, jv

    z = np.asarray(z, dtype=np.float64)
    near = np.abs(z) <= max(b, 1.0)
    series = power_series(b, np.where(near, z, 0.0))
    if b > LARGE_ORDER:  # J_{b-1} underflows; the function does below z = -40b, where it is less than 1e-16
        kept = z > -40 * b
        far = np.exp(log_hyp0f1_of_large_order(b, np.where(near | ~kept, 0.0, z)))
        return np.where(near, series, np.where(kept | np.isnan(z), far, 0.0))
    x = np.sqrt(np.where(near, max(b, 1.0), -z))
    return np.where(near, series, np.exp(gammaln(b) + (1 - b) * np.log(x)) * jv(b - 1, 2 * x))


def log_hyp0f1(b: float, z: np.ndarray) -> np.ndarray:
    """`log 0F1(; b; z)` for z >= 0, without overflow.

    By its power series up to z = 4 max(b, 1)·8, else `log Γ(b) - (b-1) log x + log I_{b-1}(2x)`, x = √z.
    """
    from scipy.special import gammaln, ive

    z = np.asarray(z, dtype=np.float64)
    near = z <= 32 * max(b, 1.0)
    series = np.log(power_series(b, np.where(near, z, 0.0)))
    if b > LARGE_ORDER:  # I_{b-1} underflows
        return np.where(near, series, log_hyp0f1_of_large_order(b, np.where(near, 1.0, z)))
    x = np.sqrt(np.where(near, 1.0, z))
    with np.errstate(divide="ignore"):  # ive underflows where the series is used
        far = gammaln(b) - (b - 1) * np.log(x) + np.log(ive(b - 1, 2 * x)) + 2 * x
    return np.where(near, series, far)


def log_hyp0f1_of_large_order(b: float, z: np.ndarray) -> np.ndarray:
    """`log 0F1(; b; z)` for large b and z > -40b, by Debye's expansion of `I_ν(νX)`, ν = b-1, X² = 4z/ν².

    Γ(b) is expanded by Stirling's formula. After common terms are cancelled, `ν (r - log(1 + r/2)) - ¼ log(1 + X²)`
    with r = √(1 + X²) - 1 remains, plus corrections.
    """
    order = b - 1
    square = 4 * z / order**2
    root = np.sqrt(1 + square)
    r = square / (1 + root)
    p = 1 / root
    debye = [
        (3 * p - 5 * p**3) / 24,
        (81 * p**2 - 462 * p**4 + 385 * p**6) / 1152,
        (30375 * p**3 - 369603 * p**5 + 765765 * p**7 - 425425 * p**9) / 414720,
        (4465125 * p**4 - 94121676 * p**6 + 349922430 * p**8 - 446185740 * p**10 + 185910725 * p**12) / 39813120,
    ]
    corrections = sum(term / order ** (k + 1) for k, term in enumerate(debye))
    stirling = 1 / (12 * order) - 1 / (360 * order**3)
    return order * (r - np.log1p(r / 2)) - np.log1p(square) / 4 + stirling + np.log1p(corrections)


def hyp0f1_minus_one(b: float, z: np.ndarray) -> np.ndarray:
    """`0F1(; b; z) - 1` with small relative error, also near z = 0."""
    near = (z >= -max(b, 1.0)) & (z <= 32 * max(b, 1.0))
    series = power_series_minus_one(b, np.where(near, z, 0.0))
    if np.all(near):
        return series
    with np.errstate(over="ignore"):
        above = np.expm1(log_hyp0f1(b, np.where(near, 0.0, np.maximum(z, 0.0))))
    below = hyp0f1(b, np.where(near, 0.0, np.minimum(z, 0.0))) - 1
    return np.where(near, series, np.where(z > 0, above, below))


def power_series(b: float, z: np.ndarray) -> np.ndarray:
    """`Σ_k z^k / (k! (b)_k)`, for |z| <= 32 max(b, 1)."""
    return 1 + power_series_minus_one(b, z)


def power_series_minus_one(b: float, z: np.ndarray) -> np.ndarray:
    """`Σ_{k>=1} z^k / (k! (b)_k)`, the power series without its first term."""
    term = np.ones_like(z)
    total = np.zeros_like(z)
    for k in range(220):
        term = term * z / ((k + 1) * (b + k))
        total = total + term
        if np.all(np.abs(term) <= 1e-17 * np.abs(total)):
            break
    return total


def kummer_minus_half(dim: int, z: np.ndarray) -> np.ndarray:
    """`1F1(-d/2; d/2; z)` for z >= 0: for even d a polynomial of degree d/2.

    Absolute error a few eps times e^z, which bounds the terms of the series.
    """
    term = np.ones_like(z)
    total = np.ones_like(z)
    top = float(np.max(z, initial=0.0))
    for k in range(int(top + 12 * np.sqrt(top) + 40)):
        term = term * (k - dim / 2) / (k + dim / 2) * z / (k + 1)
        total = total + term
        if 2 * k >= dim and dim % 2 == 0:  # the factor k - d/2 was zero
            break
    return total


def orthogonal_covariance(dim: int, first: np.ndarray, second: np.ndarray, inner_square: np.ndarray) -> np.ndarray:
    """`Cov(exp(a·w1), exp(b·w2)) / e^{(a·a + b·b)/2}` for orthogonal rows w1, w2 with independent χ_d norms, d >= 2.

    first, second, inner_square : a·a, b·b and (a·b)², real, for a and b each real or imaginary: negative squares stand
        for cosines.

    Given the direction e of w1, the mean over the norm of w1 is `1F1(d/2; 1/2; (a·e)²/2)` for the first exponential,
    and the mean over w2, orthogonal to e, is `1F1(d/2; (d-1)/2; (b·b - (b·e)²)/2)` for the second. The mean over e
    depends on its projection onto the plane of a and b. It is computed in polar coordinates: Gauss-Jacobi nodes in the
    squared radius, equal steps in the angle. Absolute error: about 1e-13 times the larger of 1 and e^{-(a·a + b·b)/2}.
    """
    from scipy.special import roots_jacobi

    shape = np.broadcast_shapes(first.shape, second.shape, inner_square.shape)
    sides = np.maximum(first, second), np.minimum(first, second), inner_square
    high, low, inner = (np.broadcast_to(side, shape).ravel() for side in sides)
    result = np.full(high.shape, np.nan)
    finite = np.isfinite(high) & np.isfinite(low)
    order = 16 + int(np.max(np.abs(np.concatenate([high[finite], low[finite]])), initial=0.0))
    square, weight = np.ones(1), np.ones(1)
    if dim > 2:
        nodes, weight = roots_jacobi(order, (dim - 4) / 2, 0.0)
        square, weight = (1 + nodes) / 2, weight / weight.sum()
    angle = np.pi / (2 * order) * np.arange(2 * order)
    for signs in ((True, True), (True, False), (False, False)):
        chosen = np.flatnonzero(finite & ((high >= 0) == signs[0]) & ((low >= 0) == signs[1]))
        for part in np.array_split(chosen, 1 + chosen.size * square.size * angle.size // 2**18):
            a, b, ab = (side[part, None, None] for side in (high, low, inner))
            product = np.where(a * b == 0, 1.0, a * b)
            between = np.arccos(np.sqrt(np.clip(ab / product, 0.0, 1.0)))
            along_a = a * square[:, None] * np.cos(angle) ** 2
            along_b = b * square[:, None] * np.cos(angle - between) ** 2
            if signs[0]:
                norm = kummer(dim / 2, 0.5, along_a / 2, scale=np.exp(-a / 2))
            else:
                norm = np.exp(-a / 2) * mean_cosine(dim, np.sqrt(-along_a))
            if signs[1]:
                complement = kummer(dim / 2, (dim - 1) / 2, (b - along_b) / 2, scale=np.exp(-b / 2))
            else:  # by Kummer's transformation
                complement = kummer(-0.5, (dim - 1) / 2, (along_b - b) / 2, scale=np.exp(-along_b / 2))
            result[part] = np.mean(norm * complement, axis=-1) @ weight - 1
    return result.reshape(shape)


def kummer(a: float, b: float, z: np.ndarray, *, scale: np.ndarray) -> np.ndarray:
    """`scale · 1F1(a; b; z)` for z >= 0 and a > -1, b > 0: after the first, all terms of the series have one sign."""
    term = scale + 0 * z
    total = term
    for k in range(int(200 + 4 * np.max(z, initial=0.0) + 4 * np.sqrt(max(a, 1.0) * np.max(z, initial=0.0)))):
        term = term * z * ((a + k) / ((b + k) * (k + 1)))
        total = total + term
        if np.all(np.abs(term) <= 1e-17 * np.abs(total)):
            break
    return total


def mean_cosine(dim: int, s: np.ndarray) -> np.ndarray:
    """`E cos(r s)` for r ~ χ_d, by Gauss-Legendre over the norm."""
    nodes, weights = np.polynomial.legendre.leggauss(128)
    low, high = max(np.sqrt(dim) - 8.0, 0.0), np.sqrt(dim) + 8.0
    norms = (high - low) / 2 * nodes + (high + low) / 2
    log_density = (dim - 1) * np.log(norms) - norms**2 / 2
    weights = weights * np.exp(log_density - log_density.max())
    total = np.zeros_like(s)
    for norm, weight in zip(norms, weights / weights.sum(), strict=True):
        total += weight * np.cos(norm * s)
    return total
