"""Cases of the catalogue: every kernel, every coupling, every estimator with each of its kernels and couplings."""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import randfeat as rf
from experiments.benchmarks.same_numbers.results import Case, attempt
from randfeat import estimators, kernels

DIM, EXAMPLE_DIM = 6, 4  # the second where an example has parameters for that dimension
WIDTH, WIDE, WIDEST = 24, 256, 3000
FEW, MANY = 40, 700  # rows below and above the threshold of the fast path of plain features
DTYPES = ("float32", "float64")
BATCHES: tuple[tuple[int, ...], ...] = ((), (2,))


def points(seed: int, *shape: int, dtype: str = "float64", scale: float = 1.0) -> np.ndarray:
    """Normal vectors of mean square length `scale²`; the same values in every dtype, up to its rounding."""
    values = np.random.default_rng((seed, *shape)).standard_normal(shape)
    return (scale * values / math.sqrt(shape[-1])).astype(dtype)


def kernel_cases(seed: int) -> Iterator[Case]:
    """The Gram matrix, values of pairs, and logarithms where there are any."""
    for (name, kernel), dtype in itertools.product(all_kernels().items(), ("float16", *DTYPES)):
        yield f"kernel {name} {dtype}", functools.partial(kernel_numbers, kernel, seed, dtype)


@functools.cache
def all_kernels() -> dict[str, Any]:
    """Kernels with their default parameters, and some with others."""
    found = {entry.name: attempt(getattr(kernels, entry.name, dict)) for entry in rf.catalogue("kernel")}
    softmax, gaussian = rf.SoftmaxKernel(), rf.GaussianKernel(1.2)
    return {name: kernel for name, kernel in found.items() if isinstance(kernel, rf.Kernel)} | {
        "softmax of scale 2": rf.SoftmaxKernel(scale=2.0),
        "gaussian of length 1.2": gaussian,
        "normalized softmax of length 1.5": rf.NormalizedSoftmaxKernel(1.5),
        "matern 0.8": rf.MaternKernel(smoothness=0.8),
        "exponential power 0.6": rf.ExponentialPowerKernel(power=0.6),
        "rational quadratic 0.7": rf.RationalQuadraticKernel(alpha=0.7, length_scale=0.5),
        "polynomial of degree 3": rf.PolynomialKernel(degree=3, offset=0.5, scale=2.0),
        "dot product": rf.DotProductKernel((0.1, 0.0, 1.0, 2.0)),
        "optical 0.5": rf.OpticalKernel(exponent=0.5),
        "arc-cosine 0": rf.ArcCosineKernel(order=0),
        "arc-cosine 2": rf.ArcCosineKernel(order=2),
        "sum": softmax + 2.5 * gaussian,
        "product": softmax * gaussian,
        **{
            f"activation {name}": rf.ActivationKernel(name, offset=0.1)
            for name in ("relu", "relu2", "elu_plus_one", "gelu", "sigmoid", "tanh", "cos", "exp")
        },
    }


def kernel_numbers(kernel: Any, seed: int, dtype: str) -> dict[str, Any]:
    """Values at normal points, and at points so long that exponentials overflow in float16."""
    x, y = points(seed, 9, DIM, dtype=dtype), points(seed + 1, 2, 7, DIM, dtype=dtype)
    return {
        "gram": attempt(kernel, x, y),
        "pairwise": attempt(kernel.pairwise, x[:7], y),
        "long": attempt(kernel, 4 * x, 4 * y),
        "log_gram": attempt(kernel.log_gram, 4 * x, 4 * y),
    }


def coupling_names() -> list[str]:
    return [name for entry in rf.catalogue("coupling") for name in entry.acronyms]


def coupling_cases(seed: int) -> Iterator[Case]:
    """Samples in two dimensions, of fewer rows than the dimension and of more."""
    for name, dim, batch in itertools.product(coupling_names(), (EXAMPLE_DIM, DIM), BATCHES):
        compute = functools.partial(coupling_numbers, name, dim, batch, seed)
        yield f"coupling {name} dim={dim} batch={batch}", compute


def coupling_numbers(name: str, dim: int, batch: tuple[int, ...], seed: int) -> dict[str, Any]:
    coupling: Any = rf.PositiveFeatures(coupling=name).coupling
    sizes = sorted({size for wish in (3, 16) for size in coupling.nearest_num_rows(wish, dim) if size})
    return {
        str(size): attempt(coupling.sample, size, dim, rng=np.random.default_rng(seed), batch_shape=batch)
        for size in sizes
    }


