"""Inequalities for random features: bias, orthogonal gain, tails, uniform and spectral error.

A variance says how large the error is on average; these functions bound how large it can get. Conventions:

- u = |x + y|², in the units of the kernel. Levels and errors of softmax features are relative to the kernel.
- `num_rows` counts rows m; sine-cosine pairs have two features for each (`estimator.num_rows`).
- Fourier features estimate the Gaussian kernel `exp(-|x - y|²/2)`: divide inputs by the length scale first.
- A bound of a probability is at most 1. Where an assumption fails, it is 1: nothing is claimed.

All functions broadcast and return float64 NumPy arrays. The theory page on bounds has the proofs, and says where the
printed versions differ.
"""

from randfeat.bounds.fourier import (
    attention_num_rows,
    finite_num_rows,
    rahimi_recht_bound,
    sup_error_bound,
    sup_error_num_rows,
    sutherland_schneider_bound,
)
from randfeat.bounds.regularized import orthogonal_gain_bound, regularized_softmax_bound
from randfeat.bounds.spectral import effective_dimension, spectral_error, spectral_num_rows
from randfeat.bounds.tails import (
    chernoff_bound,
    heavy_tail_bound,
    log_moment_generating_function,
    lower_tail_bound,
    orthogonal_moment_gap,
)

__all__ = [
    "attention_num_rows",
    "chernoff_bound",
    "effective_dimension",
    "finite_num_rows",
    "heavy_tail_bound",
    "log_moment_generating_function",
    "lower_tail_bound",
    "orthogonal_gain_bound",
    "orthogonal_moment_gap",
    "rahimi_recht_bound",
    "regularized_softmax_bound",
    "spectral_error",
    "spectral_num_rows",
    "sup_error_bound",
    "sup_error_num_rows",
    "sutherland_schneider_bound",
]
