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
from randfeat.attention.exact import exact_outputs
from randfeat.attention.inputs import Inputs
from randfeat.attention.relations import Plain
from randfeat.compressed.accuracy import options_for
from randfeat.compressed.heads import head_seeds, heads_of
from randfeat.compressed.options import Options
from randfeat.compressed.plan import Plan, plan_of
from randfeat.compressed.routing import partial_of, rows_at
from randfeat.compressed.tables import MOST_SECOND_ORDER
from randfeat.kernels import SoftmaxKernel


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

    Each head has the clusters that it has alone, or exact attention; None where this is so for all heads.
    """
    xp, (lead, heads) = namespace(inputs.value), heads_of(inputs, used)
    seeds = head_seeds(rng, lead)
    choices = [options_for(head, options, seed) for head, seed in zip(heads, seeds, strict=True)]
    if not any(choices):
        return None
    flat, own_shape = by_head(inputs, used, lead)
    places = list(np.ndindex(lead))
    numbers = np.array([0 if choice is None else choice.num_clusters for choice in choices])
    found, order = [], []
    for number in np.unique(numbers).tolist():
        index = np.flatnonzero(numbers == number)
        part, shared = heads_at(flat, index), choices[index[0]]
        if shared is None:
            found.append(xp.concat(exact_outputs(part, Plain(), SoftmaxKernel()), axis=-2))
        else:
            plans = [
                plan_of(shared.clusters_of(heads[i], places[i], seeds[i]), heads[i], inputs.num_keys, shared.num_exact)
                for i in index.tolist()
            ]
            found.append(read_by_plans(plans, part, second_order=shared.second_order))
        order.append(index)
    outputs = found[0] if len(found) == 1 else xp.concat(found, axis=0)
    outputs = taken(outputs, np.argsort(np.concatenate(order)))
    return xp.reshape(outputs, (*lead, *own_shape, outputs.shape[-1]))


def by_head(inputs: Inputs, used: np.ndarray | None, lead: tuple[int, ...]) -> tuple[Inputs, tuple[int, ...]]:
    """Prepared inputs with the key heads as their only leading dimension; and the shape of the queries of a head."""
    xp, prepared = namespace(inputs.value), inputs.prepared()
    query, key, value, mask = prepared.query, prepared.key, prepared.value, prepared.key_mask
    if used is not None:
        counted = xp.asarray(used.copy(), device=device_of(query))  # which may be a read-only view
        query = xp.where(counted[..., None], query, xp.zeros_like(query))
    if inputs.group is not None:
        key, value = key[..., 0, :, :], value[..., 0, :, :]
        mask = mask if mask is None or mask.ndim == 1 else mask[..., 0, :]
    num_heads = math.prod(lead)

    def flat(x: Array, own: tuple[int, ...]) -> Array:
        """`x` (..., *own) as (H, n, c), or (H, S)."""
        rows = own if len(own) < 2 else (math.prod(own[:-1]), own[-1])
        return xp.reshape(xp.broadcast_to(x, (*lead, *own)), (num_heads, *rows))

    own_shape = tuple(query.shape[query.ndim - (2 if inputs.group is None else 3) :])
    query, key, value = flat(query, own_shape), flat(key, tuple(key.shape[-2:])), flat(value, tuple(value.shape[-2:]))
    mask = None if mask is None else flat(mask, tuple(mask.shape[-1:]))
    return Inputs(query, key, value, mask, value.dtype, None), own_shape[:-1]


def heads_at(inputs: Inputs, index: np.ndarray) -> Inputs:
    """The inputs (H, ...) of the heads at these indices."""
    return inputs.with_arrays(*(None if x is None else taken(x, index) for x in inputs.arrays))


def taken(x: Array, index: np.ndarray) -> Array:
    """The entries of the first dimension at these indices; `x` itself if they are all, in their order."""
    if np.array_equal(index, np.arange(x.shape[0])):
        return x
    xp = namespace(x)
    return xp.take(x, xp.asarray(index, device=device_of(x)), axis=0)


def read_by_plans(plans: Sequence[Plan], inputs: Inputs, *, second_order: bool) -> Array:
    """The outputs (H, n, dv) of prepared inputs (H, ...) by the plan of each head."""
    stack = Stack(plans, inputs.value)
    key = inputs.key - stack.numbers("key_mean")[:, None, :]
    tables = device_tables(stack, key, inputs.value, second_order=second_order)
    return read_device_tables(stack, tables, inputs.query)
