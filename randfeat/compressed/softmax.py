"""Softmax over the rows of a matrix on the host, with the logarithm of its normalizer."""

import numpy as np


def log_sum_exp(logits: np.ndarray, axis: int = -1) -> np.ndarray:
    """`log Σ exp(logits)` along `axis`, with the maximum taken out; `-inf` where all are."""
    top = np.max(logits, axis=axis, keepdims=True)
    top[top == -np.inf] = 0
    with np.errstate(divide="ignore"):
        sums = np.log(np.sum(np.exp(logits - top), axis=axis))
    return sums + np.squeeze(top, axis)


def log_mean_exp(logits: np.ndarray, axis: int = -1) -> np.ndarray:
    """`log mean exp(logits)` along `axis`, with the maximum taken out."""
    return log_sum_exp(logits, axis) - np.log(logits.dtype.type(logits.shape[axis]))


def softmax_in_place(logits: np.ndarray) -> np.ndarray:
    """The softmax of each row, written over the logits; returns the logarithms of the normalizers (n, 1).

    A row of `-inf` becomes zeros, with the normalizer `-inf`.
    """
    top = np.max(logits, axis=-1, keepdims=True)
    empty = top == -np.inf
    logits -= np.where(empty, 0, top)
    np.exp(logits, out=logits)
    total = np.sum(logits, axis=-1, keepdims=True)
    logits /= np.where(empty, 1, total)
    with np.errstate(divide="ignore"):
        return top + np.log(total)
