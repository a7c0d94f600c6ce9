"""The only module that knows array libraries: namespaces, dtypes, devices, casting, in-place arithmetic.

Everything else is written once, against the array API standard, with the namespace `xp` that this module finds.
NumPy 2 is itself such a namespace; CuPy, PyTorch, JAX, Dask and array-api-strict come through array-api-compat,
which imports none of them.
"""

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import (
    array_namespace,
    device,
    is_array_api_obj,
    is_cupy_array,
    is_jax_array,
    is_torch_array,
)

Array: TypeAlias = Any

_HALF = ("float16", "bfloat16")
_FLOATING = (*_HALF, "float32", "float64")


def namespace(*arrays: Array) -> Any:
    """The one array namespace that all `arrays` belong to; `None` arguments are skipped."""
    arrays = tuple(a for a in arrays if a is not None)
    if all(isinstance(a, (np.ndarray, np.generic)) for a in arrays):
        return np
    names = sorted({type(a).__module__.partition(".")[0] + "." + type(a).__name__ for a in arrays})
    try:
        return array_namespace(*arrays)
    except TypeError as error:
        raise TypeError(
            f"expected arrays of one array library, got {', '.join(names)}; convert them to one library first "
            "(a feature map moves with `phi.to(x)`, or is drawn there with `draw(..., like=x)`)."
        ) from error


def namespace_named(name: str) -> Any:
    """The array namespace of an installed library: `"numpy"`, `"torch"`."""
    return np if name == "numpy" else array_namespace(importlib.import_module(name).asarray(0.0))


def devices() -> dict[str, list[str]]:
    """The accelerators that the installed array libraries see."""
    found: dict[str, list[str]] = {}
    if importlib.util.find_spec("torch"):
        torch = importlib.import_module("torch")
        found["torch"] = ["cpu", *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))]
    if importlib.util.find_spec("jax"):
        found["jax"] = [str(one) for one in importlib.import_module("jax").devices()]
    if importlib.util.find_spec("cupy"):
        runtime = importlib.import_module("cupy").cuda.runtime
        try:
            names = [runtime.getDeviceProperties(i)["name"].decode() for i in range(runtime.getDeviceCount())]
        except runtime.CUDARuntimeError as error:
            names = [f"none ({error})"]
        found["cupy"] = names
    return found


def device_name(library: str, x: Array) -> str:
    """The device that `x` is on, as a person calls it."""
    return ", ".join(devices()["cupy"]) if library == "cupy" else str(device_of(x))


def device_of(x: Array) -> Any:
    """The device that `x` is on."""
    return device(x)


def library_of(x: Array) -> str:
    """`"numpy"`, `"torch"`, `"jax"`, ...; with the kind of device, `"torch on cuda"`, where it is not the processor."""
    name = next(part for part in namespace(x).__name__.split(".") if part != "array_api_compat")
    kind = "cpu"
    if is_torch_array(x):
        kind = x.device.type
    elif is_jax_array(x):  # one that stands for numbers to come has no device yet
        kind = sys.modules["jax"].default_backend()
    return name if kind == "cpu" else f"{name} on {kind}"


def compiled(function: Callable[..., Any], like: Array) -> Callable[..., Any]:
    """The function as it is used with arrays like this one: compiled by JAX, else itself."""
    return sys.modules["jax"].jit(function) if is_jax_array(like) else function


def finish(x: Array) -> None:
    """Wait for the numbers of `x`, where the library works ahead of the program."""
    if is_jax_array(x):
        x.block_until_ready()
    elif is_torch_array(x) and x.device.type == "cuda":
        sys.modules["torch"].cuda.synchronize(x.device)
    elif not isinstance(x, np.ndarray) and hasattr(x, "get"):  # CuPy
        sys.modules["cupy"].cuda.get_current_stream().synchronize()


def dtype_name(dtype: Any) -> str:
    """`"float32"` for `numpy.float32`, `numpy.dtype("float32")`, `torch.float32`, `jax.numpy.float32` and so on."""
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    return name.rpartition(".")[-1]


