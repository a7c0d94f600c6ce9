"""Estimators made of several independent ones: what sums and products share."""

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from randfeat import variance
from randfeat._array import Array
from randfeat.estimators.base import Estimator, UncoupledEstimator, as_count
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.trigonometric import TrigonometricFeatures
from randfeat.features import Features
from randfeat.kernels import Kernel, SoftmaxKernel
from randfeat.kernels.algebra import check_parts
from randfeat.maps import FeatureMap, part_of

__all__ = ["CombinedEstimator", "least_width"]

SEARCHED = 1000  # neighbouring widths that are tried for an error message


@dataclass(frozen=True)
class CombinedEstimator(UncoupledEstimator):
    """An estimator of a sum or product of kernels, from independent draws of an estimator for each.

    parts : the estimators, each with its own kernel and coupling.
    shares : positive integers, the proportions of the widths of the parts; equal by default.

    Its unit is the least set of widths in these proportions that the parts can have. `num_rows` counts units.
    """

    kernel: Kernel = field(init=False, repr=False, default_factory=SoftmaxKernel)
    parts: tuple[Estimator, ...]
    shares: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        parts = check_parts(self.parts, Estimator)
        shares = (1,) * len(parts) if self.shares is None else self.shares
        if not isinstance(shares, tuple | list) or len(shares) != len(parts):
            raise ValueError(f"shares must be {len(parts)} integers, one for each part, got {shares!r}.")
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "shares", tuple(as_count(share, "each share") for share in shares))
        object.__setattr__(self, "kernel", self._combine_kernels(tuple(part.kernel for part in parts)))
        super().__post_init__()

    @classmethod
    def of(cls, *estimators: Estimator) -> Self:
        """The combination of `estimators`, those of this class with equal shares taken apart: `a + b + c` has three."""
        nested = (e.parts if isinstance(e, cls) and set(e.shares or ()) == {1} else (e,) for e in estimators)
        return cls(tuple(part for parts in nested for part in parts))

    @classmethod
    def example(cls) -> Self:
        return cls((PositiveFeatures(), TrigonometricFeatures()))

    @abc.abstractmethod
    def _combine_kernels(self, kernels: tuple[Kernel, ...]) -> Kernel:
        """The kernel of the whole."""

    @abc.abstractmethod
    def _combine_features(self, features: list[Features]) -> Features:
        """The features of the whole."""

    @abc.abstractmethod
    def _multiples(self, num_rows: int) -> tuple[int, ...] | None:
        """How many units each part has when there are `num_rows`; None where they cannot be divided well."""

    @property
    def units(self) -> tuple[int, ...]:
        """The least widths of the parts in the proportions of their shares."""
        least, shares = [least_width(part) for part in self.parts], self.shares or ()
        common = math.lcm(*(width // math.gcd(width, share) for width, share in zip(least, shares, strict=True)))
        return tuple(share * common for share in shares)

    @property
    def positive(self) -> bool:  # type: ignore[override]
        return all(part.positive for part in self.parts)

    @property
    def bounded(self) -> bool:  # type: ignore[override]
        return all(part.bounded for part in self.parts)

    @property
    def symmetric(self) -> bool:  # type: ignore[override]
        return all(part.symmetric for part in self.parts)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(*(part.batch_shape for part in self.parts))

    def widths(self, num_features: int, dim: int | None = None) -> tuple[int, ...]:
        """How many features each part has, of `num_features`; ValueError, naming the nearest, where that cannot be."""
        widths = self._widths(num_features, dim)
        if widths is not None:
            return widths
        per_row = self.features_per_row
        rows = num_features // per_row
        steps = (range(rows, max(rows - SEARCHED, 0), -1), range(rows + 1, rows + SEARCHED))
        near = (next((row * per_row for row in step if self._widths(row * per_row, dim)), None) for step in steps)
        nearest = ", ".join(str(width) for width in near if width is not None)
        raise ValueError(f"{self!r} cannot have {num_features} features; nearest: {nearest or 'unknown'}.")

    def _widths(self, num_features: int, dim: int | None) -> tuple[int, ...] | None:
        """The widths of the parts, or None where one of them cannot have its width."""
        rows, rest = divmod(num_features, self.features_per_row)
        multiples = None if rest or not rows else self._multiples(rows)
        if multiples is None:
            return None
        widths = tuple(multiple * unit for multiple, unit in zip(multiples, self.units, strict=True))
        possible = (can_have(part, width, dim) for part, width in zip(self.parts, widths, strict=True))
        return widths if all(possible) else None

    def num_rows(self, num_features: int, dim: int | None = None) -> int:
        """How many units make `num_features` (of a product: how many in each part, multiplied)."""
        self.widths(num_features, dim)
        return num_features // self.features_per_row

    def draw_arrays(
        self, num_rows: int, dim: int, rng: np.random.Generator, batch_shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        widths = self.widths(num_rows * self.features_per_row, dim)
        drawn = (
            part.draw(dim, width, rng=rng, batch_shape=batch_shape)
            for part, width in zip(self.parts, widths, strict=True)
        )
        return {f"{i}.{name}": array for i, phi in enumerate(drawn) for name, array in phi.arrays.items()}

    def query_features(self, arrays: Mapping[str, Array], x: Array) -> Features:
        return self._combine_features([phi.queries(x) for phi in self._maps(arrays, x.shape[-1])])

    def key_features(self, arrays: Mapping[str, Array], y: Array) -> Features:
        return self._combine_features([phi.keys(y) for phi in self._maps(arrays, y.shape[-1])])

    def _maps(self, arrays: Mapping[str, Array], dim: int) -> list[FeatureMap]:
        """The maps of the parts, for evaluation."""
        maps = []
        for i, (part, unit) in enumerate(zip(self.parts, self.units, strict=True)):
            own = part_of(arrays, f"{i}.")
            maps.append(FeatureMap(part, dim, unit, own))  # features are as many as the arrays make
        return maps

    def _part_moments(
        self, x: Any, y: Any, num_features: int | None
    ) -> tuple[np.ndarray, np.ndarray, list[tuple[Estimator, int | None]]]:
        """The pair as host arrays, and each part with its width."""
        x, y = variance.unit_inputs(self.kernel, x, y)
        unknown = (None,) * len(self.parts)
        widths = unknown if num_features is None else self.widths(num_features, x.shape[-1])
        return x, y, list(zip(self.parts, widths, strict=True))


def least_width(estimator: Estimator) -> int:
    """The difference between neighbouring widths that an estimator can have: features of its least number of rows."""
    rows = 1
    while estimator._coupling.nearest_num_rows(rows) != (rows,):
        rows += 1
    return rows * estimator.features_per_row


def can_have(estimator: Estimator, num_features: int, dim: int | None) -> bool:
    """Whether an estimator can have this width."""
    try:
        estimator.num_rows(num_features, dim)
    except ValueError:
        return False
    return True
