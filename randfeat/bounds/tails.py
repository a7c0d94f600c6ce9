"""Tail bounds of softmax estimates: Chernoff bounds for rows of constant length, and bounds for Gaussian rows."""

import functools
from typing import Any, Literal

import numpy as np

from randfeat._array import as_count
from randfeat._hints import short
from randfeat.bounds.arguments import not_negative
from randfeat.bounds.regularized import log_products
from randfeat.couplings.base import block_sizes

Coupling = Literal["independent", "orthogonal"]

STEEPEST = 1e8  # the logarithmic slope up to which the quadrature over one coordinate has all digits


def log_moment_generating_function(
    theta: Any, u: float, dim: int, num_rows: int = 1, *, coupling: Coupling = "independent"
) -> np.ndarray:
    """`log E exp(θ Σ_i X_i)` of `X_i = exp(w_i·(x + y))`, |w_i| = √d: exact for independent rows, else an upper bound.

    theta >= 0, any shape. With M = E exp(θX) and q = e^θ/M, a block of n orthogonal rows has at most

        M^n E Π_{j<N} d/(d+2j),   N ~ Binomial(n, 1-q),

    and blocks are independent. coupling : "independent" or "orthogonal" directions. M is a quadrature over one
    coordinate of a unit vector, accurate to rounding for `θ √(du) e^{√(du)} <= 10⁸` and refused beyond. Rows with
    random (chi) norms have no finite M for θ > 0.

    Source: sharpens Choromanski et al. 2021, "Rethinking Attention with Performers", Theorem 3.
    """
    theta = not_negative(theta, "theta")
    dim, rows = at_least_two(dim), as_count(num_rows, "num_rows")
    slope = np.sqrt(dim * float(not_negative(u, "u")))
    if np.any(theta * slope * np.exp(slope) > STEEPEST):
        raise ValueError(
            f"theta √(du) e^√(du) must be at most {STEEPEST:g}; use a smaller theta, got {np.max(theta):g}."
        )
    log_mean = log_mean_exp(theta, slope, dim)
    if not is_orthogonal(coupling):
        return rows * log_mean
    blocks, rest = block_sizes(rows, dim)
    full, last = (block_factor(n, theta - log_mean, dim) for n in (dim, rest))
    return rows * log_mean + blocks * full + last


def orthogonal_moment_gap(theta: Any, u: float, dim: int, num_rows: int) -> np.ndarray:
    """A lower bound of `M^m - E exp(θ Σ_i X_i)` for m <= d orthogonal rows.

    `m(m-1)/(4(d+2)) · e^{mθ} θ² (1+θ)² u²`, X and M as in `log_moment_generating_function`. In terms of the estimate,
    θ is the θ of the paper times Λ = e^{-(|x|²+|y|²)/2}. Printed with `Λ^m θ⁴` for `e^{mθΛ} (θΛ)² (1+θΛ)²`: the proof
    gives at least `Λ⁴ θ⁴`, so the printed term is right (and weaker) for m >= 4, and false for m = 2.
    Source: Choromanski et al. 2021, "Rethinking Attention with Performers", Theorem 3, with that factor derived anew.
    """
    theta, square_distance = not_negative(theta, "theta"), not_negative(u, "u")
    dim, rows = as_count(dim, "dim"), as_count(num_rows, "num_rows")
    if rows > dim:
        raise ValueError(f"num_rows must be at most dim = {dim}: the statement is about one block, got {rows}.")
    return rows * (rows - 1) / (4 * (dim + 2)) * np.exp(rows * theta) * (theta * (1 + theta) * square_distance) ** 2


def chernoff_bound(level: Any, u: float, dim: int, num_rows: int, *, coupling: Coupling = "independent") -> np.ndarray:
    """Upper bound of `P[K̂ > level · SM]` for positive features on rows of length √d (SMREG).

    `inf_θ exp(-θ m a) E exp(θ Σ X_i)`, a = level e^{u/2}, the expectation from `log_moment_generating_function`; 1 up
    to the mean SMREG / SM, and 0 beyond the largest value `e^{√(du) - u/2}`. Every θ gives a valid bound, so the search
    for the best θ need not be exact. coupling : "independent" directions, or "orthogonal" ones in blocks of d.
    Source: Choromanski et al. 2021, "Rethinking Attention with Performers", Theorem 3, sharpened and for every m.

    >>> print(chernoff_bound([1.0, 2.0, 3.0], u=1.0, dim=8, num_rows=8).round(4))
    [9.982e-01 9.660e-02 9.000e-04]
    >>> print(chernoff_bound([1.0, 2.0, 3.0], u=1.0, dim=8, num_rows=8, coupling="orthogonal").round(4))
    [9.978e-01 5.670e-02 2.000e-04]
    """
    level = not_negative(level, "level")
    dim, rows = at_least_two(dim), as_count(num_rows, "num_rows")
    u = float(not_negative(u, "u"))
    is_orthogonal(coupling)
    slope = np.sqrt(dim * u)
    steepest = STEEPEST / (np.exp(slope) * max(slope, 1.0))
    log_bound = np.zeros(level.shape)
    for index in np.ndindex(level.shape):
        a = level[index] * np.exp(u / 2)
        low, high = 1e-9 * steepest, steepest
        for _ in range(4):  # each pass looks closer around the best point of the last
            theta = np.geomspace(low, high, 65)
            values = log_moment_generating_function(theta, u, dim, rows, coupling=coupling) - theta * rows * a
            best = int(np.argmin(values))
            low, high = theta[max(best - 1, 0)], theta[min(best + 1, theta.size - 1)]
        log_bound[index] = min(values[best], 0.0) if a < np.exp(slope) else -np.inf
    return np.exp(log_bound)


