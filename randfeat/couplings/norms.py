"""Means over rows whose norms are not chi distributed: insert a chi norm, and invert the resulting Laplace transform.

For a function f of a squared length let F(t) = E[f(t R²)], R² ~ χ²_d. Orthogonal directions times a common χ_d length
have independent Gaussian coordinates, so F is often a plain product where f is not. F is a Laplace transform of f, and
a contour integral inverts it. With b = d/2,

    f(t) = Γ(b)/(2πi) ∫ e^p p^{-b} F(t/2p) dp,

which the trapezoidal rule on a hyperbola evaluates to rounding error (Weideman & Trefethen 2007, "Parabolic and
Hyperbolic Contours for Computing the Bromwich Integral").
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

Mixture: TypeAlias = Callable[[Any], Any]

WIDE, NARROW = 0.4, 0.1  # angles beyond the imaginary axis of the asymptotes of the hyperbola
NEGLIGIBLE = 1e-18  # relative to a sum of one
CANCELLATION = 1e5  # of terms against a sum of at most one
CHUNK = 2**20  # numbers held at once


def orthogonal_mean(mixture: Mixture, t: np.ndarray, dim: int) -> np.ndarray:
    """`E[cos(v·w1) cos(v·w2)]`, |v|² = t, for frequencies `w_i = √τ_i r_i u_i` with orthogonal Haar directions u_i,
    independent norms r_i ~ χ_d and independent scales τ_i, given `mixture(s) = E[exp(-τ s/2)]`.

    F(t) = H(t)² with `H(t) = E[exp(-t τ r²/2)] = E[mixture(t R²)]`, R² ~ χ²_d: one cosine for each Gaussian coordinate.
    """
    z, weights = without_norm(dim, WIDE)
    sqnorm, density = with_norm(dim)

    def averaged(flat: np.ndarray) -> np.ndarray:
        return np.sum(density * mixture(flat[:, None, None] * z * sqnorm), axis=1) ** 2

    return evaluate(averaged, weights, np.asarray(t, dtype=np.float64), memory=sqnorm.size)


def constant_norm_mean(of_squares: Mixture, squares: np.ndarray, dim: int) -> np.ndarray:
    """`E[cos(v·w)]`, v_l² = squares (..., d), for `w = √τ √d u`, u a Haar direction: F(t) is the kernel at `t d v²`."""
    z, weights = without_norm(dim, NARROW)
    with np.errstate(over="ignore", invalid="ignore"):
        values = of_squares(dim * np.asarray(squares)[..., None, :] * z[:, None])
        return np.where(np.all(squares == 0, axis=-1), 1.0, certain_sum(values, weights))


def constant_norm_orthogonal_mean(mixture: Mixture, t: np.ndarray, dim: int) -> np.ndarray:
    """`E[cos(v·w1) cos(v·w2)]` for `w_i = √τ_i √d u_i` with orthogonal directions: F(t) = mixture(dt)²."""
    z, weights = without_norm(dim, NARROW)
    with np.errstate(over="ignore", invalid="ignore"):
        return evaluate(lambda flat: mixture(dim * flat[:, None] * z) ** 2, weights, np.asarray(t), memory=z.size)


def evaluate(averaged: Mixture, weights: np.ndarray, t: np.ndarray, memory: int) -> np.ndarray:
    """`Re Σ_j weights_j F(t z_j)`, computed once for each distinct t; 1 at t = 0."""
    flat, place = np.unique(t, return_inverse=True)
    result = np.where(flat == 0, 1.0, np.nan)
    chosen = np.flatnonzero((flat > 0) & (flat < np.inf))
    for part in np.array_split(chosen, 1 + chosen.size * memory // CHUNK):
        result[part] = certain_sum(averaged(flat[part]), weights)
    return result[place].reshape(t.shape)


def certain_sum(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Real part of `values @ weights`; NaN where so much cancels that the error may exceed 1e-10.

    Left of the imaginary axis a mixture may grow along the contour, as `exp(-s/2)` itself does for large s.
    """
    size = np.abs(values) @ np.abs(weights)
    return np.where(size < CANCELLATION, np.real(values @ weights), np.nan)


@lru_cache(maxsize=32)
def without_norm(dim: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes `z = 1/2p` and weights with `f(t) = Re Σ_j weights_j F(t z_j)`, |arg z| < π/2 + angle.

    The upper half of the hyperbola `p = μ (1 + sin(iθ - angle))` through the saddle point p = b; steps of half the
    width of the saddle, 1/√b, or of the strip in which the integrand is analytic.
    """
    from scipy.special import gammaln

    b = dim / 2
    step = min(angle / 5.6, 0.5 / np.sqrt(b))
    argument = 1j * step * np.arange(0, 14 / step) - angle
    size = b / (1 - np.sin(angle))
    p, slope = size * (1 + np.sin(argument)), 1j * size * np.cos(argument)
    weights = np.exp(p - b * np.log(p) + gammaln(b)) * slope * step / (1j * np.pi)
    weights[0] /= 2
    kept = np.abs(weights) > NEGLIGIBLE
    return 1 / (2 * p[kept]), weights[kept]


@lru_cache(maxsize=32)
def with_norm(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes R² and weights, both (k, j), for the mean `E[f(z_j R²)]`, z_j the nodes of `without_norm`.

    Trapezoidal rule in log R², on the ray that turns half of arg z back: there both the density of R² and a mixture of
    exponentials of z R² decay.
    """
    from scipy.special import gammaln

    b = dim / 2
    z, _ = without_norm(dim, WIDE)
    step = min(0.12, 0.5 / np.sqrt(b))
    half = b * np.exp(step * np.arange(-40 / step, 8 / step))[:, None] * np.exp(-0.5j * np.angle(z))
    with np.errstate(under="ignore"):
        density = step * np.exp(b * np.log(half) - gammaln(b) - half)
    kept = np.max(np.abs(density), axis=1) > NEGLIGIBLE
    return 2 * half[kept], density[kept]
