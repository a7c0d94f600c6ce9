"""Random mixtures of estimators: what hybrids share."""

import abc
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import Array, Arrays, Drawn, as_bool, namespace
from randfeat.couplings.laws import PairLaw
from randfeat.estimators.mixers import Mixer
from randfeat.estimators.parametric import Parametric
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.features import Features, concatenate, tensor_product
from randfeat.maps import part_of
from randfeat.variance import times, unit_inputs


@dataclass(frozen=True, eq=False, repr=False)
class MixedEstimator(Parametric, SoftmaxEstimator):
    """`K̂ = Σ_k λ̂_k K̂_k` with random weights of sum 1, independent of the base estimators K̂_1 .. K̂_{p+1}.

    There are p mixers λ̂_k = a_k + ρ_k(x)·ρ_k'(y), independent of each other. They are the weights of the first p base
    estimators. The last base estimator has the weight 1 - Σ λ̂_k. Written out, the estimate is a sum of blocks. Each
    block is a constant, or an inner product ρ_k·ρ_k', times one base estimate:

        Σ_{k<=p} [a_k K̂_k + (ρ_k·ρ_k') K̂_k]  +  (1 - Σ a_k) K̂_{p+1}  -  Σ_{k<=p} (ρ_k·ρ_k') K̂_{p+1} .

    The features of a sum are the concatenated features of its terms. The features of a product are tensor products. A
    minus sign is put into the key features.
    """

    shared_rows: bool = True

    symmetric = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "shared_rows", as_bool(self.shared_rows, "shared_rows"))

    @property
    @abc.abstractmethod
    def components(self) -> tuple[SoftmaxEstimator, ...]:
        """The p + 1 base estimators, of one kernel and coupling."""

    @property
    @abc.abstractmethod
    def weights(self) -> tuple[Mixer, ...]:
        """The p mixers, one for each base."""

    @functools.cached_property
    def _blocks(self) -> tuple[tuple[float, int | None, int], ...]:
        """(coefficient, which mixer or None, which base) of each block; those with coefficient 0 are left out."""
        last = len(self.weights)
        own = [(mixer.constant, k) for k, mixer in enumerate(self.weights)]
        blocks: list[tuple[float, int | None, int]] = []
        for constant, k in own:
            blocks += [(constant, None, k), (1.0, k, k)]
        blocks += [(1.0 - sum(constant for constant, _ in own), None, last)]
        blocks += [(-1.0, k, last) for _, k in own]
        return tuple(block for block in blocks if block[0])

    @property
    def features_per_row(self) -> int:
        """`Σ_k f_k (1 + n_k) + f_{p+1} (1 + Σ n_k)`, less constant parts that are zero; n_k coordinates."""
        return sum(
            self.components[base].features_per_row * (1 if mixer is None else self.weights[mixer].size)
            for _, mixer, base in self._blocks
        )

    @property
    def bounded(self) -> bool:
        return all(base.bounded for base in self.components)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(
            *(base.batch_shape for base in self.components), *(mixer.batch_shape for mixer in self.weights)
        )

    def draw_arrays(self, dim: int, num_rows: int, rng: np.random.Generator, batch_shape: tuple[int, ...]) -> Drawn:
        seed = rng.integers(2**63, size=2)
        drawn = {}
        for k, base in enumerate(self.components):
            generator = np.random.default_rng(seed) if self.shared_rows else rng
            drawn[f"base{k}."] = base.draw_arrays(dim=dim, num_rows=num_rows, rng=generator, batch_shape=batch_shape)
        for k, mixer in enumerate(self.weights):
            drawn[f"mixer{k}."] = mixer.draw_arrays(dim, rng, batch_shape)
        return {prefix + name: array for prefix, arrays in drawn.items() for name, array in arrays.items()}

    def query_features(self, arrays: Arrays, x: Array) -> Features:
        return self._composite(arrays, x, keys=False)

    def key_features(self, arrays: Arrays, y: Array) -> Features:
        return self._composite(arrays, y, keys=True)

    def _composite(self, arrays: Arrays, x: Array, *, keys: bool) -> Features:
        bases, coordinates = [], []
        for k, base in enumerate(self.components):
            make = base.key_features if keys else base.query_features
            bases.append(make(part_of(arrays, f"base{k}."), x))
        log_one = namespace(x).zeros_like(x[..., :1])
        for k, mixer in enumerate(self.weights):
            evaluate = mixer.key_coordinates if keys else mixer.query_coordinates
            coordinates.append(Features(evaluate(part_of(arrays, f"mixer{k}."), x), log_one))
        blocks = []
        for coefficient, which, index in self._blocks:
            block = bases[index] if which is None else tensor_product(coordinates[which], bases[index])
            factor = math.copysign(math.sqrt(abs(coefficient)), coefficient if keys else 1.0)
            blocks.append(Features(block.values * factor, block.log_scale))
        return concatenate(*blocks)

    def mean_over_reference(self, x: Any, y: Any, num_features: int | None) -> np.ndarray:
        """`Σ_k E λ̂_k E K̂_k`: 1 where no base is biased."""
        means, _ = self._weight_moments(*unit_inputs(self.kernel, x, y))
        rows = None if num_features is None else self.num_rows(num_features, np.shape(x)[-1])
        parts = (mean * self._base_mean(base, x, y, rows) for mean, base in zip(means, self.components, strict=True))
        return sum(parts, np.zeros(()))

    def variance_over_reference(self, x: Any, y: Any, num_features: int) -> np.ndarray:
        """`Σ_kl E[λ̂_k λ̂_l] Cov(K̂_k, K̂_l) + Σ_kl Cov(λ̂_k, λ̂_l) b_k b_l`, b the biases of the bases."""
        unit_x, unit_y = unit_inputs(self.kernel, x, y)
        rows = self.num_rows(num_features, unit_x.shape[-1])
        means, covariances = self._weight_moments(unit_x, unit_y)
        exact = self.kernel.relative(x, y)
        biases = [self._base_mean(base, x, y, rows) - exact for base in self.components]
        total = np.zeros(np.broadcast_shapes(unit_x.shape, unit_y.shape)[:-1])
        for k, base in enumerate(self.components):
            own = base.variance_over_reference(x, y, rows * base.features_per_row)
            total = total + times(means[k] ** 2 + covariances[k][k], own) + covariances[k][k] * biases[k] ** 2
            for j in range(k):
                cross = self._cross_covariance(j, k, unit_x, unit_y, rows) if self.shared_rows else 0.0
                product = means[j] * means[k] + covariances[j][k]
                total = total + 2 * (times(product, cross) + covariances[j][k] * biases[j] * biases[k])
        return np.maximum(total, 0.0)

    @staticmethod
    def _base_mean(base: SoftmaxEstimator, x: Any, y: Any, rows: int | None) -> np.ndarray:
        return base.mean_over_reference(x, y, None if rows is None else rows * base.features_per_row)

    def _weight_moments(self, x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
        """Means and covariances of all p + 1 weights: the last is one less the independent others."""
        means = [mixer.mean(x, y) for mixer in self.weights]
        variances = [mixer.variance(x, y) for mixer in self.weights]
        zero = np.zeros(np.broadcast_shapes(x.shape, y.shape)[:-1])
        p = len(means)
        covariances = [[variances[k] if k == j else zero for j in range(p)] + [-variances[k]] for k in range(p)]
        covariances.append([*(-variance for variance in variances), sum(variances, zero)])
        return [*means, 1.0 - sum(means, zero)], covariances

    def _cross_covariance(self, j: int, k: int, x: np.ndarray, y: np.ndarray, rows: int) -> np.ndarray:
        """`Cov(K̂_j, K̂_k) / K²` for common rows, assembled as a variance is."""
        first, second = (self.components[index].exponential_terms(x, y) for index in (j, k))
        dim = x.shape[-1]
        laws: list[tuple[float, PairLaw]] = [*self._coupling.own_laws(rows, dim), *self._coupling.pair_laws(rows, dim)]
        parts = (first.covariance(second, law) * (count / rows**2) for count, law in laws)
        return sum(parts, np.zeros(()))
