"""Causal linear attention of one head in NumPy, by blocks of chunks; the past decides how, never the future."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from randfeat.attention.exponents import Exponents, moderate
from randfeat.attention.inputs import AttentionInputs
from randfeat.attention.state import AttentionState
from randfeat.attention.sums import Sums, sum_keys
from randfeat.maps import FeatureMap
from randfeat.threads import Scratch

__all__ = ["CausalHead", "GenericPass"]

BLOCK = 512
CHUNK = 32  # positions within which weights are formed pair by pair

GenericPass: TypeAlias = Callable[
    [AttentionInputs, FeatureMap, AttentionState], tuple[list[np.ndarray], AttentionState]
]
"""Outputs of consecutive pieces and the state after all keys."""


@dataclass(frozen=True, eq=False)
class CausalHead:
    """One sequence of keys and everything that reads it: queries and outputs are lists of (n, d) and (n, dv).

    Within a block, features of keys are relative to a reference that every query of the block may know: one number, the
    middle of the sums so far or the first key; or one number for each feature, its sum so far. A key is bad if it is
    too large beside that. Queries before the first bad key are answered by chunks: scores within a chunk, and the sums
    over everything before it. From the bad key to the end of its chunk the generic pass takes over, which halves the
    triangle; the next block starts behind, with a reference per feature from then on.

    Whether a key is bad depends on nothing that comes later, and from the first bad key on a block holds zeros: outputs
    do not depend on the future to the last bit.
    """

    features: FeatureMap
    query_side: Exponents
    key_side: Exponents
    queries: list[np.ndarray]
    key: np.ndarray
    value: np.ndarray
    mask: np.ndarray | None
    outputs: list[np.ndarray]
    root: float
    generic: GenericPass

    def run(self, sums: Sums, scratch: Scratch, *, peak: bool) -> Sums:
        """Fill the outputs, after the keys in `sums`; returns the sums over all keys."""
        start, plain = 0, True
        while start < len(self.key):
            rows = slice(start, min(start + BLOCK, len(self.key)))
            block = KeyBlock.of(self.key_side, sums, *self.keys(rows), scratch, plain=plain, peak=peak)
            stop = rows.stop
            if block is None or block.first_bad < stop - start:
                plain, bad = False, 0 if block is None else block.first_bad
                stop = min(start + (bad // CHUNK + 1) * CHUNK, stop)
            self.answer(block, sums, slice(start, stop), scratch)
            sums = self.after(block, sums, slice(start, stop), scratch, peak=peak)
            start = stop
        return sums

    def keys(self, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Keys, values and, where not all are present, the mask."""
        present = None if self.mask is None or self.mask[rows].all() else self.mask[rows]
        return self.key[rows], self.value[rows], present

    def answer(self, block: "KeyBlock | None", sums: Sums, rows: slice, scratch: Scratch) -> None:
        """The outputs of all queries at some positions: by the block where that is good, else by the generic pass."""
        key, value, present = self.keys(rows)
        for query, output in zip(self.queries, self.outputs, strict=True):
            good = np.zeros(len(key), dtype=bool)
            if block is not None and block.first_bad > 0:
                good = block.answer(self.query_side, query[rows], output[rows], scratch)
            if not good.all():
                inputs = AttentionInputs(query[rows], key, value, present, value.dtype, None, root=self.root).prepared()
                exact = np.concatenate(self.generic(inputs, self.features, sums.to_state(self.key_side))[0])
                output[rows][~good] = exact[~good]

    def after(self, block: "KeyBlock | None", sums: Sums, rows: slice, scratch: Scratch, *, peak: bool) -> Sums:
        """The sums after these positions: those of the block, if none of its keys is bad; else with shifts."""
        key, value, present = self.keys(rows)
        if block is not None and block.first_bad == len(key):
            total = block.sums(sums.peak)
            if total.total.min() >= self.key_side.limits.lowest:
                return total
        if present is not None:
            key, value = key[present], value[present]
        if len(key) == 0:
            return sums
        block_sums = sum_keys(self.key_side, key, value, scratch, peak=peak, shifted=True)
        return sums.merge(block_sums, self.key_side.limits)


