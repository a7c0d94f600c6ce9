"""Functions of PyTorch tensors that its compilers take for one operation, whatever loops are in them."""

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from randfeat._array.loops import is_transformed
from randfeat._array.namespaces import Array, is_torch_array

Function = Callable[[Sequence[Array]], Sequence[Array]]


def torch_operator(name: str, function: Function, example: Function) -> Function:
    """`function` as the operator `randfeat::name` of PyTorch: one node of a compiled or exported graph.

    function : maps tensors to tensors, of which none is an input. A graph holds its name and nothing of its Python
        code, so one graph serves all lengths; a process that loads the graph must import this package.
    example : gives tensors of the shapes and dtypes of the results, without looking at numbers.

    The gradient is that of `function`, computed again in the backward pass, by an operator too. It cannot be
    differentiated once more. Without PyTorch the result is `function` itself.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return function

    def forward(inputs: Any) -> Any:
        return [x.clone(memory_format=torch.contiguous_format) for x in function(inputs)]

    def like_results(inputs: Any) -> Any:
        return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in example(inputs)]

    def backward(inputs: Any, gradients: Any) -> Any:
        _, pull_back = torch.func.vjp(lambda *given: tuple(function(given)), *inputs)
        return [x.clone(memory_format=torch.contiguous_format) for x in pull_back(tuple(gradients))]

    def like_inputs(inputs: Any, gradients: Any) -> Any:
        return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs]

    def gradients_of(context: Any, gradients: Any) -> Any:
        return operator_of_gradient(list(context.saved_tensors), gradients)

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[0])

    options = {"mutates_args": ()}
    operator = torch.library.custom_op(f"randfeat::{name}", forward, schema="(Tensor[] inputs) -> Tensor[]", **options)
    operator_of_gradient = torch.library.custom_op(
        f"randfeat::{name}_gradient", backward, schema="(Tensor[] inputs, Tensor[] gradients) -> Tensor[]", **options
    )
    operator.register_fake(like_results)
    operator_of_gradient.register_fake(like_inputs)
    operator.register_autograd(gradients_of, setup_context=keep)
    return operator


def differentiable_operator(
    name: str,
    arguments: str,
    function: Callable[..., Array],
    *,
    example: Callable[..., Array],
    gradient: Callable[..., Sequence[Array | None]],
    trailing: Sequence[int],
    num_inputs: int,
) -> tuple[Callable[..., Array], Callable[..., Any]]:
    """`function` as the operator `randfeat::name`, and its gradient, with rules for autograd, tracing and vmap.

    arguments : their schema. The first are tensors, or None where the schema says `Tensor?`, and the first
        `num_inputs` of these are differentiable. The others are numbers.
    example : gives a tensor of the shape and dtype of the result, without looking at numbers.
    gradient : (gradient in the result, *arguments) -> gradients in the inputs, None for an input that is None. It must
        be differentiable by PyTorch itself: that is the second derivative.
    trailing : the dimensions of each tensor behind its leading ones, which broadcast.

    Without PyTorch the results are `function` and `gradient` themselves.
    """
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        return function, gradient
    num_tensors = len(trailing)

    def forward(*given: Any) -> Any:
        return function(*given).contiguous()

    def like_result(*given: Any) -> Any:
        return torch.empty_like(example(*given), memory_format=torch.contiguous_format)

    def backward(*given: Any) -> Any:
        found = gradient(*given)
        return tuple(given[0].new_empty(0) if x is None else x.contiguous() for x in found)

    def like_inputs(result: Any, *given: Any) -> Any:
        return tuple(
            result.new_empty(0) if x is None else torch.empty_like(x, memory_format=torch.contiguous_format)
            for x in given[:num_inputs]
        )

    def keep(num: int) -> Callable[..., None]:
        def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
            ctx.save_for_backward(*inputs[:num])
            ctx.numbers = inputs[num:]

        return setup_context

    def first_derivative(ctx: Any, result: Any) -> Any:
        given = *ctx.saved_tensors, *ctx.numbers
        found = operator_of_gradient(result, *given)
        inputs = (None if x is None else dx for x, dx in zip(given, found, strict=False))
        return *inputs, *(None,) * (len(given) - num_inputs)

    def second_derivative(ctx: Any, *results: Any) -> Any:
        given = [*ctx.saved_tensors, *ctx.numbers]
        which = [i for i, x in enumerate(given[: num_inputs + 1]) if x is not None]

        def of_inputs(*inputs: Any) -> Any:
            for i, x in zip(which, inputs, strict=True):
                given[i] = x
            return tuple(x for x in gradient(*given) if x is not None)

        _, pull_back = torch.func.vjp(of_inputs, *(given[i] for i in which))
        found = dict(zip(which, pull_back(tuple(results[i - 1] for i in which[1:])), strict=True))
        return tuple(found.get(i) for i in range(len(given)))

    def mapped(number: int, given: Sequence[Any], in_dims: Sequence[Any], size: int, together: bool) -> list[Any]:
        """Tensors with the mapped dimension first, and as many leading ones each; all of them have it if `together`."""
        widths = (*((2,) if number else ()), *trailing)
        leading = max(
            x.ndim - (at is not None) - width
            for x, at, width in zip(given, in_dims, widths, strict=False)
            if x is not None
        )
        moved: list[Any] = list(given)
        for i, (x, at, width) in enumerate(zip(given, in_dims, widths, strict=False)):
            if x is not None:
                x = x[None] if at is None else x.movedim(at, 0)
                x = x.reshape(x.shape[0], *(1,) * (leading + width + 1 - x.ndim), *x.shape[1:])
                moved[i] = x.expand(size, *x.shape[1:]) if together else x
        return moved

    def map_forward(info: Any, in_dims: Sequence[Any], *given: Any) -> Any:
        return operator(*mapped(0, given, in_dims, info.batch_size, together=False)), 0

    def map_backward(info: Any, in_dims: Sequence[Any], *given: Any) -> Any:
        found = operator_of_gradient(*mapped(1, given, in_dims, info.batch_size, together=True))
        shapes = [
            (0,) if x is None else x.shape if at is None else x.movedim(at, 0).shape[1:]
            for x, at in zip(given[1 : num_inputs + 1], in_dims[1:], strict=False)
        ]
        columns = [
            x.new_empty(info.batch_size, 0) if shape == (0,) else x.reshape(info.batch_size, *shape)
            for x, shape in zip(found, shapes, strict=True)
        ]
        return tuple(columns), (0,) * num_inputs

    define, options = torch.library.custom_op, {"mutates_args": ()}
    results = ", ".join(["Tensor"] * num_inputs)
    operator = define(f"randfeat::{name}", forward, schema=f"({arguments}) -> Tensor", **options)
    operator_of_gradient = define(
        f"randfeat::{name}_gradient", backward, schema=f"(Tensor gradient, {arguments}) -> ({results})", **options
    )
    operator.register_fake(like_result)
    operator_of_gradient.register_fake(like_inputs)
    operator.register_autograd(first_derivative, setup_context=keep(num_tensors))
    operator_of_gradient.register_autograd(second_derivative, setup_context=keep(num_tensors + 1))
    operator.register_vmap(map_forward)
    operator_of_gradient.register_vmap(map_backward)
    return operator, operator_of_gradient


def takes_operators(inputs: Sequence[Array | None], constants: Sequence[Array]) -> bool:
    """Whether a function of tensors is to be one operation: where PyTorch records gradients in `inputs`, or compiles.

    It is not where gradients are recorded in `constants`, for transformations of functions (`torch.func`), forward-mode
    derivatives, `torch.jit.trace`, and subclasses of tensors.
    """
    variables = [x for x in inputs if x is not None]
    given = (*variables, *constants)
    if not all(is_torch_array(x) for x in given):
        return False
    torch = sys.modules["torch"]
    records = torch.is_grad_enabled()
    if records and any(x.requires_grad for x in constants):
        return False
    if not torch.compiler.is_compiling():
        is_ordinary = all(type(x) in (torch.Tensor, torch.nn.Parameter) and x.layout == torch.strided for x in given)
        if not (records and any(x.requires_grad for x in variables) and is_ordinary) or torch.jit.is_tracing():
            return False
    return not is_transformed(given[0]) and all(torch.autograd.forward_ad.unpack_dual(x).tangent is None for x in given)
