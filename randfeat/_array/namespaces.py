"""Array library, device and dtype of an array."""

import importlib.util
import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

import array_api_compat
import numpy as np
from array_api_compat import array_namespace, is_dask_array

Array: TypeAlias = Any
Arrays: TypeAlias = Mapping[str, Array]
Drawn: TypeAlias = dict[str, np.ndarray]  # arrays by name, still on the host in float64

_HALF = ("float16", "bfloat16")
_FLOATING = (*_HALF, "float32", "float64")
_NAMES = {np.dtype(name): name for name in ("bool", "int64", "float16", "float32", "float64")}


# Tensors are recognized here, because the tests of array-api-compat have caches, of which PyTorch's compiler warns.


def is_torch_array(x: Any) -> bool:
    """Whether `x` is a tensor of PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_array_api_obj(x: Any) -> bool:
    """Whether `x` is an array of a library that is known."""
    return is_torch_array(x) or array_api_compat.is_array_api_obj(x)


def is_array(x: Any) -> bool:
    """Whether `x` is an array of NumPy or another library, not a number."""
    return isinstance(x, np.ndarray) or (not is_on_host(x) and is_array_api_obj(x))


def is_jax_array(x: Any) -> bool:
    """Whether `x` is an array of JAX."""
    return not is_torch_array(x) and array_api_compat.is_jax_array(x)


def is_on_cupy(x: Any) -> bool:
    """Whether `x` is an array of CuPy."""
    return not is_torch_array(x) and array_api_compat.is_cupy_array(x)


def namespace(*arrays: Array) -> Any:
    """The array namespace that all `arrays` share; `None` arguments are skipped, mixed libraries raise TypeError."""
    arrays = tuple(a for a in arrays if a is not None)
    if all(isinstance(a, (np.ndarray, np.generic)) for a in arrays):
        return np
    if all(is_torch_array(a) for a in arrays) and "array_api_compat.torch" in sys.modules:
        return sys.modules["array_api_compat.torch"]
    names = sorted({type(a).__module__.partition(".")[0] + "." + type(a).__name__ for a in arrays})
    try:
        return array_namespace(*arrays)
    except TypeError as error:
        if any(map(is_dask_array, arrays)):
            advice = (
                "of dask arrays, randfeat.integrations.dask computes features(phi, x), feature_moments and "
                "linear_attention block by block; x.compute() loads one into memory."
            )
        else:
            advice = (
                "convert them to one library first (a feature map moves with `phi.to(x)`, or is drawn there with "
                "`draw(..., like=x)`)."
            )
        raise TypeError(f"expected arrays of one array library, got {', '.join(names)}; {advice}") from error


def namespace_named(name: str) -> Any:
    """The array namespace of an installed library, by name: `"numpy"`, `"torch"`."""
    return np if name == "numpy" else array_namespace(importlib.import_module(name).asarray(0.0))


def library_of(x: Array) -> str:
    """Name of the array library, `"numpy"`, `"torch"`, `"jax"`, ...; with an accelerator, `"torch on cuda"`."""
    name = next(part for part in namespace(x).__name__.split(".") if part != "array_api_compat")
    kind = "cpu"
    if is_torch_array(x):
        kind = x.device.type
    elif is_jax_array(x):  # a traced array has no device yet
        kind = sys.modules["jax"].default_backend()
    return name if kind == "cpu" else f"{name} on {kind}"


def devices() -> dict[str, list[str]]:
    """Devices visible to PyTorch, JAX and CuPy, by library, as far as these are installed."""
    found: dict[str, list[str]] = {}
    if importlib.util.find_spec("torch"):
        torch = importlib.import_module("torch")
        found["torch"] = ["cpu", *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))]
    if importlib.util.find_spec("jax"):
        found["jax"] = [str(device) for device in importlib.import_module("jax").devices()]
    if importlib.util.find_spec("cupy"):
        runtime = importlib.import_module("cupy").cuda.runtime
        try:
            names = [runtime.getDeviceProperties(i)["name"].decode() for i in range(runtime.getDeviceCount())]
        except runtime.CUDARuntimeError as error:
            names = [f"none ({error})"]
        found["cupy"] = names
    return found


def device_name(library: str, x: Array) -> str:
    """Readable name of the device of `x`."""
    if library == "cupy":
        return ", ".join(devices()["cupy"])
    return str(x.device if is_jax_array(x) else device_of(x))


def device_of(x: Array) -> Any:
    """The device that `x` is on; None for arrays of JAX that are not bound to one device, as new ones are not."""
    if is_torch_array(x):
        return x.device
    if is_jax_array(x):
        is_traced = isinstance(x, sys.modules["jax"].core.Tracer)
        return x.device if not is_traced and getattr(x, "committed", True) and len(x.devices()) == 1 else None
    return array_api_compat.device(x)


def dtype_name(dtype: Any) -> str:
    """`"float32"` for `numpy.float32`, `numpy.dtype("float32")`, `torch.float32`, `jax.numpy.float32` and so on."""
    if isinstance(dtype, np.dtype) and (known := _NAMES.get(dtype)):  # the property of NumPy takes a microsecond or two
        return known
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    return name.rpartition(".")[-1]


def has_float64(x: Array) -> bool:
    """Whether the library of `x` computes in float64 where `x` is."""
    if is_jax_array(x):
        return bool(sys.modules["jax"].config.jax_enable_x64)
    return not (is_torch_array(x) and x.device.type == "mps")


def is_sparse(x: Any) -> bool:
    """Whether `x` is a sparse array; False while `torch.compile` traces, as tensors may refuse to say."""
    if is_torch_array(x):
        return not sys.modules["torch"].compiler.is_compiling() and "sparse" in str(x.layout)
    return hasattr(x, "todense")


def is_on_dask(x: Any) -> bool:
    """Whether `x` is a dask array."""
    return bool(is_dask_array(x))


def check_in_memory(x: Any, name: str) -> None:
    """Raise TypeError for a table or array that is still to be computed, which NumPy would silently load as a whole."""
    kind = f"{type(x).__module__.partition('.')[0]} {type(x).__name__}"
    if is_on_dask(x):
        raise TypeError(
            f"{name} must be in memory, got a {kind}; {name}.compute() loads it, {name}.blocks[i].compute() a block."
        )
    if hasattr(type(x), "__dask_graph__") and x.__dask_graph__() is not None:
        raise TypeError(
            f"{name} must be in memory, got a {kind}; {name}.compute() loads it, and randfeat.integrations.dask takes "
            f"{name}.to_dask_array(lengths=True)."
        )
    if hasattr(type(x), "collect"):
        raise TypeError(f"{name} must be in memory, got a {kind}; {name}.collect() loads it.")


def is_on_host(x: Any) -> bool:
    """Whether the values of `x` can be read at once: a Python number, a sequence or a NumPy array."""
    return isinstance(x, (np.ndarray, np.generic, float, int)) or not is_array_api_obj(x)
