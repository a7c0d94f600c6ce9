"""TensorSketch."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from randfeat._array import Array, Arrays, Drawn, namespace
from randfeat.estimators.projection_products import (
    fourth_moments,
    power_increment,
    projected_factors,
    random_signs,
    unit_dim,
)
from randfeat.estimators.uncoupled import UncoupledEstimator
from randfeat.features import Features
from randfeat.kernels import PolynomialKernel
from randfeat.kernels.norms import split_norm
from randfeat.variance import unit_inputs


@dataclass(frozen=True)
class TensorSketchFeatures(UncoupledEstimator):
    """TensorSketch: the circular convolution of p count sketches, a count sketch of `x ⊗ .. ⊗ x`.

    `φ(x) = F^{-1}[Π_{k<=p} F C_k x]` with F the Fourier transform of length D = num_features, and `(C_k x)_j` the sum
    of `s_k(l) x_l` over the l with `h_k(l) = j`: hashes h uniform on D buckets and signs s, all independent.

    x and y in kernel units, which append the offset. Variances are over the squared reference, `(|x||y|)^{2p}`; for x
    and y of norm 1 `a = (x·y)²`, `b = 1 - Σ_l x_l² y_l²`, `c = a - Σ_l x_l² y_l²`.

    Shapes: (..., n, d) -> values (..., n, D), of either sign; log_scale `p log|x|`, (..., n, 1). Any width.
    Exact: `E[φ(x)·φ(y)] = (x·y)^p`; in one dimension in every draw.
    Error: variance `[(a+b)^p + (a+c)^p - 2a^p]/D + κ [(a+b+c)^p - (a+b)^p - (a+c)^p + a^p]/D²`, κ = 2 for even D and 1
        for odd: that of complex products of projections, up to the second term.
    Limits: the count sketches are kept as dense matrices of signs, p·D·d numbers, and applied as one product, which
        runs on every array library but costs n·p·D·d instead of n·p·(d + D log D).
    For: polynomial kernels: regression with products of input columns.
    Source: Pham & Pagh 2013, "Fast and Scalable Polynomial Kernels via Explicit Feature Maps".

    >>> estimator = TensorSketchFeatures(PolynomialKernel(degree=3, offset=1.0))
    >>> x = np.array([[0.5, 0.0, -0.5], [0.25, 0.5, 1.0]])
    >>> phi = estimator.draw(dim=3, num_features=4096, rng=0)
    >>> print(phi.estimate(x, x).round(1), estimator.kernel(x, x).round(1), sep=",")
    [[ 3.4  0.2]
     [ 0.2 12.4]],[[ 3.4  0.2]
     [ 0.2 12.4]]
    """

    kernel: PolynomialKernel = field(default_factory=PolynomialKernel)

    acronyms = ("TS",)
    kernel_type: ClassVar[type] = PolynomialKernel

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        degree, dim = self.kernel.degree, unit_dim(self.kernel, dim)
        buckets = rng.integers(num_rows, size=(*batch_shape, degree, 1, dim))
        signs = random_signs(rng, (*batch_shape, degree, 1, dim))
        sketches = np.zeros((*batch_shape, degree, num_rows, dim))
        np.put_along_axis(sketches, buckets, signs, axis=-2)
        return {"sketches": sketches.reshape(*batch_shape, degree * num_rows, dim)}

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        """Convolved count sketches of `x/|x|`; `p log|x|` in the scale."""
        xp = namespace(x)
        x, log_norm = split_norm(x)
        sketches = projected_factors(arrays["sketches"], x, self.kernel.degree)
        transformed = xp.prod(xp.fft.rfft(sketches, axis=-1), axis=-2)
        return Features(xp.fft.irfft(transformed, n=sketches.shape[-1], axis=-1), self.kernel.degree * log_norm)

    def variance_over_reference(self, x: Any, y: Any, num_features: int) -> np.ndarray:
        """Mean over pairs of frequencies f, g of `E[S_f S_g]`: `(a + b [f+g=0] + c [f=g])^p`, less `a^p`."""
        x, y = (split_norm(side)[0] for side in unit_inputs(self.kernel, x, y))
        degree, (a, b, c) = self.kernel.degree, fourth_moments(x, y)
        num = self.num_rows(num_features)
        real = 2 if num % 2 == 0 else 1  # frequencies that are their own negatives
        either = power_increment(a, b, degree) + power_increment(a, c, degree)
        both = power_increment(a, b + c, degree)
        return np.maximum((num - real) * either + real * both, 0.0) / num**2
