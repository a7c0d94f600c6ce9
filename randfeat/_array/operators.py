"""Functions of PyTorch tensors that its compilers take for one operation, whatever loops are in them."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from randfeat._array.namespaces import Array

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
