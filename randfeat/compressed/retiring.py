"""The rows of a stream's cache after a chunk: merged for all heads at once, or head by head."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from randfeat._array import Array, host_to
from randfeat._numpy.threads import resolve_num_threads, run_tasks
from randfeat.compressed.compression import Options, merge_rows
from randfeat.compressed.heads import on_host
from randfeat.compressed.merging import Rows, num_references
from randfeat.compressed.stacks import is_small, merge_stack


def with_fewer_rows(
    keys: Array,
    bias: Array,
    values: Array,
    references: Array,
    options: Options,
    seeds: Sequence[np.random.SeedSequence],
) -> tuple[Array, Array, Array]:
    """`num_keys` rows in place of keys (..., n, d), biases (..., n, 1) and values (..., n, dv).

    references (..., r, d + 1) : queries, and in the last column whether they count. seeds : one for each head.
    The fit is on the host, the merging in the library of the rows. Rows that are not needed have the bias `-inf`.
    """
    lead, length, number = tuple(keys.shape[:-2]), keys.shape[-2], len(seeds)
    if number == 0:
        return tuple(x[..., : options.num_keys, :] for x in (keys, bias, values))
    rows, biases, given, queries = (on_host(x).reshape(number, *x.shape[-2:]) for x in (keys, bias, values, references))
    biases, dtype, width = biases[..., 0], rows.dtype, values.shape[-1]
    is_finite = np.isfinite(rows).all(axis=(1, 2)) & ((biases == -np.inf) | np.isfinite(biases)).all(axis=1)
    is_counted = np.isfinite(queries).all(axis=(1, 2)) & (queries[..., -1] > 0).all(axis=1)
    together = is_finite & is_counted & (np.sum(biases != -np.inf, axis=1) > options.num_keys)
    num = queries.shape[1]
    if options.fit or not is_small(length, options.num_keys) or num != num_references(options.num_keys, num, fit=False):
        together[:] = False
    shares = np.zeros((number, options.num_keys, length), dtype)
    merged_bias = np.full((number, options.num_keys, 1), -np.inf, dtype)
    corrections = np.zeros((number, options.num_keys, width), dtype) if options.fit else None
    if np.any(together):
        chosen = np.flatnonzero(together).tolist()
        uniforms = np.stack([np.random.default_rng(seeds[i]).random(options.num_keys) for i in chosen])
        shares[chosen], merged_bias[chosen, :, 0] = merge_stack(
            rows[chosen], biases[chosen], given[chosen], queries[chosen, :, :-1], options.num_keys, uniforms
        )

    def task(index: int, _: None) -> None:
        present = np.flatnonzero(biases[index] != -np.inf)
        counted = queries[index][queries[index][:, -1] > 0, :-1]
        counted = counted[np.isfinite(counted).all(axis=-1)]
        own = Rows(rows[index][present], biases[index][present], given[index][present])
        if not is_finite[index]:
            own = replace(own, keys=np.zeros_like(own.keys), bias=np.zeros_like(own.bias))
        how = replace(options, fit=options.fit and bool(np.all(np.isfinite(own.values))))
        merge = merge_rows(own, counted, how, np.random.default_rng(seeds[index]))
        size = len(merge.bias)
        shares[index, :size] = merge.matrix(present, length)
        merged_bias[index, :size, 0] = merge.bias if is_finite[index] else np.nan
        if corrections is not None:
            corrections[index, :size] = merge.corrections(width)

    run_tasks([partial(task, i) for i in np.flatnonzero(~together).tolist()], lambda: None, resolve_num_threads(None))

    def restored(x: np.ndarray, like: Array) -> Array:
        return host_to(x.reshape(*lead, *x.shape[1:]), like)

    matrix = restored(shares, keys)
    merged_values = matrix @ values
    if corrections is not None:
        merged_values = merged_values + restored(corrections, values)
    return matrix @ keys, restored(merged_bias, bias), merged_values
