"""RunningSums: the sums over keys of all heads, changed in place as single tokens come."""

import numpy as np

from randfeat.attention.numpy.arrangement import Arrangement
from randfeat.attention.numpy.chunk_group import up_to_own
from randfeat.attention.numpy.sides import Sides
from randfeat.attention.numpy.sums import finite
from randfeat.attention.state import AttentionState

HEADROOM = 10.0
"""Nats by which a key may exceed the reference of a feature: sums over n keys are then at most n e^10."""
KEPT = 16
"""Recent keys that are kept one by one, until one product of matrices adds them to the sums."""


class RunningSums:
    """`Σ_j φ_jf v_j` and `Σ_j φ_jf` over the keys so far, for M maps with N sequences each; changed in place.

    weighted (M, N, m, dv) and total (M, N, m, 1) are times `power(reference)`, reference (M, N, 1, m).
    peak (M, N, 1, m) is the largest of their terms φ_jf. The features (M, N, n, m) and values (M, N, n, dv) of the
    last `num_recent` keys are not in the sums yet; n is KEPT, or at least LONGEST for a single call.

    A key only adds to the sums while its features exceed the reference by at most HEADROOM. Else, which is rare, the
    reference of its head is raised to it, and the sums are rescaled. So the sums are read once for each call of
    `attend`, and written once for KEPT keys. They may be views of a state: they are copied before they are written.

    Sums are compensated: `surplus` is by how much they are too large, from rounding, so that many small terms are not
    lost beside a large sum. After n keys a sum is off by (2 + KEPT) u + O(n u²) at the most, relative to the sum of the
    absolute values of its terms, with u = 2^-24 in float32.

    Source: Kahan 1965, "Further remarks on reducing truncation errors"; Higham 2002, "Accuracy and Stability of
        Numerical Algorithms", equation 4.8.
    """

    def __init__(
        self,
        arrangement: Arrangement,
        sides: Sides,
        reference: np.ndarray,
        weighted: np.ndarray,
        total: np.ndarray,
        num_kept: int = KEPT,
    ) -> None:
        self.arrangement, self.sides, self.limits = arrangement, sides, sides.keys.limits
        self.reference, self.weighted, self.total = reference, weighted, total
        self.are_own = False
        self.surplus: tuple[np.ndarray, np.ndarray] | None = None  # of weighted and total, once they were written
        self.peak = (reference > -np.inf).astype(total.dtype)
        *lead, num_features, value_dim = weighted.shape
        self.features = np.empty((*lead, num_kept, num_features), total.dtype)
        self.values = np.empty((*lead, num_kept, value_dim), total.dtype)
        self.num_recent = 0
        self.refer()

    @classmethod
    def of(cls, state: AttentionState, sides: Sides, arrangement: Arrangement, num_kept: int = KEPT) -> "RunningSums":
        """The sums in a state of NumPy arrays; arrangement : of the sums alone."""
        log_max, weighted, total = (arrangement.keys(x) for x in (state.log_max, state.weighted, state.total))
        reference = log_max * sides.keys.limits.exponent_unit
        reference = np.broadcast_to(reference, (*total.shape[:2], 1, total.shape[2])).copy()
        return cls(arrangement, sides, reference, weighted, total, num_kept)

    def own(self) -> None:
        """Copy the sums, unless nobody else holds them."""
        if not self.are_own:
            self.weighted, self.total, self.are_own = self.weighted.copy(), self.total.copy(), True

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the sums."""
        return self.total.dtype

    @property
    def value_dim(self) -> int:
        """The length dv of a value."""
        return self.weighted.shape[-1]

    def state(self) -> AttentionState:
        """The sums over all keys, relative to the largest key of each feature, as a copy."""
        num = self.num_recent
        if num == 1:  # a product of matrices is fast from two terms on
            self.features[:, :, 1] = self.values[:, :, 1] = 0
            num = 2
        features, values = self.recent(num)
        with np.errstate(all="ignore"):
            added = np.swapaxes(features, -1, -2)
            weighted = added @ values
            total = added.sum(axis=-1, keepdims=True)
            if self.surplus is not None:
                weighted -= self.surplus[0]
                total -= self.surplus[1]
            weighted += self.weighted
            total += self.total
            peak = np.maximum(self.peak, features.max(axis=-2, keepdims=True, initial=0))
            changed = np.swapaxes((peak != 1) & (peak != 0), -1, -2)[..., 0]
            if np.any(changed):
                factor = 1 / np.swapaxes(peak, -1, -2)[changed]
                weighted[changed] *= factor
                total[changed] *= factor
            log_max = self.reference / self.limits.exponent_unit + np.log(peak)
        log_max, weighted, total = (self.arrangement.sums(x) for x in (log_max, weighted, total))
        return AttentionState(log_max, weighted, total)

    def attend(self, query: np.ndarray, key: np.ndarray, value: np.ndarray, present: np.ndarray | None) -> np.ndarray:
        """Add n <= KEPT keys (M, N, n, d) with their values (M, N, n, dv), and return the outputs of their queries.

        query (M, N, R, n, d) -> (M, N, R, n, dv); R queries share the sums. Query i sees the keys before this call, and
        those up to its own. present (M, N, n) : where some keys are masked.
        """
        outputs: list[np.ndarray] = []
        with np.errstate(all="ignore"):  # NaN and infinity in the inputs show in the outputs
            while key.shape[-2]:
                added = self.add(key, value, present)
                first = self.num_recent - added
                outputs.append(self.read(query, first)[..., :added, :])
                query, key, value = query[..., added:, :], key[..., added:, :], value[..., added:, :]
                present = None if present is None else present[..., added:]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-2)

    def append(self, key: np.ndarray, value: np.ndarray, present: np.ndarray | None) -> None:
        """Add n <= KEPT keys (M, N, n, d) with their values (M, N, n, dv). present (M, N, n) : if some are masked."""
        with np.errstate(all="ignore"):
            while key.shape[-2]:
                added = self.add(key, value, present)
                key, value = key[..., added:, :], value[..., added:, :]
                present = None if present is None else present[..., added:]

    def select(self, index: np.ndarray) -> None:
        """Take some entries of the first leading dimension, which must be one of the N, in place of all."""
        size = self.arrangement.lead[0]

        def chosen(x: np.ndarray) -> np.ndarray:
            taken = np.take(x.reshape(len(x), size, -1, *x.shape[2:]), index, axis=1)
            return taken.reshape(len(x), -1, *x.shape[2:])

        for name in ("reference", "weighted", "total", "peak", "features", "values"):
            setattr(self, name, chosen(getattr(self, name)))
        if self.surplus is not None:
            self.surplus = chosen(self.surplus[0]), chosen(self.surplus[1])
        self.arrangement, self.are_own = self.arrangement.with_batch(len(index)), True
        self.refer()

    def recent(self, num: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and values of the first `num` keys that are kept."""
        return self.features[:, :, :num], self.values[:, :, :num]

    def add(self, key: np.ndarray, value: np.ndarray, present: np.ndarray | None) -> int:
        """Keep the first of n keys, as many as fit together; returns how many, at least one.

        Whether a key fits depends on nothing that comes later. The rows of those that do not fit are zero: outputs of
        the queries before them have the same bits as if they fitted.
        """
        num = key.shape[-2]
        if self.num_recent + num > self.features.shape[2]:
            self.flush()
        logs = self.sides.keys.exponents(key, per_row=True)
        exponents = masked(logs + self.weights_over_reference, present)
        fitting = self.num_fitting(exponents, value)
        if fitting == 0:
            logs = masked(logs + self.sides.keys.log_weights, present)
            self.raise_reference(logs[:, :, :1], exponents[:, :, :1])
            exponents = logs - finite(self.reference)
            fitting = 1
        features, values = (x[:, :, self.num_recent :] for x in self.recent(self.num_recent + num))
        features[...] = self.limits.features(exponents)
        values[...] = value
        if present is not None:
            values[~present] = 0
        if fitting < num:
            features[:, :, fitting:] = values[:, :, fitting:] = 0
        self.num_recent += fitting
        return fitting

    def num_fitting(self, exponents: np.ndarray, value: np.ndarray) -> int:
        """The number of keys before the first that exceeds the headroom, or has a value that spoils earlier outputs."""
        headroom, num = HEADROOM * self.limits.exponent_unit, value.shape[-2]
        if exponents.max() <= headroom and (num == 1 or np.isfinite(value).all()):  # as mostly; never for NaN
            return num
        fits = np.all(exponents <= headroom, axis=(0, 1, 3))
        fits[1:] &= np.all(np.isfinite(value[:, :, 1:]), axis=(0, 1, 3))
        return num if fits.all() else int(np.argmin(fits))

    def raise_reference(self, logs: np.ndarray, exponents: np.ndarray) -> None:
        """Raise the reference of the heads that a key (M, N, 1, m) exceeds; exponents : relative to the reference."""
        self.flush()
        self.own()
        heads = ~np.all(exponents <= HEADROOM * self.limits.exponent_unit, axis=(-2, -1))
        before = self.reference[heads]
        raised = np.maximum(before, logs[heads])
        factor = self.limits.power(before - finite(raised))
        self.reference[heads] = raised
        self.peak[heads] = np.maximum(self.peak[heads] * factor, self.limits.power(logs[heads] - finite(raised)))
        for x in (self.weighted, self.total, *(self.surplus or ())):
            x[heads] *= np.swapaxes(factor, -1, -2)
        self.refer()

    def refer(self) -> None:
        """Precompute what the reference adds to exponents of queries, and takes from those of keys."""
        self.reference_and_weights = self.sides.queries.log_weights + self.reference
        self.weights_over_reference = self.sides.keys.log_weights - self.reference

    def flush(self) -> None:
        """Add the keys that are kept to the sums, map by map, since what is added then stays in the cache."""
        if self.num_recent == 0:
            return
        self.own()
        if self.surplus is None:
            self.surplus = np.zeros_like(self.weighted), np.zeros_like(self.total)
        features, values = self.recent(self.num_recent)
        np.maximum(self.peak, features.max(axis=-2, keepdims=True), out=self.peak)
        for weighted, total, *surplus, of_map, of_values in zip(
            self.weighted, self.total, *self.surplus, features, values, strict=True
        ):
            added = np.swapaxes(of_map, -1, -2)
            add_compensated(weighted, surplus[0], added @ of_values)
            add_compensated(total, surplus[1], added.sum(axis=-1, keepdims=True))
        self.num_recent = 0

    def read(self, query: np.ndarray, first: int) -> np.ndarray:
        """The outputs (M, N, R, n, dv) of queries (M, N, R, n, d), for keys of which those of this call begin at
        `first` among the ones that are kept.
        """
        maps, others, shared, num, _ = query.shape
        exponents = self.sides.queries.exponents(query, per_row=False).reshape(maps, others, shared * num, -1)
        exponents += self.reference_and_weights
        top = exponents.max(axis=-1, keepdims=True)
        exponents -= top if top.min() > -np.inf else finite(top)
        weights = self.limits.features(exponents)
        features, values = self.recent(first + num)
        scores = weights @ np.swapaxes(features, -1, -2)
        if num > 1:
            scores.reshape(maps, others, shared, num, -1)[..., first:] *= up_to_own(num, scores.dtype)
        output = weights @ self.weighted
        output += scores @ values
        total = weights @ self.total
        total += scores.sum(axis=-1, keepdims=True)
        if not total.min() > 0:  # as PartialOutput.normalized has it
            total = np.where(total == 0, 1, total)
        output /= total
        return output.reshape(maps, others, shared, num, -1)


def add_compensated(total: np.ndarray, surplus: np.ndarray, terms: np.ndarray) -> None:
    """Add the terms, which are overwritten, to a sum whose rounding errors so far are `surplus`; in place."""
    terms -= surplus
    np.add(total, terms, out=surplus)
    before = total.copy()
    total[...] = surplus
    surplus -= before
    surplus -= terms
    if not np.isfinite(surplus.sum()):  # infinity less infinity: a sum that is not finite stays as it is
        surplus[~np.isfinite(surplus)] = 0


def masked(exponents: np.ndarray, present: np.ndarray | None) -> np.ndarray:
    """The exponents (M, N, n, m) with -inf in place of those of masked keys."""
    if present is not None:
        exponents[~present] = -np.inf
    return exponents
