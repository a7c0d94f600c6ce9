"""The softmax kernel and its family."""

import abc
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import Array, as_host, namespace, squared_norm
from randfeat.kernels.base import Kernel, check_positive


@dataclass(frozen=True)
class SoftmaxFamily(Kernel):
    """A kernel of the softmax family: `k(x, y) = e(x') exp(x'·y') e(y')` with `x' = unit(x)` [rank-one envelope `e`].

    One estimator of `exp(x'·y')` therefore serves every such kernel, with the same relative error. Values are positive
    and are computed from their logarithm.
    """

    has_logarithm = True

    @abc.abstractmethod
    def log_envelope(self, sqnorm: Any) -> Any:
        """`log e(x)` from `|unit(x)|²`."""

    @property
    def envelope_factor(self) -> float | None:
        """The number c of `log_envelope(s) = c s`; None where the envelope is something else."""
        return None

    def envelope_slope(self, sqnorm: Any) -> Any:
        """The derivative of `log_envelope`."""
        raise ValueError(
            f"{type(self).__name__} does not give the derivative of its envelope (envelope_slope); differentiate "
            "linear_attention by PyTorch or JAX instead."
        )

    def log_gaussian(self, x: Array) -> Array:
        """`log e(x) - |x|²/2`, which positive features have per row: kernel units (..., n, d) -> (..., n, 1)."""
        sqnorm = squared_norm(x)
        return self.log_envelope(sqnorm) - sqnorm / 2

    def log_gaussian_slope(self, x: Array) -> Array:
        """The gradient of `log_gaussian`: (..., n, d)."""
        return (2 * self.envelope_slope(squared_norm(x)) - 1) * x

    @abc.abstractmethod
    def _log_gram(self, x: Array, y: Array) -> Array: ...

    @abc.abstractmethod
    def _log_pairwise(self, x: Array, y: Array) -> Array: ...

    def _gram(self, x: Array, y: Array) -> Array:
        return namespace(x).exp(self._log_gram(x, y))

    def _pairwise(self, x: Array, y: Array) -> Array:
        return namespace(x).exp(self._log_pairwise(x, y))

    def log_reference(self, x: Any, y: Any) -> np.ndarray:
        return np.asarray(self.log_pairwise(as_host(x, "x"), as_host(y, "y")))

    def relative(self, x: Any, y: Any) -> np.ndarray:
        return np.exp(0 * self.log_reference(x, y))


@dataclass(frozen=True)
class SoftmaxKernel(SoftmaxFamily):
    """Softmax kernel `k(x, y) = exp(scale · x·y)`: the unnormalized weight of softmax attention.

    scale : multiplies the logits, positive. Attention at temperature τ has `scale = 1/(τ√d)`; the attention functions
        apply `1/√d` themselves, so the kernel of their feature maps keeps `scale = 1`.

    Exact up to rounding; overflows where `scale · x·y` exceeds the range of the dtype (88 in float32): use `log_gram`.
    Source: Vaswani et al. 2017, "Attention Is All You Need".

    >>> import numpy as np
    >>> SoftmaxKernel(scale=0.5)(np.eye(2), 2 * np.eye(2))
    array([[2.71828183, 1.        ],
           [1.        , 2.71828183]])
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", check_positive("scale", self.scale))

    @property
    def unit_factor(self) -> float:
        """`√scale`."""
        return math.sqrt(self.scale)

    def log_envelope(self, sqnorm: Any) -> Any:
        return 0.0

    @property
    def envelope_factor(self) -> float:
        """0, since there is no envelope."""
        return 0.0

    def envelope_slope(self, sqnorm: Any) -> Any:
        return 0.0

    def _log_gram(self, x: Array, y: Array) -> Array:
        return self.scale * (x @ namespace(x).matrix_transpose(y))

    def _log_pairwise(self, x: Array, y: Array) -> Array:
        return self.scale * namespace(x).sum(x * y, axis=-1)


SOFTMAX = SoftmaxKernel()
"""`exp(x·y)`: the kernel that is meant where none is named."""


def resolve_scale(scale: float | None, kernel: Kernel, dim: int) -> float:
    """The scale of the logits that attention applies once: 1/√d by default, for the plain softmax kernel only."""
    if scale is not None:
        return check_positive("scale", scale)
    if type(kernel) is not SoftmaxKernel or kernel.scale != 1:
        raise ValueError(
            f"the kernel {kernel} has a scale of its own, so the default scale 1/√d would be a second one; "
            "pass scale=1.0 to use the kernel as it is, or use features of SoftmaxKernel()."
        )
    return int(dim) ** -0.5 if dim else 1.0
