"""What the numbers of speed say: growth with the length, and where lines cross."""

import math
import statistics

from experiments.clocks import log_slope
from experiments.experiment import Record, Summary, Tables, Verdict, reported
from experiments.speed.layers import BACKWARD, EXACT, FORWARD, IDENTITY, WHOLE, linear_name
from experiments.speed.measure import SpeedSettings, methods
from experiments.tables import select

SLOPE_FROM = 1024  # tokens; below, what is linear in exact attention shows, and the cost of a call
LAST = 4  # lengths that a slope is fitted to, at most
FEWEST = 3
LINEAR, QUADRATIC = 1.25, 1.6  # a slope below, above this
MEMORY_LINEAR, MEMORY_QUADRATIC = 1.1, 1.8  # bytes do not wander


def clock_of(backend: str) -> str:
    """Processor time is not disturbed by other processes; of a device only wall time is known."""
    return "wall" if backend == "cupy" else "processor"


def rows_of(tables: Tables, table: str, method: str, direction: str) -> list[Record]:
    rows = select(tables[table], method=method, direction=direction)
    return sorted(rows, key=lambda row: row["length"])


def slopes(tables: Tables, method: str, direction: str, clock: str) -> tuple[list[float], list[int]]:
    """A slope for each cell, whose times were interleaved, and the lengths that it is fitted to."""
    rows = rows_of(tables, "times", method, direction)
    lengths = sorted({row["length"] for row in rows if row["length"] >= SLOPE_FROM})[-LAST:]
    result = []
    for cell in sorted({row["cell"] for row in rows}):
        times = {row["length"]: row[clock] for row in rows if row["cell"] == cell}
        result.append(log_slope(lengths, [times[length] for length in lengths]))
    return result, lengths


def medians_by_length(tables: Tables, method: str, direction: str, clock: str) -> dict[int, float]:
    times: dict[int, list[float]] = {}
    for row in rows_of(tables, "times", method, direction):
        times.setdefault(row["length"], []).append(row[clock])
    return {length: statistics.median(values) for length, values in times.items()}


def crossing(slow: dict[int, float], fast: dict[int, float]) -> float:
    """The length from which `fast` is faster, to the longest that both have; by interpolation of logarithms.

    The shortest length if it is faster everywhere, infinity if it is not at the longest.
    """
    lengths = sorted(set(slow) & set(fast))
    gaps = [math.log(slow[length] / fast[length]) for length in lengths]
    if gaps[-1] <= 0:
        return math.inf
    last = max((i for i, gap in enumerate(gaps) if gap <= 0), default=None)
    if last is None:
        return float(lengths[0])
    share = -gaps[last] / (gaps[last + 1] - gaps[last])
    return float(lengths[last] * (lengths[last + 1] / lengths[last]) ** share)


def verdicts(tables: Tables, settings: SpeedSettings) -> list[Verdict]:
    linear = [linear_name(m, is_causal=causal) for causal in (False, True) for m in settings.num_features]
    result = []
    for direction in (FORWARD, BACKWARD):
        for method in [*linear, IDENTITY, EXACT]:
            result.append(time_verdict(tables, settings, method, direction))
    for direction in (FORWARD, BACKWARD):
        result += [memory_verdict(tables, method, direction) for method in [*linear, EXACT, WHOLE]]
    for direction in (FORWARD, BACKWARD):
        result += [crossing_verdict(tables, settings, m, direction) for m in settings.num_features]
    return result


def time_verdict(tables: Tables, settings: SpeedSettings, method: str, direction: str) -> Verdict:
    clock = clock_of(settings.backend)
    each, lengths = slopes(tables, method, direction, clock)
    wall = slopes(tables, method, direction, "wall")[0]
    quadratic = method == EXACT
    slope = statistics.median(each)
    enough = len(lengths) >= FEWEST and not settings.quick  # a claim on times of few calls would be noise
    bound = f"above {QUADRATIC:g}: quadratic" if quadratic else f"below {LINEAR:g}: linear"
    return Verdict(
        claim=f"{method}, {direction}: growth of the time with the length",
        expected=f"log-log slope {bound}"
        if enough
        else f"nothing claimed in quick runs, or for fewer than {FEWEST} lengths",
        measured=f"{slope:.2f} ({min(each):.2f} .. {max(each):.2f} in {len(each)} cells) in {clock} time, "
        f"{statistics.median(wall):.2f} in wall time; L = {span(lengths)}",
        holds=(slope > QUADRATIC if quadratic else slope < LINEAR) if enough else None,
    )


def span(lengths: list[int]) -> str:
    return f"{lengths[0]} .. {lengths[-1]}" if lengths else "none"


def memory_verdict(tables: Tables, method: str, direction: str) -> Verdict:
    """Growth of the memory; exact attention in blocks is no claim of the paper."""
    rows = [row for row in rows_of(tables, "memory", method, direction) if row["length"] >= SLOPE_FROM][-LAST:]
    lengths = [row["length"] for row in rows]
    slope = log_slope(lengths, [row["bytes"] for row in rows])
    bounds = {EXACT: "nothing claimed", WHOLE: f"log-log slope above {MEMORY_QUADRATIC:g}: quadratic"}
    holds = {EXACT: None, WHOLE: slope > MEMORY_QUADRATIC}
    known = len(rows) >= 2 or method == EXACT
    largest = f"; {rows[-1]['bytes'] / 2**20:.1f} MiB at L = {lengths[-1]}" if rows else ""
    return Verdict(
        claim=f"{method}, {direction}: growth of the memory with the length",
        expected=bounds.get(method, f"log-log slope below {MEMORY_LINEAR:g}: linear")
        if known
        else "nothing claimed for one length",
        measured=f"{slope:.2f}, L = {span(lengths)}{largest}",
        holds=holds.get(method, slope < MEMORY_LINEAR) if known else None,
    )


def crossing_verdict(tables: Tables, settings: SpeedSettings, num_features: int, direction: str) -> Verdict:
    """Where full linear attention becomes faster than exact attention."""
    clock = clock_of(settings.backend)
    linear = linear_name(num_features, is_causal=False)
    slow, fast = (medians_by_length(tables, method, direction, clock) for method in (EXACT, linear))
    length = crossing(slow, fast)
    return reported(
        f"length from which {linear}, is faster than exact attention, {direction}",
        f"L = {length:.0f}" if math.isfinite(length) else f"beyond L = {max(slow)}",
        expected=f"nothing claimed; as many products and exponentials at L = 2m = {2 * num_features}",
    )


def summaries(tables: Tables, settings: SpeedSettings) -> list[Summary]:
    clock = clock_of(settings.backend)
    result = []
    header = ("", *(f"L={length}" for length in settings.lengths))
    for direction in (FORWARD, BACKWARD):
        times, memory = [], []
        for method in methods(settings):
            seconds = medians_by_length(tables, method, direction, clock)
            times.append((method, *written(seconds, settings, 1e3)))
            held = {row["length"]: row["bytes"] for row in rows_of(tables, "memory", method, direction)}
            memory.append((method, *written(held, settings, 2.0**-20)))
        result += [
            Summary(f"{direction}: milliseconds of {clock} time", header, tuple(times)),
            Summary(f"{direction}: mebibytes at the peak", header, tuple(memory)),
        ]
    return result


def written(values: dict[int, float], settings: SpeedSettings, factor: float) -> list[str]:
    return [f"{factor * values[length]:.3g}" if length in values else "-" for length in settings.lengths]
