"""Compiled and exported: one graph for all lengths and batches, with the numbers of the function itself."""

import os
import subprocess
import sys

import numpy as np
import pytest

import randfeat as rf

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
from randfeat.integrations.torch import LinearAttention, scaled_dot_product_attention  # noqa: E402

SIZES = (2, 100), (3, 77), (2, 300), (5, 64)  # batch and length: within a chunk, and more than one


@pytest.fixture
def graphs():
    """A backend that counts the graphs it is given."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    yield CompileCounterWithBackend("eager")
    torch._dynamo.reset()


def check_outputs_and_gradients(compiled, function, batch, length, *, autocast=False):
    inputs = [torch.randn(batch, 4, length, 8, requires_grad=True) for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        results = [attend(*inputs) for attend in (compiled, function)]
    gradient = torch.randn_like(results[0])
    found = [torch.autograd.grad(result, inputs, gradient) for result in results]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("is_causal", [False, True])
def test_one_graph_serves_all_lengths_and_batches(graphs, is_causal):
    """PyTorch takes the first sizes for fixed, and opens them at the second ones, unless it is told `dynamic=True`."""
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=torch.zeros(1))
    attend = lambda *inputs: rf.linear_attention(*inputs, phi, is_causal=is_causal)  # noqa: E731
    compiled = torch.compile(attend, fullgraph=True, backend=graphs)
    for batch, length in SIZES:
        check_outputs_and_gradients(compiled, attend, batch, length)
    assert graphs.frame_count == 2


def test_one_graph_with_every_option_of_one_operation():
    """Grouped heads, maps of their own, a fitted estimator, masks and biases, an offset: traced with its backward pass.

    The gradient in the bias is part of it.
    """
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    rng = np.random.default_rng(0)
    estimator = rf.CenteredFeatures.fit(*rng.standard_normal((2, 50, 8)))
    module = LinearAttention(estimator, 8, 16, heads=4, rng=0, is_causal=True, enable_gqa=True, scale=0.2)

    def attend(query, key, value, mask, bias):
        key, value = key[:, :2], value[:, :2]
        return module(query, key, value, key_mask=mask, key_bias=bias, causal_offset=2)

    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend=backend)
    counts = set()
    for batch, length in SIZES:
        inputs = [torch.randn(batch, 4, length, 8, requires_grad=True) for _ in range(3)]
        mask, bias = torch.rand(batch, 1, length) > 0.2, torch.randn(batch, 1, length, requires_grad=True)
        results = [function(*inputs, mask, bias) for function in (compiled, attend)]
        gradient = torch.randn_like(results[0])
        found = [torch.autograd.grad(result, [*inputs, bias], gradient) for result in results]
        torch.testing.assert_close(*results)
        torch.testing.assert_close(*found)
        counts.add(backend.frame_count)  # of the first graph, PyTorch may make two versions
    assert len(counts) == 1
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own, once
def test_transformations_are_compiled(graphs):
    """Directional derivatives pass through the graph; the operations have none, so they are not in it."""
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=torch.zeros(1))
    attend = lambda *inputs: rf.linear_attention(*inputs, phi, is_causal=True)  # noqa: E731
    slope = lambda *inputs: torch.func.jvp(attend, inputs, inputs)[1]  # noqa: E731
    inputs = torch.randn(3, 1, 2, 3, 8)
    torch.testing.assert_close(torch.compile(slope, fullgraph=True, backend=graphs)(*inputs), slope(*inputs))
    assert slope(*inputs).abs().max() > 0


def test_one_graph_with_states_gates_and_masks_under_autocast(graphs):
    module = LinearAttention(rf.PositiveFeatures(), 8, 16, heads=4, rng=0, is_causal=True, decay=0.9)
    _, state = module(*torch.randn(3, 1, 4, 7, 8), return_state=True)

    def attend(*inputs):
        mask = torch.arange(inputs[1].shape[-2]) != 3
        output, after = module(*inputs, initial_state=state, return_state=True, key_mask=mask)
        return torch.cat([output, after.weighted / after.total], dim=-2)

    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend=graphs)
    for batch, length in SIZES[1:]:
        check_outputs_and_gradients(compiled, attend, batch, length, autocast=True)
    assert graphs.frame_count == 1


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


def test_the_operator_keeps_the_rules_of_pytorch():
    """Its schema, its shapes and its gradient, as `torch.library.opcheck` tests them."""
    from randfeat.attention.generic.causal_operator import operator

    state = [torch.full((2, 1, 1), -torch.inf), torch.zeros(2, 6, 3), torch.zeros(2, 6, 1)]
    columns = [torch.randn(2, 5, width, requires_grad=True) for width in (6, 1, 6, 6, 3)]
    torch.library.opcheck(operator, ([*state, *columns],))


LOADED = """
import sys, torch
import randfeat.integrations.torch
for folder in sys.argv[1:]:
    program = torch.export.load(folder + "/attention.pt2")
    inputs, expected = torch.load(folder + "/results.pt")
    torch.testing.assert_close(program.module()(*inputs), expected)