@dataclass(frozen=True, eq=False)
class KeyBlock:
    """The keys of one block relative to a reference, cut into chunks of c: zero from the first bad key on.

    features (chunks, c, m). values (chunks, c, dv + 1): those of the keys, and 1 for the total, times what is not in
    the features. before (chunks + 1, m, dv + 1): the sums over all that is before each chunk, times `power(reference)`.
    reference (m,). offset (m,): weights of the features on the query side; None if they are equal.
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
        key: np.ndarray,
        value: np.ndarray,
        present: np.ndarray | None,
        scratch: Scratch,
        *,
        plain: bool,
        peak: bool,
    ) -> "KeyBlock | None":
        """From the sums so far and the keys of the block, with one reference if `plain` and they allow; None if they
        are no start for a block at all.
        """
        limits, num, width = keys.limits, len(key), len(keys.rows)
        size = -(-num // CHUNK) * CHUNK
        units = scratch.take("units", size, key.shape[-1])
        units[num:] = 0
        np.multiply(key, keys.factor, out=units[:num])
        values = scratch.take("values", size, value.shape[-1] + 1)
        values[num:] = 0
        values[:num, :-1] = value
        if present is not None:
            units[:num][~present] = 0
            values[:num][~present] = 0
        per_row = keys.per_row(units)
        per_row[num:] = -np.inf
        if present is not None:
            per_row[:num][~present] = -np.inf
        reference = reference_of(sums, per_row[:num], keys, plain=plain)
        if reference is None:
            return None
        per_feature = bool(np.any(reference != reference[0]))
        exponents = scratch.take("key exponents", size, width)
        bound = keys.fill(units, exponents)
        exponents[num:] = 0
        if present is not None:
            exponents[:num][~present] = 0
        largest = np.max(exponents[:num] + per_row[:num, None], axis=0) if peak else None
        bad = ~moderate(values[:num, :-1], limits)
        factors = per_row - reference[0]
        if per_feature:
            factors[per_row > -np.inf] = 0
            exponents[:num] += np.where(per_row[:num] == -np.inf, 0, per_row[:num])[:, None]
            exponents -= reference
            if not exponents.max() <= 2 * limits.limit:
                bad |= ~(exponents[:num].max(axis=1) <= 2 * limits.limit)
        else:
            bad |= ~(factors[:num] <= limits.rise)
            if not keys.within_limit(exponents, bound):
                bad |= ~(exponents[:num].max(axis=1) <= limits.limit)
        if present is not None:
            bad &= present
        first_bad = int(np.argmax(bad)) if bad.any() else num
        exponents[first_bad:] = 0
        factors[first_bad:] = -np.inf
        values[first_bad:] = 0
        factors = limits.power(factors)[:, None]
        values[:, :-1] *= factors
        values[:, -1:] = factors
        features = limits.power(exponents, out=exponents).reshape(-1, CHUNK, width)
        values = values.reshape(-1, CHUNK, value.shape[-1] + 1)
        before = scratch.take("before", len(features) + 1, width, values.shape[-1])
        scale = limits.power(sums.shift - reference)
        np.multiply(sums.weighted, scale[:, None], out=before[0, :, :-1])
        np.multiply(sums.total, scale, out=before[0, :, -1])
        if not max(before[0, :, :-1].max(), -before[0, :, :-1].min()) <= limits.largest_value / limits.lowest:
            return None
        np.matmul(np.swapaxes(features, -1, -2), values, out=before[1:])
        for chunk in range(len(features)):
            before[chunk + 1] += before[chunk]
        started = bool(sums.total.any())
        seen = np.full(num, True) if present is None or started else np.logical_or.accumulate(present)
        offset = reference if per_feature else None
        return cls(features, values, before, reference, offset, first_bad, largest, seen, keys.log_weights)

    def sums(self, peak: np.ndarray | None) -> Sums:
        """The sums over everything up to the end of the block, `peak` that of what came before."""
        last = self.before[-1]
        largest = None if peak is None or self.peak is None else np.maximum(peak, self.peak)
        return Sums(self.reference, last[:, :-1].copy(), last[:, -1].copy(), largest)

    def answer(self, queries: Exponents, query: np.ndarray, output: np.ndarray, scratch: Scratch) -> np.ndarray:
        """The outputs of the first queries of the block into `output`; which of them are good, (n,)."""
        limits, num = queries.limits, len(query)
        chunks, size, width = self.features.shape
        units = scratch.take("units", chunks * size, query.shape[-1])
        units[num:] = 0
        np.multiply(query, queries.factor, out=units[:num])
        exponents = scratch.take("exponents", chunks * size, width)
        bound = queries.fill(units, exponents)
        offset = queries.log_weights + self.log_weights
        if self.offset is not None or np.any(offset != offset[0]):
            exponents += offset if self.offset is None else offset + self.offset
            exponents -= exponents.max(axis=1, keepdims=True)
        elif not queries.within_limit(exponents, bound):
            top = exponents.max(axis=1, keepdims=True)
            exponents -= np.where(top > limits.limit, top, 0).astype(top.dtype, copy=False)
        features = limits.power(exponents, out=exponents).reshape(self.features.shape)
        scores = scratch.take("scores", chunks, size, size)
        np.matmul(features, np.swapaxes(self.features, -1, -2), out=scores)
        scores *= np.tri(size, dtype=scores.dtype)
        sums = scratch.take("outputs", chunks, size, self.values.shape[-1])
        np.matmul(features, self.before[:-1], out=sums)
        sums += scores @ self.values
        sums = sums.reshape(chunks * size, -1)[:num]
        total = sums[:, -1]
        good = (np.arange(num) < self.first_bad) & ((total >= limits.lowest) | ~self.seen[:num])
        np.divide(sums[:, :-1], np.where(self.seen[:num], total, 1)[:, None], out=output)
        output[~self.seen[:num]] = 0
        return good


def reference_of(sums: Sums, per_row: np.ndarray, keys: Exponents, *, plain: bool) -> np.ndarray | None:
    """What the keys of a block are relative to, (m,): the sums so far, or their middle; without any, the first key.

    None if the sums have lost a feature, which no reference brings back.
    """
    if not sums.total.any():
        visible = per_row > -np.inf
        first = per_row[int(np.argmax(visible))] if visible.any() else per_row.dtype.type(0)
        return np.full(len(sums.total), first)
    logs = sums.shift + np.log(sums.total) * sums.total.dtype.type(keys.limits.unit)
    low, high = logs.min(), logs.max()
    if not np.isfinite(low) or not np.isfinite(high):
        return None
    return np.full_like(logs, (low + high) / 2) if plain and high - low <= 2 * keys.limits.limit else logs
