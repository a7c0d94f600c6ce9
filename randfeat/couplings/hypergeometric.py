"""The hypergeometric functions of orthogonal and spherical rows, where SciPy's overflow or lose digits."""

import numpy as np

__all__ = ["hyp0f1", "kummer_minus_half", "log_hyp0f1"]


def hyp0f1(b: float, z: np.ndarray) -> np.ndarray:
    """`0F1(; b; z)` for z <= 0, where it oscillates and |0F1| <= 1 (b >= 1/2).

    By its power series while that does not cancel (|z| <= b or 1), else `Γ(b) x^{1-b} J_{b-1}(2x)`, x = √-z.
    """
    from scipy.special import gammaln, jv

    z = np.asarray(z, dtype=np.float64)
    near = np.abs(z) <= max(b, 1.0)
    series = power_series(b, np.where(near, z, 0.0))
    x = np.sqrt(np.where(near, 1.0, -z))
    return np.where(near, series, np.exp(gammaln(b) + (1 - b) * np.log(x)) * jv(b - 1, 2 * x))


def log_hyp0f1(b: float, z: np.ndarray) -> np.ndarray:
    """`log 0F1(; b; z)` for z >= 0, without overflow.

    By its power series up to z = 4 max(b, 1)·8, else `log Γ(b) - (b-1) log x + log I_{b-1}(2x)`, x = √z.
    """
    from scipy.special import gammaln, ive

    z = np.asarray(z, dtype=np.float64)
    near = z <= 32 * max(b, 1.0)
    series = np.log(power_series(b, np.where(near, z, 0.0)))
    x = np.sqrt(np.where(near, 1.0, z))
    with np.errstate(divide="ignore"):  # ive underflows where the series is used
        far = gammaln(b) - (b - 1) * np.log(x) + np.log(ive(b - 1, 2 * x)) + 2 * x
    return np.where(near, series, far)


def power_series(b: float, z: np.ndarray) -> np.ndarray:
    """`Σ_k z^k / (k! (b)_k)`, for |z| <= 32 max(b, 1)."""
    term = np.ones_like(z)
    total = np.ones_like(z)
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
