"""Causal compressed attention of checked inputs: a piece of a stream, on threads where its numbers are on the host."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from randfeat._array import (
    Array,
    as_generator,
    copied,
    device_of,
    dtype_name,
    from_host,
    host_to,
    host_twins,
    namespace,
)
from randfeat._numpy.threads import resolve_num_threads, run_tasks
from randfeat.attention.cost_model.sizes import NUM_KEYS
from randfeat.attention.inputs import Inputs
from randfeat.compressed.heads import head_numbers, on_host
from randfeat.compressed.padding import Attended, attend_by_length, trimmed, with_padding
from randfeat.compressed.state import Columns, CompressedState, Piece, of_no_query
from randfeat.compressed.stream import attend_causally

FEW = 1 << 22  # products of numbers below which threads do not pay


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
    if mask is not None and length:
        state = with_padding(state, on_host(bias)[..., 0] != -np.inf)
    outputs, state = attend(state, piece, head_numbers(lead))
    state = trimmed(state)
    outputs = outputs or [of_no_query(piece)]
    return [output if inputs.group is not None else output[..., 0, :, :] for output in outputs], state


def attend(state: CompressedState, piece: Piece, heads: Sequence[int]) -> Attended:
    """The outputs of consecutive queries and the state after them, in arrays of its own.

    heads : the numbers of the heads, which their random numbers depend on.
    """
    twins = host_twins(*state.arrays, *piece.arrays)
    if twins is None or isinstance(piece.queries, np.ndarray):
        return attend_here(state, piece, heads)
    arrays, like, num_arrays = [x for x in twins if x is not None], piece.queries, len(state.arrays)
    outputs, state = attend_here(state.with_arrays(arrays[:num_arrays]), Piece.of(arrays[num_arrays:]), heads)
    return [from_host(x, like) for x in outputs], state.with_arrays([from_host(x, like) for x in state.arrays])


def attend_here(state: CompressedState, piece: Piece, heads: Sequence[int]) -> Attended:
    """`attend` in the library of the arrays."""
    if state.padding is not None and not is_short(state, piece):
        return attend_by_length(state, piece, heads, attend_here)
    if isinstance(piece.queries, np.ndarray):
        return attend_on_threads(state, piece, heads, resolve_num_threads(None))
    outputs, state = attend_causally(state, piece, heads)
    return outputs, state.with_arrays([*map(copied, state.arrays)])


def attend_on_threads(state: CompressedState, piece: Piece, heads: Sequence[int], num_threads: int) -> Attended:
    """`attend_causally` on the host: the heads in as many parts as threads, each part from the first chunk to the last.

    All heads of a part go through a chunk together. No number of a head depends on the others, so none depends on the
    number of threads. A few tokens within a chunk are one part, and what they do not change is not copied.
    """
    lead, length = state.batch_shape, len(piece.keys)
    num_heads = math.prod(lead)
    if num_heads == 0 or length == 0:
        outputs, state = attend_causally(state, piece, heads)
        return outputs, state.with_arrays([x.copy() for x in state.arrays])
    if is_short(state, piece):
        outputs, after = attend_causally(state, piece, heads)
        pairs = zip(after.arrays, state.arrays, strict=True)
        return outputs, after.with_arrays([x if x is before else apart(x, piece) for x, before in pairs])

    def flat(x: np.ndarray) -> np.ndarray:
        return x.reshape(num_heads, *x.shape[len(lead) :])

    arrays, pieces = [flat(x) for x in state.arrays], piece.mapped(flat)
    results = np.empty((*pieces.queries.shape[:-1], piece.keys.values.shape[-1]), piece.keys.values.dtype)
    num_parts = min(num_threads, num_heads)
    states: list[CompressedState] = [state] * num_parts

    def task(part: int, _: None) -> None:
        own = slice(num_heads * part // num_parts, num_heads * (part + 1) // num_parts)
        outputs, states[part] = attend_causally(
            state.with_arrays([x[own] for x in arrays]), pieces.mapped(lambda x: x[own]), heads[own]
        )
        np.concatenate(outputs, axis=-2, out=results[own])

    run_tasks([partial(task, part) for part in range(num_parts)], lambda: None, num_threads)
    joined = [np.concatenate(parts) for parts in zip(*(part.arrays for part in states), strict=True)]
    after = states[0].with_arrays([x.reshape(*lead, *x.shape[1:]) for x in joined])
    return [results.reshape(*lead, *results.shape[1:])], after


def is_short(state: CompressedState, piece: Piece) -> bool:
    """Whether the keys of a piece complete no chunk, and are so few that neither threads nor groups of heads pay."""
    return len(piece.keys) < state.until_next_chunk and num_products(state, piece) <= FEW


def num_products(state: CompressedState, piece: Piece) -> int:
    """Roughly the number of multiplications in reading the rows of a state and of a piece."""
    num_rows = sum(len(rows) for rows in (state.sinks, state.merged, state.recent, piece.keys))
    return math.prod(piece.queries.shape) * num_rows * 2


def apart(x: np.ndarray, piece: Piece) -> np.ndarray:
    """An array of a state; a copy if it may have the memory of the inputs."""
    return x.copy() if any(np.may_share_memory(x, given) for given in piece.arrays) else x


def by_key_head(inputs: Inputs) -> tuple[Array, Array, Array, Array | None]:
    """query (..., group, L, d), and key, value and mask without the axis of the group."""
    query, key, value, mask = inputs.query, inputs.key, inputs.value, inputs.key_mask
    if inputs.group is None:
        return query[..., None, :, :], key, value, mask
    mask = mask[..., 0, :] if mask is not None and mask.ndim > 1 else mask
    return query, key[..., 0, :, :], value[..., 0, :, :], mask


def start(piece: Piece, options: StreamOptions, scale: float) -> CompressedState:
    """The state before the first key."""
    num_keys = NUM_KEYS if options.num_keys is None else options.num_keys
    window = NUM_KEYS if options.window is None else options.window
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
