"""Estimators: the laws of random features, one per file."""

from randfeat.estimators.angular_hybrid import AngularHybridFeatures
from randfeat.estimators.balanced import BalancedFeatures
from randfeat.estimators.base import Estimator
from randfeat.estimators.centered import CenteredFeatures
from randfeat.estimators.dense_exponential import DenseExponentialFeatures
from randfeat.estimators.gaussian_hybrid import GaussianHybridFeatures
from randfeat.estimators.generalized_exponential import GeneralizedExponentialFeatures
from randfeat.estimators.hybrid import HybridFeatures
from randfeat.estimators.hyperbolic import HyperbolicFeatures
from randfeat.estimators.mixers import AngularMixer, GaussianMixer, Mixer
from randfeat.estimators.optimal_positive import OptimalPositiveFeatures
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.posterior import PosteriorFeatures
from randfeat.estimators.trigonometric import TrigonometricFeatures

__all__ = [
    "AngularHybridFeatures",
    "AngularMixer",
    "BalancedFeatures",
    "CenteredFeatures",
    "DenseExponentialFeatures",
    "Estimator",
    "GaussianHybridFeatures",
    "GaussianMixer",
    "GeneralizedExponentialFeatures",
    "HybridFeatures",
    "HyperbolicFeatures",
    "Mixer",
    "OptimalPositiveFeatures",
    "PositiveFeatures",
    "PosteriorFeatures",
    "TrigonometricFeatures",
]