def lower_tail_bound(level: Any, relative_variance: Any, num_rows: int) -> np.ndarray:
    """Upper bound of `P[K̂ <= level · K]`, level <= 1: `exp(-m (1 - level)² / (2 (1 + V)))`.

    For m independent rows whose estimates are never negative (`estimator.positive`), V the relative variance of one
    row: `e^u - 1` for positive features. Uses `e^{-s} <= 1 - s + s²/2` only. Estimates that are too low are thus
    exponentially rare, whatever the upper tail is.
    Source: Maurer 2003, "A bound on the deviation probability for sums of non-negative random variables".
    """
    level, variance = not_negative(level, "level"), not_negative(relative_variance, "relative_variance")
    rows = as_count(num_rows, "num_rows")
    return np.exp(-rows * np.maximum(1 - level, 0.0) ** 2 / (2 * (1 + variance)))


def heavy_tail_bound(level: Any, u: Any, num_rows: int) -> np.ndarray:
    """*Lower* bound of `P[K̂ > level · K]` for positive features with m independent N(0, I) rows.

    `1 - (1 - p)^m`, p the probability that one row alone exceeds the level: `log S/K ~ N(-u/2, u)` exceeds log(m
    level). It falls more slowly than every exponential of the level, so no Chernoff bound can hold: Theorem 3 of
    Choromanski et al. 2021, "Rethinking Attention with Performers", is about rows of constant length.
    """
    from scipy.special import ndtr

    level, u, rows = not_negative(level, "level"), not_negative(u, "u"), as_count(num_rows, "num_rows")
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(u > 0, ndtr(-(np.log(rows * level) + u / 2) / np.sqrt(u)), rows * level < 1)
        return -np.expm1(rows * np.log1p(-p))


def log_mean_exp(theta: np.ndarray, slope: float, dim: int) -> np.ndarray:
    """`log E exp(θ e^{slope·s})`, s one coordinate of a uniform unit vector."""
    from scipy.special import logsumexp

    coordinate, log_weight = coordinate_quadrature(dim)
    return np.asarray(logsumexp(theta[..., None] * np.exp(slope * coordinate) + log_weight, axis=-1))


@functools.cache
def coordinate_quadrature(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes cos ψ and log-weights for the mean over one coordinate of a uniform unit vector, of density ∝ sin^{d-2} ψ.

    Gauss-Legendre on panels in ψ that shrink geometrically towards 0, where exp(θ e^{slope·cos ψ}) has its peak.
    """
    edges = np.concatenate([[0.0], np.pi * 2.0 ** np.linspace(-18, 0, 18 * 16 + 1)])
    nodes, weights = np.polynomial.legendre.leggauss(16)
    centre, half = (edges[1:] + edges[:-1])[:, None] / 2, np.diff(edges)[:, None] / 2
    angle, weight = (centre + half * nodes).ravel(), (half * weights).ravel()
    log_weight = np.log(weight) + (dim - 2) * np.log(np.sin(angle))
    top = log_weight.max()
    return np.cos(angle), log_weight - top - np.log(np.sum(np.exp(log_weight - top)))


def block_factor(size: int, log_q: np.ndarray, dim: int) -> np.ndarray:
    """`log E Π_{j<N} d/(d+2j)` for N ~ Binomial(size, 1 - q)."""
    from scipy.special import gammaln, logsumexp

    n = np.arange(size + 1)
    log_q = np.minimum(log_q, 0.0)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_power = np.where(n > 0, n * np.log(-np.expm1(log_q)), 0.0)
    log_choose = gammaln(size + 1) - gammaln(n + 1) - gammaln(size - n + 1)
    return np.asarray(logsumexp(log_choose + log_power + (size - n) * log_q + log_products(dim, size), axis=-1))


def is_orthogonal(coupling: Coupling) -> bool:
    """True for "orthogonal" and False for "independent"; ValueError for any other name."""
    if coupling not in ("independent", "orthogonal"):
        raise ValueError(f"coupling must be 'independent' or 'orthogonal', got {short(coupling)}.")
    return coupling == "orthogonal"


def at_least_two(dim: int) -> int:
    """`dim`, checked to be at least 2: in one dimension the direction of a row is only a sign."""
    if as_count(dim, "dim") < 2:
        raise ValueError(f"dim must be at least 2, got {dim}.")
    return dim
