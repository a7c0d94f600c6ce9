"""torch.autocast: what it asks of mixed inputs, and how features are kept out of it."""

import contextlib
import sys
from typing import Any

import numpy as np

from randfeat._array.namespaces import Array, is_torch_array


def autocast_dtype(*arrays: Array) -> Any:
    """The dtype of `torch.autocast` where it is in force for these tensors; float64 is never cast."""
    if not all(is_torch_array(x) and is_autocast(x) for x in arrays):
        return None
    torch = sys.modules["torch"]
    if any(x.dtype == torch.float64 for x in arrays):
        return None
    return torch.get_autocast_dtype(arrays[0].device.type)


def own_precision(x: Array) -> contextlib.AbstractContextManager[None]:
    """Context without `torch.autocast` for arrays like `x`: products have the dtype of their factors.

    For NumPy arrays, underflow is no error there, whatever `np.errstate` of the caller says: weights that are too small
    for the dtype are zero.
    """
    if isinstance(x, np.ndarray):
        return np.errstate(under="ignore")
    if not is_torch_array(x) or not is_autocast(x):
        return contextlib.nullcontext()
    return sys.modules["torch"].autocast(x.device.type, enabled=False)


def is_autocast(x: Array) -> bool:
    """Whether `torch.autocast` is in force on the device of the tensor `x`."""
    torch, kind = sys.modules["torch"], x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
