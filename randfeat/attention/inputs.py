"""Inputs: query, key, value and key mask, checked at the border and laid out for grouped heads."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from randfeat._array import (
    Array,
    as_bool,
    as_floating,
    as_integers,
    autocast_dtype,
    broadcast_shapes,
    cast,
    compute_dtype,
    device_of,
    dtype_name,
    host_to,
    is_on_host,
    namespace,
    repeats_to,
)
from randfeat._hints import short
from randfeat.attention.partial import PartialOutput
from randfeat.kernels import Kernel
from randfeat.kernels.softmax import resolve_scale
from randfeat.maps import FeatureMap


@dataclass(frozen=True, eq=False)
class Inputs:
    """The arrays of one call: query (..., L, d), key (..., S, d), value (..., S, dv), key_mask (..., S) or None.

    `Inputs.of` checks them; `prepared` casts to the computing dtype, multiplies query and key by √scale, and puts zeros
    where keys are masked. Executors that do this block by block start from the checked inputs.

    With grouped heads, query is (..., key heads, group, L, d), and key and value are (..., key heads, 1, S, ·).
    """

    query: Array
    key: Array
    value: Array
    key_mask: Array | None
    dtype: Any
    """dtype of the output."""
    group: int | None
    """Query heads per key head, or None where heads are not grouped."""
    layout: str = "bhld"
    """Layout of the output: "blhd" has the heads after the length."""
    root: float = 1.0
    """√scale, which query and key are still to be multiplied by."""
    key_bias: Array | None = None
    """Summands of the logits of each key, (..., S); where they are -inf, `key_mask` is False."""

    @classmethod
    def of(
        cls,
        query: Any,
        key: Any,
        value: Any,
        *,
        kernel: Kernel,
        scale: float | None = None,
        key_mask: Any = None,
        enable_gqa: bool = False,
        key_lengths: Any = None,
        key_bias: Any = None,
        layout: str = "bhld",
    ) -> "Inputs":
        """Check everything at the border, before any work is done."""
        query, key, value = as_floating(query, "query"), as_floating(key, "key"), as_floating(value, "value")
        enable_gqa = as_bool(enable_gqa, "enable_gqa")
        if layout not in ("bhld", "blhd"):
            raise ValueError(f'layout must be "bhld" or "blhd", got {short(layout)}.')
        if layout == "blhd":
            query, key, value = swap_heads(query, "query"), swap_heads(key, "key"), swap_heads(value, "value")
        if isinstance(key_mask, list | tuple | bool | int | float):
            key_mask = np.asarray(key_mask)
        xp = namespace(query, key, value, key_mask)
        check_shapes(query, key, value, enable_gqa=enable_gqa)
        query, key, value = in_one_dtype(query, key, value)
        if key_mask is not None:
            key_mask = check_mask(key_mask, query, key)
        if key_lengths is not None:
            present = length_mask(key_lengths, key)
            key_mask = present if key_mask is None else key_mask & present
        if key_bias is not None:
            key_bias = check_bias(key_bias, query, key)
            present = key_bias != -xp.inf
            key_mask = present if key_mask is None else key_mask & present
        root = resolve_scale(scale, kernel, query.shape[-1]) ** 0.5
        if not enable_gqa:
            return cls(query, key, value, key_mask, value.dtype, None, layout, root, key_bias)
        key_heads = key.shape[-3]
        group = query.shape[-3] // key_heads
        query = xp.reshape(query, (*query.shape[:-3], key_heads, group, *query.shape[-2:]))
        key_mask, key_bias = (x[..., None, :] if x is not None and x.ndim > 1 else x for x in (key_mask, key_bias))
        key, value = key[..., None, :, :], value[..., None, :, :]
        return cls(query, key, value, key_mask, value.dtype, group, layout, root, key_bias)

    def computing(self) -> "Inputs":
        """The inputs cast to the computing dtype: float32 for float16 and bfloat16."""
        dtype = compute_dtype(namespace(self.query), self.dtype)
        query, key, value = (cast(x, dtype) for x in (self.query, self.key, self.value))
        return replace(self, query=query, key=key, value=value)

    @property
    def arrays(self) -> tuple[Array | None, ...]:
        """Query, key, value, key mask and key bias."""
        return self.query, self.key, self.value, self.key_mask, self.key_bias

    def with_arrays(self, query: Array, key: Array, value: Array, key_mask: Any, key_bias: Any) -> "Inputs":
        """The inputs with other arrays in place of `arrays`; the output then has the dtype of the values."""
        found = replace(self, query=query, key=key, value=value, key_mask=key_mask, key_bias=key_bias)
        return replace(found, dtype=value.dtype)

    def prepared(self) -> "Inputs":
        """The inputs in the computing dtype, query and key times √scale, masked keys and values zero."""
        inputs, xp = self.computing(), namespace(self.query)
        key, value, bias = inputs.key * self.root, inputs.value, inputs.key_bias
        if self.key_mask is not None:
            key = xp.where(self.key_mask[..., None], key, xp.zeros_like(key))
            value = xp.where(self.key_mask[..., None], value, xp.zeros_like(value))
            bias = None if bias is None else xp.where(self.key_mask, bias, xp.zeros_like(bias))
        return replace(inputs, query=inputs.query * self.root, key=key, value=value, key_bias=bias, root=1.0)

    @property
    def num_queries(self) -> int:
        """The number of queries L."""
        return self.query.shape[-2]

    @property
    def num_keys(self) -> int:
        """The number of keys S."""
        return self.key.shape[-2]

    def align(self, features: FeatureMap) -> FeatureMap:
        """The feature map with its batch of per-head maps laid out like the grouped heads."""
        if self.group is None or not features.batch_shape:
            return features
        arrays = {name: self.per_head(array, 2, "features") for name, array in features.arrays.items()}
        return FeatureMap(features.estimator, features.dim, features.num_features, arrays)

    def per_head(self, x: Array, trailing: int, name: str) -> Array:
        """`x` (..., heads, then `trailing` more dimensions) with its heads laid out like the grouped ones."""
        if self.group is None or x.ndim == trailing:
            return x
        axis = x.ndim - trailing - 1
        heads, key_heads = x.shape[axis], self.key.shape[-4]
        if not repeats_to(heads, key_heads) and heads != key_heads * self.group:
            entries = "maps in their last batch dimension" if name == "features" else "heads"
            raise ValueError(
                f"{name} have {heads} {entries}, expected one per query head "
                f"({key_heads * self.group}), one per key head ({key_heads}), or 1."
            )
        split = (key_heads, self.group) if heads == key_heads * self.group else (heads, 1)
        return namespace(x).reshape(x, (*x.shape[:axis], *split, *x.shape[axis + 1 :]))

    def part(self, queries: slice, keys: slice) -> "Inputs":
        """The inputs at these positions only."""
        mask, bias = (None if x is None else x[..., keys] for x in (self.key_mask, self.key_bias))
        return replace(
            self,
            query=self.query[..., queries, :],
            key=self.key[..., keys, :],
            value=self.value[..., keys, :],
            key_mask=mask,
            key_bias=bias,
        )

    def around(self, offset: int) -> "tuple[Inputs, Inputs, Inputs]":
        """Three parts, with query i at the position i + offset: before both, queries and keys in pairs, after both.

        The first part has queries or keys, never both, and so has the last.
        """
        first, paired, rest = (self.part(*part) for part in slices_around(offset, self.num_queries, self.num_keys))
        return first, paired, rest

    @property
    def key_columns(self) -> tuple[Array, Array, Array | None]:
        """Arrays with a row for each key: the keys, their values, and their weights as of `keys_of`, (..., S, 1)."""
        weights = self.key_mask
        if self.key_bias is not None:
            xp = namespace(self.key_bias)
            weights = xp.where(self.key_mask, self.key_bias, -xp.inf)
        return self.key, self.value, None if weights is None else weights[..., None]

    def leading_shape(self, features: FeatureMap) -> tuple[int, ...]:
        """Leading dimensions of what is summed over the keys: those of keys, values and maps, broadcast."""
        summed = (self.key.shape[:-2], self.value.shape[:-2], features.batch_shape)
        try:
            broadcast_shapes(self.query.shape[:-2], *summed)
        except ValueError:
            is_blhd = features.batch_shape[-1:] == self.query.shape[-2:-1]
            hint = '; heads come before the length, or say layout="blhd"' if is_blhd else ""
            raise ValueError(
                f"features with batch_shape {features.batch_shape} do not fit the leading dimensions: "
                f"query {tuple(self.query.shape)}, key {tuple(self.key.shape)}, value {tuple(self.value.shape)}{hint}."
            ) from None
        return broadcast_shapes(*summed)

    def restore(self, outputs: list[Array]) -> Array:
        """The output (..., L, dv) from outputs of consecutive queries, heads ungrouped, in the caller's dtype."""
        xp = namespace(self.value)
        output = xp.concat(outputs, axis=-2) if len(outputs) > 1 else outputs[0]
        return cast(self.in_layout(output), self.dtype)

    def restore_partial(self, part: PartialOutput) -> PartialOutput:
        """The partial outputs with heads ungrouped, in the caller's layout and the computing dtype."""
        xp, lead = namespace(self.value), part.numerator.shape[:-2]
        columns = (xp.broadcast_to(x, (*lead, *x.shape[-2:])) for x in part.columns)
        return PartialOutput(*map(self.in_layout, columns))

    def in_layout(self, output: Array) -> Array:
        """`output` (..., L, n) with heads ungrouped, in the caller's layout."""
        if self.group is not None:
            heads = output.shape[-4] * output.shape[-3]
            output = namespace(output).reshape(output, (*output.shape[:-4], heads, *output.shape[-2:]))
        return swap_heads(output) if self.layout == "blhd" else output


