"""Interleaved timings, A B C A B C ... in one process, so that all contenders run under the same conditions."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Call", "NotHere", "Ratio", "Times", "interleaved", "medians", "ratio"]

Call = Callable[[], object]
Times = Mapping[str, Sequence[float]]

PAUSE = 0.15  # seconds: workers of BLAS and OpenMP spin for about 0.1 s after a call and would slow the next contender
AWAKE = 1.0  # seconds of a call from which the core is awake, and the caches are full, for nearly all of it
LONGEST = 4.0  # seconds of a first call from which fewer rounds have to do
FEW_ROUNDS = 3


class NotHere(RuntimeError):
    """Something that a benchmark needs is missing on this machine; the message says what."""


def interleaved(
    contenders: Mapping[str, Call],
    rounds: int,
    *,
    pause: float = PAUSE,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, list[float]]:
    """Seconds of every call, by contender: two warm-up calls each, then `rounds` rounds over all of them.

    Each timed call follows a pause and an untimed call, which wakes the cores and fills the caches after the pause;
    calls of a second need none. A contender whose second call takes long runs in the first three rounds only.
    """

    def seconds(call: Call, *, warm: bool) -> float:
        sleep(pause)
        if warm:
            call()
        start = clock()
        call()
        return clock() - start

    first = {}
    for name, call in contenders.items():
        call()  # compiles, and touches its memory
        first[name] = seconds(call, warm=False)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, call in contenders.items():
            if number < FEW_ROUNDS or first[name] < LONGEST:
                times[name].append(seconds(call, warm=first[name] < AWAKE))
    return times


def medians(times: Times) -> dict[str, float]:
    """Median seconds of each contender."""
    return {name: statistics.median(values) for name, values in times.items()}


@dataclass(frozen=True)
class Ratio:
    """Median time of one contender over that of another, with the quartiles of the ratio over rounds."""

    value: float
    low: float
    high: float


def ratio(times: Times, over: str, under: str) -> Ratio:
    """Ratio of the times of two contenders, `over` divided by `under`."""
    value = statistics.median(times[over]) / statistics.median(times[under])
    each = [
        above / below for above, below in zip(times[over], times[under], strict=False)
    ]  # rounds that both took part in
    if len(each) < 2:
        return Ratio(value, each[0], each[0])
    low, _, high = statistics.quantiles(each, n=4, method="inclusive")
    return Ratio(value, low, high)
