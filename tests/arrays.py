"""Arrays of every library, made from NumPy ones and read back."""

import numpy as np
import pytest

HALF = ("float16", "bfloat16")


def library(xp):
    """`"numpy"`, `"torch"`, `"jax"`, `"array_api_strict"` or `"cupy"`."""
    return next(name for name in ("array_api_strict", "torch", "jax", "cupy", "numpy") if name in xp.__name__)


def dtype_of(xp, name):
    """The dtype of that name in a library, or a skip that says why there is none."""
    if name == "bfloat16" and library(xp) == "numpy":
        return np.dtype(pytest.importorskip("ml_dtypes", reason="pip install '.[frameworks]'").bfloat16)
    if not hasattr(xp, name):
        pytest.skip(f"{library(xp)} has no {name}")
    return getattr(xp, name)


def asarray(xp, values, dtype="float64"):
    """NumPy values in a library, rounded once to the dtype of that name."""
    values = np.asarray(values)
    if dtype in HALF:
        return xp.astype(xp.asarray(values), dtype_of(xp, dtype))
    return xp.asarray(values.astype(dtype))


def to_numpy(x):
    """Any array as a NumPy array: float64 for floats, whatever their precision."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = (x.double() if x.dtype.is_floating_point else x).numpy()
    elif hasattr(x, "get"):
        x = x.get()
    x = np.asarray(x)
    return x if x.dtype.kind in "biu" else x.astype(np.float64)


def compiled(xp, function):
    """The function itself; under JAX its compiled form, which is how JAX is used and much faster to test."""
    if library(xp) != "jax":
        return function
    import jax

    return jax.jit(function)


def traced(xp, function, *arrays):
    """A result; under JAX what has its shape and dtype, from tracing alone, which compiles nothing."""
    if library(xp) != "jax":
        return function(*arrays)
    import jax

    return jax.eval_shape(function, *arrays)


def shape_of(xp, function, *arrays):
    """The shape of a result."""
    return tuple(traced(xp, function, *arrays).shape)


def eps_of(dtype):
    """Spacing of the floats of that name at 1."""
    return {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}[dtype]


def computing(dtype):
    """The dtype that inputs of this one are computed in."""
    return "float32" if dtype in HALF else dtype


def same_bits(a, b):
    """Whether two arrays are equal to the last bit, NaN included.

    Only for what the same operations made of arrays of the same shapes and strides. BLAS has a kernel for each shape,
    layout and processor (one product or a batch, a matrix or its transpose, few rows or many), and PyTorch folds a
    batch into one product where a gradient is recorded: each adds up in an order of its own.
    """
    a, b = to_numpy(a), to_numpy(b)
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=True))


def same_numbers(xp, a, b, rounding):
    """Equal bits; under JAX, where two programs may differ in the order of their sums, within `rounding`."""
    if library(xp) != "jax":
        return same_bits(a, b)
    a, b = to_numpy(a), to_numpy(b)
    return a.shape == b.shape and bool(np.all(np.abs(a - b) <= rounding))
