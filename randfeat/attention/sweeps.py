"""The two sweeps of the gradient: forwards over keys for the queries, backwards over queries for keys and values.

With `v̄_j = [v_j, 1]` the numerator and denominator of output i are `N̄_i = Σ_j K̂_ij v̄_j`, and their gradient is
`ḡ_i = [G_i, -G_i·o_i] / D_i`. So the gradient in the features of query i is `Σ_j (ḡ_i·v̄_j) φ(k_j)`, in those of key j
`Σ_i (ḡ_i·v̄_j) φ(q_i)`, in v_j `Σ_i K̂_ij G_i / D_i`: sums of the same kind as attention, the second and third with the
parts of queries and keys exchanged, so that their state is an `AttentionState` of queries with "values" ḡ_i.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from randfeat._array import Array, device_of, exp_in_place, namespace
from randfeat.attention.causal import causal_partial
from randfeat.attention.causal_gradient import key_gradients, query_gradient
from randfeat.attention.inputs import AttentionInputs, pieces
from randfeat.attention.partial import PartialOutput
from randfeat.attention.passes import CAUSAL_CHUNK, CHUNK, keys_of, pad, pad_keys, pad_queries
from randfeat.attention.state import AttentionState
from randfeat.features import Features
from randfeat.maps import FeatureMap

__all__ = ["Gradients", "Kept", "backward_sweep", "causal_sweeps", "forward_sweep", "full_sweeps", "sum_to"]

Gradients = tuple[Array, Array, Array]


@dataclass(frozen=True, eq=False)
class Kept:
    """What the second sweep must know of each query, (..., n, 1) each: `ḡ = [G, -dot] / D`, D = divisor e^shift.

    A query without keys, or whose weights all vanish, has ḡ = 0: its divisor is infinite. Without keys its shift is
    infinite, too: it is not there.
    """

    shift: Array
    divisor: Array
    dot: Array

    @classmethod
    def of(cls, output: PartialOutput, gradient: Array) -> "Kept":
        """From the output of each query, and the gradient G in it."""
        xp = namespace(gradient)
        empty = output.log_scale == -xp.inf
        divisor = xp.where(empty | (output.denominator == 0), xp.inf, output.denominator)
        dot = xp.sum(gradient * (output.numerator / divisor), axis=-1, keepdims=True)
        return cls(xp.where(empty, xp.inf, output.log_scale), divisor, dot)

    def inner(self, gradient: Array) -> Array:
        """`ḡ e^shift` (..., n, dv + 1)."""
        return namespace(gradient).concat([gradient / self.divisor, -self.dot / self.divisor], axis=-1)


def full_sweeps(inputs: AttentionInputs, features: FeatureMap, gradient: Array, state: AttentionState) -> Gradients:
    """Gradients in query, key and value: all keys into the state, which the queries read; then the other way round."""
    seen_from = no_queries(inputs, features)
    for start, stop in pieces(0, inputs.num_keys, CHUNK):
        state = state.append(*keys_of(inputs, features, start, stop))
    for_queries = []
    for query, queries, known, inner in answered(inputs, features, gradient, state):
        in_features = read_queries(state, queries, inner, known.shift)
        for_queries.append(query_input_gradient(features, query, queries, in_features))
        seen_from = seen_from.append(queries.scaled(-known.shift), inner)
    for_keys = [
        key_gradients_from(seen_from, inputs, features, start, stop)
        for start, stop in pieces(0, inputs.num_keys, CHUNK)
    ]
    return joined(inputs, for_queries, for_keys)


def answered(
    inputs: AttentionInputs, features: FeatureMap, gradient: Array, state: AttentionState
) -> Iterator[tuple[Array, Features, Kept, Array]]:
    """Queries that all see the state, piece by piece: themselves, their features, what is kept, and ḡ e^shift."""
    for start, stop in pieces(0, inputs.num_queries, CHUNK):
        query = inputs.query[..., start:stop, :]
        queries = features.queries(query)
        known = Kept.of(state.partial(queries), gradient[..., start:stop, :])
        yield query, queries, known, known.inner(gradient[..., start:stop, :])


def key_gradients_from(
    seen_from: AttentionState, inputs: AttentionInputs, features: FeatureMap, start: int, stop: int
) -> tuple[Array, Array]:
    """The gradients in the keys from `start` to `stop`, and in their values, all of them seen by all these queries."""
    keys, values = keys_of(inputs, features, start, stop)
    outer, in_values = read_keys(seen_from, keys, with_one(values))
    return key_input_gradients(inputs, features, keys, outer, in_values, start, stop)


def causal_sweeps(
    inputs: AttentionInputs, features: FeatureMap, gradient: Array, state: AttentionState, *, offset: int = 0
) -> Gradients:
    """The same in chunks: beside the state of what lies before (behind), pairs j <= i within the chunk.

    Between the sweeps three numbers are kept for each query; features are computed once more. With an offset, query i
    sees the keys j <= i + offset: the first `offset` keys are before all queries, the first `-offset` queries before
    all keys.
    """
    before, ahead = min(max(offset, 0), inputs.num_keys), min(max(-offset, 0), inputs.num_queries)
    first, rest = inputs.part(slice(0, ahead), slice(0, before)), inputs.part(slice(ahead, None), slice(before, None))
    for_queries = [
        query_input_gradient(features, query, queries, read_queries(state, queries, inner, known.shift))
        for query, queries, known, inner in answered(first, features, gradient[..., :ahead, :], state)
    ]
    for start, stop in pieces(0, before, CHUNK):
        state = state.append(*keys_of(first, features, start, stop))
    gradient = gradient[..., ahead:, :]
    more, kept = forward_sweep(rest, features, gradient, state)
    for_keys, seen_from = backward_sweep(rest, features, gradient, kept, no_queries(inputs, features))
    seen = [key_gradients_from(seen_from, first, features, start, stop) for start, stop in pieces(0, before, CHUNK)]
    return joined(inputs, for_queries + more, seen + for_keys)


def forward_sweep(
    inputs: AttentionInputs, features: FeatureMap, gradient: Array, state: AttentionState
) -> tuple[list[Array], list[Kept]]:
    """The gradients in the queries, chunk by chunk, after the keys of the state; and what the way back needs."""
    for_queries, kept = [], []
    for start, stop in pieces(0, inputs.num_queries, CAUSAL_CHUNK):
        size, last = 1 << (stop - start - 1).bit_length(), min(stop, inputs.num_keys)
        query = inputs.query[..., start:stop, :]
        queries = features.queries(query)
        output = state.partial(queries)
        if start < last:
            keys, values = keys_of(inputs, features, start, last)
            padded = pad_keys(keys, size), pad(values, size, 0.0)
            within = causal_partial(pad_queries(queries, size), *padded)
            output = output.merge(within.first(stop - start))
        kept.append(Kept.of(output, gradient[..., start:stop, :]))
        inner = kept[-1].inner(gradient[..., start:stop, :])
        in_features = read_queries(state, queries, inner, kept[-1].shift)
        if start < last:
            shift = pad(kept[-1].shift, size, float("inf"))
            unread = pad(queries.values, size, 0.0), pad(queries.log_scale, size, 0.0), shift
            square = query_gradient(*unread, padded[0], with_one(padded[1]), pad(inner, size, 0.0))
            in_features = in_features + square[..., : stop - start, :]
            state = state.append(keys, values)
        for_queries.append(query_input_gradient(features, query, queries, in_features))
    return for_queries, kept


def backward_sweep(
    inputs: AttentionInputs, features: FeatureMap, gradient: Array, kept: list[Kept], seen_from: AttentionState
) -> tuple[list[tuple[Array, Array]], AttentionState]:
    """The gradients in keys and values, chunk by chunk, which the queries of the state see, too; and all queries."""
    for_keys = []
    for (start, stop), known in zip(reversed(pieces(0, inputs.num_queries, CAUSAL_CHUNK)), reversed(kept), strict=True):
        size, last = 1 << (stop - start - 1).bit_length(), min(stop, inputs.num_keys)
        queries = features.queries(inputs.query[..., start:stop, :]).scaled(-known.shift)
        inner = known.inner(gradient[..., start:stop, :])
        if start < last:
            keys, values = keys_of(inputs, features, start, last)
            values = with_one(values)
            outer, in_values = read_keys(seen_from, keys, values)
            absent = pad_keys(queries, size), pad(inner, size, 0.0)
            square, square_values = key_gradients(*absent, pad_keys(keys, size), pad(values, size, 0.0))
            outer, in_values = outer + square[..., : last - start, :], in_values + square_values[..., : last - start, :]
            for_keys.append(key_input_gradients(inputs, features, keys, outer, in_values, start, last))
        seen_from = seen_from.append(queries, inner)
    return for_keys[::-1], seen_from


def no_queries(inputs: AttentionInputs, features: FeatureMap) -> AttentionState:
    """The state of queries, with "values" ḡ, before the first."""
    return AttentionState.empty(features.num_features, inputs.value.shape[-1] + 1, like=inputs.value)


def with_one(values: Array) -> Array:
    """`v̄ = [v, 1]`."""
    xp = namespace(values)
    ones = xp.ones((*values.shape[:-1], 1), dtype=values.dtype, device=device_of(values))
    return xp.concat([values, ones], axis=-1)


def read_queries(state: AttentionState, queries: Features, inner: Array, shift: Array) -> Array:
    """`exp(log φ) Σ_j (ḡ_i·v̄_j) φ(k_j)` over the keys of the state: the gradient in the values of query features."""
    xp = namespace(inner)
    products = inner[..., :-1] @ xp.matrix_transpose(state.weighted) + inner[..., -1:] * xp.matrix_transpose(
        state.total
    )
    return exp_in_place(queries.log_scale + state.log_max - shift) * products


def read_keys(seen_from: AttentionState, keys: Features, values: Array) -> tuple[Array, Array]:
    """The gradients in the values of key features, and in v, from the queries of the state; values are v̄.

    A query's shift is at least the logarithm of each of its products with a key that it sees: the exponent here, of the
    largest such product over that shift, is never positive.
    """
    xp = namespace(values)
    scales = exp_in_place(keys.log_scale + seen_from.log_max)
    outer = scales * (values @ xp.matrix_transpose(seen_from.weighted))
    return outer, (keys.values * scales) @ seen_from.weighted[..., :-1]


def query_input_gradient(features: FeatureMap, query: Array, queries: Features, gradient: Array) -> Array:
    """The gradient in the queries; a factor of all features of one query cancels in its output."""
    return sum_to(features.pull_back(query, queries, gradient, row=0.0), tuple(query.shape))


def key_input_gradients(
    inputs: AttentionInputs,
    features: FeatureMap,
    keys: Features,
    gradient: Array,
    in_values: Array,
    start: int,
    stop: int,
) -> tuple[Array, Array]:
    """The gradients in the keys and values from `start` to `stop`, summed where these are broadcast."""
    key, value = inputs.key[..., start:stop, :], inputs.value[..., start:stop, :]
    in_key = features.pull_back(key, keys, gradient, keys=True)
    return sum_to(in_key, tuple(key.shape)), sum_to(in_values, tuple(value.shape))


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """`x` summed over the axes along which an array of `shape` was broadcast to it."""
    xp = namespace(x)
    extra = x.ndim - len(shape)
    axes = [*range(extra), *(extra + i for i, size in enumerate(shape) if size == 1 and x.shape[extra + i] != 1)]
    return xp.reshape(xp.sum(x, axis=tuple(axes)), shape) if axes else xp.broadcast_to(x, shape)


def joined(inputs: AttentionInputs, for_queries: list[Array], for_keys: list[tuple[Array, Array]]) -> Gradients:
    """Consecutive pieces along the length, and zeros for the keys beyond them, which no query sees."""
    keys, values = [key for key, _ in for_keys], [value for _, value in for_keys]
    return filled(for_queries, inputs.query), filled(keys, inputs.key), filled(values, inputs.value)


def filled(parts: list[Array], like: Array) -> Array:
    """`parts` one after the other, and zeros, up to the shape of `like`."""
    xp = namespace(like)
    missing = like.shape[-2] - sum(part.shape[-2] for part in parts)
    rest = [xp.zeros_like(like[..., like.shape[-2] - missing :, :])] if missing or not parts else []
    return xp.concat([*parts, *rest], axis=-2) if len(parts) + len(rest) > 1 else [*parts, *rest][0]
