"""Compressed attention against exact attention: clusters, caches and causal streams, by length and threads."""

import contextlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import randfeat as rf
from experiments.benchmarks.goals import Goal, goal_table
from experiments.benchmarks.timing import PAUSE, Call, Times, interleaved, medians, ratio
from experiments.results import Summary

__all__ = ["compressed_tables"]

HEADS, DIM = 12, 32
LENGTHS, QUICK_LENGTHS = (1024, 4096, 16384), (512,)
ROUNDS, QUICK_ROUNDS = 7, 1
CLUSTERS, KEYS = (5, 11, 21), (16, 32, 64)
STREAMS = ((32, 32), (64, 64), (64, 256))  # rows of the cache, and window
EXACT, SDPA = "exact", "torch SDPA"
GOALS = {("clustered C=21", 4096): 4.0, ("clustered C=21", 16384): 18.0,
         ("cache D=64, made and read", 4096): 7.0, ("cache D=64, made and read", 16384): 25.0}  # fmt: skip
"""Time of exact attention over that of a contender, by length; on one thread, and so on all of them."""


def compressed_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """Tables of times by length, on one thread, full and causal, and on two, full; and the goals; no notes."""
    lengths, rounds = (QUICK_LENGTHS, QUICK_ROUNDS) if quick else (LENGTHS, ROUNDS)
    tables, goals = [], []
    for num_threads in (1, 2):
        with on_threads(num_threads):
            for is_causal in (False, True) if num_threads == 1 else (False,):
                kind = "causal" if is_causal else "full"
                report(f"compressed: {kind}, {num_threads} threads, L = {', '.join(map(str, lengths))}")
                times: dict[int, Times] = {length: measured(length, rounds, is_causal=is_causal) for length in lengths}
                tables.append(table(times, f"{kind}, {num_threads} threads"))
                goals += [] if is_causal else goals_of(times, num_threads)
    return [*tables, goal_table("Compressed attention", goals)], []


@contextlib.contextmanager
def on_threads(number: int) -> Iterator[None]:
    """So many threads for NumPy, for randfeat and for PyTorch."""
    before = os.environ.get("RANDFEAT_NUM_THREADS")
    os.environ["RANDFEAT_NUM_THREADS"] = str(number)
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    torch_before = torch.get_num_threads() if torch else 0
    if torch:
        torch.set_num_threads(number)
    try:
        with threadpool_limits(number):
            yield
    finally:
        if torch:
            torch.set_num_threads(torch_before)
        del os.environ["RANDFEAT_NUM_THREADS"]
        if before is not None:
            os.environ["RANDFEAT_NUM_THREADS"] = before


def head_like(length: int) -> list[np.ndarray]:
    """query, key and value of 12 heads, float32: points near a plane of 3 dimensions, as of trained heads."""
    rng = np.random.default_rng(0)
    basis = 1.5 * rng.standard_normal((HEADS, 3, DIM)) / np.sqrt(3)
    sides = [rng.standard_normal((HEADS, length, 3)) @ basis for _ in range(2)]
    noisy = [x + 0.3 * rng.standard_normal(x.shape) for x in sides]
    return [x.astype(np.float32) for x in (*noisy, rng.standard_normal((HEADS, length, DIM)))]


def measured(
    length: int, rounds: int, *, is_causal: bool, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of all contenders at one length."""
    arrays = head_like(length)
    return interleaved(causal_calls(*arrays) if is_causal else full_calls(*arrays), rounds, pause=PAUSE, clock=clock)


def full_calls(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> dict[str, Call]:
    """Exact attention, clusters, and caches: made and read in one call, made with a fit, and read."""
    calls: dict[str, Call] = {EXACT: partial(rf.softmax_attention, query, key, value)}
    calls |= sdpa(query, key, value, is_causal=False)
    for number in CLUSTERS:
        calls[f"clustered C={number}"] = partial(rf.clustered_attention, query, key, value, num_clusters=number)
    for number in KEYS:
        cache = rf.compress(key, value, num_keys=number, queries=query, fit=False)
        calls[f"cache D={number}, made and read"] = partial(rf.compressed_attention, query, key, value, num_keys=number)
        calls[f"cache D={number}, read"] = partial(read, cache, query)
        calls[f"cache D={number}, made with a fit"] = partial(rf.compress, key, value, num_keys=number, queries=query)
    return calls


def causal_calls(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> dict[str, Call]:
    """Exact causal attention, and streams."""
    calls: dict[str, Call] = {EXACT: partial(rf.softmax_attention, query, key, value, is_causal=True)}
    calls |= sdpa(query, key, value, is_causal=True)
    for num_keys, window in STREAMS:
        calls[f"stream D={num_keys}, w={window}"] = partial(
            rf.compressed_attention, query, key, value, is_causal=True, num_keys=num_keys, window=window
        )
    return calls


def sdpa(query: np.ndarray, key: np.ndarray, value: np.ndarray, *, is_causal: bool) -> dict[str, Call]:
    """PyTorch's exact attention, if it is installed."""
    if not importlib.util.find_spec("torch"):
        return {}
    torch = importlib.import_module("torch")
    tensors = [torch.from_numpy(x)[None] for x in (query, key, value)]
    return {SDPA: partial(torch.nn.functional.scaled_dot_product_attention, *tensors, is_causal=is_causal)}


def read(cache: rf.KeyCache, query: np.ndarray) -> Any:
    """The outputs of queries that read a cache."""
    return cache.read(query).normalized()


def table(times: dict[int, Times], title: str) -> Summary:
    """Milliseconds of each contender, and how many of its calls exact attention takes."""
    found = {length: medians(each) for length, each in times.items()}
    names = list(next(iter(found.values())))
    rows = tuple(
        (name, *(f"{1e3 * each[name]:.1f} ({each[EXACT] / each[name]:.1f}x)" for each in found.values()))
        for name in names
    )
    title = f"{title}: milliseconds of {HEADS} heads, d={DIM}, and times as fast as exact attention"
    return Summary(title, ("attention", *(f"L={length}" for length in times)), rows)


def goals_of(times: dict[int, Times], num_threads: int) -> list[Goal]:
    """Exact attention, and that of PyTorch, over clusters and caches."""
    goals = []
    for (name, length), bound in GOALS.items():
        if length in times:
            what = f"exact over {name}, L={length}, {num_threads} threads"
            goals.append(Goal(what, ratio(times[length], EXACT, name), bound))
            if SDPA in times[length]:
                what = f"{SDPA} over {name}, L={length}, {num_threads} threads"
                goals.append(Goal(what, ratio(times[length], SDPA, name)))
    return goals
