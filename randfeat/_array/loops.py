"""Loops, compilation and differentiation, which each array library does in its own way."""

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from randfeat._array.namespaces import Array, is_jax_array, is_torch_array


def compiled(function: Callable[..., Any], like: Array) -> Callable[..., Any]:
    """`jax.jit(function)` for JAX arrays, else `function` itself."""
    return sys.modules["jax"].jit(function) if is_jax_array(like) else function


def finish(x: Array) -> None:
    """Wait until `x` is computed: JAX and CUDA run asynchronously."""
    if is_jax_array(x):
        x.block_until_ready()
    elif is_torch_array(x) and x.device.type == "cuda":
        sys.modules["torch"].cuda.synchronize(x.device)
    elif not isinstance(x, np.ndarray) and hasattr(x, "get"):  # CuPy
        sys.modules["cupy"].cuda.get_current_stream().synchronize()


def stop_gradient(x: Array) -> Array:
    """`x` as a constant for automatic differentiation."""
    if is_torch_array(x):
        return x.detach()
    if is_jax_array(x):
        return sys.modules["jax"].lax.stop_gradient(x)
    return x


def fold(
    step: Callable[[tuple, tuple], tuple[tuple, tuple]],
    carry: tuple[Array, ...],
    columns: tuple[Any, ...],
    size: int | None,
    *,
    backwards: bool = False,
) -> tuple[tuple[Array, ...], list[tuple[Array, ...]]]:
    """Scan `carry, results = step(carry, parts)` over columns (..., n, c), `size` rows at a time; None for all rows.

    A column may be None (not the first) and then stays None. The last part may be shorter; with `backwards` the scan
    starts there. Results have the rows of their parts. Returns the last carry, and the results in the order of the
    rows.

    While JAX traces a function for its compiler, all whole parts become one loop of the compiled program, so the
    trace does not grow with n. The carry is first broadcast to the shape that `step` gives it. The derivative stores
    the carry at the start of each step, and recomputes the rest.
    """
    num = columns[0].shape[-2]
    if size is None:
        carry, results = step(carry, columns) if num else (carry, ())
        return carry, [results] if num else []
    num_whole = num // size if is_traced(*carry, *columns) else 0
    looped = num_whole if num_whole > 1 else 0
    loop_stop = looped * size
    num_parts = -(-num // size)  # which a compiler may know where it does not know the number of rows
    intervals = list(pairwise([*(size * i for i in range(looped, num_parts)), num]))
    if loop_stop:
        intervals = [(0, loop_stop), *intervals]
    all_results = []
    for start, stop in reversed(intervals) if backwards else intervals:
        parts = tuple(None if x is None else x[..., start:stop, :] for x in columns)
        if start < loop_stop:
            carry, results = looped_fold(step, carry, parts, size, backwards)
        else:
            carry, results = step(carry, parts)
        all_results.append(results)
    return carry, all_results[::-1] if backwards else all_results


def looped_fold(
    step: Callable[[tuple, tuple], tuple[tuple, tuple]], carry: tuple, columns: tuple, size: int, backwards: bool
) -> tuple[tuple, tuple]:
    """`fold` over whole parts as one `jax.lax.scan`."""
    jax = sys.modules["jax"]
    xp, tree = jax.numpy, jax.tree
    num = columns[0].shape[-2] // size
    parts = tree.map(lambda x: xp.moveaxis(x.reshape(*x.shape[:-2], num, size, x.shape[-1]), -3, 0), columns)
    after, _ = jax.eval_shape(step, carry, tree.map(lambda x: x[0], parts))
    carry = tree.map(lambda x, like: xp.broadcast_to(x, like.shape).astype(like.dtype), carry, after)
    carry, results = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), carry, parts, reverse=backwards)
    return carry, tree.map(lambda x: xp.moveaxis(x, 0, -3).reshape(*x.shape[1:-2], num * size, x.shape[-1]), results)


def is_traced(*arrays: Array | None) -> bool:
    """Whether JAX is tracing operations on one of `arrays` for its compiler; a derivative alone does not count."""
    if not any(x is not None and is_jax_array(x) for x in arrays):
        return False
    jax = sys.modules["jax"]
    return any(isinstance(jax.lax.stop_gradient(x), jax.core.Tracer) for x in arrays if x is not None)


def either(condition: Array, first: Callable[[], Array], second: Callable[[], Array]) -> Array:
    """`first()` if the one bool `condition` holds, else `second()`; both give arrays of one shape and dtype.

    While JAX traces a function, the compiled program decides. While PyTorch compiles or maps one, it is `second()`.
    """
    if is_traced(condition):
        return sys.modules["jax"].lax.cond(condition, first, second)
    return first() if has_values(condition) and condition else second()


def has_values(x: Array) -> bool:
    """Whether the values of `x` can decide what is computed: no function is being traced, compiled or mapped."""
    if is_traced(x) or is_compiling(x):
        return False
    return not (is_torch_array(x) and sys.modules["torch"]._C._functorch.is_batchedtensor(x))


def is_compiling(x: Array) -> bool:
    """Whether PyTorch is compiling or exporting the operations on the tensor `x`."""
    return is_torch_array(x) and sys.modules["torch"].compiler.is_compiling()


def is_transformed(x: Array) -> bool:
    """Whether `torch.func` is transforming the function that computes with the tensor `x`: operators have no rules."""
    return is_torch_array(x) and sys.modules["torch"]._C._are_functorch_transforms_active()


def gradients(function: Callable[..., Array], arrays: Sequence[Array], cotangent: Array) -> list[Array] | None:
    """Gradients of `Σ cotangent · function(*arrays)` for PyTorch tensors; None for other libraries."""
    if not all(is_torch_array(x) for x in arrays):
        return None
    leaves = [x.detach().clone().requires_grad_() for x in arrays]
    (function(*leaves) * cotangent).sum().backward()
    return [leaf.new_zeros(leaf.shape) if leaf.grad is None else leaf.grad for leaf in leaves]
