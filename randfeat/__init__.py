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

from typing import TYPE_CHECKING

from randfeat._hints import lazy_modules as _lazy_modules
from randfeat.attention import (
    AttentionCosts,
    AttentionDecoder,
    AttentionState,
    PartialOutput,
    attention_method,
    kernel_attention,
    linear_attention,
    linear_attention_vjp,
    softmax_attention,
)
from randfeat.compressed import (
    KeyCache,
    QueryClusters,
    clustered_attention,
    compress,
    compressed_attention,
    output_error,
)
from randfeat.couplings import (
    Antithetic,
    CenteredGaussian,
    Circulant,
    Coupling,
    Fastfood,
    GaussHermite,
    Hadamard,
    Halton,
    Independent,
    MomentMatched,
    Orthogonal,
    Simplex,
    SimplexPlus,
    Sobol,
    SphericalRadial,
)
from randfeat.couplings.laws import NoClosedForm
from randfeat.estimators import (
    ActivationFeatures,
    AngularHybridFeatures,
    ArcCosineFeatures,
    ArdFeatures,
    BalancedFeatures,
    CenteredFeatures,
    ComplexExponentialFeatures,
    ControlVariateFeatures,
    DenseExponentialFeatures,
    Estimator,
    GaussianHybridFeatures,
    GeneralizedExponentialFeatures,
    GeometricFeatures,
    HybridFeatures,
    HyperbolicFeatures,
    ImportanceSampledFeatures,
    MaclaurinFeatures,
    OpticalFeatures,
    OptimalPositiveFeatures,
    PoissonFeatures,
    PositiveFeatures,
    PosteriorFeatures,
    ProductFeatures,
    ProductSketchFeatures,
    RegularizedSoftmaxFeatures,
    ScaledFeatures,
    SignFeatures,
    SpectralFeatures,
    StudentPositiveFeatures,
    SumFeatures,
    TensorSketchFeatures,
    TrigonometricFeatures,
)
from randfeat.features import Features
from randfeat.kernels import (
    ActivationKernel,
    AngularKernel,
    ArcCosineKernel,
    ArdKernel,
    CauchyKernel,
    DotProductKernel,
    ExponentialKernel,
    ExponentialPowerKernel,
    GaussianKernel,
    Kernel,
    LaplacianKernel,
    MaternKernel,
    NormalizedSoftmaxKernel,
    OpticalKernel,
    PolynomialKernel,
    RationalQuadraticKernel,
    SoftmaxKernel,
)
from randfeat.maps import FeatureMap
from randfeat.regression import FeatureMoments, prior_functions
from randfeat.selection import (
    adapt,
    attention_diagnostics,
    catalogue,
    num_features_for,
    predict_attention_error,
    recommend,
)
from randfeat.storage import load, register, save

if TYPE_CHECKING:
    from randfeat import bounds, integrations, montecarlo, plotting, testing
else:
    __getattr__, __dir__ = _lazy_modules("randfeat", ["bounds", "integrations", "montecarlo", "plotting", "testing"])

__version__ = "0.1.0"

__all__ = [
    "ActivationFeatures",
    "ActivationKernel",
    "AngularHybridFeatures",
    "AngularKernel",
    "Antithetic",
    "ArcCosineFeatures",
    "ArcCosineKernel",
    "ArdFeatures",
    "ArdKernel",
    "AttentionCosts",
    "AttentionDecoder",
    "AttentionState",
    "BalancedFeatures",
    "CauchyKernel",
    "CenteredFeatures",
    "CenteredGaussian",
    "Circulant",
    "ComplexExponentialFeatures",
    "ControlVariateFeatures",
    "Coupling",
    "DenseExponentialFeatures",
    "DotProductKernel",
    "Estimator",
    "ExponentialKernel",
    "ExponentialPowerKernel",
    "Fastfood",
    "FeatureMap",
    "FeatureMoments",
    "Features",
    "GaussHermite",
    "GaussianHybridFeatures",
    "GaussianKernel",
    "GeneralizedExponentialFeatures",
    "GeometricFeatures",
    "Hadamard",
    "Halton",
    "HybridFeatures",
    "HyperbolicFeatures",
    "ImportanceSampledFeatures",
    "Independent",
    "Kernel",
    "KeyCache",
    "LaplacianKernel",
    "MaclaurinFeatures",
    "MaternKernel",
    "MomentMatched",
    "NoClosedForm",
    "NormalizedSoftmaxKernel",
    "OpticalFeatures",
    "OpticalKernel",
    "OptimalPositiveFeatures",
    "Orthogonal",
    "PartialOutput",
    "PoissonFeatures",
    "PolynomialKernel",
    "PositiveFeatures",
    "PosteriorFeatures",
    "ProductFeatures",
    "ProductSketchFeatures",
    "QueryClusters",
    "RationalQuadraticKernel",
    "RegularizedSoftmaxFeatures",
    "ScaledFeatures",
    "SignFeatures",
    "Simplex",
    "SimplexPlus",
    "Sobol",
    "SoftmaxKernel",
    "SpectralFeatures",
    "SphericalRadial",
    "StudentPositiveFeatures",
    "SumFeatures",
    "TensorSketchFeatures",
    "TrigonometricFeatures",
    "adapt",
    "attention_diagnostics",
    "attention_method",
    "bounds",
    "catalogue",
    "clustered_attention",
    "compress",
    "compressed_attention",
    "integrations",
    "kernel_attention",
    "linear_attention",
    "linear_attention_vjp",
    "load",
    "montecarlo",
    "num_features_for",
    "output_error",
    "plotting",
    "predict_attention_error",
    "prior_functions",
    "recommend",
    "register",
    "save",
    "softmax_attention",
    "testing",
]
