"""Windows of exact weights in NumPy: keys before and after the window by causal passes, those near by exact weights."""

from dataclasses import replace
from functools import partial

import numpy as np

from randfeat._numpy.threads import Scratch, Workers
from randfeat.attention.numpy.exact_rows import ExactRows
from randfeat.attention.numpy.heads import Heads
from randfeat.attention.numpy.partial_rows import PartialHead, PartialRows
from randfeat.attention.numpy.sums import Sums
from randfeat.attention.relations import Window


def attend_around(heads: Heads, window: Window, workers: Workers[Scratch], *, final: bool) -> list[Sums]:
    """Fills the output of every head; returns the sums over its keys, over all of them if `final`."""
    sums = [heads.initial_sums(which) for which in range(len(heads.indices))]
    workers.run([partial(window_task, heads, window, sums, which, final=final) for which in range(len(sums))])
    return sums


def window_task(heads: Heads, window: Window, sums: list[Sums], which: int, scratch: Scratch, *, final: bool) -> None:
    """One head with all the queries that read it."""
    outputs = [PartialRows.in_memory_of(heads.output[target]) for target in heads.targets[which]]
    attend_parts(heads, window, which, outputs, scratch, sums=sums if final else None)
    for output in outputs:
        output.normalize()


def attend_parts(
    heads: Heads,
    window: Window,
    which: int,
    outputs: list[PartialRows],
    scratch: Scratch,
    *,
    sums: list[Sums] | None = None,
) -> ExactRows:
    """All parts of the outputs of one head; the sums over all of its keys, if asked for. Returns its exact weights."""
    num_queries, num_keys, final = heads.inputs.num_queries, heads.inputs.num_keys, sums is not None
    whole = PartialHead.of(heads, which, outputs)
    limits = whole.query_side.limits
    far = whole.part(slice(None), slice(window.sinks(num_keys), None))
    offset = window.offset_before(num_keys)
    total = far.run_at(offset, heads.initial_sums(which), scratch, peak=final, final=final)
    if sums is not None:
        sums[which] = total
    if not window.is_causal:
        after = [PartialRows.in_memory_of(np.empty_like(output.numerator)) for output in outputs]
        nothing, offset = Sums.empty(*heads.sum_shape, heads.dtype), window.offset_after(num_queries, num_keys)
        back = replace(far.reversed(), outputs=[one[::-1] for one in after])
        back.run_at(offset, nothing, scratch, peak=False, final=False)
        for output, other in zip(outputs, after, strict=True):
            output.absorb(other.numerator, other.total, other.log_scale, limits)
    exact = exact_rows(heads, window, whole)
    for query, output in zip(whole.queries, outputs, strict=True):
        exact.add_to(query, output, scratch)
    return exact


def exact_rows(heads: Heads, window: Window, head: PartialHead) -> ExactRows:
    """The exact weights of one head."""
    limits = head.query_side.limits
    return ExactRows(
        limits,
        head.key,
        head.value,
        head.mask,
        head.root**2 * heads.logit_scale * limits.exponent_unit,
        window.width,
        window.sinks(len(head.key)),
        window.offset,
        window.is_causal,
    )
