"""Consecutive chunks of a block of causal attention, with the sums before each: how queries read keys up to their own.

The sums before all chunks of a block are larger than the cache of a core; those of a group stay in it.
"""

import functools
from dataclasses import dataclass

import numpy as np

from randfeat._numpy.threads import Scratch
from randfeat.attention.numpy.exponents import Exponents


@functools.cache
def up_to_own(size: int, dtype: np.dtype) -> np.ndarray:
    """The lower triangle of ones, pairs (i, j <= i) of a chunk: (size, size), read-only."""
    triangle = np.tri(size, dtype=dtype)
    triangle.flags.writeable = False
    return triangle


@dataclass(frozen=True, eq=False)
class Responses:
    """Features of the n queries of a block, cut like its keys: (chunks, c, m) times `power(log_scale)`, (n,)."""

    features: np.ndarray
    log_scale: np.ndarray


@dataclass(frozen=True, eq=False)
class ChunkGroup:
    """Some chunks of a `KeyBlock`: their keys' features (g, c, m) and values (g, c, dv + 1).

    chunks, rows : their places in the block. before (g, m, dv + 1) : the sums over all that is before each chunk.
    within : factors of the pairs of a chunk, (c, c) or (g, c, c), zero for later keys. from_start (g, c) or (1, c) :
    what is left of `before` at each position; None for all of it. num_good : rows before the first bad key.
    seen (n,) : whether a query sees any key.
    """

    chunks: slice
    rows: slice
    features: np.ndarray
    values: np.ndarray
    before: np.ndarray
    within: np.ndarray
    from_start: np.ndarray | None
    num_good: int
    seen: np.ndarray

    def read(self, responses: Responses, scratch: Scratch, columns: slice = slice(None)) -> np.ndarray:
        """`Σ_j weight_ij values_j` over the keys up to each query, (n, number of columns), in scratch memory."""
        features, values = responses.features[self.chunks], self.values[..., columns]
        chunks, size, _ = features.shape
        scores = scratch.take("scores", chunks, size, size)
        np.matmul(features, np.swapaxes(self.features, -1, -2), out=scores)
        scores *= self.within
        sums = scratch.take("outputs", chunks, size, values.shape[-1])
        np.matmul(features, self.before[..., columns], out=sums)
        if self.from_start is not None:
            sums *= self.from_start[..., None]
        sums += scores @ values
        return sums.reshape(chunks * size, -1)[: len(self.seen)]

    def slopes(self, responses: Responses, inner: np.ndarray, scratch: Scratch) -> np.ndarray:
        """The derivatives in the exponents of the queries, (n, m): `φ_if Σ_j (inner_i·values_j) φ_jf`.

        inner (n, c): products are with the first c columns of the values.
        """
        features = responses.features[self.chunks]
        chunks, size, width = features.shape
        num, columns = inner.shape
        padded = scratch.take("inner", chunks * size, columns)
        padded[:num], padded[num:] = inner, 0
        padded = padded.reshape(chunks, size, columns)
        products = scratch.take("scores", chunks, size, size)
        np.matmul(padded, np.swapaxes(self.values[..., :columns], -1, -2), out=products)
        products *= self.within
        slopes = np.matmul(products, self.features, out=scratch.take("slopes", chunks, size, width))
        earlier = np.swapaxes(self.before[..., :columns], -1, -2)
        slopes += np.matmul(padded, earlier, out=scratch.take("earlier slopes", chunks, size, width))
        slopes *= features
        return slopes.reshape(chunks * size, width)[:num]

    def accurate_rows(self, total: np.ndarray, queries: Exponents) -> np.ndarray:
        """A mask (n,) of the queries that see no bad key, and whose denominator is large enough, or that see no key."""
        num, lowest = len(total), queries.limits.lowest
        if self.num_good >= num and total.min() >= lowest:  # as mostly
            return np.ones(num, dtype=bool)
        return (np.arange(num) < self.num_good) & ((total >= lowest) | ~self.seen)
