"""Exact weights near each query, and of the first keys: sums with the kernel itself."""

from collections.abc import Callable
from dataclasses import replace

from randfeat._array import (
    Array,
    device_of,
    exp_in_place,
    fold,
    is_traced,
    namespace,
    peak,
    replace_minus_inf,
    stop_gradient,
)
from randfeat.attention.generic import chunks
from randfeat.attention.generic.causal import half, merge_second_halves
from randfeat.attention.generic.chunks import pad, power_of_two
from randfeat.attention.generic.passes import each_part
from randfeat.attention.inputs import Inputs
from randfeat.attention.partial import PartialOutput
from randfeat.kernels import Kernel


def near_partial(inputs: Inputs, kernel: Kernel, *, window: int, offset: int, is_causal: bool) -> PartialOutput:
    """Exact sums over the keys of each query's window, chunk by chunk, with the last keys before it at hand."""
    ahead = min(max(-offset, 0), inputs.num_queries)  # queries before every key
    nothing = exact_partial(inputs.part(slice(0, ahead), slice(0, 0)), kernel, None)
    query, columns = inputs.query[..., ahead:, :], present_columns(inputs)
    start, num = max(offset, 0), query.shape[-2]
    window = min(window, max(start + num, inputs.num_keys, 1))  # a longer one sees no more
    later = 0 if is_causal else window - 1
    earlier = window - 1
    if not is_traced(query, *columns):
        earlier = min(earlier, start)  # else the loop is compiled, for one number of keys: absent ones fill it up
    around = [rows_between(x, start - earlier, start + num + later) for x in columns]
    xp, device = namespace(query), {"device": device_of(query)}

    def step(before: tuple, parts: tuple) -> tuple[tuple, tuple]:
        query, *own = parts
        both = [xp.concat(list(pair), axis=-2) for pair in zip(before, own, strict=True)]
        seen = part_of(inputs, query, *(before if is_causal else both))
        position = xp.arange(seen.num_keys, **device) + (later - before[0].shape[-2])
        distance = xp.arange(seen.num_queries, **device)[:, None] - position
        near = exact_partial(seen, kernel, (distance < window) & (distance > -window))
        if is_causal:
            near = near.merge(within_chunk(part_of(inputs, query, *own), kernel, window))
        rest = max(both[0].shape[-2] - (window - 1 + later), 0)
        return tuple(x[..., rest:, :] for x in both), near.columns

    before, after = (
        [x[..., rows, :] for x in around] for rows in (slice(0, earlier + later), slice(earlier + later, None))
    )
    _, found = fold(step, tuple(before), (query, *after), chunks.CAUSAL_CHUNK)
    return PartialOutput.concat([nothing, *(PartialOutput(*part) for part in found)])


def sink_partial(sinks: Inputs, kernel: Kernel, *, window: int, offset: int, is_causal: bool) -> PartialOutput:
    """Exact sums over the first keys, without those in each query's window; the inputs have no other keys."""
    if not is_causal:
        xp, device = namespace(sinks.query), {"device": device_of(sinks.query)}
        keys = xp.arange(sinks.num_keys, **device)

        def step(queries: Array, position: Array) -> tuple[Array, ...]:
            distance = position - keys
            outside = (distance >= window) | (distance <= -window)
            return exact_partial(replace(sinks, query=queries), kernel, outside).columns

        position = (xp.arange(sinks.num_queries, **device) + offset)[:, None]
        return PartialOutput.concat(of_each(step, (sinks.query, position)))
    before, paired, rest = sinks.around(offset - window)
    outputs = [
        exact_partial(
            replace(before, key=before.key[..., :0, :], value=before.value[..., :0, :], key_mask=None), kernel, None
        )
    ]
    if paired.num_queries:
        own = within_chunk(paired, kernel, paired.num_queries + 1)
        earlier = replace(before, query=paired.query)
        outputs.append(own.merge(exact_partial(earlier, kernel, None)))
    if rest.num_queries:
        outputs += of_each(
            lambda query: exact_partial(replace(sinks, query=query), kernel, None).columns, (rest.query,)
        )
    return PartialOutput.concat(outputs)


