"""Linear attention under `torch.compile` and `torch.autocast`: few graphs for all lengths, and the dtypes of SDPA."""

import pytest

import randfeat as rf
from tests.arrays import same_bits

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
exact = torch.nn.functional.scaled_dot_product_attention
from randfeat.integrations import torch_autograd  # noqa: E402
from randfeat.integrations.torch import LinearAttention, scaled_dot_product_attention  # noqa: E402


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


@COMPILED
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


@COMPILED
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


@pytest.mark.parametrize("which", [(2,), (0, 1), (0,)], ids=str)
@pytest.mark.parametrize("is_causal", [False, True])
def test_dtypes_that_autocast_leaves_mixed(is_causal, which):
    """They are cast to its dtype, as PyTorch does; gradients have the dtypes of the inputs."""
    module = LinearAttention(rf.PositiveFeatures(), dim=8, num_features=16)
    half = [x.to(torch.bfloat16) for x in torch.randn(3, 2, 4, 7, 8)]
    mixed = [(x if i in which else x.float()).requires_grad_() for i, x in enumerate(half)]
    with torch.autocast("cpu", torch.bfloat16):
        actual = module(*mixed, is_causal=is_causal)
        assert actual.dtype == exact(*mixed, is_causal=is_causal).dtype == torch.bfloat16
        assert same_bits(actual.float(), module(*half, is_causal=is_causal).float())
        saving = torch_autograd.linear_attention(*mixed, module.features, is_causal=is_causal)
        assert same_bits(saving.float(), actual.float())
    for output in (actual, saving):
        gradients = torch.autograd.grad(output.float().square().sum(), mixed)
        assert [x.dtype for x in gradients] == [x.dtype for x in mixed]
    for inputs in (mixed, [mixed[0], mixed[1].double(), mixed[2]]):
        with pytest.raises(TypeError, match="must have one dtype"), torch.autocast("cpu", enabled=inputs is not mixed):
            module(*inputs)
