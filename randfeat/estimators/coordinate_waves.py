"""Waves of single coordinates: features of homogeneous kernels."""

import math
from dataclasses import dataclass
from typing import Any

from randfeat._array import Array, namespace
from randfeat.features import Features
from randfeat.kernels.shift_invariant import root


@dataclass(frozen=True, eq=False)
class CoordinateWaves:
    """Features `√(x_l/m) [cos(w_il log x_l), sin(w_il log x_l)]`, or `√(2 x_l/m) cos(w_il log x_l + b_il)`.

    frequencies : w (..., m, d). phases : b (..., 1, d m), or None for pairs.

    Features come coordinate by coordinate, in each of them in the order of the rows; of pairs first all cosines. They
    are 0 where x_l is 0. Their derivative is infinite there, and is taken to be 0.
    """

    frequencies: Array
    phases: Array | None

    def features(self, x: Array) -> Features:
        """φ(x): (..., n, d) -> (..., n, d m), or (..., n, 2 d m) for pairs."""
        xp, (angles, sizes) = namespace(x), self._angles(x)
        waves = [xp.cos] if self.phases is not None else [xp.cos, xp.sin]
        return Features(xp.concat([sizes * wave(angles) for wave in waves], axis=-1), xp.zeros_like(x[..., :1]))

    def pull_back(self, x: Array, values: Array, gradient: Array, row: Any) -> Array:
        """The gradient in x from that in the features, by `(√x e^{iw log x})' = (½ + iw) √x e^{iw log x}/x`."""
        xp = namespace(x)
        if self.phases is not None:
            angles, sizes = self._angles(x)
            along, across = gradient * values, -gradient * sizes * xp.sin(angles)
        else:
            half = gradient.shape[-1] // 2
            (cosines, sines), (first, second) = ((z[..., :half], z[..., half:]) for z in (values, gradient))
            along, across = first * cosines + second * sines, second * cosines - first * sines
        frequencies = self._by_coordinate
        shape = (*along.shape[:-1], *frequencies.shape[-2:])
        slopes = xp.sum(xp.reshape(along, shape) / 2 + frequencies * xp.reshape(across, shape), axis=-1)
        return xp.where(x == 0, xp.zeros_like(x), slopes / xp.where(x == 0, xp.ones_like(x), x))

    @property
    def _by_coordinate(self) -> Array:
        """The frequencies (..., 1, d, m)."""
        return namespace(self.frequencies).matrix_transpose(self.frequencies)[..., None, :, :]

    def _angles(self, x: Array) -> tuple[Array, Array]:
        """The angles and amplitudes of all waves, (..., n, d m) each."""
        xp, frequencies = namespace(x), self._by_coordinate
        dim, num_rows = frequencies.shape[-2:]
        if dim != x.shape[-1] or (self.phases is not None and self.phases.shape[-1] != dim * num_rows):
            raise ValueError(
                f"frequencies {tuple(self.frequencies.shape)} and phases do not fit {x.shape[-1]} coordinates."
            )
        angles = xp.log(xp.where(x == 0, xp.ones_like(x), x))[..., None] * frequencies
        shape = (*angles.shape[:-2], angles.shape[-2] * angles.shape[-1])
        size = math.sqrt((1 if self.phases is None else 2) / frequencies.shape[-1])
        sizes = xp.reshape(xp.broadcast_to(size * root(x)[..., None], angles.shape), shape)
        angles = xp.reshape(angles, shape)
        return angles if self.phases is None else angles + self.phases, sizes
