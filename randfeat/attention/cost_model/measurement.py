"""Rates of the machine at hand, from timed calls of attention."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import Array, as_floating, compiled, finish, host_to
from randfeat.attention.cost_model.work import exact_work, linear_work
from randfeat.attention.exact import kernel_attention
from randfeat.attention.executors import attend
from randfeat.attention.problem import Problem, checked
from randfeat.attention.relations.work import Work
from randfeat.estimators import PositiveFeatures
from randfeat.maps import FeatureMap

BUDGET = 0.8  # seconds for all rounds
ROUNDS = (3, 15)  # the least and the most of them
WAKING = 0.2  # seconds of a call from which it matters little that cores are asleep when it begins
EXACT = ("exact_call", "exact_pair", "exact_pair_dim", "exact_pass")
LINEAR = ("linear_call", "linear_head", "feature", "feature_dim", "causal_feature")


@dataclass(frozen=True)
class Call:
    """Sizes of one timed call: number of heads, length, and the factor that divides all dimensions."""

    heads: int
    length: int
    shrink: int = 1
    is_causal: bool = False
    is_generic: bool = False
    """With biases of zero: the same numbers, by the pass that takes all relations."""
    has_bias: bool = False


EXACT_CALLS = (Call(1, 32), Call(2, 512), Call(2, 512, shrink=4), Call(6, 512, is_causal=True), Call(8, 512))
LINEAR_CALLS = (
    Call(1, 64), Call(8, 64), Call(2, 512), Call(2, 512, shrink=4), Call(6, 512, is_causal=True), Call(1, 1024),
)  # fmt: skip
GENERIC = (Call(2, 512, is_generic=True), Call(6, 512, is_generic=True, is_causal=True))
BIAS = Call(1, 64, shrink=4, has_bias=True)


def seconds(rates: Mapping[str, float], work: Work) -> float:
    """The time of this work: every rate times how often it is paid."""
    return sum(rates[name] * count for name, count in work.items())


def measured_rates(
    like: Any, dim: int, value_dim: int, num_features: int, num_threads: int | None = None, pause: float = 0.0
) -> dict[str, float]:
    """`AttentionCosts.measure`, by name; num_threads as in `linear_attention`, pause as in `interleaved`."""
    like = as_floating(like, "like")
    timed = {
        **{("exact", call): TimedCall.of(call, like, dim, value_dim, None) for call in EXACT_CALLS},
        **{("linear", call): TimedCall.of(call, like, dim, value_dim, num_features, num_threads)
           for call in (*LINEAR_CALLS, *GENERIC, BIAS)},
    }  # fmt: skip
    times = interleaved({name: one.run for name, one in timed.items()}, pause=pause)

    def fitted(method: str, calls: tuple[Call, ...], names: tuple[str, ...]) -> dict[str, float]:
        return fitted_rates(
            [timed[method, call].work for call in calls], [times[method, call] for call in calls], names
        )

    found = fitted("exact", EXACT_CALLS, EXACT) | fitted("linear", LINEAR_CALLS, LINEAR)

    def predicted(call: Call) -> float:
        return seconds(found | {"transform": 0.0}, timed["linear", call].work)

    generic, generic_causal = (max(times["linear", call] / predicted(call), 1.0) for call in GENERIC)
    transform = max(times["linear", BIAS] / generic - predicted(BIAS), 0.0) / timed["linear", BIAS].work["transform"]
    return found | {"transform": transform, "generic": generic, "generic_causal": generic_causal}


@dataclass(frozen=True, eq=False)
class TimedCall:
    """A call of attention on inputs of its own, ready to be timed, and its work."""

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
    ) -> "TimedCall":
        """The call as a function without arguments; exact attention if num_features is None."""
        rng = np.random.default_rng(0)
        sizes = [max(size // call.shrink, 1) for size in (dim, dim, value_dim)]
        query, key, value = (host_to(rng.standard_normal((call.heads, call.length, size)), like) for size in sizes)
        options: dict[str, Any] = {"is_causal": call.is_causal}
        if call.is_generic:
            options["key_bias"] = host_to(np.zeros(call.length), like)
        if call.has_bias:
            options["relative_bias"] = host_to(np.zeros(2 * call.length - 1), like)
        kernel = PositiveFeatures().kernel
        if num_features is None:
            work = exact_work(*checked(query, key, value, kernel, **options))
            function = compiled(lambda q, k, v: kernel_attention(q, k, v, kernel, **options), like)
        else:
            num_features = max(num_features // call.shrink, 1) if call.has_bias else num_features
            phi = PositiveFeatures().draw(sizes[0], num_features, rng=0, like=query)
            work = linear_work(Problem.of(query, key, value, phi, **options))
            function = compiled(linear_of(phi, options | {"num_threads": num_threads}), like)
        return cls(lambda: function(query, key, value), work)


def linear_of(phi: FeatureMap, options: dict[str, Any]) -> Callable[..., Array]:
    """`linear_attention` as a function of the inputs alone, without the choice of a method."""

    def function(query: Array, key: Array, value: Array) -> Array:
        problem = Problem.of(query, key, value, phi, **options)
        return problem.restore(*attend(problem))

    return function


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


def fitted_rates(works: list[Work], times: list[float], names: tuple[str, ...]) -> dict[str, float]:
    """Rates, none negative, whose predictions are nearest to the times, relative to each."""
    from scipy.optimize import nnls

    counts = np.array([[work[name] for name in names] for work in works], dtype=np.float64)
    scaled = counts / np.asarray(times)[:, None]
    units = np.max(scaled, axis=0)  # of very different sizes
    solution, _ = nnls(scaled / units, np.ones(len(times)))
    return dict(zip(names, (solution / units).tolist(), strict=True))
