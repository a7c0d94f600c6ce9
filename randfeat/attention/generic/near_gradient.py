"""The gradient of exact weights near each query and of the first keys, pair by pair.

With `ḡ_i = [G_i, -G_i·o_i] / D_i` the gradient in the logarithm of a weight is `S_ij = K_ij ḡ_i·[v_j, 1]`, and what the
weight adds to that in v_j is `K_ij G_i / D_i`. In the softmax family, `log K = log e(x) + x·y + log e(y)`.
"""

from randfeat._array import Array, device_of, exp_in_place, namespace, squared_norm
from randfeat.attention.generic import chunks
from randfeat.attention.generic.causal import half
from randfeat.attention.generic.causal_gradient import among_zeros
from randfeat.attention.generic.chunks import pad, power_of_two
from randfeat.attention.generic.near import present_columns, rows_between
from randfeat.attention.generic.sweeps import Gradients, Kept, concat, sum_to
from randfeat.attention.inputs import Inputs, intervals
from randfeat.kernels import Kernel, SoftmaxFamily

Rows = tuple[Array, ...]
"""Columns of queries: (query, G, shift, 1/divisor, dot); or of keys: (key, value, present)."""


def near_gradients(
    inputs: Inputs, kernel: Kernel, gradient: Array, kept: Kept, *, window: int, offset: int, is_causal: bool
) -> Gradients:
    """Gradients in query, key and value from the exact weights in each query's window, chunk by chunk.

    Where attention is causal, that in a query never looks at later keys, and that in a key never at earlier queries.
    """
    queries, keys = query_columns(inputs, gradient, kept), present_columns(inputs)
    num_queries, num_keys = inputs.num_queries, inputs.num_keys
    offset = max(min(offset, num_keys + window), -num_queries - window)  # farther ones see nothing either
    begin, end = min(0, offset), max(num_keys, num_queries + offset)
    reach = min(window, end - begin + 1) - 1
    found: tuple[list[Array], ...] = ([], [], [])

    def asking(start: int, stop: int) -> Rows:
        return tuple(rows_between(x, start - offset, stop - offset) for x in queries)

    def asked(start: int, stop: int) -> Rows:
        return tuple(rows_between(x, start, stop) for x in keys)

    for start, stop in intervals(begin, end, chunks.CAUSAL_CHUNK):
        some_queries, some_keys = asking(start, stop), asked(start, stop)
        first, last = start - reach, stop + reach
        if is_causal:
            in_query, in_key, in_value = within_chunk(some_queries, some_keys, kernel, window)
            if reach:
                near = near_pairs(start, stop, first, start, window, like=inputs.query)
                in_query = in_query + pair_gradients(some_queries, asked(first, start), kernel, near)[0]
                near = near_pairs(stop, last, start, stop, window, like=inputs.query)
                _, more_key, more_value = pair_gradients(asking(stop, last), some_keys, kernel, near)
                in_key, in_value = in_key + more_key, in_value + more_value
        else:
            near = near_pairs(start, stop, first, last, window, like=inputs.query)
            in_query = pair_gradients(some_queries, asked(first, last), kernel, near)[0]
            near = near_pairs(first, last, start, stop, window, like=inputs.query)
            _, in_key, in_value = pair_gradients(asking(first, last), some_keys, kernel, near)
        for column, x in zip(found, (in_query, in_key, in_value), strict=True):
            column.append(x)
    if not found[0]:
        return zero_gradients(inputs)
    whole = [concat(column) for column in found]
    lead = offset - begin, -begin, -begin
    given = inputs.query, inputs.key, inputs.value
    return tuple(
        sum_to(x[..., first : first + like.shape[-2], :], tuple(like.shape))
        for x, first, like in zip(whole, lead, given, strict=True)
    )


