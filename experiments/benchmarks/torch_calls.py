"""Linear attention on PyTorch tensors as calls without arguments: without gradients, and with them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest import mock

import randfeat as rf
from experiments.benchmarks.peers import SDPA, tensors, torch_gradients, torch_peers
from experiments.benchmarks.timing import Call
from experiments.benchmarks.workload import Workload
from randfeat.attention import executors

__all__ = ["BOTH", "FAVOR", "FORWARD", "GENERIC", "NUMPY", "forward_calls", "gradient_calls", "own_call", "saved_bytes"]

FORWARD, BOTH = "randfeat, torch", "randfeat, torch, forward and backward"
GENERIC = "randfeat, torch, generic pass"
NUMPY = "randfeat, NumPy"
FAVOR = "FAVOR+, plain torch"


def forward_calls(names: Sequence[str], work: Workload, *, is_causal: bool) -> tuple[dict[str, Call], list[str]]:
    """Our call on tensors, those of the named contenders on the same numbers, without gradients; and notes."""
    peers, notes = torch_peers([name for name in names if name != NUMPY], work, is_causal=is_causal)
    own: dict[str, Call] = {FORWARD: own_call(FORWARD, work, is_causal=is_causal)}
    if NUMPY in names:
        own[NUMPY] = partial(work.attend, is_causal=is_causal)
    return {**own, **peers}, notes


def gradient_calls(work: Workload, *, is_causal: bool) -> dict[str, Call]:
    """Forward and backward passes of all contenders, with the values as the gradient of the output."""
    from torch.nn.functional import scaled_dot_product_attention

    inputs = tensors(work)[:3]
    exact = partial(scaled_dot_product_attention, is_causal=is_causal)
    ours = own_call(BOTH, work, is_causal=is_causal)

    def generic() -> object:
        with mock.patch.object(executors, "EXECUTORS", executors.EXECUTORS[-1:]):
            return ours()

    return {
        BOTH: ours,
        GENERIC: generic,
        SDPA: partial(differentiate, exact, inputs),
        FAVOR: torch_gradients(work, is_causal=is_causal)["both"],
    }


def own_call(name: str, work: Workload, *, is_causal: bool) -> Call:
    """Our forward pass, or both passes, on tensors."""
    inputs = tensors(work)[:3]
    phi = work.features.to(inputs[0])

    def attend(query: Any, key: Any, value: Any) -> Any:
        return rf.linear_attention(query, key, value, phi, is_causal=is_causal)

    return partial(differentiate, attend, inputs) if name == BOTH else partial(attend, *inputs)


def differentiate(attend: Callable[..., Any], inputs: Sequence[Any]) -> list[Any]:
    """Output, and the gradients in the inputs for the values as the gradient of the output."""
    import torch

    leaves = [x.detach().requires_grad_() for x in inputs]
    output = attend(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, inputs[2])]


def saved_bytes(work: Workload, *, is_causal: bool) -> int:
    """Bytes that our forward pass keeps for the backward pass, inputs and output included; each storage counts once."""
    import torch

    storages: dict[int, int] = {}

    def pack(x: Any) -> Any:
        storage = x.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return x

    query, key, value = (x.detach().requires_grad_() for x in tensors(work)[:3])
    phi = work.features.to(query)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output = rf.linear_attention(query, key, value, phi, is_causal=is_causal)
    return sum(storages.values()) if output.requires_grad else 0
