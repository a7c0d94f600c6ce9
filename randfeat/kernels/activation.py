"""The f-kernel of an activation function."""

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import Array, as_host
from randfeat._hints import short
from randfeat.kernels.activations import ACTIVATIONS, Activation
from randfeat.kernels.arc_cosine import log_norms
from randfeat.kernels.base import Kernel
from randfeat.kernels.projected_pair import ProjectedPair


@dataclass(frozen=True)
class ActivationKernel(Kernel):
    """f-kernel `k(x, y) = E[(f(w·x) + offset)(f(w·y) + offset)]`, w ~ N(0, I): generalized attention.

    activation : the name of f: "abs", "cos", "elu_plus_one", "erf", "exp", "gelu" (`a Φ(a)`), "identity",
        "normal_cdf" (Φ), "relu", "relu2" (its square), "sigmoid", "sign", "sin", "square", "step", "tanh". Step and
        sign are 0 at 0.
    offset : added to every feature of both sides, >= 0; the Performer adds 0.001 to ReLU.

    With K_f the kernel without offset, `k = K_f + offset (E f(w·x) + E f(w·y)) + offset²`. Closed forms, to rounding,
    but for "sigmoid", "tanh" and "elu_plus_one": quadrature with 6144 nodes for a pair, whose error over
    √(k(x, x) k(y, y)) is below 1e-11 for norms up to 3, 1e-8 at 8, 1e-5 at 60, and 1e-9 there for "elu_plus_one".
    Zero vectors have the projection 0: their value is `f(0) E f(w·y)`, which is 0 for every homogeneous f.
    Source: Choromanski et al. 2021, "Rethinking Attention with Performers" (generalized attention); Cho & Saul 2009
    (ReLU and its powers); Williams 1998, "Computation with infinite neural networks" (erf).

    >>> x, y = np.array([1.0, 0.0]), np.array([0.6, 0.8])
    >>> ActivationKernel("relu").pairwise(x, y), ActivationKernel("erf").pairwise(x, y)
    (np.float64(0.3387737...), np.float64(0.2619797...))
    """

    activation: str = "relu"
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.activation, str) or self.activation not in ACTIVATIONS:
            names = ", ".join(map(repr, ACTIVATIONS))
            raise ValueError(f"unknown activation {short(self.activation)}; expected one of {names}.")
        object.__setattr__(self, "offset", check_offset(self.offset))

    @property
    def function(self) -> Activation:
        """f, with what is known about it."""
        return ACTIVATIONS[self.activation]

    def _gram(self, x: Array, y: Array) -> Array:
        return self._value(ProjectedPair(x, y, gram=True))

    def _pairwise(self, x: Array, y: Array) -> Array:
        return self._value(ProjectedPair(x, y, gram=False))

    def _value(self, pair: ProjectedPair) -> Array:
        product = self.function.expected_product(pair)
        if self.offset == 0:
            return product
        means = self.function.mean(pair.variance_x) + self.function.mean(pair.variance_y)
        return product + self.offset * means + self.offset**2

    def log_reference(self, x: Any, y: Any) -> np.ndarray:
        """`½ log(k(x, x) k(y, y))`, where a product of 0 counts as 1; for exp `|x + y|²/2`."""
        x, y = as_host(x, "x"), as_host(y, "y")
        if self.activation == "exp":
            return np.sum((x + y) ** 2, axis=-1) / 2
        if self.function.degree is not None and self.offset == 0:
            return self.function.degree * log_norms(x, y) + math.log(self.pairwise(np.ones(1), np.ones(1)))
        own = (np.asarray(self.pairwise(side, side)) for side in (x, y))
        return np.asarray(sum(np.log(np.where(value == 0, 1.0, value)) for value in own)) / 2

    def relative(self, x: Any, y: Any) -> np.ndarray:
        if self.activation != "exp":
            return super().relative(x, y)
        x, y = as_host(x, "x"), as_host(y, "y")
        terms = shifted(self.function.exponentials, self.offset)
        return exponential_mean(terms, ProjectedPair(x, y, gram=False), self.log_reference(x, y))


def check_offset(offset: Any) -> float:
    """A finite number, at least 0."""
    if isinstance(offset, bool) or not isinstance(offset, numbers.Real):
        raise TypeError(f"offset must be a number, at least 0, got {short(offset)}.")
    if not 0 <= float(offset) < math.inf:
        raise ValueError(f"offset must be finite and at least 0, got {short(offset)}.")
    return float(offset)


def shifted(terms: dict[complex, complex], offset: float) -> dict[complex, complex]:
    """A sum of exponentials, `{exponent: coefficient}`, plus a constant."""
    return {**terms, 0: offset} if offset else terms


def exponential_mean(terms: dict[complex, complex], pair: ProjectedPair, log_reference: np.ndarray) -> np.ndarray:
    """`E[h(a) h(b)] e^{-log_reference}` for `h(a) = Σ coefficient · exp(exponent · a)`."""
    total: Any = 0.0
    for left, first in terms.items():
        for right, second in terms.items():
            exponent = (left**2 * pair.variance_x + right**2 * pair.variance_y) / 2 + left * right * pair.covariance
            total = total + (first * second * np.exp(exponent - log_reference)).real
    return np.asarray(total)
