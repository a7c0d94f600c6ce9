"""Peak memory on the CPU beyond inputs and outputs; each workload runs in its own process."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.benchmarks.goals import Goal, goal_table
from experiments.benchmarks.peers import CHUNKED, IN_PLACE, PERFORMER, PLAIN, SDPA, missing
from experiments.benchmarks.probe import GRADIENTS, OURS
from experiments.benchmarks.workload import SHAPE
from experiments.results import Summary
from experiments.tables import Record

__all__ = ["memory_tables"]

LENGTH, QUICK_LENGTH = 131072, 8192
PEER_LENGTH, QUICK_PEER_LENGTH = 16384, 2048
TOKENS, QUICK_TOKENS = 1_000_000, 10_000
EXTRA = 64.0  # MiB beyond inputs and outputs
STREAM = 1024.0  # MiB in total
MIB = 1 << 20
ROOT = Path(__file__).parents[2]

OWN = ((OURS, False), (OURS, True), (GRADIENTS, False), (GRADIENTS, True))
PEERS = ((SDPA, False), (PLAIN, False), (IN_PLACE, False), (PERFORMER, False), (SDPA, True), (CHUNKED, True))


def memory_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """Tables of the peaks of all contenders, of the stream and of the goals, and notes."""
    length, peer_length, tokens = (
        (QUICK_LENGTH, QUICK_PEER_LENGTH, QUICK_TOKENS) if quick else (LENGTH, PEER_LENGTH, TOKENS)
    )
    absent = {name: missing(name) for name, _ in PEERS}
    present = [(name, is_causal) for name, is_causal in PEERS if absent[name] is None]

    def measured(name: str, is_causal: bool, size: int) -> Record:
        report(f"memory: {name}, {'causal' if is_causal else 'full'}, L = {size}")
        return probe(name, size, is_causal=is_causal)

    own = [measured(*which, length) for which in OWN]
    others = [measured(*which, peer_length) for which in (*OWN[:2], *present)]
    report(f"memory: a stream of {tokens} tokens")
    stream = probe("stream", tokens)
    notes = [f"memory of {name} is left out: {reason}" for name, reason in absent.items() if reason is not None]
    if stream["peak"] is None:
        notes.append("peaks are not measured: this system does not tell them (Linux does)")
    return [peak_table(own + others), stream_table(stream), goal_table("Memory", memory_goals(own, stream))], notes


def probe(workload: str, length: int, *, is_causal: bool = False) -> Record:
    """Measure one workload in a new process."""
    command = [sys.executable, "-m", "experiments.benchmarks.probe", workload, str(length)]
    done = subprocess.run([*command, *["--causal"] * is_causal], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the memory of {workload} could not be measured:\n{done.stderr}")
    return json.loads(done.stdout)


def peak_table(records: Sequence[Record]) -> Summary:
    """Peak memory beyond inputs and outputs, in MiB and relative to the outputs."""
    rows = []
    for record in records:
        extra, outputs = record["extra"], record["outputs"]
        numbers = ("-", "-") if extra is None else (f"{extra / MIB:.1f}", f"{extra / outputs:.2f}")
        rows.append((title(record), str(record["length"]), f"{outputs / MIB:.0f}", *numbers))
    header = ("what", "L", "outputs [MiB]", "beyond [MiB]", "beyond / outputs")
    return Summary(f"Peak memory beyond inputs and outputs, {SHAPE}", header, tuple(rows), sections=(len(OWN),))


def title(record: Record) -> str:
    """Label of a contender, with its kind of attention."""
    return f"{record['workload']}, {'causal' if record['is_causal'] else 'full'}"


def stream_table(stream: Record) -> Summary:
    """Parts of the stream, and the time for each token."""
    rows = [
        (part["what"], str(part["tokens"]), f"{1e6 * part['seconds'] / part['tokens']:.1f}") for part in stream["parts"]
    ]
    name = f"A stream of {stream['length']} tokens of 8 heads through one AttentionState, {SHAPE}"
    return Summary(name, ("part", "tokens", "microseconds a token"), tuple(rows))


def memory_goals(own: Sequence[Record], stream: Record) -> list[Goal]:
    """Goals for the memory of our passes and of the stream."""

    def mebibytes(size: int | None) -> float | None:
        return None if size is None else size / MIB

    goals = [
        Goal(f"beyond inputs and outputs, {title(record)}, L={record['length']}",
             mebibytes(record["extra"]), EXTRA, False, unit="MiB", digits=0)
        for record in own
    ]  # fmt: skip
    what = f"whole process, stream of {stream['length']} tokens"
    return [*goals, Goal(what, mebibytes(stream["peak"]), STREAM, False, unit="MiB", digits=0)]
