"""The two sweeps of the gradient: forwards over keys for the queries, backwards over queries for keys and values.

With `v̄_j = [v_j, 1]` the numerator and denominator of output i are `N̄_i = Σ_j K̂_ij v̄_j`, and their gradient is
`ḡ_i = [G_i, -G_i·o_i] / D_i`. So the gradient in the features of query i is `Σ_j (ḡ_i·v̄_j) φ(k_j)`, in those of key j
`Σ_i (ḡ_i·v̄_j) φ(q_i)`, in v_j `Σ_i K̂_ij G_i / D_i`: sums of the same kind as attention, the second and third with the
parts of queries and keys exchanged, so that their state is an `AttentionState` of queries with "values" ḡ_i.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from randfeat._array import Array, device_of, exp_in_place, namespace
from randfeat.attention.generic import chunks
from randfeat.attention.generic.causal import causal_partial
from randfeat.attention.generic.causal_gradient import key_gradients, query_gradient
from randfeat.attention.generic.chunks import (
    fold_state,
    pad,
    pad_keys,
    pad_queries,
    power_of_two,
    rows_at_once,
)
from randfeat.attention.generic.passes import append, each_part, keys_of
from randfeat.attention.inputs import Inputs
from randfeat.attention.partial import PartialOutput
from randfeat.attention.state import AttentionState
from randfeat.features import Features
from randfeat.maps import FeatureMap

Gradients = tuple[Array, Array, Array]
Parts = list[tuple[Array, ...]]
"""Results for consecutive rows."""


@dataclass(frozen=True, eq=False)
class Kept:
    """Three numbers of each query for the second sweep, (..., n, 1) each: `ḡ = [G, -dot] / D`, D = divisor e^shift.

    A query without keys, or whose weights all vanish, has ḡ = 0: its divisor is infinite. Without keys its shift is
    infinite, too: it is not there.
    """

    shift: Array
    divisor: Array
    dot: Array

    @classmethod
    def of(cls, output: PartialOutput, gradient: Array) -> "Kept":
        """The columns from the outputs and the gradient G in them."""
        xp = namespace(gradient)
        empty = output.log_scale == -xp.inf
        divisor = xp.where(empty | (output.denominator == 0), xp.inf, output.denominator)
        dot = xp.sum(gradient * (output.numerator / divisor), axis=-1, keepdims=True)
        return cls(xp.where(empty, xp.inf, output.log_scale), divisor, dot)

    @property
    def columns(self) -> tuple[Array, Array, Array]:
        """The three columns, with a row for each query."""
        return self.shift, self.divisor, self.dot

    def inner(self, gradient: Array) -> Array:
        """`ḡ e^shift` (..., n, dv + 1)."""
        return namespace(gradient).concat([gradient / self.divisor, -self.dot / self.divisor], axis=-1)


def full_sweeps(inputs: Inputs, features: FeatureMap, gradient: Array, state: AttentionState) -> Gradients:
    """Gradients in query, key and value: all keys into the state, which the queries read; then the other way round."""
    state = append(inputs, features, state)

    def step(seen_from: AttentionState, query: Array, gradient: Array) -> tuple:
        queries, inner, kept, in_query = answered(features, state, query, gradient)
        return seen_from.append(queries.scaled(-kept.shift), inner), (in_query,)

    seen_from, found = fold_state(
        step, no_queries(inputs, features), (inputs.query, gradient), rows_at_once(inputs.query, chunks.CHUNK)
    )
    return joined(inputs, [in_query for (in_query,) in found], key_gradients_from(seen_from, inputs, features))


def answered(
    features: FeatureMap, state: AttentionState, query: Array, gradient: Array, *known: Array
) -> tuple[Features, Array, Kept, Array]:
    """Queries that all see the state: their features, ḡ e^shift, what is kept, and the gradient in them.

    known : the columns of what is kept, if queries see more than these keys.
    """
    queries = features.queries(query)
    kept = Kept(*known) if known else Kept.of(state.partial(queries), gradient)
    inner = kept.inner(gradient)
    in_features = read_queries(state, queries, inner, kept.shift)
    in_query = query_input_gradient(features, query, queries, in_features, cancels=not known)
    return queries, inner, kept, in_query


def queries_from(
    state: AttentionState, query: Array, gradient: Array, features: FeatureMap, known: Sequence[Array] = ()
) -> Parts:
    """Gradients in queries that all read one state, with the columns of `Kept`, which may be known."""

    def step(query: Array, gradient: Array, *known: Array) -> tuple:
        _, _, kept, in_query = answered(features, state, query, gradient, *known)
        return in_query, *kept.columns

    return each_part(step, (query, gradient, *known), rows_at_once(query, chunks.CHUNK))


def key_gradients_from(seen_from: AttentionState, inputs: Inputs, features: FeatureMap) -> Parts:
    """The gradients in all keys, and in their values, seen by all queries of the state."""

    def step(key: Array, value: Array, mask: Any) -> tuple:
        keys = keys_of(features, key, mask)
        outer, in_values = read_keys(seen_from, keys, with_one(value))
        return key_input_gradients(features, key, value, keys, outer, in_values)

    return each_part(step, inputs.key_columns, rows_at_once(inputs.key, chunks.CHUNK))


def causal_sweeps(
    inputs: Inputs,
    features: FeatureMap,
    gradient: Array,
    state: AttentionState,
    *,
    offset: int = 0,
    known: Kept | None = None,
) -> Gradients:
    """Gradients in query, key and value, chunk by chunk: the state of earlier keys (later queries), and pairs j <= i.

    Between the sweeps three numbers are kept for each query; features are computed once more. With an offset, query i
    sees the keys j <= i + offset: the first `offset` keys are before all queries, the first `-offset` queries before
    all keys.

    known : the columns of `Kept` for all queries, if they see more than these keys. The factor that all features of a
    query share does not cancel then, and its derivative counts.
    """
    columns = [] if known is None else list(known.columns)
    first = inputs.around(offset)[0]
    ahead, before = first.num_queries, first.num_keys
    level = inputs.part(slice(ahead, None), slice(before, None))
    for_queries = []
    if ahead:
        of_first, *some = (x[..., :ahead, :] for x in (gradient, *columns))
        for_queries = [part[0] for part in queries_from(state, first.query, of_first, features, some)]
    gradient, *columns = (x[..., ahead:, :] for x in (gradient, *columns))
    in_query, kept = forward_sweep(level, features, gradient, append(first, features, state), columns)
    for_keys, seen_from = backward_sweep(level, features, gradient, kept, no_queries(inputs, features))
    if before:
        for_keys = key_gradients_from(seen_from, first, features) + for_keys
    return joined(inputs, [*for_queries, in_query], for_keys)


def forward_sweep(
    inputs: Inputs, features: FeatureMap, gradient: Array, state: AttentionState, known: Sequence[Array] = ()
) -> tuple[Array, Kept]:
    """The gradients in the queries, chunk by chunk, after the keys of the state; and what the backward sweep needs.

    known : the columns of what it needs, as of `causal_sweeps`.
    """

    def step(
        state: AttentionState, query: Array, key: Array, value: Array, mask: Any, gradient: Array, *known: Array
    ) -> tuple:
        num = value.shape[-2]
        size = power_of_two(num)
        queries, keys = features.queries(query), keys_of(features, key, mask)
        padded = pad_keys(keys, size), pad(value, size, 0.0)
        if known:
            kept = Kept(*known)
        else:
            output = state.partial(queries).merge(causal_partial(pad_queries(queries, size), *padded).first(num))
            kept = Kept.of(output, gradient)
        inner = kept.inner(gradient)
        shift = pad(kept.shift, size, float("inf"))
        square = query_gradient(
            pad(queries.log_scale, size, 0.0), shift, padded[0], with_one(padded[1]), pad(inner, size, 0.0)
        )
        in_features = read_queries(state, queries, inner, kept.shift) + square[..., :num, :]
        in_query = query_input_gradient(features, query, queries, in_features, cancels=not known)
        return state.append(keys, value), (in_query, *kept.columns)

    _, paired, rest = inputs.around(0)
    both = paired.num_queries
    columns = (paired.query, *paired.key_columns, *(x[..., :both, :] for x in (gradient, *known)))
    state, found = fold_state(step, state, columns, chunks.CAUSAL_CHUNK)
    if rest.num_queries or not found:
        of_rest, *some = (x[..., both:, :] for x in (gradient, *known))
        found += queries_from(state, rest.query, of_rest, features, some)
    in_query, *kept = (concat(column) for column in zip(*found, strict=True))
    return in_query, Kept(*kept)


def backward_sweep(
    inputs: Inputs, features: FeatureMap, gradient: Array, kept: Kept, seen_from: AttentionState
) -> tuple[Parts, AttentionState]:
    """The gradients in keys and values, chunk by chunk, which the queries of the state see, too; and all queries."""

    def of_queries(start: int, stop: int | None) -> list[Array]:
        return [x[..., start:stop, :] for x in (gradient, *kept.columns)]

    def see(seen_from: AttentionState, query: Array, gradient: Array, *kept: Array) -> tuple:
        known = Kept(*kept)
        return seen_from.append(features.queries(query).scaled(-known.shift), known.inner(gradient)), ()

    def step(
        seen_from: AttentionState, query: Array, key: Array, value: Array, mask: Any, gradient: Array, *kept: Array
    ) -> tuple:
        num = value.shape[-2]
        size = power_of_two(num)
        known = Kept(*kept)
        queries, inner = features.queries(query).scaled(-known.shift), known.inner(gradient)
        keys, values = keys_of(features, key, mask), with_one(value)
        outer, in_values = read_keys(seen_from, keys, values)
        absent = pad_keys(queries, size), pad(inner, size, 0.0)
        square, square_values = key_gradients(*absent, pad_keys(keys, size), pad(values, size, 0.0))
        outer, in_values = outer + square[..., :num, :], in_values + square_values[..., :num, :]
        found = key_input_gradients(features, key, value, keys, outer, in_values)
        return seen_from.append(queries, inner), found

    _, paired, rest = inputs.around(0)
    both = paired.num_queries
    seen_from, _ = fold_state(
        see, seen_from, (rest.query, *of_queries(both, None)), rows_at_once(rest.query, chunks.CHUNK)
    )
    columns = (paired.query, *paired.key_columns, *of_queries(0, both))
    seen_from, for_keys = fold_state(step, seen_from, columns, chunks.CAUSAL_CHUNK, backwards=True)
    return for_keys, seen_from


def no_queries(inputs: Inputs, features: FeatureMap) -> AttentionState:
    """The empty state of queries with "values" ḡ."""
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


def query_input_gradient(
    features: FeatureMap, query: Array, queries: Features, gradient: Array, *, cancels: bool
) -> Array:
    """The gradient in the queries, without the derivative of a factor of all features of a query where that cancels."""
    return sum_to(features.pull_back(query, queries, gradient, row=0.0 if cancels else None), tuple(query.shape))


def key_input_gradients(
    features: FeatureMap, key: Array, value: Array, keys: Features, gradient: Array, in_values: Array
) -> tuple[Array, Array]:
    """Gradients in keys and values, summed over broadcast axes."""
    in_key = features.pull_back(key, keys, gradient, keys=True)
    return sum_to(in_key, tuple(key.shape)), sum_to(in_values, tuple(value.shape))


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """`x` summed over the axes along which an array of `shape` was broadcast to it."""
    xp = namespace(x)
    if tuple(x.shape) == shape:
        return x  # and no view of NumPy, which could not be written to
    extra = x.ndim - len(shape)
    axes = [*range(extra), *(extra + i for i, size in enumerate(shape) if size == 1 and x.shape[extra + i] != 1)]
    return xp.reshape(xp.sum(x, axis=tuple(axes)), shape) if axes else xp.broadcast_to(x, shape)


def joined(inputs: Inputs, for_queries: list[Array], for_keys: Parts) -> Gradients:
    """Consecutive parts along the length, and zeros for the keys beyond them, which no query sees."""
    keys, values = [part[0] for part in for_keys], [part[1] for part in for_keys]
    return filled(for_queries, inputs.query), filled(keys, inputs.key), filled(values, inputs.value)


def filled(parts: list[Array], like: Array) -> Array:
    """Consecutive `parts`, padded with zero rows to the shape of `like`."""
    missing = like.shape[-2] - sum(part.shape[-2] for part in parts)
    rest = [namespace(like).zeros_like(like[..., like.shape[-2] - missing :, :])] if missing or not parts else []
    return concat([*parts, *rest])


def concat(parts: Sequence[Array]) -> Array:
    """Consecutive parts as one array, without empty ones."""
    some = [part for part in parts if part.shape[-2]] or parts[:1]
    return namespace(*some).concat(list(some), axis=-2) if len(some) > 1 else some[0]
