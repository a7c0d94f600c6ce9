"""Exact attention, quadratic in the length: the references that linear attention is measured against."""

from typing import Any

from randfeat._array import (
    Array,
    as_bool,
    broadcast_shapes,
    device_of,
    exp_in_place,
    namespace,
    own_precision,
    peak,
    replace_minus_inf,
    stop_gradient,
)
from randfeat._hints import hinted
from randfeat.attention.inputs import Inputs, intervals
from randfeat.attention.partial import PartialOutput
from randfeat.attention.problem import checked
from randfeat.attention.relations import Relation
from randfeat.kernels import Kernel, SoftmaxKernel

BLOCK = 512  # queries at a time, so that memory is linear in the length
LARGEST_LOG_FACTOR = 64.0  # e^64 times a kernel value, summed over keys, is far from the end of float32


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
    num_sinks: int = 0,
    return_partial: bool = False,
    layout: str = "bhld",
) -> Any:
    """Exact softmax attention, `softmax(scale · q kᵀ + b) v`, with the arguments of `linear_attention`.

    query (..., L, d), key (..., S, d), value (..., S, dv) -> (..., L, dv); `scale` is 1/√d by default. Time O(L S),
    memory O(L + S). A query without keys gives zeros. float16 and bfloat16 are computed in float32. All weights are
    exact, so `window` changes nothing. Gates of `decay` cannot differ between features: (..., S, 1) is possible, (...,
    S, num_features) is not.

    key_bias : (S,) or the shape of `key` without its last dimension.
        A number b for each key, added to its logits. The key then counts as `exp(b)` keys; with `-inf` it does not take
        part.
    return_partial : bool.
        If True, return a `PartialOutput`: numerators, denominators and their scale, in the computing dtype. Partial
        outputs over disjoint sets of keys `merge`; `normalized` is the output. It cannot be combined with `decay`.

    >>> import numpy as np
    >>> q = np.zeros((2, 4)); v = np.array([[1.0], [3.0]])
    >>> softmax_attention(q, q, v, is_causal=True)
    array([[1.],
           [2.]])
    >>> softmax_attention(q, q, v, key_bias=np.log([3.0, 1.0]))
    array([[1.5],
           [1.5]])
    """
    return kernel_attention(
        query, key, value, SoftmaxKernel(),
        is_causal=is_causal, scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, causal_offset=causal_offset,
        key_lengths=key_lengths, key_bias=key_bias, key_ends=key_ends, cu_seqlens=cu_seqlens, decay=decay,
        relative_bias=relative_bias, window=window, num_sinks=num_sinks, return_partial=return_partial, layout=layout,
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
    num_sinks: int = 0,
    return_partial: bool = False,
    layout: str = "bhld",
) -> Any:
    """Exact kernel attention, `Σ_j w_ij v_j / Σ_j w_ij` with `w_ij = k(s q_i, s k_j) exp(b_j)`, s = √scale.

    All other arguments are those of `softmax_attention`. The default scale 1/√d is for `SoftmaxKernel()` only. Every
    other kernel needs an explicit `scale`; 1.0 takes the kernel as it is. If a kernel has values of both signs, a
    denominator can be 0.
    """
    return_partial = as_bool(return_partial, "return_partial")
    if return_partial and decay is not None:
        raise ValueError("return_partial cannot be combined with decay, whose weights are known up to a factor only.")
    inputs, relation = checked(
        query, key, value, kernel,
        is_causal=is_causal, scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, causal_offset=causal_offset,
        key_lengths=key_lengths, key_bias=key_bias, key_ends=key_ends, cu_seqlens=cu_seqlens, decay=decay,
        relative_bias=relative_bias, window=window, num_sinks=num_sinks, layout=layout,
    )  # fmt: skip
    with own_precision(inputs.value):
        parts = exact_partials(inputs, relation, kernel)
        if return_partial:
            return inputs.restore_partial(PartialOutput.concat(parts))
        return inputs.restore([part.normalized() for part in parts])


def exact_outputs(inputs: Inputs, relation: Relation, kernel: Kernel, lead: tuple[int, ...] = ()) -> list[Array]:
    """Outputs of consecutive queries, with at least the leading dimensions `lead`."""
    return [with_leading(part.normalized(), lead) for part in exact_partials(inputs, relation, kernel)]


def exact_partials(inputs: Inputs, relation: Relation, kernel: Kernel) -> list[PartialOutput]:
    """Partial outputs of consecutive queries."""
    return [
        exact_block(part, kernel, start, stop, within)
        for _, part, within in relation.sequences(inputs.prepared())
        for start, stop in intervals(0, part.num_queries, BLOCK) or [(0, 0)]
    ]


def with_leading(x: Array, lead: tuple[int, ...]) -> Array:
    """`x` (..., n, dv) repeated to the leading dimensions of attention by maps with a batch."""
    xp, shape = namespace(x), broadcast_shapes(x.shape[:-2], lead)
    if shape == tuple(x.shape[:-2]):
        return x
    return x + xp.zeros((*shape, 1, 1), dtype=x.dtype, device=device_of(x))


def exact_block(inputs: Inputs, kernel: Kernel, start: int, stop: int, relation: Relation) -> PartialOutput:
    """Partial outputs of the queries from `start` to `stop`.

    The scale of a query is that of its largest weight. Of kernels without logarithms, whose small values may be near
    the end of the range, it is 0, unless all factors are below 1 or one is beyond `LARGEST_LOG_FACTOR`.
    """
    xp = namespace(inputs.query)
    visible = inputs.num_keys
    if relation.is_causal:  # the others are not computed
        visible = min(max(stop + relation.offset, 0), visible)
    key, value = inputs.key[..., :visible, :], inputs.value[..., :visible, :]
    query, by_logarithm = inputs.query[..., start:stop, :], kernel.has_logarithm
    weights = kernel.log_gram(query, key) if by_logarithm else kernel(query, key)
    log_factors = factors_of(inputs, start, stop, relation, visible)
    if by_logarithm:
        if log_factors is not None:
            seen = log_factors != -xp.inf
            weights = xp.where(seen, weights + xp.where(seen, log_factors, 0.0), -xp.inf)
        if inputs.key_mask is not None:
            weights = xp.where(inputs.key_mask[..., None, :visible], weights, -xp.inf)
        top = stop_gradient(peak(weights, -1))
        weights = exp_in_place(weights - replace_minus_inf(top))
    else:
        top = xp.zeros_like(query[..., :1])
        if log_factors is not None:
            top = stop_gradient(peak(log_factors, -1))
            top = top - xp.clip(top, 0.0, LARGEST_LOG_FACTOR)
            seen = log_factors != -xp.inf
            weights = xp.where(seen, weights * xp.exp(log_factors - replace_minus_inf(top)), 0.0)
        if inputs.key_mask is not None:
            weights = xp.where(inputs.key_mask[..., None, :visible], weights, 0.0)
    return PartialOutput(weights @ value, xp.sum(weights, axis=-1, keepdims=True), top)


def factors_of(inputs: Inputs, start: int, stop: int, relation: Relation, visible: int) -> Array | None:
    """Logarithms of the factors of the kernel values, from relation and bias of the keys; None for factors 1."""
    factors = relation.log_weights(start, stop, inputs)
    factors = None if factors is None else factors[..., :visible]
    if inputs.key_bias is None:
        return factors
    bias = inputs.key_bias[..., None, :visible]
    return bias if factors is None else factors + bias
