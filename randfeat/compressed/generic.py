"""Clustered attention in the array API, with the plan held constant: for every library, and differentiable."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import (
    Array,
    device_of,
    exp_in_place,
    host_to,
    log_of,
    namespace,
    squared_norm,
)
from randfeat.attention.inputs import Inputs
from randfeat.compressed.accuracy import chosen
from randfeat.compressed.heads import head_seeds, heads_of
from randfeat.compressed.options import Options
from randfeat.compressed.plan import Plan, plan_of
from randfeat.compressed.routing import partial_of, rows_at
from randfeat.compressed.tables import MOST_SECOND_ORDER


class Stack:
    """The plans of H heads as arrays (H, ...) in the library of the inputs."""

    def __init__(self, plans: Sequence[Plan], like: Array) -> None:
        self.plans, self.like = plans, like

    def numbers(self, name: str) -> Array:
        """The floating arrays of this name."""
        return host_to(np.stack([getattr(plan, name) for plan in self.plans]), self.like)

    def rows(self, columns: Array, name: str) -> Array:
        """The rows of columns (H, n, c) at the indices of this name (H, ...): (H, ..., c)."""
        return rows_at(columns, np.stack([getattr(plan, name) for plan in self.plans]))


@dataclass(frozen=True, eq=False)
class DeviceTables:
    """The tables of H heads, as in `Tables`, with the near keys and values (H, C, b, ·) themselves."""

    near_keys: Array
    near_bias: Array
    near_values: Array
    keys: Array
    values: Array
    log_masses: Array
    spread: Array | None


def device_tables(stack: Stack, keys: Array, values: Array, *, second_order: bool) -> DeviceTables:
    """The tables for keys (H, S, d), from which `key_mean` is subtracted already, and values (H, S, dv)."""
    xp, (dim, value_dim) = namespace(keys), (keys.shape[-1], values.shape[-1])
    columns = [keys, values, xp.ones_like(keys[..., :1])]
    root = stack.numbers("key_root")
    if second_order:
        columns.append(squares_in(root, keys))
    pieces = stack.rows(xp.concat(columns, axis=-1), "keys")  # (H, 2 g, p, c)
    centers = stack.numbers("centers")
    logits = centers[:, None, ...] @ xp.matrix_transpose(pieces[..., :dim])
    sums = exp_in_place(logits + stack.numbers("shift")) @ pieces  # (H, 2 g, C, c)
    heads, num_pieces, num_clusters, width = sums.shape
    merges = stack.numbers("merges")
    sums = merges @ xp.reshape(sums, (heads, num_pieces, num_clusters * width))
    sums = xp.permute_dims(xp.reshape(sums, (heads, merges.shape[-2], num_clusters, width)), (0, 2, 1, 3))
    total = sums[..., dim + value_dim]
    means = sums / xp.where(total == 0, xp.ones_like(total), total)[..., None]
    merged, log_masses = means[..., :dim], stack.numbers("tops") + log_of(total)
    spread = means[..., -1] - squares_in(root[:, None, ...], merged)[..., 0] if second_order else None
    near = stack.rows(xp.concat([keys, values], axis=-1), "near")
    return DeviceTables(
        near[..., :dim], stack.numbers("near_bias"), near[..., dim:],
        merged, means[..., dim : dim + value_dim], log_masses, spread,
    )  # fmt: skip


def squares_in(root: Array, keys: Array) -> Array:
    """`|root y|² / trace root²` of each key (..., n, d), as a column (..., n, 1)."""
    scale = namespace(root).sum(root * root, axis=(-2, -1), keepdims=True)
    return squared_norm(keys @ root) / scale


def read_device_tables(stack: Stack, tables: DeviceTables, queries: Array) -> Array:
    """The outputs (H, L, dv) of queries (H, L, d); each reads the tables of its cluster."""
    xp = namespace(queries)
    members = stack.rows(queries, "queries")  # (H, 2 C, r, d)
    moved = members - stack.rows(stack.numbers("centers"), "owner")[..., None, :]

    def owned(table: Array) -> Array:
        """The entries (H, 2 C, ...) of a table (H, C, ...) for the pieces of queries."""
        flat = xp.reshape(table, (*table.shape[:2], math.prod(table.shape[2:])))
        taken = stack.rows(flat, "owner")
        return xp.reshape(taken, (*taken.shape[:2], *table.shape[2:]))

    near = members @ xp.matrix_transpose(owned(tables.near_keys)) + owned(tables.near_bias)[..., None, :]
    far = moved @ xp.matrix_transpose(owned(tables.keys)) + owned(tables.log_masses)[..., None, :]
    if tables.spread is not None:
        far = far + xp.clip(squared_norm(moved) * owned(tables.spread)[..., None, :] / 2, None, MOST_SECOND_ORDER)
    logits = xp.concat([near, far], axis=-1)
    outputs = partial_of(logits, owned(xp.concat([tables.near_values, tables.values], axis=-2))).normalized()
    flat = xp.reshape(outputs, (outputs.shape[0], math.prod(outputs.shape[1:-1]), outputs.shape[-1]))
    return stack.rows(flat, "place")


def attend_on_device(inputs: Inputs, used: np.ndarray | None, options: Options, rng: Any) -> Array | None:
    """The outputs (..., L, dv), with the fit on the host and everything else in the library of the inputs.

    None where exact attention is cheaper: for all heads, or with an accuracy for one of them. With an accuracy, all
    heads get as many clusters as the hardest.
    """
    xp, prepared = namespace(inputs.value), inputs.prepared()
    lead, heads = heads_of(inputs, used)
    seeds = head_seeds(rng, lead)
    if options.accuracy is not None:
        fits = [chosen(head, options, seed) for head, seed in zip(heads, seeds, strict=True) if len(head.rows)]
        if None in fits:
            return None
        options = max((fit.options for fit in fits if fit is not None), key=lambda found: found.num_clusters)
    elif all(options.is_dearer_than_exact(len(head.references), len(head.rows)) for head in heads):
        return None
    plans = [
        plan_of(options.clusters_of(head, index, seed), head, inputs.num_keys, options.num_exact)
        for index, head, seed in zip(np.ndindex(lead), heads, seeds, strict=True)
    ]
    query, key, value = prepared.query, prepared.key, prepared.value
    if used is not None:
        mask = xp.asarray(used.copy(), device=device_of(query))  # which may be a read-only view
        query = xp.where(mask[..., None], query, xp.zeros_like(query))
    if inputs.group is not None:
        key, value = key[..., 0, :, :], value[..., 0, :, :]
    own_shape = tuple(query.shape[query.ndim - (2 if inputs.group is None else 3) :])
    query = xp.reshape(
        xp.broadcast_to(query, (*lead, *own_shape)), (len(heads), math.prod(own_shape[:-1]), own_shape[-1])
    )
    key, value = (
        xp.reshape(xp.broadcast_to(x, (*lead, *x.shape[-2:])), (len(heads), *x.shape[-2:])) for x in (key, value)
    )
    stack = Stack(plans, value)
    key = key - stack.numbers("key_mean")[:, None, :]
    tables = device_tables(stack, key, value, second_order=options.second_order)
    outputs = read_device_tables(stack, tables, query)
    return xp.reshape(outputs, (*lead, *own_shape[:-1], value.shape[-1]))
