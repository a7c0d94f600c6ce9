"""Outputs of drawn feature maps, and how far they are from what they should be."""

from collections.abc import Iterator

import numpy as np

import randfeat as rf
from experiments.backends import from_host, to_host
from experiments.heads import Head, value_range

BATCH = 2**22  # numbers in the largest array of a batch of draws: positions of a chunk × features × draws
CHUNK = 256


def outputs(
    estimator: rf.Estimator,
    head: Head,
    query: np.ndarray,
    num_features: int,
    num_draws: int,
    rng: np.random.Generator,
    *,
    backend: str,
    scale: float | None = None,
) -> Iterator[np.ndarray]:
    """The output of linear attention for one feature map after the other, computed on the backend in batches."""
    q, k, v = (from_host(array, backend) for array in (query, head.key, head.value))
    batch = min(max(1, BATCH // (CHUNK * num_features)), num_draws)
    for start in range(0, num_draws, batch):
        shape = (min(batch, num_draws - start),)
        phi = estimator.draw(head.dim, num_features, rng=rng, like=q, batch_shape=shape)
        yield from to_host(rf.linear_attention(q, k, v, phi, is_causal=head.is_causal, scale=scale))


def out_of_range(output: np.ndarray, head: Head) -> float:
    """How far an output leaves the range of the values its query sees, in any coordinate, over the largest value."""
    low, high = value_range(head)
    excess = np.maximum(np.maximum(low - output, output - high), 0.0)
    return float(np.max(excess) / np.max(np.abs(head.value)))


def stored_tolerance(head: Head) -> float:
    """By how much rounding may separate two computations of the exact output, one of them stored.

    Logits: d products each, so an error of d·eps·|q||k|/√d, which moves the output by at most twice that times |v|;
    the sum over the keys; and the rounding of a stored float32.
    """
    eps, largest = np.finfo(np.float64).eps, np.max(np.abs(head.value))
    lengths = np.max(np.linalg.norm(head.query, axis=1)) * np.max(np.linalg.norm(head.key, axis=1))
    logit_error = head.dim * eps * lengths / np.sqrt(head.dim)
    stored = np.finfo(head.out_dtype).eps / 2 * np.max(np.abs(head.out))
    return float((2 * logit_error + len(head.key) * eps) * largest + stored)
