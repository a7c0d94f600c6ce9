"""Exact kernels: the numbers that random features estimate."""

import abc
import math
import numbers
from dataclasses import dataclass
from typing import Any

from randfeat._array import Array, as_floating, cast, compute_dtype, namespace, squared_norm

__all__ = ["GaussianKernel", "Kernel", "SoftmaxKernel"]


@dataclass(frozen=True)
class Kernel(abc.ABC):
    """A kernel of the softmax family: `k(x, y) = e(x') exp(x'·y') e(y')` with `x' = unit(x)` [rank-one envelope `e`].

    One estimator of `exp(x'·y')` therefore serves every such kernel, with the same relative error.

    Inputs are (..., n, d) and (..., k, d) for the Gram matrix, and broadcast over (..., d) for `pairwise`. The output
    has the namespace, dtype and device of the inputs; float16 and bfloat16 are computed in float32. NaN and infinite
    inputs propagate.
    """

    @abc.abstractmethod
    def unit(self, x: Array) -> Array:
        """The input in the units in which the kernel is `e(x) exp(x·y) e(y)`."""

    @abc.abstractmethod
    def log_envelope(self, sqnorm: Any) -> Any:
        """`log e(x)` from `|unit(x)|²`."""

    @abc.abstractmethod
    def _log_gram(self, x: Array, y: Array) -> Array: ...

    @abc.abstractmethod
    def _log_pairwise(self, x: Array, y: Array) -> Array: ...

    def __call__(self, x: Any, y: Any) -> Array:
        """The Gram matrix: (..., n, d), (..., k, d) -> (..., n, k)."""
        return self._exp(x, y, self._log_gram, gram=True)

    def pairwise(self, x: Any, y: Any) -> Array:
        """One number per pair, broadcasting over (..., d)."""
        return self._exp(x, y, self._log_pairwise, gram=False)

    def log_gram(self, x: Any, y: Any) -> Array:
        """The logarithm of the Gram matrix, for values that would overflow: (..., n, d), (..., k, d) -> (..., n, k)."""
        x, y, dtype = self._inputs(x, y, gram=True)
        return cast(self._log_gram(x, y), dtype)

    def log_pairwise(self, x: Any, y: Any) -> Array:
        """The logarithm of `pairwise`."""
        x, y, dtype = self._inputs(x, y, gram=False)
        return cast(self._log_pairwise(x, y), dtype)

    def _exp(self, x: Any, y: Any, log: Any, *, gram: bool) -> Array:
        x, y, dtype = self._inputs(x, y, gram=gram)
        return cast(namespace(x).exp(log(x, y)), dtype)

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


@dataclass(frozen=True)
class SoftmaxKernel(Kernel):
    """Softmax kernel `k(x, y) = exp(scale · x·y)`: the unnormalized weight of softmax attention.

    scale : multiplies the logits, positive. Attention at temperature τ has `scale = 1/(τ√d)`; the attention functions
        apply `1/√d` themselves, so the kernel of their feature maps keeps `scale = 1`.

    Exact up to rounding; overflows where `scale · x·y` exceeds the range of the dtype (88 in float32): use `log_gram`.

    >>> import numpy as np
    >>> SoftmaxKernel(scale=0.5)(np.eye(2), 2 * np.eye(2))
    array([[2.71828183, 1.        ],
           [1.        , 2.71828183]])
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", check_positive("scale", self.scale))

    def unit(self, x: Array) -> Array:
        """`√scale · x`."""
        return x if self.scale == 1 else x * math.sqrt(self.scale)

    def log_envelope(self, sqnorm: Any) -> Any:
        """0: the softmax kernel has no envelope."""
        return 0.0

    def _log_gram(self, x: Array, y: Array) -> Array:
        return self.scale * (x @ namespace(x).matrix_transpose(y))

    def _log_pairwise(self, x: Array, y: Array) -> Array:
        return self.scale * namespace(x).sum(x * y, axis=-1)


@dataclass(frozen=True)
class GaussianKernel(Kernel):
    """Gaussian kernel `k(x, y) = exp(-|x - y|² / 2ℓ²)`, ℓ the `length_scale`.

    length_scale : ℓ, positive, in the units of the inputs; scikit-learn's `gamma` is `1 / 2ℓ²`.

    Exact up to rounding: `pairwise` differences the inputs; the Gram matrix expands the square after moving the origin
    to the mean of `y`, absolute error of the exponent a few eps times the squared distances from there, over ℓ².

    >>> import numpy as np
    >>> GaussianKernel(length_scale=2.0).pairwise(np.array([0.0, 0.0]), np.array([0.0, 2.0]))
    np.float64(0.6065306597126334)
    """

    length_scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "length_scale", check_positive("length_scale", self.length_scale))

    def unit(self, x: Array) -> Array:
        """`x / ℓ`."""
        return x if self.length_scale == 1 else x / self.length_scale

    def log_envelope(self, sqnorm: Any) -> Any:
        """`-|x|²/2`."""
        return -sqnorm / 2

    def _log_gram(self, x: Array, y: Array) -> Array:
        xp = namespace(x)
        finite = xp.isfinite(y)  # a NaN in y spoils its own column only
        count = xp.maximum(xp.sum(cast(finite, y.dtype), axis=-2, keepdims=True), 1.0)
        origin = xp.sum(xp.where(finite, y, 0.0), axis=-2, keepdims=True) / count
        x, y = x - origin, y - origin
        x, y = self.unit(x), self.unit(y)
        sqdist = squared_norm(x) + xp.matrix_transpose(squared_norm(y)) - 2 * (x @ xp.matrix_transpose(y))
        return -xp.where(sqdist < 0, xp.zeros_like(sqdist), sqdist) / 2

    def _log_pairwise(self, x: Array, y: Array) -> Array:
        difference = self.unit(x - y)
        return -namespace(x).sum(difference * difference, axis=-1) / 2


def check_positive(name: str, value: Any) -> float:
    """A positive finite parameter as a Python float, whose type never decides the dtype of a result."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a positive number, got {value!r}.")
    if not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value!r}.")
    return float(value)


def resolve_scale(scale: float | None, kernel: Kernel, dim: int) -> float:
    """The scale of the logits that attention applies once: 1/√d by default, for the plain softmax kernel only."""
    if scale is not None:
        return check_positive("scale", scale)
    if kernel != SoftmaxKernel():
        raise ValueError(
            f"the kernel {kernel} has a scale of its own, so the default scale 1/√d would be a second one; "
            "pass scale=1.0 to use the kernel as it is, or use features of SoftmaxKernel()."
        )
    return dim**-0.5 if dim else 1.0
