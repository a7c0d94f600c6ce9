"""The softmax kernel of normalized inputs."""

from dataclasses import dataclass
from typing import Any

from randfeat._array import Array, device_of, namespace, peak, stop_gradient
from randfeat.kernels.base import check_positive
from randfeat.kernels.softmax import SoftmaxFamily


@dataclass(frozen=True)
class NormalizedSoftmaxKernel(SoftmaxFamily):
    """Softmax kernel of unit vectors, `k(x, y) = exp(x̂·ŷ / ℓ²)`, x̂ = x/|x|: cosine attention, ℓ the `length_scale`.

    length_scale : ℓ, positive; a tuple has one for each dimension, by which the unit vectors are divided.

    The zero vector has no direction and stays zero, so `k(0, y) = 1`. Inputs of every size are safe: they are divided
    by their largest entry first. With `TrigonometricFeatures` this is random feature attention, RFA: the factor
    `e^{1/2ℓ²}` that softmax features carry and RFA leaves out is the same for all inputs and cancels from attention;
    RFA's σ is ℓ.
    Source: Peng et al. 2021, "Random Feature Attention".

    >>> import numpy as np
    >>> y = np.array([[9.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> NormalizedSoftmaxKernel().pairwise(np.array([3.0, 0.0]), y).round(3)
    array([2.718, 1.   , 0.368])
    """

    length_scale: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        scale: Any = self.length_scale
        if isinstance(scale, list | tuple):
            if not scale:
                raise ValueError("length_scale must be a positive number, or a tuple of them, got none.")
            scale = tuple(check_positive("length_scale", part) for part in scale)
        else:
            scale = check_positive("length_scale", scale)
        object.__setattr__(self, "length_scale", scale)

    def unit(self, x: Array) -> Array:
        """`x / (|x| ℓ)`, and 0 for the zero vector."""
        xp = namespace(x)
        scale: Any = self.length_scale
        if isinstance(scale, tuple):
            if x.shape[-1] != len(scale):
                raise ValueError(f"length_scale has {len(scale)} dimensions, the input has {x.shape[-1]}.")
            scale = xp.asarray(scale, dtype=x.dtype, device=device_of(x))
        largest = stop_gradient(peak(xp.abs(x), -1))  # the direction does not depend on it
        x = x / xp.where(largest == 0, xp.ones_like(largest), largest)
        square = xp.sum(x * x, axis=-1, keepdims=True)
        return x / xp.sqrt(xp.where(square == 0, xp.ones_like(square), square)) / scale

    def unit_pull_back(self, x: Array, gradient: Array) -> Array:
        """`(h - e (e·h)) / |x|`, e = x/|x|, h = gradient/ℓ; a zero vector counts as of norm 1."""
        xp = namespace(x)
        scale: Any = self.length_scale
        if isinstance(scale, tuple):
            scale = xp.asarray(scale, dtype=x.dtype, device=device_of(x))
        largest = stop_gradient(peak(xp.abs(x), -1))
        largest = xp.where(largest == 0, xp.ones_like(largest), largest)
        x, gradient = x / largest, gradient / scale
        square = xp.sum(x * x, axis=-1, keepdims=True)
        norm = xp.sqrt(xp.where(square == 0, xp.ones_like(square), square))
        direction = x / norm
        return (gradient - direction * xp.sum(direction * gradient, axis=-1, keepdims=True)) / norm / largest

    def log_envelope(self, sqnorm: Any) -> Any:
        return 0.0

    def envelope_slope(self, sqnorm: Any) -> Any:
        return 0.0

    def _log_gram(self, x: Array, y: Array) -> Array:
        return self.unit(x) @ namespace(x).matrix_transpose(self.unit(y))

    def _log_pairwise(self, x: Array, y: Array) -> Array:
        return namespace(x).sum(self.unit(x) * self.unit(y), axis=-1)
