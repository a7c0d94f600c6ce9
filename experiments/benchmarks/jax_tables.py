"""Attention on JAX arrays on a CPU: eager and compiled, against NumPy arrays and a plain implementation."""

import importlib.util
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from unittest import mock

import randfeat as rf
from experiments.benchmarks.goals import Goal, goal_table
from experiments.benchmarks.timing import Call, NotHere, Times, interleaved, medians, ratio
from experiments.benchmarks.workload import SHAPE, Workload
from experiments.results import Summary
from randfeat._hints import how_to_install
from randfeat.attention import executors

__all__ = ["chunked_favor", "jax_calls", "jax_tables", "plain_favor"]

JIT, EAGER, GENERIC = "randfeat, jit", "randfeat, eager", "randfeat, jit, generic pass"
HOST = "randfeat.integrations.jax, jit"
NUMPY, NAIVE = "randfeat, NumPy", "FAVOR+, plain jnp, jit"
LENGTHS, QUICK_LENGTHS = (1024, 4096, 16384), (1024,)
ROUNDS, QUICK_ROUNDS = 7, 3
CHUNK = 128

EAGER_OVER_NUMPY = 1.3
HOST_OVER_GENERIC = {(True, 4096): 0.5}
FIRST_CALL = 0.6  # seconds


def jax_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """Tables of times and of first calls, of the goals, and notes."""
    if not importlib.util.find_spec("jax"):
        raise NotHere(f"the benchmark jax needs JAX: {how_to_install('jax')}.")
    tables: list[Summary] = []
    goals: list[Goal] = []
    firsts: list[tuple[str, ...]] = []
    for is_causal in (False, True):
        columns: dict[int, Times] = {}
        for length in QUICK_LENGTHS if quick else LENGTHS:
            report(f"jax, {kind(is_causal)} attention, L = {length}")
            calls = jax_calls(Workload.of(length), is_causal=is_causal)
            first = {name: seconds(call) for name, call in calls.items()}
            columns[length] = interleaved(calls, QUICK_ROUNDS if quick else ROUNDS)
            firsts.append((f"{kind(is_causal)}, L={length}", *(f"{value:.2f}" for value in first.values())))
            for name, bound in ((HOST, FIRST_CALL), (JIT, None)):
                what = f"first call of {name}, {kind(is_causal)}, L={length}"
                goals.append(Goal(what, first[name], bound, at_least=False, unit="s"))
        tables.append(time_table(columns, is_causal=is_causal))
        goals += time_goals(columns, is_causal=is_causal)
    header = ("seconds", JIT, HOST, EAGER, NUMPY, GENERIC, NAIVE)
    first_table = Summary("First calls, which compile", header, tuple(firsts))
    notes = [
        "Each call waits for its result (`block_until_ready`). Arrays of JAX are on its CPU device.",
        f"`{HOST}`: its `dot_product_attention` on arrays of shape (B, L, H, d), with `host=True`, by which NumPy "
        "computes in a callback.",
    ]
    return [*tables, first_table, goal_table("Arrays of JAX: ours over others", goals)], notes


def kind(is_causal: bool) -> str:
    return "causal" if is_causal else "full"


