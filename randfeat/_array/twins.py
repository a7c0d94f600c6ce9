"""Host twins: NumPy views of arrays of other libraries that lie on the CPU, and nobody watches."""

import sys

import numpy as np

from randfeat._array.conversion import to_numpy
from randfeat._array.loops import is_traced
from randfeat._array.namespaces import Array, device_of, is_jax_array, is_torch_array, namespace


def host_twins(*arrays: Array | None) -> list[np.ndarray | None] | None:
    """NumPy views of the arrays, without a copy; None if one of them must stay in its library.

    That is so on an accelerator, where gradients are recorded, a function is traced, compiled or mapped, and for
    subclasses of tensors. Entries None stay None. Nothing may be written to the views.
    """
    if all(x is None or has_twin(x) for x in arrays):
        return [None if x is None else to_numpy(x) for x in arrays]
    return None


def has_twin(x: Array) -> bool:
    """Whether the numbers of `x` may be read by NumPy in place."""
    if isinstance(x, np.ndarray):
        return True
    if is_torch_array(x):
        torch = sys.modules["torch"]
        return (
            not torch.compiler.is_compiling()
            and type(x) in (torch.Tensor, torch.nn.Parameter)
            and x.device.type == "cpu"
            and x.layout == torch.strided
            and not (torch.is_grad_enabled() and x.requires_grad)
            and not torch._C._functorch.is_functorch_wrapped_tensor(x)
            and torch.autograd.forward_ad.unpack_dual(x).tangent is None
        )
    if is_jax_array(x):
        jax = sys.modules["jax"]
        return not isinstance(x, jax.core.Tracer) and not is_traced(x) and {d.platform for d in x.devices()} == {"cpu"}
    return False


def from_host(array: np.ndarray, like: Array) -> Array:
    """The array, which nobody else holds, in the library of `like`; on a CPU, without a copy where that is possible."""
    if is_torch_array(like):
        return sys.modules["torch"].from_numpy(array)
    return namespace(like).asarray(array, device=device_of(like))