def in_one_dtype(query: Array, key: Array, value: Array) -> tuple[Array, Array, Array]:
    """The arrays, which must have one dtype; tensors under `torch.autocast` are cast to its dtype if they do not."""
    if query.dtype == key.dtype == value.dtype:
        return query, key, value
    dtype = autocast_dtype(query, key, value)
    if dtype is None:
        names = ", ".join(dtype_name(x.dtype) for x in (query, key, value))
        raise TypeError(f"query, key and value must have one dtype, got {names}.")
    return cast(query, dtype), cast(key, dtype), cast(value, dtype)


def intervals(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Consecutive intervals of at most `size` that cover `start .. stop`."""
    return [(first, min(first + size, stop)) for first in range(start, stop, size)]


def slices_around(offset: int, num_queries: int, num_keys: int) -> list[tuple[slice, slice]]:
    """Slices of queries and of keys, with query i at the position i + offset: before both, in pairs, after both."""
    ahead, before = min(max(-offset, 0), num_queries), min(max(offset, 0), num_keys)
    both = min(num_queries - ahead, num_keys - before)
    cuts = ((0, ahead, ahead + both, num_queries), (0, before, before + both, num_keys))
    queries, keys = ([slice(*interval) for interval in pairwise(cut)] for cut in cuts)
    return list(zip(queries, keys, strict=True))


def swap_heads(x: Array, name: str = "output") -> Array:
    """(..., length, heads, dim) as (..., heads, length, dim), and back."""
    if x.ndim < 3:
        raise ValueError(f'{name} must have shape (..., length, heads, dim) in layout "blhd", got {tuple(x.shape)}.')
    axes = (*range(x.ndim - 3), x.ndim - 2, x.ndim - 3, x.ndim - 1)
    return namespace(x).permute_dims(x, axes)


def length_mask(key_lengths: Any, key: Array) -> Array:
    """The mask of the first `key_lengths` keys of each batch entry."""
    on_host = is_on_host(key_lengths)
    given = np.asarray(key_lengths) if on_host else None
    lengths = as_integers(key_lengths, "key_lengths", key)
    lead, shape = tuple(key.shape[:-2]), tuple(lengths.shape)
    if len(shape) > len(lead) or any(not repeats_to(size, full) for size, full in zip(shape, lead, strict=False)):
        raise ValueError(
            f"key_lengths must have the first of the leading dimensions of key, {lead}, as its shape "
            f"(one int, or one for each batch entry; 1 broadcasts), got {shape}."
        )
    if given is not None and given.size and (given.min() < 0 or given.max() > key.shape[-2]):
        raise ValueError(
            f"key_lengths must be between 0 and the number of keys, {key.shape[-2]}, "
            f"got {int(given.min())} .. {int(given.max())}."
        )
    xp = namespace(key)
    positions = xp.arange(key.shape[-2], device=device_of(key))
    if not shape:
        return positions < lengths
    return positions < xp.reshape(lengths, (*shape, *(1 for _ in lead[len(shape) :]), 1))


def check_shapes(query: Array, key: Array, value: Array, *, enable_gqa: bool) -> None:
    """Shapes (..., L, d), (..., S, d), (..., S, dv) whose leading dimensions fit together."""
    shapes = {"query": tuple(query.shape), "key": tuple(key.shape), "value": tuple(value.shape)}

    def refusal(expected: str) -> ValueError:
        return ValueError(f"{expected}: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()) + ".")

    for name, shape in shapes.items():
        if len(shape) < 2 + enable_gqa:
            expected = "(..., heads, length, dim)" if enable_gqa else "(..., length, dim)"
            raise ValueError(f"{name} must have shape {expected}, got {shape}.")
    if query.shape[-1] != key.shape[-1]:
        raise refusal("query and key must share their last dimension")
    if key.shape[-2] != value.shape[-2]:
        raise refusal("key and value must have the same length (dimension -2)")
    if enable_gqa and (value.shape[-3] != key.shape[-3] or key.shape[-3] == 0 or query.shape[-3] % key.shape[-3]):
        raise refusal("query heads must be a multiple of the key heads, and key and value heads equal")
    drop = 3 if enable_gqa else 2
    try:
        broadcast_shapes(*(shape[:-drop] for shape in shapes.values()))
    except ValueError:
        hint = "" if enable_gqa else " (grouped heads need enable_gqa=True)"
        raise refusal(f"leading dimensions do not fit together{hint}") from None


def check_mask(key_mask: Any, query: Array, key: Array) -> Array:
    """A boolean mask over keys, never over (query, key) pairs."""
    kind = dtype_name(key_mask.dtype)
    if kind != "bool":
        raise TypeError(
            f"key_mask must be boolean, True = take part, got dtype {kind}; summands of the logits are key_bias."
        )
    return check_per_key(key_mask, query, key, "key_mask")


def check_bias(key_bias: Any, query: Array, key: Array) -> Array:
    """Summands of the logits of each key, never of (query, key) pairs, in the computing dtype."""
    on_host = is_on_host(key_bias)
    bias = as_floating(key_bias, "key_bias")
    bias = host_to(bias, query) if on_host else cast(bias, compute_dtype(namespace(bias, query), query.dtype))
    return check_per_key(bias, query, key, "key_bias")


def check_per_key(given: Array, query: Array, key: Array, name: str) -> Array:
    """An array with one number for each key, (S,) or the shape of the keys without their last dimension."""
    shape, expected = tuple(given.shape), tuple(key.shape[:-1])
    if not is_for_positions(shape, expected):
        pairs = (
            " A mask over (query, key) pairs has no linear-time form, other than is_causal."
            if shape[-2:] == (query.shape[-2], key.shape[-2])
            else f" A padding mask (batch, S) for keys with heads is {name}[:, None, :], (batch, 1, {expected[-1]})."
        )
        raise ValueError(f"{name} must have shape ({expected[-1]},) or {expected} (1 broadcasts), got {shape}.{pairs}")
    return given


def is_for_positions(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether an array has a number for each position: (n,), or the expected shape (..., n), where 1 broadcasts."""
    fits = len(shape) in (1, len(expected)) and all(
        repeats_to(size, full) for size, full in zip(shape[::-1], expected[::-1], strict=False)
    )
    return fits and shape[-1] == expected[-1]
