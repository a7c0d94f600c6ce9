"""Bias of rows of constant length, and variance saved by orthogonality: Theorems 1 and 2 of the Performer paper."""

from typing import Any, Literal

import numpy as np

from randfeat._array import as_count
from randfeat.bounds.arguments import not_negative
from randfeat.couplings.orthogonal import Orthogonal


def log_products(dim: int, last: int) -> np.ndarray:
    """`log Π_{j<k} d/(d+2j)` for k = 0 .. last: the factors by which rows of constant length lower a moment."""
    return -np.concatenate([[0.0], np.cumsum(np.log1p(2 * np.arange(last) / dim))])


def regularized_softmax_bound(u: Any, dim: int) -> np.ndarray:
    """A lower bound of SMREG / SM = `e^{-u/2} 0F1(; d/2; du/4)`; the upper bound is 1.

    The larger of `e^{-u²/4d}` and, over integers l, `Π_{j<l} d/(d+2j) · P[Poisson(u/2) <= l]`. Holds for all u >= 0 and
    d >= 1. The first bound has the true rate 1/d at fixed u; with l = d^{1/3} the second gives the published
    `1 - 2 d^{-1/3} + o(d^{-1/3})`. Both need bounded u: bounded entries of exp(q·k) alone do not bound the ratio.
    Source: Choromanski et al. 2021, "Rethinking Attention with Performers", Theorem 1 (the second); the first by
    Jensen's inequality.

    >>> print(regularized_softmax_bound([1.0, 4.0], dim=64).round(4))
    [0.9961 0.9394]
    """
    from scipy.special import pdtr

    u, dim = not_negative(u, "u"), as_count(dim, "dim")
    jensen = np.exp(-(u**2) / (4 * dim))
    last = int(np.max(u, initial=0.0) / 2 + 10 * np.sqrt(np.max(u, initial=0.0)) + 10)
    terms = np.arange(last + 1)
    products = np.exp(log_products(dim, last))
    poisson = np.max(products * pdtr(terms, u[..., None] / 2), axis=-1)
    return np.maximum(jensen, poisson)


def orthogonal_gain_bound(u: Any, dim: int, num_rows: int, *, norms: Literal["chi", "constant"] = "chi") -> np.ndarray:
    """A lower bound of `(Var_independent - Var_orthogonal) / SM²` for positive features.

    `P/m² · 2/(d+2) · (M - e^{-u/2})²`, P the ordered pairs of rows within blocks, M the relative mean: 1 for chi norms,
    SMREG / SM for constant ones. Holds for all u >= 0, d >= 2 and m, with equality to leading order as u -> 0. For
    m <= d, P/m² = (m-1)/m. The exact gap is in closed form (`relative_variance` of both).
    Source: Choromanski et al. 2021, "Rethinking Attention with Performers", Theorem 2; extended to m > d.

    >>> from randfeat import PositiveFeatures
    >>> x = np.array([0.5, 0.0, 0.0])
    >>> independent, orthogonal = (
    ...     PositiveFeatures(coupling=name).relative_variance(x, x, num_features=3)
    ...     for name in ("independent", "orthogonal")
    ... )
    >>> bool(independent - orthogonal > orthogonal_gain_bound(1.0, 3, 3) > 0.6 * (independent - orthogonal))
    True
    """
    u, dim, rows = not_negative(u, "u"), as_count(dim, "dim"), as_count(num_rows, "num_rows")
    laws = Orthogonal(norms).pair_laws(rows, dim)
    pairs = sum(count for count, _ in laws)
    mean = Orthogonal(norms).row_law(dim).row_mean(u)
    return pairs / rows**2 * 2 / (dim + 2) * (mean - np.exp(-u / 2)) ** 2
