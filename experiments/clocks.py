"""Wall time and processor time of the same calls, interleaved."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from experiments.benchmarks.timing import interleaved


@dataclass(frozen=True)
class Seconds:
    """Medians of one contender."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Clocked:
    """A call that keeps the processor time of each of its calls, all threads of this process together."""

    call: Callable[[], object]
    spent: list[float] = field(default_factory=list)

    def __call__(self) -> object:
        """The call."""
        start = time.process_time()
        result = self.call()
        self.spent.append(time.process_time() - start)
        return result


def timed(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Seconds]:
    """Medians over `rounds` interleaved rounds, without pauses: meant for calls in one thread.

    Wall time includes waiting for other processes, and long calls wait for a larger share of their time than short
    ones do. Processor time does not, and on an idle machine both agree.
    """
    clocked = {name: Clocked(call) for name, call in contenders.items()}
    times = interleaved(clocked, rounds, pause=0.0)
    return {
        name: Seconds(statistics.median(walls), statistics.median(clocked[name].spent[-len(walls) :]))
        for name, walls in times.items()
    }


def log_slope(sizes: list[int], seconds: list[float]) -> float:
    """The least-squares slope of log time over log size; NaN for fewer than two sizes."""
    if len(sizes) < 2:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
