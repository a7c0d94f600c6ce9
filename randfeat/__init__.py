"""Random features for the softmax and Gaussian kernels: unbiased, with exact variances, on every array library.

Describe an estimator, draw a feature map, use its features:

>>> import numpy as np, randfeat as rf
>>> estimator = rf.PositiveFeatures(coupling="orthogonal")
>>> phi = estimator.draw(dim=16, num_features=256, rng=0)
>>> x = np.random.default_rng(1).standard_normal((5, 16)) / 4
>>> phi(x).shape
(5, 256)
>>> error = np.abs(phi.estimate(x, x) / rf.SoftmaxKernel()(x, x) - 1)
>>> bool(np.all(error < 5 * np.sqrt(estimator.relative_variance(x[:, None], x, num_features=256))))
True
"""

from randfeat import montecarlo, testing
from randfeat.adaptation import adapt
from randfeat.attention import AttentionState, kernel_attention, linear_attention, softmax_attention
from randfeat.couplings import Antithetic, CenteredGaussian, Coupling, Independent, Orthogonal, Simplex
from randfeat.estimators import (
    ActivationFeatures,
    ArcCosineFeatures,
    BalancedFeatures,
    CenteredFeatures,
    DenseExponentialFeatures,
    Estimator,
    GeneralizedExponentialFeatures,
    HyperbolicFeatures,
    OptimalPositiveFeatures,
    PositiveFeatures,
    PosteriorFeatures,
    SignFeatures,
    TrigonometricFeatures,
)
from randfeat.features import Features, concatenate, tensor_product
from randfeat.kernels import ActivationKernel, AngularKernel, ArcCosineKernel, GaussianKernel, Kernel, SoftmaxKernel
from randfeat.maps import FeatureMap
from randfeat.planning import num_features_for, predict_attention_error
from randfeat.variance import NoClosedForm

__version__ = "0.1.0"

__all__ = [
    "ActivationFeatures",
    "ActivationKernel",
    "AngularKernel",
    "Antithetic",
    "ArcCosineFeatures",
    "ArcCosineKernel",
    "AttentionState",
    "BalancedFeatures",
    "CenteredFeatures",
    "CenteredGaussian",
    "Coupling",
    "DenseExponentialFeatures",
    "Estimator",
    "FeatureMap",
    "Features",
    "GaussianKernel",
    "GeneralizedExponentialFeatures",
    "HyperbolicFeatures",
    "Independent",
    "Kernel",
    "NoClosedForm",
    "OptimalPositiveFeatures",
    "Orthogonal",
    "PositiveFeatures",
    "PosteriorFeatures",
    "SignFeatures",
    "Simplex",
    "SoftmaxKernel",
    "TrigonometricFeatures",
    "adapt",
    "concatenate",
    "kernel_attention",
    "linear_attention",
    "montecarlo",
    "num_features_for",
    "predict_attention_error",
    "softmax_attention",
    "tensor_product",
    "testing",
]
