"""Recipes: each estimator of the library fitted to a head, so that all can be ranked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat import estimators as known
from randfeat.estimators import Estimator, SoftmaxEstimator
from randfeat.estimators.statistics import unit_pair
from randfeat.kernels import SoftmaxFamily
from randfeat.selection.adaptation import LEVELS, adapt


@dataclass(frozen=True, eq=False)
class RecipeInputs:
    """The data of a fit: raw queries (heads, L, d) or (L, d) and keys, without padding."""

    query: np.ndarray
    key: np.ndarray
    num_features: int
    scale: float
    kernel: SoftmaxFamily
    rng: np.random.Generator

    @property
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """The pair of queries and keys."""
        return self.query, self.key

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of every `fit`."""
        return {"scale": self.scale, "kernel": self.kernel}


Recipe = Callable[[RecipeInputs], Estimator]


def balanced_optimal(inputs: RecipeInputs) -> SoftmaxEstimator:
    """Diagonal balancing, then one optimal exponent: SADERF."""
    plain = known.PositiveFeatures(inputs.kernel)
    balanced = known.BalancedFeatures.fit(*inputs.pair, scale=inputs.scale, kind="diagonal", base=plain)
    moved = balanced.moved_pair(*unit_pair(*inputs.pair, **inputs.options))
    return known.BalancedFeatures(
        base=known.OptimalPositiveFeatures.fit(*moved, scale=1.0).with_kernel(inputs.kernel), matrix=balanced.matrix
    )


def adapted(level: Any) -> Recipe:
    """A level of `adapt`."""
    return lambda inputs: adapt(
        *inputs.pair, level=level, num_features=inputs.num_features, rng=inputs.rng, **inputs.options
    )


RECIPES: dict[str, Recipe] = {
    "PositiveFeatures": lambda inputs: known.PositiveFeatures(inputs.kernel),
    "HyperbolicFeatures": lambda inputs: known.HyperbolicFeatures(inputs.kernel),
    "TrigonometricFeatures": lambda inputs: known.TrigonometricFeatures(inputs.kernel),
    "OptimalPositiveFeatures.fit": lambda inputs: known.OptimalPositiveFeatures.fit(*inputs.pair, **inputs.options),
    "OptimalPositiveFeatures.fit, antithetic": lambda inputs: known.OptimalPositiveFeatures.fit(
        *inputs.pair, antithetic=True, **inputs.options
    ),
    "DenseExponentialFeatures.fit": lambda inputs: known.DenseExponentialFeatures.fit(*inputs.pair, **inputs.options),
    "balanced OptimalPositiveFeatures": balanced_optimal,
    "StudentPositiveFeatures": lambda inputs: known.StudentPositiveFeatures(inputs.kernel),
    "RegularizedSoftmaxFeatures": lambda inputs: known.RegularizedSoftmaxFeatures(inputs.kernel),
    "ControlVariateFeatures": lambda inputs: known.ControlVariateFeatures(inputs.kernel),
    "AngularHybridFeatures": lambda inputs: known.AngularHybridFeatures(inputs.kernel, num_signs=3),
    "MaclaurinFeatures": lambda inputs: known.MaclaurinFeatures(inputs.kernel),
    "PoissonFeatures.fit": lambda inputs: known.PoissonFeatures.fit(*inputs.pair, **inputs.options),
    "GeometricFeatures.fit": lambda inputs: known.GeometricFeatures.fit(*inputs.pair, **inputs.options),
    "ComplexExponentialFeatures.fit": lambda inputs: known.ComplexExponentialFeatures.fit(
        *inputs.pair, **inputs.options
    ),
    "ImportanceSampledFeatures.fit": lambda inputs: known.ImportanceSampledFeatures.fit(
        *inputs.pair, pooling="k-means", rng=inputs.rng, **inputs.options
    ),
    **{f"adapt, level {level!r}": adapted(level) for level in LEVELS},
}
"""How every estimator of the softmax family is fitted."""


def other_kernels() -> dict[str, str]:
    """Estimators that are never tried, and why: they are of other kernels."""
    examples = {name: getattr(known, name).example() for name in known.__all__ if name.endswith("Features")}
    kernels = {name: type(estimator.kernel).__name__ for name, estimator in examples.items()}
    return {
        name: f"of a {kernel}, not of the softmax kernel"
        for name, kernel in kernels.items()
        if kernel != "SoftmaxKernel"
    }
