"""attention_method: which of exact and linear attention is expected to be faster, before either is computed."""

import math
from dataclasses import dataclass
from typing import Any

from randfeat._array import Array
from randfeat._hints import hinted, short
from randfeat.attention.cost_model.rates import AttentionCosts
from randfeat.attention.cost_model.work import exact_work, linear_work
from randfeat.attention.problem import Problem
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap


@dataclass(frozen=True)
class AttentionMethod:
    """The method that is expected to be faster, and the expected seconds of both methods.

    name : `"linear"` or `"exact"`. exact_seconds is infinite if there is no exact form: with states, or with gates for
        each feature.
    """

    name: str
    linear_seconds: float
    exact_seconds: float


@hinted
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
    key_bias: Any = None,
    key_ends: Any = None,
    cu_seqlens: Any = None,
    decay: Any = None,
    relative_bias: Any = None,
    window: int | None = None,
    num_sinks: int = 0,
    layout: str = "bhld",
    costs: AttentionCosts | None = None,
) -> AttentionMethod:
    """The method that `linear_attention(..., method="auto")` takes for these arguments, and the predicted times.

    The result depends on shapes, dtype, array library, estimator and options, never on values. So it is the same in
    every call, under `jit`, and in every process.

    costs : rates that replace those in the library, for example from `AttentionCosts.measure`. To use them in a call,
        write `linear_attention(..., method=attention_method(..., costs=costs).name)`.

    The exact method is chosen if it is faster, not if it would be more accurate.

    >>> import numpy as np, randfeat as rf
    >>> phi = rf.PositiveFeatures().draw(dim=64, num_features=256, rng=0)
    >>> [rf.attention_method(x, x, x, phi).name for x in (np.zeros((100, 64)), np.zeros((10_000, 64)))]
    ['exact', 'linear']
    """
    problem = Problem.of(
        query, key, value, features,
        is_causal=is_causal, scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, initial_state=initial_state,
        return_state=return_state, causal_offset=causal_offset, key_lengths=key_lengths, key_bias=key_bias,
        key_ends=key_ends, cu_seqlens=cu_seqlens, decay=decay, relative_bias=relative_bias, window=window,
        num_sinks=num_sinks, layout=layout,
    )  # fmt: skip
    return faster_method(problem, problem.inputs.value, costs)


def is_exact(method: Any, problem: Problem) -> bool:
    """Whether `linear_attention` is to use the exact kernel."""
    if method == "linear":
        return False
    if method == "auto":
        return faster_method(problem, problem.inputs.value).name == "exact"
    if method != "exact":
        raise ValueError(f'method must be "linear", "exact" or "auto", got {short(method)}.')
    if problem.has_state:
        raise ValueError(
            'initial_state and return_state are sums over features, which method="exact" does without; '
            'use "linear", or "auto", which is linear where there is a state.'
        )
    if not problem.relation.has_exact_form:
        raise ValueError('decay per feature has no exact form: method="exact" has no features. Use method="linear".')
    return True


def faster_method(problem: Problem, like: Array, costs: AttentionCosts | None = None) -> AttentionMethod:
    """By shapes and relation, and the rates for arrays like `like`; exact only if it is strictly faster."""
    costs = AttentionCosts.like(like) if costs is None else costs
    linear = costs.seconds(linear_work(problem))
    if not has_fast_form(problem):
        linear *= costs.generic_causal if problem.relation.is_sequential else costs.generic
    has_exact_form = problem.relation.has_exact_form and not problem.has_state
    exact = costs.seconds(exact_work(problem.inputs, problem.relation)) if has_exact_form else math.inf
    return AttentionMethod("exact" if exact < linear else "linear", linear, exact)


def has_fast_form(problem: Problem) -> bool:
    """Whether a library that has a fast executor takes it: features that are exponentials, and their relation."""
    return (
        problem.has_fast_relation
        and problem.unit_factor is not None
        and all(problem.features.exponential_form(keys=keys) is not None for keys in (False, True))
    )
