"""Estimators around one other: what they take over from it."""

import dataclasses
from typing import Any, Self

from randfeat.couplings import Coupling
from randfeat.estimators.base import Estimator

__all__ = ["DelegatingEstimator"]


class DelegatingEstimator(Estimator):
    """An estimator made from another one, its `base`: signs, widths and the choice of rows are the base's."""

    base: Estimator

    @property
    def positive(self) -> bool:
        return self.base.positive

    @property
    def bounded(self) -> bool:
        return self.base.bounded

    @property
    def features_per_row(self) -> int:
        return self.base.features_per_row

    @property
    def has_coupling(self) -> bool:
        return self.base.has_coupling

    def with_coupling(self, coupling: Coupling | str) -> Self:
        changes: Any = {"base": self.base.with_coupling(coupling)}
        return dataclasses.replace(self, **changes)

    def num_rows(self, num_features: int, dim: int | None = None) -> int:
        return self.base.num_rows(num_features, dim)

    def num_features(self, num_rows: int, dim: int | None = None) -> int:
        return self.base.num_features(num_rows, dim)
