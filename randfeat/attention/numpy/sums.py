"""Sums over keys of one head on the way through a sequence, and how queries read them."""

from dataclasses import dataclass, replace

import numpy as np

from randfeat._numpy.threads import Scratch
from randfeat.attention.inputs import intervals
from randfeat.attention.numpy.exponents import Exponents, Limits, moderate
from randfeat.attention.numpy.fading import log_remaining
from randfeat.attention.state import AttentionState


@dataclass(frozen=True, eq=False)
class Sums:
    """`Σ_j φ_jf v_j` and `Σ_j φ_jf` over some keys of one head, without the weights of features.

    weighted (m, dv) and total (m,) are times `power(shift)`, shift (m,). peak (m,) is the largest exponent of each
    feature, where it was asked for. Exponents are in units of `Limits`.
    """

    shift: np.ndarray
    weighted: np.ndarray
    total: np.ndarray
    peak: np.ndarray | None

    @classmethod
    def empty(cls, num_features: int, value_dim: int, dtype: np.dtype) -> "Sums":
        """The sums over no keys."""
        shift = np.full(num_features, -np.inf, dtype)
        return cls(shift, np.zeros((num_features, value_dim), dtype), np.zeros(num_features, dtype), shift)

    @classmethod
    def of_state(cls, log_max: np.ndarray, weighted: np.ndarray, total: np.ndarray, keys: Exponents) -> "Sums":
        """The sums in the arrays of one head of an `AttentionState`."""
        shift = log_max[0] * log_max.dtype.type(keys.limits.exponent_unit) - keys.log_weights
        return cls(shift, weighted, total[:, 0], shift)

    def to_state(self, keys: Exponents) -> AttentionState:
        """The state of one head, relative to the largest key of each feature where that is known."""
        top = self.shift if self.peak is None else self.peak
        factor = keys.limits.power(self.shift - finite(top))[:, None]
        log_max = (top + keys.log_weights) / top.dtype.type(keys.limits.exponent_unit)
        return AttentionState(log_max[None, :], self.weighted * factor, self.total[:, None] * factor)

    def faded(self, log_factor: float, limits: Limits) -> "Sums":
        """The sums after gates whose product has this natural logarithm."""
        if log_factor == -np.inf:
            num_features, value_dim = self.weighted.shape
            empty = Sums.empty(num_features, value_dim, self.weighted.dtype)
            return empty if self.peak is not None else replace(empty, peak=None)
        moved = self.shift.dtype.type(log_factor * limits.exponent_unit)
        return replace(self, shift=self.shift + moved, peak=None if self.peak is None else self.peak + moved)

    def merge(self, other: "Sums", limits: Limits) -> "Sums":
        """The sums over both sets of keys."""
        shift = np.maximum(self.shift, other.shift)
        mine, theirs = (limits.power(part.shift - finite(shift)) for part in (self, other))
        weighted = self.weighted * mine[:, None]
        weighted += other.weighted * theirs[:, None]
        peak = None if self.peak is None or other.peak is None else np.maximum(self.peak, other.peak)
        return Sums(shift, weighted, self.total * mine + other.total * theirs, peak)


@dataclass(frozen=True, eq=False)
class KeyRows:
    """Consecutive keys (n, d) with their values (n, dv); present (n,) where some are masked.

    log_factor (n,), in units of `Limits`, takes the place of r(k) in the backward sweep. There the "keys" are queries,
    and their "values" are gradients, which may be tiny. log_gates (n,) or (1,) : natural logarithms of the gates, where
    what is remembered fades.
    """

    key: np.ndarray
    value: np.ndarray
    present: np.ndarray | None
    log_factor: np.ndarray | None = None
    log_gates: np.ndarray | None = None

    def part(self, rows: slice) -> "KeyRows":
        """Some of the keys."""
        log_gates = self.log_gates if self.log_gates is None or len(self.log_gates) == 1 else self.log_gates[rows]
        present, log_factor = (None if x is None else x[rows] for x in (self.present, self.log_factor))
        return KeyRows(self.key[rows], self.value[rows], present, log_factor, log_gates)

    def left(self) -> tuple[np.ndarray | None, float]:
        """Logarithms of what gates leave of each key after the last one, None for all, and of everything before."""
        return (None, 0.0) if self.log_gates is None else log_remaining(self.log_gates, len(self.key))


