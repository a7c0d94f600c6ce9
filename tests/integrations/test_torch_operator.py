"""Recorded attention is one operation of PyTorch: numbers of the generic pass, inputs alone kept, every rule."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention import executors
from randfeat.attention.generic_executor import GenericExecutor

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
import torch.autograd.forward_ad as forward_mode  # noqa: E402

from randfeat.attention.problem import Problem  # noqa: E402
from randfeat.attention.torch import executor as of_torch  # noqa: E402
from randfeat.attention.torch.form import Form  # noqa: E402
from randfeat.attention.torch.operators import operator, operator_of_gradient  # noqa: E402

L, D = 70, 6
SAME = ((2, 4, L, D),) * 3


def centered_and_balanced():
    x, y = np.random.default_rng(0).standard_normal((2, 50, D))
    return rf.BalancedFeatures.fit(x + 1, y - 0.5, base=rf.CenteredFeatures.fit(x + 1, y - 0.5))


def bias(*shape):
    """Biases that require a gradient, with a masked key."""
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return numbers.masked_fill(torch.arange(shape[-1]) == 5, -torch.inf).requires_grad_()


# name: (shapes, batch of maps, estimator, options)
CASES = {
    "full": (SAME, None, rf.PositiveFeatures(), {}),
    "causal": (SAME, (4,), rf.HyperbolicFeatures(), {"is_causal": True}),
    "gaussian": (SAME, None, rf.PositiveFeatures(rf.GaussianKernel(1.7)), {"scale": 1.0}),
    "transformed": (SAME, None, centered_and_balanced(), {"is_causal": True, "scale": 0.3}),
    "mask": (SAME, None, rf.PositiveFeatures(), {"key_mask": torch.arange(L) % 3 > 0}),
    "bias": (SAME, (4,), centered_and_balanced(), {"key_bias": bias(2, 1, L), "key_mask": torch.arange(L) > 8}),
    "causal bias": (SAME, None, rf.PositiveFeatures(), {"key_bias": bias(L), "is_causal": True}),
    "grouped": (
        ((2, 4, L, D), (2, 2, L, D), (2, 2, L, 3)),
        (4,),
        rf.PositiveFeatures(),
        {"enable_gqa": True, "key_bias": bias(2, 2, L)},
    ),
    "broadcast": (((2, 1, 65, D), (4, L, D), (2, 4, L, 3)), None, rf.PositiveFeatures(), {}),
    "offset": (((2, 4, 9, D), (2, 4, L, D), (2, 4, L, D)), (4,), centered_and_balanced(),
               {"is_causal": True, "causal_offset": L - 9, "key_bias": bias(2, 1, L)}),
    "blhd": (((2, L, 4, D),) * 3, (4,), rf.PositiveFeatures(), {"layout": "blhd"}),
    "lengths": (SAME, None, rf.PositiveFeatures(), {"key_lengths": torch.tensor([L, 3])}),
}  # fmt: skip


def inputs_of(shapes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def operations(output):
    """Names of all nodes of the graph of a recorded tensor."""
    nodes, seen = [output.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
    return {node.name() for node in seen}


def is_one_operation(output):
    return any("randfeat_linear_attention" in name for name in operations(output))


def check_against_generic(monkeypatch, function, inputs, **tolerance):
    output = function(*inputs)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(3)).to(output.dtype)
    found = output, *torch.autograd.grad(output, inputs, gradient)
    with monkeypatch.context() as patched:
        patched.setattr(executors, "EXECUTORS", (GenericExecutor(),))
        output = function(*inputs)
        assert not is_one_operation(output)
        expected = output, *torch.autograd.grad(output, inputs, gradient)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)
    return found[0]


@pytest.mark.parametrize("case", CASES)
def test_equals_the_generic_pass(monkeypatch, case):
    shapes, batch, estimator, options = CASES[case]
    inputs = inputs_of(shapes)
    phi = estimator.draw(D, 16, rng=0, like=inputs[0].detach(), batch_shape=batch)
    names = [name for name, x in options.items() if isinstance(x, torch.Tensor) and x.requires_grad]

    def attend(query, key, value, *others):
        return rf.linear_attention(query, key, value, phi, **options | dict(zip(names, others, strict=True)))

    inputs += [options[name] for name in names]
    # the two analytic forms of a gradient differ by roundings of sums of terms that are up to e^10 times as large
    assert is_one_operation(check_against_generic(monkeypatch, attend, inputs, rtol=1e-9, atol=1e-11))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["mask", "causal bias"])
def test_half_types_are_widened_once(monkeypatch, dtype, name):
    """Features and sums are float32; outputs and gradients are rounded once, to the dtype of the inputs."""
    shapes, _, estimator, options = CASES[name]
    inputs = inputs_of(shapes, dtype)
    phi = estimator.draw(D, 16, rng=0, like=inputs[0].detach())
    ulp = torch.finfo(dtype).eps
    tolerance = {"rtol": ulp if dtype != torch.float32 else 1e-4, "atol": 1e-4}
    options = {name: x.detach() if isinstance(x, torch.Tensor) else x for name, x in options.items()}
    output = check_against_generic(
        monkeypatch, lambda *given: rf.linear_attention(*given, phi, **options), inputs, **tolerance
    )
    assert is_one_operation(output)
    assert output.dtype == dtype


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("lowest", [torch.finfo(torch.float32).min, -1e9, -1e4])
def test_large_negative_biases_that_stand_for_masks(monkeypatch, lowest, is_causal):
    """The lowest number of the dtype, too, as masks of other libraries have it: nothing becomes infinite or NaN."""
    inputs = inputs_of(SAME, torch.float32)
    phi = rf.PositiveFeatures().draw(D, 16, rng=0, like=inputs[0].detach())
    key_bias = torch.zeros(L).masked_fill(torch.arange(L) > 40, lowest)
    attend = lambda *given: rf.linear_attention(*given, phi, is_causal=is_causal, key_bias=key_bias)  # noqa: E731
    output = check_against_generic(monkeypatch, attend, inputs, rtol=1e-3, atol=1e-4)
    assert is_one_operation(output)
    mask = torch.arange(L) <= 40
    expected = rf.linear_attention(*inputs, phi, is_causal=is_causal, key_mask=mask)
    torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("is_causal", [False, True])
def test_gradcheck_once_and_twice(monkeypatch, is_causal):
    """The bias among the inputs, a mask, and features that are transformed: every term of every gradient."""
    monkeypatch.setattr(of_torch, "SHORTEST", 1)
    inputs = [*inputs_of(((1, 3, 2),) * 3), torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64).requires_grad_()]
    rng = np.random.default_rng(0)
    estimator = rf.BalancedFeatures.fit(*rng.standard_normal((2, 9, 2)))
    phi = estimator.draw(2, 4, rng=0, like=inputs[0].detach())

    def attend(query, key, value, key_bias):
        mask = torch.tensor([True, True, False])
        return rf.linear_attention(query, key, value, phi, is_causal=is_causal, key_bias=key_bias, key_mask=mask)

    assert is_one_operation(attend(*inputs))
    assert torch.autograd.gradcheck(attend, inputs)
    assert torch.autograd.gradgradcheck(attend, inputs)


@pytest.mark.parametrize("is_causal", [False, True])
def test_inputs_alone_are_kept(is_causal):
    """At most 1.2 times the inputs; the generic pass keeps many times as much."""
    inputs = [torch.randn(2, 600, 16, requires_grad=True) for _ in range(3)]
    phi = rf.PositiveFeatures().draw(16, 64, rng=0, like=inputs[0].detach())

    def kept(features):
        sizes = []

        def pack(x):
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            rf.linear_attention(*inputs, features, is_causal=is_causal)
        return sum(sizes) / sum(x.numel() for x in inputs)

    learned = rf.FeatureMap(phi.estimator, 16, 64, {"rows": phi.arrays["rows"].clone().requires_grad_()})
    assert kept(phi) <= 1.2
    assert kept(learned) > 4


def test_what_the_operation_does_not_serve_is_recorded_by_pytorch():
    inputs = inputs_of(SAME)
    phi = rf.PositiveFeatures().draw(D, 16, rng=0, like=inputs[0].detach())
    learned = rf.FeatureMap(phi.estimator, D, 16, {"rows": phi.arrays["rows"].clone().requires_grad_()})
    signed = rf.TrigonometricFeatures().draw(D, 16, rng=0, like=inputs[0].detach())
    for features, options in (
        (learned, {}), (signed, {}), (phi, {"is_causal": True, "decay": 0.9}), (phi, {"window": 3}),
        (phi, {"return_state": True}),
    ):  # fmt: skip
        result = rf.linear_attention(*inputs, features, **options)
        output = result[0] if isinstance(result, tuple) else result
        assert not is_one_operation(output)
        assert torch.isfinite(torch.autograd.grad(output.sum(), inputs[0])[0]).all()
    rows = learned.arrays["rows"]
    assert torch.autograd.grad(rf.linear_attention(*inputs, learned).sum(), rows)[0].abs().max() > 0
    with torch.no_grad():
        assert rf.linear_attention(*inputs, learned).grad_fn is None


def test_envelopes_that_numbers_do_not_state():
    """A kernel with an envelope of its own is not taken for the kernel that it was derived from."""

    class Steeper(rf.GaussianKernel):
        def log_envelope(self, sqnorm):
            return -sqnorm

        def envelope_slope(self, sqnorm):
            return -1.0

    inputs = inputs_of(SAME)
    for kernel, expected in ((rf.GaussianKernel(), True), (Steeper(), False)):
        for estimator in (rf.PositiveFeatures(kernel), rf.CenteredFeatures(base=rf.PositiveFeatures(kernel))):
            phi = estimator.draw(D, 16, rng=0, like=inputs[0].detach())
            assert is_one_operation(rf.linear_attention(*inputs, phi, scale=1.0)) is expected


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own, once
@pytest.mark.parametrize("is_causal", [False, True])
def test_transformations_of_functions(is_causal):
    """torch.func and forward mode: the gradient of the recorded operation, mapped, and as directional derivatives."""
    inputs = inputs_of(SAME)
    phi = rf.PositiveFeatures().draw(D, 16, rng=0, like=inputs[0].detach())
    loss = lambda *given: rf.linear_attention(*given, phi, is_causal=is_causal).square().sum()  # noqa: E731
    expected = torch.autograd.grad(loss(*inputs), inputs)
    points = [x.detach() for x in inputs]
    gradient = torch.func.grad(loss, argnums=(0, 1, 2))
    for actual in (gradient(*points), torch.func.vmap(gradient)(*points)):
        torch.testing.assert_close(actual, expected)
    slope = sum((x * y).sum() for x, y in zip(expected, points, strict=True))
    torch.testing.assert_close(torch.func.jvp(loss, tuple(points), tuple(points))[1], slope)
    with forward_mode.dual_level():
        dual = [forward_mode.make_dual(x.requires_grad_(), x.detach()) for x in points]
        torch.testing.assert_close(forward_mode.unpack_dual(loss(*dual)).tangent, slope)


def arguments(shapes, *, is_causal, **options):
    """The arguments of the operator for a call."""
    given = inputs_of(shapes)
    phi = centered_and_balanced().draw(D, 4, rng=0, like=given[0].detach())
    problem = Problem.of(*(x.detach() for x in given), phi, is_causal=is_causal, **options)
    inputs, form = problem.inputs, Form.of(problem)
    return [*given, inputs.key_bias, inputs.key_mask, *form, inputs.root, is_causal, 0, None]


@pytest.mark.parametrize("is_causal", [False, True])
def test_rules_of_pytorch(is_causal):
    """Schema, shapes, autograd and tracing of both operators, as `torch.library.opcheck` tests them."""
    given = arguments(((2, 5, D), (5, D), (2, 5, 3)), is_causal=is_causal, key_bias=bias(5) if is_causal else None)
    torch.library.opcheck(operator, given)
    gradient = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.library.opcheck(operator_of_gradient, (gradient, *given), test_utils="test_faketensor")


def test_rules_of_vmap():
    """Over some of the arguments, of different numbers of dimensions, and at different places: a loop over slices."""
    query, key, value, key_bias, *others = arguments(((2, 5, D), (5, D), (2, 5, 3)), is_causal=True, key_bias=bias(5))
    query, key, key_bias = (
        torch.stack([x.detach(), x.detach() / 2, -x.detach()], dim=1) for x in (query, key, bias(5, 1))
    )
    key_bias = key_bias[..., 0].masked_fill(torch.isinf(key_bias[..., 0]), 0.0)
    gradient = torch.randn(2, 5, 3, dtype=torch.float64)

    def attend(query, key, key_bias):
        given = (query, key, value.detach(), key_bias, *others)
        return operator(*given), *operator_of_gradient(gradient, *given)

    mapped = torch.func.vmap(attend, in_dims=(1, 1, 1))(query, key, key_bias)
    for i in range(3):
        for one, all_of_them in zip(attend(query[:, i], key[:, i], key_bias[:, i]), mapped, strict=True):
            torch.testing.assert_close(all_of_them[i], one)
