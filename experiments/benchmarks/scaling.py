"""Our own passes compared: lengths, causal, large inputs, gradients, threads, and the roofline of the machine."""

from collections.abc import Callable
from functools import partial

from experiments.benchmarks.goals import Goal, goal_table
from experiments.benchmarks.peers import torch_gradients
from experiments.benchmarks.timing import Call, Times, interleaved, medians, ratio
from experiments.benchmarks.workload import BATCH, DIM, FEATURES, HEADS, SHAPE, Workload
from experiments.results import Summary
from randfeat._numpy.threads import resolve_num_threads
from randfeat.cli.roofline import Ceilings, ceiling_calls, exponentials, flops, roofline

__all__ = ["scaling_tables"]

LENGTHS, QUICK_LENGTHS = (4096, 16384, 65536, 131072), (1024, 4096)
VARIED, QUICK_VARIED = (4096, 16384), (1024,)  # lengths at which everything else is varied
ROUNDS, QUICK_ROUNDS = 7, 3
FACTOR = 2.5  # inputs so many times as long need shifts

FLAT = 1.15  # largest over smallest time per token
SHARE = 65.0  # per cent of the roofline
CAUSAL = 1.4  # over full
SHIFTED = 1.35  # over no shift
BACKWARD = 4.0  # forward and backward over forward
KINDS = {"full": False, "causal": True}


def scaling_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """Tables of time per token by length, of the cost of variations and of the goals, and notes."""
    lengths, varied, rounds = (QUICK_LENGTHS, QUICK_VARIED, QUICK_ROUNDS) if quick else (LENGTHS, VARIED, ROUNDS)
    num_threads = resolve_num_threads(None)
    report(f"scaling: L = {', '.join(map(str, lengths))}, ceilings and variations, {rounds} rounds over all")
    contenders = ceiling_calls(num_threads)
    for length in lengths:
        contenders |= own_calls(length, varied=length in varied)
    times = interleaved(contenders, rounds)
    ceilings = Ceilings(times, num_threads)
    tables = [length_table(times, ceilings, lengths), variation_table(times, varied)]
    goals = [*length_goals(times, ceilings, lengths), *variation_goals(times, varied)]
    return [*tables, goal_table("Our own passes", goals)], ceiling_notes(ceilings, num_threads)


def name(kind: str, length: int, variation: str = "") -> str:
    """Label of a contender."""
    return f"{kind}, L={length}{variation and ', ' + variation}"


def own_calls(length: int, *, varied: bool) -> dict[str, Call]:
    """Our passes at one length, full and causal; with `varied`, also the variations and the gradients of PyTorch."""
    work = Workload.of(length)
    calls: dict[str, Call] = {}
    for kind, is_causal in KINDS.items():
        calls[name(kind, length)] = partial(work.attend, is_causal=is_causal)
    if not varied:
        return calls
    large = Workload.of(length, factor=FACTOR)
    for kind, is_causal in KINDS.items():
        calls[name(kind, length, "large")] = partial(large.attend, is_causal=is_causal)
        calls[name(kind, length, "backward")] = partial(work.attend_and_differentiate, is_causal=is_causal)
        calls[name(kind, length, "one thread")] = partial(work.attend, is_causal=is_causal, num_threads=1)
        for which, call in torch_gradients(work, is_causal=is_causal).items():
            calls[name(kind, length, f"torch {which}")] = call
    return calls


def per_token(times: Times, kind: str, length: int, variation: str = "") -> float:
    """Microseconds per token and head."""
    return 1e6 * medians(times)[name(kind, length, variation)] / (BATCH * HEADS * length)


def share(times: Times, ceilings: Ceilings, length: int) -> float:
    """Percentage of the roofline that full attention reaches."""
    return 100 * 1e6 * roofline(ceilings, DIM, DIM, FEATURES) / per_token(times, "full", length)


def flatness(times: Times, kind: str, lengths: tuple[int, ...], variation: str = "") -> float:
    """Largest over smallest time per token."""
    each = [per_token(times, kind, length, variation) for length in lengths]
    return max(each) / min(each)


