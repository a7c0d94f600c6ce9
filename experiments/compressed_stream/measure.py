"""What is computed: errors of streams, of caches that other queries read, and of attention without a mask."""

import itertools
from dataclasses import dataclass

import numpy as np

import randfeat as rf
from experiments.compressed_stream.evictions import EVICTIONS
from experiments.experiment import Cell, Record, Settings, Tables
from experiments.stacked import HEADS, OTHER, READ, Stack, stacked

STREAMS = ("own past", "other passages")
FITTED = "own past, fitted"
NUM_PIECES = 8
TABLES = ("stream", "positions", "leaks", "prefix", "whole")


@dataclass(frozen=True)
class StreamSettings(Settings):
    """Sizes. length : of the streams, and of the prefix that others read. whole_length : of attention without a mask.

    num_keys : rows of the caches of streams, D; chunks have as many positions, so the memory is 3 D rows. pieces : rows
    of the caches that are made in 8 pieces, and at once. prefixes : rows of fitted caches of a prefix. clusters :
    numbers C, and whole_keys : rows, without a mask. num_blocks : parts of the stream in which errors are also given.
    """

    length: int = 2048
    whole_length: int = 4096
    num_keys: tuple[int, ...] = (32, 64, 128)
    pieces: tuple[int, ...] = (64, 128)
    prefixes: tuple[int, ...] = (16, 64, 256)
    clusters: tuple[int, ...] = (5, 11, 21)
    whole_keys: tuple[int, ...] = (64,)
    num_blocks: int = 8


def tables(**rows: list[Record]) -> Tables:
    """The tables of a cell, empty where it has no rows."""
    return {name: rows.get(name, []) for name in TABLES}


