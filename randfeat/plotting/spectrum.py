"""plot_spectrum: eigenvalues of exact and estimated Gram matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from randfeat._array import as_host
from randfeat._hints import hinted
from randfeat.maps import FeatureMap, check_feature_map
from randfeat.plotting.axes import axes_of, look


@hinted
def plot_spectrum(
    x: Any, features: FeatureMap | Sequence[FeatureMap] | Mapping[str, FeatureMap], *, ax: Any = None
) -> Any:
    """Draw the eigenvalues of the Gram matrix of x and of its estimates, largest first, and return the axes.

    x (n, d) : inputs. features : one symmetric feature map of one kernel, several, or a dictionary from names to maps.

    What a ridge regression or a Gaussian process sees of a kernel is its spectrum. A map with m features has rank m at
    most: its eigenvalues end there. Time O(n³).

    >>> import numpy as np, randfeat as rf
    >>> x = np.random.default_rng(0).standard_normal((100, 4))
    >>> phi = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(dim=4, num_features=64, rng=0)
    >>> from matplotlib.figure import Figure
    >>> ax = plot_spectrum(x, phi, ax=Figure().subplots())
    >>> [len(line.get_xdata()) for line in ax.get_lines()]
    [100, 64]
    """
    x = as_host(x, "x")
    if x.ndim != 2 or not len(x):
        raise ValueError(f"x must have shape (n, d), n at least 1, got {x.shape}.")
    maps = named_maps(features)
    kernels = {phi.estimator.kernel for phi in maps.values()}
    if len(kernels) > 1:
        raise ValueError(f"the maps are of {len(kernels)} kernels; compare maps of one kernel.")
    ax = axes_of(ax)
    exact = np.linalg.eigvalsh(next(iter(kernels))(x, x))[::-1]
    ranks = np.arange(1, len(exact) + 1)
    ax.plot(ranks, np.maximum(exact, 0), color="#000000", linewidth=1.3, label="exact")
    for i, (name, phi) in enumerate(maps.items()):
        values = np.linalg.svd(phi.to(x)(x), compute_uv=False) ** 2
        ax.plot(ranks[: len(values)], values, color=look(i)["color"], linewidth=1, label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(bottom=max(exact[0] * 1e-12, np.finfo(float).tiny))
    ax.set_xlabel("rank")
    ax.set_ylabel("eigenvalue")
    ax.legend(frameon=False)
    return ax


def named_maps(features: Any) -> dict[str, FeatureMap]:
    """The maps by name: those given, or class and number of features."""
    if isinstance(features, Mapping):
        maps = {str(name): phi for name, phi in features.items()}
        if len(maps) < len(features):
            raise ValueError(f"two names are the same as text: {', '.join(map(repr, features))}.")
    else:
        each = [features] if isinstance(features, FeatureMap) else list(features)
        for phi in each:
            check_feature_map(phi)
        names = [f"{type(phi.estimator).__name__}, {phi.num_features}" for phi in each]
        if len(set(names)) < len(names):
            names = [f"{phi.estimator!r}, {phi.num_features}" for phi in each]
        maps = dict(zip(names, each, strict=True))
        if len(maps) < len(each):
            raise ValueError("two maps have the same name; give a dictionary from names to maps.")
    if not maps:
        raise ValueError("there are no maps.")
    for phi in maps.values():
        check_feature_map(phi)
        if phi.batch_shape:
            raise ValueError(f"a map with batch_shape {phi.batch_shape} has several spectra; take one of them.")
        if not phi.estimator.symmetric:
            raise ValueError(f"{phi.estimator!r} has other features for queries than for keys, so no spectrum.")
    return maps
