"""Features of a kernel with one length-scale per input dimension."""

from dataclasses import dataclass
from typing import Any, Self

from randfeat._array import Arrays
from randfeat.estimators.delegating import DelegatingEstimator
from randfeat.estimators.positive import PositiveFeatures
from randfeat.kernels import Kernel
from randfeat.kernels.algebra import ArdKernel


@dataclass(frozen=True)
class ArdFeatures(DelegatingEstimator):
    """Features of a kernel with one length-scale per input dimension, `φ(x/ℓ)` [automatic relevance determination].

    base : an estimator of any kernel.
    length_scales : ℓ_1 .. ℓ_d, positive, in the units of the inputs; None (or infinity) leaves a dimension out.

    Shapes: as the base's.
    Exact: `E[φ(x/ℓ)·φ(y/ℓ)] = k(x/ℓ, y/ℓ)` where the base is unbiased.
    Error: the base's at (x/ℓ, y/ℓ).
    For: inputs whose columns have different units, or are of different relevance.
    Source: MacKay 1994, "Bayesian nonlinear modeling for the prediction competition"; Rahimi & Recht 2007, "Random
        Features for Large-Scale Kernel Machines": an anisotropic Gaussian is a rescaled isotropic one.

    >>> import numpy as np
    >>> from randfeat import GaussianKernel, TrigonometricFeatures
    >>> estimator = ArdFeatures(TrigonometricFeatures(GaussianKernel()), length_scales=(2.0, None))
    >>> phi = estimator.draw(dim=2, num_features=512, rng=0)
    >>> x = np.array([[0.0, 5.0], [2.0, -7.0]])
    >>> bool(np.allclose(phi.estimate(x, x), [[1, np.exp(-0.5)], [np.exp(-0.5), 1]], atol=0.1))
    True
    """

    length_scales: tuple[float | None, ...]

    @classmethod
    def example(cls) -> Self:
        return cls(PositiveFeatures(), (0.5, 1.0, 2.0, None))

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "length_scales", self._kernel.length_scales)

    @property
    def _kernel(self) -> ArdKernel:
        assert isinstance(self.kernel, ArdKernel)
        return self.kernel

    def _wrap_kernel(self, kernel: Kernel) -> Kernel:
        return ArdKernel(kernel, self.length_scales)

    def move(self, arrays: Arrays, x: Any, *, keys: bool) -> tuple[Any, Any]:
        """`x/ℓ`."""
        return self._kernel.divide(x), 0.0

    def check_dim(self, dim: int) -> None:
        self._kernel.check_dim(dim)
        super().check_dim(dim)
