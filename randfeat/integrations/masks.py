"""Masks of logits, as in other libraries, converted to masks of keys."""

from typing import Any

from randfeat._array import dtype_name, namespace

__all__ = ["key_mask_of"]


def key_mask_of(mask: Any, key_ndim: int, *, name: str) -> Any:
    """The `key_mask` (..., S) of a boolean mask (..., 1, S) that is the same for all queries.

    key_ndim : number of dimensions of the keys (..., S, d).
    name : of the argument, for messages.
    """
    if dtype_name(mask.dtype) != "bool":
        raise TypeError(
            f"{name} must be boolean, True = take part, got dtype {dtype_name(mask.dtype)}; a bias added "
            "to single logits has no linear-time form."
        )
    shape = tuple(mask.shape)
    if len(shape) < 2 or shape[-2] != 1:
        raise ValueError(
            f"{name} must have shape (..., 1, S), one mask of keys for all queries, got {shape}: a mask over pairs of "
            "queries and keys has no linear-time form, other than is_causal."
        )
    key_mask = mask[..., 0, :]
    missing = key_ndim - 1 - key_mask.ndim
    if key_mask.ndim == 1 or missing <= 0:
        return key_mask
    return namespace(key_mask).reshape(key_mask, (1,) * missing + tuple(key_mask.shape))
