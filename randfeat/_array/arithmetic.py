"""Small functions that the array API standard lacks, and faster in-place versions."""

import math

import numpy as np

from randfeat._array.namespaces import Array, device_of, is_jax_array, is_on_cupy, is_torch_array, namespace


def exp_in_place(x: Array) -> Array:
    """`exp(x)`, overwriting `x` if it is a NumPy array; the caller must own `x` and not use it again."""
    xp = namespace(x)
    if xp is np:
        return np.exp(x, out=x) if isinstance(x, np.ndarray) else np.exp(x)
    return xp.exp(x)


def times_exp(x: Array, log: Array) -> Array:
    """`x * exp(log)`, correct even where `exp(log)` overflows but the product does not; zeros of `x` stay zero."""
    xp = namespace(x, log)
    largest = float(math.floor(math.log(xp.finfo(log.dtype).max)))
    root = xp.exp(xp.clip(log / 2, None, largest))
    return x * root * root


def peak(x: Array, axis: int) -> Array:
    """Maximum of `x` along `axis`, with the axis kept; `-inf` if the axis is empty."""
    xp = namespace(x)
    if x.shape[axis] > 0:
        return xp.max(x, axis=axis, keepdims=True)
    shape = tuple(1 if i == axis % x.ndim else length for i, length in enumerate(x.shape))
    return xp.full(shape, -xp.inf, dtype=x.dtype, device=device_of(x))


def replace_minus_inf(x: Array) -> Array:
    """`x` with 0 in place of `-inf`: makes the maximum of an empty set safe to subtract."""
    xp = namespace(x)
    return xp.where(x == -xp.inf, xp.zeros_like(x), x)


def replaced(x: Array, indices: Array, values: Array) -> Array:
    """`x` (n,) with these values at the indices; `x` may be overwritten."""
    if is_jax_array(x):
        return x.at[indices].set(values)
    if is_torch_array(x):
        return x.index_put((indices,), values)
    if isinstance(x, np.ndarray) or is_on_cupy(x):
        x[indices] = values
        return x
    for number in range(indices.shape[0]):  # the standard knows no assignment to many indices
        x[int(indices[number])] = values[number]
    return x


def cumulative_sum(x: Array, axis: int) -> Array:
    """Cumulative sums of `x` along `axis`."""
    if isinstance(x, np.ndarray):
        return np.cumsum(x, axis=axis)
    if is_torch_array(x):  # whose compiler warns of the way that the standard's name takes
        return x.cumsum(axis)
    return namespace(x).cumulative_sum(x, axis=axis)


def log_of(x: Array) -> Array:
    """`log(x)` for numbers x >= 0: `-inf` at 0, without a warning."""
    xp = namespace(x)
    positive = x > 0
    return xp.where(positive, xp.log(xp.where(positive, x, xp.ones_like(x))), -xp.inf)


def squared_norm(x: Array) -> Array:
    """`|x|²` along the last axis, which is kept: (..., n, d) -> (..., n, 1)."""
    if is_torch_array(x):  # its vecdot cannot be vectorized over (vmap)
        return namespace(x).sum(x * x, axis=-1, keepdims=True)
    return namespace(x).vecdot(x, x)[..., None]
