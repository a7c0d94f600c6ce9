"""Results of a case as named arrays: their digest, and the largest difference of two such results."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Arrays", "attempt", "attempt_with_message", "digest", "error_of", "largest_difference", "named_arrays"]

Arrays = dict[str, np.ndarray]
ERROR = "error"
MESSAGE = 60  # characters of an error that are compared


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


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, shapes, dtypes and bytes."""
    hashed = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        hashed.update(repr((name, array.shape, array.dtype.str)).encode())
        hashed.update(array.tobytes())
    return hashed.hexdigest()


def attempt(compute: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result, or the type of the error that was raised, as `{"error": type}`."""
    try:
        return compute(*arguments, **options)
    except Exception as error:
        return {ERROR: type(error).__name__}


def attempt_with_message(compute: Callable[[], Any]) -> Any:
    """The result, or the error that was raised, with the beginning of its message."""
    try:
        return compute()
    except Exception as error:
        return {ERROR: f"{type(error).__name__}: {str(error)[:MESSAGE]}"}


def error_of(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The error that a case as a whole has raised; None where it has numbers."""
    return str(arrays[ERROR]) if set(arrays) == {ERROR} else None


def largest_difference(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> tuple[float, str]:
    """The part with the largest relative difference, `max |ours - theirs| / max |theirs|`, and what differs there.

    Infinite where parts, shapes, texts or the places of NaN and infinity differ; zero where only dtypes or the sign of
    a zero do.
    """
    alone = set(ours) ^ set(theirs)
    if alone:
        return math.inf, f"{', '.join(sorted(alone))} on one side only"
    differing = [name for name in sorted(ours) if digest({"": ours[name]}) != digest({"": theirs[name]})]
    return max((part_difference(name, ours[name], theirs[name]) for name in differing), default=(0.0, "nothing"))


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
    gap = np.max(np.abs(ours - theirs), where=finite, initial=0.0)
    size = np.max(np.abs(theirs), where=finite, initial=0.0)
    return float(gap if gap == 0 else gap / size if size else math.inf), name + kinds
