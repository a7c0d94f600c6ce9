"""Estimators: the laws of random features, one per file."""

from randfeat.estimators.activation import ActivationFeatures
from randfeat.estimators.arc_cosine import ArcCosineFeatures
from randfeat.estimators.balanced import BalancedFeatures
from randfeat.estimators.base import Estimator
from randfeat.estimators.centered import CenteredFeatures
from randfeat.estimators.dense_exponential import DenseExponentialFeatures
from randfeat.estimators.generalized_exponential import GeneralizedExponentialFeatures
from randfeat.estimators.hyperbolic import HyperbolicFeatures
from randfeat.estimators.optimal_positive import OptimalPositiveFeatures
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.posterior import PosteriorFeatures
from randfeat.estimators.sign import SignFeatures
from randfeat.estimators.trigonometric import TrigonometricFeatures

__all__ = [
    "ActivationFeatures",
    "ArcCosineFeatures",
    "BalancedFeatures",
    "CenteredFeatures",
    "DenseExponentialFeatures",
    "Estimator",
    "GeneralizedExponentialFeatures",
    "HyperbolicFeatures",
    "OptimalPositiveFeatures",
    "PositiveFeatures",
    "PosteriorFeatures",
    "SignFeatures",
    "TrigonometricFeatures",
]
