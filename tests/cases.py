"""The table of cases: a new estimator, kernel or coupling is one line here and is then tested like all others."""

from functools import partial

import numpy as np

import randfeat as rf

KERNELS: list[rf.Kernel] = [rf.SoftmaxKernel(), rf.SoftmaxKernel(scale=2.0), rf.GaussianKernel(length_scale=1.2)]

COUPLINGS: list[rf.Coupling] = [
    rf.Independent(),
    rf.Orthogonal(),
    rf.Orthogonal(norms="constant"),
    rf.Simplex(),
    rf.Antithetic(),
    rf.Antithetic(rf.Orthogonal()),
    rf.Antithetic(rf.Simplex()),
    rf.CenteredGaussian(),
    rf.SphericalRadial(),
]

DIAGONAL = (1.0, 1j, -0.8, 0.9 + 0.5j)

FEATURES = [
    rf.PositiveFeatures,
    rf.HyperbolicFeatures,
    rf.TrigonometricFeatures,
    partial(rf.TrigonometricFeatures, variant="phase"),
    partial(rf.OptimalPositiveFeatures, exponent=-0.05),
    partial(rf.OptimalPositiveFeatures, exponent=-0.05, antithetic=True),
    partial(rf.GeneralizedExponentialFeatures, parameter=-0.03 + 0.04j),
    partial(rf.GeneralizedExponentialFeatures, parameter=-0.03 + 0.04j, sign=-1),
]

ESTIMATORS: list[rf.Estimator] = [
    make(kernel, coupling)
    for make in FEATURES
    for kernel in KERNELS
    for coupling in COUPLINGS
    if kernel == rf.SoftmaxKernel() or coupling in (rf.Independent(), rf.Orthogonal())
]
"""Estimators of the softmax family: every coupling, and with two of them every kernel."""

OTHERS: list[rf.Estimator] = [
    rf.ProductSketchFeatures(),
    rf.ProductSketchFeatures(rf.PolynomialKernel(degree=3, offset=0.5, scale=2.0), entries="complex"),
    rf.TensorSketchFeatures(rf.PolynomialKernel(degree=2, offset=0.3)),
    rf.MaclaurinFeatures(),
    rf.MaclaurinFeatures(rf.DotProductKernel((0.1, 0.0, 1.0, 2.0)), rate=0.5),
    rf.OpticalFeatures(),
    rf.OpticalFeatures(rf.OpticalKernel(exponent=0.5)),
    rf.StudentPositiveFeatures(coupling="independent"),
    2.0 * rf.CenteredFeatures(base=rf.ControlVariateFeatures(), query_shift=[0.1, 0.2, 0.0, -0.1]),
    rf.SpectralFeatures(),
    rf.SpectralFeatures(rf.ExponentialKernel(length_scale=2.0), variant="phase"),
    rf.SpectralFeatures(rf.RationalQuadraticKernel(alpha=0.7, length_scale=0.5), rf.Independent()),
    rf.SpectralFeatures(rf.ExponentialPowerKernel(power=0.6)),
    rf.SpectralFeatures(rf.MaternKernel(smoothness=0.8), rf.Orthogonal(norms="constant")),
    rf.SpectralFeatures(rf.LaplacianKernel(length_scale=1.5), rf.Independent()),
    rf.SpectralFeatures(rf.CauchyKernel(), rf.Independent(), "phase"),
    rf.SpectralFeatures(rf.SkewedChi2Kernel(offset=0.5), rf.Independent()),
    rf.SpectralFeatures(rf.AdditiveChi2Kernel(), rf.Independent()),
    0.5 * rf.SpectralFeatures(rf.AdditiveChi2Kernel(), rf.Independent(), "phase"),
    rf.RegularizedSoftmaxFeatures(),
    rf.RegularizedSoftmaxFeatures(rf.GaussianKernel(2.0), rf.Antithetic(rf.Orthogonal(norms="constant"))),
    rf.PoissonFeatures(rf.GaussianKernel(1.5), rate=0.4),
    rf.GeometricFeatures(),
    rf.ComplexExponentialFeatures(matrix=(1.0, 1.2, -0.8, 0.9)),
    rf.ComplexExponentialFeatures(rf.GaussianKernel(1.2), matrix=(1j, 1.2j, -0.8j, 0.9j)),
    rf.ComplexExponentialFeatures(coupling=rf.CenteredGaussian(), matrix=DIAGONAL),
    rf.ControlVariateFeatures(),
    rf.ControlVariateFeatures(coupling=rf.Simplex(), base="trigonometric"),
    rf.ImportanceSampledFeatures(means=[(0.0, 0.2, 0.4, 0.6)]),
    rf.ImportanceSampledFeatures(coupling=rf.Simplex(), means=[(0.0, 0.2, 0.4, 0.6)], variances=[1.3]),
    rf.TrigonometricFeatures(rf.NormalizedSoftmaxKernel(1.5)),
    rf.TrigonometricFeatures(rf.GaussianKernel(0.7))
    + 2.5 * rf.PositiveFeatures(rf.GaussianKernel(2.0), coupling="independent"),
    rf.SumFeatures(
        (
            rf.OptimalPositiveFeatures(exponent=-0.05, coupling="independent"),
            rf.HyperbolicFeatures(rf.GaussianKernel(1.2), coupling="antithetic"),
            rf.PositiveFeatures(coupling=rf.Orthogonal(norms="constant")),
        ),
        shares=(3, 1, 2),
    ),
    rf.PositiveFeatures(rf.SoftmaxKernel(0.5)) * rf.TrigonometricFeatures(rf.GaussianKernel(1.5), variant="phase"),
    rf.ProductFeatures(
        (
            rf.PositiveFeatures(rf.SoftmaxKernel(0.7), coupling=rf.Orthogonal(norms="constant")),
            rf.TrigonometricFeatures(rf.GaussianKernel(2.0)),
        ),
        shares=(2, 1),
    ),
    rf.ArdFeatures(rf.TrigonometricFeatures(rf.GaussianKernel()), (0.8, None, 1.5, 3.0)),
    rf.ArdFeatures(2.0 * rf.PositiveFeatures(), (1.0, 2.0, None, None))
    + rf.PositiveFeatures(rf.SoftmaxKernel(0.3)) * rf.ArdFeatures(rf.TrigonometricFeatures(), (None, None, 1.0, 1.5)),
    rf.AngularHybridFeatures(num_signs=1),
    rf.GaussianHybridFeatures(rf.GaussianKernel(1.2), rf.CenteredGaussian(), num_frequencies=1, width=4.0),
    rf.HybridFeatures(
        bases=(
            rf.PositiveFeatures(coupling=rf.Orthogonal(norms="constant")),
            rf.TrigonometricFeatures(coupling=rf.Orthogonal(norms="constant"), variant="phase"),
        ),
        mixers=(rf.estimators.AngularMixer(num_signs=1),),
        shared_rows=False,
    ),
    rf.ArcCosineFeatures(rf.ArcCosineKernel(order=0), rf.Antithetic()),
    rf.ArcCosineFeatures(rf.ArcCosineKernel(order=1), rf.Antithetic()),
    rf.ArcCosineFeatures(rf.ArcCosineKernel(order=2), rf.Independent()),
    rf.SignFeatures(coupling=rf.Antithetic()),
    rf.ActivationFeatures(rf.ActivationKernel("relu", offset=0.001), rf.Antithetic()),
    rf.ActivationFeatures(rf.ActivationKernel("elu_plus_one"), rf.Independent()),
    rf.ActivationFeatures(rf.ActivationKernel("gelu"), rf.Antithetic()),
    rf.ActivationFeatures(rf.ActivationKernel("sigmoid", offset=0.1), rf.Antithetic()),
    rf.ActivationFeatures(rf.ActivationKernel("cos", offset=0.2), rf.Independent()),
    rf.ActivationFeatures(rf.ActivationKernel("exp"), rf.Orthogonal()),
]
"""Estimators of other kernels, composed ones, and ones without a choice of rows."""

