"""attention_method: which of exact and linear attention is expected to be faster, before either is computed."""

from typing import Any

from randfeat.attention.costs import AttentionCosts
from randfeat.attention.linear import fitting_inputs
from randfeat.attention.method import AttentionMethod, faster_method
from randfeat.attention.relation import relation_of
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap

__all__ = ["attention_method"]


def attention_method(
    query: Any,
    key: Any,
    value: Any,
    features: FeatureMap,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    enable_gqa: bool = False,
    initial_state: AttentionState | None = None,
    return_state: bool = False,
    causal_offset: int = 0,
    key_lengths: Any = None,
    key_ends: Any = None,
    cu_seqlens: Any = None,
    decay: Any = None,
    relative_bias: Any = None,
    window: int | None = None,
    layout: str = "bhld",
    costs: AttentionCosts | None = None,
) -> AttentionMethod:
    """Which method `linear_attention(..., method="auto")` takes for these arguments, and the predicted times of both.

    A function of shapes, dtype, array library, estimator and options, never of values: the same in every call, under
    `jit`, and in every process. `costs` replaces the rates that the library holds, by `AttentionCosts.measure` for
    example; `linear_attention(..., method=attention_method(..., costs=costs).name)` then follows them.

    Exact is chosen where it is faster, not where it would be more accurate.

    >>> import numpy as np, randfeat as rf
    >>> phi = rf.PositiveFeatures().draw(dim=64, num_features=256, rng=0)
    >>> [rf.attention_method(x, x, x, phi).name for x in (np.zeros((100, 64)), np.zeros((10_000, 64)))]
    ['exact', 'linear']
    """
    inputs, drawn = fitting_inputs(
        query,
        key,
        value,
        features,
        scale=scale,
        key_mask=key_mask,
        enable_gqa=enable_gqa,
        key_lengths=key_lengths,
        layout=layout,
    )
    features = inputs.align(drawn)
    inputs.leading_shape(features)
    has_state = initial_state is not None or return_state
    relation = relation_of(
        inputs,
        num_features=features.num_features,
        is_causal=is_causal,
        causal_offset=causal_offset,
        key_lengths=key_lengths,
        key_ends=key_ends,
        cu_seqlens=cu_seqlens,
        decay=decay,
        relative_bias=relative_bias,
        window=window,
        has_state=has_state,
    )
    return faster_method(inputs, features, relation, inputs.value, has_state=has_state, costs=costs)
