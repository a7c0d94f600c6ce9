"""Statistics of queries and keys that parameters are fitted to."""

from typing import Any

import numpy as np

from randfeat._array import as_host
from randfeat.couplings import Coupling
from randfeat.kernels import SoftmaxFamily
from randfeat.kernels.softmax import SOFTMAX, resolve_scale


def or_default(
    kernel: SoftmaxFamily | None, coupling: Coupling | str | None = None
) -> tuple[SoftmaxFamily, Coupling | str]:
    """The kernel and the coupling of a fitted estimator: `exp(x·y)` and orthogonal rows where they are None."""
    return SOFTMAX if kernel is None else kernel, "orthogonal" if coupling is None else coupling


def unit_pair(query: Any, key: Any, *, kernel: SoftmaxFamily, scale: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Host copies of (..., L, d) queries and (..., S, d) keys in kernel units, after √scale on both sides."""
    x, y = as_host(query, "query"), as_host(key, "key")
    for name, array in (("query", x), ("key", y)):
        if array.ndim < 2 or array.shape[-2] == 0:
            raise ValueError(f"{name} must have shape (..., length >= 1, d), got {array.shape}.")
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} holds NaN or infinity; leave out padding before fitting.")
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"query and key must share their last dimension, got {x.shape[-1]} and {y.shape[-1]}.")
    root = np.sqrt(resolve_scale(scale, kernel, x.shape[-1]))
    return kernel.unit(x * root), kernel.unit(y * root)