def seconds(call: Call) -> float:
    """Time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def jax_calls(work: Workload, *, is_causal: bool) -> dict[str, Call]:
    """Calls of all contenders on the same numbers; a first call compiles, anew for each workload."""
    import jax

    from randfeat.integrations.jax import dot_product_attention

    jax.clear_caches()
    with jax.default_device(jax.devices("cpu")[0]):
        inputs = tuple(jax.numpy.asarray(x) for x in (work.query, work.key, work.value))
        rows = jax.numpy.asarray(work.rows)
    phi = work.features.to(inputs[0])

    def attend(q: Any, k: Any, v: Any) -> Any:
        return rf.linear_attention(q, k, v, phi, is_causal=is_causal)

    def generic(q: Any, k: Any, v: Any) -> Any:
        with mock.patch.object(executors, "EXECUTORS", executors.EXECUTORS[-1:]):  # while it is traced
            return attend(q, k, v)

    def by_host(q: Any, k: Any, v: Any) -> Any:
        return dot_product_attention(q, k, v, is_causal=is_causal, features=phi, host=True)

    def ready(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments).block_until_ready()

    lengths_first = tuple(jax.numpy.swapaxes(x, -3, -2) for x in inputs)
    naive = partial(chunked_favor, chunk=CHUNK) if is_causal else plain_favor
    return {
        JIT: partial(ready, jax.jit(attend), *inputs),
        HOST: partial(ready, jax.jit(by_host), *lengths_first),
        EAGER: partial(ready, attend, *inputs),
        NUMPY: partial(work.attend, is_causal=is_causal),
        GENERIC: partial(ready, jax.jit(generic), *inputs),
        NAIVE: partial(ready, jax.jit(naive), *inputs, rows),
    }


def features(x: Any, w: Any, *, keys: bool) -> Any:
    """`exp(w·x' - |x'|²/2 - top)`, x' = x/d^(1/4); top: maximum for each query, or over all keys."""
    from jax import numpy as jnp

    x = x * x.shape[-1] ** -0.25
    log = x @ w.T - (x * x).sum(-1, keepdims=True) / 2
    return jnp.exp(log - log.max((-2, -1) if keys else -1, keepdims=True))


def plain_favor(q: Any, k: Any, v: Any, w: Any) -> Any:
    """Linear attention with positive features, written plainly."""
    queries, keys = features(q, w, keys=False), features(k, w, keys=True)
    total = queries @ keys.sum(-2)[..., None]
    return queries @ (keys.mT @ v) / total


def chunked_favor(q: Any, k: Any, v: Any, w: Any, *, chunk: int) -> Any:
    """Causal linear attention: weights within chunks, prefix sums over them.

    Its single maximum over all keys leaks the future.
    """
    from jax import numpy as jnp

    queries, keys = features(q, w, keys=False), features(k, w, keys=True)
    queries, keys, values = (x.reshape(*x.shape[:-2], -1, chunk, x.shape[-1]) for x in (queries, keys, v))
    values = jnp.concatenate([values, jnp.ones_like(values[..., :1])], axis=-1)
    states = keys.mT @ values
    before = jnp.cumsum(states, axis=-3) - states
    output = jnp.tril(queries @ keys.mT) @ values + queries @ before
    return (output[..., :-1] / output[..., -1:]).reshape(v.shape)


def time_table(columns: Mapping[int, Times], *, is_causal: bool) -> Summary:
    """Our compiled time in milliseconds, and the time of each contender relative to it."""
    rows: list[tuple[str, ...]] = [(f"{JIT} [ms]", *(f"{1e3 * medians(times)[JIT]:.1f}" for times in columns.values()))]
    for name in (HOST, EAGER, NUMPY, GENERIC, NAIVE):
        rows.append((name, *(f"{ratio(times, name, JIT).value:.2f}" for times in columns.values())))
    header = ("contender", *(f"L={length}" for length in columns))
    title = f"{kind(is_causal).capitalize()} attention of JAX arrays, {SHAPE}: time over ours, compiled"
    return Summary(title, header, tuple(rows), sections=(1,))


def time_goals(columns: Mapping[int, Times], *, is_causal: bool) -> list[Goal]:
    """Goals for our times over those of the NumPy call, of the generic pass, and of plain code."""
    goals = []
    for length, times in columns.items():
        for ours, other, bound in (
            (EAGER, NUMPY, EAGER_OVER_NUMPY),
            (HOST, GENERIC, HOST_OVER_GENERIC.get((is_causal, length))),
            (JIT, GENERIC, None),
            (JIT, NAIVE, None),
        ):
            what = f"{ours} over {other}, {kind(is_causal)}, L={length}"
            goals.append(Goal(what, ratio(times, ours, other), bound, at_least=False))
    return goals
