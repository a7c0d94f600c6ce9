"""Compression of the keys of checked inputs: the rows of a key cache."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from randfeat._array import Array, as_bool, as_count, cast, copied, device_of, from_host, host_to, namespace
from randfeat._numpy.threads import resolve_num_threads, run_tasks
from randfeat.attention.inputs import Inputs
from randfeat.compressed.heads import Head, head_seeds, heads_of, key_lead, on_host_if_possible, stacked
from randfeat.compressed.merging import Merge, References, Rows, merge_keys, num_references
from randfeat.compressed.regression import fitted

Columns = tuple[Array, Array, Array]
"""Keys (..., n, d), biases (..., n) and values (..., n, dv) of rows."""


@dataclass(frozen=True)
class Options:
    """Sizes and the kind of fit of a compression."""

    num_keys: int
    fit: bool = False
    folds: str = "random"

    def __post_init__(self) -> None:
        as_count(self.num_keys, "num_keys")
        as_bool(self.fit, "fit")
        if self.folds not in ("random", "blocks"):
            raise ValueError(f'folds must be "random" or "blocks", got {self.folds!r}.')


def compressed_rows(inputs: Inputs, used: np.ndarray | None, options: Options, rng: Any) -> Columns:
    """The rows for the keys of checked inputs, whose queries are the references; in the library of the inputs."""
    if inputs.num_keys <= options.num_keys:
        return exact_rows(inputs)
    if inputs.num_queries == 0:
        raise ValueError("queries must have at least one: a cache is made for typical queries.")
    host = None if 0 in key_lead(inputs) else on_host_if_possible(inputs)
    if host is not None and host is not inputs:
        keys, bias, values = (from_host(x, inputs.key) for x in compressed_rows(host, used, options, rng))
        return cast(keys, inputs.dtype), bias, cast(values, inputs.dtype)
    lead, heads = heads_of(inputs, used)
    if not heads:
        return exact_rows(inputs.part(slice(None), slice(0, options.num_keys)))
    seeds = head_seeds(rng, lead)
    merges: list[Merge] = [None] * len(heads)  # type: ignore[list-item]

    def task(number: int, _: None) -> None:
        merges[number] = compress_head(heads[number], np.random.default_rng(seeds[number]), options)

    run_tasks([partial(task, number) for number in range(len(heads))], lambda: None, resolve_num_threads(None))
    if isinstance(inputs.key, np.ndarray):
        found = [merge.rows(head.rows) for head, merge in zip(heads, merges, strict=True)]
        keys = stacked([rows.keys for rows in found], lead) / inputs.root
        values = stacked([rows.values for rows in found], lead)
    else:
        keys, values = averages_of(inputs, lead, heads, merges)
    bias = host_to(stacked([merge.bias for merge in merges], lead, -np.inf), keys)
    return cast(keys, inputs.dtype), bias, cast(values, inputs.dtype)


def exact_rows(inputs: Inputs) -> Columns:
    """The keys themselves, with the biases that they have, and `-inf` for those that are masked."""
    checked = replace(inputs, root=1.0).prepared()
    xp, bias = namespace(checked.key), checked.key_bias
    lead = np.broadcast_shapes(*(x.shape[:-2] for x in (checked.key, checked.value)))
    if bias is None:
        bias = xp.zeros(checked.num_keys, dtype=checked.key.dtype, device=device_of(checked.key))
    if checked.key_mask is not None:
        bias = xp.where(checked.key_mask, bias, -xp.inf)
    columns = [xp.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (checked.key, bias[..., None], checked.value)]
    keys, biases, values = columns if inputs.group is None else (x[..., 0, :, :] for x in columns)
    return copied(cast(keys, inputs.dtype)), biases[..., 0], copied(cast(values, inputs.dtype))


def compress_head(head: Head, generator: np.random.Generator, options: Options) -> Merge:
    """The merge of the keys of one head; with biases NaN if a key is not finite."""
    merge = merge_rows(head.rows, head.references, options, generator)
    return replace(merge, bias=np.full_like(merge.bias, np.nan)) if head.is_spoiled else merge


def merge_rows(rows: Rows, queries: np.ndarray, options: Options, generator: np.random.Generator) -> Merge:
    """The merge of finite rows of one head, for typical queries (n, d)."""
    if len(rows) <= options.num_keys:
        return Merge.identity(rows)
    if len(queries) == 0:  # of padding only
        queries = np.zeros_like(rows.keys[:1])
    num = num_references(options.num_keys, len(queries), fit=options.fit)
    chosen = queries if num == len(queries) else queries[np.sort(generator.choice(len(queries), num, replace=False))]
    centered = rows.shifted(-np.mean(rows.keys, axis=0))
    references = References.of(chosen, centered)
    merge = merge_keys(references, queries, centered, options.num_keys, generator)
    return fitted(references, merge, centered, options.folds, generator) if options.fit else merge


def averages_of(inputs: Inputs, lead: tuple[int, ...], heads: list[Head], merges: list[Merge]) -> tuple[Array, Array]:
    """Keys and values of the rows as products with matrices of shares, differentiable in the keys and values."""
    prepared = replace(inputs, root=1.0).prepared()
    key, value = prepared.key, prepared.value
    if inputs.group is not None:
        key, value = key[..., 0, :, :], value[..., 0, :, :]
    matrices = [merge.matrix(head.present, inputs.num_keys) for head, merge in zip(heads, merges, strict=True)]
    shares = host_to(stacked(matrices, lead), key)
    keys, values = shares @ key, shares @ value
    if any(merge.correction is not None for merge in merges):
        values = values + host_to(stacked([merge.corrections(value.shape[-1]) for merge in merges], lead), value)
    return keys, values
