"""Cases of the catalogue: every kernel, every coupling, every estimator with each of its kernels and couplings."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import randfeat as rf
from experiments.benchmarks.same_numbers.digests import attempt
from randfeat import estimators, kernels

__all__ = ["coupling_cases", "draw_nearest", "estimator_cases", "kernel_cases", "points"]

DIM, EXAMPLE_DIM = 6, 4  # the second where an example has parameters for that dimension
WIDTH, WIDE, WIDEST = 24, 256, 3000
FEW, MANY = 40, 700  # rows below and above the threshold of the fast path of plain features
DTYPES = ("float32", "float64")
BATCHES: tuple[tuple[int, ...], ...] = ((), (2,))


def points(seed: int, *shape: int, dtype: str = "float64", scale: float = 1.0) -> np.ndarray:
    """Normal vectors of mean square length `scale²`; the same values in every dtype, up to its rounding."""
    values = np.random.default_rng((seed, *shape)).standard_normal(shape)
    return (scale * values / math.sqrt(shape[-1])).astype(dtype)


def kernel_cases(seed: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The Gram matrix, values of pairs, and logarithms where there are any."""
    for name, kernel in all_kernels().items():
        for dtype in ("float16", *DTYPES):
            yield f"kernel {name} {dtype}", functools.partial(kernel_numbers, kernel, seed, dtype)