def sink_gradients(
    sinks: Inputs, kernel: Kernel, gradient: Array, kept: Kept, *, window: int, offset: int, is_causal: bool
) -> Gradients:
    """Gradients from the exact weights of the first keys outside of each query's window; there are no other keys."""
    queries, keys = query_columns(sinks, gradient, kept), present_columns(sinks)
    some, in_queries, in_keys = 0, [], []
    if is_causal:
        first, paired, _ = sinks.around(offset - window)
        some = first.num_queries + paired.num_queries
        part = sinks.part(slice(0, some), slice(None))
        of_part = Kept(*(x[..., :some, :] for x in kept.columns))
        all_of_them = sinks.num_keys + some + 1
        in_query, *in_key_and_value = near_gradients(
            part, kernel, gradient[..., :some, :], of_part, window=all_of_them, offset=offset - window, is_causal=True
        )
        in_queries, in_keys = [in_query], [in_key_and_value]
    for start, stop in intervals(some, sinks.num_queries, chunks.CHUNK):
        asking = tuple(x[..., start:stop, :] for x in queries)
        near = near_pairs(start + offset, stop + offset, 0, sinks.num_keys, window, like=sinks.query)
        in_query, *in_key_and_value = pair_gradients(asking, keys, kernel, True if is_causal else ~near)
        in_queries.append(sum_to(in_query, tuple(sinks.query[..., start:stop, :].shape)))
        in_keys.append(
            [sum_to(x, tuple(y.shape)) for x, y in zip(in_key_and_value, (sinks.key, sinks.value), strict=True)]
        )
    if not in_queries:
        return zero_gradients(sinks)
    in_key, in_value = (sum(column[1:], column[0]) for column in zip(*in_keys, strict=True))
    return concat(in_queries), in_key, in_value


def zero_gradients(inputs: Inputs) -> Gradients:
    """The gradients where no query sees a key."""
    xp = namespace(inputs.query)
    return tuple(xp.zeros_like(x) for x in (inputs.query, inputs.key, inputs.value))


def query_columns(inputs: Inputs, gradient: Array, kept: Kept) -> Rows:
    """Columns of the queries, which are of no weight where they are zeros."""
    return inputs.query, gradient, kept.shift, 1 / kept.divisor, kept.dot


def near_pairs(query: int, query_stop: int, key: int, key_stop: int, window: int, *, like: Array) -> Array:
    """The pairs of positions of queries and of keys at a distance smaller than the window."""
    xp, device = namespace(like), {"device": device_of(like)}
    distance = xp.arange(query, query_stop, **device)[:, None] - xp.arange(key, key_stop, **device)
    return (distance < window) & (distance > -window)


def within_chunk(queries: Rows, keys: Rows, kernel: Kernel, window: int) -> Gradients:
    """From the keys of a chunk up to each query, by the squares of causal attention."""
    length = queries[0].shape[-2]
    size = power_of_two(length)
    xp, device = namespace(queries[0]), {"device": device_of(queries[0])}
    queries = tuple(pad(x, size, 0.0) for x in queries)
    keys = tuple(
        xp.concat([x, xp.zeros((*x.shape[:-2], size - length, x.shape[-1]), dtype=x.dtype, **device)], axis=-2)
        for x in keys
    )
    single_query, single_key = (tuple(x[..., None, :] for x in columns) for columns in (queries, keys))
    found = [x[..., 0, :] for x in pair_gradients(single_query, single_key, kernel, window > 0)]
    width = 1
    while width < size and window > 1:
        index = xp.arange(width, **device)
        near = index[:, None] + width - index < window
        second, first = tuple(half(x, width, 1) for x in queries), tuple(half(x, width, 0) for x in keys)
        more = pair_gradients(second, first, kernel, near)
        found = [x + among_zeros(y, which) for x, y, which in zip(found, more, (1, 0, 0), strict=True)]
        width *= 2
    return tuple(x[..., :length, :] for x in found)


def pair_gradients(queries: Rows, keys: Rows, kernel: Kernel, near: Array | bool) -> Gradients:
    """The gradients in some queries, keys and values from all of their pairs that are near."""
    if not isinstance(kernel, SoftmaxFamily):
        raise ValueError(
            f"window has an analytic gradient for kernels of the softmax family, not for {kernel}; "
            "differentiate linear_attention by PyTorch or JAX instead."
        )
    query, gradient, shift, share, dot = queries
    key, value, present = keys
    xp = namespace(query)
    seen = xp.matrix_transpose(present) & near
    logs = xp.where(seen, kernel.log_gram(query, key) - shift, -xp.inf)
    weights = exp_in_place(logs) * share
    slopes = gradient @ xp.matrix_transpose(value) - dot
    slopes = xp.where(seen, weights * slopes, xp.zeros_like(slopes))
    in_value = xp.matrix_transpose(weights) @ gradient
    in_query = in_units(kernel, query, slopes, key)
    return in_query, in_units(kernel, key, xp.matrix_transpose(slopes), query), in_value


def in_units(kernel: SoftmaxFamily, x: Array, slopes: Array, y: Array) -> Array:
    """`Σ_j S_ij d log K_ij / dx_i`: (..., n, d) from the slopes (..., n, k)."""
    xp, unit = namespace(x), kernel.unit(x)
    own = 2 * kernel.envelope_slope(squared_norm(unit)) * unit
    inner = slopes @ kernel.unit(y) + xp.sum(slopes, axis=-1, keepdims=True) * own
    return kernel.unit_pull_back(x, inner)
