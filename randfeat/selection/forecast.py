"""AttentionForecast: the error to expect of linear attention, and how much is known about it."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

USEFUL, POOR, MEASURED = "useful", "poor", "no forecast, measured by pilot"


@dataclass(frozen=True, eq=False)
class AttentionForecast(NDArrayOperatorsMixin):
    """Relative error of linear attention to expect, and a verdict; arrays with one entry for each head, (...).

    It computes like the array `error`: `float(forecast)`, `forecast.mean()`, `forecast > 0.5`, `np.asarray(forecast)`.
    `forecast[i]` is the forecast of one head. `print` shows one line for each head.

    error : relative error of one draw. It never exceeds `largest_error`.
    verdict : "useful" if closed forms hold, and the error, large or small, is at most `average_error`. "poor" if they
        hold, and the average of the values is better. "no forecast, measured by pilot" if closed forms say nothing
        here; then `error` is the median over pilot draws, to be compared with `average_error`.
    average_error : error of the output that needs no features, the plain average of the values that each query sees.
    largest_error : the most that an average of the visible values with any weights >= 0 can err. Outputs of positive
        features are such averages. Infinite for signed features, whose outputs have no bound.
    leading_order : the error by the delta method, without a bound; NaN where it is not known.
    """

    error: np.ndarray
    verdict: np.ndarray
    average_error: np.ndarray
    largest_error: np.ndarray
    leading_order: np.ndarray

    @property
    def beats_average(self) -> np.ndarray:
        """Whether features err less than the plain average of the values."""
        return self.error < self.average_error

    @property
    def is_measured(self) -> np.ndarray:
        """Whether closed forms say nothing, so that the error was measured."""
        return self.verdict == MEASURED

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.error, dtype=dtype) if copy else np.asarray(self.error, dtype=dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = (x.error if isinstance(x, AttentionForecast) else x for x in inputs)
        return getattr(ufunc, method)(*arrays, **options)

    def __float__(self) -> float:
        return float(self.error)

    def __format__(self, spec: str) -> str:
        return format(self.error, spec) if spec else str(self)

    def __len__(self) -> int:
        return len(self.error)

    def __getitem__(self, index: Any) -> "AttentionForecast":
        return AttentionForecast(*(getattr(self, field.name)[index] for field in fields(self)))

    def __iter__(self) -> Iterator["AttentionForecast"]:
        return (self[i] for i in range(len(self)))

    def __getattr__(self, name: str) -> Any:  # mean, round, shape, ...: of the array that this once was
        if name.startswith("_") or name == "error":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")
        return getattr(self.error, name)

    def __str__(self) -> str:
        columns = [np.ravel(getattr(self, field.name)) for field in fields(self)[:4]]
        return "\n".join(
            f"error {error:.3g}: {verdict}; average of the values {average:.3g}"
            + (f", at most {largest:.3g}" if np.isfinite(largest) else "")
            for error, verdict, average, largest in zip(*columns, strict=True)
        )
