"""The interface of a kernel: exact values, and the reference that errors are relative to."""

import abc
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import Array, as_floating, as_host, cast, compute_dtype, namespace, own_precision
from randfeat._hints import Hinted, short

OPERATIONS: dict[str, Callable[..., "Kernel"]] = {}
"""The kernels that `+`, `*` and a factor make, "sum", "product" and "multiple": `algebra.py` names its classes here."""


@dataclass(frozen=True)
class Kernel(Hinted, abc.ABC):
    """A kernel `k(x, y)` with exact values.

    Inputs are (..., n, d) and (..., k, d) for the Gram matrix, and broadcast over (..., d) for `pairwise`. The output
    has the namespace, dtype and device of the inputs; float16 and bfloat16 are computed in float32. NaN and infinite
    inputs propagate.

    Kernels add and multiply: `k1 + k2`, `k1 * k2` and `2.5 * k1` are kernels, with features of their own.
    """

    __array_ufunc__ = None  # so that NumPy numbers leave `number * kernel` to the kernel

    @property
    def has_logarithm(self) -> bool:
        """Whether all values are positive, and `log_gram` and `log_pairwise` give their logarithms."""
        return False

    @property
    def shift_invariant(self) -> bool:
        """Whether `k(x + c, y + c) = k(x, y)` for all c."""
        return False

    @property
    def takes_negative(self) -> bool:
        """Whether inputs may be any numbers; if not, the kernel and its features raise ValueError below some number."""
        return True

    @abc.abstractmethod
    def _gram(self, x: Array, y: Array) -> Array:
        """(..., n, d), (..., k, d) -> (..., n, k), in the dtype to compute in."""

    @abc.abstractmethod
    def _pairwise(self, x: Array, y: Array) -> Array:
        """One number per pair, broadcasting over (..., d), in the dtype to compute in."""

    def _gram_over(self, x: Array, y: Array, scales: Any) -> Array:
        """The Gram matrix of x/scales and y/scales, (d,) or a number; kernels of x - y divide differences."""
        return self._gram(x / scales, y / scales)

    def _log_gram_over(self, x: Array, y: Array, scales: Any) -> Array:
        """The logarithm of `_gram_over`."""
        return self._log_gram(x / scales, y / scales)

    def _log_gram(self, x: Array, y: Array) -> Array:
        raise TypeError(f"{self!r} gives no logarithms (has_logarithm is False); call it for its values.")

    def _log_pairwise(self, x: Array, y: Array) -> Array:
        raise TypeError(f"{self!r} gives no logarithms (has_logarithm is False); use pairwise for its values.")

    @property
    def unit_factor(self) -> float | None:
        """The number c of `unit(x) = c x`; None where units are not a multiple of the input."""
        return 1.0 if type(self).unit is Kernel.unit else None

    def unit(self, x: Array) -> Array:
        """The input in the units that estimators work in, `c x` with c the `unit_factor`."""
        return x if self.unit_factor in (None, 1) else x * self.unit_factor

    def unit_pull_back(self, x: Array, gradient: Array) -> Array:
        """The gradient in x, from the gradient in `unit(x)`: `gradient` times the Jacobian matrix of `unit` at x."""
        if self.unit_factor is None or not stated_for(self, "unit_factor", "unit"):
            raise ValueError(
                f"{type(self).__name__} has units of its own and does not say how gradients pass through them "
                "(unit_pull_back); differentiate linear_attention by PyTorch or JAX instead."
            )
        return self.unit(gradient)

    def __call__(self, x: Any, y: Any) -> Array:
        """The Gram matrix: (..., n, d), (..., k, d) -> (..., n, k)."""
        x, y, dtype = self._inputs(x, y, gram=True)
        with own_precision(x):
            return cast(self._gram(x, y), dtype)

    def pairwise(self, x: Any, y: Any) -> Array:
        """One number per pair, broadcasting over (..., d)."""
        x, y, dtype = self._inputs(x, y, gram=False)
        with own_precision(x):
            return cast(self._pairwise(x, y), dtype)

    def log_gram(self, x: Any, y: Any) -> Array:
        """The logarithm of the Gram matrix, for values that would overflow: (..., n, d), (..., k, d) -> (..., n, k)."""
        x, y, dtype = self._inputs(x, y, gram=True)
        with own_precision(x):
            return cast(self._log_gram(x, y), dtype)

    def log_pairwise(self, x: Any, y: Any) -> Array:
        """The logarithm of `pairwise`."""
        x, y, dtype = self._inputs(x, y, gram=False)
        with own_precision(x):
            return cast(self._log_pairwise(x, y), dtype)

    def log_reference(self, x: Any, y: Any) -> np.ndarray:
        """Logarithm of the reference: the positive number that moments are stated over, one per pair, float64 NumPy.

        The reference is the kernel itself in the softmax family, and 1 for other kernels, whose values may vanish.
        """
        return np.zeros(np.broadcast_shapes(as_host(x, "x").shape, as_host(y, "y").shape)[:-1])

    def relative(self, x: Any, y: Any) -> np.ndarray:
        """The kernel over the reference, one number per pair, float64 NumPy."""
        x, y = as_host(x, "x"), as_host(y, "y")
        return np.asarray(self.pairwise(x, y) * np.exp(-self.log_reference(x, y)))

    def __add__(self, other: Any) -> "Kernel":
        return OPERATIONS["sum"](self, other) if isinstance(other, Kernel) else NotImplemented

    def __mul__(self, other: Any) -> "Kernel":
        if isinstance(other, numbers.Real):
            return OPERATIONS["multiple"](self, other)
        return OPERATIONS["product"](self, other) if isinstance(other, Kernel) else NotImplemented

    def __rmul__(self, other: Any) -> "Kernel":
        return self * other if isinstance(other, numbers.Real) else NotImplemented

    @staticmethod
    def _inputs(x: Any, y: Any, *, gram: bool) -> tuple[Array, Array, Any]:
        x, y = as_floating(x, "x"), as_floating(y, "y")
        xp = namespace(x, y)
        least = 2 if gram else 1
        for name, array in (("x", x), ("y", y)):
            if array.ndim < least:
                expected = "(..., n, d)" if gram else "(..., d)"
                raise ValueError(f"{name} must have shape {expected}, got {tuple(array.shape)}.")
        if x.shape[-1] != y.shape[-1]:
            raise ValueError(f"x and y must share their last dimension, got {x.shape[-1]} and {y.shape[-1]}.")
        dtype = xp.result_type(x.dtype, y.dtype)
        return cast(x, compute_dtype(xp, dtype)), cast(y, compute_dtype(xp, dtype)), dtype


def check_positive(name: str, value: Any) -> float:
    """A positive finite parameter as a Python float, whose type never decides the dtype of a result."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a positive number, got {short(value)}.")
    if not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {short(value)}.")
    return float(value)


def stated_for(thing: object, statement: str, *methods: str) -> bool:
    """Whether a statement that a class inherits is about the methods that it has: none was overridden since."""
    cls = type(thing)
    author = next(ancestor for ancestor in cls.__mro__ if statement in vars(ancestor))
    return all(getattr(author, name, None) is getattr(cls, name, None) for name in methods)
