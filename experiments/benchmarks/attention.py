"""Forward time of linear attention on the CPU, against exact attention and other linear attentions."""

from collections.abc import Callable, Mapping
from functools import partial
from unittest import mock

from experiments.benchmarks.goals import Goal, goal_table
from experiments.benchmarks.peers import CHUNKED, COMPILED, IN_PLACE, PERFORMER, PLAIN, SDPA, torch_peers
from experiments.benchmarks.timing import Call, Times, interleaved, medians, ratio
from experiments.benchmarks.workload import SHAPE, Workload
from experiments.results import Summary
from randfeat.attention import executors

__all__ = ["attention_tables"]

OURS, GENERIC = "randfeat", "randfeat, generic pass"
ROUNDS, QUICK_ROUNDS = 7, 3

FIELDS: dict[bool, dict[int, tuple[str, ...]]] = {
    False: {
        512: (SDPA,),
        1024: (SDPA, PLAIN, IN_PLACE, COMPILED, PERFORMER, GENERIC),
        4096: (SDPA, PLAIN, IN_PLACE, COMPILED, PERFORMER, GENERIC),
        16384: (SDPA, PLAIN, IN_PLACE, COMPILED, PERFORMER),
    },
    True: {
        1024: (SDPA, CHUNKED, GENERIC),
        2048: (SDPA, CHUNKED, PERFORMER),  # performer-pytorch takes tens of times as long: one moderate length
        4096: (SDPA, CHUNKED, COMPILED, GENERIC),
        16384: (SDPA, CHUNKED, COMPILED),
    },
}
"""Who takes part, beside our own fast pass, for full and for causal attention, by length."""

QUICK_LENGTHS = (512, 1024)

BOUNDS: dict[bool, dict[tuple[str, int], float | None]] = {
    False: {
        (PLAIN, 1024): None,
        (PLAIN, 4096): 4.0,
        (PLAIN, 16384): 4.5,
        (IN_PLACE, 4096): None,
        (IN_PLACE, 16384): None,
        (COMPILED, 1024): None,
        (COMPILED, 4096): 1.8,
        (COMPILED, 16384): 2.0,
        (PERFORMER, 1024): None,
        (PERFORMER, 4096): 5.0,
        (PERFORMER, 16384): 5.0,
        (SDPA, 512): None,
        (SDPA, 1024): 1.0,
    },
    True: {
        (CHUNKED, 4096): None,
        (CHUNKED, 16384): 3.0,
        (COMPILED, 16384): None,
        (PERFORMER, 2048): 40.0,
        (SDPA, 1024): None,
        (SDPA, 2048): 1.0,
    },
}
"""How many times our time each should take at the least; None where it is only reported."""


def attention_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """Tables for full and for causal attention, a table of goals, and notes."""
    tables: list[Summary] = []
    notes: list[str] = []
    goals: list[Goal] = []
    for is_causal, fields in FIELDS.items():
        columns: dict[int, Times] = {}
        for length, names in fields.items():
            if quick and length not in QUICK_LENGTHS:
                continue
            report(f"{kind(is_causal)} attention, L = {length}")
            contenders, remarks = field(names, length, is_causal=is_causal)
            columns[length] = interleaved(contenders, QUICK_ROUNDS if quick else ROUNDS)
            notes += [note for note in remarks if note not in notes]
        tables.append(table(columns, is_causal=is_causal))
        goals += attention_goals(columns, is_causal=is_causal)
    return [*tables, goal_table("Forward: time of others over that of randfeat", goals)], notes


def kind(is_causal: bool) -> str:
    return "causal" if is_causal else "full"


def field(names: tuple[str, ...], length: int, *, is_causal: bool) -> tuple[dict[str, Call], list[str]]:
    """Calls of all contenders at one length, ours first, and notes on contenders that are missing."""
    work = Workload.of(length)
    ours = partial(work.attend, is_causal=is_causal)

    def generic() -> object:
        with mock.patch.object(executors, "EXECUTORS", executors.EXECUTORS[-1:]):
            return ours()

    own: dict[str, Call] = {OURS: ours}
    if GENERIC in names:
        own[GENERIC] = generic
    peers, notes = torch_peers([name for name in names if name != GENERIC], work, is_causal=is_causal)
    return {**own, **peers}, notes


def table(columns: Mapping[int, Times], *, is_causal: bool) -> Summary:
    """Time of each contender relative to ours, and our time in milliseconds; a dash for a missing contender."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column if name != OURS))
    ours = (f"{1e3 * medians(column)[OURS]:.1f}" for column in columns.values())
    rows: list[tuple[str, ...]] = [(f"{OURS} [ms]", *ours)]
    for name in names:
        rows.append((name, *(ratio_text(column, name) for column in columns.values())))
    title = f"{kind(is_causal).capitalize()} attention, {SHAPE}: time over that of randfeat"
    return Summary(title, ("contender", *(f"L={length}" for length in columns)), tuple(rows), sections=(1,))


def ratio_text(times: Times, name: str) -> str:
    """The ratio of one contender as text, with a dash if it is missing."""
    return f"{ratio(times, name, OURS).value:.2f}" if name in times else "-"


def attention_goals(columns: Mapping[int, Times], *, is_causal: bool) -> list[Goal]:
    """Goals for the ratios at the measured lengths."""
    return [
        Goal(
            f"{name}, {kind(is_causal)}, L={length}",
            ratio(columns[length], name, OURS) if name in columns[length] else None,
            bound,
        )
        for (name, length), bound in BOUNDS[is_causal].items()
        if length in columns
    ]
