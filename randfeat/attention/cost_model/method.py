"""attention_method: which form of attention is expected to be faster, before any is computed."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from randfeat._array import Array, as_count, device_of
from randfeat._hints import hinted, short
from randfeat.attention.cost_model.compressed import clustered_work, compressed_work, has_compressed_form, stream_work
from randfeat.attention.cost_model.rates import AttentionCosts
from randfeat.attention.cost_model.sizes import NUM_CLUSTERS, NUM_KEYS
from randfeat.attention.cost_model.work import exact_work, linear_work
from randfeat.attention.inputs import Inputs
from randfeat.attention.problem import Problem, checked
from randfeat.attention.relations import Relation
from randfeat.attention.relations.packed import Packed
from randfeat.attention.state import AttentionState
from randfeat.kernels import SoftmaxKernel
from randfeat.maps import FeatureMap

SIZES = (NUM_CLUSTERS, NUM_KEYS)
"""Clusters of clustered attention, and rows of compressed attention, by default."""


@dataclass(frozen=True)
class AttentionMethod:
    """The method that is expected to be faster, and the expected seconds of all methods.

    name : `"linear"` or `"exact"`. exact_seconds is infinite if there is no exact form: with states, or with gates for
        each feature.
    clustered_seconds, compressed_seconds : of `clustered_attention` and `compressed_attention`, fit included; infinite
        where they have no form: clusters of causal attention, windows, biases, ...
    """

    name: str
    linear_seconds: float
    exact_seconds: float
    clustered_seconds: float = math.inf
    compressed_seconds: float = math.inf

    @property
    def fastest(self) -> str:
        """`"exact"`, `"linear"`, `"clustered"` or `"compressed"`, by time alone: errors are what `recommend` measures.

        Of equally fast ones, the first.
        """
        seconds = self.seconds
        return min(seconds, key=lambda name: seconds[name])

    @property
    def seconds(self) -> dict[str, float]:
        """The expected seconds by the names of the methods; infinite where a method has no form."""
        return {
            "exact": self.exact_seconds,
            "linear": self.linear_seconds,
            "clustered": self.clustered_seconds,
            "compressed": self.compressed_seconds,
        }

    def __str__(self) -> str:
        lines = [f"  {name:10}  {seconds:.2g} s" for name, seconds in self.seconds.items() if math.isfinite(seconds)]
        return "\n".join([f'fastest: {self.fastest}; linear_attention(method="auto") takes: {self.name}', *lines])


@hinted
def attention_method(
    query: Any,
    key: Any,
    value: Any,
    features: FeatureMap | None = None,
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
    num_clusters: int = NUM_CLUSTERS,
    num_keys: int = NUM_KEYS,
    costs: AttentionCosts | None = None,
) -> AttentionMethod:
    """The method that `linear_attention(..., method="auto")` takes for these arguments, and the predicted times.

    The result depends on shapes, dtype, array library, estimator and options, never on values. So it is the same in
    every call, under `jit`, and in every process. It also has the times of the operators without features, and the
    `fastest` of all four.

    query, key, value : arrays, or `np.broadcast_to(np.float32(0), shape)`, an array of any shape that takes no memory.
    features : None leaves linear attention out; then `linear_seconds` is infinite.
    num_clusters, num_keys : sizes of `clustered_attention` and `compressed_attention`; causally, `num_keys` is also the
        window.
    costs : rates that replace those in the library, for example from `AttentionCosts.measure`. To use them in a call,
        write `linear_attention(..., method=attention_method(..., costs=costs).name)`.

    The exact method is chosen if it is faster, not if it would be more accurate.

    >>> import numpy as np, randfeat as rf
    >>> phi = rf.PositiveFeatures().draw(dim=64, num_features=256, rng=0)
    >>> [rf.attention_method(x, x, x, phi).name for x in (np.zeros((100, 64)), np.zeros((10_000, 64)))]
    ['exact', 'linear']
    >>> x = np.broadcast_to(np.float32(0), (8, 3000, 64))
    >>> print(rf.attention_method(x, x, x))
    fastest: clustered; linear_attention(method="auto") takes: exact
      exact       0.27 s
      clustered   0.049 s
      compressed  0.05 s
    >>> [rf.attention_method(x, x, x).fastest for x in (np.zeros((100, 64)), np.zeros((10_000, 64)))]
    ['exact', 'compressed']
    """
    sizes = as_count(num_clusters, "num_clusters"), as_count(num_keys, "num_keys")
    for name, given in (("query", query), ("key", key), ("value", value)):
        check_is_no_shape(given, name)
    options: dict[str, Any] = {
        "is_causal": is_causal, "scale": scale, "key_mask": key_mask, "enable_gqa": enable_gqa,
        "causal_offset": causal_offset, "key_lengths": key_lengths, "key_bias": key_bias, "key_ends": key_ends,
        "cu_seqlens": cu_seqlens, "decay": decay, "relative_bias": relative_bias, "window": window,
        "num_sinks": num_sinks, "layout": layout,
    }  # fmt: skip
    if features is not None:
        problem = Problem.of(
            query, key, value, features, initial_state=initial_state, return_state=return_state, **options
        )
        return faster_method(problem, problem.inputs.value, costs, sizes)
    if initial_state is not None or return_state:
        raise ValueError("initial_state and return_state are sums over features; give features, too.")
    inputs, relation = checked(query, key, value, SoftmaxKernel(), **options)
    exact = rates_for(inputs.value, costs).seconds(exact_work(inputs, relation))
    return with_compressed(AttentionMethod("exact", math.inf, exact), inputs, relation, sizes, costs)


def check_is_no_shape(given: Any, name: str) -> None:
    """TypeError for a shape in place of an array."""
    if isinstance(given, list | tuple) and all(isinstance(size, int | np.integer) for size in given):
        raise TypeError(
            f"expected arrays, not shapes, got {name} = {short(given)}; np.broadcast_to(np.float32(0), shape) is an "
            "array of any shape, and takes no memory."
        )


def rates_for(like: Array, costs: AttentionCosts | None) -> AttentionCosts:
    """The rates that are given, or those in the library for arrays like this one."""
    return AttentionCosts.like(like) if costs is None else costs


def with_compressed(
    found: AttentionMethod, inputs: Inputs, relation: Relation, sizes: tuple[int, int], costs: AttentionCosts | None
) -> AttentionMethod:
    """The method with the times of clustered and compressed attention, of C clusters and D rows, if they apply."""
    if not has_compressed_form(inputs, relation):
        return found
    (num_clusters, num_keys), rates = sizes, rates_for(inputs.value, costs)
    if relation.is_causal:
        return replace(found, compressed_seconds=rates.seconds(stream_work(inputs, num_keys, num_keys)))
    return replace(
        found,
        clustered_seconds=rates.seconds(clustered_work(inputs, num_clusters)),
        compressed_seconds=rates.seconds(compressed_work(inputs, num_keys)),
    )


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


def faster_method(
    problem: Problem, like: Array, costs: AttentionCosts | None = None, sizes: tuple[int, int] = SIZES
) -> AttentionMethod:
    """By shapes and relation, and the rates for arrays like `like`; exact only if it is strictly faster."""
    costs = rates_for(like, costs)
    linear = costs.seconds(linear_work(problem))
    if not has_fast_form(problem):
        linear *= costs.generic_causal if problem.relation.is_sequential else costs.generic
    has_exact_form = problem.relation.has_exact_form and not problem.has_state
    exact = costs.seconds(exact_work(problem.inputs, problem.relation)) if has_exact_form else math.inf
    found = AttentionMethod("exact" if exact < linear else "linear", linear, exact)
    return found if problem.has_state else with_compressed(found, problem.inputs, problem.relation, sizes, costs)


def has_fast_form(problem: Problem) -> bool:
    """Whether a library that has a fast executor takes it: features that are exponentials, and their relation.

    Packed sequences have one on the CPU only.
    """
    relation, value = problem.relation, problem.inputs.value
    if isinstance(relation, Packed) and (isinstance(value, np.ndarray) or str(device_of(value)) == "cpu"):
        problem = replace(problem, relation=relation.each)
    return (
        problem.has_fast_relation
        and problem.unit_factor is not None
        and all(problem.features.exponential_form(keys=keys) is not None for keys in (False, True))
    )
