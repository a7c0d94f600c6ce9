"""Exponents of features that are exponentials, block by block in NumPy, and when no shift is needed."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import cast
from randfeat._numpy.elementary import fastest_power
from randfeat._numpy.threads import Scratch
from randfeat.features import ExponentialForm
from randfeat.maps import FeatureMap

BLOCK_BYTES = 1 << 20  # of features that are in use at one time: they stay in the cache of a core
VECTOR = 64  # numbers that are computed as those of a large array are, to the last bit
FEWEST, MOST = 512, 2048  # rows in a block: below, call overhead dominates; above, temporaries leave the cache


def block_rows(num_features: int, dtype: np.dtype) -> int:
    """The number of rows in a block. It depends on the features alone, so that sums over blocks do, to the last bit."""
    return min(max(BLOCK_BYTES // (num_features * dtype.itemsize), FEWEST), MOST) // FEWEST * FEWEST


@dataclass(frozen=True)
class Limits:
    """The arithmetic of a dtype: which power to take, and when features need no shift.

    Exponents are times `exponent_unit`, so that `power(exponent)` is the feature: base 2 where NumPy has a vectorized
    exp2 (AVX-512), else e. In natural units, with s = -log(tiny) and h = -log(eps), `limit` is

        B = min((s - 3h)/2, (s - 3h/2)/3)        19.8 in float32, 218 in float64.

    Keys may go without a shift if their features are at most e^B, relative to a common reference e^ρ of their factors
    e^{r_j - ρ}, and each sum over keys T_f = Σ_j φ_jf e^{r_j - ρ} is at least e^{-B}; queries if their features are at
    most e^B and their denominators at least e^{-B}, where features are weighted relative to the largest weight.

    Nothing that matters underflows: a factor, weight or feature loses at most e^{-s}. Its partner in the product is at
    most e^B, so what is lost is at most e^{B-s}, beside a sum of at least e^{-B}: relatively e^{2B-s}, at most eps³ for
    each term, and less than eps for all of fewer than 1/eps² terms. In causal attention the features of the query and
    of the key are both unshifted, and the factor of the key may underflow: e^{3B-s}, at most eps^{3/2}, for each term.
    Nothing overflows: e^B from the query, e^B from the key, and for causal attention e^X, X = h/2, by which factors of
    later keys may exceed the reference, times values up to 1/eps, make e^{s - h - h/2}: room for eps^{-3/2} terms.

    Rows of values whose length is outside [eps, 1/eps], but not zero, are not ordinary, and get a shift.
    """

    power: Callable[..., np.ndarray]
    exponent_unit: float
    limit: float
    rise: float
    """X."""
    lowest: float
    """e^{-B}."""
    largest_value: float
    """1/eps."""
    least: float
    """About -s."""

    @classmethod
    @functools.cache
    def of(cls, dtype: np.dtype) -> "Limits":
        """The limits of float32 or float64."""
        info = np.finfo(dtype)
        power, unit = fastest_power()
        digits = -math.log(info.eps)
        smallest = -math.log(info.tiny)
        limit = min((smallest - 3 * digits) / 2, (smallest - 1.5 * digits) / 3)
        least = math.ceil(-smallest * unit)
        return cls(power, unit, limit * unit, digits / 2 * unit, math.exp(-limit), 1 / float(info.eps), least)

    def features(self, exponents: np.ndarray, bound: float = math.inf) -> np.ndarray:
        """`power(exponents)`, in place; bound : on the size of the exponents, if there is one.

        Less e^{-s} where some are below -s, which are zero then: NumPy takes up to 150 times as long for what is
        subnormal or underflows.
        """
        if bound <= -self.least or exponents.min() >= self.least:
            return self.power(exponents, out=exponents)
        np.maximum(exponents, self.least, out=exponents)
        self.power(exponents, out=exponents)
        exponents -= self.power(np.full(VECTOR, self.least, exponents.dtype))[0]
        return exponents


@dataclass(frozen=True, eq=False)
class Exponents:
    """Exponents of one map's queries or keys, `exponent_unit · ((factor x - origin)·rows_f)`, without per-row terms."""

    limits: Limits
    factor: float
    origin: np.ndarray | None
    rows: np.ndarray
    """(m, d), times `exponent_unit`."""
    longest: float
    """Length of the longest of them."""
    log_weights: np.ndarray
    """(m,), times `exponent_unit`."""
    form: ExponentialForm

    @classmethod
    def of(cls, features: FeatureMap, factor: float, dtype: np.dtype, *, keys: bool) -> "Exponents | None":
        """Build the exponents of a map that has no batch; None if its features are not exponentials.

        factor : the number by which raw inputs are multiplied to get inputs in kernel units."""
        arrays = {name: cast(array, dtype) for name, array in features.arrays.items()}
        form = FeatureMap(features.estimator, features.dim, features.num_features, arrays).exponential_form(keys=keys)
        if form is None:
            return None
        limits = Limits.of(dtype)
        rows = np.ascontiguousarray(form.rows * dtype.type(limits.exponent_unit))
        longest = math.sqrt(float(np.max(np.vecdot(rows, rows))))
        log_weights = (form.log_weights * dtype.type(limits.exponent_unit)).reshape(-1)
        return cls(limits, factor, form.origin, rows, longest, log_weights, form)

    def units(self, x: np.ndarray, scratch: Scratch) -> np.ndarray:
        """Inputs in kernel units, `factor x` (n, d), in scratch memory."""
        return np.multiply(x, self.factor, out=scratch.take("units", *x.shape))

    def per_row(self, units: np.ndarray) -> np.ndarray:
        """The per-row term `exponent_unit · r(x)`, (n,)."""
        return self.form.per_row(units)[:, 0] * units.dtype.type(self.limits.exponent_unit)

    def center(self, units: np.ndarray) -> float:
        """Subtract the origin from `units`, in place; returns a bound on the size of their exponents."""
        if self.origin is not None:
            units -= self.origin
        return 1.01 * self.longest * math.sqrt(float(np.max(np.vecdot(units, units))))

    def of_centered(self, units: np.ndarray, scratch: Scratch) -> np.ndarray:
        """Exponents (n, m) of centered units, in scratch memory."""
        return np.matmul(units, self.rows.T, out=scratch.take("exponents", len(units), len(self.rows)))

    def fill(self, units: np.ndarray, out: np.ndarray) -> float:
        """The exponents into `out` (n, m); returns a bound on their size. Overwrites `units`."""
        bound = self.center(units)
        np.matmul(units, self.rows.T, out=out)
        return bound

    def largest(self, units: np.ndarray) -> float:
        """The largest exponent of a few rows of units (n, d), which stay as they are."""
        moved = units if self.origin is None else units - self.origin
        return float(np.max(moved @ self.rows.T))

    def fill_shifted(
        self, units: np.ndarray, out: np.ndarray, scratch: Scratch, *, per_feature: np.ndarray, per_row: Any = 0.0
    ) -> None:
        """The exponents, `per_feature` (m,) and `per_row` (n,) in one sum into `out` (n, m). Overwrites `units`.

        By one product: what is added comes as two more coordinates, which spares passes over the features.
        """
        if self.origin is not None:
            units -= self.origin
        num, dim = units.shape
        wide, rows = scratch.take("wide units", num, dim + 2), scratch.take("wide rows", len(self.rows), dim + 2)
        wide[:, :dim], wide[:, dim], wide[:, dim + 1] = units, 1, per_row
        rows[:, :dim], rows[:, dim], rows[:, dim + 1] = self.rows, per_feature, 1
        np.matmul(wide, rows.T, out=out)

    def within_limit(self, exponents: np.ndarray, bound: float) -> bool:
        """Whether all exponents are at most `limits.limit`; False for NaN.

        The maximum is computed only if `bound` is above the limit.
        """
        return bound <= self.limits.limit or bool(exponents.max() <= self.limits.limit)


def moderate(values: np.ndarray, limits: Limits, *, tiny: bool = False) -> np.ndarray:
    """A mask (n,) of values (n, dv) of moderate length, or zero; `tiny` lets tiny ones pass. NaN never does."""
    square = np.vecdot(values, values)
    bound = limits.largest_value**2
    if square.max() <= bound and (tiny or square.min() >= 1 / bound):  # as mostly
        return np.ones(len(values), dtype=bool)
    ordinary = (square <= bound) & (tiny | (square >= 1 / bound))
    if not ordinary.all():
        ordinary |= ~values.any(axis=-1)
    return ordinary
