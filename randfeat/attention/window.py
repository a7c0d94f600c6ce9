"""A window of exact weights around each query, and features for everything outside, under one normalizer."""

from dataclasses import replace

from randfeat._array import Array, device_of, exp_in_place, namespace, peak, replace_minus_inf, stop_gradient
from randfeat.attention import passes
from randfeat.attention.causal import half, merge_second_halves
from randfeat.attention.inputs import AttentionInputs, pieces
from randfeat.attention.partial import PartialOutput
from randfeat.attention.relation import Relation
from randfeat.attention.state import AttentionState
from randfeat.kernels import Kernel
from randfeat.maps import FeatureMap

__all__ = ["window_pass"]


def window_pass(
    inputs: AttentionInputs, features: FeatureMap, state: AttentionState, relation: Relation
) -> passes.Passed:
    """`Σ_near K_ij v_j + Σ_far K̂_ij v_j` over the sum of the weights; near is |i + offset - j| < window.

    What is far is never obtained by subtracting what is near: the keys before the window are a causal pass with the
    offset reduced by it, those after it the same pass from the other end. So weights stay positive where they are, and
    causal outputs do not depend on later keys. Both sums have their absolute size, kernel and estimate of the kernel,
    so that they may be added. The cost beside the features' is that of L · 2 window (L · window if causal) exact
    weights.
    """
    assert relation.window is not None
    window, offset = relation.window, relation.offset
    outputs, final = passes.causal_pass(inputs, features, state, offset=offset - window)
    result = PartialOutput.concat(outputs)
    if not relation.is_causal:
        after = inputs.num_keys - inputs.num_queries - max(window, 1)
        nothing = AttentionState.empty(
            features.num_features,
            inputs.value.shape[-1],
            like=inputs.value,
            batch_shape=inputs.leading_shape(features),
        )
        outputs, _ = passes.causal_pass(backward(inputs), features, nothing, offset=after)
        result = result.merge(flipped(PartialOutput.concat(outputs)))
    if window:
        result = result.merge(near_partial(inputs, features.estimator.kernel, relation))
    return [result], final


def near_partial(inputs: AttentionInputs, kernel: Kernel, relation: Relation) -> PartialOutput:
    """Exact sums over the keys of each query's window."""
    assert relation.window is not None
    window, offset, num_keys = relation.window, relation.offset, inputs.num_keys
    ahead = min(max(-offset, 0), inputs.num_queries)  # queries before every key
    nothing = inputs.part(slice(0, ahead), slice(0, 0))
    parts = [exact_partial(nothing, kernel, None)]
    for start, stop in pieces(ahead, inputs.num_queries, passes.CAUSAL_CHUNK):
        first = min(max(start + offset - window + 1, 0), num_keys)
        here = min(start + offset, num_keys)
        last = here if relation.is_causal else min(stop + window - 1, num_keys)
        part = inputs.part(slice(start, stop), slice(first, last))
        device = {"device": device_of(part.query)}
        xp = namespace(part.query)
        distance = xp.arange(start + offset, stop + offset, **device)[:, None] - xp.arange(first, last, **device)
        near = exact_partial(part, kernel, (distance < window) & (distance > -window))
        if relation.is_causal:
            own = inputs.part(slice(start, stop), slice(here, min(stop + offset, num_keys)))
            near = near.merge(within_chunk(own, kernel, window))
        parts.append(near)
    return PartialOutput.concat(parts)


def within_chunk(chunk: AttentionInputs, kernel: Kernel, window: int) -> PartialOutput:
    """The keys of the chunk up to each query, by the squares of causal attention: no later key is ever looked at."""
    length = chunk.num_queries
    size = 1 << (length - 1).bit_length()
    xp, device = namespace(chunk.query), {"device": device_of(chunk.query)}
    query, key, value = (passes.pad(x, size, 0.0) for x in (chunk.query, chunk.key, chunk.value))
    present = xp.arange(size, **device)[:, None] < chunk.num_keys
    if chunk.key_mask is not None:
        mask = chunk.key_mask
        missing = xp.zeros((*mask.shape[:-1], size - chunk.num_keys), dtype=xp.bool, **device)
        present = present & xp.concat([mask, missing], axis=-1)[..., None]
    single = AttentionInputs(query[..., None, :], key[..., None, :], value[..., None, :], present, chunk.dtype, None)
    own = exact_partial(single, kernel, None)
    result = PartialOutput(own.numerator[..., 0, :], own.denominator[..., 0, :], own.log_scale[..., 0, :])
    width = 1
    while width < size and window > 1:
        index = xp.arange(width, **device)
        near = index[:, None] + width - index < window
        square = AttentionInputs(
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


def exact_partial(part: AttentionInputs, kernel: Kernel, near: Array | None) -> PartialOutput:
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


def backward(inputs: AttentionInputs) -> AttentionInputs:
    """The inputs in reversed order."""
    xp = namespace(inputs.query)
    query, key, value = (xp.flip(x, axis=-2) for x in (inputs.query, inputs.key, inputs.value))
    mask = None if inputs.key_mask is None else xp.flip(inputs.key_mask, axis=-1)
    return replace(inputs, query=query, key=key, value=value, key_mask=mask)


def flipped(partial: PartialOutput) -> PartialOutput:
    """The outputs in reversed order."""
    xp = namespace(partial.numerator)
    return PartialOutput(*(xp.flip(x, axis=-2) for x in partial.columns))
