"""The polynomial kernel."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import Array, as_count, as_host, namespace
from randfeat.kernels.base import Kernel, check_positive
from randfeat.kernels.norms import split_norm


@dataclass(frozen=True)
class PolynomialKernel(Kernel):
    """Polynomial kernel `k(x, y) = (scale · x·y + offset)^degree`.

    degree : p, a positive integer.
    offset : at least 0; the weight of the lower degrees.
    scale : positive; scikit-learn's `gamma`, with `coef0` for the offset.

    In kernel units `x' = [√scale x, √offset]`, one coordinate longer where there is an offset, it is homogeneous:
    `(x'·y')^p`. Moments are over the reference `(|x'||y'|)^p`, with 1 for the norm of a zero vector.
    Source: Boser, Guyon & Vapnik 1992, "A Training Algorithm for Optimal Margin Classifiers".

    >>> import numpy as np
    >>> PolynomialKernel(degree=3, offset=1.0)(np.eye(2), np.array([[1.0, 2.0]]))
    array([[ 8.],
           [27.]])
    """

    degree: int = 2
    offset: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "degree", as_count(self.degree, "degree"))
        offset = self.offset if self.offset == 0 else check_positive("offset", self.offset)
        object.__setattr__(self, "offset", float(offset))
        object.__setattr__(self, "scale", check_positive("scale", self.scale))

    def unit(self, x: Array) -> Array:
        """`[√scale x, √offset]`."""
        xp = namespace(x)
        x = x if self.scale == 1 else x * math.sqrt(self.scale)
        return xp.concat([x, xp.ones_like(x[..., :1]) * math.sqrt(self.offset)], axis=-1) if self.offset else x

    def _gram(self, x: Array, y: Array) -> Array:
        return (self.scale * (x @ namespace(x).matrix_transpose(y)) + self.offset) ** self.degree

    def _pairwise(self, x: Array, y: Array) -> Array:
        return (self.scale * namespace(x).sum(x * y, axis=-1) + self.offset) ** self.degree

    def log_reference(self, x: Any, y: Any) -> np.ndarray:
        """`p (log|x'| + log|y'|)`."""
        x, y = (self.unit(as_host(side, name)) for side, name in ((x, "x"), (y, "y")))
        return self.degree * (split_norm(x)[1] + split_norm(y)[1])[..., 0]

    def relative(self, x: Any, y: Any) -> np.ndarray:
        """`cos(x', y')^p`; 0 for a zero vector."""
        x, y = (self.unit(as_host(side, name)) for side, name in ((x, "x"), (y, "y")))
        return np.asarray(np.sum(split_norm(x)[0] * split_norm(y)[0], axis=-1) ** self.degree)
