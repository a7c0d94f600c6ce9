"""Uniform error of Fourier features: over finitely many pairs, over a set of given diameter, for attention matrices."""

from typing import Any, Literal

import numpy as np

from randfeat._array import as_count
from randfeat._hints import short
from randfeat.bounds.arguments import positive, probability

Variant = Literal["pairs", "phase"]

STEEPEST_SLOPE = np.exp(-0.5)  # of the Gaussian kernel: the maximum of r exp(-r²/2)


def finite_num_rows(error: Any, num_pairs: Any, *, failure: float) -> np.ndarray:
    """Rows of sine-cosine pairs with `P[max |k̂ - k| < error] >= 1 - failure` over finitely many pairs of points.

    `2 log(2 P / failure) / error²`, by Hoeffding's inequality for cosines and a union bound; independent rows.

    >>> int(finite_num_rows(0.1, 1000**2, failure=0.1))
    3363
    """
    error, pairs = positive(error, "error"), positive(num_pairs, "num_pairs")
    return np.ceil(2 * np.log(2 * pairs / probability(failure)) / error**2)


def sup_error_bound(error: Any, diameter: Any, dim: int, num_rows: Any, *, variant: Variant = "pairs") -> np.ndarray:
    """Upper bound of `P[sup |k̂ - k| >= error]` over all pairs of points in a set of this diameter in R^d.

    For the Gaussian kernel and Fourier features with m independent rows. The proof covers the set by a net of radius r.
    Hoeffding's inequality holds at its points, Markov's bounds the slope L between them, and the best r is taken. With
    g = e^{-1/2}, the largest slope of the kernel:

        pairs  n = d,   2 (4ℓ/r)^n e^{-m ε²/8}     + (2r/ε)² (√d + g)²;
        phase  n = 2d,  2 (√8 ℓ/r)^n e^{-m ε²/32}  + (2r/ε)² (2√d + √2 g)².

    For error <= √d · diameter. Unlike `sutherland_schneider_bound`, it bounds the slope at all points at once.
    Source: the argument is that of Rahimi & Recht 2007, "Random Features for Large-Scale Kernel Machines".
    """
    return net_bound(error, diameter, dim, num_rows, variant, complete=True)


def sutherland_schneider_bound(
    error: Any, diameter: Any, dim: int, num_rows: Any, *, variant: Variant = "pairs"
) -> np.ndarray:
    """The published form of `sup_error_bound`: at most `66 (√d ℓ/ε)² e^{-m ε²/4(d+2)}` for pairs with m rows, and at
    most `98 (√d ℓ/ε)² e^{-m ε²/32(d+1)}` for m random phases.

    Its constants use E L² <= d and <= 3d. That holds for the slope at one fixed point; L is the largest slope of all.
    Source: Sutherland & Schneider 2015, "On the Error of Random Fourier Features", Propositions 1 and 2 (D = 2m pairs).
    """
    return net_bound(error, diameter, dim, num_rows, variant, complete=False)


def rahimi_recht_bound(error: Any, diameter: Any, dim: int, num_rows: Any) -> np.ndarray:
    """The first bound of this kind, `2⁸ (√d ℓ/ε)² e^{-m ε²/4(d+2)}`, as printed.

    Printed for m random phases, but true for m sine-cosine pairs: Hoeffding's inequality gives this exponent for pairs,
    and the proof treats the error as a function of x - y, which it is for pairs only.
    Source: Rahimi & Recht 2007, "Random Features for Large-Scale Kernel Machines", Claim 1.
    """
    error, diameter, dim = positive(error, "error"), positive(diameter, "diameter"), as_count(dim, "dim")
    rows = positive(num_rows, "num_rows")
    log_bound = 8 * np.log(2) + np.log(dim * (diameter / error) ** 2) - rows * error**2 / (4 * (dim + 2))
    return np.exp(np.minimum(np.where(error <= np.sqrt(dim) * diameter, log_bound, 0.0), 0.0))


