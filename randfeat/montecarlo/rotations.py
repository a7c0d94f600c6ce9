"""gram_variance: the variance of an estimate, measured with the exact mean over rotations."""

from typing import Any

import numpy as np

from randfeat._array import as_count, as_generator
from randfeat._hints import hinted
from randfeat.couplings import Coupling
from randfeat.couplings.fixed_pairs import FixedPairs
from randfeat.estimators.base import Estimator
from randfeat.montecarlo.measured import Measured, mean_over_draws
from randfeat.variance import unit_inputs


@hinted
def gram_variance(
    estimator: Estimator, x: Any, y: Any, *, num_features: int, num_draws: int, rng: Any = None
) -> Measured:
    """Relative variance, measured with the exact mean over rotations, which removes the heavy tails of squared errors.

    This is for rotation-invariant couplings. The variance depends on a pair of rows only through |w_i ± w_j|², and for
    given lengths the mean over rotations is a Bessel function. The variance of a single row is taken from its closed
    form. Use this function if a measured MSE cannot be trusted, and for couplings whose variance has no closed form.

    Limits: the lengths stay random. For positive features and rows at right angles or wider their tail is harmless at
    any |x + y|². Pairs close to w, -w under an even estimator (hyperbolic) keep the heavy tail of a single row.
    """
    unit_x, unit_y = unit_inputs(estimator.kernel, x, y)
    coupling = estimator.coupling
    assert isinstance(coupling, Coupling)
    if not coupling.rotation_invariant:
        raise ValueError(f"the joint law of {coupling!r} is not rotation invariant; use sample_errors.")
    dim = unit_x.shape[-1]
    rows = estimator.num_rows(as_count(num_features, "num_features"), dim)
    if coupling.weights(rows, dim) is not None:
        raise ValueError(f"the rows of {coupling!r} have weights; use the closed form, or sample_errors.")
    row_law = coupling.row_law(dim, rows)
    own = estimator.relative_covariance(unit_x, unit_y, row_law, same_row=True) / rows
    if rows == 1:
        return Measured(own, np.zeros_like(own))
    generator = as_generator(rng)
    all_pairs = np.stack(np.triu_indices(rows, k=1))
    covariances = []
    for child in generator.spawn(as_count(num_draws, "num_draws")):
        w = coupling.sample(rows, dim, rng=child)
        first, second = all_pairs
        if first.size > 2048:  # another random subset for each draw: its choice is part of the standard error
            first, second = all_pairs[:, child.choice(first.size, 2048, replace=False)]
        sums, differences = (np.sum((w[first] + sign * w[second]) ** 2, axis=1) for sign in (1, -1))
        law = FixedPairs(dim, sums, differences, np.full(sums.size, 1 / sums.size), row_law)
        covariances.append(estimator.relative_covariance(unit_x, unit_y, law, same_row=False))
    pair = mean_over_draws(np.asarray(covariances))
    weight = (rows - 1) / rows
    return Measured(own + weight * pair.value, weight * pair.standard_error)
