"""Optical random features."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from randfeat._array import Array, Arrays, Drawn, namespace
from randfeat.estimators.uncoupled import UncoupledEstimator
from randfeat.features import Features
from randfeat.kernels import OpticalKernel
from randfeat.kernels.norms import split_norm
from randfeat.variance import unit_inputs


@dataclass(frozen=True)
class OpticalFeatures(UncoupledEstimator):
    """Optical random features, `φ_i(x) = |r_i·x|^{2s} / √m`, r_i complex Gaussian with `E|r_il|² = 1`.

    What a camera sees of light with the amplitudes x behind a scattering medium; s is the `exponent` of the kernel.

    Shapes: (..., n, d) -> values (..., n, m), positive except for zero vectors; log_scale `2s log|x|`, (..., n, 1).
        Any width.
    Exact: `E[φ(x)·φ(y)] = k(x, y)`, the kernel of exponent s.
    Error: variance `(k_{2s} - k²)/m`, because the square of a feature is the feature of exponent 2s. For s = 1
        `|x|⁴|y|⁴ (3 + 14c² + 3c⁴)/m`, relative to k² between 3 (orthogonal) and 5 (parallel).
    Limits: the kernel hardly distinguishes angles, `k/|x|²|y|²` being between 1 and 2 for s = 1.
    For: what an optical processor measures, computed or compared with theory.
    Source: Saade et al. 2016, "Random Projections through Multiple Optical Scattering"; Ohana et al. 2020, "Kernel
        Computations from Large-Scale Random Features Obtained by Optical Processing Units" (all integer s).

    >>> x, y = np.array([[1.0, 2.0]]), np.array([[2.0, -1.0]])
    >>> phi = OpticalFeatures().draw(dim=2, num_features=10_000, rng=0)
    >>> print(phi.estimate(x, y).round(1), phi.estimator.kernel(x, y))
    [[25.6]] [[25.]]
    >>> print(phi.estimator.relative_variance(x, [y, x], num_features=1).round(6).ravel())
    [3. 5.]
    """

    kernel: OpticalKernel = field(default_factory=OpticalKernel)

    positive = True
    kernel_type: ClassVar[type] = OpticalKernel
    acronyms = ("OPU",)

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        """Real and imaginary parts of the rows, N(0, 1/2) each."""
        parts = rng.standard_normal((2, *batch_shape, num_rows, dim)) * math.sqrt(0.5)
        return {"rows": parts[0], "imaginary_rows": parts[1]}

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        """Values: the intensities `(|r·x|/|x|)²` to the power s, over √m; log_scale: `2s log|x|`."""
        xp, s = namespace(x), self.kernel.exponent
        x, log_norm = split_norm(x)
        re, im = (x @ xp.matrix_transpose(arrays[name]) for name in ("rows", "imaginary_rows"))
        intensity = re * re + im * im
        values = intensity if s == 1 else intensity**s
        return Features(values / math.sqrt(values.shape[-1]), 2 * s * log_norm)

    def variance_over_reference(self, x: Any, y: Any, num_features: int) -> np.ndarray:
        """`k_{2s}/k² - 1`."""
        return (self._moment(x, y, 2) - self._moment(x, y, 1)) / self.num_rows(num_features)

    def row_kurtosis(self, x: Any, y: Any) -> np.ndarray:
        """`(k_{4s} - 4 k_{3s} k + 6 k_{2s} k² - 3k⁴) / (k_{2s} - k²)²`."""
        second, third, fourth = (self._moment(x, y, n) for n in (2, 3, 4))
        with np.errstate(divide="ignore", invalid="ignore"):
            return (fourth - 4 * third + 6 * second - 3) / (second - 1) ** 2

    def _moment(self, x: Any, y: Any, n: int) -> np.ndarray:
        """`E[S^n] / k^n = k_{ns} / k^n`; 0 for zero vectors."""
        x, y = (split_norm(side)[0] for side in unit_inputs(self.kernel, x, y))
        value = self.kernel.pairwise(x, y)
        power = OpticalKernel(exponent=n * self.kernel.exponent).pairwise(x, y)
        return np.asarray(power / np.where(value == 0, 1.0, value) ** n)
