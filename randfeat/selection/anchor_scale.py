"""The scale of the anchors of posterior features: a few are tried on exact outputs, with the same random numbers."""

from dataclasses import dataclass, replace

import numpy as np

from randfeat._hints import short
from randfeat.couplings.base import resolve_coupling
from randfeat.estimators.optimal_positive import optimal_exponent
from randfeat.estimators.posterior import Mixture, PosteriorFeatures, Sample
from randfeat.kernels.base import check_positive
from randfeat.selection.head_fit import HeadFit

SCALES = (1.0, 2.0, 4.0)
CHECKED_ROWS = 64
"""Exact outputs; with 32, the scale that is best for other draws is missed more often, at the same cost."""


def given_scale(anchor_scale: str | float, num_features: int) -> float | None:
    """The factor of the queries as it is given, or from the rule; None if it is to be checked."""
    if anchor_scale == "rule":
        return float(np.clip(np.sqrt(1024 / num_features), 1.0, 4.0))
    if not isinstance(anchor_scale, str):
        return check_positive("anchor_scale", anchor_scale)
    if anchor_scale != "checked":
        raise ValueError(f"anchor_scale must be 'checked', 'rule' or a positive number, got {short(anchor_scale)}.")
    return None


@dataclass(frozen=True, eq=False)
class AnchorPilot:
    """Some queries of a head with their exact outputs, and the random numbers of one map; all in float32.

    query (n, d) : in the balanced coordinates of a fit. exact (n, dv). values (S, dv + 2) : for each key its value and
    1, both times its factor of the kernel, and 1. square : |x|²/d of queries and of keys, the means.

    Rows are `s c + y/s + noise`, with the same anchors c, keys y and noise for each scale s. Errors of different scales
    then differ less by chance than those of independent maps.
    """

    mixture: Mixture
    query: np.ndarray
    exact: np.ndarray
    values: np.ndarray
    sample: Sample
    square: tuple[float, float]

    @classmethod
    def of(
        cls,
        fit: HeadFit,
        example: PosteriorFeatures,
        x: np.ndarray,
        y: np.ndarray,
        value: np.ndarray,
        num_features: int,
        rng: np.random.Generator,
    ) -> "AnchorPilot":
        """A pilot of the width of the map, on some of the queries x (L, d) and all keys y (S, d), in kernel units.

        example : posterior features with the coupling, the kernel, and the defensive share of the map.
        """
        chosen = np.sort(rng.permutation(len(x))[:CHECKED_ROWS])
        query = (x[chosen] - fit.query_shift) @ fit.matrix.T
        log_factor = np.where(np.isfinite(fit.biases), example.kernel.log_envelope(np.sum(y * y, axis=-1)), -np.inf)
        mixture = Mixture.of(fit.anchors, np.log(fit.masses), fit.keys, fit.biases, 0.0)
        wide = example.num_defensive(num_features)
        sample = mixture.sample(resolve_coupling(example.coupling), num_features - wide, wide, rng)
        with np.errstate(all="ignore"):
            weights, _ = exponentials(query @ fit.keys.T + fit.biases + log_factor)
            value = value / (np.max(np.abs(value)) or 1.0)
            exact = weights @ value / np.sum(weights, axis=-1, keepdims=True)
            factor = np.exp(log_factor - np.max(log_factor))[:, None]
            return cls(
                mixture.astype(np.float32),
                query.astype(np.float32),
                exact.astype(np.float32),
                np.concatenate([value * factor, factor, np.ones_like(factor)], axis=-1).astype(np.float32),
                replace(sample, noise=sample.noise.astype(np.float32), wide_noise=sample.wide_noise.astype(np.float32)),
                fit.mean_squares,
            )

    def best(self) -> float:
        """The scale of least error."""
        return SCALES[int(np.argmin([self.error(s) for s in SCALES]))]

    def error(self, s: float) -> float:
        """Frobenius norm of the error of the outputs, with queries times s and keys over s; inf if they are not finite.

        The sums over keys of one row serve its features and its density, `Σ_j e^{b_j + w·y_j - |y_j|²/2}`.
        """
        with np.errstate(all="ignore"):
            error = float(np.linalg.norm(self.output(s) - self.exact))
        return error if np.isfinite(error) else np.inf

    def output(self, s: float) -> np.ndarray:
        """Outputs (n, dv) of linear attention."""
        exponent = float(optimal_exponent(s**2 * self.square[0] + self.square[1] / s**2))
        mixture = self.mixture.scaled(s, exponent)
        rows = mixture.rows(self.sample)
        terms, top = exponentials(mixture.key_exponents(rows))
        sums = terms @ self.values
        log_total = np.log(sums[:, -1]) + top
        log_density = mixture.log_density(rows, log_total, len(self.sample.wide_noise))
        weights, _ = exponentials(s * self.query @ rows.T + (log_total - log_density))
        outputs = weights @ (sums[:, :-1] / sums[:, -1:])
        return outputs[:, :-1] / outputs[:, -1:]


def exponentials(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`e^{x - top}` in the memory of x (n, m), and the maximum `top` (n,) of each row."""
    top = np.max(x, axis=-1, keepdims=True)
    x -= top
    return np.exp(x, out=x), top[:, 0]