OPEN: list[rf.Estimator] = [
    rf.SpectralFeatures(rf.LaplacianKernel()),
    rf.SpectralFeatures(rf.AdditiveChi2Kernel()),
    rf.SpectralFeatures(rf.SkewedChi2Kernel(), rf.Sobol()),
    rf.SpectralFeatures(coupling=rf.Antithetic()),
    rf.SpectralFeatures(coupling=rf.Simplex()),
    rf.ComplexExponentialFeatures(matrix=DIAGONAL),
    rf.ControlVariateFeatures(coupling=rf.Orthogonal(norms="constant")),
    rf.ImportanceSampledFeatures(means=np.eye(3, 4) / 2, variances=[0.6, 1.0, 1.5], weights=[1, 2, 1]),
    rf.AngularHybridFeatures(coupling=rf.Simplex(), num_signs=1),
    rf.ArcCosineFeatures(),
    rf.SignFeatures(),
    rf.ActivationFeatures(),
    rf.ActivationFeatures(rf.ActivationKernel("tanh"), rf.Simplex()),
    rf.ActivationFeatures(rf.ActivationKernel("relu2"), rf.Orthogonal(norms="constant")),
]
"""The same, where the variance (or the mean) has no closed form: their pages say so, and `NoClosedForm` says what to
use instead."""

OTHER_COUPLINGS: list[rf.Coupling] = [
    rf.SimplexPlus(),
    rf.Fastfood(),
    rf.Circulant(),
    rf.Hadamard(),
    rf.Hadamard(blocks=1, norms="constant"),
    rf.Sobol(),
    rf.Halton(),
    rf.MomentMatched(order=1),
    rf.MomentMatched(),
    rf.Antithetic(rf.MomentMatched()),
    rf.GaussHermite(nodes=2),
    rf.GaussHermite(nodes=3),
    rf.Antithetic(rf.GaussHermite(nodes=2)),
]
"""Couplings that exist for some numbers of rows or dimensions only, or whose joint laws have no closed form."""

ATTENTION: list[rf.Estimator] = [*(make() for make in FEATURES[:4]), rf.GeneralizedExponentialFeatures(parameter=0.04j)]
"""One estimator per kind of features, of the plain softmax kernel: what attention tests run over.

Scales per row and per feature, positive and signed values, equal and different features of queries and keys.
"""

POSITIVE: list[rf.Estimator] = [estimator for estimator in ATTENTION if estimator.positive]


def widths(estimator: rf.Estimator, dim: int) -> list[int]:
    """Widths that make fewer rows than the dimension, as many, a few more, and twice as many; and the least one."""
    rows = {row for wish in (1, dim - 1, dim, dim + 1, 2 * dim) for row in estimator.coupling.nearest_num_rows(wish)}
    return sorted(estimator.features_per_row * row for row in rows if row > 0)