def errors(output: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """`|output - exact| / |exact|` of each head, Frobenius norms."""
    return np.linalg.norm(output - exact, axis=(-2, -1)) / np.linalg.norm(exact, axis=(-2, -1))


def in_float64(stack: Stack) -> Stack:
    return Stack(*(x.astype(np.float64) for x in stack.arrays))


def rows_of(output: np.ndarray, exact: np.ndarray, **names: object) -> list[Record]:
    """A row for each head."""
    return [{**names, "head": head, "error": e} for head, e in zip(HEADS, errors(output, exact), strict=True)]


@dataclass(frozen=True)
class StreamCell(Cell):
    """All heads as one causal stream with one way to bound the memory."""

    method: str
    num_keys: int

    def measure(self, settings: StreamSettings) -> Tables:
        stack = in_float64(stacked(READ, settings.length))
        exact = rf.softmax_attention(*stack.arrays, is_causal=True)
        memory = 3 * self.num_keys
        if self.method in EVICTIONS:
            output = EVICTIONS[self.method](*stack.arrays, memory)
        elif self.method == FITTED:
            output = fitted_stream(stack, self.num_keys, settings.rng("stream", FITTED, self.num_keys))
        else:
            output = stream(stack, self.method, self.num_keys, settings)
        names = {"method": self.method, "num_keys": self.num_keys, "memory": memory}
        blocks = []
        ends = np.linspace(0, settings.length, settings.num_blocks + 1).astype(int)
        for start, stop in itertools.pairwise(ends):
            blocks += rows_of(output[:, start:stop], exact[:, start:stop], **names, start=int(start), stop=int(stop))
        return tables(stream=rows_of(output, exact, **names), positions=blocks)


def stream(stack: Stack, references: str, num_keys: int, settings: StreamSettings) -> np.ndarray:
    """Causal compressed attention with these references."""
    queries = stacked(OTHER, 2048).query.astype(stack.query.dtype) if references == "other passages" else None
    rng = settings.rng("stream", references, num_keys)
    return rf.compressed_attention(
        *stack.arrays, num_keys=num_keys, window=num_keys, is_causal=True, queries=queries, rng=rng
    )


def fitted_stream(stack: Stack, num_keys: int, rng: np.random.Generator) -> np.ndarray:
    """The same stream from its parts, where every compression is fitted, to queries of all chunks so far."""
    query, key, value = stack.arrays
    cache, outputs = None, []
    for start in range(0, query.shape[1], num_keys):
        stop, first = start + num_keys, max(start - num_keys, 0)
        own, recent = query[:, start:stop], slice(first, stop)
        part = rf.softmax_attention(
            own, key[:, recent], value[:, recent], is_causal=True, causal_offset=start - first, return_partial=True
        )
        outputs.append((part if cache is None else part.merge(cache.read(own))).normalized())
        if start > 0:
            old = rf.KeyCache.exact(key[:, first:start], value[:, first:start])
            cache = old if cache is None else cache.concat(old)
            cache = cache.compress(num_keys=num_keys, queries=query[:, :stop], fit=True, rng=rng)
    return np.concatenate(outputs, axis=1)


@dataclass(frozen=True)
class LeakCell(Cell):
    """Earlier outputs of a stream whose later queries, keys and values are others."""

    references: str
    num_keys: int

    def measure(self, settings: StreamSettings) -> Tables:
        stack = stacked(READ, settings.length)
        first = stream(stack, self.references, self.num_keys, settings)
        rows: list[Record] = []
        for cut in (settings.length // 2, settings.length // 2 + self.num_keys // 3):
            other = Stack(*(np.concatenate([x[:, :cut], -2 * x[:, cut:]], axis=1) for x in stack.arrays))
            second = stream(other, self.references, self.num_keys, settings)
            changed = np.any(first != second, axis=-1)
            row: Record = {"references": self.references, "num_keys": self.num_keys, "position": cut}
            rows.append(row | {"earlier": int(changed[:, :cut].sum()), "later": float(changed[:, cut:].mean())})
        return tables(leaks=rows)


@dataclass(frozen=True)
class PrefixCell(Cell):
    """A cache of many keys, made for queries of two other passages and read by those of two more."""

    num_pieces: int
    fit: bool
    num_keys: int

    def measure(self, settings: StreamSettings) -> Tables:
        prefix = in_float64(stacked(READ, settings.length))
        other = in_float64(stacked(OTHER, 2048)).query
        references, queries = other[:, :1024], other[:, 1024:]
        rng = settings.rng("prefix", self.num_pieces, self.fit, self.num_keys)
        size, cache = settings.length // self.num_pieces, None
        for start in range(0, settings.length, size):
            piece = rf.KeyCache.exact(*prefix.part(start, start + size).arrays[1:])
            cache = piece if cache is None else cache.concat(piece)
            cache = cache.compress(num_keys=self.num_keys, queries=references, fit=self.fit, rng=rng)
        assert cache is not None
        exact = rf.softmax_attention(queries, prefix.key, prefix.value)
        names = {"num_pieces": self.num_pieces, "fit": self.fit, "num_keys": self.num_keys}
        return tables(prefix=rows_of(cache.read(queries).normalized(), exact, **names))


@dataclass(frozen=True)
class WholeCell(Cell):
    """Attention of all queries to all keys."""

    method: str
    size: int

    def measure(self, settings: StreamSettings) -> Tables:
        stack = in_float64(stacked(READ, settings.whole_length))
        query, key, value = stack.arrays
        rng = settings.rng("whole", self.method, self.size)
        if self.method == "clustered":
            output = rf.clustered_attention(query, key, value, num_clusters=self.size, rng=rng)
        else:
            fit = self.method == "cache, fitted"
            cache = rf.compress(key, value, num_keys=self.size, queries=query, fit=fit, rng=rng)
            output = cache.read(query).normalized()
        exact = rf.softmax_attention(query, key, value)
        return tables(whole=rows_of(output, exact, method=self.method, size=self.size))


def prefixes(settings: StreamSettings) -> list[tuple[int, bool, int]]:
    """Number of pieces, whether there is a fit, and rows, of each cache of the prefix."""
    both = [(num, fit, size) for num in (1, NUM_PIECES) for fit in (False, True) for size in settings.pieces]
    return both + [(1, True, size) for size in settings.prefixes if size not in settings.pieces]


def cells(settings: StreamSettings) -> list[Cell]:
    return [
        *(StreamCell(method, size) for method in (*STREAMS, FITTED, *EVICTIONS) for size in settings.num_keys),
        *(LeakCell(references, size) for references in STREAMS for size in settings.num_keys),
        *(PrefixCell(num, fit, size) for num, fit, size in prefixes(settings)),
        *(WholeCell("clustered", size) for size in settings.clusters),
        *(WholeCell(method, size) for method in ("cache", "cache, fitted") for size in settings.whole_keys),
    ]
