"""Clustered attention in the array API, with the plan held constant: for every library, and differentiable."""

from collections.abc import Sequence
from dataclasses import dataclass

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
from randfeat.compressed.plan import Plan
from randfeat.compressed.routing import partial_of
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


def rows_at(columns: Array, index: np.ndarray) -> Array:
    """The rows of columns (H, n, c) at indices (H, ...) of the host: (H, ..., c)."""
    xp, (heads, length, width) = namespace(columns), columns.shape
    flat = index + length * np.arange(heads).reshape(-1, *(1 for _ in index.shape[1:]))
    whole = xp.reshape(columns, (heads * length, width))
    taken = xp.take(whole, xp.asarray(flat.reshape(-1), device=device_of(columns)), axis=0)
    return xp.reshape(taken, (*index.shape, width))


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
        flat = xp.reshape(table, (*table.shape[:2], -1))
        taken = stack.rows(flat, "owner")
        return xp.reshape(taken, (*taken.shape[:2], *table.shape[2:]))

    near = members @ xp.matrix_transpose(owned(tables.near_keys)) + owned(tables.near_bias)[..., None, :]
    far = moved @ xp.matrix_transpose(owned(tables.keys)) + owned(tables.log_masses)[..., None, :]
    if tables.spread is not None:
        far = far + xp.clip(squared_norm(moved) * owned(tables.spread)[..., None, :] / 2, None, MOST_SECOND_ORDER)
    logits = xp.concat([near, far], axis=-1)
    outputs = partial_of(logits, owned(xp.concat([tables.near_values, tables.values], axis=-2))).normalized()
    flat = xp.reshape(outputs, (outputs.shape[0], -1, outputs.shape[-1]))
    return stack.rows(flat, "place")
