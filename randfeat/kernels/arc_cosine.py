"""Arc-cosine kernels, and the angular kernel."""

import math
import operator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from randfeat._array import Array, as_host, namespace
from randfeat._hints import short
from randfeat.kernels.base import Kernel
from randfeat.kernels.projected_pair import ProjectedPair
from randfeat.special import horner


@dataclass(frozen=True)
class ArcCosineKernel(Kernel):
    """Arc-cosine kernel `k_n(x, y) = 2 E[Θ(w·x) Θ(w·y) (w·x)^n (w·y)^n] = |x|^n |y|^n J_n(θ)/π`, w ~ N(0, I).

    order : n = 0, 1, 2, ...; θ is the angle between x and y, Θ the step function (0 at 0).

    `J_0 = π - θ`, `J_1 = sin θ + (π - θ) cos θ`, `J_2 = 3 sin θ cos θ + (π - θ)(1 + 2 cos²θ)`. Order 1 is twice the
    ReLU kernel. Never negative; 0 at opposite inputs, and by definition at zero vectors.
    Accurate to a few eps of the value at parallel inputs of the same lengths; the angle of order 0 is computed from
    differences, without the loss of half the digits that `acos` suffers near 0 and π.
    Source: Cho & Saul 2009, "Kernel Methods for Deep Learning".

    >>> ArcCosineKernel(order=1).pairwise(np.array([2.0, 0.0]), np.array([0.0, 3.0])) * math.pi
    np.float64(6.0)
    """

    order: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", check_order(self.order))

    def _gram(self, x: Array, y: Array) -> Array:
        return self._value(ProjectedPair(x, y, gram=True))

    def _pairwise(self, x: Array, y: Array) -> Array:
        return self._value(ProjectedPair(x, y, gram=False))

    def _value(self, pair: ProjectedPair) -> Array:
        return (pair.norm_x * pair.norm_y) ** self.order * arc_cosine(self.order, pair)

    def log_reference(self, x: Any, y: Any) -> np.ndarray:
        """`½ log(k(x, x) k(y, y)) = n (log|x| + log|y|) + log (2n-1)!!`, with 0 for the logarithm of a zero vector."""
        return self.order * log_norms(x, y) + math.log(parallel_value(self.order))

    def relative(self, x: Any, y: Any) -> np.ndarray:
        """`J_n(θ)/J_n(0)`."""
        pair = ProjectedPair(as_host(x, "x"), as_host(y, "y"), gram=False)
        return np.asarray(arc_cosine(self.order, pair)) / parallel_value(self.order)


@dataclass(frozen=True)
class AngularKernel(Kernel):
    """Angular kernel `k(x, y) = E[sgn(w·x) sgn(w·y)] = 1 - 2θ/π`, θ the angle between x and y, w ~ N(0, I).

    From -1 at opposite to 1 at parallel inputs, whatever their lengths; 0 by definition at zero vectors. The angle is
    computed from differences and keeps all its digits near 0 and π.
    Source: Goemans & Williamson 1995, "Improved approximation algorithms for maximum cut and satisfiability problems
    using semidefinite programming"; Charikar 2002, "Similarity estimation techniques from rounding algorithms".

    >>> AngularKernel().pairwise(np.array([1.0, 0.0]), np.array([3.0, 3.0]))
    np.float64(0.5)
    """

    def _gram(self, x: Array, y: Array) -> Array:
        return angular(ProjectedPair(x, y, gram=True))

    def _pairwise(self, x: Array, y: Array) -> Array:
        return angular(ProjectedPair(x, y, gram=False))


def arc_cosine(order: int, pair: ProjectedPair) -> Array:
    """`J_n(θ)/π`: the kernel of unit vectors; 0 at zero vectors."""
    theta, supplement = pair.smooth_angles if order else pair.angles
    return angular_part(order, theta, supplement) * pair.nonzero / math.pi


def angular(pair: ProjectedPair) -> Array:
    """`1 - 2θ/π`; 0 at zero vectors."""
    theta, supplement = pair.angles
    return (supplement - theta) / math.pi * pair.nonzero


def angular_part(order: int, theta: Array, supplement: Array) -> Array:
    """`J_n(θ) = sin θ A_n(cos θ) + (π - θ) B_n(cos θ)`, never negative."""
    xp = namespace(theta)
    sine, cosine = xp.sin(xp.minimum(theta, supplement)), xp.cos(theta)
    sine_part, angle_part = (horner(coefficients, cosine) for coefficients in angular_polynomials(order))
    total = sine * sine_part + supplement * angle_part
    return xp.where(total < 0, xp.zeros_like(total), total)


@cache
def angular_polynomials(order: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Coefficients of the polynomials A_n and B_n in `J_n(θ) = sin θ A_n(cos θ) + (π - θ) B_n(cos θ)`.

    `J_n = (-1)^n (sin θ)^{2n+1} (d/sin θ dθ)^n ((π - θ)/sin θ)` obeys `J_{n+1} = (2n+1) cos θ J_n - sin θ J_n'`, so

        A_{n+1} = 2n c A_n + (1 - c²) A_n' + B_n,   B_{n+1} = (2n+1) c B_n + (1 - c²) B_n',   A_0 = 0, B_0 = 1.
    """
    if order == 0:
        return (0.0,), (1.0,)
    n = order - 1
    a, b = (np.polynomial.Polynomial(part) for part in angular_polynomials(n))
    c, sine_squared = np.polynomial.Polynomial([0, 1]), np.polynomial.Polynomial([1, 0, -1])
    next_a = 2 * n * c * a + sine_squared * a.deriv() + b
    next_b = (2 * n + 1) * c * b + sine_squared * b.deriv()
    return tuple(map(float, next_a.coef)), tuple(map(float, next_b.coef))


def log_norms(x: Any, y: Any) -> np.ndarray:
    """`log|x| + log|y|` in float64, with 0 for the logarithm of a zero vector."""
    pair = ProjectedPair(as_host(x, "x"), as_host(y, "y"), gram=False)
    norms = (np.where(norm == 0, 1.0, norm) for norm in (pair.norm_x, pair.norm_y))
    return np.asarray(sum(np.log(norm) for norm in norms))


def parallel_value(order: int) -> int:
    """`J_n(0)/π = (2n-1)!!`, the kernel of a unit vector with itself."""
    return math.prod(range(1, 2 * order, 2))


def check_order(order: Any) -> int:
    """`order` as a non-negative integer; TypeError or ValueError for anything else."""
    try:
        value = operator.index(order)
    except TypeError:
        raise TypeError(f"order must be an integer, 0, 1, 2, ..., got {short(order)}.") from None
    if isinstance(order, bool) or value < 0:
        raise ValueError(f"order must be an integer, 0, 1, 2, ..., got {short(order)}.")
    return value
