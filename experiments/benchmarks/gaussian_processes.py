"""Gaussian processes of GPyTorch and BoTorch beside ours: `python -m experiments.benchmarks.gaussian_processes`.

Needs `pip install gpytorch botorch`. The page `docs/coming_from/gpytorch.md` states what this prints.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import randfeat as rf
from randfeat.kernels import Kernel

NOISE, FEATURES, MAPS, SAMPLES = 0.01, 1024, 20, 1000
"""Variance of the noise, features of a map, maps, and functions on each map."""


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (20, 2), values (20,) and places (8, 2) of a small regression."""
    rng = np.random.default_rng(0)
    x, places = rng.uniform(-1, 1, (20, 2)), rng.uniform(-1.5, 1.5, (8, 2))
    return x, np.sin(3 * x[:, 0]) + x[:, 1], places


def kernels() -> dict[str, tuple[Any, Kernel]]:
    """Kernels of GPyTorch, with ours beside them: length scale 0.7, for the last one 0.5 and 2, and a factor."""
    import gpytorch.kernels as theirs

    def with_length(kernel: Any, *lengths: float) -> Any:
        import torch

        kernel = kernel.double()
        kernel.lengthscale = torch.tensor([lengths], dtype=torch.float64)
        return kernel

    quadratic = with_length(theirs.RQKernel(), 0.7)
    quadratic.alpha = 2.0
    scaled = theirs.ScaleKernel(with_length(theirs.RBFKernel(ard_num_dims=2), 0.5, 2.0)).double()
    scaled.outputscale = 2.5
    axes = rf.ArdFeatures(rf.TrigonometricFeatures(rf.GaussianKernel()), (0.5, 2.0))
    return {
        "RBFKernel": (with_length(theirs.RBFKernel(), 0.7), rf.GaussianKernel(0.7)),
        "MaternKernel(nu=0.5)": (with_length(theirs.MaternKernel(nu=0.5), 0.7), rf.MaternKernel(0.5, 0.7)),
        "MaternKernel(nu=1.5)": (with_length(theirs.MaternKernel(nu=1.5), 0.7), rf.MaternKernel(1.5, 0.7)),
        "MaternKernel(nu=2.5)": (with_length(theirs.MaternKernel(nu=2.5), 0.7), rf.MaternKernel(2.5, 0.7)),
        "RQKernel": (quadratic, rf.RationalQuadraticKernel(2.0, 0.7)),
        "ScaleKernel, ard_num_dims=2": (scaled, (2.5 * axes).kernel),
    }


def kernel_difference(theirs: Any, ours: Kernel) -> float:
    """The largest difference of two Gram matrices."""
    import torch

    x, _, places = data()
    exact = theirs(torch.from_numpy(x), torch.from_numpy(places)).to_dense().detach().numpy()
    return float(np.abs(exact - ours(x, places)).max())


def feature_difference() -> float:
    """The largest difference of Gram matrices by an `RFFKernel` and by our map with its rows."""
    import gpytorch
    import torch

    x = torch.from_numpy(data()[0])
    kernel = gpytorch.kernels.RFFKernel(num_samples=500, num_dims=2).double()
    kernel.lengthscale = 1.5
    estimator = rf.TrigonometricFeatures(rf.GaussianKernel(1.5))
    phi = rf.FeatureMap(estimator, 2, 1000, {"rows": kernel.randn_weights.mT})
    return float((phi.estimate(x, x) - kernel(x).to_dense().detach()).abs().max())


def posterior_spreads(num_maps: int = MAPS, num_samples: int = SAMPLES) -> dict[str, tuple[float, float]]:
    """Errors of mean and of standard deviation, over the exact deviation, of functions that BoTorch and we draw.

    Root mean squares over the places and over feature maps, with as many functions on each.
    """
    import torch
    from botorch.sampling.pathwise import draw_matheron_paths

    x, y, places = data()
    model, kernel = exact_process()
    exact = model.posterior(torch.from_numpy(places))
    mean, deviation = exact.mean.detach().numpy()[:, 0], exact.variance.detach().numpy()[:, 0] ** 0.5

    def botorch(seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        with torch.no_grad():
            paths = draw_matheron_paths(model, sample_shape=torch.Size([num_samples]))
            return paths(torch.from_numpy(places)).numpy()

    def randfeat(seed: int, num_features: int = FEATURES, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        seeds = np.random.SeedSequence(seed).spawn(3)
        phi = rf.SpectralFeatures(kernel).draw(2, num_features, rng=seeds[0], batch_shape=batch_shape)
        prior = rf.prior_functions(phi, 1 if batch_shape else num_samples, rng=seeds[1])
        values = prior.given(x, y, noise_variance=NOISE, rng=seeds[2])(places)
        return np.moveaxis(values, -2, -1).reshape(num_samples, -1)

    found = {}
    contenders: dict[str, Callable[[int], np.ndarray]] = {
        "BoTorch, draw_matheron_paths": botorch,
        "randfeat, prior_functions": randfeat,
        "a map of 64 for each function": lambda seed: randfeat(seed, 64, (num_samples,)),
    }
    for name, draw in contenders.items():
        values = np.stack([draw(seed) for seed in range(num_maps)])
        errors = (values.mean(axis=1) - mean) / deviation, values.std(axis=1) / deviation - 1
        found[name] = (rms(errors[0]), rms(errors[1]))
    return found


def exact_process() -> tuple[Any, rf.MaternKernel]:
    """A process of BoTorch on the data, without parameters to fit, and its kernel here."""
    import gpytorch
    import torch
    from botorch.models import SingleTaskGP

    x, y, _ = data()
    theirs, kernel = kernels()["MaternKernel(nu=2.5)"]
    assert isinstance(kernel, rf.MaternKernel)
    noise = torch.full((len(y), 1), NOISE, dtype=torch.float64)
    options = {"covar_module": theirs, "mean_module": gpytorch.means.ZeroMean(), "outcome_transform": None}
    model = SingleTaskGP(torch.from_numpy(x), torch.from_numpy(y)[:, None], noise, **options)
    model.eval()
    return model, kernel


def rms(x: np.ndarray) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.mean(x**2)))


def main() -> None:
    """Print the differences of kernels and of features, and the errors of functions drawn from a posterior."""
    for name, (theirs, ours) in kernels().items():
        print(f"{name:32} {kernel_difference(theirs, ours):.1e}")
    print(f"{'RFFKernel, the same rows':32} {feature_difference():.1e}")
    for name, (mean, deviation) in posterior_spreads().items():
        print(f"{name:32} error of the mean {mean:.3f}, of the deviation {deviation:.3f}, in exact deviations")


if __name__ == "__main__":
    main()
