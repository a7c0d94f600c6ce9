"""Inputs of the scikit-learn estimators: random states, arrays of one library, samples of rows."""

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import _check_sample_weight, validate_data

from randfeat._array import as_generator, cast, check_in_memory, device_of, dtype_name, namespace, to_numpy
from randfeat.kernels import Kernel

__all__ = [
    "SAMPLE",
    "as_rng",
    "check_same_library",
    "first_row_if_far",
    "is_sparse",
    "rows_of",
    "validated",
    "weighted_rows",
]

SAMPLE = 1000  # rows for statistics of the data: the median distance, fitted estimators, the offset
FAR, FAR_IN_UNITS = 8.0, 32.0  # standard deviations and length scales from 0 of a row that is subtracted


def validated(estimator: Any, X: Any, *targets: Any, **options: Any) -> Any:
    """`validate_data` of rows in memory, and numbers 0 and 1 for columns that are False and True."""
    for given, name in zip((X, *targets), ("X", "y"), strict=False):
        check_in_memory(given, name)
    checked = validate_data(estimator, X, *targets, accept_sparse="csr", **options)
    if targets:
        return numbers(checked[0]), *checked[1:]
    return numbers(checked)


def weighted_rows(X: Any, y: np.ndarray, sample_weight: Any) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """Validated rows and targets without those of weight 0, and their weights (n,) in float64, or None for none."""
    if sample_weight is None:
        return X, y, None
    given = to_numpy(sample_weight) if hasattr(sample_weight, "dtype") else sample_weight
    weight = _check_sample_weight(given, y, dtype=np.float64, ensure_non_negative=True)
    present = np.flatnonzero(weight)
    if len(present) < len(weight):
        X = X[present] if is_sparse(X) or isinstance(X, np.ndarray) else take(X, present)
    return X, y[present], weight[present]


def numbers(X: Any) -> Any:
    """X, or if it is bool, the same in the default floating dtype of its library."""
    if is_sparse(X) or dtype_name(X.dtype) != "bool":
        return X
    return cast(X, namespace(X).asarray(0.0).dtype)


def as_rng(random_state: Any) -> np.random.Generator:
    """A generator from an int, a RandomState, a Generator, or None for fresh entropy.

    An int seeds as in `estimator.draw(rng=...)`. Generators and RandomStates advance with every use.
    """
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(0, 2**32, size=4, dtype=np.uint32))
    return as_generator(random_state)


def check_same_library(x: Any, like: Any, name: str) -> None:
    """Raise ValueError unless `x` has the library and device of `like`, an array that fit has made."""
    ours, theirs = (None if is_sparse(array) else (namespace(array), device_of(array)) for array in (x, like))
    if ours == theirs or (ours is None and isinstance(like, np.ndarray)):
        return
    raise ValueError(
        f"Inputs passed to {name}() must use the same namespace and the same device as those passed to fit(): "
        f"expected {type(like).__module__}.{type(like).__name__} on {device_of(like)}, got "
        f"{type(x).__module__}.{type(x).__name__}{'' if ours is None else f' on {device_of(x)}'}."
    )


def is_sparse(x: Any) -> bool:
    """Whether x is a sparse matrix or array of SciPy."""
    return bool(issparse(x))


def rows_of(x: Any, rng: np.random.Generator, most: int) -> np.ndarray:
    """At most `most` random rows of x as a dense float64 NumPy array."""
    if x.shape[0] <= most:
        chosen = x
    else:
        indices = np.sort(rng.choice(x.shape[0], most, replace=False))
        chosen = x[indices] if is_sparse(x) or isinstance(x, np.ndarray) else take(x, indices)
    dense = chosen.toarray() if is_sparse(chosen) else to_numpy(chosen)
    return dense.astype(np.float64)


def first_row_if_far(x: Any, kernel: Kernel) -> np.ndarray | None:
    """The first row of a dense x where it is far from 0, over deviations and length scales, else 0; None if all are 0.

    Kernels that have no single length scale are judged by deviations alone.
    """
    head = to_numpy(x[: min(SAMPLE, x.shape[0]), :]).astype(np.float64)
    far = np.abs(head[0]) > FAR * np.std(head, axis=0)
    if type(kernel).unit is not Kernel.unit:
        far &= np.abs(kernel.unit(head[0])) > FAR_IN_UNITS
    return np.where(far, head[0], 0.0) if np.any(far) else None


def take(x: Any, indices: np.ndarray) -> Any:
    """Rows `indices` of an array of any library."""
    xp = namespace(x)
    return xp.take(x, xp.asarray(indices, device=device_of(x)), axis=0)