def merged(first: Sums | None, second: Sums | None, limits: Limits) -> Sums | None:
    """The sums over two sets of keys, where None stands for an empty set."""
    if first is None or second is None:
        return second if first is None else first
    return first.merge(second, limits)


def finite(shift: np.ndarray) -> np.ndarray:
    """`shift` with 0 in place of -inf, which is the maximum over no keys."""
    return np.where(shift == -np.inf, 0, shift).astype(shift.dtype, copy=False)


def append_rows(
    sums: Sums | None, keys: Exponents, rows: KeyRows, scratch: Scratch, *, size: int, peak: bool, shifted: bool = False
) -> Sums | None:
    """The sums with more keys, whose gates act on what was there; None for no keys."""
    log_left, of_all = rows.left()
    if sums is not None and rows.log_gates is not None:
        sums = sums.faded(of_all, keys.limits)
    key, value, log_factor, present = rows.key, rows.value, rows.log_factor, rows.present
    if present is not None and not present.all():
        key, value = key[present], value[present]
        log_factor, log_left = (None if x is None else x[present] for x in (log_factor, log_left))
    if len(key) == 0:
        return sums
    more = sum_keys(
        keys, key, value, scratch, size=size, peak=peak, shifted=shifted, log_factor=log_factor, log_left=log_left
    )
    return merged(sums, more, keys.limits)


def sum_keys(
    keys: Exponents,
    key: np.ndarray,
    value: np.ndarray,
    scratch: Scratch,
    *,
    size: int,
    peak: bool,
    shifted: bool = False,
    log_factor: np.ndarray | None = None,
    log_left: np.ndarray | None = None,
) -> Sums:
    """The sums over keys (n, d), n > 0, with their values (n, dv), features of `size` keys at a time.

    Without a shift if `Limits` allows: r(k) is then a factor of the value, and the features see one product and one
    exponential. Else, or if `shifted` says so, relative to the largest key of each feature. A log_factor (n,) takes the
    place of r(k). To it is added log_left (n,), the natural logarithm of what is left of each key. What is done once
    for all keys is not done for each block: on several threads, every call of NumPy may have to wait for the
    interpreter.
    """
    limits, width = keys.limits, len(keys.rows)
    units = keys.units(key, scratch)
    per_row = keys.per_row(units) if log_factor is None else log_factor
    if log_left is not None:
        per_row = per_row + log_left * log_left.dtype.type(limits.exponent_unit)
    bound = keys.center(units)
    ordinary = not shifted and bool(moderate(value, limits).all())
    reference = per_row.max()
    if ordinary:
        factors = limits.power(per_row - reference)
        values = np.multiply(value, factors[:, None], out=scratch.take("values", *value.shape))
    total, weighted = np.zeros(width, key.dtype), np.zeros((width, value.shape[-1]), key.dtype)
    largest: list[np.ndarray] = []
    any_unshifted, shifted_blocks = False, None
    for block in blocks(len(key), size):
        exponents = keys.of_centered(units[block], scratch)
        if ordinary and keys.within_limit(exponents, bound):
            any_unshifted = True
            if peak:
                largest.append(np.max(exponents + per_row[block, None], axis=0))
            features = limits.features(exponents, bound)
            total += factors[block] @ features
            weighted += features.T @ values[block]
        else:
            of_block = shifted_sums(exponents, per_row[block], value[block], limits, scratch, peak=peak)
            shifted_blocks = merged(shifted_blocks, of_block, limits)
    if any_unshifted and not total.min() >= limits.lowest:
        return sum_keys(
            keys, key, value, scratch, size=size, peak=peak, shifted=True, log_factor=log_factor, log_left=log_left
        )
    top = np.max(largest, axis=0) if largest else None
    found = merged(
        Sums(np.full(width, reference), weighted, total, top) if any_unshifted else None, shifted_blocks, limits
    )
    return Sums.empty(width, value.shape[-1], key.dtype) if found is None else found


