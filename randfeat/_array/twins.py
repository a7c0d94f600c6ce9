"""Host twins: NumPy views of arrays of other libraries that lie on the CPU, and that nobody watches."""

import sys
from typing import Any

import numpy as np

from randfeat._array.conversion import cast, compute_dtype, to_numpy
from randfeat._array.loops import is_traced, is_transformed
from randfeat._array.namespaces import Array, device_of, is_jax_array, is_on_host, is_torch_array, namespace


def host_twins(*arrays: Array | None) -> list[Any] | None:
    """NumPy views of the arrays, without a copy; None if one of them must stay in its library.

    That is so on an accelerator, where gradients are recorded, a function is traced, compiled or mapped, and for
    subclasses of tensors and sharded arrays. Entries None stay None. float16 and bfloat16 are widened to float32.
    Nothing may be written to the views.
    """
    if not all(x is None or has_twin(x) for x in arrays):
        return None
    if len({device for x in arrays if is_jax_array(x) and (device := device_of(x)) is not None}) > 1:
        return None
    return [None if x is None else twin(x) for x in arrays]


def is_known(x: Any) -> bool:
    """Whether the numbers of `x` are on the CPU, also while a function is traced of which `x` is a constant."""
    if is_on_host(x):
        return True
    if not is_jax_array(x):
        return str(device_of(x)) == "cpu"
    return not isinstance(x, sys.modules["jax"].core.Tracer) and {d.platform for d in x.devices()} == {"cpu"}


def twin(x: Array) -> np.ndarray:
    """The numbers of `x` as a NumPy array, half types as float32."""
    x = cast(x, compute_dtype(namespace(x), x.dtype))
    return to_numpy(x.resolve_neg() if is_torch_array(x) else x)


def has_twin(x: Array) -> bool:
    """Whether the numbers of `x` may be read by NumPy in place."""
    if isinstance(x, np.ndarray):
        return True
    if is_torch_array(x):
        torch = sys.modules["torch"]
        return (
            not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and type(x) in (torch.Tensor, torch.nn.Parameter)
            and x.device.type == "cpu"
            and x.layout == torch.strided
            and not (x.requires_grad and torch.is_grad_enabled())
            and not is_transformed(x)
            and not torch._C._functorch.is_functorch_wrapped_tensor(x)
            and torch.autograd.forward_ad.unpack_dual(x).tangent is None
            and torch._C._len_torch_dispatch_stack() == 0  # modes that record or count operations
        )
    if is_jax_array(x):
        jax = sys.modules["jax"]
        return (
            not isinstance(x, jax.core.Tracer)
            and not is_traced(x)
            and [device.platform for device in x.devices()] == ["cpu"]
        )
    return False


def from_host(array: np.ndarray, *like: Array) -> Array:
    """The array, which nobody else holds, in the library and on the device of `like`.

    On a CPU it is not copied, where that is possible. An array of JAX is bound to a device if one of `like` is.
    """
    if is_torch_array(like[0]):
        return sys.modules["torch"].from_numpy(np.require(array, requirements="W"))  # repeated rows become single ones
    if not is_jax_array(like[0]):
        return namespace(like[0]).asarray(array, device=device_of(like[0]))
    jax = sys.modules["jax"]
    device = next((device for x in like if (device := device_of(x)) is not None), None)
    if device is not None:
        return jax.device_put(array, device)
    with jax.default_device(next(iter(like[0].devices()))):
        return jax.numpy.asarray(array)


def is_dispatched(x: Array) -> bool:
    """Whether every operation on `x` is a compiled program of its own, called one by one (JAX outside of `jit`)."""
    return is_jax_array(x)


def host_threads(like: Array) -> int | None:
    """The number of threads that the library of `like` is set to, where it is a setting of the program (PyTorch)."""
    return sys.modules["torch"].get_num_threads() if is_torch_array(like) else None
