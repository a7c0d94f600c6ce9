"""Estimators: the laws of random features, one per file."""

from randfeat.estimators.balanced import BalancedFeatures
from randfeat.estimators.base import Estimator
from randfeat.estimators.centered import CenteredFeatures
from randfeat.estimators.dense_exponential import DenseExponentialFeatures
from randfeat.estimators.generalized_exponential import GeneralizedExponentialFeatures
from randfeat.estimators.hyperbolic import HyperbolicFeatures
from randfeat.estimators.maclaurin import MaclaurinFeatures
from randfeat.estimators.optical import OpticalFeatures
from randfeat.estimators.optimal_positive import OptimalPositiveFeatures
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.posterior import PosteriorFeatures
from randfeat.estimators.product_sketch import ProductSketchFeatures
from randfeat.estimators.spectral import SpectralFeatures
from randfeat.estimators.tensor_sketch import TensorSketchFeatures
from randfeat.estimators.trigonometric import TrigonometricFeatures

__all__ = [
    "BalancedFeatures",
    "CenteredFeatures",
    "DenseExponentialFeatures",
    "Estimator",
    "GeneralizedExponentialFeatures",
    "HyperbolicFeatures",
    "MaclaurinFeatures",
    "OpticalFeatures",
    "OptimalPositiveFeatures",
    "PositiveFeatures",
    "PosteriorFeatures",
    "ProductSketchFeatures",
    "SpectralFeatures",
    "TensorSketchFeatures",
    "TrigonometricFeatures",
]
