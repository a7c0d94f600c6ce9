"""Streams of a batch whose sequences begin at different positions: padding on the left has no position in a stream.

The chunks of each sequence are counted from its first key. So sequences with equal padding are a stream of their own,
with the outputs that each has alone. Within a chunk of all of them, a few tokens are read together.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from randfeat._array import Array, device_of, namespace
from randfeat.compressed.state import Columns, CompressedState, Piece, of_no_query

Attended = tuple[list[Array], CompressedState]
"""Outputs of consecutive queries, and the state after them."""


def with_padding(state: CompressedState, present: np.ndarray) -> CompressedState:
    """The state before keys of which those take part where `present` (*batch_shape, n) is True.

    Masked ones before the first key of a sequence are its padding, which may be longer than what has been read.
    """
    positions = state.positions
    leading = np.where(np.any(present, axis=-1), np.argmax(present, axis=-1), present.shape[-1])
    padding = state.position - positions + np.where(positions == 0, leading, 0)
    if not np.any(padding):
        return state
    priorities = np.broadcast_to(state.priorities, (*state.batch_shape, state.priorities.shape[-1]))
    return replace(state, padding=padding, priorities=priorities)


def attend_by_length(
    state: CompressedState, piece: Piece, heads: Sequence[int], attend: Callable[..., Attended]
) -> Attended:
    """`attend(state, piece, heads)` of the sequences that have equally many keys, each time without their padding."""
    xp, lead, positions = namespace(piece.queries), state.batch_shape, state.positions.ravel()
    flat = state.reshaped((positions.size,))
    pieces = piece.mapped(lambda x: xp.reshape(x, (positions.size, *x.shape[len(lead) :])))
    found, states, order = [], [], []
    for position in np.unique(positions).tolist():
        index, length = np.flatnonzero(positions == position), len(piece.keys)
        start = min(max(-position, 0), length)
        own = pieces.select(index)
        outputs, after = attend(
            beginning(flat.select(index)), own.part(start, length), [heads[i] for i in index.tolist()]
        )
        none = of_no_query(own)
        zeros = xp.zeros((*none.shape[:-2], start, none.shape[-1]), dtype=none.dtype, device=device_of(none))
        found.append(xp.concat([zeros, none, *outputs], axis=-2))
        states.append(after)
        order.append(index)
    places = np.argsort(np.concatenate(order))
    whole = xp.take(xp.concat(found, axis=0), xp.asarray(places, device=device_of(found[0])), axis=0)
    return [xp.reshape(whole, (*lead, *whole.shape[1:]))], joined(states).select(places).reshaped(lead)


def beginning(state: CompressedState) -> CompressedState:
    """The state of sequences that have equally many keys, or none and equal padding before the first."""
    state = trimmed(state)
    if state.padding is None:
        return state
    return replace(state, padding=None, priorities=state.priorities[0])


def trimmed(state: CompressedState) -> CompressedState:
    """The state without rows that stand for none in all sequences, and without padding if all are of one length."""
    if state.padding is None:
        return state
    position = int(np.max(state.positions, initial=0))
    padding = position - state.positions
    lengths = np.unique(np.maximum(state.positions, 0)).tolist()
    numbers = [numbers_of_rows(state, length) for length in [0, *lengths]]
    num_sinks, num_merged, num_recent = map(max, zip(*numbers, strict=True))
    references, priorities = state.references, state.priorities
    if state.follows:
        count = np.max(np.sum(np.isfinite(priorities), axis=-1), initial=0)
        first = priorities.shape[-1] - int(count)
        references, priorities = references[..., first:, :], priorities[..., first:]
    is_padded = bool(np.any(padding))
    if not is_padded and padding.size:  # then they are the same for all
        priorities = priorities[(0,) * padding.ndim]
    return replace(
        state,
        sinks=state.sinks.part(0, num_sinks),
        merged=state.merged.part(0, num_merged),
        recent=state.recent.part(len(state.recent) - num_recent, None),
        references=references,
        priorities=priorities,
        position=position,
        padding=padding if is_padded else None,
    )


def numbers_of_rows(state: CompressedState, length: int) -> tuple[int, int, int]:
    """The numbers of sinks, merged rows and recent rows after so many keys of a sequence."""
    num_older = state.window * max(length // state.window - 1, 0)
    num_sinks = min(state.num_sinks, num_older)
    return num_sinks, min(state.num_keys, num_older - num_sinks), length - num_older


def joined(states: Sequence[CompressedState]) -> CompressedState:
    """The states of several groups of heads (h,) as one, in their order."""
    first = states[0]
    if len(states) == 1:
        return first
    positions = np.concatenate([state.positions for state in states])
    position = max(state.position for state in states)
    sinks, merged, recent = (
        Columns(
            beside((part.keys for part in parts), before=before),
            beside((part.bias for part in parts), before=before, fill=-np.inf),
            beside((part.values for part in parts), before=before),
        )
        for parts, before in (
            ([state.sinks for state in states], False),
            ([state.merged for state in states], False),
            ([state.recent for state in states], True),
        )
    )
    references = beside((state.references for state in states), before=True)
    state = replace(first, sinks=sinks, merged=merged, recent=recent, references=references, position=position)
    if np.all(positions == position) and all(part.padding is None for part in states):
        return state
    columns = [np.broadcast_to(s.priorities, (*s.batch_shape, s.priorities.shape[-1]))[..., None] for s in states]
    priorities = beside(columns, before=True, fill=np.inf)[..., 0]
    return replace(state, padding=position - positions, priorities=priorities)


def beside(arrays: Iterable[Array], *, before: bool, fill: float = 0.0) -> Array:
    """Arrays (h, n, c) in one, one behind another, filled up before or behind their rows to those of the longest."""
    arrays = list(arrays)
    xp, longest = namespace(arrays[0]), max(x.shape[-2] for x in arrays)

    def filled(x: Array) -> Array:
        missing = longest - x.shape[-2]
        if missing == 0:
            return x
        filler = xp.full((*x.shape[:-2], missing, x.shape[-1]), fill, dtype=x.dtype, device=device_of(x))
        return xp.concat([filler, x] if before else [x, filler], axis=-2)

    return xp.concat([filled(x) for x in arrays], axis=0)
