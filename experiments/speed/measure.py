"""What is measured: seconds and bytes of one attention layer by length, interleaved."""

import functools
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from experiments.clocks import timed
from experiments.experiment import Cell, Record, Settings, Tables
from experiments.speed.layers import BACKWARD, EXACT, FORWARD, IDENTITY, WHOLE, Layer, linear_name


@dataclass(frozen=True)
class SpeedSettings(Settings):
    """Sizes: one head of `dim`, lengths for linear attention, and how far exact attention goes.

    num_cells : of the same timings, whose slopes are compared. num_rounds : interleaved, in each of them.
    """

    dim: int = 64
    num_features: tuple[int, ...] = (64, 256)
    lengths: tuple[int, ...] = tuple(2**k for k in range(8, 16))
    longest_exact: int = 2**13
    longest_whole: int = 2**12
    num_cells: int = 3
    num_rounds: int = 3


def cells(settings: SpeedSettings) -> list[Cell]:
    result: list[Cell] = [TimeCell(way, number) for number in range(settings.num_cells) for way in (FORWARD, BACKWARD)]
    return [*result, *(MemoryCell(direction) for direction in (FORWARD, BACKWARD))]


def methods(settings: SpeedSettings) -> dict[str, tuple[int, ...]]:
    """The lengths at which each method is measured."""
    limits = {EXACT: settings.longest_exact, WHOLE: settings.longest_whole}
    for causal in (False, True):
        for m in settings.num_features:
            limits[linear_name(m, is_causal=causal)] = settings.lengths[-1]
    limits[IDENTITY] = settings.lengths[-1]
    return {name: tuple(length for length in settings.lengths if length <= limit) for name, limit in limits.items()}


@functools.lru_cache(maxsize=1)
def layers(settings: SpeedSettings) -> dict[tuple[str, int], Layer]:
    """A layer for each method and length; kept, since JAX compiles them."""
    return {
        (method, length): Layer.of(
            method, length, settings.dim, settings.backend, rng=settings.rng("layer", method, length)
        )
        for method, lengths in methods(settings).items()
        for length in lengths
    }


@dataclass(frozen=True)
class TimeCell(Cell):
    """Times of all methods at all lengths, interleaved, so that a slope is not that of the weather."""

    direction: str
    number: int

    def measure(self, settings: SpeedSettings) -> Tables:
        """Rows of `times`, medians over the rounds; one thread where threads are ours to set."""
        calls = {
            f"{method}|{length}": layer.call(self.direction) for (method, length), layer in layers(settings).items()
        }
        with threadpool_limits(1):
            seconds = timed(calls, settings.num_rounds)
        rows: list[Record] = []
        for name, value in seconds.items():
            method, _, length = name.partition("|")
            row = {"direction": self.direction, "cell": self.number, "method": method, "length": int(length)}
            rows.append(row | {"wall": value.wall, "processor": value.processor})
        return {"times": rows}


@dataclass(frozen=True)
class MemoryCell(Cell):
    """Most bytes that a pass holds beyond its inputs, its outputs included, by the account of the backend."""

    direction: str

    def measure(self, settings: SpeedSettings) -> Tables:
        rows: list[Record] = []
        for (method, length), layer in layers(settings).items():
            with threadpool_limits(1):
                peak = peak_bytes(layer, self.direction)
            rows.append({"direction": self.direction, "method": method, "length": length, "bytes": peak})
        return {"memory": rows}


def peak_bytes(layer: Layer, direction: str) -> int:
    """NumPy: allocations that tracemalloc sees. PyTorch: its profiler. JAX: of the compiled program. CuPy: its pool."""
    if layer.backend == "jax":
        analysis = layer.compiled(direction).memory_analysis()
        return int(analysis.temp_size_in_bytes + analysis.output_size_in_bytes)
    call = layer.call(direction)
    call()  # what is made once and kept
    return {"numpy": traced, "torch": profiled, "cupy": pooled}[layer.backend](call)


def traced(call: Callable[[], Any]) -> int:
    """The peak of what Python and NumPy allocate during a call."""
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    call()
    peak = tracemalloc.get_traced_memory()[1] - before
    if not was_tracing:
        tracemalloc.stop()
    return peak


def profiled(call: Callable[[], Any]) -> int:
    """The peak of what PyTorch's CPU allocator gives out during a call: the largest sum of its events so far."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return int(peak)


def pooled(call: Callable[[], Any]) -> int:
    """What CuPy's memory pool had to take from the device for a call: its peak, up to blocks that do not fit."""
    import cupy

    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    before = pool.total_bytes()
    call()
    return int(pool.total_bytes() - before)
