"""Dot-product kernels, given by their power series."""

import math
import numbers
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from randfeat._array import Array, as_host, namespace
from randfeat._hints import short
from randfeat.kernels.base import Kernel
from randfeat.kernels.norms import split_norm


@dataclass(frozen=True)
class DotProductKernel(Kernel):
    """Dot-product kernel `k(x, y) = f(x·y)`, `f(t) = Σ_n a_n t^n` with finitely many `a_n >= 0`.

    coefficients : (a_0, a_1, ..), non-negative, not all zero. `exponential` gives the series of the softmax kernel.

    Nonnegative coefficients are no restriction: a function of the inner product is positive definite in every dimension
    if and only if it is a power series with nonnegative coefficients. Estimators of this kernel divide their means by
    `f(|x||y|)`, which is at least |k(x, y)|. Where `f(|x||y|)` is 0, they divide by 1.
    Source: Schoenberg 1942, "Positive Definite Functions on Spheres".

    >>> import numpy as np
    >>> DotProductKernel((1.0, 0.0, 0.5)).pairwise(np.array([1.0, 2.0]), np.array([0.0, 1.0]))
    np.float64(3.0)
    """

    coefficients: tuple[float, ...] = (1.0, 1.0, 0.5)

    def __post_init__(self) -> None:
        given: tuple[Any, ...] = tuple(self.coefficients)
        for n, value in enumerate(given):
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise TypeError(f"coefficients must be numbers, got {short(value)} for degree {n}.")
            if not 0 <= float(value) < math.inf:
                raise ValueError(
                    f"coefficients must be finite and not negative (else this is no kernel in every dimension), got "
                    f"{value!r} for degree {n}."
                )
        if not any(given):
            raise ValueError(f"coefficients must have a positive one, got {short(given)}.")
        object.__setattr__(self, "coefficients", tuple(map(float, given)))

    @classmethod
    def exponential(cls, num_terms: int) -> Self:
        """The first `num_terms` terms of the exponential series, `a_n = 1/n!`."""
        return cls(tuple(1 / math.factorial(n) for n in range(num_terms)))

    def _series(self, t: Array) -> Array:
        """f, by Horner's rule."""
        total = namespace(t).zeros_like(t)
        for coefficient in reversed(self.coefficients):
            total = total * t + coefficient
        return total

    def _gram(self, x: Array, y: Array) -> Array:
        return self._series(x @ namespace(x).matrix_transpose(y))

    def _pairwise(self, x: Array, y: Array) -> Array:
        return self._series(namespace(x).sum(x * y, axis=-1))

    def log_reference(self, x: Any, y: Any) -> np.ndarray:
        """`log f(|x||y|)`; 0 where f vanishes there."""
        log = self.log_series(np.linalg.norm(as_host(x, "x"), axis=-1) * np.linalg.norm(as_host(y, "y"), axis=-1))
        return np.where(log == -np.inf, 0.0, log)

    def relative(self, x: Any, y: Any) -> np.ndarray:
        """`Σ_n a_n |x|^n |y|^n cos^n / f(|x||y|)`."""
        x, y = as_host(x, "x"), as_host(y, "y")
        terms = self.log_terms(np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))
        cosine = np.sum(split_norm(x)[0] * split_norm(y)[0], axis=-1)[..., None]
        weights = np.exp(terms - self.log_reference(x, y)[..., None])
        return np.sum(weights * cosine ** np.arange(len(self.coefficients)), axis=-1)

    def log_terms(self, t: Any) -> np.ndarray:
        """`log a_n t^n` for t >= 0, on a new last axis; -inf for what vanishes."""
        from scipy.special import xlogy

        degrees = np.arange(len(self.coefficients))
        with np.errstate(divide="ignore"):
            return np.log(self.coefficients) + xlogy(degrees, np.asarray(t)[..., None])

    def log_series(self, t: Any) -> np.ndarray:
        """`log f(t)` for t >= 0."""
        return np.logaddexp.reduce(self.log_terms(t), axis=-1)
