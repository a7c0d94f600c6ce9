"""Chunks shared by several dask arrays, and graphs that merge the results of blocks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from randfeat._hints import needs

try:
    import dask
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph
except ImportError as error:
    raise ImportError(needs("dask", "Dask", "dask")) from error

from randfeat._array import as_floating
from randfeat.maps import FeatureMap

__all__ = [
    "Grid",
    "blockwise",
    "branches",
    "chained",
    "in_graph",
    "in_whole_rows",
    "is_known",
    "lengths_like",
    "reduced",
]

Chunks: TypeAlias = tuple[tuple[int, ...], ...]
"""Sizes of the blocks along each dimension."""

Argument: TypeAlias = tuple[Any, tuple[str, ...] | None]
"""An argument of a block function with the names of its axes; None for anything that is not a dask array."""


def is_known(size: float) -> bool:
    """Whether a size is known before anything is computed."""
    return not math.isnan(size)


def in_whole_rows(x: Any, name: str) -> Any:
    """A dask array (..., n, d) of NumPy blocks, checked and rechunked to one chunk along d; only n may be unknown."""
    if not isinstance(x, da.Array):
        raise TypeError(f"{name} must be a dask array, got {type(x).__name__}; {how_to_make_one(x, name)} makes one.")
    if not isinstance(as_floating(x._meta, name), np.ndarray):
        raise TypeError(f"{name} must have blocks of NumPy arrays, got {type(x._meta).__name__}.")
    if x.ndim < 2:
        raise ValueError(f"{name} must have shape (..., n, dim), got {x.shape}; one vector is {name}[None, :].")
    if not all(map(is_known, (*x.shape[:-2], x.shape[-1]))):
        raise ValueError(
            f"{name} may have an unknown number of rows, dimension -2, but no other unknown sizes, got {x.shape}; "
            f"{name}.compute_chunk_sizes() finds them."
        )
    return x if x.numblocks[-1] == 1 else x.rechunk({x.ndim - 1: -1})


def how_to_make_one(x: Any, name: str) -> str:
    """The expression that makes a dask array of a table or of an array in memory."""
    if hasattr(type(x), "to_dask_array"):
        return f"{name}.to_dask_array(lengths=True)"
    return f"dask.array.from_array({name}{'.to_numpy()' if hasattr(type(x), 'to_numpy') else ''})"


def lengths_like(wanted: tuple[int, ...], own: tuple[int, ...], names: str) -> tuple[int, ...]:
    """Chunks along the length for an array: `wanted`, or its own if sizes are unknown.

    names : of both arrays, for error messages.
    """
    if is_known(sum(wanted)) and is_known(sum(own)):
        if sum(wanted) != sum(own):
            raise ValueError(f"{names} must have the same length, got {sum(wanted)} and {sum(own)}.")
        return wanted
    if len(wanted) != len(own):
        raise ValueError(
            f"{names} must have equally many chunks along their length where its sizes are unknown, got {len(wanted)} "
            f"and {len(own)}; compute_chunk_sizes() finds the sizes."
        )
    return own


def branches(split_every: Any) -> int:
    """`split_every`, checked: the number of blocks that one task merges."""
    if isinstance(split_every, bool) or not isinstance(split_every, int) or split_every < 2:
        raise ValueError(f"split_every must be an integer, 2 or more, got {split_every!r}.")
    return split_every


def in_graph(phi: FeatureMap) -> Any:
    """A feature map as one entry of the graph: sent to every worker once, not with every task."""
    if not isinstance(phi, FeatureMap):
        raise TypeError(f"the features must be a FeatureMap, from estimator.draw(...), got {type(phi).__name__}.")
    if not all(isinstance(array, np.ndarray) for array in phi.arrays.values()):
        raise TypeError("the feature map must hold NumPy arrays, as the blocks do: phi.to(numpy.empty(0)) moves it.")
    return dask.delayed(phi, name=f"feature-map-{tokenize(phi)}", traverse=False)


@dataclass(frozen=True)
class Grid:
    """The chunks that the leading dimensions of several arrays share after broadcasting."""

    chunks: Chunks

    @classmethod
    def of(cls, *arrays: Chunks) -> "Grid":
        """The common grid: along each dimension the chunks of the first array whose size there is not 1."""
        num = max(map(len, arrays))
        padded = [((1,),) * (num - len(own)) + tuple(own) for own in arrays]
        return cls(tuple(next((own for own in axis if sum(own) != 1), (1,)) for axis in zip(*padded, strict=True)))

    def names(self, num: int) -> tuple[str, ...]:
        """Axis names of the last `num` leading dimensions."""
        return tuple(f"lead-{axis}" for axis in range(len(self.chunks) - num, len(self.chunks)))

    def over(self, shape: tuple[int, ...]) -> Chunks:
        """Chunks of an array with leading dimensions `shape`: those of the grid, or 1 for dimensions of size 1."""
        shared = self.chunks[len(self.chunks) - len(shape) :]
        return tuple((1,) if size == 1 else own for size, own in zip(shape, shared, strict=True))

    def place(self, x: Any, chunks: Chunks, *names: str) -> Argument:
        """An array rechunked to the grid; `chunks` and `names` belong to its other dimensions."""
        num = x.ndim - len(names)
        return x.rechunk((*self.over(x.shape[:num]), *chunks)), (*self.names(num), *names)

    def maps(self, phi: FeatureMap) -> list[Argument]:
        """For each dimension of a batch of maps, the indices of the maps of each block; see `maps_at`."""
        chunks = self.over(phi.batch_shape)
        names = self.names(len(chunks))
        return [(da.arange(sum(own), chunks=(own,)), (name,)) for own, name in zip(chunks, names, strict=True)]


def maps_at(phi: FeatureMap, indices: tuple[np.ndarray, ...]) -> FeatureMap:
    """The maps of a batch with these indices along each dimension of the batch."""
    if not indices:
        return phi
    arrays = {name: array[np.ix_(*indices)] for name, array in phi.arrays.items()}
    return FeatureMap(phi.estimator, phi.dim, phi.num_features, arrays)


def blockwise(
    function: Callable[..., Any],
    chunks: dict[str, tuple[int, ...]],
    arguments: list[Argument],
    dtype: Any = object,
    **options: Any,
) -> Any:
    """The array with these chunks whose blocks are `function(*blocks of the arguments, **options)`.

    Blocks are matched by number, not by size, so sizes may be unknown; a block of an axis with one block is reused.
    """
    argument_axes = {name for _, names in arguments for name in names or ()}
    return da.blockwise(
        function,
        tuple(chunks),
        *(part for argument in arguments for part in argument),
        dtype=dtype,
        meta=np.empty((0,) * len(chunks), dtype),
        new_axes={name: sizes for name, sizes in chunks.items() if name not in argument_axes},
        adjust_chunks={name: sizes for name, sizes in chunks.items() if name in argument_axes},
        align_arrays=False,
        concatenate=True,
        **options,
    )


def reduced(parts: Any, merge: Callable[[list[Any]], Any], split_every: int) -> Any:
    """Merge the blocks along the last axis as a tree, in their order; the result has no such axis."""
    name, graph = f"merged-{tokenize(parts.name, split_every)}", dict[Any, Any]()
    for at in np.ndindex(*parts.numblocks[:-1]):
        level = [(parts.name, *at, number) for number in range(parts.numblocks[-1])]
        depth = 0
        while len(level) > split_every:
            groups = [level[start : start + split_every] for start in range(0, len(level), split_every)]
            level = [(f"level-{depth}-of-{name}", *at, number) for number in range(len(groups))]
            graph |= {key: (merge, group) for key, group in zip(level, groups, strict=True)}
            depth += 1
        graph[name, *at] = (merge, level)
    return with_graph(name, graph, parts, parts.chunks[:-1])


def chained(parts: Any, merge: Callable[[list[Any]], Any]) -> Any:
    """For each block along the last axis, all earlier blocks merged; None for the first block."""
    name, graph = f"before-{tokenize(parts.name)}", dict[Any, Any]()
    for at in np.ndindex(*parts.numblocks[:-1]):
        graph[name, *at, 0] = None
        for number in range(1, parts.numblocks[-1]):
            graph[name, *at, number] = (merge, [(name, *at, number - 1), (parts.name, *at, number - 1)])
    return with_graph(name, graph, parts, parts.chunks)


def with_graph(name: str, graph: dict[Any, Any], parts: Any, chunks: Chunks) -> Any:
    """The dask array of objects defined by this graph on top of `parts`."""
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[parts])
    return da.Array(layers, name, chunks, meta=np.empty((0,) * len(chunks), object))
