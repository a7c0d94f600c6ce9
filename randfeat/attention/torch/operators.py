"""Linear attention and its gradient as two operators of PyTorch, whose arguments are tensors and numbers.

The module is imported when PyTorch first records or compiles linear attention.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from randfeat._array import (
    Array,
    broadcast_shapes,
    cast,
    compute_dtype,
    differentiable_operator,
    has_values,
    namespace,
    own_precision,
)
from randfeat.attention.generic.sweeps import sum_to
from randfeat.attention.generic_executor import GenericExecutor
from randfeat.attention.host.executor import HostExecutor
from randfeat.attention.inputs import Inputs
from randfeat.attention.problem import Problem
from randfeat.attention.relations import Plain
from randfeat.attention.torch.form import Form, with_coordinate

EXECUTORS = HostExecutor(), GenericExecutor()
"""Asked in turn, as in `executors`."""

ARGUMENTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? key_bias, Tensor? key_mask, "
    "Tensor query_rows, Tensor query_log_weights, Tensor? query_origin, "
    "Tensor key_rows, Tensor key_log_weights, Tensor? key_origin, Tensor? key_matrix, Tensor? key_slope, "
    "float envelope, float factor, bool is_causal, SymInt offset, int? num_threads"
)
INPUTS = 4  # that are differentiable
LARGEST_BIAS = 1e3  # beyond it float32 rounds sums of exponents to 1e-4 and more: they are only compared, not split
TRAILING = 2, 2, 2, 1, 1, *(2,) * 8  # dimensions of the tensors behind their leading ones


def first(ask: Callable[[Any], Any], problem: Problem, *, has_bias: bool) -> Any:
    """The answer of the first executor that has one."""
    executors = EXECUTORS if not has_bias or is_moderate(problem.inputs) else EXECUTORS[1:]
    return next(result for result in map(ask, executors) if result is not None)


def is_moderate(inputs: Inputs) -> bool:
    """Whether all biases, the last coordinates of the keys, may be added to exponents in any order."""
    xp, bias = namespace(inputs.key), inputs.key[..., -1] * inputs.root
    if inputs.key_mask is not None:
        bias = xp.where(inputs.key_mask, bias, xp.zeros_like(bias))
    largest = xp.max(xp.abs(bias)) if 0 not in bias.shape else xp.zeros_like(bias)
    return has_values(largest) and bool(xp.all(largest <= LARGEST_BIAS))


def problem_of(
    query: Array, key: Array, value: Array, key_bias: Array | None, key_mask: Array | None, *others: Any
) -> Problem:
    """The problem of some arguments; a bias of the keys is a coordinate of its own, which queries do not look at."""
    *form, factor, is_causal, offset, num_threads = others
    features = Form(*form).features(has_bias=key_bias is not None)
    inputs = Inputs(query, key, value, key_mask, value.dtype, None, root=factor)
    if key_bias is not None:
        xp, inputs = namespace(query), inputs.computing()
        if key_mask is not None:
            key_bias = xp.where(key_mask, key_bias, xp.zeros_like(key_bias))
        column, top = xp.broadcast_to(key_bias, inputs.key.shape[:-1])[..., None] / factor, xp.finfo(key_bias.dtype).max
        column = xp.clip(column, -top, top)  # the lowest number, which some write for a mask, is not to be infinite
        inputs = replace(inputs, query=with_coordinate(inputs.query), key=xp.concat([inputs.key, column], axis=-1))
    lead = inputs.leading_shape(features)
    return Problem(inputs, Plain(is_causal, offset), features, features, lead, num_threads=num_threads)


def attend(*arguments: Any) -> Array:
    """The output, (..., L, dv)."""
    problem = problem_of(*arguments)
    with own_precision(problem.inputs.value):
        outputs, _ = first(lambda executor: executor.attend(problem), problem, has_bias=arguments[3] is not None)
    return problem.inputs.restore(outputs)


def like_output(*arguments: Any) -> Array:
    """A tensor of the shape of the output."""
    query, key, value, *_ = arguments
    lead = broadcast_shapes(*(x.shape[:-2] for x in (query, key, value, arguments[5])))
    return value.new_empty((*lead, query.shape[-2], value.shape[-1]))


def pull_back(gradient: Array, *arguments: Any) -> list[Array | None]:
    """The gradients in query, key, value, and the bias of the keys, in their shapes and dtypes."""
    problem, key_bias, dim = problem_of(*arguments), arguments[3], arguments[1].shape[-1]
    gradient = cast(gradient, compute_dtype(namespace(gradient), gradient.dtype))
    with own_precision(gradient):
        dq, dk, dv = first(
            lambda executor: executor.pull_back(problem, gradient, None, None), problem, has_bias=key_bias is not None
        )
    in_bias = None
    if key_bias is not None:
        in_bias = sum_to(dk[..., dim] / problem.inputs.root, tuple(key_bias.shape))
        dq, dk = dq[..., :dim], dk[..., :dim]
    found = zip((dq, dk, dv, in_bias), arguments, strict=False)
    return [None if x is None else cast(x, like.dtype) for x, like in found]


operator, operator_of_gradient = differentiable_operator(
    "linear_attention",
    ARGUMENTS,
    attend,
    example=like_output,
    gradient=pull_back,
    trailing=TRAILING,
    num_inputs=INPUTS,
)