def all_kernels() -> dict[str, Any]:
    """Kernels with their default parameters, and some with others."""
    found: dict[str, Any] = {}
    for entry in rf.catalogue("kernel"):
        make: Any = getattr(kernels, entry.name, None)
        try:
            found[entry.name] = make()
        except TypeError:  # it is made of other kernels, or not public
            continue
    softmax, gaussian = kernels.SoftmaxKernel(), kernels.GaussianKernel(1.2)
    return found | {
        "softmax of scale 2": kernels.SoftmaxKernel(scale=2.0),
        "gaussian of length 1.2": gaussian,
        "normalized softmax of length 1.5": kernels.NormalizedSoftmaxKernel(1.5),
        "matern 0.8": kernels.MaternKernel(smoothness=0.8),
        "exponential power 0.6": kernels.ExponentialPowerKernel(power=0.6),
        "rational quadratic 0.7": kernels.RationalQuadraticKernel(alpha=0.7, length_scale=0.5),
        "polynomial of degree 3": kernels.PolynomialKernel(degree=3, offset=0.5, scale=2.0),
        "dot product": kernels.DotProductKernel((0.1, 0.0, 1.0, 2.0)),
        "optical 0.5": kernels.OpticalKernel(exponent=0.5),
        "arc-cosine 0": kernels.ArcCosineKernel(order=0),
        "arc-cosine 2": kernels.ArcCosineKernel(order=2),
        "sum": softmax + 2.5 * gaussian,
        "product": softmax * gaussian,
        **{
            f"activation {name}": kernels.ActivationKernel(name, offset=0.1)
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
    """The names that stand for couplings."""
    return [entry.acronyms[0] for entry in rf.catalogue("coupling")]


def coupling_cases(seed: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Samples in two dimensions, of fewer rows than the dimension and of more."""
    for name in coupling_names():
        for dim in (EXAMPLE_DIM, DIM):
            for batch in BATCHES:
                yield (
                    f"coupling {name} dim={dim} batch={batch}",
                    functools.partial(coupling_numbers, name, dim, batch, seed),
                )


def coupling_numbers(name: str, dim: int, batch: tuple[int, ...], seed: int) -> dict[str, Any]:
    """Rows by their number."""
    coupling: Any = estimators.PositiveFeatures(coupling=name).coupling
    sizes = sorted({size for wish in (3, 16) for size in coupling.nearest_num_rows(wish, dim) if size})
    return {
        str(size): attempt(coupling.sample, size, dim, rng=np.random.default_rng(seed), batch_shape=batch)
        for size in sizes
    }


def all_estimators() -> dict[str, Any]:
    """The examples of the catalogue, and variants of which they show one side only."""
    found = {
        entry.name: getattr(estimators, entry.name).example()
        for entry in rf.catalogue("estimator")
        if entry.name in estimators.__all__
    }
    gaussian, positive = kernels.GaussianKernel(1.5), estimators.PositiveFeatures()
    return found | {
        "trigonometric, phases": estimators.TrigonometricFeatures(variant="phase"),
        "optimal positive, antithetic": estimators.OptimalPositiveFeatures(exponent=-0.05, antithetic=True),
        "generalized, sign -1": estimators.GeneralizedExponentialFeatures(parameter=-0.03 + 0.04j, sign=-1),
        "spectral, phases": estimators.SpectralFeatures(kernels.ExponentialKernel(2.0), variant="phase"),
        "control variate, waves": estimators.ControlVariateFeatures(base="trigonometric"),
        "tensor sketch, offset": estimators.TensorSketchFeatures(kernels.PolynomialKernel(degree=2, offset=0.3)),
        "product sketch, complex": estimators.ProductSketchFeatures(
            kernels.PolynomialKernel(degree=3), entries="complex"
        ),
        "importance, three": estimators.ImportanceSampledFeatures(
            means=np.eye(3, 4) / 2, variances=np.array([0.6, 1.0, 1.5])
        ),
        "sum, shares": estimators.SumFeatures((positive, estimators.HyperbolicFeatures(gaussian)), shares=(1, 2)),
        "product, scaled": 2.0 * positive * estimators.TrigonometricFeatures(gaussian, variant="phase"),
        "length-scales of a sum": estimators.ArdFeatures(2.0 * positive, (1.0, 2.0, None, 0.5)) + positive,
        "centered, both": estimators.CenteredFeatures(
            base=estimators.HyperbolicFeatures(), query_shift=np.full(4, 0.2)
        ),
        "balanced, waves": estimators.BalancedFeatures(
            base=estimators.TrigonometricFeatures(), matrix=np.diag([1, 2, 0.5, 1])
        ),
    }


def estimator_cases(seed: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Small draws and closed forms with each coupling; with each kernel that is taken; plain features of many rows."""
    for name, estimator in all_estimators().items():
        for coupling in (None, *coupling_names()):
            coupled = estimator if coupling is None else attempt(estimator.with_coupling, coupling)
            yield from small_cases(f"estimator {name}, {coupling or 'own rows'}", coupled, seed, DTYPES, BATCHES)
        for kernel_name, kernel in all_kernels().items():
            other = attempt(replace, estimator, kernel=kernel)
            if not isinstance(other, dict):
                yield from small_cases(
                    f"estimator {name} of kernel {kernel_name}", other, seed, ("float32",), BATCHES[:1]
                )
        subject = Subject(estimator)
        for dtype in DTYPES:
            for batch in BATCHES:
                compute = functools.partial(plain_features, subject, dtype, batch, seed)
                yield f"estimator {name}, plain features, {dtype} batch={batch}", compute


def small_cases(
    name: str, estimator: Any, seed: int, dtypes: Sequence[str], batches: Sequence[tuple[int, ...]]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One case for the closed forms and one for each kind of draw; a refusal is a case, too."""
    if isinstance(estimator, dict):
        yield name, lambda: estimator
        return
    subject = Subject(estimator)
    yield f"{name}, closed forms", functools.partial(closed_forms, subject, seed)
    for dtype in dtypes:
        for batch in batches:
            yield f"{name}, {dtype} batch={batch}", functools.partial(draw_numbers, subject, dtype, batch, seed)


@dataclass(frozen=True, eq=False)
class Subject:
    """An estimator with the dimension and the width that it is drawn for."""

    estimator: Any

    @functools.cached_property
    def dim(self) -> int:
        """The dimension that the parameters are for, or 6."""
        if self.estimator.parameter_dim is not None:
            return int(self.estimator.parameter_dim)
        probe = attempt(lambda: draw_nearest(self.estimator, DIM, WIDTH, rng=0).queries(points(0, 2, DIM)))
        return EXAMPLE_DIM if isinstance(probe, dict) else DIM

    @functools.cached_property
    def width(self) -> int:
        """The possible width that is nearest to 24."""
        return int(draw_nearest(self.estimator, self.dim, WIDTH, rng=0).num_features)


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
    """Values and scales of features, by name."""
    return {"values": features.values, "log_scale": features.log_scale}


def draw_numbers(subject: Subject, dtype: str, batch: tuple[int, ...], seed: int) -> dict[str, Any]:
    """Drawn arrays, and the features and estimates of a few inputs."""

    def compute() -> dict[str, Any]:
        estimator, dim = subject.estimator, subject.dim
        x, y = points(seed, FEW, dim, dtype=dtype), points(seed + 1, 7, dim, dtype=dtype)
        shape = (*batch, *estimator.batch_shape)
        phi = estimator.draw(dim, subject.width, rng=seed, like=x, batch_shape=shape)
        return {
            "arrays": dict(phi.arrays),
            "queries": features_of(phi.queries(3 * x)),
            "keys": features_of(phi.keys(y)),
            "plain": attempt(phi, x),
            "estimate": phi.estimate(x, y),
            "pairwise": phi.estimate_pairwise(x[:7], y),
        }

    return attempt(compute)


def closed_forms(subject: Subject, seed: int) -> dict[str, Any]:
    """Mean, variance and errors, or the refusal of each."""

    def compute() -> dict[str, Any]:
        estimator, dim, width = subject.estimator, subject.dim, subject.width
        x, y = points(seed, 3, dim), points(seed + 1, 2, 1, dim)
        x = np.concatenate([x, np.zeros((1, dim)), y[0]])  # zero, and a pair of equal vectors
        names = ("mean", "variance", "relative_variance", "mse", "relative_mse")
        return {name: attempt(getattr(estimator, name), x, y, num_features=width) for name in names}

    return attempt(compute)


def plain_features(subject: Subject, dtype: str, batch: tuple[int, ...], seed: int) -> dict[str, Any]:
    """Features of many rows, which NumPy writes block by block; one thread and two."""

    def compute() -> Any:
        estimator, dim = subject.estimator, subject.dim
        x = points(seed, MANY, dim, dtype=dtype)
        phi = draw_nearest(estimator, dim, WIDE, rng=seed, like=x, batch_shape=(*batch, *estimator.batch_shape))
        return {"one thread": phi(x, num_threads=1), "two threads": phi(x[:600], num_threads=2)}

    return attempt(compute)
