"""The functions f of f-kernels, each with what is known in closed form about `E[f(w·x) f(w·y)]`."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from randfeat._array import Array, cast, namespace
from randfeat.kernels.arc_cosine import angular, arc_cosine
from randfeat.kernels.projected_pair import ProjectedPair, safe_sqrt
from randfeat.special import erf, erfcx, log_normal_cdf, normal_cdf

PairFunction = Callable[[ProjectedPair], Any]


@dataclass(frozen=True)
class Activation:
    """A function f of one projection, and its moments under Gaussian rows.

    value : f(a), in array API operations.
    mean : E f(a) from the variance of a.
    kernel : E[f(a) f(b)] of a pair; by quadrature where there is no closed form.
    square : E[f(a)² f(b)²]; None for quadrature.
    log : log f, for functions that are positive everywhere.
    exponentials : f as `Σ coefficient · exp(exponent · a)`, {exponent: coefficient}, where it is one.
    symmetry : "even", "odd", "one-sided" (0 for a <= 0), or None.
    degree : k of functions homogeneous of degree k, `f(sa) = s^k f(a)` for s > 0.
    """

    value: Callable[[Array], Array]
    mean: Callable[[Array], Any]
    kernel: PairFunction | None = None
    square: PairFunction | None = None
    log: Callable[[Array], Array] | None = None
    exponentials: dict[complex, complex] = field(default_factory=dict)
    symmetry: Literal["even", "odd", "one-sided"] | None = None
    degree: int | None = None
    nonnegative: bool = False
    bounded: bool = False

    def expected_product(self, pair: ProjectedPair) -> Array:
        """`E[f(a) f(b)]`."""
        return pair.mean(self.value, self.value) if self.kernel is None else self.kernel(pair)


def relu(a: Array) -> Array:
    """`max(a, 0)`; NaN stays."""
    xp = namespace(a)
    return xp.where(a < 0, xp.zeros_like(a), a)


def step(a: Array) -> Array:
    """1 for a > 0, else 0; NaN stays."""
    xp = namespace(a)
    return xp.where(xp.isnan(a), a, cast(a > 0, a.dtype))


def sigmoid(a: Array) -> Array:
    """`1/(1 + e^{-a})`."""
    return (1 + namespace(a).tanh(a / 2)) / 2


def log_sigmoid(a: Array) -> Array:
    """`-log(1 + e^{-a})`, from an exponential that cannot overflow."""
    xp = namespace(a)
    return a - relu(a) - xp.log1p(xp.exp(-xp.abs(a)))


def elu_plus_one(a: Array) -> Array:
    """`1 + a` for a > 0, else `e^a`."""
    return relu(a) + namespace(a).exp(a - relu(a))


def log_elu_plus_one(a: Array) -> Array:
    """`log(1 + a)` for a > 0, else a."""
    return a - relu(a) + namespace(a).log1p(relu(a))


def half_damped(pair: ProjectedPair, sign: int) -> Array:
    """`½ exp(sign · x·y - (|x|² + |y|²)/2)`."""
    exponent = sign * pair.covariance - (pair.variance_x + pair.variance_y) / 2
    return pair.xp.exp(exponent) / 2


def hyperbolic_sine(pair: ProjectedPair) -> Array:
    """`e^{-(|x|² + |y|²)/2} sinh(x·y)`, without cancellation for small products and overflow for large ones."""
    xp, size = pair.xp, pair.xp.abs(pair.covariance)
    damped = xp.exp(size - (pair.variance_x + pair.variance_y) / 2) / 2
    return -xp.sign(pair.covariance) * damped * xp.expm1(-2 * size)


def homogeneous(order: int, factor: float = 1.0) -> PairFunction:
    """An arc-cosine kernel times a factor."""
    return lambda pair: factor * (pair.norm_x * pair.norm_y) ** order * arc_cosine(order, pair)


def absolute(pair: ProjectedPair) -> Array:
    """`E|a||b| = k_1(θ) + k_1(π - θ)`: a product is positive in two opposite sectors, negative in the others."""
    theta, supplement = pair.smooth_angles
    sine = pair.xp.sin(pair.xp.minimum(theta, supplement))
    return pair.norm_x * pair.norm_y * (2 * sine + (supplement - theta) * pair.xp.cos(theta)) / math.pi


def squares(pair: ProjectedPair) -> Array:
    """`E[a² b²]`."""
    return pair.variance_x * pair.variance_y + 2 * pair.covariance**2


def fourth_powers(pair: ProjectedPair) -> Array:
    """`E[a⁴ b⁴]`."""
    product, square = pair.variance_x * pair.variance_y, pair.covariance**2
    return 9 * product**2 + 72 * product * square + 24 * square**2


def arcsine(pair: ProjectedPair, factor: float) -> Array:
    """`asin(f r / √((1 + fP)(1 + fQ)))`, f the factor, as an arctangent that is accurate at ±1."""
    rest = 1 + factor * (pair.variance_x + pair.variance_y) + factor**2 * pair.determinant
    return pair.xp.atan2(factor * pair.covariance, pair.xp.sqrt(rest))


def gelu_kernel(pair: ProjectedPair) -> Array:
    """`r (¼ + asin(ρ)/2π) + (PQ √Δ + r²/√Δ) / (2π(1+P)(1+Q))`, ρ = r/√((1+P)(1+Q)), Δ = (1+P)(1+Q) - r²."""
    p, q, r = pair.variance_x, pair.variance_y, pair.covariance
    root = pair.xp.sqrt(1 + p + q + pair.determinant)
    density = (p * q * root + r * r / root) / (2 * math.pi * (1 + p) * (1 + q))
    return r * (1 / 4 + arcsine(pair, 1.0) / (2 * math.pi)) + density


def zero(variance: Array) -> Array:
    """The mean of an odd function."""
    return namespace(variance).zeros_like(variance)


def half(variance: Array) -> Array:
    """The mean of `½ + odd`."""
    return namespace(variance).full_like(variance, 0.5)


def elu_mean(variance: Array) -> Array:
    """`½ + √(P/2π) + e^{P/2} Φ(-√P)`."""
    root = safe_sqrt(variance / 2)
    return 1 / 2 + root / math.sqrt(math.pi) + erfcx(root) / 2


ACTIVATIONS: dict[str, Activation] = {
    "abs": Activation(
        value=lambda a: namespace(a).abs(a),
        mean=lambda p: safe_sqrt(2 * p / math.pi),
        kernel=absolute, square=squares, symmetry="even", degree=1, nonnegative=True,
    ),
    "cos": Activation(
        value=lambda a: namespace(a).cos(a),
        mean=lambda p: namespace(p).exp(-p / 2),
        kernel=lambda pair: half_damped(pair, 1) + half_damped(pair, -1),
        exponentials={1j: 0.5, -1j: 0.5}, symmetry="even", bounded=True,
    ),
    "elu_plus_one": Activation(value=elu_plus_one, mean=elu_mean, log=log_elu_plus_one, nonnegative=True),
    "erf": Activation(
        value=erf, mean=zero,
        kernel=lambda pair: 2 / math.pi * arcsine(pair, 2.0), symmetry="odd", bounded=True,
    ),
    "exp": Activation(
        value=lambda a: namespace(a).exp(a),
        mean=lambda p: namespace(p).exp(p / 2),
        kernel=lambda pair: pair.xp.exp((pair.variance_x + pair.variance_y) / 2 + pair.covariance),
        log=lambda a: a, exponentials={1: 1.0}, nonnegative=True,
    ),
    "gelu": Activation(
        value=lambda a: a * normal_cdf(a),
        mean=lambda p: p / namespace(p).sqrt(2 * math.pi * (1 + p)),
        kernel=gelu_kernel,
    ),
    "identity": Activation(
        value=lambda a: a, mean=zero,
        kernel=lambda pair: pair.covariance, square=squares, symmetry="odd", degree=1,
    ),
    "normal_cdf": Activation(
        value=normal_cdf, mean=half, log=log_normal_cdf,
        kernel=lambda pair: 1 / 4 + arcsine(pair, 1.0) / (2 * math.pi), nonnegative=True, bounded=True,
    ),
    "relu": Activation(
        value=relu,
        mean=lambda p: safe_sqrt(p / (2 * math.pi)),
        kernel=homogeneous(1, 0.5), square=homogeneous(2, 0.5), symmetry="one-sided", degree=1, nonnegative=True,
    ),
    "relu2": Activation(
        value=lambda a: relu(a) ** 2,
        mean=lambda p: p / 2,
        kernel=homogeneous(2, 0.5), square=homogeneous(4, 0.5), symmetry="one-sided", degree=2, nonnegative=True,
    ),
    "sigmoid": Activation(value=sigmoid, mean=half, log=log_sigmoid, nonnegative=True, bounded=True),
    "sign": Activation(
        value=lambda a: namespace(a).sign(a), mean=zero,
        kernel=angular, square=lambda pair: pair.nonzero, symmetry="odd", degree=0, bounded=True,
    ),
    "sin": Activation(
        value=lambda a: namespace(a).sin(a), mean=zero,
        kernel=hyperbolic_sine, exponentials={1j: -0.5j, -1j: 0.5j}, symmetry="odd", bounded=True,
    ),
    "square": Activation(
        value=lambda a: a * a,
        mean=lambda p: p,
        kernel=squares, square=fourth_powers, symmetry="even", degree=2, nonnegative=True,
    ),
    "step": Activation(
        value=step,
        mean=lambda p: cast(p > 0, p.dtype) / 2,
        kernel=homogeneous(0, 0.5), square=homogeneous(0, 0.5),
        symmetry="one-sided", degree=0, nonnegative=True, bounded=True,
    ),
    "tanh": Activation(
        value=lambda a: namespace(a).tanh(a), mean=zero, symmetry="odd", bounded=True
    ),
}  # fmt: skip
"""What `ActivationKernel` and `ActivationFeatures` know, by name."""
