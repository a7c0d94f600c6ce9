"""Functions drawn from Gaussian processes, prior and posterior."""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from randfeat._array import (
    Array,
    as_count,
    as_double,
    as_floating,
    as_generator,
    cast,
    compute_dtype,
    device_of,
    host_to,
    is_traced,
    move_to,
    namespace,
    own_precision,
)
from randfeat._hints import hinted, short
from randfeat.maps import FeatureMap, check_feature_map


@dataclass(frozen=True, eq=False)
class SampleFunctions:
    """Functions drawn from a Gaussian process: `f(x) = φ(x)·w + k(x, X) v`; made by `prior_functions`.

        weights w (*batch_shape, m, s)    of the features, for s functions on each map of the batch,
        points X (n, d), update v (*batch_shape, n, s)    the change made by data; None for the prior.

    A prior function has w ~ N(0, I): given φ it is Gaussian with covariance `φ(x)·φ(y)`. Functions on one map share its
    features, so their sample covariance tends to `φ(x)·φ(y)`. Functions on different maps of a batch are independent,
    and if the features are unbiased, their covariance is the kernel k itself, for any number of features. A small
    number of features shows in the higher moments only.

    `given` conditions each function by Matheron's rule, with the exact kernel:

        v = (k(X, X) + σ²I)^{-1} (y - f(X) - ε),   ε ~ N(0, σ²I),

    a linear map of f. So the posterior covariance is exact wherever the prior covariance is, and the posterior mean
    always is. Cost: O(n³ + n² s) once, then O(m + n) for each value.

    v can be 1/σ times as large as y, so float32 would lose all digits for small σ. Whatever the dtype of x and y, f, v
    and the sum are computed in float64, and values are rounded once, to the dtype of x. A library that has no float64
    now (JAX by default) has it done on the host, by NumPy; in functions that such a library traces it is float32.
    Source: Wilson et al. 2020, "Efficiently Sampling Functions from Gaussian Process Posteriors".

    >>> import numpy as np, randfeat as rf
    >>> kernel = rf.MaternKernel(smoothness=2.5, length_scale=0.5)
    >>> phi = rf.SpectralFeatures(kernel).draw(dim=1, num_features=500, rng=0)
    >>> prior = rf.prior_functions(phi, num_samples=3, rng=1)
    >>> x, y = np.array([[-1.0], [0.0], [1.0]]), np.array([0.5, -1.0, 2.0])
    >>> posterior = prior.given(x, y, noise_variance=1e-8, rng=2)
    >>> prior(x).shape, bool(np.allclose(posterior(x), y[:, None], atol=1e-3))
    ((3, 3), True)
    """

    features: FeatureMap
    weights: Array
    points: Array | None = None
    update: Array | None = None

    def __call__(self, x: Any) -> Array:
        """Values of the functions at x (n', d): (*batch_shape, n', s)."""
        x = self._inputs(x, "x")
        with own_precision(x):
            values = self._values(as_double(x))
        return cast(values, x.dtype) if namespace(values) is namespace(x) else host_to(values, x)

    def _values(self, x: Array) -> Array:
        """Values at x in the dtype of x, which is float64 if possible; NumPy arrays for those of any library."""
        phi = self.features.to(x) if isinstance(x, np.ndarray) else self.features
        values = phi(x) @ as_here(self.weights, x)
        if self.points is None or self.update is None:
            return values
        return values + phi.estimator.kernel(x, as_here(self.points, x)) @ as_here(self.update, x)

    @hinted
    def given(self, x: Any, y: Any, *, noise_variance: float, rng: Any = None) -> Self:
        """Posterior functions, given observations y (n,) at x (n, d) with independent noise of this variance.

        rng : seed of the noise ε of each function. A noise variance of 0 interpolates the data; if the kernel
            matrix is then singular, as for equal points, that is a ValueError.
        """
        if self.points is not None:
            raise ValueError("these functions have seen data: condition those of the prior on all data at once.")
        x, y = self._inputs(x, "x"), as_floating(y, "y")
        namespace(x, y)  # refuses two libraries
        if tuple(y.shape) != (x.shape[0],):
            raise ValueError(f"y must have shape ({x.shape[0]},), one number for each row of x, got {tuple(y.shape)}.")
        if not 0 <= noise_variance < math.inf:
            raise ValueError(f"noise_variance must be a finite number, 0 or more, got {short(noise_variance)}.")
        places, values = as_double(x), as_double(y)
        prior, xp = self._values(places), namespace(places)
        noise = host_to(as_generator(rng).standard_normal(tuple(prior.shape)), prior) * math.sqrt(noise_variance)
        identity = xp.eye(x.shape[0], dtype=places.dtype, device=device_of(places))
        gram = self.features.estimator.kernel(places, places) + noise_variance * identity
        solution = solved(gram, as_here(values, places)[:, None] - prior - noise)
        if solution is None:
            raise ValueError(
                f"the kernel matrix of the {x.shape[0]} points plus the noise variance {noise_variance:g} is singular "
                "up to rounding: points are equal or nearly so. Give a larger noise_variance, or each point once."
            )
        return replace(self, points=x, update=solution)

    def to(self, like: Any) -> Self:
        """The same functions with a map of the library, device and dtype of `like`, for inputs of that library."""
        return replace(self, features=self.features.to(like))

    def _inputs(self, x: Any, name: str) -> Array:
        x = as_floating(x, name)
        if x.ndim != 2 or x.shape[-1] != self.features.dim:
            raise ValueError(f"{name} must have shape (n, {self.features.dim}), got {tuple(x.shape)}.")
        return cast(x, compute_dtype(namespace(x), x.dtype))


def as_here(array: Array, x: Array) -> Array:
    """`array`, of the library of x or on the host, in the dtype and the place of x."""
    here = namespace(array) is namespace(x) and not isinstance(x, np.ndarray)
    return cast(array, x.dtype) if here else move_to(array, x)


def solved(matrix: Array, right: Array) -> Array | None:
    """`A⁻¹ b` for A (n, n), b (..., n, s); None if A is singular up to rounding: no digit of `A (A⁻¹ b)` is right."""
    xp = namespace(matrix)
    matrices = xp.broadcast_to(matrix, (*right.shape[:-2], *matrix.shape))
    try:
        solution = xp.linalg.solve(matrices, right)
    except Exception as error:
        if "LinAlgError" not in type(error).__name__:  # each library has a class of its own
            raise
        return None
    if is_traced(solution) or 0 in solution.shape:
        return solution
    largest = float(xp.max(xp.abs(solution))) * float(xp.max(xp.abs(matrix)))
    rounding = float(xp.finfo(matrix.dtype).eps) * matrix.shape[-1] * largest
    return solution if rounding <= float(xp.max(xp.abs(right))) else None


@hinted
def prior_functions(features: FeatureMap, num_samples: int = 1, *, rng: Any = None) -> SampleFunctions:
    """Draw functions from the Gaussian process of mean 0 whose kernel the features estimate.

    features : a symmetric map, or a batch of maps, each with functions of its own. For functions of variance 2.5, draw
        the map from `2.5 * estimator`.
    num_samples : s, the number of functions for each map.
    rng : seed of the weights.
    """
    check_feature_map(features)
    if not features.estimator.symmetric:
        raise TypeError(f"{type(features.estimator).__name__} has different query and key features, and no functions.")
    shape = (*features.batch_shape, features.num_features, as_count(num_samples, "num_samples"))
    like = next(iter(features.arrays.values()))
    return SampleFunctions(features, host_to(as_generator(rng).standard_normal(shape), like))
