"""Compressed attention as operators of PyTorch: one node of a compiled or exported graph, for all lengths."""

from collections.abc import Callable
from typing import Any

import torch

from randfeat._array import to_numpy
from randfeat.compressed import QueryClusters, clustered_attention, compressed_attention
from randfeat.compressed.query_clusters import NAMES

__all__ = ["attend_in_graph"]

ALWAYS = {
    "query": "Tensor",
    "key": "Tensor",
    "value": "Tensor",
    "key_mask": "Tensor?",
    "query_mask": "Tensor?",
    "scale": "float?",
    "enable_gqa": "bool",
    "layout": "str",
    "rng": "int",
}
TYPES = {
    "clustered": ALWAYS | {
        "clusters": "Tensor[]", "num_clusters": "SymInt?", "num_exact": "SymInt?", "num_merged": "SymInt?",
        "num_threads": "int?", "accuracy": "float?", "second_order": "bool",
    },
    "compressed": ALWAYS | {
        "queries": "Tensor?", "num_keys": "SymInt?", "window": "SymInt?", "num_sinks": "SymInt?", "fit": "bool?",
        "is_causal": "bool",
    },
}  # fmt: skip
"""The arguments of each operator, with their types in PyTorch's schemas."""
DEFAULTS = {"enable_gqa": False, "layout": "bhld", "rng": 0, "clusters": (), "second_order": False, "is_causal": False}


def call(method: str, *arguments: Any) -> torch.Tensor:
    """`clustered_attention`, whose frozen clusters are a list of tensors, empty for none; or `compressed_attention`."""
    options = dict(zip(TYPES[method], arguments, strict=True))
    if method == "compressed":
        return compressed_attention(**options)
    arrays = [to_numpy(x) for x in options["clusters"]]
    named = dict(zip(NAMES, arrays, strict=False))
    options["clusters"] = QueryClusters(**named, scale=options["scale"]) if named else None
    return clustered_attention(**options)


def like_output(method: str, *arguments: Any) -> torch.Tensor:
    """A tensor of the shape and dtype of the output, without looking at numbers."""
    options = dict(zip(TYPES[method], arguments, strict=True))
    query, key, value = arguments[:3]
    length, heads = (-2, -3) if options["layout"] == "bhld" else (-3, -2)
    shapes = [[*x.shape[:-1], 1] for x in (query, key, value)]
    for shape in shapes[1:]:  # these dimensions are those of the queries
        shape[length] = 1
        if options["enable_gqa"]:
            shape[heads] = 1
    lead = torch.broadcast_shapes(*map(tuple, shapes))
    return value.new_empty((*lead[:-1], value.shape[-1]))


def pull_back(method: str, gradient: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, ...]:
    """Gradients in query, key and value, with the fit held constant."""
    _, function = torch.func.vjp(lambda *inputs: call(method, *inputs, *arguments[3:]), *arguments[:3])
    return tuple(x.clone(memory_format=torch.contiguous_format) for x in function(gradient))


def operator(method: str) -> Callable[..., torch.Tensor]:
    """The operator `randfeat::METHOD_attention`; its gradient is an operator, too, and cannot be differentiated."""
    schema = ", ".join(f"{kind} {name}" for name, kind in TYPES[method].items())

    def custom(name: str, function: Callable[..., Any], signature: str) -> Any:
        return torch.library.custom_op(f"randfeat::{name}", function, mutates_args=(), schema=signature)

    forward = custom(f"{method}_attention", lambda *x: call(method, *x).contiguous(), f"({schema}) -> Tensor")
    backward = custom(
        f"{method}_attention_gradient", lambda *x: pull_back(method, *x),
        f"(Tensor gradient, {schema}) -> (Tensor, Tensor, Tensor)",
    )  # fmt: skip

    def keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.options = inputs[5:]

    def gradients(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        none = ([None] * len(option) if isinstance(option, list | tuple) else None for option in ctx.options)
        return *backward(gradient, *ctx.saved_tensors, *ctx.options), None, None, *none

    forward.register_fake(lambda *x: like_output(method, *x))
    backward.register_fake(
        lambda gradient, *x: tuple(torch.empty_like(y, memory_format=torch.contiguous_format) for y in x[:3])
    )
    forward.register_autograd(gradients, setup_context=keep)
    return forward


OPERATORS = {method: operator(method) for method in TYPES}


def attend_in_graph(
    method: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any
) -> torch.Tensor:
    """The output of a method, by its operator; `clusters` is a list of tensors, in the order of `NAMES`."""
    given = DEFAULTS | {"query": query, "key": key, "value": value} | options
    return OPERATORS[method](*(given.get(name) for name in TYPES[method]))
