"""Rates of the machine at hand, from timed calls of attention."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import Array, as_floating, compiled, finish, host_to
from randfeat.attention.costs import AttentionCosts, Work, exact_work, linear_work
from randfeat.attention.exact import kernel_attention
from randfeat.attention.inputs import attention_inputs
from randfeat.attention.linear import linear_attention
from randfeat.attention.relation import relation_of
from randfeat.estimators import PositiveFeatures
from randfeat.maps import FeatureMap

__all__ = ["interleaved", "measured_costs"]

BUDGET = 0.8  # seconds for all rounds
ROUNDS = (3, 15)  # the least and the most of them
WAKING = 0.2  # seconds of a call from which it matters little that cores are asleep when it begins
EXACT = ("exact_call", "exact_pair", "exact_pair_dim", "exact_pass")
LINEAR = ("linear_call", "linear_head", "feature", "feature_dim", "causal_feature")


@dataclass(frozen=True)
class Call:
    """One call of attention: (heads, length, dims over `shrink`), by one of the methods."""

    heads: int
    length: int
    shrink: int = 1
    is_causal: bool = False
    is_generic: bool = False
    """Packed as one sequence: the same numbers, by the pass that takes all relations."""
    has_bias: bool = False


EXACT_CALLS = (Call(1, 32), Call(2, 512), Call(2, 512, shrink=4), Call(6, 512, is_causal=True), Call(8, 512))
LINEAR_CALLS = (
    Call(1, 64), Call(8, 64), Call(2, 512), Call(2, 512, shrink=4), Call(6, 512, is_causal=True), Call(1, 1024),
)  # fmt: skip
GENERIC = (Call(2, 512, is_generic=True), Call(6, 512, is_generic=True, is_causal=True))
BIAS = Call(1, 64, shrink=4, has_bias=True)


def measured_costs(
    like: Any, dim: int, value_dim: int, num_features: int, num_threads: int | None = None, pause: float = 0.0
) -> AttentionCosts:
    """`AttentionCosts.measure`; num_threads as in `linear_attention`, pause as in `interleaved`."""
    like = as_floating(like, "like")
    problems = {
        **{("exact", call): Problem.of(call, like, dim, value_dim, None) for call in EXACT_CALLS},
        **{("linear", call): Problem.of(call, like, dim, value_dim, num_features, num_threads)
           for call in (*LINEAR_CALLS, *GENERIC, BIAS)},
    }  # fmt: skip
    times = interleaved({name: problem.run for name, problem in problems.items()}, pause=pause)

    def fitted(method: str, calls: tuple[Call, ...], names: tuple[str, ...]) -> dict[str, float]:
        return rates([problems[method, call].work for call in calls], [times[method, call] for call in calls], names)

    found = fitted("exact", EXACT_CALLS, EXACT) | fitted("linear", LINEAR_CALLS, LINEAR)
    zero = AttentionCosts(**found, transform=0.0)

    def seconds(call: Call) -> float:
        return zero.seconds(problems["linear", call].work)

    generic, generic_causal = (max(times["linear", call] / seconds(call), 1.0) for call in GENERIC)
    transform = max(times["linear", BIAS] / generic - seconds(BIAS), 0.0) / problems["linear", BIAS].work["transform"]
    return AttentionCosts(**found, transform=transform, generic=generic, generic_causal=generic_causal)


@dataclass(frozen=True, eq=False)
class Problem:
    """A call with its inputs, and the work that it is."""

    run: Callable[[], Array]
    work: Work

    @classmethod
    def of(
        cls,
        call: Call,
        like: Array,
        dim: int,
        value_dim: int,
        num_features: int | None,
        num_threads: int | None = None,
    ) -> "Problem":
        """Exact where there are no features."""
        rng = np.random.default_rng(0)
        sizes = [max(size // call.shrink, 1) for size in (dim, dim, value_dim)]
        inputs = [host_to(rng.standard_normal((call.heads, call.length, size)), like) for size in sizes]
        options: dict[str, Any] = {"is_causal": call.is_causal}
        if call.is_generic:
            options["cu_seqlens"] = [0, call.length]
        if call.has_bias:
            options["relative_bias"] = host_to(np.zeros(2 * call.length - 1), like)
        kernel = PositiveFeatures().kernel
        checked = attention_inputs(*inputs, kernel=kernel, scale=None, key_mask=None, enable_gqa=False)
        relation = relation_of(checked, **options)
        if num_features is None:
            work = exact_work(checked, relation)
            function = compiled(lambda q, k, v: kernel_attention(q, k, v, kernel, **options), like)
        else:
            num_features = max(num_features // call.shrink, 1) if call.has_bias else num_features
            phi = PositiveFeatures().draw(sizes[0], num_features, rng=0, like=inputs[0])
            work = linear_work(checked, phi, relation)
            function = compiled(linear_of(phi, options | {"num_threads": num_threads}), like)
        return cls(lambda: function(*inputs), work)


def linear_of(phi: FeatureMap, options: dict[str, Any]) -> Callable[..., Array]:
    """linear_attention as a function of the inputs alone."""
    return lambda q, k, v: linear_attention(q, k, v, phi, **options)


def interleaved(
    calls: Mapping[Any, Callable[[], object]],
    *,
    budget: float | None = None,
    rounds: tuple[int, int] | None = None,
    pause: float = 0.0,
) -> dict[Any, float]:
    """The median seconds of each call, A B C A B C ..., after one round that is not counted.

    budget : seconds of all rounds, after which there are no more of them than the least.
    rounds : the least and the most of them.
    pause : seconds before each call, in which the workers of BLAS stop spinning for what came before it. A short call
        is then made once untimed, to wake the cores and to fill the caches.
    """
    budget, rounds = BUDGET if budget is None else budget, ROUNDS if rounds is None else rounds
    times: dict[Any, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    for number in range(rounds[1] + 1):
        for name, call in calls.items():
            if pause and number:
                time.sleep(pause)
                if times[name][-1] < WAKING:
                    finish(call())
            start = time.perf_counter()
            finish(call())
            times[name].append(time.perf_counter() - start)
        if number == 0:
            begin = time.perf_counter()
        elif number >= rounds[0] and time.perf_counter() - begin > budget:
            break
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def rates(works: list[Work], times: list[float], names: tuple[str, ...]) -> dict[str, float]:
    """Rates, none negative, whose predictions are nearest to the times, relative to each."""
    from scipy.optimize import nnls

    counts = np.array([[work[name] for name in names] for work in works], dtype=np.float64)
    scaled = counts / np.asarray(times)[:, None]
    units = np.max(scaled, axis=0)  # of very different sizes
    solution, _ = nnls(scaled / units, np.ones(len(times)))
    return dict(zip(names, (solution / units).tolist(), strict=True))
