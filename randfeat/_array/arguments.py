"""Arguments that are no arrays: counts, seeds, shapes."""

import operator
from typing import Any

import numpy as np

from randfeat._hints import short

LARGEST = 2**53
"""The largest count: no memory holds as many rows of anything."""


def as_generator(rng: Any) -> np.random.Generator:
    """`rng` as a NumPy Generator (SPEC 7)."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(
            "rng must be None, a non-negative int, or a NumPy SeedSequence, BitGenerator or Generator, got "
            f"{short(rng)}; features are drawn by NumPy on the host, so the seeds of other libraries do not apply."
        ) from error


def as_count(value: Any, name: str) -> int:
    """A positive integer, or an error that names it."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a positive integer, got {short(value)}.") from None
    if count < 1 or isinstance(value, bool):
        raise ValueError(f"{name} must be a positive integer, got {short(value)}.")
    if count > LARGEST:
        raise ValueError(f"{name} must be at most {LARGEST}, got {short(value)}.")
    return count


def as_bool(value: Any, name: str) -> bool:
    """True or False, of Python or of NumPy, or an error that names it."""
    if not isinstance(value, bool | np.bool_):
        is_traced = type(value).__name__.endswith("Tracer")
        hint = f"; make it static: jax.jit(..., static_argnames={name!r})" if is_traced else ""
        raise TypeError(f"{name} must be True or False, got {short(value)}{hint}.")
    return bool(value)


def as_shape(value: Any, name: str) -> tuple[int, ...]:
    """A shape of positive sizes, or an error that names it."""
    try:
        sizes = tuple(value)
    except TypeError:
        raise TypeError(f"{name} must be a tuple of sizes, such as (8,), got {short(value)}.") from None
    return tuple(as_count(size, name) for size in sizes)


def repeats_to(size: int, full: int) -> bool:
    """Whether an axis of `size` broadcasts to `full`."""
    return size == 1 or size == full  # for a size that is open, PyTorch's compiler takes `size in (1, full)` for false


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """`numpy.broadcast_shapes`, of sizes that may be open, as they are to the compilers of PyTorch."""
    result = [1] * max(len(shape) for shape in shapes)
    for shape in shapes:
        for i, size in enumerate(shape, len(result) - len(shape)):
            if result[i] == 1:
                result[i] = size
            elif not repeats_to(size, result[i]):
                raise ValueError(f"shapes {', '.join(str(tuple(shape)) for shape in shapes)} do not broadcast.")
    return tuple(result)


def broadcasts_to(part: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether arrays of the shape `part` broadcast to `shape`."""
    tail = shape[len(shape) - len(part) :]
    return len(part) <= len(shape) and all(repeats_to(small, full) for small, full in zip(part, tail, strict=True))


def check_rows(x: Any, name: str, dim: int, batch_shape: tuple[int, ...]) -> None:
    """ValueError unless `x` is rows (..., n, dim) for maps of `batch_shape`."""
    if x.ndim < 2:
        raise ValueError(
            f"{name} must have shape (..., n, {dim}), got {tuple(x.shape)}; one vector is {name}[None, :]."
        )
    if x.shape[-1] != dim:
        raise ValueError(
            f"{name} has dimension {x.shape[-1]}, but the features were drawn for {dim}; "
            f"draw them with draw(dim={x.shape[-1]}, ...)."
        )
    try:
        broadcast_shapes(tuple(x.shape[:-2]), batch_shape)
    except ValueError:
        raise ValueError(
            f"{name} has leading dimensions {tuple(x.shape[:-2])}, which do not broadcast against the batch_shape "
            f"{batch_shape} of the features."
        ) from None