@functools.cache
def all_estimators() -> dict[str, Any]:
    """The examples of the catalogue, and variants of which they show one side only."""
    names = [entry.name for entry in rf.catalogue("estimator") if entry.name in estimators.__all__]
    found = {name: getattr(estimators, name).example() for name in names}
    gaussian, positive = rf.GaussianKernel(1.5), rf.PositiveFeatures()
    return found | {
        "trigonometric, phases": rf.TrigonometricFeatures(variant="phase"),
        "optimal positive, antithetic": rf.OptimalPositiveFeatures(exponent=-0.05, antithetic=True),
        "generalized, sign -1": rf.GeneralizedExponentialFeatures(parameter=-0.03 + 0.04j, sign=-1),
        "positive of a gaussian": rf.PositiveFeatures(rf.GaussianKernel(1.2)),
        "activation, relu": rf.ActivationFeatures(rf.ActivationKernel("relu", offset=0.001)),
        "activation, elu": rf.ActivationFeatures(rf.ActivationKernel("elu_plus_one")),
        "spectral, phases": rf.SpectralFeatures(rf.ExponentialKernel(2.0), variant="phase"),
        "control variate, waves": rf.ControlVariateFeatures(base="trigonometric"),
        "tensor sketch, offset": rf.TensorSketchFeatures(rf.PolynomialKernel(degree=2, offset=0.3)),
        "product sketch, complex": rf.ProductSketchFeatures(rf.PolynomialKernel(degree=3), entries="complex"),
        "importance, three": rf.ImportanceSampledFeatures(means=np.eye(3, 4) / 2, variances=np.array([0.6, 1.0, 1.5])),
        "sum, shares": rf.SumFeatures((positive, rf.HyperbolicFeatures(gaussian)), shares=(1, 2)),
        "product, scaled": 2.0 * positive * rf.TrigonometricFeatures(gaussian, variant="phase"),
        "length-scales of a sum": rf.ArdFeatures(2.0 * positive, (1.0, 2.0, None, 0.5)) + positive,
        "centered, both": rf.CenteredFeatures(base=rf.HyperbolicFeatures(), query_shift=np.full(4, 0.2)),
        "balanced, waves": rf.BalancedFeatures(base=rf.TrigonometricFeatures(), matrix=np.diag([1, 2, 0.5, 1])),
    }


def estimator_cases(seed: int) -> Iterator[Case]:
    """Small draws and closed forms with each coupling; with each kernel that is taken; plain features of many rows."""
    for name, estimator in all_estimators().items():
        for coupling in (None, *coupling_names()):
            title = f"estimator {name}, {coupling or 'own rows'}"
            coupled = estimator if coupling is None else attempt(estimator.with_coupling, coupling)
            if isinstance(coupled, dict):
                yield title, functools.partial(dict, coupled)  # a refusal is a case, too
            else:
                yield from small_cases(title, coupled, seed, DTYPES, BATCHES)
        for kernel_name, kernel in all_kernels().items():
            other = attempt(replace, estimator, kernel=kernel)
            if not isinstance(other, dict):
                title = f"estimator {name} of kernel {kernel_name}"
                yield from small_cases(title, other, seed, ("float32",), BATCHES[:1])
        for dtype, batch in itertools.product(DTYPES, BATCHES):
            compute = functools.partial(plain_features, estimator, dtype, batch, seed)
            yield f"estimator {name}, plain features, {dtype} batch={batch}", compute


def small_cases(
    title: str, estimator: Any, seed: int, dtypes: Sequence[str], batches: Sequence[tuple[int, ...]]
) -> Iterator[Case]:
    """One case for the closed forms and one for each kind of draw."""
    yield f"{title}, closed forms", functools.partial(closed_forms, estimator, seed)
    for dtype, batch in itertools.product(dtypes, batches):
        yield f"{title}, {dtype} batch={batch}", functools.partial(draw_numbers, estimator, dtype, batch, seed)


def dimension(estimator: Any) -> int:
    """The dimension that the parameters are for, or 6."""
    if estimator.parameter_dim is not None:
        return int(estimator.parameter_dim)
    probe = attempt(lambda: draw_nearest(estimator, DIM, WIDTH, rng=0).queries(points(0, 2, DIM)))
    return EXAMPLE_DIM if isinstance(probe, dict) else DIM


def draw_nearest(estimator: Any, dim: int, wish: int, **options: Any) -> Any:
    """A map of the possible width that is nearest to the wish; widths that are refused cost no draw."""
    reason = ValueError("no width was tried.")
    for distance in range(WIDEST):
        for width in sorted({max(wish - distance, 1), wish + distance}):
            try:
                return estimator.draw(dim, width, **options)
            except ValueError as refused:
                reason = refused
    raise reason


def features_of(features: Any) -> dict[str, Any]:
    return {"values": features.values, "log_scale": features.log_scale}


def draw_numbers(estimator: Any, dtype: str, batch: tuple[int, ...], seed: int) -> dict[str, Any]:
    """Drawn arrays, and the features and estimates of a few inputs."""
    dim = dimension(estimator)
    x, y = points(seed, FEW, dim, dtype=dtype), points(seed + 1, 7, dim, dtype=dtype)
    phi = draw_nearest(estimator, dim, WIDTH, rng=seed, like=x, batch_shape=(*batch, *estimator.batch_shape))
    return {
        "arrays": dict(phi.arrays),
        "queries": features_of(phi.queries(3 * x)),
        "keys": features_of(phi.keys(y)),
        "plain": attempt(phi, x),
        "estimate": phi.estimate(x, y),
        "pairwise": phi.estimate_pairwise(x[:7], y),
    }


def closed_forms(estimator: Any, seed: int) -> dict[str, Any]:
    """Mean, variance and errors, or the refusal of each."""
    dim = dimension(estimator)
    width = draw_nearest(estimator, dim, WIDTH, rng=0).num_features
    x, y = points(seed, 3, dim), points(seed + 1, 2, 1, dim)
    x = np.concatenate([x, np.zeros((1, dim)), y[0]])  # zero, and a pair of equal vectors
    names = ("mean", "variance", "relative_variance", "mse", "relative_mse")
    return {name: attempt(getattr(estimator, name), x, y, num_features=width) for name in names}


def plain_features(estimator: Any, dtype: str, batch: tuple[int, ...], seed: int) -> dict[str, Any]:
    """Features of many rows, which NumPy writes block by block; one thread and two."""
    dim = dimension(estimator)
    x = points(seed, MANY, dim, dtype=dtype)
    phi = draw_nearest(estimator, dim, WIDE, rng=seed, like=x, batch_shape=(*batch, *estimator.batch_shape))
    return {"one thread": phi(x, num_threads=1), "two threads": phi(x[:600], num_threads=2)}
