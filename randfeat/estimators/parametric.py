"""Estimators with array parameters, one set for each head: frozen, comparable, batched."""

from dataclasses import fields
from typing import Any

import numpy as np


class Parametric:
    """A frozen dataclass with arrays as parameters, with optional leading batch dimensions (heads).

    Parameters never change; two of a kind are equal when all their parameters are. A batched estimator draws one map
    for each batch entry, and its closed forms take pairs (..., *batch_shape, n, d).
    """

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading dimensions of the parameters, `()` for a single set."""
        return ()

    def per_pair(self, parameter: np.ndarray) -> np.ndarray:
        """A parameter (*batch_shape, ...), with an axis of length 1 after the batch dimensions if there are any.

        It then broadcasts against the n pairs of each batch entry. Without a batch it is returned unchanged.
        """
        depth = len(self.batch_shape)
        return np.expand_dims(parameter, depth) if depth else parameter

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(same(getattr(self, name), getattr(other, name)) for name in self._names)

    def __hash__(self) -> int:
        return hash((type(self), *(hashable(getattr(self, name)) for name in self._names)))

    def __repr__(self) -> str:
        shown = [f.name for f in fields(self) if f.repr and f.init]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={described(getattr(self, name))}' for name in shown)})"

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f.name for f in fields(self))  # type: ignore[arg-type]


def frozen_array(value: Any, name: str, dtype: type = np.float64) -> np.ndarray:
    """A read-only copy of finite numbers, float64 or complex128."""
    array = real_array(value, name) if dtype is np.float64 else np.array(value, dtype=dtype)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be finite.")
    array.flags.writeable = False
    return array


def real_array(value: Any, name: str) -> np.ndarray:
    """A copy of real numbers, float64."""
    if np.iscomplexobj(value):
        raise TypeError(f"{name} must be real, got complex numbers.")
    return np.array(value, dtype=np.float64)


def same(a: Any, b: Any) -> bool:
    """Equality that also holds for arrays."""
    return np.array_equal(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else bool(a == b)


def hashable(value: Any) -> Any:
    """The value, or the bytes of an array."""
    return (value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def described(value: Any) -> str:
    """A repr of `value`, with long arrays as their shape."""
    if not isinstance(value, np.ndarray):
        return repr(value)
    return repr(value.tolist()) if value.size <= 4 else f"<array of shape {value.shape}>"
