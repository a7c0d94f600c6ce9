"""Partial sums of normalized attention, each with its own scale, and how they merge."""

from dataclasses import dataclass

from randfeat._array import Array, exp_in_place, namespace, peak, replace_minus_inf, stop_gradient
from randfeat.features import Features


@dataclass(frozen=True, eq=False)
class PartialOutput:
    """For each query, sums over some keys: `exp(log_scale) · Σ_j K̂_ij v_j` and `exp(log_scale) · Σ_j K̂_ij`.

    numerator (..., n, dv), denominator (..., n, 1), log_scale (..., n, 1), `-inf` where there is no key. Partial
    outputs over disjoint sets of keys merge; the normalized output is the ratio.
    """

    numerator: Array
    denominator: Array
    log_scale: Array

    @property
    def columns(self) -> tuple[Array, Array, Array]:
        """The three arrays, with a row for each query."""
        return self.numerator, self.denominator, self.log_scale

    def merge(self, other: "PartialOutput") -> "PartialOutput":
        """The sums over both sets of keys."""
        if not isinstance(other, PartialOutput):
            raise TypeError(f"expected a PartialOutput, got {type(other).__name__}; KeyCache.read returns one.")
        xp = namespace(self.numerator)
        top = xp.maximum(self.log_scale, other.log_scale)
        shift = replace_minus_inf(top)
        mine, theirs = xp.exp(self.log_scale - shift), xp.exp(other.log_scale - shift)
        return PartialOutput(
            self.numerator * mine + other.numerator * theirs,
            self.denominator * mine + other.denominator * theirs,
            top,
        )

    @staticmethod
    def concat(parts: "list[PartialOutput]") -> "PartialOutput":
        """The outputs of consecutive queries."""
        if len(parts) == 1:
            return parts[0]
        xp = namespace(parts[0].numerator)
        columns = zip(*(part.columns for part in parts), strict=True)
        return PartialOutput(*(xp.concat(list(column), axis=-2) for column in columns))

    def first(self, num: int) -> "PartialOutput":
        """The outputs of the first `num` queries."""
        return PartialOutput(*(x[..., :num, :] for x in self.columns))

    def normalized(self) -> Array:
        """`Σ_j K̂_ij v_j / Σ_j K̂_ij`; zero for a query without keys or whose weights all vanish."""
        xp = namespace(self.numerator)
        vanishes = self.denominator == 0
        empty = vanishes & (self.log_scale == -xp.inf)  # where a maximum ignores NaN, the denominator still has it
        divisor = xp.where(vanishes, xp.ones_like(self.denominator), self.denominator)
        ratio = self.numerator / divisor
        return xp.where(empty, xp.zeros_like(ratio), ratio)


def key_weights(keys: Features) -> tuple[Array, Array]:
    """Key features relative to their largest per feature: weights (..., k, f) and the maximum (..., 1, f or 1).

    A shift shared by all keys that are summed together is compensated exactly on the query side; as a constant of
    differentiation it changes no gradient.
    """
    top = stop_gradient(peak(keys.log_scale, -2))
    return keys.values * exp_in_place(keys.log_scale - replace_minus_inf(top)), top


def query_weights(queries: Features, key_top: Array) -> tuple[Array, Array]:
    """Query features with the keys' maximum put back, relative to their own largest: (..., n, f) and (..., n, 1)."""
    log_scale = queries.log_scale + key_top
    top = stop_gradient(peak(log_scale, -1))
    return queries.values * exp_in_place(log_scale - replace_minus_inf(top)), top
