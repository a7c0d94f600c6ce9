"""Products of independent projections: moments of one factor, powers of them, random signs."""

from typing import Any

import numpy as np

from randfeat._array import Array, namespace
from randfeat.kernels import Kernel


def projected_factors(rows: Array, x: Array, degree: int) -> Array:
    """Projections of x on `degree` blocks of rows: (..., n, d), (..., degree · f, d) -> (..., n, degree, f)."""
    xp = namespace(x)
    projection = x @ xp.matrix_transpose(rows)
    return xp.reshape(projection, (*projection.shape[:-1], degree, projection.shape[-1] // degree))


def fourth_moments(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three numbers that second moments of `(w·x)(w·y)` are made of, w with independent entries of modulus 1.

    `a = (x·y)²`, `b = Σ_{j≠k} x_j² y_k²`, `c = Σ_{j≠k} x_j y_j x_k y_k`: the ways to pair four indices.
    """
    a = np.sum(x * y, axis=-1) ** 2
    own = np.sum(x**2 * y**2, axis=-1)
    b = np.sum(x**2 * (np.sum(y**2, axis=-1, keepdims=True) - y**2), axis=-1)
    return a, b, a - own


def power_increment(base: np.ndarray, step: np.ndarray, degree: int) -> np.ndarray:
    """`(base + step)^p - base^p = step Σ_j (base + step)^j base^{p-1-j}`, which does not cancel for small steps."""
    return step * sum((base + step) ** j * base ** (degree - 1 - j) for j in range(degree))


def random_signs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Independent fair signs, float64."""
    return 1.0 - 2.0 * rng.integers(2, size=shape, dtype=np.int8)


def unit_dim(kernel: Kernel, dim: int) -> int:
    """Length of `kernel.unit(x)` for x of length `dim`: one more where an offset is appended."""
    unit: Any = kernel.unit(np.empty((1, dim)))
    return int(unit.shape[-1])
