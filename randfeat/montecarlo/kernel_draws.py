"""Errors of kernel estimates at fixed pairs, for error curves."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_host
from randfeat.couplings.laws import NoClosedForm
from randfeat.estimators.base import Estimator
from randfeat.montecarlo.cell import Cell
from randfeat.montecarlo.measured import mean_over_draws
from randfeat.montecarlo.sampling import batch_sizes, collect
from randfeat.variance import times_exp


@dataclass(frozen=True, eq=False)
class KernelDraws:
    """Pairs x, y (pairs, d) at which kernels are estimated."""

    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, x: Any, y: Any) -> "KernelDraws":
        """All pairs of inputs that broadcast against each other."""
        x, y = as_host(x, "x"), as_host(y, "y")
        try:
            x, y = np.broadcast_arrays(x, y)
        except ValueError:
            raise ValueError(
                f"x and y must broadcast against each other, got {x.shape} and {y.shape}: each row of x is paired with "
                "the same row of y. For all pairs give x[:, None] and y."
            ) from None
        if x.ndim == 0 or x.size == 0:
            raise ValueError(f"x and y must hold at least one pair of shape (..., d), got {x.shape}.")
        return cls(x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]))

    @property
    def dim(self) -> int:
        """Length of the inputs."""
        return int(self.x.shape[-1])

    @property
    def average_error(self) -> float:
        """NaN: kernel values have no output without features."""
        return np.nan

    def batch_sizes(self, estimators: list[Estimator], num_features: int, num_draws: int) -> list[int]:
        """Draws of each batch."""
        return batch_sizes(estimators, self.x, self.y, num_features, num_draws)

    def cell(
        self, estimator: Estimator, num_features: int, sizes: list[int], generators: list[np.random.Generator]
    ) -> Cell:
        """The measures of one estimator and width over draws, and their closed forms."""
        errors = collect(estimator, self.x, self.y, num_features, sizes, generators).errors
        log_reference = np.asarray(estimator.kernel.log_reference(self.x, self.y))
        absolute = times_exp(errors, log_reference)
        squares = np.mean(errors**2, axis=1)
        measured = {
            "relative_mse": mean_over_draws(squares),
            "relative_bias": mean_over_draws(np.mean(errors, axis=1)),
            "relative_sup": mean_over_draws(np.max(np.abs(errors), axis=1)),
            "mse": mean_over_draws(np.mean(absolute**2, axis=1)),
            "bias": mean_over_draws(np.mean(absolute, axis=1)),
            "sup": mean_over_draws(np.max(np.abs(absolute), axis=1)),
        }
        return Cell(measured, self.closed_forms(estimator, num_features, log_reference), squares)

    def closed_forms(self, estimator: Estimator, num_features: int, log_reference: np.ndarray) -> dict[str, float]:
        """Means over the pairs of exact errors; NaN where none is known."""
        found = dict.fromkeys(("relative_mse", "relative_bias", "mse", "bias"), np.nan)
        try:
            bias = estimator.mean_over_reference(self.x, self.y, num_features)
            bias = bias - estimator.kernel.relative(self.x, self.y)
            found["relative_bias"] = float(np.mean(bias))
            found["bias"] = float(np.mean(times_exp(bias, log_reference)))
            mse = estimator.variance_over_reference(self.x, self.y, num_features) + bias**2
            found["relative_mse"] = float(np.mean(mse))
            found["mse"] = float(np.mean(times_exp(mse, 2 * log_reference)))
        except NoClosedForm:
            pass
        return found
