"""Prefixes of any length: query i sees the keys j < key_ends_i."""

from dataclasses import replace

from randfeat._array import Array, device_of, namespace
from randfeat.attention.inputs import AttentionInputs
from randfeat.attention.partial import PartialOutput
from randfeat.attention.passes import Passed, causal_pass
from randfeat.attention.relation import Relation
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap

__all__ = ["prefix_pass"]


def prefix_pass(inputs: AttentionInputs, features: FeatureMap, state: AttentionState, relation: Relation) -> Passed:
    """Causal attention over queries and keys merged into one sequence, in which query i follows key `key_ends_i - 1`.

    A stable sort of the positions brings every query behind the last key that it sees; slots of keys have a query that
    nobody reads, and slots of queries an absent key. Shapes do not depend on the ends, which are never looked at. It
    costs as much as causal attention over L + S positions, and as many features of queries as of keys.
    """
    xp, ends = namespace(inputs.query), relation.key_ends
    assert ends is not None
    device = {"device": device_of(inputs.query)}
    num_queries, num_keys = inputs.num_queries, inputs.num_keys
    if relation.is_causal:
        ends = xp.minimum(ends, xp.arange(num_queries, **device) + (relation.offset + 1))
    keys = xp.broadcast_to(2 * xp.arange(num_keys, **device) + 1, (*ends.shape[:-1], num_keys))
    order = xp.argsort(xp.concat([2 * ends, keys], axis=-1), axis=-1, stable=True)
    place = xp.argsort(order, axis=-1, stable=True)[..., :num_queries]  # of each query
    mask = inputs.key_mask
    if mask is None:
        mask = xp.ones((num_keys,), dtype=xp.bool, **device)
    mask = xp.concat([xp.zeros((*mask.shape[:-1], num_queries), dtype=xp.bool, **device), mask], axis=-1)
    merged = replace(
        inputs,
        query=rows(beside(inputs.query, num_keys, first=True), order),
        key=rows(beside(inputs.key, num_queries, first=False), order),
        value=rows(beside(inputs.value, num_queries, first=False), order),
        key_mask=rows(mask[..., None], order)[..., 0],
    )
    outputs, state = causal_pass(merged, features, state)
    whole = PartialOutput.concat(outputs)
    return [PartialOutput(*(rows(x, place) for x in whole.columns))], state


def beside(x: Array, num: int, *, first: bool) -> Array:
    """`x` (..., n, c) with `num` rows of zeros after it, or before it."""
    xp = namespace(x)
    zeros = xp.zeros((*x.shape[:-2], num, x.shape[-1]), dtype=x.dtype, device=device_of(x))
    return xp.concat([x, zeros] if first else [zeros, x], axis=-2)


def rows(x: Array, index: Array) -> Array:
    """The rows of `x` (..., n, c) at `index` (..., k), whose leading dimensions broadcast: (..., k, c)."""
    xp = namespace(x)
    if index.ndim == 1:
        return xp.take(x, index, axis=-2)
    depth = max(x.ndim, index.ndim + 1)
    x, index = (xp.reshape(a, (*(1 for _ in range(depth - a.ndim)), *a.shape)) for a in (x, index[..., None]))
    lead = tuple(max(a, b) if a and b else 0 for a, b in zip(x.shape[:-2], index.shape[:-2], strict=True))
    x = xp.broadcast_to(x, (*lead, *x.shape[-2:]))
    return xp.take_along_axis(x, xp.broadcast_to(index, (*lead, index.shape[-2], x.shape[-1])), axis=-2)