def shifted_sums(
    exponents: np.ndarray, per_row: np.ndarray, value: np.ndarray, limits: Limits, scratch: Scratch, *, peak: bool
) -> Sums:
    """The sums over one block of keys, relative to the largest of each feature. Overwrites the exponents (n, m)."""
    exponents += per_row[:, None]
    largest = exponents.max(axis=0)
    exponents -= finite(largest)
    features = limits.features(exponents)
    values = scratch.take("values of a block", *value.shape)
    np.copyto(values, value)
    return Sums(largest, features.T @ values, np.ones(len(value), value.dtype) @ features, largest if peak else None)


def blocks(num_rows: int, size: int) -> list[slice]:
    """Slices of consecutive rows, `size` at a time."""
    return [slice(first, last) for first, last in intervals(0, num_rows, size)]


@dataclass(frozen=True, eq=False)
class Readout:
    """Tables from which the outputs of one head are computed: for each feature a mean of the values, and a weight.

    log_weight (m,) : logarithm of the sum of the key features, plus the log-weights of query features and of key
        features.
    means (m, dv) : the mean of the values, with the key features as weights.
    weights (m,), weighted (m, dv) : `exp(log_weight)` divided by its largest entry, and `means` times `weights`. They
        serve queries whose exponents need no shift.
    """

    queries: Exponents
    log_weight: np.ndarray
    means: np.ndarray
    weights: np.ndarray
    weighted: np.ndarray
    ordinary: bool

    @classmethod
    def of(cls, sums: Sums, queries: Exponents, keys: Exponents) -> "Readout":
        """Compute the tables from the sums over all keys."""
        limits = queries.limits
        present = np.where(sums.total == 0, 1, sums.total).astype(sums.total.dtype, copy=False)
        means = sums.weighted / present[:, None]
        logs = np.log(sums.total) * sums.total.dtype.type(limits.exponent_unit)
        log_weight = sums.shift + logs + queries.log_weights + keys.log_weights
        weights = limits.power(log_weight - log_weight.max())
        ordinary = bool(moderate(np.max(np.abs(means), axis=0, initial=0.0)[:, None], limits).all())
        return cls(queries, log_weight, means, weights, means * weights[:, None], ordinary)

    def read(self, query: np.ndarray, out: np.ndarray, scratch: Scratch, *, size: int) -> None:
        """The outputs of queries (n, d) into `out` (n, dv), contiguous, features of `size` of them at a time.

        Zeros where there is no key. Without a shift if `Limits` allows.
        """
        total = np.empty(len(query), out.dtype)
        self.fill(query, out, total, scratch, size=size)
        if self.log_weight.max() > -np.inf:
            out /= total[:, None]

    def fill(
        self,
        query: np.ndarray,
        out: np.ndarray,
        total: np.ndarray,
        scratch: Scratch,
        *,
        size: int,
        log_scale: np.ndarray | None = None,
    ) -> None:
        """Numerators into `out` (n, dv) and denominators (n,), and without r(q) their scale, zeros for no key."""
        limits, queries, top = self.queries.limits, self.queries, self.log_weight.max()
        if log_scale is None:
            log_scale = np.empty_like(total)
        log_scale[...] = top
        if top == -np.inf:
            out[...] = total[...] = 0
            return
        units = queries.units(query, scratch)
        bound = queries.center(units)
        for block in blocks(len(query), size):
            exponents = queries.of_centered(units[block], scratch)
            if self.ordinary and queries.within_limit(exponents, bound):
                features = limits.features(exponents, bound)
                np.matmul(features, self.weights, out=total[block])
                np.matmul(features, self.weighted, out=out[block])
            else:
                self._shifted(exponents, out[block], total[block], log_scale[block])
        if not total.min() >= limits.lowest:
            for block in blocks(len(query), size):
                if not total[block].min() >= limits.lowest:
                    exponents = queries.of_centered(units[block], scratch)
                    self._shifted(exponents, out[block], total[block], log_scale[block])

    def _shifted(self, exponents: np.ndarray, out: np.ndarray, total: np.ndarray, log_scale: np.ndarray) -> None:
        """Numerators and denominators relative to each query's largest feature. Overwrites the exponents (n, m)."""
        exponents += self.log_weight
        np.max(exponents, axis=1, out=log_scale)
        exponents -= log_scale[:, None]
        features = self.queries.limits.features(exponents)
        np.matmul(features, self.means, out=out)
        np.sum(features, axis=1, out=total)
