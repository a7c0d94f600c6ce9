"""The spherical-radial rule of degree (3, 3) with a random radius, for the Gaussian kernel.

With v_1 .. v_{d+1} the vertices of a regular simplex, a uniform rotation Q and ρ_j² ~ χ²_{d+2} for each pair of nodes
±ρ_j Q v_j, one block estimates E[f(w)], w ~ N(0, I_d), for even f by

    1/(d+1) Σ_j [(1 - a_j) f(0) + a_j f(ρ_j Q v_j)],   a_j = d/ρ_j².

Unbiased: the density of ρ_j is that of a χ_d length times ρ²/d, so the weight a_j turns one into the other, and
E[a_j] = 1. Exact for degrees up to 3 in every draw, as a_j ρ_j² = d. The weight of the origin has any sign: with a
negative one there is an estimated Gram matrix but no real feature at the origin. "real" lengths are redrawn until
ρ_j² >= d, which has a probability between 1/2 and 0.68 for d >= 4: no weight is negative then, and the estimate is
biased.
Source: Genz & Monahan 1998, "Stochastic Integration Rules for Infinite Regions"; Munkhoeva et al. 2018.
"""

import numpy as np

from randfeat.couplings.base import haar_rows
from randfeat.couplings.laws import RadialPair

RADIUS_METHODS = ("random radius", "random radius, real")


def block_size(dim: int) -> int:
    """Pairs of nodes in one block."""
    return dim + 1


def sample_rule(method: str, num_blocks: int, dim: int, *, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows (num_blocks (d+1), d), one of each pair of nodes, and the weights a_j."""
    from scipy.linalg import helmert
    from scipy.special import chdtrc, chdtri

    vertices = np.sqrt((dim + 1) / dim) * helmert(dim + 1).T
    directions = (vertices @ haar_rows(dim, dim, rng=rng, batch_shape=(num_blocks,))).reshape(-1, dim)
    if method == "random radius":
        squares = rng.chisquare(dim + 2, len(directions))
    else:  # by the quantiles of the lengths that remain
        squares = chdtri(dim + 2, (1 - rng.random(len(directions))) * chdtrc(dim + 2, dim))
    return np.sqrt(squares)[:, None] * directions, dim / squares


def sample_gram(method: str, num_blocks: int, x: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """One estimate of `exp(-|x_i - x_j|²/2)`, x (n, d); cos(w·(x_i - x_j)) has cosines and sines for its features."""
    rows, weights = sample_rule(method, num_blocks, x.shape[1], rng=rng)
    angles = x @ rows.T
    features = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * np.tile(np.sqrt(weights / len(rows)), 2)
    return features @ features.T + (1 - np.mean(weights))


def expected_mse(method: str, num_blocks: int, dim: int, t: np.ndarray) -> np.ndarray:
    """The variance at squared distances t, d >= 3; NaN for real features.

    With S = cos(w·z), g = 1 + a(S - 1): for two nodes of a block the weights turn both lengths into χ_d ones, and what
    is left is the covariance of cosines at the cosine -1/d. For one node, with M(t) = E[a cos w·z] under a χ_d length,

        Var g = 3/2 M(0) - 2 M(t) + M(4t)/2 - (1 - e^{-t/2})²,   M(t) = d/(d-2) 1F1(d/2 - 1; d/2; -t/2).
    """
    from scipy.special import hyp1f1

    t = np.asarray(t, dtype=np.float64)
    if method != "random radius":
        return np.full_like(t, np.nan)
    means = [dim / (dim - 2) * hyp1f1(dim / 2 - 1, dim / 2, -s / 2) for s in (0 * t, t, 4 * t)]
    own = 1.5 * means[0] - 2 * means[1] + means[2] / 2 - np.expm1(-t / 2) ** 2
    pair = np.exp(-t) * RadialPair(dim, cosine=-1 / dim).even_covariance(-t)
    return (own + dim * pair) / (num_blocks * (dim + 1))
