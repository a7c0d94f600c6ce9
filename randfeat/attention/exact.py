"""Exact attention, quadratic in the length: the references that linear attention is measured against."""

from typing import Any

from randfeat._array import (
    Array,
    broadcast_shapes,
    device_of,
    exp_in_place,
    namespace,
    own_precision,
    replace_minus_inf,
    stop_gradient,
)
from randfeat._hints import hinted
from randfeat.attention.inputs import Inputs, intervals
from randfeat.attention.problem import checked
from randfeat.attention.relations import Relation
from randfeat.kernels import Kernel, SoftmaxKernel

BLOCK = 512  # queries at a time, so that memory is linear in the length


@hinted
def softmax_attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    enable_gqa: bool = False,
    causal_offset: int = 0,
    key_lengths: Any = None,
    key_bias: Any = None,
    key_ends: Any = None,
    cu_seqlens: Any = None,
    decay: Any = None,
    relative_bias: Any = None,
    window: int | None = None,
    layout: str = "bhld",
) -> Array:
    """Exact softmax attention, `softmax(scale · q kᵀ) v`, with the arguments of `linear_attention`.

    query (..., L, d), key (..., S, d), value (..., S, dv) -> (..., L, dv); `scale` is 1/√d by default. Time O(L S),
    memory O(L + S). A query without keys gives zeros. float16 and bfloat16 are computed in float32. All weights are
    exact, so `window` changes nothing. Gates of `decay` cannot differ between features: (..., S, 1) is possible, (...,
    S, num_features) is not.

    >>> import numpy as np
    >>> q = np.zeros((2, 4)); v = np.array([[1.0], [3.0]])
    >>> softmax_attention(q, q, v, is_causal=True)
    array([[1.],
           [2.]])
    """
    return kernel_attention(
        query, key, value, SoftmaxKernel(),
        is_causal=is_causal, scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, causal_offset=causal_offset,
        key_lengths=key_lengths, key_bias=key_bias, key_ends=key_ends, cu_seqlens=cu_seqlens, decay=decay,
        relative_bias=relative_bias, window=window, layout=layout,
    )  # fmt: skip


@hinted
def kernel_attention(
    query: Any,
    key: Any,
    value: Any,
    kernel: Kernel,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    enable_gqa: bool = False,
    causal_offset: int = 0,
    key_lengths: Any = None,
    key_bias: Any = None,
    key_ends: Any = None,
    cu_seqlens: Any = None,
    decay: Any = None,
    relative_bias: Any = None,
    window: int | None = None,
    layout: str = "bhld",
) -> Array:
    """Exact normalized kernel attention, `Σ_j k(s q_i, s k_j) v_j / Σ_j k(s q_i, s k_j)`, s = √scale.

    All other arguments are those of `softmax_attention`. The default scale 1/√d is for `SoftmaxKernel()` only. Every
    other kernel needs an explicit `scale`; 1.0 takes the kernel as it is. If a kernel has values of both signs, a
    denominator can be 0.
    """
    inputs, relation = checked(
        query, key, value, kernel,
        is_causal=is_causal, scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, causal_offset=causal_offset,
        key_lengths=key_lengths, key_bias=key_bias, key_ends=key_ends, cu_seqlens=cu_seqlens, decay=decay,
        relative_bias=relative_bias, window=window, layout=layout,
    )  # fmt: skip
    with own_precision(inputs.value):
        return inputs.restore(exact_outputs(inputs, relation, kernel))


def exact_outputs(inputs: Inputs, relation: Relation, kernel: Kernel, lead: tuple[int, ...] = ()) -> list[Array]:
    """Outputs of consecutive queries, with at least the leading dimensions `lead`."""
    outputs = [
        exact_block(part, kernel, start, stop, within)
        for _, part, within in relation.sequences(inputs.prepared())
        for start, stop in intervals(0, part.num_queries, BLOCK) or [(0, 0)]
    ]
    return [with_leading(x, lead) for x in outputs]


def with_leading(x: Array, lead: tuple[int, ...]) -> Array:
    """`x` (..., n, dv) repeated to the leading dimensions of attention by maps with a batch."""
    xp, shape = namespace(x), broadcast_shapes(x.shape[:-2], lead)
    if shape == tuple(x.shape[:-2]):
        return x
    return x + xp.zeros((*shape, 1, 1), dtype=x.dtype, device=device_of(x))


def exact_block(inputs: Inputs, kernel: Kernel, start: int, stop: int, relation: Relation) -> Array:
    """Outputs of the queries from `start` to `stop`."""
    xp = namespace(inputs.query)
    log_weights = relation.log_weights(start, stop, inputs)
    visible = inputs.num_keys
    if relation.is_causal:  # the others are not computed
        visible = min(max(stop + relation.offset, 0), visible)
        log_weights = None if log_weights is None else log_weights[..., :visible]
    key, value = inputs.key[..., :visible, :], inputs.value[..., :visible, :]
    query, by_logarithm = inputs.query[..., start:stop, :], kernel.has_logarithm
    weights = kernel.log_gram(query, key) if by_logarithm else kernel(query, key)
    if log_weights is not None:
        seen = log_weights > -xp.inf
        weights = weights + xp.where(seen, log_weights, 0.0) if by_logarithm else weights * xp.exp(log_weights)
        weights = xp.where(seen, weights, -xp.inf if by_logarithm else 0.0)
    if inputs.key_bias is not None:
        bias = xp.where(inputs.key_mask, inputs.key_bias, 0.0)[..., None, :visible]
        weights = weights + bias if by_logarithm else weights * xp.exp(bias)
    if inputs.key_mask is not None:
        mask = inputs.key_mask[..., None, :visible]
        weights = xp.where(mask, weights, -xp.inf if by_logarithm else 0.0)
    if visible == 0:
        return weights @ value
    if by_logarithm:
        top = replace_minus_inf(stop_gradient(xp.max(weights, axis=-1, keepdims=True)))
        weights = exp_in_place(weights - top)
    total = xp.sum(weights, axis=-1, keepdims=True)
    return (weights @ value) / xp.where(total == 0, xp.ones_like(total), total)