"""


def test_exported_programs_run_in_another_process_at_other_lengths(tmp_path):
    """The graph has one operation and tensors; the process that loads it imports the operation, and nothing else."""
    folders = [tmp_path / name for name in ("full", "causal")]
    sizes = {0: torch.export.Dim("batch", min=2), 2: torch.export.Dim("length", min=2)}
    for folder in folders:
        is_causal = folder.name == "causal"
        module = LinearAttention(rf.PositiveFeatures(), 8, 16, heads=4, is_causal=is_causal).eval()
        program = torch.export.export(module, tuple(torch.randn(3, 2, 4, 10, 8)), dynamic_shapes=(sizes,) * 3)
        targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
        assert [target for target in targets if "randfeat" in target] == ["randfeat.linear_attention.default"]
        folder.mkdir()
        torch.export.save(program, folder / "attention.pt2")
        inputs = tuple(torch.randn(3, 3, 4, 300, 8))
        torch.save((inputs, module(*inputs)), folder / "results.pt")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", LOADED, *map(str, folders)], check=True, env=environment)


def test_compiling_warns_of_nothing(graphs, recwarn):
    module = LinearAttention(rf.PositiveFeatures(), 8, 16)
    torch.compile(module, fullgraph=True, backend=graphs)(*torch.randn(3, 2, 4, 10, 8))
    assert [str(warning.message) for warning in recwarn] == []


def test_numbers_of_decay_compile_as_they_are(graphs):
    """Also gates given as an array keep their digits under inputs in half precision."""
    inputs = torch.randn(3, 1, 2, 40, 8).bfloat16()
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=inputs)
    attend = lambda decay: rf.linear_attention(*inputs, phi, is_causal=True, decay=decay)  # noqa: E731
    compiled = torch.compile(attend, fullgraph=True, backend=graphs)
    torch.testing.assert_close(compiled(0.99), attend(0.99))
    one_unit = {"rtol": torch.finfo(torch.bfloat16).eps, "atol": 1e-5}
    torch.testing.assert_close(attend(torch.tensor([0.99, 0.9])), attend([0.99, 0.9]), **one_unit)
    with pytest.raises(Exception, match="decay must be between 0 and 1"):
        compiled(1.5)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_masks_and_biases_are_compiled(graphs, dtype):
    """No value of a mask is looked at, so one graph serves every mask."""
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=torch.zeros(1))
    compiled = torch.compile(
        lambda *inputs: scaled_dot_product_attention(*inputs, features=phi), fullgraph=True, backend=graphs
    )
    inputs = torch.randn(3, 2, 4, 7, 8)
    for length in (7, 4):
        mask = (torch.arange(7) < torch.tensor([[7], [length]]))[:, None, None]
        given = mask if dtype == torch.bool else torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
        expected = rf.linear_attention(*inputs, phi, key_mask=mask[..., 0, :])
        torch.testing.assert_close(compiled(*inputs, given), expected)
    assert graphs.frame_count == 1


@pytest.mark.parametrize("name", ["key_lengths", "relative_bias"])
def test_options_that_are_tensors_are_compiled(graphs, name):
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=torch.zeros(1))
    given = {
        "key_lengths": torch.tensor([7, 3]),
        "relative_bias": torch.linspace(-1, 1, 13),
    }[name]
    compiled = torch.compile(
        lambda *inputs: rf.linear_attention(*inputs[:3], phi, **{name: inputs[3]}),
        fullgraph=True,
        backend=graphs,
    )
    inputs = torch.randn(3, 2, 4, 7, 8)
    expected = rf.linear_attention(*inputs, phi, **{name: given})
    torch.testing.assert_close(compiled(*inputs, given), expected)
