"""Linear attention by fused CUDA kernels: what is launched, in which order, on which memory."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import (
    Array,
    cast,
    compute_dtype,
    device_of,
    dtype_name,
    namespace,
)
from randfeat.attention.cuda.kernels import SCALARS, THREADS, WIDTHS, Launch, computing_scalar
from randfeat.attention.cuda.layout import LOG2E, Matrices, Side, map_numbers, offsets
from randfeat.attention.inputs import Inputs, intervals
from randfeat.attention.problem import Problem
from randfeat.attention.state import AttentionState

SHORTEST_PIECE, MOST_PIECES = 256, 32  # of the keys of one head, summed by blocks of their own
FEWEST_CHUNKS, WORKSPACE = 8, 1 << 25  # causal: chunks whose states are in memory at once, and their bytes
SIDE = 16  # as in tiles.cu

Summaries = tuple[Array, Array]
"""Largest exponents (..., m), and sums (..., m, dv + 1) relative to them with the totals in the last column."""


@dataclass(frozen=True, eq=False)
class Work:
    """One call: H heads of what is summed over keys, and B heads of queries that read them."""

    inputs: Inputs
    queries: Side
    keys: Side
    initial: AttentionState | None
    lead: tuple[int, ...]
    full: tuple[int, ...]
    num_features: int
    batch_shape: tuple[int, ...]

    @classmethod
    def of(cls, problem: Problem) -> "Work | None":
        """Lay out a problem for the kernels; None for a problem that is not this executor's own."""
        inputs, features, state = problem.inputs, problem.features, problem.initial_state
        xp = namespace(inputs.value, *features.arrays.values())
        factor = problem.unit_factor
        if (
            not problem.is_aligned
            or factor is None
            or dtype_name(inputs.value.dtype) not in SCALARS
            or 0 in (*inputs.query.shape, *inputs.key.shape, *inputs.value.shape, *features.batch_shape)
        ):
            return None
        lead = problem.lead
        if state is not None and np.broadcast_shapes(lead, state.total.shape[:-2]) != lead:
            return None
        dtype = compute_dtype(xp, inputs.value.dtype)
        queries, keys = (Side.of(features, inputs.root * factor, dtype, keys=keys) for keys in (False, True))
        if queries is None or keys is None:
            return None
        full = np.broadcast_shapes(inputs.query.shape[:-2], lead)
        return cls(inputs, queries, keys, state, lead, full, features.num_features, features.batch_shape)

    @property
    def scalar(self) -> str:
        """The type of the inputs in CUDA C++."""
        return SCALARS[dtype_name(self.inputs.value.dtype)]

    @property
    def width(self) -> int:
        """The number of value columns that each thread has."""
        return WIDTHS[0] if self.value_dim <= SIDE * WIDTHS[0] else WIDTHS[1]

    @property
    def tile(self) -> int:
        """The number of rows and of columns of a tile, and of positions of a causal chunk."""
        return SIDE * (2 if self.scalar == "double" else 4)

    @property
    def value_dim(self) -> int:
        """The dimension dv of the values."""
        return int(self.inputs.value.shape[-1])

    @property
    def num_heads(self) -> int:
        """The number of heads H of the sums."""
        return math.prod(self.lead)

    def new(self, *shape: int) -> Array:
        """An uninitialized array on the device, in the computing dtype."""
        return namespace(self.keys.rows).empty(shape, dtype=self.keys.rows.dtype, device=device_of(self.keys.rows))

    def run(self, launch: Launch, *, is_causal: bool, return_state: bool) -> tuple[list[Array], AttentionState | None]:
        """Compute the outputs, and the state if `return_state`."""
        arguments = Arguments.of(self)
        xp, length = namespace(self.inputs.value), self.inputs.num_queries
        shape = (*self.full, length, self.value_dim)
        output = xp.empty(shape, dtype=self.inputs.value.dtype, device=device_of(self.inputs.value))
        if is_causal:
            summaries = self.causal(launch, arguments, output)
        else:
            summaries = self.summarized(launch, arguments)
            tiles = math.prod(self.full) * -(-length // self.tile)
            self.launch_for(launch, "read", tiles, arguments.read(*summaries, output))
        return [output], self.state(*summaries) if return_state else None

    def launch_for(self, launch: Launch, kernel: str, tiles: int, arguments: list[Any]) -> None:
        """Launch a kernel with one block for each tile of rows and of values."""
        value_tiles = -(-self.value_dim // (SIDE * self.width))
        launch(f"{kernel}<{self.scalar}, {self.width}>", tiles * value_tiles, *arguments)

    def summarized(self, launch: Launch, arguments: "Arguments") -> Summaries:
        """The initial state plus the sums over all keys."""
        num_keys = self.inputs.num_keys
        piece = max(SHORTEST_PIECE, -(-num_keys // MOST_PIECES))
        tops, sums = self.summaries(launch, arguments, 0, num_keys, piece)
        return self.scanned(launch, self.initial_summaries(), tops, sums)[1]

    def summaries(self, launch: Launch, arguments: "Arguments", start: int, stop: int, piece: int) -> Summaries:
        """The sums over each piece of some keys."""
        number = -(-(stop - start) // piece)
        tops = self.new(self.num_heads, number, self.num_features)
        sums = self.new(self.num_heads, number, self.num_features, self.value_dim + 1)
        tiles = self.num_heads * number * -(-self.num_features // self.tile)
        self.launch_for(launch, "summarize", tiles, arguments.summarize(start, stop, piece, tops, sums))
        return tops, sums

    def scanned(self, launch: Launch, first: Summaries, tops: Array, sums: Array) -> tuple[Summaries, Summaries]:
        """Prefix sums: for each piece the sum over all earlier ones (written over `sums`), and the sum over all."""
        before, last = self.new(*tops.shape), (self.new(*first[0].shape), self.new(*first[1].shape))
        sizes = [np.int64(size) for size in (*sums.shape,)]
        blocks = -(-math.prod(first[1].shape) // THREADS)
        launch(f"scan<{computing_scalar(self.scalar)}>", blocks, *first, tops, sums, before, *last, *sizes)
        return (before, sums), last

    def causal(self, launch: Launch, arguments: "Arguments", output: Array) -> Summaries:
        """Fills the output, some chunks at a time, and returns the sums over all keys.

        The arithmetic of a chunk does not depend on its place.
        """
        size = self.num_heads * self.num_features * (self.value_dim + 1) * self.keys.rows.dtype.itemsize
        chunks = max(FEWEST_CHUNKS, WORKSPACE // size)
        total = self.initial_summaries()
        for start, stop in intervals(0, self.inputs.num_keys, chunks * self.tile):
            tops, sums = self.summaries(launch, arguments, start, stop, self.tile)
            before, total = self.scanned(launch, total, tops, sums)
            tiles = math.prod(self.full) * tops.shape[1]
            self.launch_for(launch, "read_causal", tiles, arguments.read_causal(start, stop, *before, output))
        return total

    def initial_summaries(self) -> Summaries:
        """The initial state as summaries without the features' weights: (H, m) and (H, m, dv + 1)."""
        xp, rows = namespace(self.keys.rows), self.keys.rows
        shapes = ((self.num_heads, self.num_features), (self.num_heads, self.num_features, self.value_dim + 1))
        if self.initial is None:
            options = {"dtype": rows.dtype, "device": device_of(rows)}
            return xp.full(shapes[0], -xp.inf, **options), xp.zeros(shapes[1], **options)
        tops = xp.broadcast_to(self.initial.log_max, (*self.lead, 1, self.num_features)) * LOG2E - self.keys.log_weights
        sums = xp.concat([self.initial.weighted, self.initial.total], axis=-1)
        sums = xp.broadcast_to(sums, (*self.lead, *shapes[1][1:]))
        arrays = (xp.ascontiguousarray(cast(x, rows.dtype)) for x in (tops, sums))
        return tuple(xp.reshape(x, shape) for x, shape in zip(arrays, shapes, strict=True))

    def state(self, tops: Array, sums: Array) -> AttentionState:
        """The attention state that summaries stand for."""
        xp, shape = namespace(tops), (*self.lead, self.num_features, self.value_dim + 1)
        log_max = (xp.reshape(tops, (*self.lead, 1, self.num_features)) + self.keys.log_weights) / LOG2E
        sums = xp.reshape(sums, shape)
        return AttentionState(log_max, sums[..., :-1], sums[..., -1:])


@dataclass(frozen=True, eq=False)
class Arguments:
    """Arguments of the kernels, in the order of their parameters."""

    work: Work
    query: Matrices
    key: Matrices
    value: Matrices
    per_row: Array
    mask: Any
    log_weights: Array
    heads: Array
    """(5, H): offsets of key, value, r(k) and mask, and the number of the map."""
    targets: Array
    """(3, B): offset of the query, number of the head that it reads, and of the map."""

    @classmethod
    def of(cls, work: Work) -> "Arguments":
        """The tables are made on the host, from shapes and strides alone, and sent in two copies."""
        inputs, lead, full = work.inputs, work.lead, work.full
        xp = namespace(inputs.value)
        query, key, value = (Matrices.of(x) for x in (inputs.query, inputs.key, inputs.value))
        per_row = work.keys.per_row(cast(inputs.key, work.keys.rows.dtype))
        if inputs.key_mask is None:
            mask, mask_offsets = np.int64(0), np.zeros(work.num_heads, np.int64)  # a null pointer
        else:
            mask = xp.ascontiguousarray(inputs.key_mask)
            mask_offsets = offsets(mask, lead, 1)
        maps = map_numbers(work.batch_shape, lead)
        heads = [offsets(key.array, lead), offsets(value.array, lead), offsets(per_row, lead), mask_offsets, maps]
        numbers = np.broadcast_to(np.arange(work.num_heads, dtype=np.int64).reshape(lead), full).ravel()
        targets = [offsets(query.array, full), numbers, maps[numbers]]
        tables = (xp.asarray(np.stack(table), device=device_of(inputs.value)) for table in (heads, targets))
        return cls(work, query, key, value, per_row, mask, work.queries.log_weights + work.keys.log_weights, *tables)

    def sizes(self, *numbers: int) -> list[np.int64]:
        """The given numbers, then d, m and dv, as kernel arguments."""
        work = self.work
        return [
            np.int64(number) for number in (*numbers, self.query.array.shape[-1], work.num_features, work.value_dim)
        ]

    @property
    def factor(self) -> Any:
        """The factor that brings inputs to kernel units, in the computing dtype."""
        return (np.float64 if self.work.scalar == "double" else np.float32)(self.work.keys.factor)

    def summarize(self, start: int, stop: int, piece: int, tops: Array, sums: Array) -> list[Any]:
        """Arguments of `summarize`: sums over each piece of the keys from `start` to `stop`."""
        keys = self.work.keys
        arrays = [self.key.array, self.value.array, self.per_row, self.mask, keys.rows, keys.origin, self.heads]
        strides = (self.key.stride, self.value.stride)
        sizes = self.sizes(self.work.num_heads, *strides, start, stop, piece, tops.shape[1])
        return [*arrays, *sizes, self.factor, tops, sums]

    def read(self, tops: Array, sums: Array, output: Array) -> list[Any]:
        """Arguments of `read`: all queries over all keys."""
        queries, num_targets = self.work.queries, math.prod(self.work.full)
        arrays = [self.query.array, queries.rows, queries.origin, self.log_weights, tops, sums, self.targets]
        sizes = self.sizes(num_targets, self.query.stride, output.shape[-2])
        return [*arrays, *sizes, self.factor, output]

    def read_causal(self, start: int, stop: int, tops: Array, sums: Array, output: Array) -> list[Any]:
        """Arguments of `read_causal`: the queries from `start` to `stop` and the sums before each chunk."""
        queries, keys = self.work.queries, self.work.keys
        inputs = [self.query.array, self.key.array, self.value.array, self.per_row, self.mask]
        arrays = [queries.rows, keys.rows, queries.origin, keys.origin, self.log_weights]
        strides = (self.query.stride, self.key.stride, self.value.stride)
        heads = (self.work.num_heads, math.prod(self.work.full))
        sizes = self.sizes(*heads, *strides, start, stop, output.shape[-2], tops.shape[1])
        return [*inputs, *arrays, tops, sums, self.heads, self.targets, *sizes, self.factor, output]
