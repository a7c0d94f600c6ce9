"""Clustered attention on the host: a task for each head, in blocks of queries that stay in the cache."""

import math
from functools import partial
from typing import Any

import numpy as np

from randfeat._numpy.threads import resolve_num_threads, run_tasks
from randfeat.attention.exact import exact_outputs
from randfeat.attention.inputs import Inputs
from randfeat.attention.relations import Plain
from randfeat.compressed.accuracy import Fit, chosen
from randfeat.compressed.heads import Head, head_seeds, heads_of
from randfeat.compressed.options import Options
from randfeat.kernels import SoftmaxKernel


def attend_on_host(
    inputs: Inputs, used: np.ndarray | None, options: Options, rng: Any, num_threads: int | None
) -> np.ndarray:
    """The outputs (..., L, dv), a task for each key head."""
    lead, heads = heads_of(inputs, used)
    queries = inputs.query.shape[len(inputs.query.shape) - (2 if inputs.group is None else 3) : -1]
    dtype, width = heads[0].rows.values.dtype if heads else inputs.value.dtype, inputs.value.shape[-1]
    outputs = np.empty((*lead, *queries, width), dtype)
    tasks = [
        partial(attend_head, outputs[index].reshape(math.prod(queries), width), head, index, options, seed)
        for index, head, seed in zip(np.ndindex(lead), heads, head_seeds(rng, lead), strict=True)
    ]
    run_tasks(tasks, lambda: None, resolve_num_threads(num_threads))
    return outputs


def attend_head(
    target: np.ndarray,
    head: Head,
    index: tuple[int, ...],
    options: Options,
    seed: np.random.SeedSequence,
    _: None,
) -> None:
    """Write the outputs (n, dv) of one head; exact where that is cheaper, for what is not masked."""
    if len(head.rows) == 0:
        target[:] = 0
        return
    if head.is_spoiled:
        target[:] = np.nan
        return
    if options.accuracy is not None:
        found = chosen(head, options, seed)
    elif options.is_dearer_than_exact(len(head.references), len(head.rows)):
        found = None
    else:
        found = Fit.of(head, options, index, seed)
    target[:] = exact_head(head) if found is None else found.read(head.queries)


def exact_head(head: Head) -> np.ndarray:
    """Exact outputs (n, dv) of the queries of one head."""
    rows = head.rows
    inputs = Inputs(head.queries, rows.keys, rows.values, None, rows.values.dtype, None)
    return np.concatenate(exact_outputs(inputs, Plain(), SoftmaxKernel()))
