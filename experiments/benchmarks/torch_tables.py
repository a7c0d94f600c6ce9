"""Attention on PyTorch tensors: times without and with gradients, and memory, against NumPy arrays and other code."""

from collections.abc import Callable, Mapping, Sequence

from experiments.benchmarks.goals import Goal, goal_table
from experiments.benchmarks.memory import MIB, probe
from experiments.benchmarks.peers import CHUNKED, COMPILED, IN_PLACE, PERFORMER, SDPA, missing
from experiments.benchmarks.timing import NotHere, Times, interleaved, medians, ratio
from experiments.benchmarks.torch_calls import (
    BOTH,
    FORWARD,
    GENERIC,
    NUMPY,
    forward_calls,
    gradient_calls,
    saved_bytes,
)
from experiments.benchmarks.workload import SHAPE, Workload
from experiments.results import Summary
from experiments.tables import Record
from randfeat._hints import how_to_install

__all__ = ["torch_tables"]

FIELDS: dict[bool, dict[int, tuple[str, ...]]] = {
    False: {
        1024: (NUMPY, SDPA, IN_PLACE),
        4096: (NUMPY, SDPA, IN_PLACE, COMPILED, PERFORMER),
        16384: (NUMPY,),
    },
    True: {
        1024: (NUMPY, SDPA, CHUNKED),
        4096: (NUMPY, SDPA, CHUNKED, COMPILED),
        16384: (NUMPY,),
    },
}
"""Who takes part without gradients, beside our call on tensors, by length. The table of `attention` has the others."""

DIFFERENTIATED = (1024, 4096)
QUICK_LENGTHS = (1024,)
PROBED, QUICK_PROBED = (4096, 131072), (4096,)
ROUNDS, QUICK_ROUNDS = 7, 3

# Largest ratios of our time on tensors.
OVER_NUMPY = 1.25
OVER_SDPA = {(False, 4096): 0.3, (True, 4096): 0.7}
OVER_GENERIC = {(False, 4096): 0.75, (True, 4096): 0.3}
SAVED = 1.2  # bytes kept for the backward pass, over those of the inputs
EXTRA = 64.0  # MiB beyond inputs and outputs, at the largest length


def torch_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """Tables of times without and with gradients, of memory and of the goals, and notes."""
    if missing(SDPA):
        raise NotHere(f"the benchmark torch needs PyTorch: {how_to_install('torch')}.")
    rounds = QUICK_ROUNDS if quick else ROUNDS
    tables: list[Summary] = []
    notes: list[str] = []
    goals: list[Goal] = []
    for is_causal, fields in FIELDS.items():
        forward: dict[int, Times] = {}
        both: dict[int, Times] = {}
        for length in QUICK_LENGTHS if quick else fields:
            work = Workload.of(length)
            report(f"torch, {kind(is_causal)} attention, L = {length}")
            contenders, remarks = forward_calls(fields[length], work, is_causal=is_causal)
            forward[length] = interleaved(contenders, rounds)
            notes += [note for note in remarks if note not in notes]
            if length in DIFFERENTIATED:
                report(f"torch, {kind(is_causal)} attention, L = {length}, forward and backward")
                both[length] = interleaved(gradient_calls(work, is_causal=is_causal), rounds)
        tables += [
            time_table(f"{kind(is_causal).capitalize()} attention of tensors", FORWARD, forward),
            time_table(f"{kind(is_causal).capitalize()} attention of tensors, both passes", BOTH, both),
        ]
        goals += time_goals(forward, both, is_causal=is_causal)
    records = memory_records(QUICK_PROBED if quick else PROBED, report)
    goals += memory_goals(records)
    return [*tables, memory_table(records), goal_table("Tensors: ours over others, and memory", goals)], notes


def kind(is_causal: bool) -> str:
    return "causal" if is_causal else "full"


