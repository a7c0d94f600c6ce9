"""Mixers: the random weights of hybrid features."""

import abc
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from randfeat._array import Array, Arrays, Drawn, as_count, namespace
from randfeat.estimators.parametric import Parametric, frozen_array
from randfeat.kernels.base import check_positive
from randfeat.kernels.projected_pair import ProjectedPair


@dataclass(frozen=True, eq=False, repr=False)
class Mixer(Parametric, abc.ABC):
    """A random weight `λ̂(x, y) = a + ρ(x)·ρ'(y)` of hybrid features, independent of everything that it weighs.

    A hybrid is unbiased whatever λ̂ estimates. Its error is small where λ̂ is small in mean square for the bases that
    are bad at (x, y).
    """

    constant: ClassVar[float] = 0.0
    """a."""

    def __repr__(self) -> str:
        return f"estimators.{super().__repr__()}"  # its public name: mixers are not in the package itself

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """The length of ρ."""

    @abc.abstractmethod
    def draw_arrays(self, dim: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        """Everything random, on the host in float64: arrays (*batch_shape, ·, ·) by name."""

    @abc.abstractmethod
    def query_coordinates(self, arrays: Arrays, x: Array) -> Array:
        """ρ(x): (..., n, d) -> (..., n, size), in kernel units; pure array API."""

    @abc.abstractmethod
    def key_coordinates(self, arrays: Arrays, y: Array) -> Array:
        """ρ'(y): (..., n, d) -> (..., n, size), in kernel units; pure array API."""

    @abc.abstractmethod
    def mean(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`E λ̂`, broadcasting over (..., d), inputs in kernel units."""

    @abc.abstractmethod
    def variance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`Var λ̂`."""


@dataclass(frozen=True, eq=False, repr=False)
class AngularMixer(Mixer):
    """The angle between x and y over π, from n signs: `λ̂ = ½ - (1/2n) Σ_i sgn(τ_i·x) sgn(τ_i·y)`, τ_i ~ N(0, I).

    num_signs : n.

    `E λ̂ = θ/π`, and `Var λ̂ = p(1-p)/n`, p = θ/π: zero for parallel and for opposite vectors. A zero vector has no
    angle: there λ̂ = ½.
    Source: Choromanski et al. 2022, "Hybrid Random Features"; Goemans & Williamson 1995 (the mean of the signs).

    >>> float(AngularMixer(num_signs=4).mean(np.array([1.0, 0.0]), np.array([0.0, 2.0])))
    0.5
    """

    num_signs: int = 8

    constant: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_signs", as_count(self.num_signs, "num_signs"))

    @property
    def size(self) -> int:
        return self.num_signs

    def draw_arrays(self, dim: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        return {"directions": rng.standard_normal((*batch_shape, self.num_signs, dim))}

    def query_coordinates(self, arrays: Arrays, x: Array) -> Array:
        """`sgn(τ·x) / √(2n)`."""
        xp = namespace(x)
        return xp.sign(x @ xp.matrix_transpose(arrays["directions"])) / (2 * self.num_signs) ** 0.5

    def key_coordinates(self, arrays: Arrays, y: Array) -> Array:
        """`-sgn(τ·y) / √(2n)`."""
        return -self.query_coordinates(arrays, y)

    def mean(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`θ/π`; ½ at zero vectors."""
        return self._angle(x, y)[0]

    def variance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`p(1-p)/n`; 0 at zero vectors."""
        p, defined = self._angle(x, y)
        return np.where(defined, p * (1 - p) / self.num_signs, 0.0 * p)

    @staticmethod
    def _angle(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """θ/π, ½ where there is none; and whether both vectors have a direction."""
        pair = ProjectedPair(x, y, gram=False)
        return pair.angles[0] / np.pi, pair.nonzero != 0


@dataclass(frozen=True, eq=False, repr=False)
class GaussianMixer(Mixer):
    """A Gaussian of x and y, from n random frequencies: `λ̂ = (1/n) Σ_i cos(ν_i·(x + My - c)/τ)`, ν_i ~ N(0, I).

    num_frequencies : n, two coordinates each. width : τ. matrix : M, a number (a multiple of the identity) or
        (..., d, d). anchor : c (..., d): where the weight is 1.

    `E λ̂ = λ = exp(-|x + My - c|²/2τ²)` and `Var λ̂ = (1 - λ²)²/2n`: zero, and the weight one, at x + My = c. Anchor and
    matrix may have leading dimensions, one for each head.
    Source: Choromanski et al. 2022, "Hybrid Random Features" (Gaussian lambda coefficients).

    >>> GaussianMixer(anchor=[1.0, 1.0]).mean(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    np.float64(1.0)
    """

    num_frequencies: int = 8
    width: float = 1.0
    matrix: float | np.ndarray = 1.0
    anchor: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_frequencies", as_count(self.num_frequencies, "num_frequencies"))
        object.__setattr__(self, "width", check_positive("width", self.width))
        matrix = frozen_array(self.matrix, "matrix")
        if matrix.ndim == 1 or (matrix.ndim and matrix.shape[-1] != matrix.shape[-2]):
            raise ValueError(f"matrix must be a number or (..., d, d), got shape {matrix.shape}.")
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "anchor", frozen_array(np.atleast_1d(self.anchor), "anchor"))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(np.shape(self.matrix)[:-2], np.shape(self.anchor)[:-1])

    @property
    def size(self) -> int:
        return 2 * self.num_frequencies

    def draw_arrays(self, dim: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        """The arrays frequencies = ν/τ for queries, key_frequencies = (ν/τ) M for keys, and phases = ν·c/τ."""
        for name, array in (("matrix", self.matrix), ("anchor", self.anchor)):
            if np.ndim(array) and np.shape(array)[-1] not in (1, dim):
                raise ValueError(
                    f"the {name} has dimension {np.shape(array)[-1]}; draw with dim={np.shape(array)[-1]}."
                )
        frequencies = rng.standard_normal((*batch_shape, self.num_frequencies, dim)) / self.width
        matrix = np.asarray(self.matrix)
        return {
            "frequencies": frequencies,
            "key_frequencies": frequencies @ matrix if matrix.ndim else frequencies * matrix,
            "phases": np.sum(frequencies * self.anchor[..., None, :], axis=-1)[..., None, :],
        }

    def query_coordinates(self, arrays: Arrays, x: Array) -> Array:
        """`[cos, sin](ν·(x - c)/τ) / √n`."""
        return self._coordinates(x, arrays["frequencies"], arrays["phases"], sign=1)

    def key_coordinates(self, arrays: Arrays, y: Array) -> Array:
        """`[cos, -sin](ν·My/τ) / √n`."""
        return self._coordinates(y, arrays["key_frequencies"], 0.0, sign=-1)

    def _coordinates(self, x: Array, frequencies: Array, phases: Any, *, sign: int) -> Array:
        xp = namespace(x)
        argument = x @ xp.matrix_transpose(frequencies) - phases
        return xp.concat([xp.cos(argument), sign * xp.sin(argument)], axis=-1) / self.num_frequencies**0.5

    def mean(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`λ = exp(-|x + My - c|²/2τ²)`."""
        return np.exp(-self._sqnorm(x, y) / 2)

    def variance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`(1 - λ²)²/2n`."""
        return np.expm1(-self._sqnorm(x, y)) ** 2 / (2 * self.num_frequencies)

    def _sqnorm(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`|x + My - c|²/τ²`."""
        matrix, anchor = np.asarray(self.matrix), self.anchor
        anchor = self.per_pair(np.broadcast_to(anchor, (*self.batch_shape, anchor.shape[-1])))
        if matrix.ndim:
            matrix = self.per_pair(np.broadcast_to(matrix, (*self.batch_shape, *matrix.shape[-2:])))
        moved = (matrix @ y[..., None])[..., 0] if matrix.ndim else matrix * y
        return np.sum((x + moved - anchor) ** 2, axis=-1) / self.width**2
