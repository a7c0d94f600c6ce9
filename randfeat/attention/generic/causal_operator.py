"""All chunks of causal attention as one operator of PyTorch, so that a compiled graph serves every length.

The module is imported when PyTorch first compiles causal attention.
"""

from collections.abc import Sequence

from randfeat._array import Array, namespace, torch_operator
from randfeat.attention.generic import chunks
from randfeat.attention.generic.chunks import attend_chunk, fold_state
from randfeat.attention.partial import PartialOutput
from randfeat.attention.state import AttentionState
from randfeat.features import Features

NUM_SUMS = 3  # arrays of a state


def attend_chunks(
    state: AttentionState, queries: Features, keys: Features, value: Array, log_gates: Array | None
) -> tuple[AttentionState, PartialOutput]:
    """`attend_chunk` of a sequence of any length."""
    columns = (queries.values, queries.log_scale, keys.values, keys.log_scale, value)
    given = (state.log_max, state.weighted, state.total, *columns, *(() if log_gates is None else (log_gates,)))
    numerator, denominator, log_scale, log_max, weighted, total = operator(list(given))
    output = PartialOutput(numerator, denominator, log_scale)
    return AttentionState(log_max, weighted, total, state.origin), output


def from_first_to_last(inputs: Sequence[Array]) -> list[Array]:
    """Outputs (three columns) and state (three arrays), from the state, features, values, and gates if there are."""

    def step(state: AttentionState, *parts: Array) -> tuple:
        query, query_log, key, key_log, value, *gates = parts
        state, output = attend_chunk(
            state, Features(query, query_log), Features(key, key_log), value, gates[0] if gates else None
        )
        return state, output.columns

    state, found = fold_state(step, AttentionState(*inputs[:NUM_SUMS]), tuple(inputs[NUM_SUMS:]), chunks.CAUSAL_CHUNK)
    outputs = PartialOutput.concat([PartialOutput(*part) for part in found])
    return [*outputs.columns, state.log_max, state.weighted, state.total]


def of_one_position(inputs: Sequence[Array]) -> list[Array]:
    """Tensors of the shapes of `from_first_to_last`: those for the first position, with repeated outputs."""
    columns = inputs[NUM_SUMS:]
    results = from_first_to_last([*inputs[:NUM_SUMS], *(x[..., :1, :] for x in columns)])
    xp, length = namespace(*columns), columns[0].shape[-2]
    outputs = [xp.broadcast_to(x, (*x.shape[:-2], length, x.shape[-1])) for x in results[:NUM_SUMS]]
    return [*outputs, *results[NUM_SUMS:]]


operator = torch_operator("causal_attention", from_first_to_last, of_one_position)
