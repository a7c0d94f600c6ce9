"""Exact softmax weights in NumPy: of the keys near each query, in bands, and of the first keys."""

import functools
from dataclasses import dataclass

import numpy as np

from randfeat._numpy.threads import Scratch
from randfeat.attention.inputs import intervals
from randfeat.attention.numpy.exponents import Limits
from randfeat.attention.numpy.partial_rows import PartialRows
from randfeat.attention.numpy.sums import finite

BAND = 64  # queries that share a stretch of keys
PAIRS = 1 << 17  # pairs of a query and a key at one time


@functools.cache
def outside_band(size: int, span: int) -> np.ndarray:
    """Pairs of query i and key j of a stretch that are not `i <= j <= i + span - size`: (size, span), read-only."""
    distance = np.arange(span) - np.arange(size)[:, None]
    outside = (distance < 0) | (distance > span - size)
    outside.flags.writeable = False
    return outside


@dataclass(frozen=True, eq=False)
class ExactRows:
    """Exact weights `exp(scale q·k)` of one head: keys (S, d), values (S, dv), mask (S,) where some keys are absent.

    width, is_causal : the window. num_sinks : first keys outside of it that count, too. offset : query i has the
    position i + offset. logit_factor : of q·k, in units of `Limits`.

    Weights of keys that a query does not see are zeros. Values that are not finite are added for the queries that see
    them alone: nothing that comes later changes a bit.
    """

    limits: Limits
    key: np.ndarray
    value: np.ndarray
    mask: np.ndarray | None
    logit_factor: float
    width: int
    num_sinks: int
    offset: int
    is_causal: bool

    def add_to(self, query: np.ndarray, output: PartialRows, scratch: Scratch) -> None:
        """Add the exact sums to those of queries (n, d)."""
        farthest = max(len(query) + abs(self.offset), len(self.key)) + abs(self.offset)
        width = min(self.width, farthest)
        span = BAND + (width - 1) * (1 if self.is_causal else 2)
        size = max(PAIRS // (BAND * span), 1) * BAND if width else PAIRS // max(self.num_sinks, 1) + 1
        for first, last in intervals(0, len(query), size):
            units = query[first:last] * query.dtype.type(self.logit_factor)
            if width:
                output[first:last].absorb(*self.near(units, first + self.offset, width, scratch), self.limits)
            if self.num_sinks:
                output[first:last].absorb(*self.sinks(units, first + self.offset), self.limits)

    def near(
        self, units: np.ndarray, position: int, width: int, scratch: Scratch
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums over the window of queries (n, d) times the factor, the first of which has this position."""
        num, dim = units.shape
        stretches = -(-num // BAND)
        earlier, later = width - 1, 0 if self.is_causal else width - 1
        span, start = BAND + earlier + later, position - earlier
        rows = stretches * BAND + earlier + later
        key, value, present = self.slab(start, rows, scratch)
        bad = present & ~np.isfinite(value).all(axis=-1)
        spoilt = value[bad]
        value[bad] = 0
        queries = scratch.take("near queries", stretches * BAND, dim)
        queries[:num], queries[num:] = units, 0
        keys, values, seen = (stretched(x, stretches, span) for x in (key, value, present))
        logs = scratch.take("near", stretches, BAND, span)
        np.matmul(queries.reshape(stretches, BAND, dim), np.swapaxes(keys, -1, -2), out=logs)
        np.copyto(logs, -np.inf, where=outside_band(BAND, span))
        if not present.all():
            np.copyto(logs, -np.inf, where=~seen[:, None, :])
        weights, top = self.weights(logs)
        sums = (weights @ values).reshape(stretches * BAND, -1)
        for row, numbers in zip(np.flatnonzero(bad).tolist(), spoilt, strict=True):
            sees = np.arange(max(row - earlier - later, 0), min(row, num - 1) + 1)
            stretch = sees // BAND
            sums[sees] += weights[stretch, sees % BAND, row - stretch * BAND][:, None] * numbers
        return sums[:num, :-1], sums[:num, -1], top.reshape(-1)[:num]

    def slab(self, start: int, num: int, scratch: Scratch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys, values with a column of ones, and whether they are there, from a position on; zeros where not."""
        first, last = (min(max(end, 0), len(self.key)) for end in (start, start + num))
        inside = slice(first - start, last - start)
        key = scratch.take("near keys", num, self.key.shape[-1])
        value = scratch.take("near values", num, self.value.shape[-1] + 1)
        present = np.zeros(num, dtype=bool)
        present[inside] = True if self.mask is None else self.mask[first:last]
        key[inside], value[inside, :-1], value[:, -1] = self.key[first:last], self.value[first:last], 1
        if not present.all():
            key[~present] = value[~present] = 0
        return key, value, present

    def sinks(self, units: np.ndarray, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums over the first keys that the queries see outside of their windows."""
        num_sinks = self.num_sinks
        key, value = self.key[:num_sinks], self.value[:num_sinks]
        seen = self.seen(position, len(units), slice(0, num_sinks), inside=False)
        if self.mask is not None:
            present = self.mask[:num_sinks]
            key, value = (np.where(present[:, None], x, 0).astype(x.dtype, copy=False) for x in (key, value))
        bad = ~np.isfinite(value).all(axis=-1)
        logs = units @ key.T
        np.copyto(logs, -np.inf, where=~seen)
        weights, top = self.weights(logs)
        sums = weights @ np.where(bad[:, None], 0, value).astype(value.dtype, copy=False)
        for row in np.flatnonzero(bad):
            sees = seen[:, row]
            sums[sees] += weights[sees, row][:, None] * value[row]
        return sums, weights.sum(axis=-1), top

    def weights(self, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights relative to the largest of each query, in the memory of their logarithms, and the largest."""
        top = logs.max(axis=-1)
        logs -= finite(top)[..., None]
        return self.limits.features(logs), top

    def pull_back(
        self,
        query: np.ndarray,
        gradient: np.ndarray,
        log_total: np.ndarray,
        dot: np.ndarray,
        in_query: np.ndarray,
        in_key: np.ndarray,
        in_value: np.ndarray,
        scratch: Scratch,
    ) -> None:
        """Add to the gradients in queries (n, d), keys and values, from those in the outputs (n, dv).

        log_total (n,) : logarithms of the denominators, in units of `Limits`. dot (n,) : `G_i·o_i`.
        """
        for first, last in intervals(0, len(query), BAND):
            rows, position = slice(first, last), first + self.offset
            asking = query[rows], gradient[rows], log_total[rows], dot[rows]
            latest = position + (last - first) + (0 if self.is_causal else self.width - 1)
            near = slice(*(min(max(end, 0), len(self.key)) for end in (position - self.width + 1, latest)))
            for keys, inside in ((near, True), (slice(0, self.num_sinks), False)):
                if keys.stop > keys.start and (self.width or not inside):
                    seen = self.seen(position, last - first, keys, inside=inside)
                    found = self.pull_back_pairs(*asking, keys, seen)
                    for x, part in zip((in_query[rows], in_key[keys], in_value[keys]), found, strict=True):
                        x += part

    def seen(self, position: int, num: int, keys: slice, *, inside: bool) -> np.ndarray:
        """The pairs of queries and keys that are there, inside the windows or outside: (num, number of keys)."""
        distance = np.arange(position, position + num)[:, None] - np.arange(keys.start, keys.stop)
        near = np.abs(distance) < self.width
        seen = near if inside else ~near
        if self.is_causal:
            seen &= distance >= 0
        return seen if self.mask is None else seen & self.mask[keys]

    def pull_back_pairs(
        self,
        query: np.ndarray,
        gradient: np.ndarray,
        log_total: np.ndarray,
        dot: np.ndarray,
        keys: slice,
        seen: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradients in some queries, keys and values from the pairs that are seen; what is not seen spoils nothing."""
        key, value = self.key[keys], self.value[keys]
        weights = (query * query.dtype.type(self.logit_factor)) @ key.T
        weights -= log_total[:, None]
        unseen = ~seen
        np.copyto(weights, -np.inf, where=unseen)
        weights = self.limits.features(weights)
        bad = ~(np.isfinite(query).all(axis=-1) & np.isfinite(gradient).all(axis=-1))
        if bad.any():
            np.copyto(weights, np.nan, where=bad[:, None] & seen)
            query, gradient = finite_rows(query), finite_rows(gradient)
        key, value = finite_rows(key), finite_rows(value)
        slopes = gradient @ value.T
        slopes -= dot[:, None]
        slopes *= weights
        np.copyto(slopes, 0, where=unseen)
        in_value = weights.T @ gradient
        slopes *= slopes.dtype.type(self.logit_factor / self.limits.exponent_unit)
        return slopes @ key, slopes.T @ query, in_value


def finite_rows(x: np.ndarray) -> np.ndarray:
    """`x` (n, c) with zeros in rows that are not finite."""
    good = np.isfinite(x).all(axis=-1)
    return x if good.all() else np.where(good[:, None], x, 0).astype(x.dtype, copy=False)


def stretched(x: np.ndarray, num: int, span: int) -> np.ndarray:
    """Stretches of `span` rows of x, the next one `BAND` rows later: (num, span, ...), a view."""
    strides = (BAND * x.strides[0], *x.strides)
    return np.lib.stride_tricks.as_strided(x, (num, span, *x.shape[1:]), strides, writeable=False)
