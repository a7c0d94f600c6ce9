"""Packed sequences of different lengths: each is attention of its own."""

from collections.abc import Iterator
from dataclasses import replace

from randfeat.attention.inputs import AttentionInputs
from randfeat.attention.relation import Relation

__all__ = ["each_sequence"]


def each_sequence(inputs: AttentionInputs, relation: Relation) -> Iterator[tuple[AttentionInputs, Relation]]:
    """The inputs and the relation within each sequence, in order; the whole where nothing is packed."""
    if relation.sequences is None:
        yield inputs, relation
        return
    for queries, keys in relation.sequences:
        yield inputs.part(queries, keys), within(relation, queries, keys, inputs.num_queries)


def within(relation: Relation, queries: slice, keys: slice, num_queries: int) -> Relation:
    """The relation of one sequence: gates by position, relative positions about the middle of the table."""
    gates, bias = relation.log_gates, relation.bias
    if gates is not None and gates.shape[-2] != 1:
        gates = gates[..., keys, :]
    if bias is not None:
        middle = num_queries - 1
        first, last = middle - (queries.stop - queries.start - 1), middle + (keys.stop - keys.start)
        bias = bias[..., first : max(first, last)]
    return replace(relation, log_gates=gates, bias=bias, sequences=None)
