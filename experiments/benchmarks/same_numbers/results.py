"""Results of a case as named arrays, and the largest difference of two such results."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Case = tuple[str, Callable[[], Any]]
ERROR = "error"


def named_arrays(result: Any, name: str = "") -> Arrays:
    """The arrays and numbers in nested dictionaries and sequences, named by the way to them, `queries.values`."""
    if isinstance(result, Mapping):
        parts = list(result.items())
    elif isinstance(result, Sequence) and not isinstance(result, str):
        parts = list(enumerate(result))
    else:
        return {name: np.asarray("None" if result is None else result)}
    return {
        path: array
        for key, part in parts
        for path, array in named_arrays(part, f"{name}.{key}" if name else str(key)).items()
    }


def same_bits(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether shapes, dtypes and bytes are equal."""
    return ours.shape == theirs.shape and ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()


def attempt(compute: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result, or the type of the error that was raised, as `{"error": type}`."""
    try:
        return compute(*arguments, **options)
    except Exception as error:
        return {ERROR: type(error).__name__}


def error_of(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The type of the error that a case as a whole has raised; None where it has numbers."""
    return str(arrays[ERROR]) if set(arrays) == {ERROR} else None


def largest_difference(ours: Arrays, theirs: Arrays) -> tuple[float, str] | None:
    """The part with the largest relative difference, `max |ours - theirs| / max |theirs|`, and what differs there.

    None if all bits are the same. Infinite where parts, shapes, texts or the places of NaN and infinity differ; zero
    where only dtypes or the sign of a zero do.
    """
    if alone := set(ours) ^ set(theirs):
        return math.inf, f"{', '.join(sorted(alone))} on one side only"
    differing = [name for name in sorted(ours) if not same_bits(ours[name], theirs[name])]
    return max((part_difference(name, ours[name], theirs[name]) for name in differing), default=None)


def part_difference(name: str, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, str]:
    """The relative difference of one array, and its name with what can be said beside the number."""
    if ours.dtype.kind == "U" or theirs.dtype.kind == "U":
        return math.inf, f"{name}: {ours} against {theirs}"
    if ours.shape != theirs.shape:
        return math.inf, f"{name}: shape {ours.shape} against {theirs.shape}"
    kinds = "" if ours.dtype == theirs.dtype else f": dtype {ours.dtype} against {theirs.dtype}"
    kind = np.complex128 if "c" in (ours.dtype.kind, theirs.dtype.kind) else np.float64
    ours, theirs = ours.astype(kind), theirs.astype(kind)
    finite = np.isfinite(ours) & np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return math.inf, f"{name}: NaN or infinity at other places"
    gap, size = (np.max(np.abs(x), where=finite, initial=0.0) for x in (ours - theirs, theirs))
    return float(gap if gap == 0 else gap / size if size else math.inf), name + kinds
