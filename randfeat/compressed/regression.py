"""The fit of a key cache: masses and values by regression towards the merged keys."""

from dataclasses import replace

import numpy as np

from randfeat.compressed.merging import Merge, References, Rows
from randfeat.compressed.softmax import log_mean_exp, softmax_in_place

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
NUM_FOLDS = 4
LARGEST_LOG_MASS = 12.0
LEAST_RIDGE = 1e-12
ITERATIONS = 30  # of the non-negative least squares, for each row


def fitted(references: References, merge: Merge, rows: Rows, folds: str, generator: np.random.Generator) -> Merge:
    """The merge with masses and values fitted to the outputs of the references, in float64.

    With E = x_i · w_h - log Z_i, its columns scaled to A = exp(E - c), and the merged masses μ, the masses are

        min_{z >= 0} |A z - 1|² + ρ n |z - μ|²,

    and the values are the ridge regression of what is left of the outputs on the softmax weights p of the rows,
    `u + (pᵀp + ρ mean diag(pᵀp) I)⁻¹ pᵀ(O - p u)`. ρ is chosen by four folds of the references, where the merged rows
    compete as they are. A row without mass gets the bias `-inf`.

    folds : "random" folds suit exchangeable queries; "blocks" are quarters in order of time, for a prefix that later,
        different queries will read.

    Source: Lawson & Hanson 1974, non-negative least squares; Zweiger et al. 2026, "Attention Matching", for masses and
        values from reference queries; the regression towards merged rows is new here.
    """
    start = merge.rows(rows)
    log_ratio = references.log_ratio(start.keys).astype(np.float64)
    outputs = (references.weights @ rows.values).astype(np.float64)
    bias, merged_values = start.bias.astype(np.float64), start.values.astype(np.float64)
    fold = folds_of(len(outputs), folds, generator)
    best, least = None, squared_error(log_ratio, bias, merged_values, outputs)
    for ridge in RIDGES:
        error = 0.0
        for left_out in range(NUM_FOLDS):
            kept, rest = fold != left_out, fold == left_out
            if not (kept.any() and rest.any()):
                continue
            found = solve(log_ratio[kept], outputs[kept], bias, merged_values, ridge)
            error += squared_error(log_ratio[rest], *found, outputs[rest])
        if error < least:
            best, least = ridge, error
    if best is None:
        return merge
    bias, fitted_values = solve(log_ratio, outputs, bias, merged_values, best)
    dtype = start.keys.dtype
    return replace(merge, bias=bias.astype(dtype), correction=(fitted_values - merged_values).astype(dtype))


def folds_of(num: int, folds: str, generator: np.random.Generator) -> np.ndarray:
    """The fold of each reference."""
    numbers = np.arange(num)
    return generator.permutation(numbers) % NUM_FOLDS if folds == "random" else numbers * NUM_FOLDS // num


def solve(
    log_ratio: np.ndarray, outputs: np.ndarray, bias: np.ndarray, values: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Biases (`-inf` for rows without mass) and values that fit the outputs."""
    from scipy.optimize import nnls  # not needed by those who only import

    num, width = log_ratio.shape
    scales = 0.5 * log_mean_exp(2 * log_ratio, axis=0)
    prior = np.exp(np.minimum(bias + scales, LARGEST_LOG_MASS))
    root = np.sqrt(ridge * num)
    system = np.concatenate([np.exp(log_ratio - scales), root * np.eye(width)])
    try:
        mass, _ = nnls(system, np.concatenate([np.ones(num), root * prior]), maxiter=ITERATIONS * width)
    except RuntimeError:  # too many iterations
        mass = prior
    if not np.any(mass > 0):
        mass = prior
    with np.errstate(divide="ignore"):
        bias = np.log(mass) - scales
    weights = log_ratio + bias
    softmax_in_place(weights)
    gram = weights.T @ weights
    gram[np.diag_indices(width)] += ridge * np.trace(gram) / width + LEAST_RIDGE
    return bias, values + np.linalg.solve(gram, weights.T @ (outputs - weights @ values))


def squared_error(log_ratio: np.ndarray, bias: np.ndarray, values: np.ndarray, outputs: np.ndarray) -> float:
    """`Σ |o - O|²` of the outputs that rows with these biases and values give."""
    weights = log_ratio + bias
    softmax_in_place(weights)
    return float(np.sum((weights @ values - outputs) ** 2))
