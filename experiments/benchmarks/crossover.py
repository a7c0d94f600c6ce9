"""Length from which linear attention is faster than exact attention: measured, and predicted from the rates."""

import contextlib
import importlib.util
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import randfeat as rf
from experiments.benchmarks.timing import interleaved, medians
from experiments.results import Summary
from randfeat._numpy.cores import thread_ids

__all__ = ["crossover_tables"]

HEADS, DIM, FEATURES = 8, 64, 256
LENGTHS, QUICK_LENGTHS = (64, 128, 256, 512, 1024, 2048), (128, 512, 2048)
ROUNDS, QUICK_ROUNDS = 7, 3
PAUSE = 0.01  # on one core nobody spins
LIBRARIES = ("numpy", "torch", "jax")
DTYPES, QUICK_DTYPES = ("float32", "float64"), ("float32",)


def crossover_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """A table of crossing lengths on one core, and notes with the measured rates in the form of the source code."""
    lengths, rounds, dtypes = (QUICK_LENGTHS, QUICK_ROUNDS, QUICK_DTYPES) if quick else (LENGTHS, ROUNDS, DTYPES)
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    with one_core():
        for library in LIBRARIES:
            if not importlib.util.find_spec(library):
                notes.append(f"{library} is left out: not installed")
                continue
            for dtype in dtypes:
                report(f"{library}, {dtype}: rates")
                make, wrap = tools(library, dtype)
                costs = rf.AttentionCosts.measure(make(np.zeros(1)), DIM, DIM, FEATURES)
                notes.append(
                    f'("{library}", "{dtype}"): AttentionCosts({", ".join(f"{rate:.2g}" for rate in astuple(costs))}),'
                )
                for is_causal in (False, True):
                    report(f"{library}, {dtype}, {'causal' if is_causal else 'full'}")
                    ratios = {length: ratio(length, make, wrap, rounds, is_causal=is_causal) for length in lengths}
                    shipped = rf.AttentionCosts.of(library, dtype)
                    predicted = (crossing(predictions(rates, is_causal=is_causal)) for rates in (shipped, costs))
                    rows.append((
                        f"{library} {dtype} {'causal' if is_causal else 'full'}",
                        crossing(ratios),
                        *predicted,
                        *(f"{value:.2f}" for value in ratios.values()),
                    ))  # fmt: skip
    title = (
        f"Crossing lengths of exact and linear attention: measured, and by rates; then time of exact over linear at L; "
        f"one core, H={HEADS} d={DIM} m={FEATURES}"
    )
    header = ("", "measured", "shipped", "own rates", *(f"L={length}" for length in lengths))
    return [Summary(title, header, tuple(rows))], notes


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Bind this process to a single core, as for the rates that are shipped."""
    if not hasattr(os, "sched_setaffinity"):
        with threadpool_limits(1):
            yield
        return
    before = {thread: os.sched_getaffinity(thread) for thread in (0, *thread_ids())}
    core = {max(before[0])}
    bind(dict.fromkeys(before, core))
    try:
        with threadpool_limits(1):
            yield
    finally:
        bind(before)


def bind(cores: dict[int, set[int]]) -> None:
    """Bind threads, by their numbers, to cores; 0 is the calling thread."""
    for thread, mask in cores.items():
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(thread, mask)


def tools(library: str, dtype: str) -> tuple[Callable[[np.ndarray], Any], Callable[[Any], Any]]:
    """Two functions of an array library: one makes arrays, the other compiles a function for repeated calls."""
    if library == "numpy":
        return lambda x: x.astype(dtype), lambda function: function
    if library == "torch":
        import torch

        torch.set_num_threads(1)
        return lambda x: torch.from_numpy(x.astype(dtype)), lambda function: function
    import jax

    jax.config.update("jax_enable_x64", True)

    def waiting(function: Any) -> Any:
        compiled = jax.jit(function)
        return lambda *inputs: compiled(*inputs).block_until_ready()

    return lambda x: jax.numpy.asarray(x.astype(dtype)), waiting


def ratio(length: int, make: Callable, wrap: Callable, rounds: int, *, is_causal: bool) -> float:
    """Time of exact attention over time of linear attention."""
    rng = np.random.default_rng(0)
    inputs = [make(rng.standard_normal((HEADS, length, DIM))) for _ in range(3)]
    phi = rf.PositiveFeatures().draw(DIM, FEATURES, rng=0, like=inputs[0])

    def call(method: str) -> Callable[[], object]:
        run = wrap(lambda q, k, v: rf.linear_attention(q, k, v, phi, is_causal=is_causal, method=method))
        return lambda: run(*inputs)

    times = medians(interleaved({method: call(method) for method in ("linear", "exact")}, rounds, pause=PAUSE))
    return times["exact"] / times["linear"]


def predictions(costs: rf.AttentionCosts, *, is_causal: bool) -> dict[int, float]:
    """Predicted ratio of exact to linear time, by length."""
    phi = rf.PositiveFeatures().draw(DIM, FEATURES, rng=0)
    ratios = {}
    for length in range(32, 8193, 32):
        x = np.broadcast_to(0.0, (HEADS, length, DIM))
        found = rf.attention_method(x, x, x, phi, is_causal=is_causal, costs=costs)
        ratios[length] = found.exact_seconds / found.linear_seconds
    return ratios


def crossing(ratios: dict[int, float]) -> str:
    """Length at which the ratio passes 1 for the last time, interpolated between the measured lengths."""
    lengths = list(ratios)
    for before, after in zip(reversed(lengths[:-1]), reversed(lengths[1:]), strict=True):
        low, high = math.log(ratios[before]), math.log(ratios[after])
        if low < 0 <= high:
            return f"{before * (after / before) ** (-low / (high - low)):.0f}"
    return f"< {lengths[0]}" if ratios[lengths[0]] >= 1 else f"> {lengths[-1]}"
