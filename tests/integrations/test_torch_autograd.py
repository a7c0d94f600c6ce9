"""The backward pass for PyTorch: the generic function's gradients, and nothing kept but inputs."""

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, dtype_of, eps_of, same_bits, to_numpy
from tests.attention.test_linear import LAYOUTS, problem
from tests.cases import ATTENTION
from tests.conftest import load_backend
from tests.reference import naive_attention

BOTH = pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])


@pytest.fixture
def attend(torch):
    from randfeat.integrations.torch_autograd import linear_attention

    return linear_attention


def inputs_of(torch, rng, shape=(2, 5, 4), dtype="float64"):
    xp = load_backend("torch")
    return [asarray(xp, x, dtype).requires_grad_(True) for x in rng.standard_normal((3, *shape))]


@BOTH
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_generic_function(torch, attend, rng, layout, is_causal):
    query, key, value, options = problem(rng, layout)
    if "key_mask" in options:
        options["key_mask"] = torch.tensor(options["key_mask"])
    inputs = [asarray(torch, x).requires_grad_(True) for x in (query, key, value)]
    for estimator in ATTENTION[::2]:
        phi = estimator.draw(5, 8, rng=0, like=inputs[0])
        ours, theirs = (f(*inputs, phi, is_causal=is_causal, **options) for f in (attend, rf.linear_attention))
        with torch.no_grad():
            plain, expected = (f(*inputs, phi, is_causal=is_causal, **options) for f in (attend, rf.linear_attention))
        assert same_bits(plain, expected)
        # Where a gradient is recorded, PyTorch takes other products of matrices for the same sums.
        naive = naive_attention(phi, query, key, value, is_causal=is_causal, **options)
        for out in (ours, theirs):
            naive.check(out, eps_of("float64"), most=1e-11 if estimator.positive else 1e-6)
        g = torch.tensor(rng.standard_normal(ours.shape))
        pairs = zip(*(torch.autograd.grad(out, inputs, g) for out in (ours, theirs)), strict=True)
        for one, other in pairs:
            # equal up to the rounding of two programs for one function, over small denominators of signed features
            np.testing.assert_allclose(one, other, atol=1e-9 * float(abs(other).max()))


@BOTH
@pytest.mark.parametrize("estimator", ATTENTION[:3:2], ids=repr)
def test_gradcheck_once_and_twice(torch, attend, rng, estimator, is_causal):
    inputs = inputs_of(torch, rng, (1, 3, 2))
    phi = estimator.draw(2, 4, rng=0, like=inputs[0])
    mask = torch.tensor([True, False, True])
    for options in ({}, {"key_mask": mask}):
        run = lambda q, k, v, options=options: attend(q, k, v, phi, is_causal=is_causal, **options)  # noqa: E731
        assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtypes(torch, attend, rng, dtype):
    inputs = inputs_of(torch, rng, dtype=dtype)
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=inputs[0])
    pairs = [torch.autograd.grad(f(*inputs, phi).sum(), inputs) for f in (attend, rf.linear_attention)]
    for one, other in zip(*pairs, strict=True):
        assert one.dtype == dtype_of(torch, dtype)
        tolerance = (1.01 * eps_of(dtype) + 250 * eps_of("float32")) * float(abs(other).max() + 1e-2)
        np.testing.assert_allclose(to_numpy(one), to_numpy(other), atol=tolerance)


@BOTH
def test_only_inputs_are_kept(torch, attend, rng, is_causal):
    """What autograd packs away: query, key, value and the mask, also where the generic function keeps much more."""
    inputs = inputs_of(torch, rng, (1, 300, 4))
    mask = torch.ones(300, dtype=torch.bool)
    phi = rf.TrigonometricFeatures().draw(4, 64, rng=0, like=inputs[0])

    def kept(function):
        sizes = []

        def pack(x):
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            function(*inputs, phi, is_causal=is_causal, key_mask=mask)
        return sorted(sizes)

    assert kept(attend) == [300, 1200, 1200, 1200]
    assert sum(kept(rf.linear_attention)) > 2 * 300 * 64


def test_transforms(torch, attend, rng):
    """torch.func: grad, and vmap over it."""
    query, key, value = (x.detach() for x in inputs_of(torch, rng))
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=query)

    def gradient(function):
        return torch.func.grad(lambda q, k, v: function(q, k, v, phi, is_causal=True).square().sum(), argnums=(0, 1, 2))

    expected = gradient(rf.linear_attention)(query, key, value)
    for actual in (gradient(attend)(query, key, value), torch.func.vmap(gradient(attend))(query, key, value)):
        for one, other in zip(actual, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)


def test_what_pytorch_differentiates_itself(torch, attend, rng):
    """States, learned rows, features without an analytic gradient: the generic function's results and gradients."""
    inputs = inputs_of(torch, rng)
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=inputs[0])
    rows = phi.arrays["rows"].clone().requires_grad_(True)
    learned = rf.FeatureMap(phi.estimator, 4, 8, {"rows": rows})
    activation = rf.ActivationFeatures().draw(4, 8, rng=0, like=inputs[0])
    bias = torch.zeros(5, dtype=torch.float64).requires_grad_(True)
    signed = rf.TrigonometricFeatures().draw(4, 8, rng=0, like=inputs[0])
    for features, options, wanted in (
        (learned, {}, rows),
        (activation, {"scale": 1.0}, inputs[0]),
        (signed, {"key_bias": bias}, bias),
    ):
        ours, theirs = (f(*inputs, features, **options).square().sum() for f in (attend, rf.linear_attention))
        np.testing.assert_allclose(*(torch.autograd.grad(out, wanted)[0] for out in (ours, theirs)), rtol=1e-10)
    (out, state), (expected, after) = (f(*inputs, phi, return_state=True) for f in (attend, rf.linear_attention))
    assert same_bits(out.detach(), expected.detach())
    assert same_bits(state.weighted.detach(), after.weighted.detach())


def test_refused(torch, attend, rng):
    query, key, value = inputs_of(torch, rng)
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=query)
    with pytest.raises(TypeError, match="tensors"):
        attend(*(to_numpy(x) for x in (query, key, value)), phi)
    with pytest.raises(TypeError, match="FeatureMap"):
        attend(query, key, value, phi.estimator)


def test_compiles_into_one_graph(torch, attend, rng):
    """Traced whole, with its gradients; test_torch_compiled.py compiles the generic function."""
    inputs = inputs_of(torch, rng)
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, like=inputs[0])
    run = lambda q, k, v: attend(q, k, v, phi)  # noqa: E731
    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    gradients = [torch.autograd.grad(function(*inputs).square().sum(), inputs) for function in (run, compiled)]
    torch._dynamo.reset()
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*gradients, strict=True))
