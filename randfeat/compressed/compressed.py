"""compressed_attention: softmax attention to a cache of merged keys, made for one call or along a causal stream."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from randfeat._array import (
    Array,
    as_bool,
    as_count,
    as_generator,
    device_of,
    dtype_name,
    host_to,
    namespace,
    own_precision,
)
from randfeat._hints import hinted
from randfeat.attention.exact import exact_outputs
from randfeat.attention.inputs import Inputs
from randfeat.attention.relations import Plain
from randfeat.attention.relations.base import as_int
from randfeat.compressed.compression import Options as Compression
from randfeat.compressed.compression import compressed_rows
from randfeat.compressed.heads import check_query_mask
from randfeat.compressed.stream import Columns, CompressedState, Piece, attend_causally
from randfeat.kernels import SoftmaxKernel

DEFAULT = 64


@hinted
def compressed_attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    num_keys: int | None = None,
    is_causal: bool = False,
    window: int | None = None,
    num_sinks: int | None = None,
    fit: bool | None = None,
    queries: Any = None,
    initial_state: CompressedState | None = None,
    return_state: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    query_mask: Any = None,
    enable_gqa: bool = False,
    layout: str = "bhld",
    rng: Any = 0,
) -> Any:
    """Softmax attention to `num_keys` merged keys in place of all keys; in linear time, causally with bounded memory.

    Without `is_causal`, keys are merged for the queries of the call (`randfeat.compress` without a fit), and read. With
    it, the sequence is read in chunks of `window` positions: a query sees the keys of its own chunk, up to itself, and
    of the chunk before as they are, and a cache of `num_keys` rows for all older ones. After each chunk its predecessor
    is merged into the cache, with a sample of the queries so far as references. So outputs never depend on later
    positions, and the memory is `num_keys + 2 window` rows for each key head, beside the sinks and a sample of about 2
    `num_keys` queries, whatever the length.

    Parameters
    ----------
    query : (..., L, d).
        L queries.
    key, value : (..., S, d) and (..., S, dv).
        Keys with their values; causally, S = L.
    num_keys : int.
        Rows of the cache, 64 by default.
    is_causal : bool.
        If True, query i sees the keys 0 .. i, and those of `initial_state`.
    window : int.
        Needs `is_causal`. Length of the chunks, 64 by default. It decides what is merged when, so it is part of the
        state.
    num_sinks : int.
        Needs `is_causal`. The first keys of the sequence, which stay exact: in language models they can have most of
        the weight. 0 by default.
    fit : bool.
        If True, masses and values of the merged rows are fitted, as in `compress`. On heads of a sentence encoder with
        a causal mask errors were a quarter lower, at about twice the time; in language models a fit can gain nothing.
        False by default.
    queries : (..., R, d).
        References: typical queries. By default the queries of the call, or causally a uniform sample of those so far.
        Given ones stay in the state, and take the place of the sample.
    initial_state : CompressedState.
        Of earlier positions: the state that an earlier call returned, which also has `num_keys`, `window`, `num_sinks`
        and the seed. Outputs do not depend on where a sequence is cut, up to rounding.
    return_state : bool.
        Needs `is_causal`. If True, also return the state after all keys.
    scale, key_mask, query_mask, enable_gqa, layout, rng : as of `clustered_attention`.
        Masked keys and queries keep their positions in a stream.

    Returns
    -------
    (..., L, dv) in the dtype of `value`, or the pair (output, state). Without `fit`, outputs are convex combinations of
    the values.

    Exact for at most `num_keys` keys, causally for the first `num_keys + window` positions. Without `is_causal`,
    `clustered_attention` is more accurate at the same cost. Errors are not bounded by theory: measure them with
    `output_error`. float16 and bfloat16 are computed in float32. Gradients hold the merging constant. Key caches cannot
    be made while a function is traced by a compiler: TypeError.

    Source: Xiao et al. 2024, "Efficient Streaming Language Models with Attention Sinks", for exact first and last keys;
        `randfeat.compress` for the cache.

    >>> import numpy as np, randfeat as rf
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 2, 500, 16))
    >>> out, state = rf.compressed_attention(q[:, :300], k[:, :300], v[:, :300], is_causal=True, return_state=True)
    >>> rest = rf.compressed_attention(q[:, 300:], k[:, 300:], v[:, 300:], is_causal=True, initial_state=state)
    >>> whole = rf.compressed_attention(q, k, v, is_causal=True)
    >>> bool(np.allclose(np.concatenate([out, rest], axis=-2), whole))
    True
    """
    is_causal = as_bool(is_causal, "is_causal")
    fit = None if fit is None else as_bool(fit, "fit")
    num_keys = None if num_keys is None else as_count(num_keys, "num_keys")
    window = None if window is None else as_count(window, "window")
    num_sinks = None if num_sinks is None else checked_sinks(num_sinks)
    return_state = as_bool(return_state, "return_state")
    inputs = Inputs.of(
        query, key, value, kernel=SoftmaxKernel(), scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, layout=layout
    )
    used = check_query_mask(query_mask, inputs)
    references = None
    if queries is not None:
        references = Inputs.of(
            queries, key, value, kernel=SoftmaxKernel(),
            scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, layout=layout,
        )  # fmt: skip
    if is_causal:
        if inputs.num_queries != inputs.num_keys:
            raise ValueError(
                f"is_causal needs a key for each query, got {inputs.num_queries} queries and {inputs.num_keys} keys; "
                "earlier keys come with initial_state."
            )
        options = StreamOptions(num_keys, window, num_sinks, fit, rng)
        with own_precision(inputs.value):
            outputs, state = stream(inputs, used, references, initial_state, options)
        output = inputs.restore(outputs)
        return (output, state) if return_state else output
    given = {"window": window, "num_sinks": num_sinks, "initial_state": initial_state, "return_state": return_state}
    if refused := [name for name, option in given.items() if option is not None and option is not False]:
        raise ValueError(f"{refused[0]} needs is_causal=True: without it all keys are merged at once.")
    if 0 in inputs.query.shape[:-1]:
        return inputs.restore(exact_outputs(inputs, Plain(), SoftmaxKernel()))
    made_for, counted = (inputs, all_where_none(used, inputs)) if references is None else (references, None)
    with own_precision(inputs.value):
        how = Compression(DEFAULT if num_keys is None else num_keys, bool(fit))
        rows = compressed_rows(made_for, counted, how, rng)
        return inputs.restore(exact_outputs(reading(inputs, *rows), Plain(), SoftmaxKernel()))


def checked_sinks(num_sinks: Any) -> int:
    """A number of keys, 0 or more."""
    number = as_int(num_sinks, "num_sinks")
    if number < 0:
        raise ValueError(f"num_sinks must be 0 or a positive integer, got {num_sinks}.")
    return number


def all_where_none(used: np.ndarray | None, inputs: Inputs) -> np.ndarray | None:
    """The mask over queries, with all of them where a head has none: then no output of the head counts."""
    if used is None:
        return None
    axes = -1 if inputs.group is None or used.ndim == 1 else (-2, -1)
    return used | ~np.any(used, axis=axes, keepdims=True)


def reading(inputs: Inputs, keys: Array, bias: Array, values: Array) -> Inputs:
    """The inputs with these rows in place of the keys."""
    if inputs.group is not None:
        keys, bias, values = keys[..., None, :, :], bias[..., None, :], values[..., None, :, :]
    return replace(inputs, key=keys, value=values, key_bias=bias, key_mask=None)


@dataclass(frozen=True, eq=False)
class StreamOptions:
    """Options of a call for its stream; None stands for that of the state, or the default."""

    num_keys: int | None
    window: int | None
    num_sinks: int | None
    fit: bool | None
    rng: Any


def stream(
    inputs: Inputs, used: np.ndarray | None, references: Inputs | None, given: Any, options: StreamOptions
) -> tuple[list[Array], CompressedState]:
    """The outputs of consecutive queries, and the state after all keys."""
    prepared, xp = inputs.prepared(), namespace(inputs.value)
    like, dtype = {"device": device_of(prepared.value)}, prepared.value.dtype
    query, key, value, mask = by_key_head(prepared)
    lead = np.broadcast_shapes(query.shape[:-3], key.shape[:-2], value.shape[:-2])
    length = inputs.num_keys
    bias = xp.zeros((*lead, length, 1), dtype=dtype, **like)
    if mask is not None:
        bias = xp.where(mask[..., None], bias, -xp.inf)
    counts = np.ones(length, np.bool_) if used is None else used
    if inputs.group is None and counts.ndim > 1:
        counts = counts[..., None, :]
    counts = xp.broadcast_to(host_to(counts[..., None], value), (*lead, query.shape[-3], length, 1))
    keys = Columns(
        xp.broadcast_to(key, (*lead, *key.shape[-2:])), bias, xp.broadcast_to(value, (*lead, *value.shape[-2:]))
    )
    piece = Piece(xp.broadcast_to(query, (*lead, *query.shape[-3:])), counts, keys)
    state = start(piece, options, inputs.root**2) if given is None else continued(given, piece, options, inputs.root**2)
    if references is not None:
        own, _, _, _ = by_key_head(references.prepared())
        flat = xp.reshape(own, (*own.shape[:-3], own.shape[-3] * own.shape[-2], own.shape[-1]))
        flagged = xp.concat([flat, xp.ones_like(flat[..., :1])], axis=-1)
        state = replace(state, references=xp.broadcast_to(flagged, (*lead, *flagged.shape[-2:])), follows=False)
    outputs, state = attend_causally(state, piece)
    state = replace(state, sinks=state.sinks.copied(), merged=state.merged.copied(), recent=state.recent.copied())
    outputs = outputs or [xp.zeros((*lead, query.shape[-3], 0, value.shape[-1]), dtype=dtype, **like)]
    return [output if inputs.group is not None else output[..., 0, :, :] for output in outputs], state


def by_key_head(inputs: Inputs) -> tuple[Array, Array, Array, Array | None]:
    """query (..., group, L, d), and key, value and mask without the axis of the group."""
    query, key, value, mask = inputs.query, inputs.key, inputs.value, inputs.key_mask
    if inputs.group is None:
        return query[..., None, :, :], key, value, mask
    mask = mask[..., 0, :] if mask is not None and mask.ndim > 1 else mask
    return query, key[..., 0, :, :], value[..., 0, :, :], mask


def start(piece: Piece, options: StreamOptions, scale: float) -> CompressedState:
    """The state before the first key."""
    num_keys = DEFAULT if options.num_keys is None else options.num_keys
    window = DEFAULT if options.window is None else options.window
    none = piece.keys.part(0, 0)
    references = namespace(none.keys).concat([none.keys, none.bias], axis=-1)
    return CompressedState(
        none, none, none, references, np.empty(0), 0, num_keys, window, options.num_sinks or 0, scale,
        int(as_generator(options.rng).integers(2**63)), bool(options.fit), True,
    )  # fmt: skip


def continued(given: Any, piece: Piece, options: StreamOptions, scale: float) -> CompressedState:
    """The state of an earlier call, if it fits this one."""
    if not isinstance(given, CompressedState):
        raise TypeError(f"initial_state must be a CompressedState, got {type(given).__name__}.")
    for name in ("num_keys", "window", "num_sinks", "fit"):
        asked, own = getattr(options, name), getattr(given, name)
        if asked is not None and asked != own:
            raise ValueError(f"initial_state has {name} = {own}, got {asked}; leave it out.")
    if given.scale != scale:
        raise ValueError(f"initial_state is for logits times {given.scale}, got scale = {scale}.")
    mine, theirs = piece.keys, given.recent
    shapes = [(tuple(x.keys.shape[:-2]), x.keys.shape[-1], x.values.shape[-1]) for x in (mine, theirs)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"initial_state has (leading shape, dim, value dim) {shapes[1]}, expected {shapes[0]}, that of the keys."
        )
    namespace(mine.keys, theirs.keys)
    if mine.keys.dtype != theirs.keys.dtype:
        names = dtype_name(theirs.keys.dtype), dtype_name(mine.keys.dtype)
        raise TypeError(f"initial_state is in {names[0]}, but this call computes in {names[1]}.")
    return given
