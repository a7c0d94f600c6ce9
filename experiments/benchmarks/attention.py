"""Forward time of linear attention on the CPU against exact attention and other linear ones."""

from collections.abc import Callable
from unittest import mock

import numpy as np

import randfeat as rf
from experiments.benchmarks.peers import torch_peers
from experiments.benchmarks.timing import interleaved, medians
from experiments.results import Summary
from randfeat.attention import linear

__all__ = ["attention_tables"]

BATCH, HEADS, DIM, FEATURES = 1, 8, 64, 256
LENGTHS, QUICK_LENGTHS = (1024, 4096, 16384), (1024,)
ROUNDS, QUICK_ROUNDS = 7, 3
LONGEST_GENERIC = 4096  # beyond, the generic pass only takes time
SHIFTED = 2.5  # inputs so many times as long need shifts


def attention_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """A table for full and one for causal attention, and notes."""
    lengths, rounds = (QUICK_LENGTHS, QUICK_ROUNDS) if quick else (LENGTHS, ROUNDS)
    tables, notes = [], []
    for is_causal in (False, True):
        columns = {}
        for length in lengths:
            report(f"{'causal' if is_causal else 'full'}, L = {length}")
            contenders, missing = field(length, is_causal=is_causal)
            columns[length] = medians(interleaved(contenders, rounds))
            notes += [note for note in missing if note not in notes]
        tables.append(table(columns, is_causal=is_causal))
    return tables, notes


def field(length: int, *, is_causal: bool) -> tuple[dict[str, Callable[[], object]], list[str]]:
    """All contenders at one length, ours first."""
    inputs = np.random.default_rng(0).standard_normal((3, BATCH, HEADS, length, DIM), dtype=np.float32)
    query, key, value = inputs
    long_query, long_key = SHIFTED * query, SHIFTED * key
    phi = rf.PositiveFeatures().draw(DIM, FEATURES, rng=0, like=query)

    def ours() -> object:
        return rf.linear_attention(query, key, value, phi, is_causal=is_causal)

    def shifted() -> object:
        return rf.linear_attention(long_query, long_key, value, phi, is_causal=is_causal)

    def one_thread() -> object:
        return rf.linear_attention(query, key, value, phi, is_causal=is_causal, num_threads=1)

    def generic() -> object:
        with mock.patch.object(linear, "fast_pass", return_value=None):
            return ours()

    peers, notes = torch_peers(query, key, value, phi.arrays["rows"], is_causal=is_causal)
    own = {"randfeat": ours, "randfeat, large inputs": shifted, "randfeat, one thread": one_thread}
    if length <= LONGEST_GENERIC:
        own["randfeat, generic pass"] = generic
    return {**own, **peers}, notes


def table(columns: dict[int, dict[str, float]], *, is_causal: bool) -> Summary:
    """Time of each contender over ours, and ours in milliseconds."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    ours = "randfeat"
    rows: list[tuple[str, ...]] = [(f"{ours} [ms]", *(f"{1e3 * column[ours]:.1f}" for column in columns.values()))]
    for name in names:
        ratios = (f"{column[name] / column[ours]:.2f}" if name in column else "-" for column in columns.values())
        rows.append((name, *ratios))
    kind = "Causal" if is_causal else "Full"
    title = f"{kind} attention, B={BATCH} H={HEADS} d={DIM} m={FEATURES}, float32: time over that of randfeat"
    return Summary(title, ("contender", *(f"L={length}" for length in columns)), tuple(rows))
