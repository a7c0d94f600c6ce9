"""The table of cases: a new estimator, kernel or coupling is one line here and is then tested like all others."""

from functools import partial

from randfeat import (
    ActivationFeatures,
    ActivationKernel,
    Antithetic,
    ArcCosineFeatures,
    ArcCosineKernel,
    CenteredGaussian,
    Coupling,
    Estimator,
    GaussianKernel,
    GeneralizedExponentialFeatures,
    HyperbolicFeatures,
    Independent,
    Kernel,
    OptimalPositiveFeatures,
    Orthogonal,
    PositiveFeatures,
    SignFeatures,
    Simplex,
    SoftmaxKernel,
    TrigonometricFeatures,
)

KERNELS: list[Kernel] = [SoftmaxKernel(), SoftmaxKernel(scale=2.0), GaussianKernel(length_scale=1.2)]

COUPLINGS: list[Coupling] = [
    Independent(),
    Orthogonal(),
    Orthogonal(norms="constant"),
    Simplex(),
    Antithetic(),
    Antithetic(Orthogonal()),
    Antithetic(Simplex()),
    CenteredGaussian(),
]

FEATURES = [
    PositiveFeatures,
    HyperbolicFeatures,
    TrigonometricFeatures,
    partial(TrigonometricFeatures, variant="phase"),
    partial(OptimalPositiveFeatures, exponent=-0.05),
    partial(OptimalPositiveFeatures, exponent=-0.05, antithetic=True),
    partial(GeneralizedExponentialFeatures, parameter=-0.03 + 0.04j),
    partial(GeneralizedExponentialFeatures, parameter=-0.03 + 0.04j, sign=-1),
]

ESTIMATORS: list[Estimator] = [
    make(kernel, coupling)
    for make in FEATURES
    for kernel in KERNELS
    for coupling in COUPLINGS
    if kernel == SoftmaxKernel() or coupling in (Independent(), Orthogonal())
]
"""Estimators of the softmax family: every coupling, and with two of them every kernel."""

OTHERS: list[Estimator] = [
    ArcCosineFeatures(ArcCosineKernel(order=0), Antithetic()),
    ArcCosineFeatures(ArcCosineKernel(order=1), Antithetic()),
    ArcCosineFeatures(ArcCosineKernel(order=2), Independent()),
    SignFeatures(coupling=Antithetic()),
    ActivationFeatures(ActivationKernel("relu", offset=0.001), Antithetic()),
    ActivationFeatures(ActivationKernel("elu_plus_one"), Independent()),
    ActivationFeatures(ActivationKernel("gelu"), Antithetic()),
    ActivationFeatures(ActivationKernel("sigmoid", offset=0.1), Antithetic()),
    ActivationFeatures(ActivationKernel("cos", offset=0.2), Independent()),
    ActivationFeatures(ActivationKernel("exp"), Orthogonal()),
]
"""Estimators of other kernels, composed ones, and ones without a choice of rows."""

OPEN: list[Estimator] = [
    ArcCosineFeatures(),
    SignFeatures(),
    ActivationFeatures(),
    ActivationFeatures(ActivationKernel("tanh"), Simplex()),
    ActivationFeatures(ActivationKernel("relu2"), Orthogonal(norms="constant")),
]
"""The same, where the variance (or the mean) has no closed form: their pages say so, and `NoClosedForm` says what to
use instead."""

OTHER_COUPLINGS: list[Coupling] = []
"""Couplings that exist for some numbers of rows or dimensions only, or whose joint laws have no closed form."""

ATTENTION: list[Estimator] = [*(make() for make in FEATURES[:4]), GeneralizedExponentialFeatures(parameter=0.04j)]
"""One estimator per kind of features, of the plain softmax kernel: what attention tests run over.

Scales per row and per feature, positive and signed values, equal and different features of queries and keys.
"""

POSITIVE: list[Estimator] = [estimator for estimator in ATTENTION if estimator.positive]


def widths(estimator: Estimator, dim: int) -> list[int]:
    """Widths that make fewer rows than the dimension, as many, a few more, and twice as many; and the least one."""
    rows = {row for wish in (1, dim - 1, dim, dim + 1, 2 * dim) for row in estimator.coupling.nearest_num_rows(wish)}
    return sorted(estimator.features_per_row * row for row in rows if row > 0)
