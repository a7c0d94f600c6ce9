"""Conversion of inputs to arrays of one library, dtype and device."""

import sys
from typing import Any

import numpy as np

from randfeat._array.namespaces import (
    _FLOATING,
    _HALF,
    Array,
    check_in_memory,
    device_of,
    dtype_name,
    has_float64,
    is_array_api_obj,
    is_jax_array,
    is_on_cupy,
    is_on_host,
    is_sparse,
    is_torch_array,
    namespace,
)


def as_floating(x: Any, name: str) -> Array:
    """`x` as an array with a real floating dtype; lists become NumPy arrays, integers become floats.

    NumPy arrays in the byte order of another machine, as files have them, are copied to that of this one.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; fill it, or pass a `key_mask`.")
    if is_sparse(x):
        raise TypeError(f"{name} is sparse, got {type(x).__name__}; convert it to a dense array first.")
    given, is_array = type(x).__name__, is_array_api_obj(x) and not isinstance(x, type)  # np.float32 looks like one
    if not is_array:
        check_in_memory(x, name)
    if isinstance(x, np.ndarray) or not is_array:
        x = native(np.asarray(x))  # subclasses such as np.matrix have a product of their own
    kind = dtype_name(x.dtype)
    if kind in _FLOATING:
        return x
    if kind.startswith(("int", "uint")):
        xp = namespace(x)
        return cast(x, xp.asarray(0.0).dtype)
    if not is_array and x.ndim == 0:
        raise TypeError(f"{name} must be an array, got {given}.")
    raise TypeError(f"{name} must be real floating point (or integer), got dtype {kind}.")


def native(x: np.ndarray) -> np.ndarray:
    """`x` in the byte order of this machine."""
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def as_host(x: Any, name: str) -> np.ndarray:
    """`x` as a float64 NumPy array, for closed forms and statistics; TypeError for an array of Dask."""
    check_in_memory(x, name)
    x = as_floating(x, name)
    return np.asarray(to_numpy(x.double() if is_torch_array(x) else x), dtype=np.float64)


def mask_on_host(mask: Any, name: str) -> np.ndarray | None:
    """A mask of any library as a NumPy array, None for None; TypeError for an array of Dask."""
    if mask is None:
        return None
    check_in_memory(mask, name)
    return to_numpy(mask)


def to_numpy(x: Any) -> np.ndarray:
    """`x`, an array of any library and device, as a NumPy array of the same dtype (one that NumPy has)."""
    if is_torch_array(x):
        return numbers_of_tensor(x)
    if is_on_cupy(x):
        return x.get()
    try:
        return np.asarray(x)
    except RuntimeError:  # array-api-strict, of an array on a device that is not the default
        if not hasattr(x, "__dlpack__"):
            raise
        return np.from_dlpack(x)


def numbers_of_tensor(x: Array) -> np.ndarray:
    """A tensor as a NumPy array, also while `torch.func.grad` and the like record its derivatives."""
    torch = sys.modules["torch"]
    functorch = torch._C._functorch
    if not functorch.is_gradtrackingtensor(x):
        return x.detach().cpu().numpy()
    while functorch.is_gradtrackingtensor(x):
        x = functorch.get_unwrapped(x)
    with torch._functorch.pyfunctorch.temporarily_clear_interpreter_stack():
        return x.detach().cpu().numpy()


def as_double(x: Array) -> Array:
    """`x` in float64: in its own library, or on the host where that has no float64 now (JAX by default, MPS).

    While such a library traces a function, there is no host: `x` stays as it is.
    """
    if has_float64(x):
        return cast(x, namespace(x).float64)
    host = host_or_none(x)
    return x if host is None else host


def host_or_none(x: Array) -> np.ndarray | None:
    """`as_host(x)`; None if `x` has no values yet because a function is being traced."""
    try:
        return as_host(x, "x")
    except (TypeError, RuntimeError):
        return None


def as_integers(x: Any, name: str, like: Array) -> Array:
    """Integers as an array on the namespace and device of `like`; an array of that library is returned unchanged."""
    if not is_array_api_obj(x):
        x = np.asarray(x)
    if isinstance(x, np.ndarray):
        x = native(x)
    if not dtype_name(x.dtype).startswith(("int", "uint")):
        raise TypeError(f"{name} must be integers, got dtype {dtype_name(x.dtype)}.")
    xp = namespace(like)
    if not is_on_host(x):
        if namespace(x) is xp:
            return x
        x = as_host(x, name).astype(np.int64)
    return x if xp is np else xp.asarray(np.asarray(x), device=device_of(like))


def copied(x: Array) -> Array:
    """`x` (..., n, c) in memory of its own, differentiable."""
    return namespace(x).concat([x, x[..., :0, :]], axis=-2)


def compute_dtype(xp: Any, dtype: Any) -> Any:
    """The dtype used for computation: float32 for float16 and bfloat16, else `dtype` itself."""
    return xp.float32 if dtype_name(dtype) in _HALF else dtype


def cast(x: Array, dtype: Any) -> Array:
    """`x` as `dtype`, without a copy if it has that dtype already; differentiable."""
    if x.dtype == dtype:
        return x
    if isinstance(x, (np.ndarray, np.generic)):
        return x.astype(dtype)
    return namespace(x).astype(x, dtype)


def host_to(array: np.ndarray, like: Array) -> Array:
    """A host array, cast once to the computing dtype of `like`, on its namespace and device."""
    xp = namespace(like)
    dtype = compute_dtype(xp, like.dtype)
    if xp is np:
        return np.asarray(array, dtype=dtype)
    array, device = array.astype(dtype_name(dtype)), device_of(like)  # by NumPy: every library sees the same rounding
    if is_jax_array(like) and device is not None:
        with sys.modules["jax"].default_device(device):  # there, but not bound to it: it also goes with sharded arrays
            return xp.asarray(array)
    return xp.asarray(array, device=device)


def move_to(array: Array, like: Array) -> Array:
    """`array`, from any library, on the namespace and device of `like`, in its computing dtype."""
    return host_to(as_host(array, "array"), like)
