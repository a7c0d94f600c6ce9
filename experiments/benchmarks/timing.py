"""Interleaved timings: A B C A B C ... in one process, so that all contenders meet the same weather."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Call", "NotHere", "Ratio", "Times", "interleaved", "medians", "ratio"]

Call = Callable[[], object]
Times = Mapping[str, Sequence[float]]

PAUSE = 0.15  # seconds: workers of BLAS and OpenMP spin for about 0.1 s after a call and would slow the next contender
LONGEST = 4.0  # seconds of a first call from which fewer rounds have to do
FEW_ROUNDS = 3


class NotHere(RuntimeError):
    """What a benchmark needs is not on this machine; the message says what."""


def interleaved(
    contenders: Mapping[str, Call],
    rounds: int,
    *,
    pause: float = PAUSE,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, list[float]]:
    """Seconds of every call, by contender: two calls each to warm up, then `rounds` rounds over all of them.

    Each timed call follows a pause and an untimed call: after a pause cores have gone to sleep, and caches hold what
    others left. A contender whose second call takes long takes part in the first three rounds only, without these.
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
                times[name].append(seconds(call, warm=first[name] < LONGEST))
    return times


def medians(times: Times) -> dict[str, float]:
    """The median of each contender."""
    return {name: statistics.median(values) for name, values in times.items()}


@dataclass(frozen=True)
class Ratio:
    """One contender's median time over another's, and the quartiles of that ratio, round by round."""

    value: float
    low: float
    high: float


def ratio(times: Times, over: str, under: str) -> Ratio:
    """How many times as long `over` takes as `under`."""
    value = statistics.median(times[over]) / statistics.median(times[under])
    each = [
        above / below for above, below in zip(times[over], times[under], strict=False)
    ]  # rounds that both took part in
    if len(each) < 2:
        return Ratio(value, each[0], each[0])
    low, _, high = statistics.quantiles(each, n=4, method="inclusive")
    return Ratio(value, low, high)
