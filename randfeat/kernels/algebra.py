"""Sums, products and positive multiples of kernels, and one length-scale per input dimension."""

import abc
import functools
import math
import operator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from randfeat._array import Array, as_host, device_of, namespace
from randfeat._hints import short
from randfeat.kernels.base import OPERATIONS, Kernel, check_positive


@dataclass(frozen=True)
class CombinedKernel(Kernel):
    """A kernel made of several: what sums and products share."""

    parts: tuple[Kernel, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", check_parts(self.parts, Kernel))

    @classmethod
    def of(cls, *kernels: Kernel) -> Self:
        """The combination of `kernels`, those of this class taken apart: `a + b + c` has three parts."""
        nested = (kernel.parts if isinstance(kernel, cls) else (kernel,) for kernel in kernels)
        return cls(tuple(part for parts in nested for part in parts))

    @property
    def has_logarithm(self) -> bool:
        return all(part.has_logarithm for part in self.parts)

    @property
    def shift_invariant(self) -> bool:
        return all(part.shift_invariant for part in self.parts)

    @property
    def takes_negative(self) -> bool:
        return all(part.takes_negative for part in self.parts)

    @abc.abstractmethod
    def _combine(self, values: Any) -> Any:
        """The value of this kernel, from the values of its parts."""

    @abc.abstractmethod
    def _combine_logs(self, logs: Any) -> Any:
        """The logarithm of the value of this kernel, from the logarithms of its parts."""

    def _gram(self, x: Array, y: Array) -> Array:
        return self._combine(part._gram(x, y) for part in self.parts)

    def _gram_over(self, x: Array, y: Array, scales: Any) -> Array:
        return self._combine(part._gram_over(x, y, scales) for part in self.parts)

    def _log_gram_over(self, x: Array, y: Array, scales: Any) -> Array:
        return self._combine_logs(part._log_gram_over(x, y, scales) for part in self.parts)

    def _pairwise(self, x: Array, y: Array) -> Array:
        return self._combine(part._pairwise(x, y) for part in self.parts)

    def _log_gram(self, x: Array, y: Array) -> Array:
        return self._combine_logs(part._log_gram(x, y) for part in self.parts)

    def _log_pairwise(self, x: Array, y: Array) -> Array:
        return self._combine_logs(part._log_pairwise(x, y) for part in self.parts)

    def log_reference(self, x: Any, y: Any) -> np.ndarray:
        return np.asarray(self._combine_logs(part.log_reference(x, y) for part in self.parts))


@dataclass(frozen=True)
class SumKernel(CombinedKernel):
    """The sum of kernels, `k(x, y) = Σ_i k_i(x, y)`; written `k1 + k2`.

    parts : the kernels k_i.

    Its logarithm, where all parts have one, is summed without overflow.
    Source: Aronszajn 1950, "Theory of Reproducing Kernels": the sum of positive definite kernels is one.

    >>> from randfeat.kernels import GaussianKernel, SoftmaxKernel
    >>> kernel = GaussianKernel() + SoftmaxKernel()
    >>> print(kernel(np.array([[1.0]]), np.array([[1.0], [-1.0]])), kernel.log_gram([[30.0]], [[30.0]]))
    [[3.71828183 0.50321472]] [[900.]]
    """

    def _combine(self, values: Any) -> Any:
        return functools.reduce(operator.add, values)

    def _combine_logs(self, logs: Any) -> Any:
        return functools.reduce(lambda a, b: namespace(a, b).logaddexp(a, b), logs)

    def relative(self, x: Any, y: Any) -> np.ndarray:
        """`Σ_i relative_i · reference_i / Σ_j reference_j`, which cannot overflow."""
        log = self.log_reference(x, y)
        return self._combine(part.relative(x, y) * np.exp(part.log_reference(x, y) - log) for part in self.parts)


@dataclass(frozen=True)
class ProductKernel(CombinedKernel):
    """The product of kernels, `k(x, y) = Π_i k_i(x, y)`; written `k1 * k2`.

    parts : the kernels k_i.

    Where all parts have a logarithm it is the exponential of their sum, so that only a product out of range overflows.
    Source: Aronszajn 1950, "Theory of Reproducing Kernels": the product of positive definite kernels is one.

    >>> from randfeat.kernels import GaussianKernel, SoftmaxKernel
    >>> x = np.array([[30.0, 0.0]])
    >>> (GaussianKernel() * SoftmaxKernel())(x, x - 40)
    array([[0.]])
    """

    def _combine(self, values: Any) -> Any:
        return functools.reduce(operator.mul, values)

    def _combine_logs(self, logs: Any) -> Any:
        return functools.reduce(operator.add, logs)

    def _gram(self, x: Array, y: Array) -> Array:
        return namespace(x).exp(self._log_gram(x, y)) if self.has_logarithm else super()._gram(x, y)

    def _gram_over(self, x: Array, y: Array, scales: Any) -> Array:
        if not self.has_logarithm:
            return super()._gram_over(x, y, scales)
        return namespace(x).exp(self._log_gram_over(x, y, scales))

    def _pairwise(self, x: Array, y: Array) -> Array:
        return namespace(x).exp(self._log_pairwise(x, y)) if self.has_logarithm else super()._pairwise(x, y)

    def relative(self, x: Any, y: Any) -> np.ndarray:
        """`Π_i relative_i`."""
        return self._combine(part.relative(x, y) for part in self.parts)


@dataclass(frozen=True)
class ScaledKernel(Kernel):
    """A positive multiple of a kernel, `k(x, y) = factor · base(x, y)`; written `factor * base`.

    base : the kernel. factor : positive; for a kernel of values 1 at x = y, a variance or a weight in a mixture.

    Source: Aronszajn 1950, "Theory of Reproducing Kernels": a positive multiple of a positive definite kernel is one.

    >>> from randfeat.kernels import GaussianKernel
    >>> (0.25 * GaussianKernel())(np.eye(2), np.eye(2))
    array([[0.25      , 0.09196986],
           [0.09196986, 0.25      ]])
    """

    base: Kernel
    factor: float

    def __post_init__(self) -> None:
        check_kernel(self.base)
        object.__setattr__(self, "factor", check_positive("factor", self.factor))

    @property
    def has_logarithm(self) -> bool:
        return self.base.has_logarithm

    @property
    def shift_invariant(self) -> bool:
        return self.base.shift_invariant

    @property
    def takes_negative(self) -> bool:
        return self.base.takes_negative

    def _gram(self, x: Array, y: Array) -> Array:
        return self.factor * self.base._gram(x, y)

    def _gram_over(self, x: Array, y: Array, scales: Any) -> Array:
        return self.factor * self.base._gram_over(x, y, scales)

    def _log_gram_over(self, x: Array, y: Array, scales: Any) -> Array:
        return self.base._log_gram_over(x, y, scales) + math.log(self.factor)

    def _pairwise(self, x: Array, y: Array) -> Array:
        return self.factor * self.base._pairwise(x, y)

    def _log_gram(self, x: Array, y: Array) -> Array:
        return self.base._log_gram(x, y) + math.log(self.factor)

    def _log_pairwise(self, x: Array, y: Array) -> Array:
        return self.base._log_pairwise(x, y) + math.log(self.factor)

    def log_reference(self, x: Any, y: Any) -> np.ndarray:
        return self.base.log_reference(x, y) + math.log(self.factor)

    def relative(self, x: Any, y: Any) -> np.ndarray:
        return self.base.relative(x, y)


@dataclass(frozen=True)
class ArdKernel(Kernel):
    """A kernel with one length-scale per input dimension, `k(x, y) = base(x/ℓ, y/ℓ)` [automatic relevance].

    base : the kernel. length_scales : ℓ_1 .. ℓ_d, positive, in the units of the inputs; None (or infinity) leaves a
        dimension out, so sums of such kernels make additive models.

    Error: that of the base, with d + 2 in place of d for kernels of x - y: differences are divided, not the inputs.
    Source: MacKay 1994, "Bayesian nonlinear modeling for the prediction competition"; Neal 1996, "Bayesian Learning for
    Neural Networks".

    >>> from randfeat.kernels import GaussianKernel
    >>> first, second = (ArdKernel(GaussianKernel(), scales) for scales in ((2.0, None), (None, 0.5)))
    >>> x, y = np.array([0.0, 0.0]), np.array([2.0, 1.0])
    >>> bool((first * second).pairwise(x, y) == ArdKernel(GaussianKernel(), (2.0, 0.5)).pairwise(x, y))
    True
    """

    base: Kernel
    length_scales: tuple[float | None, ...]

    def __post_init__(self) -> None:
        check_kernel(self.base)
        if not isinstance(self.length_scales, tuple | list | np.ndarray) or len(self.length_scales) == 0:
            raise TypeError(
                f"length_scales must be one positive number per dimension, got {short(self.length_scales)}."
            )
        scales = (None if ell is None or ell == math.inf else check_positive("each length_scale", ell)
                  for ell in self.length_scales)  # fmt: skip
        object.__setattr__(self, "length_scales", tuple(scales))

    @property
    def has_logarithm(self) -> bool:
        return self.base.has_logarithm

    @property
    def shift_invariant(self) -> bool:
        return self.base.shift_invariant

    @property
    def takes_negative(self) -> bool:
        return self.base.takes_negative

    def divide(self, x: Array) -> Array:
        """`x/ℓ`, for x (..., d)."""
        return x / self._scales(x)

    def _scales(self, x: Array) -> Array:
        """ℓ (d,) in the library, dtype and place of x."""
        self.check_dim(x.shape[-1])
        scales = [math.inf if ell is None else ell for ell in self.length_scales]
        return namespace(x).asarray(scales, dtype=x.dtype, device=device_of(x))

    def check_dim(self, dim: int) -> None:
        """A ValueError unless there is a length-scale for each of `dim` dimensions."""
        if dim != len(self.length_scales):
            raise ValueError(f"the inputs have dimension {dim}, but there are {len(self.length_scales)} length_scales.")

    def _gram(self, x: Array, y: Array) -> Array:
        return self.base._gram_over(x, y, self._scales(x))

    def _gram_over(self, x: Array, y: Array, scales: Any) -> Array:
        return self.base._gram_over(x, y, self._scales(x) * scales)

    def _pairwise(self, x: Array, y: Array) -> Array:
        return self.base._pairwise(*self._divided_pair(x, y))

    def _log_gram(self, x: Array, y: Array) -> Array:
        return self.base._log_gram_over(x, y, self._scales(x))

    def _log_gram_over(self, x: Array, y: Array, scales: Any) -> Array:
        return self.base._log_gram_over(x, y, self._scales(x) * scales)

    def _log_pairwise(self, x: Array, y: Array) -> Array:
        return self.base._log_pairwise(*self._divided_pair(x, y))

    def _divided_pair(self, x: Array, y: Array) -> tuple[Array, Array]:
        """x/ℓ and y/ℓ; for kernels of x - y the difference, over ℓ, and 0, so that an offset costs no digit."""
        if not self.shift_invariant:
            return self.divide(x), self.divide(y)
        difference = self.divide(x - y)
        return difference, namespace(x).zeros_like(difference)

    def log_reference(self, x: Any, y: Any) -> np.ndarray:
        return self.base.log_reference(self.divide(as_host(x, "x")), self.divide(as_host(y, "y")))

    def relative(self, x: Any, y: Any) -> np.ndarray:
        return self.base.relative(self.divide(as_host(x, "x")), self.divide(as_host(y, "y")))


def check_parts(parts: Any, kind: type) -> tuple[Any, ...]:
    """A tuple of one or more objects of one kind."""
    if not isinstance(parts, tuple | list) or len(parts) == 0:
        raise TypeError(f"parts must be a tuple of {kind.__name__}s, got {short(parts)}.")
    for part in parts:
        if not isinstance(part, kind):
            raise TypeError(f"each part must be of type {kind.__name__}, got {short(part)}.")
    return tuple(parts)


def check_kernel(base: Any) -> None:
    """A TypeError unless `base` is a kernel."""
    if not isinstance(base, Kernel):
        raise TypeError(f"base must be a Kernel, got {short(base)}.")


OPERATIONS |= {"sum": SumKernel.of, "product": ProductKernel.of, "multiple": ScaledKernel}
