"""Hybrid features."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from randfeat._hints import hinted, short
from randfeat.couplings import Coupling, Independent
from randfeat.estimators.centered import CenteredFeatures
from randfeat.estimators.hyperbolic import HyperbolicFeatures
from randfeat.estimators.mixed import MixedEstimator
from randfeat.estimators.mixers import AngularMixer, GaussianMixer, Mixer
from randfeat.estimators.parametric import frozen_array
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.estimators.statistics import or_default
from randfeat.estimators.trigonometric import TrigonometricFeatures
from randfeat.kernels import SoftmaxFamily, SoftmaxKernel


@dataclass(frozen=True, eq=False, repr=False)
class HybridFeatures(MixedEstimator):
    """Hybrid features (HRF): a sum of several estimators, `K̂ = Σ_k λ̂_k K̂_k`, with random weights λ̂_k of sum 1.

    bases : p + 1 estimators, all with the same kernel (of the softmax family) and the same coupling. The hybrid has
        this kernel and this coupling, too.
    mixers : p weights λ̂_1 .. λ̂_p (`AngularMixer`, `GaussianMixer`); the last base has the weight 1 - Σ λ̂_k.
    shared_rows : whether all bases use the same rows.

    The default is the estimator of `AngularHybridFeatures`. `multipolar` makes a hybrid with several anchors, and a
    centered base for each.

    Shapes: (..., n, d) -> values and log_scale (..., n, D), D = m [Σ_k f_k (1 + n_k) + f_{p+1} (1 + Σ n_k)], with m
        rows, f_k features per row of base k, and n_k coordinates of mixer k. Each weight is a constant plus an inner
        product; terms whose constant is 0 are left out of D. The features of a weight times an estimate are tensor
        products. A minus sign is put into the key features, so query features and key features differ.
    Exact: `E[φ_q(x)·φ_k(y)] = exp(x·y)` if all bases are unbiased. The weights add up to 1 in each draw, and they are
        independent of the estimates of the bases. So they may have any mean.
    Error: variance `Σ_kl E[λ̂_k λ̂_l] Cov(K̂_k, K̂_l)`, and for biased bases b also `Σ_kl Cov(λ̂_k, λ̂_l) b_k b_l`.
        With `shared_rows` the estimates of different bases are correlated, and their covariances are part of the
        variance. They are known for independent, orthogonal and jointly Gaussian rows if all bases have
        `exponential_terms`; otherwise `NoClosedForm` is raised.
    Limits: estimates can be negative. Where two large terms should cancel, they cancel only up to the rounding error of
        the larger base estimate.
    For: kernel values if each region of pairs has an estimator that is best there.
    Source: Choromanski et al. 2022, "Hybrid Random Features".

    >>> import numpy as np
    >>> hybrid = HybridFeatures(mixers=(AngularMixer(num_signs=4),))
    >>> phi = hybrid.draw(dim=3, num_features=200, rng=0)
    >>> hybrid.features_per_row, phi.estimate(np.eye(3), np.eye(3)).shape
    (20, (3, 3))
    """

    kernel: SoftmaxFamily = field(init=False, default_factory=SoftmaxKernel)
    coupling: Coupling | str = field(init=False, default_factory=Independent)
    bases: tuple[SoftmaxEstimator, ...] = field(default_factory=lambda: (HyperbolicFeatures(), TrigonometricFeatures()))
    mixers: tuple[Mixer, ...] = field(default_factory=lambda: (AngularMixer(),))

    def __post_init__(self) -> None:
        for name, kind in (("bases", SoftmaxEstimator), ("mixers", Mixer)):
            values = getattr(self, name)
            if not isinstance(values, Iterable) or not all(isinstance(value, kind) for value in values):
                raise TypeError(f"{name} must be a tuple of {kind.__name__}s, got {short(values)}.")
            object.__setattr__(self, name, tuple(values))
        if len(self.bases) != len(self.mixers) + 1:
            raise ValueError(f"p mixers weigh p + 1 bases, got {len(self.mixers)} mixers and {len(self.bases)} bases.")
        for base in self.bases:
            if base.num_features(1, 1) != base.features_per_row:
                raise ValueError(f"bases must have so many features per row and no others, which {base!r} has not.")
        for name in ("kernel", "coupling"):
            different = list(dict.fromkeys(getattr(base, name) for base in self.bases))
            if len(different) > 1:
                listing = ", ".join(map(repr, different))
                raise ValueError(f"all bases must have the same {name}, got {listing}.")
            object.__setattr__(self, name, different[0])
        super().__post_init__()

    @classmethod
    @hinted
    def multipolar(
        cls,
        anchors: Any,
        *,
        width: float = 1.0,
        num_frequencies: int = 8,
        kernel: SoftmaxFamily | None = None,
        coupling: Coupling | str | None = None,
        shared_rows: bool = True,
    ) -> Self:
        """Make a hybrid that is exact where x + y is one of the `anchors` (p, d), if that is far from the others.

        Each anchor c has hyperbolic features centered at c, which are exact at x + y = c. Their weight is the Gaussian
        `exp(-|x + y - c|²/2·width²)`. Trigonometric features have the rest of the weight, so the hybrid is exact at
        x = y as far as the Gaussian weights vanish there. Anchors and width are in kernel units.
        """
        anchors = frozen_array(anchors, "anchors")
        if anchors.ndim != 2:
            raise ValueError(f"anchors must have shape (p, d), got {anchors.shape}.")
        kernel, coupling = or_default(kernel, coupling)
        hyperbolic = HyperbolicFeatures(kernel, coupling)
        bases = [CenteredFeatures(base=hyperbolic, key_shift=anchor) for anchor in anchors]
        mixers = [GaussianMixer(num_frequencies, width, anchor=anchor) for anchor in anchors]
        return cls(
            bases=(*bases, TrigonometricFeatures(kernel, coupling)), mixers=tuple(mixers), shared_rows=shared_rows
        )

    @property
    def components(self) -> tuple[SoftmaxEstimator, ...]:
        return self.bases

    @property
    def weights(self) -> tuple[Mixer, ...]:
        return self.mixers

    def with_kernel(self, kernel: SoftmaxFamily) -> Self:
        return dataclasses.replace(self, bases=tuple(base.with_kernel(kernel) for base in self.bases))

    def with_coupling(self, coupling: Coupling | str) -> Self:
        return dataclasses.replace(self, bases=tuple(base.with_coupling(coupling) for base in self.bases))