def length_table(times: Times, ceilings: Ceilings, lengths: tuple[int, ...]) -> Summary:
    """Time per token and head by length, and the share of the roofline."""
    rows: list[tuple[str, ...]] = [
        (kind, *(f"{per_token(times, kind, length):.2f}" for length in lengths)) for kind in KINDS
    ]
    rows.append(("share of the roofline, full [%]", *(f"{share(times, ceilings, length):.0f}" for length in lengths)))
    title = f"Forward, {SHAPE}: microseconds per token and head"
    return Summary(title, ("attention", *(f"L={length}" for length in lengths)), tuple(rows), sections=(2,))


VARIATIONS = (
    ("causal over full", "causal", "", "full", ""),
    *((f"large inputs over small, {kind}", kind, "large", kind, "") for kind in KINDS),
    *((f"forward and backward over forward, {kind}", kind, "backward", kind, "") for kind in KINDS),
    *((f"the same in torch, {kind}", kind, "torch both", kind, "torch forward") for kind in KINDS),
    *((f"torch over randfeat, forward and backward, {kind}", kind, "torch both", kind, "backward") for kind in KINDS),
    *((f"one thread over all, {kind}", kind, "one thread", kind, "") for kind in KINDS),
)
"""Rows of the second table: title, and what is over what."""


def variation_table(times: Times, varied: tuple[int, ...]) -> Summary:
    """Cost of the variations as ratios of times; a dash for a missing contender."""
    rows = []
    for title, over_kind, over, under_kind, under in VARIATIONS:
        pairs = [(name(over_kind, length, over), name(under_kind, length, under)) for length in varied]
        entries = (f"{ratio(times, *pair).value:.2f}" if set(pair) <= set(times) else "-" for pair in pairs)
        rows.append((title, *entries))
    return Summary(f"Ratios of times, {SHAPE}", ("what", *(f"L={length}" for length in varied)), tuple(rows))


def length_goals(times: Times, ceilings: Ceilings, lengths: tuple[int, ...]) -> list[Goal]:
    """Goals for long calls: time per token constant over lengths, and near the roofline."""
    lengths = tuple(length for length in lengths if length >= LENGTHS[0])
    span = f"L={lengths[0]} to {lengths[-1]}"
    flat = [
        Goal(f"longest over shortest time per token, {kind}, {span}", flatness(times, kind, lengths), FLAT, False)
        for kind in KINDS
        if len(lengths) > 1
    ]
    shares = {length: share(times, ceilings, length) for length in lengths}
    return flat + [
        Goal(
            f"share of the roofline, full, L={length}",
            percent,
            SHARE if percent <= 100 else None,  # above, something else took the machine while its ceilings were timed
            unit="%",
            digits=0,
        )
        for length, percent in shares.items()
    ]


def variation_goals(times: Times, varied: tuple[int, ...]) -> list[Goal]:
    """Goals for long calls: cost of causal attention, large inputs and gradients."""
    goals = []

    def add(what: str, length: int, over_kind: str, over: str, under_kind: str, bound: float) -> None:
        measured = ratio(times, name(over_kind, length, over), name(under_kind, length))
        goals.append(Goal(f"{what}, L={length}", measured, bound if length >= LENGTHS[0] else None, False))

    for length in varied:
        add("causal over full", length, "causal", "", "full", CAUSAL)
        for kind in KINDS:
            add(f"large inputs over small, {kind}", length, kind, "large", kind, SHIFTED)
            add(f"forward and backward over forward, {kind}", length, kind, "backward", kind, BACKWARD)
    if len(varied) > 1:
        span = f"L={varied[0]} to {varied[-1]}"
        for kind in KINDS:
            what = f"longest over shortest time per token, forward and backward, {kind}, {span}"
            goals.append(Goal(what, flatness(times, kind, varied, "backward"), FLAT, False))
    return goals


def ceiling_notes(ceilings: Ceilings, num_threads: int) -> list[str]:
    """The roofline in words."""
    rates = ", ".join(f"{name} {rate / 1e9:.2f} G/s" for name, rate in ceilings.rates.items())
    least = 1e6 * roofline(ceilings, DIM, DIM, FEATURES)
    return [
        f"Ceilings, {num_threads} threads, interleaved with the rest: matrix product {ceilings.flops / 1e9:.0f} "
        f"GFLOP/s; in cache {rates}.",
        f"Roofline: {flops(DIM, DIM, FEATURES) / 1e3:.1f} kflop and {exponentials(FEATURES)} exponentials per token "
        f"and head, one after the other, take {least:.2f} microseconds.",
    ]
