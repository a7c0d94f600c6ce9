"""The pair of projections (w·x, w·y) of a Gaussian row, and expectations under its law."""

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np

from randfeat._array import Array, broadcast_shapes, cast, host_to, namespace

BLOCK = 2**22  # numbers held at once


class ProjectedPair:
    """The law of (a, b) = (w·x, w·y), w ~ N(0, I): centered Gaussian with variances |x|², |y|² and covariance x·y.

    Properties are arrays. With `gram=True` they have one entry for each row of x with each row of y, otherwise one
    entry for each x with its y. Angles with a zero vector count as right angles; `nonzero` is 0 there and 1 elsewhere.
    """

    def __init__(self, x: Array, y: Array, *, gram: bool) -> None:
        self.xp = namespace(x, y)
        self.x, self.y, self.gram = x, y, gram
        (norm_x, self._unit_x), (norm_y, self._unit_y) = norms_and_directions(x), norms_and_directions(y)
        self.norm_x = norm_x if gram else norm_x[..., 0]
        self.norm_y = self.xp.matrix_transpose(norm_y) if gram else norm_y[..., 0]

    @cached_property
    def variance_x(self) -> Array:
        """`E[a²] = |x|²`."""
        return self.norm_x * self.norm_x

    @cached_property
    def variance_y(self) -> Array:
        """`E[b²] = |y|²`."""
        return self.norm_y * self.norm_y

    @cached_property
    def covariance(self) -> Array:
        """`E[ab] = x·y`."""
        return self._products(self.x, self.y)

    @cached_property
    def determinant(self) -> Array:
        """`|x|²|y|² - (x·y)² = |x|²|y|² sin²θ`, never negative."""
        side = self.norm_x * self.norm_y * self.xp.sin(self.smooth_angles[0])
        return side * side

    @cached_property
    def nonzero(self) -> Array:
        """1 where neither vector is zero, else 0."""
        return 1 - cast((self.norm_x == 0) | (self.norm_y == 0), self.norm_x.dtype)

    @cached_property
    def smooth_angles(self) -> tuple[Array, Array]:
        """The angle θ and its supplement π - θ, for functions that are smooth in cos θ.

        A Gram matrix has them from its cosines, whose rounding error moves an angle near 0 or π by up to its root;
        smooth functions of the cosine do not notice.
        """
        if not self.gram:
            return self.angles
        xp = self.xp
        cosine = xp.clip(self._products(self._unit_x, self._unit_y), -1.0, 1.0)
        sine = safe_sqrt((1 - cosine) * (1 + cosine))
        return xp.atan2(sine, cosine), xp.atan2(sine, -cosine)

    @cached_property
    def angles(self) -> tuple[Array, Array]:
        """The angle θ and its supplement π - θ, both to full relative accuracy: from |x̂ - ŷ| and |x̂ + ŷ|."""
        xp = self.xp
        if not self.gram:
            theta, supplement = angles_between(self._unit_x, self._unit_y)
        else:
            x, y = self._unit_x[..., :, None, :], self._unit_y[..., None, :, :]
            lead = math.prod(broadcast_shapes(tuple(x.shape[:-3]), tuple(y.shape[:-3])))
            rows = max(1, BLOCK // max(1, lead * y.shape[-2] * y.shape[-1]))
            blocks = [angles_between(x[..., start:stop, :, :], y) for start, stop in pieces(x.shape[-3], rows)]
            theta, supplement = (xp.concat(list(parts), axis=-2) for parts in zip(*blocks, strict=True))
        right = xp.full_like(theta, math.pi / 2)
        absent = self.nonzero == 0
        return xp.where(absent, right, theta), xp.where(absent, right, supplement)

    def mean(self, f: Callable[[Array], Array], g: Callable[[Array], Array]) -> Array:
        """`E[f(a) g(b)]` by quadrature, for functions that are smooth but for a kink or a jump at 0.

        In polar coordinates, w = R e^{iφ} in the plane of x and y, the lines a = 0 and b = 0 bound four sectors:

            E f(a) g(b) = ∫ R e^{-R²/2} dR/2π Σ_{±} ∫ f(±|x| R sin t) g(±|y| R sin(α - t)) dt,   0 < t < α,

        α = π - θ with equal signs and α = θ with opposite ones. Gauss-Legendre nodes, 48 radii up to 10 and 32 angles
        which a cubic moves towards the ends of each sector: 6144 values of f and g for a pair.
        """
        xp, like = self.xp, self.norm_x + self.norm_y
        shape = self.nonzero.shape
        flat = [xp.reshape(xp.broadcast_to(part, shape), (-1, 1, 1)) for part in (self.norm_x, self.norm_y)]
        angles = [xp.reshape(xp.broadcast_to(angle, shape), (-1, 1, 1)) for angle in self.smooth_angles]
        radii, angle_nodes, weights = (host_to(array, like) for array in polar_rule())
        totals = []
        for start, stop in pieces(flat[0].shape[0], max(1, BLOCK // (16 * math.prod(weights.shape)))):
            norm_x, norm_y, theta, supplement = (part[start:stop, ...] for part in (*flat, *angles))
            total = xp.zeros_like(theta[:, 0, 0])
            for sign, width in ((1, supplement), (-1, theta)):
                a = norm_x * radii * xp.sin(width * angle_nodes)
                b = norm_y * radii * xp.sin(width * (1 - angle_nodes)) * sign
                total = total + xp.sum(weights * (f(a) * g(b) + f(-a) * g(-b)), axis=(-2, -1)) * width[:, 0, 0]
            totals.append(total)
        return xp.reshape(xp.concat(totals), shape)

    def _products(self, x: Array, y: Array) -> Array:
        return x @ self.xp.matrix_transpose(y) if self.gram else self.xp.sum(x * y, axis=-1)


def pieces(length: int, size: int) -> list[tuple[int, int]]:
    """0 .. length cut into pieces; one empty piece where there is nothing."""
    return [(start, min(start + size, length)) for start in range(0, max(length, 1), size)]


def norms_and_directions(x: Array) -> tuple[Array, Array]:
    """`|x|`, with the last axis kept, and `x/|x|`, without under- or overflow; both 0 for zero vectors."""
    xp = namespace(x)
    top = xp.max(xp.abs(x), axis=-1, keepdims=True)
    scaled = x / xp.where(top == 0, xp.ones_like(top), top)
    sqnorm = xp.sum(scaled * scaled, axis=-1, keepdims=True)
    norm = xp.sqrt(xp.where(top == 0, xp.ones_like(top), sqnorm))
    return top * norm, scaled / norm


def angles_between(x: Array, y: Array) -> tuple[Array, Array]:
    """`θ = 2 atan2(|x - y|, |x + y|)` and `π - θ` of unit vectors (..., d), by Kahan's formula."""
    xp = namespace(x, y)
    apart, together = (safe_sqrt(xp.sum(side * side, axis=-1)) for side in (x - y, x + y))
    return 2 * xp.atan2(apart, together), 2 * xp.atan2(together, apart)


def safe_sqrt(x: Array) -> Array:
    """`√x`, with derivative 0 at 0."""
    xp = namespace(x)
    zero = x == 0
    return xp.where(zero, xp.zeros_like(x), xp.sqrt(xp.where(zero, xp.ones_like(x), x)))


def polar_rule(num_radii: int = 48, num_angles: int = 32, longest: float = 10.0) -> tuple[np.ndarray, ...]:
    """Radii (num_radii, 1), angles over their sector's width (1, num_angles), and weights with the density in them."""
    nodes, weights = np.polynomial.legendre.leggauss(num_radii)
    radii = longest * (nodes[:, None] + 1) / 2
    radial = longest * weights[:, None] / 2 * radii * np.exp(-(radii**2) / 2) / (2 * np.pi)
    nodes, weights = np.polynomial.legendre.leggauss(num_angles)
    s = (nodes + 1) / 2
    return radii, (s * s * (3 - 2 * s))[None, :], radial * (3 * weights * s * (1 - s))
