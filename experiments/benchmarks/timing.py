"""Interleaved timings: A B C A B C ... in one process, so that all contenders meet the same weather."""

import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["NotHere", "interleaved", "medians"]

PAUSE = 0.15  # seconds: workers of BLAS and OpenMP spin for about 0.1 s after a call and would slow the next contender
LONGEST = 4.0  # seconds of a first call from which fewer rounds have to do


class NotHere(RuntimeError):
    """What a benchmark needs is not on this machine; the message says what."""


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, *, pause: float = PAUSE
) -> dict[str, list[float]]:
    """Seconds of every call, by contender: one call each to warm up, then `rounds` rounds over all of them.

    A contender whose call takes long takes part in the first three rounds only.
    """
    first = {}
    for name, call in contenders.items():
        call()  # compiles, and touches its memory
        time.sleep(pause)
        first[name] = seconds(call)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, call in contenders.items():
            if number < 3 or first[name] < LONGEST:
                time.sleep(pause)
                times[name].append(seconds(call))
    return times


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each contender."""
    return {name: statistics.median(values) for name, values in times.items()}
