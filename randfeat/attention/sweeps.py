"""The two sweeps of the gradient: forwards over keys for the queries, backwards over queries for keys and values.

With `v̄_j = [v_j, 1]` the numerator and denominator of output i are `N̄_i = Σ_j K̂_ij v̄_j`, and their gradient is
`ḡ_i = [G_i, -G_i·o_i] / D_i`. So the gradient in the features of query i is `Σ_j (ḡ_i·v̄_j) φ(k_j)`, in those of key j
`Σ_i (ḡ_i·v̄_j) φ(q_i)`, in v_j `Σ_i K̂_ij G_i / D_i`: sums of the same kind as attention, the second and third with the
parts of queries and keys exchanged, so that their state is an `AttentionState` of queries with "values" ḡ_i.
"""

from randfeat._array import Array, device_of, exp_in_place, namespace
from randfeat.attention.causal import causal_partial
from randfeat.attention.causal_gradient import key_gradients, query_gradient
from randfeat.attention.inputs import AttentionInputs, pieces
from randfeat.attention.partial import PartialOutput
from randfeat.attention.passes import CAUSAL_CHUNK, CHUNK, keys_of, pad, pad_keys, pad_queries
from randfeat.attention.state import AttentionState
from randfeat.features import Features
from randfeat.maps import FeatureMap

__all__ = ["causal_sweeps", "full_sweeps"]

Gradients = tuple[Array, Array, Array]


def full_sweeps(inputs: AttentionInputs, features: FeatureMap, gradient: Array) -> Gradients:
    """Gradients in query, key and value: all keys into a state, which the queries read; then the other way round."""
    state, seen_from = empty_states(inputs, features)
    for start, stop in pieces(0, inputs.num_keys, CHUNK):
        state = state.append(*keys_of(inputs, features, start, stop))
    for_queries, for_keys = [], []
    for start, stop in pieces(0, inputs.num_queries, CHUNK):
        query = inputs.query[..., start:stop, :]
        queries = features.queries(query)
        inner, shift = loss_gradient(state.partial(queries), gradient[..., start:stop, :])
        for_queries.append(query_input_gradient(features, query, queries, read_queries(state, queries, inner, shift)))
        seen_from = seen_from.append(queries.scaled(-shift), inner)
    for start, stop in pieces(0, inputs.num_keys, CHUNK):
        keys, values = keys_of(inputs, features, start, stop)
        outer, in_values = read_keys(seen_from, keys, with_one(values))
        for_keys.append(key_input_gradients(inputs, features, keys, outer, in_values, start, stop))
    return joined(inputs, for_queries, for_keys)


def causal_sweeps(inputs: AttentionInputs, features: FeatureMap, gradient: Array) -> Gradients:
    """The same in chunks: beside the state of what lies before (behind), pairs j <= i within the chunk.

    Between the sweeps only ḡ and the scale of each query are kept; features are computed once more.
    """
    state, seen_from = empty_states(inputs, features)
    for_queries, for_keys, kept = [], [], []
    chunks = pieces(0, inputs.num_queries, CAUSAL_CHUNK)
    for start, stop in chunks:
        size, last = 1 << (stop - start - 1).bit_length(), min(stop, inputs.num_keys)
        query = inputs.query[..., start:stop, :]
        queries = features.queries(query)
        output = state.partial(queries)
        if start < last:
            keys, values = keys_of(inputs, features, start, last)
            padded = pad_keys(keys, size), pad(values, size, 0.0)
            within = causal_partial(pad_queries(queries, size), *padded)
            output = output.merge(within.first(stop - start))
        inner, shift = loss_gradient(output, gradient[..., start:stop, :])
        in_features = read_queries(state, queries, inner, shift)
        if start < last:
            unread = pad(queries.values, size, 0.0), pad(queries.log_scale, size, 0.0), pad(shift, size, float("inf"))
            square = query_gradient(*unread, padded[0], with_one(padded[1]), pad(inner, size, 0.0))
            in_features = in_features + square[..., : stop - start, :]
            state = state.append(keys, values)
        for_queries.append(query_input_gradient(features, query, queries, in_features))
        kept.append((inner, shift))
    for (start, stop), (inner, shift) in zip(reversed(chunks), reversed(kept), strict=True):
        size, last = 1 << (stop - start - 1).bit_length(), min(stop, inputs.num_keys)
        queries = features.queries(inputs.query[..., start:stop, :]).scaled(-shift)
        if start < last:
            keys, values = keys_of(inputs, features, start, last)
            values = with_one(values)
            outer, in_values = read_keys(seen_from, keys, values)
            absent = pad_keys(queries, size), pad(inner, size, 0.0)
            square, square_values = key_gradients(*absent, pad_keys(keys, size), pad(values, size, 0.0))
            outer, in_values = outer + square[..., : last - start, :], in_values + square_values[..., : last - start, :]
            for_keys.append(key_input_gradients(inputs, features, keys, outer, in_values, start, last))
        seen_from = seen_from.append(queries, inner)
    return joined(inputs, for_queries, for_keys[::-1])


def empty_states(inputs: AttentionInputs, features: FeatureMap) -> tuple[AttentionState, AttentionState]:
    """The states of no keys, and of no queries."""
    dim, options = inputs.value.shape[-1], {"like": inputs.value}
    return tuple(AttentionState.empty(features.num_features, size, **options) for size in (dim, dim + 1))  # type: ignore


def with_one(values: Array) -> Array:
    """`v̄ = [v, 1]`."""
    xp = namespace(values)
    ones = xp.ones((*values.shape[:-1], 1), dtype=values.dtype, device=device_of(values))
    return xp.concat([values, ones], axis=-1)


def loss_gradient(output: PartialOutput, gradient: Array) -> tuple[Array, Array]:
    """`ḡ e^{shift} = [G, -G·o] / D` with D relative to its scale, and that scale as the shift of each query.

    A query without keys, or whose weights all vanish, has ḡ = 0; without keys its shift is infinite: it is not there.
    """
    xp = namespace(output.numerator)
    empty = output.log_scale == -xp.inf
    vanishing = empty | (output.denominator == 0)
    divisor = xp.where(vanishing, xp.ones_like(output.denominator), output.denominator)
    scaled = gradient / divisor
    inner = xp.concat([scaled, -xp.sum(scaled * (output.numerator / divisor), axis=-1, keepdims=True)], axis=-1)
    return xp.where(vanishing, xp.zeros_like(inner), inner), xp.where(empty, xp.inf, output.log_scale)


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