def as_floating(x: Any, name: str) -> Array:
    """`x` as an array of a real floating dtype: lists become NumPy arrays, integers the default float."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; fill it, or pass a `key_mask`.")
    if is_sparse(x):
        raise TypeError(f"{name} is sparse, got {type(x).__name__}; convert it to a dense array first.")
    if isinstance(x, np.ndarray) or not is_array_api_obj(x):
        x = np.asarray(x)  # subclasses such as np.matrix have a product of their own
    kind = dtype_name(x.dtype)
    if kind in _FLOATING:
        return x
    if kind.startswith(("int", "uint")):
        xp = namespace(x)
        return cast(x, xp.asarray(0.0).dtype)
    raise TypeError(f"{name} must be real floating point (or integer), got dtype {kind}.")


def is_sparse(x: Any) -> bool:
    """Whether `x` is a sparse array; not asked of a tensor that `torch.compile` traces, which may refuse to say."""
    if is_torch_array(x):
        return not sys.modules["torch"].compiler.is_compiling() and "sparse" in str(x.layout)
    return hasattr(x, "todense")


def as_host(x: Any, name: str) -> np.ndarray:
    """`x` as a float64 NumPy array, for closed forms and statistics."""
    x = as_floating(x, name)
    return np.asarray(to_numpy(x.double() if is_torch_array(x) else x), dtype=np.float64)


def to_numpy(x: Any) -> np.ndarray:
    """`x` of any library and device as a NumPy array of its dtype, which NumPy must have."""
    if is_torch_array(x):
        return x.detach().cpu().numpy()
    if not isinstance(x, np.ndarray) and hasattr(x, "get"):  # CuPy
        return x.get()
    try:
        return np.asarray(x)
    except RuntimeError:  # array-api-strict, of an array on a device that is not the default
        if not hasattr(x, "__dlpack__"):
            raise
        return np.from_dlpack(x)


def host_or_none(x: Array) -> np.ndarray | None:
    """`as_host(x)`, or None where `x` stands for numbers that are not there yet: while a function is traced."""
    try:
        return as_host(x, "x")
    except (TypeError, RuntimeError):
        return None


def is_on_host(x: Any) -> bool:
    """Whether the numbers of `x` may be looked at: a Python number, a sequence, or a NumPy array."""
    return isinstance(x, np.ndarray | np.generic) or not is_array_api_obj(x)


def as_integers(x: Any, name: str, like: Array) -> Array:
    """Integers of any library, on the namespace and device of `like`; an array of its own library is taken as it is."""
    if not is_array_api_obj(x):
        x = np.asarray(x)
    if not dtype_name(x.dtype).startswith(("int", "uint")):
        raise TypeError(f"{name} must be integers, got dtype {dtype_name(x.dtype)}.")
    xp = namespace(like)
    if not is_on_host(x):
        if namespace(x) is xp:
            return x
        x = as_host(x, name).astype(np.int64)
    return x if xp is np else xp.asarray(np.asarray(x), device=device_of(like))


def compute_dtype(xp: Any, dtype: Any) -> Any:
    """The dtype to compute in: float32 for float16 and bfloat16, else `dtype` itself."""
    return xp.float32 if dtype_name(dtype) in _HALF else dtype


def cast(x: Array, dtype: Any) -> Array:
    """`x` in `dtype`, without a copy where none is needed, and differentiable."""
    if x.dtype == dtype:
        return x
    if isinstance(x, (np.ndarray, np.generic)):
        return x.astype(dtype)
    return namespace(x).astype(x, dtype)


def host_to(array: np.ndarray, like: Array) -> Array:
    """A host array on the namespace and device of `like`, in the dtype that `like` is computed in: one cast."""
    xp = namespace(like)
    dtype = compute_dtype(xp, like.dtype)
    if xp is np:
        return np.asarray(array, dtype=dtype)
    # The cast is NumPy's, so that every library sees the same rounding.
    return xp.asarray(array.astype(dtype_name(dtype)), device=device_of(like))


def move_to(array: Array, like: Array) -> Array:
    """`array`, of any library, on the namespace, device and computing dtype of `like`."""
    return host_to(as_host(array, "array"), like)


def is_on_cupy(x: Any) -> bool:
    """Whether `x` is a CuPy array."""
    return bool(is_cupy_array(x))


def on_device_of(x: Array) -> Any:
    """A context in which the device of the CuPy array `x` is the current one."""
    return x.device


def compiled_cuda(source: str, kernel: str) -> Any:
    """A kernel of CUDA C++, an instance of a template or not, for CuPy arrays: compiled by NVRTC here, and
    loaded by CuPy on each device that it is launched on."""
    cupy = importlib.import_module("cupy")
    module = cupy.RawModule(code=source, options=("--std=c++17",), name_expressions=(kernel,))
    return module.get_function(kernel)


def stop_gradient(x: Array) -> Array:
    """`x` as a constant for automatic differentiation."""
    if is_torch_array(x):
        return x.detach()
    if is_jax_array(x):
        return sys.modules["jax"].lax.stop_gradient(x)
    return x


def fold(
    step: Callable[[tuple, tuple], tuple[tuple, tuple]],
    carry: tuple[Array, ...],
    columns: tuple[Any, ...],
    size: int,
    *,
    backwards: bool = False,
) -> tuple[tuple[Array, ...], list[tuple[Array, ...]]]:
    """`carry, results = step(carry, parts)` through columns (..., n, c), `size` rows at a time.

    Columns that are None, all but the first may be, stay None. The last part may be shorter; `backwards` begins with
    it. Results have the rows of their parts. Returns the last carry, and the results of consecutive rows, in order.

    While JAX traces a function for its compiler, all whole parts are one loop of the compiled program, so that what is
    traced does not grow with n; a carry that the first step broadcasts is broadcast before. Its derivative keeps what
    each step began with, and computes the rest again.
    """
    num = columns[0].shape[-2]
    whole = num // size if is_traced(*carry, *columns) else 0
    looped = whole * size if whole > 1 else 0
    intervals = [(start, min(start + size, num)) for start in range(looped, num, size)]
    if looped:
        intervals = [(0, looped), *intervals]
    found = []
    for start, stop in reversed(intervals) if backwards else intervals:
        parts = tuple(None if x is None else x[..., start:stop, :] for x in columns)
        if start < looped:
            carry, results = looped_fold(step, carry, parts, size, backwards)
        else:
            carry, results = step(carry, parts)
        found.append(results)
    return carry, found[::-1] if backwards else found


def looped_fold(
    step: Callable[[tuple, tuple], tuple[tuple, tuple]], carry: tuple, columns: tuple, size: int, backwards: bool
) -> tuple[tuple, tuple]:
    """`fold` of whole parts as a loop that JAX compiles."""
    jax = sys.modules["jax"]
    xp, tree = jax.numpy, jax.tree
    num = columns[0].shape[-2] // size
    parts = tree.map(lambda x: xp.moveaxis(x.reshape(*x.shape[:-2], num, size, x.shape[-1]), -3, 0), columns)
    after, _ = jax.eval_shape(step, carry, tree.map(lambda x: x[0], parts))
    carry = tree.map(lambda x, like: xp.broadcast_to(x, like.shape).astype(like.dtype), carry, after)
    carry, results = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), carry, parts, reverse=backwards)
    return carry, tree.map(lambda x: xp.moveaxis(x, 0, -3).reshape(*x.shape[1:-2], num * size, x.shape[-1]), results)


def is_traced(*arrays: Array | None) -> bool:
    """Whether JAX traces operations on one of these for its compiler; derivatives alone are taken of numbers."""
    if not any(is_jax_array(x) for x in arrays):
        return False
    jax = sys.modules["jax"]
    return any(isinstance(jax.lax.stop_gradient(x), jax.core.Tracer) for x in arrays if x is not None)


def gradients(function: Callable[..., Array], arrays: Sequence[Array], cotangent: Array) -> list[Array] | None:
    """The gradients of `Σ cotangent · function(*arrays)`; None where the library does not differentiate."""
    if not all(is_torch_array(x) for x in arrays):
        return None
    leaves = [x.detach().clone().requires_grad_() for x in arrays]
    (function(*leaves) * cotangent).sum().backward()
    return [leaf.new_zeros(leaf.shape) if leaf.grad is None else leaf.grad for leaf in leaves]


def exp_in_place(x: Array) -> Array:
    """`exp(x)`, written over `x` where the library can; the caller must own `x` and not use it again."""
    xp = namespace(x)
    if xp is np:
        return np.exp(x, out=x) if isinstance(x, np.ndarray) else np.exp(x)
    return xp.exp(x)


def times_exp(x: Array, log: Array) -> Array:
    """`x * exp(log)`, where the product may be in range though `exp(log)` is not; zeros of `x` stay zero."""
    xp = namespace(x, log)
    largest = math.floor(math.log(float(xp.finfo(log.dtype).max)))
    root = xp.exp(xp.clip(log / 2, max=largest))
    return x * root * root


def peak(x: Array, axis: int) -> Array:
    """The maximum of `x` along `axis`, which is kept; `-inf` over nothing."""
    xp = namespace(x)
    if x.shape[axis] > 0:
        return xp.max(x, axis=axis, keepdims=True)
    shape = tuple(1 if i == axis % x.ndim else length for i, length in enumerate(x.shape))
    return xp.full(shape, -xp.inf, dtype=x.dtype, device=device_of(x))


def replace_minus_inf(x: Array) -> Array:
    """`x` with 0 for `-inf`: a maximum over nothing, made safe to subtract."""
    xp = namespace(x)
    return xp.where(x == -xp.inf, xp.zeros_like(x), x)


def cumulative_sum(x: Array, axis: int) -> Array:
    """Sums of `x` along `axis` from its start through each position."""
    return np.cumsum(x, axis=axis) if isinstance(x, np.ndarray) else namespace(x).cumulative_sum(x, axis=axis)


def log_of(x: Array) -> Array:
    """`log(x)` of numbers x >= 0, `-inf` at 0, without a warning."""
    xp = namespace(x)
    positive = x > 0
    return xp.where(positive, xp.log(xp.where(positive, x, xp.ones_like(x))), -xp.inf)


def squared_norm(x: Array) -> Array:
    """`|x|²` along the last axis, which is kept: (..., n, d) -> (..., n, 1)."""
    if is_torch_array(x):  # its vecdot cannot be vectorized over (vmap)
        return namespace(x).sum(x * x, axis=-1, keepdims=True)
    return namespace(x).vecdot(x, x)[..., None]
