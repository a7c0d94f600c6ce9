"""Estimators made of several independent ones: what sums and products share."""

import abc
import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from randfeat import variance
from randfeat._array import Array, Arrays, Drawn, as_count
from randfeat._hints import short
from randfeat.estimators.base import Estimator
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.trigonometric import TrigonometricFeatures
from randfeat.estimators.uncoupled import UncoupledEstimator
from randfeat.features import Features
from randfeat.kernels import Kernel, SoftmaxKernel
from randfeat.kernels.algebra import check_parts
from randfeat.maps import part_of, weighted_features

SEARCHED = 1000  # neighbouring widths that are tried for an error message


@dataclass(frozen=True)
class CombinedEstimator(UncoupledEstimator):
    """An estimator of a sum or product of kernels, from independent draws of an estimator for each.

    parts : the estimators, each with its own kernel and coupling.
    shares : positive integers, the proportions of the widths of the parts; equal by default.

    `least_widths` are the least widths in these proportions that the parts can have. `num_rows` counts multiples of
    them.
    """

    kernel: Kernel = field(init=False, repr=False, default_factory=SoftmaxKernel)
    parts: tuple[Estimator, ...]
    shares: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        parts = check_parts(self.parts, Estimator)
        shares = (1,) * len(parts) if self.shares is None else self.shares
        if not isinstance(shares, tuple | list) or len(shares) != len(parts):
            raise ValueError(f"shares must be {len(parts)} integers, one for each part, got {short(shares)}.")
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
        """Multiples of the least widths, one for each part, for so many rows; None if they cannot be divided well."""

    @property
    def least_widths(self) -> tuple[int, ...]:
        """The least widths of the parts in the proportions of their shares."""
        least, shares = [least_width(part) for part in self.parts], self.shares or ()
        common = math.lcm(*(width // math.gcd(width, share) for width, share in zip(least, shares, strict=True)))
        return tuple(share * common for share in shares)

    @property
    def positive(self) -> bool:
        return all(part.positive for part in self.parts)

    @property
    def bounded(self) -> bool:
        return all(part.bounded for part in self.parts)

    @property
    def symmetric(self) -> bool:
        return all(part.symmetric for part in self.parts)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(*(part.batch_shape for part in self.parts))

    def widths(self, num_features: int, dim: int | None = None) -> tuple[int, ...]:
        """Numbers of features of the parts, `num_features` in all; ValueError if that cannot be had."""
        return self._split(self.num_rows(num_features, dim)) or ()

    def nearest_num_features(self, num_features: int, dim: int | None = None) -> tuple[int, ...]:
        per_row = self.features_per_row
        rows, rest = divmod(as_count(num_features, "num_features"), per_row)
        if rest == 0 and self._is_possible(rows, dim):
            return (num_features,)
        steps = (range(rows, max(rows - SEARCHED, 0), -1), range(rows + 1, rows + SEARCHED))
        near = (next((row * per_row for row in step if self._is_possible(row, dim)), None) for step in steps)
        return tuple(width for width in near if width is not None)

    def _split(self, num_rows: int) -> tuple[int, ...] | None:
        """The widths of the parts for so many rows; None if they cannot be divided well."""
        multiples = self._multiples(num_rows) if num_rows else None
        if multiples is None:
            return None
        return tuple(multiple * least for multiple, least in zip(multiples, self.least_widths, strict=True))

    def _is_possible(self, num_rows: int, dim: int | None) -> bool:
        """Whether each part can have its width."""
        widths = self._split(num_rows)
        return widths is not None and all(
            part.nearest_num_features(width, dim) == (width,) for part, width in zip(self.parts, widths, strict=True)
        )

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        widths = self.widths(num_rows * self.features_per_row, dim)
        drawn = (
            part.draw(dim, width, rng=rng, batch_shape=batch_shape)
            for part, width in zip(self.parts, widths, strict=True)
        )
        return {f"{i}.{name}": array for i, phi in enumerate(drawn) for name, array in phi.arrays.items()}

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        return self._combine_features(self._part_features(arrays, x, keys=False))

    def key_features(self, arrays: Arrays, y: Array) -> Features:
        return self._combine_features(self._part_features(arrays, y, keys=True))

    def _part_features(self, arrays: Arrays, x: Array, *, keys: bool) -> list[Features]:
        return [weighted_features(part, part_of(arrays, f"{i}."), x, keys=keys) for i, part in enumerate(self.parts)]

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
    return estimator._coupling.nearest_num_rows(1)[-1] * estimator.features_per_row
