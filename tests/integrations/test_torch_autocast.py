"""Under torch.autocast: mixed dtypes are cast as PyTorch does, and features keep the precision of their inputs."""

import pytest

import randfeat as rf
from tests.arrays import same_bits

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
from randfeat.integrations import torch_autograd  # noqa: E402
from randfeat.integrations.torch import LinearAttention, scaled_dot_product_attention  # noqa: E402

exact = torch.nn.functional.scaled_dot_product_attention

X, Y, V = torch.randn(3, 2, 4, 7, 8, generator=torch.Generator().manual_seed(0))
MODULE = LinearAttention(rf.PositiveFeatures(), 8, 16, rng=0)
PHI = MODULE.features
STATE = rf.linear_attention(X, Y, V, PHI, return_state=True)[1]
MOMENTS = rf.FeatureMoments.empty(PHI, 1)
FUNCTIONS = rf.prior_functions(PHI, 3, rng=0)

# every way to a product of matrices
ENTRIES = {
    "module": lambda dtype: MODULE(X.to(dtype), Y.to(dtype), V.to(dtype)),
    "causal": lambda dtype: MODULE(X.to(dtype), Y.to(dtype), V.to(dtype), is_causal=True),
    "window": lambda dtype: MODULE(X.to(dtype), Y.to(dtype), V.to(dtype), window=2),
    "with a state": lambda dtype: MODULE(X.to(dtype), Y.to(dtype), V.to(dtype), initial_state=STATE),
    "function": lambda dtype: scaled_dot_product_attention(X.to(dtype), Y.to(dtype), V.to(dtype), features=PHI),
    "autograd": lambda dtype: torch_autograd.linear_attention(X.to(dtype), Y.to(dtype), V.to(dtype), PHI),
    "gradient": lambda dtype: rf.linear_attention_vjp(X.to(dtype), Y.to(dtype), V.to(dtype), PHI, V.to(dtype))[1],
    "exact": lambda dtype: rf.softmax_attention(X.to(dtype), Y.to(dtype), V.to(dtype)),
    "exact features": lambda dtype: MODULE(X.to(dtype), Y.to(dtype), V.to(dtype), method="exact"),
    "features": lambda dtype: PHI(X.to(dtype)),
    "keys": lambda dtype: PHI.keys(X.to(dtype)).log_scale,
    "estimate": lambda dtype: PHI.estimate(X.to(dtype), Y.to(dtype)),
    "pull back": lambda dtype: PHI.pull_back(X.to(dtype), PHI.queries(X.to(dtype)), torch.ones(2, 4, 7, 16)),
    "kernel": lambda dtype: rf.GaussianKernel()(X.to(dtype), Y.to(dtype)),
    "log kernel": lambda dtype: rf.SoftmaxKernel().log_gram(X.to(dtype), Y.to(dtype)),
    "state": lambda dtype: STATE.append(PHI.keys(Y.to(dtype)), V.to(dtype)).read(PHI.queries(X.to(dtype))),
    "moments": lambda dtype: MOMENTS.append(X[0, 0].to(dtype), V[0, 0, :, :1].to(dtype)).gram,
    "functions": lambda dtype: FUNCTIONS(X[0, 0].to(dtype)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ENTRIES)
def test_autocast_changes_no_bit(name, dtype):
    if dtype == torch.float64 and name in ("with a state", "state", "moments", "functions", "pull back"):
        pytest.skip("what is given is float32")
    expected = ENTRIES[name](dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert (X @ X.mT).dtype == torch.bfloat16  # of plain products it would
        actual = ENTRIES[name](dtype)
        assert torch.is_autocast_enabled("cpu")
    assert actual.dtype == expected.dtype
    assert same_bits(actual.float(), expected.float())


def test_other_devices_than_that_of_autocast_are_left_alone():
    with torch.autocast("cpu", torch.bfloat16):
        assert PHI.to(X).queries(X).log_scale.dtype == torch.float32
        assert MODULE(*torch.zeros(3, 2, 4, 7, 8)).dtype == torch.float32
        on_meta = LinearAttention(rf.PositiveFeatures(), 8, 16, rng=0).to("meta")
        assert on_meta(*(x.to("meta") for x in (X, Y, V))).is_meta


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
