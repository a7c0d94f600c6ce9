"""AttentionMethod: linear or exact attention, whichever the costs say is faster."""

import math
from dataclasses import dataclass
from typing import Any

from randfeat._array import Array
from randfeat.attention.costs import AttentionCosts, exact_work, linear_work
from randfeat.attention.inputs import AttentionInputs
from randfeat.attention.relation import Relation
from randfeat.maps import FeatureMap

__all__ = ["AttentionMethod", "faster_method", "is_exact"]


@dataclass(frozen=True)
class AttentionMethod:
    """The method that is expected to be faster, and the seconds that both are expected to take.

    name : `"linear"` or `"exact"`. exact_seconds is infinite where there is no exact form: states, and gates per
    feature.
    """

    name: str
    linear_seconds: float
    exact_seconds: float


def is_exact(
    method: Any, inputs: AttentionInputs, features: FeatureMap, relation: Relation, *, has_state: bool
) -> bool:
    """Whether `linear_attention` is to use the exact kernel."""
    if method == "linear":
        return False
    if method == "auto":
        return faster_method(inputs, features, relation, inputs.value, has_state=has_state).name == "exact"
    if method != "exact":
        raise ValueError(f'method must be "linear", "exact" or "auto", got {method!r}.')
    if has_state:
        raise ValueError(
            'initial_state and return_state are sums over features, which method="exact" does without; '
            'use "linear", or "auto", which is linear where there is a state.'
        )
    if gates_features(relation):
        raise ValueError('decay per feature has no exact form: method="exact" has no features. Use method="linear".')
    return True


def faster_method(
    inputs: AttentionInputs,
    features: FeatureMap,
    relation: Relation,
    like: Array,
    *,
    has_state: bool,
    costs: AttentionCosts | None = None,
) -> AttentionMethod:
    """By shapes and relation, and the rates for arrays like `like`; exact only if it is strictly faster."""
    costs = AttentionCosts.like(like) if costs is None else costs
    linear = costs.seconds(linear_work(inputs, features, relation))
    if not has_fast_pass(inputs, features, relation):
        linear *= costs.generic_causal if relation.is_causal or relation.key_ends is not None else costs.generic
    possible = not (has_state or gates_features(relation))
    exact = costs.seconds(exact_work(inputs, relation)) if possible else math.inf
    return AttentionMethod("exact" if exact < linear else "linear", linear, exact)


def gates_features(relation: Relation) -> bool:
    """Whether features have gates of their own."""
    return relation.log_gates is not None and relation.log_gates.shape[-1] != 1


def has_fast_pass(inputs: AttentionInputs, features: FeatureMap, relation: Relation) -> bool:
    """Whether a library that has a fast pass takes it, for features that are exponentials and no special relation."""
    return (
        relation.is_plain
        and not (relation.is_causal and inputs.num_queries != inputs.num_keys)
        and getattr(features.estimator.kernel, "unit_factor", None) is not None
        and all(features.exponential_form(keys=keys) is not None for keys in (False, True))
    )
