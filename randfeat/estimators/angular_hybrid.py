"""Angular hybrid features."""

import functools
from dataclasses import dataclass

from randfeat.estimators.hyperbolic import HyperbolicFeatures
from randfeat.estimators.mixed import MixedEstimator
from randfeat.estimators.mixers import AngularMixer, Mixer
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.estimators.trigonometric import TrigonometricFeatures


@dataclass(frozen=True, eq=False, repr=False)
class AngularHybridFeatures(MixedEstimator):
    """Angular hybrid features, `K̂ = λ̂ K̂_hyp+ + (1 - λ̂) K̂_trig` with E λ̂ = θ/π, θ the angle between x and y.

    num_signs : n of the `AngularMixer`. shared_rows : whether both bases use the very same rows.

    Hyperbolic features where x and y are opposed, trigonometric ones where they agree. `u = |x + y|²`, `t = |x - y|²`,
    `p = θ/π`.

    Shapes: (..., n, d) -> values and log_scale (..., n, 4m(n + 1)) for m rows and n signs; asymmetric.
    Exact: `E[φ_q(x)·φ_k(y)] = exp(x·y)` for every coupling with exact marginals; in each draw at x = y and at x = -y.
    Error: relative variance for m independent rows `[(p² + q) 2 sinh²(u/2) + ((1-p)² + q) 2 sinh²(t/2)] / m`, q =
        p(1-p)/n, and `2 (p(1-p) - q) (cos(|x|² - |y|²) - 1) / m` more, which is less, for shared rows. At equal lengths
        and `num_features` the better base alone is more accurate at every angle between the ends; what a hybrid lowers
        is the largest error over all angles, with two to four signs.
    Limits: not positive. Where one base is far too large, λ̂ cancels it to its rounding only.
    For: kernel values if some pairs are similar, others opposite, and estimates may be negative.
    Source: Choromanski et al. 2022, "Hybrid Random Features" (the angular hybrid).

    >>> import numpy as np
    >>> x = np.array([1.0, 0.0, 0.5])
    >>> hybrid = AngularHybridFeatures(num_signs=8)
    >>> phi = hybrid.draw(dim=3, num_features=36 * 4, rng=0)
    >>> [bool(np.isclose(phi.estimate(x[None], y[None]), np.exp(x @ y)).item()) for y in (x, -x)]
    [True, True]
    """

    num_signs: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "num_signs", AngularMixer(self.num_signs).num_signs)

    @functools.cached_property
    def components(self) -> tuple[SoftmaxEstimator, ...]:
        return HyperbolicFeatures(self.kernel, self.coupling), TrigonometricFeatures(self.kernel, self.coupling)

    @functools.cached_property
    def weights(self) -> tuple[Mixer, ...]:
        return (AngularMixer(self.num_signs),)
