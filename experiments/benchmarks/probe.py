"""`python -m experiments.benchmarks.probe WORKLOAD LENGTH [--causal]`: peak memory of one workload, as JSON."""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import randfeat as rf
from experiments.benchmarks.peers import torch_peers
from experiments.benchmarks.torch_calls import BOTH, FORWARD, own_call
from experiments.benchmarks.workload import DIM, FEATURES, HEADS, Workload
from experiments.tables import Record

__all__ = ["GRADIENTS", "OURS", "extra_peak", "peak", "stream"]

OURS, GRADIENTS = "randfeat", "randfeat, gradients"
KIBI = 1 << 10
BLOCK = 256  # tokens
RING = 4096  # tokens of random input that the stream repeats
STEPS = 0.02  # of the stream, about, come token by token


def main() -> None:
    """Measure one workload in a fresh process."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.probe", description=main.__doc__)
    parser.add_argument("workload", help=f"{OURS!r}, {GRADIENTS!r}, 'stream', or the name of a peer")
    parser.add_argument("length", type=int)
    parser.add_argument("--causal", action="store_true")
    options = parser.parse_args()
    if options.workload == "stream":
        result: Record = {"length": options.length, "parts": list(stream(options.length)), "peak": peak()}
    else:
        extra, outputs = extra_peak(workload_call(options.workload, options.length, is_causal=options.causal))
        result = {"workload": options.workload, "length": options.length, "is_causal": options.causal}
        result |= {"extra": extra, "outputs": outputs}
    print(json.dumps(result))


def workload_call(name: str, length: int, *, is_causal: bool) -> Callable[[], Any]:
    """The call to measure, with its inputs ready."""
    work = Workload.of(length)
    if name == OURS:
        return partial(work.attend, is_causal=is_causal)
    if name == GRADIENTS:
        return partial(work.gradients, is_causal=is_causal)
    if name in (FORWARD, BOTH):
        return own_call(name, work, is_causal=is_causal)
    peers, notes = torch_peers([name], work, is_causal=is_causal)
    if name not in peers:
        raise ValueError(f"{name!r} cannot be measured: {notes}.")
    return peers[name]


def extra_peak(call: Callable[[], Any]) -> tuple[int | None, int]:
    """Bytes of peak memory during a call, beyond the memory before it and its result; and the bytes of the result.

    It is a first call, so libraries that it loads count. The peak is None if the system does not report it.
    """
    before = reset_peak()
    result = call()
    after = peak()
    outputs = sum(array.nbytes for array in (result if isinstance(result, tuple | list) else [result]))
    return (None if before is None or after is None else after - before - outputs), outputs


def reset_peak() -> int | None:
    """Reset the peak to the current resident memory and return it; None if the system cannot (all but Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return peak()


def peak() -> int | None:
    """Most bytes resident at once since the start or `reset_peak`; None if the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) * KIBI for line in lines if line.startswith("VmHWM:")]
    return sizes[0] if sizes else None


def stream(tokens: int) -> Iterator[Record]:
    """Feed tokens of all heads through one state: one by one, then in blocks, half of them with causal attention.

    Yields, for each part, its name, the number of tokens and the time. Tokens repeat a ring of random inputs, so memory
    grows only if the state lets it grow.
    """
    work = Workload.of(RING)
    scaled = DIM**-0.25  # the square root of the scale of attention
    query, key, value, phi = scaled * work.query, scaled * work.key, work.value, work.features
    state = rf.AttentionState.empty(FEATURES, DIM, like=value, batch_shape=(1, HEADS))
    seen = 0

    def piece(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = seen % RING
        return (
            query[..., start : start + size, :],
            key[..., start : start + size, :],
            value[..., start : start + size, :],
        )

    steps = math.ceil(STEPS * tokens / BLOCK) * BLOCK  # a whole number of blocks
    blocks = (tokens - steps) // BLOCK
    for what, size, number in (
        ("append, then read, one token at a time", 1, steps),
        (f"append, then read, blocks of {BLOCK}", BLOCK, blocks // 2),
    ):
        started = time.perf_counter()
        for _ in range(number):
            q, k, v = piece(size)
            state = state.append(phi.keys(k), v)
            state.read(phi.queries(q))
            seen += size
        yield {"what": what, "tokens": size * number, "seconds": time.perf_counter() - started}
    started, before = time.perf_counter(), seen
    while seen < tokens:
        q, k, v = piece(min(BLOCK, tokens - seen))
        _, state = rf.linear_attention(q, k, v, phi, is_causal=True, scale=1.0, initial_state=state, return_state=True)
        seen += q.shape[-2]
    what = f"causal linear_attention with initial_state, blocks of {BLOCK}"
    yield {"what": what, "tokens": seen - before, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    main()