def of_each(step: Callable[..., tuple[Array, ...]], columns: tuple) -> list[PartialOutput]:
    """The partial outputs of some of the queries at a time."""
    return [PartialOutput(*part) for part in each_part(step, columns, chunks.CHUNK)]


def present_columns(inputs: Inputs) -> tuple[Array, Array, Array]:
    """Columns of the keys: (key, value, present), each with a row for each key."""
    key, value, mask = inputs.key_columns
    xp = namespace(key)
    return key, value, xp.ones((inputs.num_keys, 1), dtype=xp.bool, device=device_of(key)) if mask is None else mask


def rows_between(x: Array, start: int, stop: int) -> Array:
    """The rows of `x` (..., n, c) from `start` to `stop`, zeros for those before the first and behind the last."""
    xp, num = namespace(x), x.shape[-2]
    first, last = (min(max(end, 0), num) for end in (start, stop))
    missing = (min(max(-start, 0), stop - start), max(stop - max(start, num), 0))
    zeros = [xp.zeros((*x.shape[:-2], size, x.shape[-1]), dtype=x.dtype, device=device_of(x)) for size in missing]
    return xp.concat([zeros[0], x[..., first:last, :], zeros[1]], axis=-2)


def part_of(inputs: Inputs, query: Array, key: Array, value: Array, present: Array) -> Inputs:
    """The inputs with some of the queries and keys."""
    return replace(inputs, query=query, key=key, value=value, key_mask=present[..., 0])


def within_chunk(chunk: Inputs, kernel: Kernel, window: int) -> PartialOutput:
    """The keys of the chunk up to each query, by the squares of causal attention: no later key is ever looked at."""
    length = chunk.num_queries
    size = power_of_two(length)
    xp, device = namespace(chunk.query), {"device": device_of(chunk.query)}
    query, key, value = (pad(x, size, 0.0) for x in (chunk.query, chunk.key, chunk.value))
    present = xp.arange(size, **device)[:, None] < chunk.num_keys
    if chunk.key_mask is not None:
        mask = chunk.key_mask
        missing = xp.zeros((*mask.shape[:-1], size - chunk.num_keys), dtype=xp.bool, **device)
        present = present & xp.concat([mask, missing], axis=-1)[..., None]
    single = Inputs(query[..., None, :], key[..., None, :], value[..., None, :], present, chunk.dtype, None)
    own = exact_partial(single, kernel, None)
    result = PartialOutput(own.numerator[..., 0, :], own.denominator[..., 0, :], own.log_scale[..., 0, :])
    width = 1
    while width < size and window > 1:
        index = xp.arange(width, **device)
        near = index[:, None] + width - index < window
        square = Inputs(
            half(query, width, 1),
            half(key, width, 0),
            half(value, width, 0),
            half(present, width, 0)[..., 0],
            chunk.dtype,
            None,
        )
        result = merge_second_halves(result, exact_partial(square, kernel, near), width)
        width *= 2
    return result.first(length)


def exact_partial(part: Inputs, kernel: Kernel, near: Array | None) -> PartialOutput:
    """Sums with the kernel's own weights over the keys that are near, and not masked."""
    xp = namespace(part.query)
    weights = kernel.log_gram(part.query, part.key) if kernel.has_logarithm else kernel(part.query, part.key)
    seen = xp.ones_like(weights, dtype=xp.bool) if near is None else near
    if part.key_mask is not None:
        seen = seen & part.key_mask[..., None, :]
    if kernel.has_logarithm:
        logs = xp.where(seen, weights, -xp.inf)
        top = stop_gradient(peak(logs, -1))
        weights = exp_in_place(logs - replace_minus_inf(top))
    else:
        weights = xp.where(seen, weights, xp.zeros_like(weights))
        top = xp.zeros_like(weights[..., :0])
        top = xp.sum(top, axis=-1, keepdims=True)
        top = xp.where(xp.any(seen, axis=-1, keepdims=True), top, -xp.inf)
    return PartialOutput(weights @ part.value, xp.sum(weights, axis=-1, keepdims=True), top)
