"""Exact attention, quadratic in the length: the references that linear attention is measured against."""

from typing import Any

from randfeat._array import Array, device_of, exp_in_place, namespace, replace_minus_inf, stop_gradient
from randfeat.attention.inputs import AttentionInputs, attention_inputs, pieces
from randfeat.kernels import Kernel, SoftmaxKernel

__all__ = ["kernel_attention", "softmax_attention"]

BLOCK = 512  # queries at a time, so that memory is linear in the length


def softmax_attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    enable_gqa: bool = False,
) -> Array:
    """Exact softmax attention, `softmax(scale · q kᵀ) v`, with the arguments of `linear_attention`.

    query (..., L, d), key (..., S, d), value (..., S, dv) -> (..., L, dv); `scale` is 1/√d by default. Time O(L S),
    memory O(L + S). A query without any key gives zeros. float16 and bfloat16 are computed in float32.

    >>> import numpy as np
    >>> q = np.zeros((2, 4)); v = np.array([[1.0], [3.0]])
    >>> softmax_attention(q, q, v, is_causal=True)
    array([[1.],
           [2.]])
    """
    return kernel_attention(
        query,
        key,
        value,
        SoftmaxKernel(),
        is_causal=is_causal,
        scale=scale,
        key_mask=key_mask,
        enable_gqa=enable_gqa,
    )


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
) -> Array:
    """Exact normalized kernel attention, `Σ_j k(s q_i, s k_j) v_j / Σ_j k(s q_i, s k_j)`, s = √scale.

    As `softmax_attention`, for any kernel; where a kernel takes both signs, a denominator may vanish. The default scale
    1/√d applies to `SoftmaxKernel()` only; other kernels have a scale of their own and need an explicit `scale`, 1.0
    for the kernel as it is.
    """
    inputs = attention_inputs(query, key, value, kernel=kernel, scale=scale, key_mask=key_mask, enable_gqa=enable_gqa)
    blocks = pieces(0, inputs.num_queries, BLOCK) or [(0, 0)]
    return inputs.restore([exact_block(inputs, kernel, start, stop, is_causal) for start, stop in blocks])


def exact_block(inputs: AttentionInputs, kernel: Kernel, start: int, stop: int, is_causal: bool) -> Array:
    """Outputs of the queries from `start` to `stop`."""
    xp = namespace(inputs.query)
    visible = min(stop, inputs.num_keys) if is_causal else inputs.num_keys
    key, value = inputs.key[..., :visible, :], inputs.value[..., :visible, :]
    query, by_logarithm = inputs.query[..., start:stop, :], kernel.has_logarithm
    if by_logarithm:
        weights, absent = kernel.log_gram(query, key), -xp.inf
    else:
        weights, absent = kernel(query, key), 0.0
    if inputs.key_mask is not None:
        weights = xp.where(inputs.key_mask[..., None, :visible], weights, absent)
    if is_causal:
        device = {"device": device_of(weights)}
        positions = xp.arange(start, stop, **device)[:, None]
        weights = xp.where(xp.arange(visible, **device)[None, :] <= positions, weights, absent)
    if visible == 0:
        return weights @ value
    if by_logarithm:
        top = replace_minus_inf(stop_gradient(xp.max(weights, axis=-1, keepdims=True)))
        weights = exp_in_place(weights - top)
    total = xp.sum(weights, axis=-1, keepdims=True)
    return (weights @ value) / xp.where(total == 0, xp.ones_like(total), total)
