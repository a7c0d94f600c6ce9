"""Estimators: the laws of random features, one per file."""

from randfeat.estimators.activation import ActivationFeatures
from randfeat.estimators.angular_hybrid import AngularHybridFeatures
from randfeat.estimators.arc_cosine import ArcCosineFeatures
from randfeat.estimators.ard import ArdFeatures
from randfeat.estimators.balanced import BalancedFeatures
from randfeat.estimators.base import Estimator
from randfeat.estimators.centered import CenteredFeatures
from randfeat.estimators.complex_exponential import ComplexExponentialFeatures
from randfeat.estimators.control_variate import ControlVariateFeatures
from randfeat.estimators.dense_exponential import DenseExponentialFeatures
from randfeat.estimators.exponential import ExponentialEstimator
from randfeat.estimators.fourier import FourierEstimator
from randfeat.estimators.gaussian_hybrid import GaussianHybridFeatures
from randfeat.estimators.generalized_exponential import GeneralizedExponentialFeatures
from randfeat.estimators.geometric import GeometricFeatures
from randfeat.estimators.hybrid import HybridFeatures
from randfeat.estimators.hyperbolic import HyperbolicFeatures
from randfeat.estimators.importance_sampled import ImportanceSampledFeatures
from randfeat.estimators.maclaurin import MaclaurinFeatures
from randfeat.estimators.mixers import AngularMixer, GaussianMixer, Mixer
from randfeat.estimators.optical import OpticalFeatures
from randfeat.estimators.optimal_positive import OptimalPositiveFeatures
from randfeat.estimators.poisson import PoissonFeatures
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.posterior import PosteriorFeatures
from randfeat.estimators.product import ProductFeatures
from randfeat.estimators.product_sketch import ProductSketchFeatures
from randfeat.estimators.regularized_softmax import RegularizedSoftmaxFeatures
from randfeat.estimators.scaled import ScaledFeatures
from randfeat.estimators.sign import SignFeatures
from randfeat.estimators.softmax import SoftmaxEstimator
from randfeat.estimators.spectral import SpectralFeatures
from randfeat.estimators.student import StudentPositiveFeatures
from randfeat.estimators.sum import SumFeatures
from randfeat.estimators.tensor_sketch import TensorSketchFeatures
from randfeat.estimators.trigonometric import TrigonometricFeatures
from randfeat.estimators.uncoupled import UncoupledEstimator

__all__ = [
    "ActivationFeatures",
    "AngularHybridFeatures",
    "AngularMixer",
    "ArcCosineFeatures",
    "ArdFeatures",
    "BalancedFeatures",
    "CenteredFeatures",
    "ComplexExponentialFeatures",
    "ControlVariateFeatures",
    "DenseExponentialFeatures",
    "Estimator",
    "ExponentialEstimator",
    "FourierEstimator",
    "GaussianHybridFeatures",
    "GaussianMixer",
    "GeneralizedExponentialFeatures",
    "GeometricFeatures",
    "HybridFeatures",
    "HyperbolicFeatures",
    "ImportanceSampledFeatures",
    "MaclaurinFeatures",
    "Mixer",
    "OpticalFeatures",
    "OptimalPositiveFeatures",
    "PoissonFeatures",
    "PositiveFeatures",
    "PosteriorFeatures",
    "ProductFeatures",
    "ProductSketchFeatures",
    "RegularizedSoftmaxFeatures",
    "ScaledFeatures",
    "SignFeatures",
    "SoftmaxEstimator",
    "SpectralFeatures",
    "StudentPositiveFeatures",
    "SumFeatures",
    "TensorSketchFeatures",
    "TrigonometricFeatures",
    "UncoupledEstimator",
]
