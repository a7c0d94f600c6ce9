"""Keys of one block of causal attention in NumPy, cut into chunks, and how queries read them."""

import functools
from dataclasses import dataclass, replace

import numpy as np

from randfeat._numpy.threads import Scratch
from randfeat.attention.numpy.exponents import Exponents, moderate
from randfeat.attention.numpy.sums import Sums

CHUNK = 32  # positions within which weights are formed pair by pair


@functools.cache
def up_to_own(size: int, dtype: np.dtype) -> np.ndarray:
    """The lower triangle of ones, pairs (i, j <= i) of a chunk: (size, size), read-only."""
    triangle = np.tri(size, dtype=dtype)
    triangle.flags.writeable = False
    return triangle


def end_of_chunk(position: int) -> int:
    """The end of the chunk that holds a position of the block."""
    return (position // CHUNK + 1) * CHUNK


@dataclass(frozen=True, eq=False)
class KeyRows:
    """Consecutive keys (n, d) with their values (n, dv); present (n,) where some are masked.

    log_factor (n,), in units of `Limits`, takes the place of r(k) in the backward sweep. There the "keys" are queries,
    and their "values" are gradients, which may be tiny.
    """

    key: np.ndarray
    value: np.ndarray
    present: np.ndarray | None
    log_factor: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Responses:
    """Features of the n queries of a block, cut like its keys: (chunks, c, m) times `power(log_scale)`, (n,)."""

    features: np.ndarray
    log_scale: np.ndarray


@dataclass(frozen=True, eq=False)
class KeyBlock:
    """The keys of one block relative to a reference, cut into chunks of c: zero from the first bad key on.

    features (chunks, c, m). values (chunks, c, dv + 1): those of the keys, and 1 for the total, times what is not in
    the features. before (chunks + 1, m, dv + 1): the sums over all that is before each chunk, times `power(reference)`.
    reference (m,). offset (m,): the reference again, as weights of the features on the query side; None where it is
    one number and in the values.
    peak (m,): the largest exponent of each feature, if asked for. seen (n,): whether a query there sees any key.
    """

    features: np.ndarray
    values: np.ndarray
    before: np.ndarray
    reference: np.ndarray
    offset: np.ndarray | None
    first_bad: int
    peak: np.ndarray | None
    seen: np.ndarray
    log_weights: np.ndarray

    @classmethod
    def of(
        cls,
        keys: Exponents,
        sums: Sums,
        rows: KeyRows,
        scratch: Scratch,
        *,
        one_reference: bool,
        peak: bool,
        for_slopes: bool,
    ) -> "KeyBlock | None":
        """Build a block from the sums so far and its keys; None if the sums are no start for a block at all.

        one_reference : relative to one number, if the sums allow it.
        for_slopes : keep `before` in the order in memory that `slopes` likes, and `read` does not.
        """
        key, value, present, log_factor = rows.key, rows.value, rows.present, rows.log_factor
        limits, num, width = keys.limits, len(key), len(keys.rows)
        size = -(-num // CHUNK) * CHUNK
        units = scratch.take("units", size, key.shape[-1])
        units[num:] = 0
        np.multiply(key, keys.factor, out=units[:num])
        if present is not None:
            units[:num][~present] = 0
            value = np.where(present[:, None], value, 0).astype(value.dtype, copy=False)
        per_row = np.full(size, -np.inf, units.dtype)
        per_row[:num] = keys.per_row(units[:num]) if log_factor is None else log_factor
        if present is not None:
            per_row[:num][~present] = -np.inf
        visible = per_row[:num] > -np.inf
        first = per_row[np.argmax(visible)] if visible.any() else 0
        reference = reference_of(sums, first, keys, one_reference=one_reference)
        if reference is None:
            return None
        one_reference = one_reference and not np.any(reference != reference[0])
        exponents = scratch.take("key exponents", size, width)
        bad = ~moderate(value, limits, tiny=log_factor is not None)
        factors = per_row - reference[0]
        if one_reference:
            bound = keys.fill(units, exponents)
        else:
            bound = np.inf
            inside = np.where(per_row == -np.inf, 0, per_row).astype(per_row.dtype, copy=False)
            keys.fill_shifted(units, exponents, scratch, per_feature=-reference, per_row=inside)
        exponents[num:] = 0
        if present is not None:
            exponents[:num][~present] = 0
        if one_reference:
            bad |= ~(factors[:num] <= limits.rise)
            if not keys.within_limit(exponents, bound):
                bad |= ~(exponents[:num].max(axis=1) <= limits.limit)
        else:
            factors[per_row > -np.inf] = 0
            if not exponents.max() <= 2 * limits.limit:
                bad |= ~(exponents[:num].max(axis=1) <= 2 * limits.limit)
        largest = None
        if peak:
            logs = exponents[:num] + per_row[:num, None] if one_reference else exponents[:num] + reference
            largest = np.max(logs, axis=0, where=visible[:, None], initial=-np.inf)
        if present is not None:
            bad &= present
        first_bad = int(np.argmax(bad)) if bad.any() else num
        exponents[first_bad:] = 0
        factors[first_bad:] = -np.inf
        factors = limits.power(factors)[:, None]
        values = scratch.take("values", size, value.shape[-1] + 1)
        values[first_bad:] = 0
        np.multiply(value[:first_bad], factors[:first_bad], out=values[:first_bad, :-1])
        values[:, -1:] = factors
        features = limits.features(exponents, bound).reshape(-1, CHUNK, width)
        values = values.reshape(-1, CHUNK, value.shape[-1] + 1)
        if for_slopes:
            before = np.swapaxes(scratch.take("before", len(features) + 1, values.shape[-1], width), -1, -2)
        else:
            before = scratch.take("before", len(features) + 1, width, values.shape[-1])
        scale = limits.power(sums.shift - reference)
        np.multiply(sums.weighted, scale[:, None], out=before[0, :, :-1])
        np.multiply(sums.total, scale, out=before[0, :, -1])
        if not max(before[0, :, :-1].max(), -before[0, :, :-1].min()) <= limits.largest_value / limits.lowest:
            return None
        np.matmul(np.swapaxes(features, -1, -2), values, out=before[1:])
        for chunk in range(len(features)):
            before[chunk + 1] += before[chunk]
        seen = np.full(num, True) if present is None or sums.total.any() else np.logical_or.accumulate(present)
        offset = None if one_reference else reference
        return cls(features, values, before, reference, offset, first_bad, largest, seen, keys.log_weights)

    def sums(self, peak: np.ndarray | None) -> Sums:
        """The sums over everything up to the end of the block, `peak` that of what came before."""
        largest = None if peak is None or self.peak is None else np.maximum(peak, self.peak)
        return replace(self.sums_before(len(self.features)), peak=largest)

    def sums_before(self, chunk: int) -> Sums:
        """The sums over everything before a chunk."""
        before = self.before[chunk]
        return Sums(self.reference, before[:, :-1].copy(), before[:, -1].copy(), None)

    def responses(self, queries: Exponents, query: np.ndarray, scratch: Scratch) -> Responses:
        """The features of the first queries (n, d) of the block, with the weights that they read its keys with.

        `features · (keys' features)`, and `features · before`, are the weights of attention up to factors of the query.
        """
        limits, num = queries.limits, len(query)
        chunks, size, width = self.features.shape
        units = scratch.take("units", chunks * size, query.shape[-1])
        units[num:] = 0
        np.multiply(query, queries.factor, out=units[:num])
        exponents = scratch.take("exponents", chunks * size, width)
        offset = queries.log_weights + self.log_weights
        if self.offset is not None or np.any(offset != offset[0]):
            whole = offset if self.offset is None else offset + self.offset
            bound = np.inf
            queries.fill_shifted(units, exponents, scratch, per_feature=whole)
            top = exponents.max(axis=1, keepdims=True)
            exponents -= top
            constant = self.reference[0] if self.offset is None else 0
        else:
            bound = queries.fill(units, exponents)
            top = np.zeros((len(exponents), 1), exponents.dtype)
            if not queries.within_limit(exponents, bound):
                top = exponents.max(axis=1, keepdims=True)
                top = np.where(top > limits.limit, top, 0).astype(top.dtype, copy=False)
                exponents -= top
                bound = np.inf
            constant = offset[0] + self.reference[0]
        features = limits.features(exponents, bound).reshape(self.features.shape)
        return Responses(features, top[:num, 0] + constant)

    def read(self, responses: Responses, scratch: Scratch, columns: slice = slice(None)) -> np.ndarray:
        """`Σ_j weight_ij values_j` over the keys up to each query, (n, number of columns), in scratch memory."""
        chunks, size, _ = self.features.shape
        values, before = self.values[..., columns], self.before[:-1, :, columns]
        scores = scratch.take("scores", chunks, size, size)
        np.matmul(responses.features, np.swapaxes(self.features, -1, -2), out=scores)
        scores *= up_to_own(size, scores.dtype)
        sums = scratch.take("outputs", chunks, size, values.shape[-1])
        np.matmul(responses.features, before, out=sums)
        sums += scores @ values
        return sums.reshape(chunks * size, -1)[: len(responses.log_scale)]

    def slopes(self, responses: Responses, inner: np.ndarray, scratch: Scratch) -> np.ndarray:
        """The derivatives in the exponents of the queries, (n, m): `φ_if Σ_j (inner_i·values_j) φ_jf`.

        inner (n, c): products are with the first c columns of the values.
        """
        chunks, size, width = self.features.shape
        num, columns = inner.shape
        padded = scratch.take("inner", chunks * size, columns)
        padded[:num], padded[num:] = inner, 0
        padded = padded.reshape(chunks, size, columns)
        products = scratch.take("scores", chunks, size, size)
        np.matmul(padded, np.swapaxes(self.values[..., :columns], -1, -2), out=products)
        products *= up_to_own(size, products.dtype)
        slopes = np.matmul(products, self.features, out=scratch.take("slopes", chunks, size, width))
        earlier = np.swapaxes(self.before[:-1, :, :columns], -1, -2)
        slopes += np.matmul(padded, earlier, out=scratch.take("earlier slopes", chunks, size, width))
        slopes *= responses.features
        return slopes.reshape(chunks * size, width)[:num]

    def write_outputs(self, queries: Exponents, query: np.ndarray, output: np.ndarray, scratch: Scratch) -> np.ndarray:
        """The outputs of the first queries of the block into `output`; which of them are accurate, (n,)."""
        sums = self.read(self.responses(queries, query, scratch), scratch)
        total, seen = sums[:, -1], self.seen[: len(query)]
        accurate = self.accurate_rows(total, queries)
        np.divide(sums[:, :-1], np.where(seen, total, 1)[:, None], out=output)
        output[~seen] = 0
        return accurate

    def accurate_rows(self, total: np.ndarray, queries: Exponents) -> np.ndarray:
        """A mask (n,) of the queries that see no bad key, and whose denominator is large enough, or that see no key."""
        num = len(total)
        if self.first_bad >= num and total.min() >= queries.limits.lowest:  # as mostly
            return np.ones(num, dtype=bool)
        return (np.arange(num) < self.first_bad) & ((total >= queries.limits.lowest) | ~self.seen[:num])


def reference_of(sums: Sums, first: float, keys: Exponents, *, one_reference: bool) -> np.ndarray | None:
    """The reference (m,) of the keys of a block: the sums so far, or their middle; without any sums, the first r(k).

    None if the sums have lost a feature, which no reference brings back.
    """
    if not sums.total.any():
        return np.full(len(sums.total), first, sums.total.dtype)
    logs = sums.shift + np.log(sums.total) * sums.total.dtype.type(keys.limits.exponent_unit)
    low, high = logs.min(), logs.max()
    if not np.isfinite(low) or not np.isfinite(high):
        return None
    return np.full_like(logs, (low + high) / 2) if one_reference and high - low <= 2 * keys.limits.limit else logs