def time_table(title: str, ours: str, columns: Mapping[int, Times]) -> Summary:
    """Our time in milliseconds, and the time of each contender relative to it; a dash where one takes no part."""
    names = dict.fromkeys(name for column in columns.values() for name in column if name != ours)
    rows = [(f"{ours} [ms]", *(f"{1e3 * medians(column)[ours]:.1f}" for column in columns.values()))]
    for name in names:
        entries = (f"{ratio(column, name, ours).value:.2f}" if name in column else "-" for column in columns.values())
        rows.append((name, *entries))
    header = ("contender", *(f"L={length}" for length in columns))
    return Summary(f"{title}, {SHAPE}: time over ours", header, tuple(rows), sections=(1,))


def time_goals(forward: Mapping[int, Times], both: Mapping[int, Times], *, is_causal: bool) -> list[Goal]:
    """Goals for our times over those of the NumPy call, of exact attention, and of the generic pass."""
    goals = []

    def add(what: str, times: Times, ours: str, other: str, bound: float | None) -> None:
        if other in times:
            goals.append(Goal(f"{what}, {kind(is_causal)}", ratio(times, ours, other), bound, at_least=False))

    for length, times in forward.items():
        add(f"over the NumPy call, L={length}", times, FORWARD, NUMPY, OVER_NUMPY)
        add(f"over SDPA, L={length}", times, FORWARD, SDPA, OVER_SDPA.get((is_causal, length)))
    for length, times in both.items():
        bound = OVER_GENERIC.get((is_causal, length))
        add(f"both passes, over the generic pass, L={length}", times, BOTH, GENERIC, bound)
        add(f"both passes, over SDPA, L={length}", times, BOTH, SDPA, None)
    return goals


def memory_records(lengths: Sequence[int], report: Callable[[str], None]) -> list[Record]:
    """Peaks in processes of their own: our passes at all lengths, exact attention without gradients at the first."""
    records = []
    for length in lengths:
        for name in (FORWARD, BOTH, *([SDPA] if length == lengths[0] else [])):
            for is_causal in FIELDS:
                report(f"torch, memory: {name}, {kind(is_causal)}, L = {length}")
                counted = name == BOTH and length == lengths[0]
                saved = saved_bytes(Workload.of(length), is_causal=is_causal) if counted else None
                records.append(probe(name, length, is_causal=is_causal) | {"saved": saved})
    return records


def inputs_bytes(record: Record) -> int:
    """Bytes of queries, keys and values, which are as large as the output."""
    return 3 * record["outputs"] // (4 if record["workload"] == BOTH else 1)


def memory_table(records: Sequence[Record]) -> Summary:
    """Peaks beyond inputs and outputs, and what is kept for the backward pass."""
    rows = []
    for record in records:
        extra, saved = record["extra"], record["saved"]
        rows.append(
            (
                f"{record['workload']}, {kind(record['is_causal'])}",
                str(record["length"]),
                f"{record['outputs'] / MIB:.0f}",
                "-" if extra is None else f"{extra / MIB:.1f}",
                "-" if saved is None else f"{saved / inputs_bytes(record):.2f}",
            )
        )
    header = ("what", "L", "outputs [MiB]", "beyond [MiB]", "saved for backward / inputs")
    return Summary(f"Memory with tensors: peak beyond inputs and outputs, {SHAPE}", header, tuple(rows))


def memory_goals(records: Sequence[Record]) -> list[Goal]:
    """Goals for our own passes: the peak at the largest length, and what is kept for the backward pass."""
    goals = []
    longest = max(record["length"] for record in records)
    for record in records:
        what = f"{record['workload']}, {kind(record['is_causal'])}, L={record['length']}"
        if record["workload"] != SDPA and record["length"] == longest:
            extra = None if record["extra"] is None else record["extra"] / MIB
            goals.append(Goal(f"beyond inputs and outputs, {what}", extra, EXTRA, False, unit="MiB", digits=0))
        if record["saved"] is not None:
            goals.append(Goal(f"saved over inputs, {what}", record["saved"] / inputs_bytes(record), SAVED, False))
    return goals
