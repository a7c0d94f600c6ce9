"""Rows from mixtures: what importance-sampled and posterior features share."""

from collections.abc import Callable

import numpy as np

from randfeat._array import Drawn
from randfeat.couplings import Coupling
from randfeat.couplings.base import sampled_rows


def draw_by_head(
    batch_shape: tuple[int, ...],
    heads: tuple[int, ...],
    draw: Callable[[tuple[int, ...], tuple[int, ...]], tuple[np.ndarray, np.ndarray]],
) -> Drawn:
    """Rows and log-weights of a batch of maps, one set of parameters after the other.

    heads : the shape of the sets of parameters, the end of batch_shape, where 1 may stand for more. draw(head, extra)
    gives independent rows (*extra, m, d) and log-weights (*extra, m) of one set, extra the rest of batch_shape.
    """
    extra = batch_shape[: len(batch_shape) - len(heads)]
    entries = list(np.ndindex(*batch_shape[len(extra) :]))
    drawn = [draw(tuple(min(i, n - 1) for i, n in zip(entry, heads, strict=True)), extra) for entry in entries]
    rows = np.empty((*batch_shape, *drawn[0][0].shape[-2:]))
    log_weights = np.empty((*batch_shape, 1, rows.shape[-2]))
    for entry, (w, log_weight) in zip(entries, drawn, strict=True):
        rows[(..., *entry, slice(None), slice(None))] = w
        log_weights[(..., *entry, 0, slice(None))] = log_weight
    return {"rows": rows, "log_weights": log_weights}


def shuffled_rows(
    coupling: Coupling, num: int, dim: int, rng: np.random.Generator, extra: tuple[int, ...]
) -> np.ndarray:
    """Coupled rows (*extra, num, dim) in random order, so that the coupling knows nothing of the strata."""
    if num == 0:
        return np.empty((*extra, 0, dim))
    rows = sampled_rows(coupling, num, dim, rng=rng, batch_shape=extra)
    return np.take_along_axis(rows, np.argsort(rng.random((*extra, num)), axis=-1)[..., None], axis=-2)


def log_sum_exp(x: np.ndarray) -> np.ndarray:
    """`log Σ e^x` along the last axis; entries may be -inf, not all of them."""
    top = np.max(x, axis=-1, keepdims=True)
    return np.log(np.sum(np.exp(x - top), axis=-1)) + top[..., 0]


def systematic(masses: np.ndarray, size: int, rng: np.random.Generator, extra: tuple[int, ...] = ()) -> np.ndarray:
    """Indices (*extra, size) with probabilities proportional to `masses`, one from each of `size` equal strata."""
    edges = np.cumsum(masses)
    points = (np.arange(size) + rng.random((*extra, size))) * (edges[-1] / max(size, 1))
    last = int(np.flatnonzero(masses)[-1])  # rounding must not step beyond the last mass
    return np.minimum(np.searchsorted(edges, points, side="right"), last)