def sup_error_num_rows(
    error: Any, diameter: Any, dim: int, *, failure: float, variant: Variant = "pairs"
) -> np.ndarray:
    """The smallest number of rows for which `sup_error_bound` is at most `failure`.

    >>> int(sup_error_num_rows(0.1, diameter=2.0, dim=4, failure=0.1))
    26915
    """
    error, diameter = np.broadcast_arrays(positive(error, "error"), positive(diameter, "diameter"))
    n, rate, log_net, log_slope = net_terms(error, diameter, as_count(dim, "dim"), variant, complete=True)
    if np.any(error > np.sqrt(dim) * diameter):
        raise ValueError("error must be at most √dim · diameter: beyond, the bound claims nothing; pass a smaller one.")
    return np.ceil((log_best(n, log_net, log_slope) - np.log(probability(failure))) * (n + 2) / (2 * rate))


def attention_num_rows(error: Any, dim: int, radius: Any, *, failure: float) -> np.ndarray:
    """Rows of trigonometric softmax features with `P[max |Â - A| <= error] >= 1 - failure`, A = exp(q·k/√d).

    For any number of queries and keys with norms up to `radius`: A is `e^{(|q|²+|k|²)/2√d}` times the Gaussian kernel
    of points of norm `R d^{-1/4}`, so the entries need the error `ε e^{-R²/√d}` of that kernel. A is the unnormalized
    matrix; nothing is claimed for its normalized rows. For independent rows. `finite_num_rows` may be smaller: use it
    then.
    Source: Choromanski et al. 2021, "Rethinking Attention with Performers", Theorem 4, with explicit constants.

    >>> print(f"{attention_num_rows(0.1, dim=64, radius=1.0, failure=0.5):.2g}")
    4.4e+05
    """
    error, radius, dim = positive(error, "error"), positive(radius, "radius"), as_count(dim, "dim")
    norm = radius * dim**-0.25
    return sup_error_num_rows(error * np.exp(-(norm**2)), 2 * norm, dim, failure=failure)


def net_bound(error: Any, diameter: Any, dim: int, num_rows: Any, variant: Variant, *, complete: bool) -> np.ndarray:
    """Covering-net bound of `P[sup |k̂ - k| >= error]`, capped at 1."""
    error, diameter = positive(error, "error"), positive(diameter, "diameter")
    dim, rows = as_count(dim, "dim"), positive(num_rows, "num_rows")
    n, rate, log_net, log_slope = net_terms(error, diameter, dim, variant, complete=complete)
    log_bound = log_best(n, log_net - rate * rows, log_slope)
    return np.exp(np.minimum(np.where(error <= np.sqrt(dim) * diameter, log_bound, 0.0), 0.0))


def net_terms(
    error: np.ndarray, diameter: np.ndarray, dim: int, variant: Variant, *, complete: bool
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Exponents and logarithms `n, c, log a, log b` of the net bound `a r^{-n} e^{-cm} + b r²`."""
    root = np.sqrt(dim)
    if variant == "pairs":
        n, width, stretch = dim, 8, 4.0
        slope = root + STEEPEST_SLOPE if complete else root
    elif variant == "phase":
        n, width, stretch = 2 * dim, 32, np.sqrt(8)
        slope = 2 * root + np.sqrt(2) * STEEPEST_SLOPE if complete else np.sqrt(3) * root
    else:
        raise ValueError(f"variant must be 'pairs' or 'phase', got {short(variant)}.")
    return n, error**2 / width, np.log(2) + n * np.log(stretch * diameter), 2 * np.log(2 * slope / error)


def log_best(n: int, log_a: np.ndarray, log_b: np.ndarray) -> np.ndarray:
    """`log min_r (a r^{-n} + b r²)`, attained at `r^{n+2} = n a/(2b)`."""
    ratio = n / 2
    factor = ratio ** (-n / (n + 2)) + ratio ** (2 / (n + 2))
    return np.log(factor) + (2 * log_a + n * log_b) / (n + 2)
