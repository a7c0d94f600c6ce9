"""Keys of one block of causal attention in NumPy, cut into chunks, and how queries respond to them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from randfeat._numpy.threads import Scratch
from randfeat.attention.numpy.chunk_group import ChunkGroup, Responses, up_to_own
from randfeat.attention.numpy.exponents import Exponents, moderate
from randfeat.attention.numpy.fading import Fading, log_remaining
from randfeat.attention.numpy.sums import KeyRows, Sums

CHUNK = 32  # positions within which weights are formed pair by pair
GROUP = 8  # chunks before which the sums are in use at one time


def end_of_chunk(position: int) -> int:
    """The end of the chunk that holds a position of the block."""
    return (position // CHUNK + 1) * CHUNK


@dataclass(frozen=True, eq=False)
class KeyBlock:
    """The keys of one block relative to a reference, cut into chunks of c: zero from the first bad key on.

    features (chunks, c, m). values (chunks, c, dv + 1): those of the keys, and 1 for the total, times what is not in
    the features. starts: the sums (m, dv + 1) over all that is before each group of chunks, times `power(reference)`:
    `groups` adds one after the other. reference (m,). offset (m,): the reference again, as weights of the features on
    the query side; None where it is one number and in the values.
    peak (m,): the largest exponent of each feature, if asked for. seen (n,): whether a query there sees any key.
    fading: what of the keys is left at later positions; None for all of them.
    """

    features: np.ndarray
    values: np.ndarray
    starts: list[np.ndarray]
    reference: np.ndarray
    offset: np.ndarray | None
    first_bad: int
    peak: np.ndarray | None
    seen: np.ndarray
    log_weights: np.ndarray
    fading: Fading | None

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
    ) -> "KeyBlock | None":
        """Build a block from the sums so far and its keys; None if the sums are no start for a block at all.

        one_reference : relative to one number, if the sums allow it.
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
            if rows.log_gates is not None:
                later, _ = log_remaining(rows.log_gates, num)
                logs += (later * later.dtype.type(limits.exponent_unit))[:, None]
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
        start = np.empty((width, values.shape[-1]), units.dtype)
        scale = limits.power(sums.shift - reference)
        np.multiply(sums.weighted, scale[:, None], out=start[:, :-1])
        np.multiply(sums.total, scale, out=start[:, -1])
        if not max(start[:, :-1].max(), -start[:, :-1].min()) <= limits.largest_value / limits.lowest:
            return None
        seen = np.full(num, True) if present is None or sums.total.any() else np.logical_or.accumulate(present)
        offset = None if one_reference else reference
        fading = None if rows.log_gates is None else Fading.of(rows.log_gates, num, CHUNK)
        return cls(features, values, [start], reference, offset, first_bad, largest, seen, keys.log_weights, fading)

    def groups(self, num: int, scratch: Scratch, *, for_slopes: bool) -> Iterator[ChunkGroup]:
        """The chunks of the first `num` rows, some at a time; a group is valid until the next one is asked for.

        for_slopes : keep the sums in the order in memory that `slopes` likes, and `read` does not.
        """
        width, columns = self.features.shape[-1], self.values.shape[-1]
        size = -(-num // CHUNK)
        for first in range(0, size, GROUP):
            chunks = slice(first, min(first + GROUP, size))
            rows = slice(first * CHUNK, min(chunks.stop * CHUNK, num))
            features, values = self.features[chunks], self.values[chunks]
            if for_slopes:
                before = np.swapaxes(scratch.take("before", len(features) + 1, columns, width), -1, -2)
            else:
                before = scratch.take("before", len(features) + 1, width, columns)
            before[0] = self.starts[-1]
            within, from_start = up_to_own(CHUNK, values.dtype), None
            if self.fading is None:
                np.matmul(np.swapaxes(features, -1, -2), values, out=before[1:])
                for earlier, later in pairwise(before):
                    later += earlier
            else:
                fading = self.fading.part(chunks)
                within, from_start = fading.within, fading.from_start
                np.matmul(np.swapaxes(features, -1, -2), values * fading.to_end[..., None], out=before[1:])
                left = np.broadcast_to(fading.of_chunk, len(features))
                for factor, (earlier, later) in zip(left, pairwise(before), strict=True):
                    later += earlier * factor
            self.starts.append(before[-1].copy())
            good = self.first_bad - rows.start
            yield ChunkGroup(chunks, rows, features, values, before[:-1], within, from_start, good, self.seen[rows])

    def sums(self, peak: np.ndarray | None) -> Sums:
        """The sums over everything up to the end of the block, `peak` that of what came before."""
        largest = None if peak is None or self.peak is None else np.maximum(peak, self.peak)
        return replace(self.as_sums(self.starts[-1]), peak=largest)

    def sums_before(self, chunk: int) -> Sums:
        """The sums over everything before a chunk of a group that was visited."""
        first = chunk // GROUP * GROUP
        total = self.starts[chunk // GROUP]
        for each in range(first, chunk):
            values = self.values[each]
            if self.fading is not None:
                fading = self.fading.part(slice(each, each + 1))
                total, values = total * fading.of_chunk[0], values * fading.to_end[0][:, None]
            total = total + self.features[each].T @ values
        return self.as_sums(total)

    def as_sums(self, total: np.ndarray) -> Sums:
        """Sums (m, dv + 1) with their reference."""
        return Sums(self.reference, total[:, :-1].copy(), total[:, -1].copy(), None)

    def responses(self, queries: Exponents, query: np.ndarray, scratch: Scratch, number: int = 0) -> Responses:
        """The features of the first queries (n, d) of the block, with the weights that they read its keys with.

        `features · (keys' features)`, and `features · before`, are the weights of attention up to factors of the query.
        They stay in scratch memory until others of the same number take their place.
        """
        limits, num = queries.limits, len(query)
        chunks, size, width = self.features.shape
        units = scratch.take("units", chunks * size, query.shape[-1])
        units[num:] = 0
        np.multiply(query, queries.factor, out=units[:num])
        exponents = scratch.take(f"exponents {number}", chunks * size, width)
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
