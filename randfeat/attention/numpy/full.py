"""Full linear attention in NumPy: the sums over all keys, task by task, then the queries that read them."""

from functools import partial

import numpy as np

from randfeat._numpy.threads import Scratch, Workers
from randfeat.attention.inputs import intervals
from randfeat.attention.numpy.exponents import Exponents
from randfeat.attention.numpy.heads import Heads
from randfeat.attention.numpy.sums import KeyRows, Readout, Sums, append_rows

TASK, MOST_TASKS = 2048, 16  # rows of one task, or more where that makes too many tasks, each with sums of its own

KeySums = list[list[Sums | None]]
"""Sums by head and by task; None for a task without keys."""


def attend_all(heads: Heads, workers: Workers[Scratch], *, peak: bool) -> list[Sums]:
    """Fills the output of every head; returns the sums over its keys, with the largest exponents if `peak`."""
    sums, readouts = summed_keys(heads, workers, peak=peak)
    workers.run([
        partial(query_task, heads, readouts, which, target, *interval)
        for which in range(len(sums))
        for target in heads.targets[which]
        for interval in task_intervals(heads.inputs.num_queries)
    ])  # fmt: skip
    return sums


def summed_keys(heads: Heads, workers: Workers[Scratch], *, peak: bool) -> tuple[list[Sums], list[Readout]]:
    """The sums over all keys of each head, task by task, and how its queries read them."""
    tasks = task_intervals(heads.inputs.num_keys)
    parts: KeySums = [[None] * len(tasks) for _ in heads.indices]
    workers.run([
        partial(key_task, heads, parts, which, i, *interval, peak=peak)
        for which in range(len(parts))
        for i, interval in enumerate(tasks)
    ])  # fmt: skip
    with np.errstate(all="ignore"):  # too little for threads
        sums = [heads.folded(parts[which], which) for which in range(len(parts))]
        return sums, [heads.readout(one, which) for which, one in enumerate(sums)]


def task_intervals(num_rows: int) -> list[tuple[int, int]]:
    """(start, stop) of each task, from the length alone, so that sums do not depend on the number of threads."""
    share = -(-num_rows // MOST_TASKS)
    return intervals(0, num_rows, max(1, -(-share // TASK)) * TASK)


def key_task(
    heads: Heads, parts: KeySums, which: int, number: int, start: int, stop: int, scratch: Scratch, *, peak: bool
) -> None:
    """Sum over one interval of the keys of one head."""
    index, mask = heads.indices[which], heads.mask
    rows = KeyRows(heads.key[index], heads.value[index], None if mask is None else mask[index]).part(slice(start, stop))
    parts[which][number] = append_tasks(None, heads.keys[which], rows, scratch, size=heads.block_rows, peak=peak)


def append_tasks(
    sums: Sums | None, keys: Exponents, rows: KeyRows, scratch: Scratch, *, size: int, peak: bool
) -> Sums | None:
    """The sums with more keys, as many of them at a time as one task has."""
    for interval in intervals(0, len(rows.key), TASK):
        sums = append_rows(sums, keys, rows.part(slice(*interval)), scratch, size=size, peak=peak)
    return sums


def query_task(
    heads: Heads, readouts: list[Readout], which: int, target: tuple[int, ...], start: int, stop: int, scratch: Scratch
) -> None:
    """Write the outputs of one interval of the queries of one head."""
    for first, last in intervals(start, stop, TASK):
        query, output = heads.query[target][first:last], heads.output[target][first:last]
        readouts[which].read(query, output, scratch, size=heads.block_rows)
