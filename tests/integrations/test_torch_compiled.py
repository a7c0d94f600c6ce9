"""Compiled and exported: one graph for all lengths and batches, with the numbers of the function itself."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

import randfeat as rf

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
from randfeat.integrations.torch import LinearAttention  # noqa: E402

SIZES = (2, 10), (3, 20), (2, 33), (3, 64), (2, 300)  # batch, length: at most, below and beyond a chunk


@pytest.fixture
def graphs():
    """A backend that counts the graphs it is given."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    yield CompileCounterWithBackend("eager")
    torch._dynamo.reset()


COMPILED = pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")


@COMPILED
@pytest.mark.parametrize("dynamic", [None, True])
def test_one_graph_compiles_full_attention_of_many_lengths(graphs, dynamic):
    """Up to the length of a chunk there is one graph beside the first, static one."""
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=torch.zeros(1))
    compiled = torch.compile(
        lambda *inputs: rf.linear_attention(*inputs, phi), fullgraph=True, dynamic=dynamic, backend=graphs
    )
    for length in (10, 20, 33, 64, 256):
        inputs = torch.randn(3, 2, 5, length, 8)
        torch.testing.assert_close(compiled(*inputs), rf.linear_attention(*inputs, phi))
    assert graphs.frame_count == (1 if dynamic else 2)


@COMPILED
def test_causal_attention_is_compiled_once_for_each_power_of_two(graphs):
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=torch.zeros(1))
    compiled = torch.compile(
        lambda *inputs: rf.linear_attention(*inputs, phi, is_causal=True), fullgraph=True, dynamic=True, backend=graphs
    )
    for batch, length in ((2, 10), (3, 13), (4, 20), (3, 31), (3, 27), (2, 18)):
        inputs = torch.randn(3, batch, 5, length, 8)
        torch.testing.assert_close(compiled(*inputs), rf.linear_attention(*inputs, phi, is_causal=True))
    assert graphs.frame_count == 2


@COMPILED
def test_decoding_is_compiled(graphs):
    """A state goes in and out of one graph, as from the module itself."""
    module = LinearAttention(rf.PositiveFeatures(), dim=8, num_features=16, heads=5, is_causal=True)
    compiled = torch.compile(
        lambda *inputs: module(*inputs[:3], initial_state=inputs[3], return_state=True), fullgraph=True, backend=graphs
    )
    _, expected = module(*torch.randn(3, 2, 5, 7, 8), return_state=True)
    state = expected
    for _ in range(5):
        inputs = torch.randn(3, 2, 5, 1, 8)
        actual, state = compiled(*inputs, state)
        output, expected = module(*inputs, initial_state=expected, return_state=True)
        torch.testing.assert_close(actual, output)
        torch.testing.assert_close(state.weighted, expected.weighted)
    assert graphs.frame_count <= 2


