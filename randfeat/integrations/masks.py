"""Masks and biases of logits, as in other libraries, converted to masks and biases of keys."""

from typing import Any

import numpy as np

from randfeat._array import dtype_name, host_or_none, namespace

__all__ = ["key_bias_of", "key_mask_of", "present_of"]


def key_mask_of(mask: Any, key_ndim: int, *, name: str) -> Any:
    """The `key_mask` (..., S) of a boolean mask (..., 1, S) that is the same for all queries.

    key_ndim : number of dimensions of the keys (..., S, d).
    name : of the argument, for messages.
    """
    if dtype_name(mask.dtype) != "bool":
        raise TypeError(f"{name} must be boolean, True = take part, got dtype {dtype_name(mask.dtype)}.")
    return per_key(mask, key_ndim, name=name)


def key_bias_of(bias: Any, key_ndim: int, *, name: str) -> Any:
    """The `key_bias` (..., S) of summands (..., 1, S) of the logits that are the same for all queries."""
    if not dtype_name(bias.dtype).startswith(("float", "bfloat")):
        raise TypeError(f"{name} must be floating numbers, got dtype {dtype_name(bias.dtype)}.")
    return per_key(bias, key_ndim, name=name)


def present_of(mask: Any, *, name: str) -> Any:
    """A mask of truth values, also as the numbers 0 and 1; values that are traced are 0 or something else."""
    if dtype_name(mask.dtype) == "bool":
        return mask
    values = host_or_none(mask)
    if values is not None and not np.all((values == 0) | (values == 1)):
        raise ValueError(
            f"{name} must be boolean, or 1 where a key takes part and 0 where it does not, got other numbers of dtype "
            f"{dtype_name(mask.dtype)}; summands of the logits are a bias."
        )
    return mask != 0


def per_key(x: Any, key_ndim: int, *, name: str) -> Any:
    """(..., 1, S) without the axis of the queries, for keys (..., S, d) of `key_ndim` dimensions."""
    shape = tuple(x.shape)
    if len(shape) < 2 or shape[-2] != 1:
        raise ValueError(
            f"{name} must have shape (..., 1, S), one number for each key and all queries, got {shape}: a mask or a "
            "bias of pairs of queries and keys has no linear-time form, other than is_causal."
        )
    x = x[..., 0, :]
    missing = key_ndim - 1 - x.ndim
    if x.ndim == 1 or missing <= 0:
        return x
    return namespace(x).reshape(x, (1,) * missing + tuple(x.shape))
