"""Features of sparse rows by a sparse product, for features that need only inner products and the length of a row."""

from dataclasses import replace
from typing import Any

import numpy as np

from randfeat.features import FourierForm
from randfeat.kernels import SoftmaxFamily
from randfeat.maps import ORIGIN, FeatureMap

__all__ = ["sparse_features"]

BLOCK_NUMBERS = 2**22  # inner products that are in memory at one time


def sparse_features(phi: FeatureMap, x: Any) -> np.ndarray:
    """φ(x) of a SciPy sparse matrix (n, d) of float32 or float64 -> NumPy (n, num_features).

    For waves and exponentials of `x·w + r(|x|)`. Zeros of x cost neither memory nor time. A map about a row keeps the
    digits of an offset for dense inputs only.
    """
    kernel, origin = phi.estimator.kernel, phi.arrays.get(ORIGIN)
    phi = replace(phi, arrays={name: array for name, array in phi.arrays.items() if name != ORIGIN})
    form: Any = phi.fourier_form() or phi.exponential_form(keys=False)
    # Kernel units must be a multiple of the input, and r must depend on the length of a row only.
    multiple = kernel.unit_factor is not None
    radial = form is not None and form.per_row in (
        getattr(phi.estimator, "log_factor", None), kernel.log_gaussian if isinstance(kernel, SoftmaxFamily) else None
    )  # fmt: skip
    if not (multiple and radial and getattr(form, "origin", None) is None):
        raise ValueError(
            f"{type(phi.estimator).__name__} of {type(kernel).__name__} need dense inputs, got a sparse matrix: use "
            "X.toarray(), or waves or exponentials of inner products, as for rbf, matern52 and softmax."
        )
    factor = kernel.unit(np.ones((1, 1), x.dtype))[0, 0]
    rows = np.ascontiguousarray(form.rows.T * factor, dtype=x.dtype)
    squares = np.asarray(x.multiply(x).sum(axis=1), dtype=x.dtype).reshape(-1, 1)
    shift = np.zeros((1, 1), x.dtype)
    if origin is not None:  # rows that are not dense cannot be shifted, but inner products with them
        squares = np.maximum(squares - 2 * (x @ origin.T.astype(x.dtype)) + np.sum(origin * origin), 0)
        shift = (origin @ form.rows.T * factor).astype(x.dtype)
    lengths = factor * np.sqrt(squares)
    features = np.empty((x.shape[0], phi.num_features), x.dtype)
    step = max(1, BLOCK_NUMBERS // rows.shape[1])
    for start in range(0, x.shape[0], step):
        part = slice(start, start + step)
        fill(features[part], form, x[part] @ rows - shift, form.per_row(lengths[part]))
    return features


def fill(features: np.ndarray, form: Any, inner: np.ndarray, log_factor: np.ndarray) -> None:
    """Write the features from inner products (n, m) and the logarithm of one factor per row."""
    if not isinstance(form, FourierForm):
        np.exp(inner + (form.log_weights + log_factor), out=features)
        return
    amplitudes = form.amplitudes * np.exp(log_factor)
    if form.phases is not None:
        np.multiply(np.cos(inner + form.phases), amplitudes, out=features)
        return
    half = inner.shape[1]
    np.multiply(np.cos(inner), amplitudes, out=features[:, :half])
    np.multiply(np.sin(inner), amplitudes, out=features[:, half:])
