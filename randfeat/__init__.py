"""Random features for the softmax, Gaussian and other kernels: unbiased, with exact variances, on every array library.

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

from randfeat import bounds, couplings, estimators, kernels, montecarlo, testing
from randfeat.attention import (
    AttentionCosts,
    AttentionMethod,
    AttentionState,
    attention_method,
    kernel_attention,
    linear_attention,
    linear_attention_vjp,
    softmax_attention,
)
from randfeat.couplings import *
from randfeat.estimators import *
from randfeat.features import Features, concatenate, tensor_product
from randfeat.kernels import *
from randfeat.maps import FeatureMap
from randfeat.regression.feature_moments import FeatureMoments
from randfeat.regression.gaussian_process import SampleFunctions, prior_functions
from randfeat.selection.adaptation import adapt
from randfeat.selection.catalogue import catalogue
from randfeat.selection.diagnostics import AttentionDiagnostics, attention_diagnostics
from randfeat.selection.planning import num_features_for, predict_attention_error
from randfeat.selection.recommendation import recommend
from randfeat.storage import load, save
from randfeat.variance import NoClosedForm

__version__ = "0.1.0"

__all__ = [
    "AttentionCosts",
    "AttentionDiagnostics",
    "AttentionMethod",
    "AttentionState",
    "FeatureMap",
    "FeatureMoments",
    "Features",
    "NoClosedForm",
    "SampleFunctions",
    "adapt",
    "attention_diagnostics",
    "attention_method",
    "bounds",
    "catalogue",
    "concatenate",
    "kernel_attention",
    "linear_attention",
    "linear_attention_vjp",
    "load",
    "montecarlo",
    "num_features_for",
    "predict_attention_error",
    "prior_functions",
    "recommend",
    "save",
    "softmax_attention",
    "tensor_product",
    "testing",
]
__all__ += couplings.__all__
__all__ += estimators.__all__
__all__ += kernels.__all__
