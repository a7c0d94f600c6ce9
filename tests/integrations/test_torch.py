"""The PyTorch module and function: equal to linear_attention, with the meaning of PyTorch's arguments."""

import copy
import pickle

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import same_bits
from tests.cases import ATTENTION

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
exact = torch.nn.functional.scaled_dot_product_attention
from randfeat.integrations.torch import LinearAttention, scaled_dot_product_attention  # noqa: E402

MASK = torch.arange(7) < torch.tensor([[7], [4]])  # (batch, S)

FULL = ((2, 4, 7, 8), (2, 4, 7, 8), (2, 4, 7, 8))
CROSS = ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 3))
BY_BATCH = {"attn_mask": MASK[:, None, None]}, {"key_mask": MASK[:, None]}

# name: (query, key, value shapes, arguments of PyTorch, those of linear_attention)
CASES = {
    "plain": (*FULL, {}, {}),
    "cross, other value dimension": (*CROSS, {}, {}),
    "no heads": ((7, 8), (7, 8), (7, 8), {}, {}),
    "scale": (*FULL, {"scale": 0.1}, {"scale": 0.1}),
    "causal": (*FULL, {"is_causal": True}, {"is_causal": True}),
    "grouped": ((2, 4, 7, 8), (2, 2, 7, 8), (2, 2, 7, 8), {"enable_gqa": True}, {"enable_gqa": True}),
    "padding": (*FULL, *BY_BATCH),
    "one mask": (*CROSS, {"attn_mask": MASK[1:]}, {"key_mask": MASK[1]}),
    "mask without batch": (*CROSS, {"attn_mask": MASK[1:, None]}, {"key_mask": MASK[1]}),
    "one query": ((2, 4, 1, 8), (2, 4, 7, 8), (2, 4, 7, 8), *BY_BATCH),
}


def problem(case, dtype=torch.float64, scale=1.0):
    *shapes, given, ours = CASES[case]
    generator = torch.Generator().manual_seed(0)
    return [(scale * torch.randn(s, generator=generator, dtype=torch.float64)).to(dtype) for s in shapes], given, ours


@pytest.mark.parametrize("case", CASES)
def test_function_is_linear_attention(case):
    """To the bit, for every estimator; and shape, dtype and arguments are those of PyTorch's function."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        (q, k, v), given, ours = problem(case, dtype)
        for estimator in ATTENTION:
            phi = estimator.draw(8, 16, rng=0, like=q)
            out = scaled_dot_product_attention(q, k, v, **given, features=phi)
            assert same_bits(out, rf.linear_attention(q, k, v, phi, **ours))
            assert (out.shape, out.dtype) == (exact(q, k, v, **given).shape, dtype)


@pytest.mark.parametrize("case", CASES)
def test_function_means_what_pytorch_means(case):
    """Many features of small inputs: the exact outputs of PyTorch's own function."""
    (q, k, v), given, _ = problem(case, scale=0.2)
    phi = rf.PositiveFeatures(coupling="orthogonal").draw(8, 2**12, rng=0, like=q)
    out, expected = scaled_dot_product_attention(q, k, v, **given, features=phi), exact(q, k, v, **given)
    assert torch.linalg.norm(out - expected) < 0.02 * torch.linalg.norm(expected)
    if given:  # without its arguments it is off: by more than that, or in its very shape
        plain = {"enable_gqa": True} if "enable_gqa" in given else {}
        other = exact(q, k, v, **plain)
        assert plain or torch.linalg.norm(other - expected) > 1e-3 * torch.linalg.norm(expected)


GENERATOR = torch.Generator().manual_seed(1)
BIAS = torch.randn(4, 13, generator=GENERATOR, dtype=torch.float64)

# what is fixed in a module, and what is given with a call
OPTIONS = {
    "decay": ({"decay": 0.7, "is_causal": True}, {}),
    "decay per head": ({"decay": torch.tensor([0.2, 0.5, 0.9, 1.0])}, {"is_causal": True}),
    "window": ({"window": 3}, {"key_mask": MASK[:, None]}),
    "relative bias": ({"relative_bias": BIAS}, {"is_causal": True, "scale": 0.2}),
    "exact": ({"method": "exact"}, {"key_lengths": torch.tensor([7, 3])}),
    "offset": ({"is_causal": True}, {"causal_offset": 2}),
    "ends": ({}, {"key_ends": torch.tensor([1, 7, 2, 3, 0, 5, 4])}),
    "packed": ({"window": 1}, {"cu_seqlens": [0, 3, 7]}),
    "layout": ({"layout": "blhd"}, {"window": 2}),
    "the call decides": ({"is_causal": True, "scale": 0.1}, {"is_causal": False}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_those_of_linear_attention(name):
    """To the bit: fixed in the module or given with the call, and in the function."""
    fixed, given = OPTIONS[name]
    (q, k, v), _, _ = problem("plain")
    if name == "layout":
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    module = LinearAttention(rf.PositiveFeatures(), 8, 16, rng=3, **fixed).double()
    options = fixed | given
    expected = rf.linear_attention(q, k, v, module.features, **options)
    assert same_bits(module(q, k, v, **given), expected)
    plain = LinearAttention(rf.PositiveFeatures(), 8, 16, rng=3).double()
    assert same_bits(plain(q, k, v, **options), expected)
    if "key_mask" not in options:
        assert same_bits(scaled_dot_product_attention(q, k, v, **options, features=plain), expected)
    assert not same_bits(rf.linear_attention(q, k, v, plain.features), expected) or name in (
        "the call decides",
        "layout",
    )
    assert all(option in repr(module) for option in fixed)


def test_states_pass_through_the_module():
    (q, k, v), _, _ = problem("plain", torch.float32)
    module = LinearAttention(rf.PositiveFeatures(), 8, 16, is_causal=True, decay=0.9)
    first, state = module(q[..., :4, :], k[..., :4, :], v[..., :4, :], return_state=True)
    second = module(q[..., 4:, :], k[..., 4:, :], v[..., 4:, :], initial_state=state)
    np.testing.assert_allclose(torch.cat([first, second], dim=-2), module(q, k, v), rtol=2e-5, atol=1e-6)


def test_tensors_among_options_belong_to_the_module():
    """Buffers and parameters: saved, moved and trained."""
    (q, k, v), _, _ = problem("plain", torch.float32)
    bias = torch.nn.Parameter(BIAS.float())
    module = LinearAttention(rf.PositiveFeatures(), 8, 16, relative_bias=bias)
    assert [name for name, _ in module.named_parameters()] == ["relative_bias"]
    assert set(module.state_dict()) == {"rows", "relative_bias"}
    module(q, k, v).square().sum().backward()
    assert float(bias.grad.abs().max()) > 0
    assert module.double().options["relative_bias"].dtype == torch.float64
    module = LinearAttention(rf.PositiveFeatures(), 8, 16, decay=torch.ones(4), is_causal=True)
    assert str(module.to("meta").options["decay"].device) == "meta"
    assert "decay=(4,)" in repr(module)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"windows": 3}, TypeError, "LinearAttention got windows, expected keywords of linear_attention: is_causal"),
        ({"key_mask": MASK}, ValueError, "key_mask cannot be given to LinearAttention: they belong to one call"),
        ({"decay": 0.5, "window": 3}, ValueError, "decay and window cannot be combined"),
        ({"decay": 0.5, "is_causal": False}, ValueError, "decay needs is_causal=True"),
        ({"method": "fast"}, ValueError, 'method must be "linear", "exact" or "auto"'),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(options, error, message):
    with pytest.raises(error, match=message):
        LinearAttention(rf.PositiveFeatures(), 8, 16, **options)


def test_positional_arguments_are_those_of_pytorch():
    (q, k, v), _, _ = problem("padding")
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=q)
    out = scaled_dot_product_attention(q, k, v, MASK[:, None, None], 0.0, True, features=phi)
    assert same_bits(out, rf.linear_attention(q, k, v, phi, key_mask=MASK[:, None], is_causal=True))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"dropout_p": 0.1}, ValueError, r"dropout_p must be 0, got 0.1: .* dropout=0.1 is that of the outputs"),
        ({"attn_mask": torch.ones(7, 7, dtype=torch.bool)}, ValueError, r"pairs of queries and keys .* is_causal"),
        ({"attn_mask": torch.ones(2, 4, 7, 7, dtype=torch.bool).tril()}, ValueError, r"\(2, 4, 7, 7\)"),
        ({"attn_mask": torch.zeros(2, 1, 7, 7)}, ValueError, "bias of pairs of queries and keys has no linear-time"),
        ({"attn_mask": torch.ones(2, 1, 1, 7, dtype=torch.int64)}, TypeError, "must be boolean"),
        ({"attn_mask": torch.ones(7, dtype=torch.bool)}, ValueError, r"shape \(..., 1, S\)"),
        ({"attn_mask": torch.ones(3, 1, 1, 7, dtype=torch.bool)}, ValueError, "key_mask must have shape"),
        ({"features": rf.PositiveFeatures()}, TypeError, "features must be a FeatureMap"),
        ({"features": rf.PositiveFeatures().draw(8, 16)}, TypeError, "one array library"),
    ],
)
def test_refusals(given, error, message):
    (q, k, v), _, _ = problem("plain")
    features = rf.PositiveFeatures().draw(8, 16, rng=0, like=q)
    with pytest.raises(error, match=message):
        scaled_dot_product_attention(q, k, v, **{"features": features, **given})


def test_a_module_in_place_of_its_map_is_refused():
    """The map is an attribute of it, which the error names; other things have none."""
    module = LinearAttention(rf.PositiveFeatures(), 8, 16, rng=0)
    with pytest.raises(TypeError, match=r"got LinearAttention; give its \.features\.$"):
        rf.AttentionDecoder(module)
    with pytest.raises(TypeError, match=r"got PositiveFeatures\.$"):
        rf.AttentionDecoder(rf.PositiveFeatures())


def test_module_is_linear_attention():
    (q, k, v), _, _ = problem("plain", torch.float32)
    for heads in (None, 4):
        module = LinearAttention(rf.PositiveFeatures(), 8, 16, heads=heads, rng=3)
        phi = rf.PositiveFeatures().draw(8, 16, rng=3, like=q, batch_shape=None if heads is None else (4,))
        options = {"is_causal": True, "scale": 0.2, "key_mask": MASK[:, None]}
        assert same_bits(module(q, k, v, **options), rf.linear_attention(q, k, v, phi, **options))
        assert same_bits(scaled_dot_product_attention(q, k, v, features=module), module(q, k, v))
    assert list(module.parameters()) == []
    assert repr(module) == f"LinearAttention({repr(module.features).removeprefix('FeatureMap(')}"


def fitted():
    q, k = np.random.default_rng(0).standard_normal((2, 4, 50, 8))
    return rf.adapt(q, k, num_features=16)


@pytest.mark.parametrize(
    "make", [rf.PositiveFeatures, rf.TrigonometricFeatures, fitted], ids=["positive", "trig", "fitted"]
)
def test_module_is_saved_copied_and_moved(make, tmp_path):
    """state_dict, deepcopy and pickle carry the draw; float64 and half casts do what they should."""
    (q, k, v), _, _ = problem("plain", torch.float32)
    module = LinearAttention(make(), 8, 16, rng=0)
    other = LinearAttention(make(), 8, 16, rng=1)
    expected = module(q, k, v)
    assert not torch.equal(other(q, k, v), expected)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    for twin in (other, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(q, k, v), expected)
    halved = copy.deepcopy(module).half()
    assert {buffer.dtype for buffer in halved.buffers()} == {torch.float32}
    assert torch.equal(halved(q, k, v), expected)
    assert halved(q.half(), k.half(), v.half()).dtype == torch.float16
    assert {buffer.dtype for buffer in module.double().buffers()} == {torch.float64}
    assert {str(buffer.device) for buffer in module.to("meta").buffers()} == {"meta"}


def test_redraw_is_explicit_and_in_place():
    (q, k, v), _, _ = problem("plain", torch.float32)
    module = LinearAttention(rf.PositiveFeatures(), 8, 16, rng=0)
    buffer = module.rows
    first = module(q, k, v)
    assert torch.equal(module.train()(q, k, v), first)
    module.redraw(1)
    assert module.rows is buffer
    assert torch.equal(module(q, k, v), LinearAttention(rf.PositiveFeatures(), 8, 16, rng=1)(q, k, v))


def rows_of(*modules):
    return [module.features.fingerprint for module in modules]


def make(**options):
    return LinearAttention(rf.PositiveFeatures(), 8, 16, **options)


def test_modules_differ_by_default_and_follow_the_seed_of_pytorch():
    torch.manual_seed(0)
    stack = [make() for _ in range(3)]
    assert len(set(rows_of(*stack))) == 3
    torch.manual_seed(0)
    assert rows_of(*(make() for _ in range(3))) == rows_of(*stack)
    assert rows_of(make(rng=0), make(rng=0), make(rng=stack[0].rng)) == rows_of(make(rng=0), make(rng=0), stack[0])
    with torch.device("meta"):  # a seed needs numbers
        empty = make()
    assert empty.rows.is_meta
    made = empty.to_empty(device="cpu")
    made.reset_parameters()
    assert rows_of(made) == rows_of(make(rng=empty.rng))


class Model(torch.nn.Module):
    """Two layers, with features or without."""

    def __init__(self, attention):
        super().__init__()
        self.project = torch.nn.Linear(8, 24)
        self.attention = torch.nn.ModuleList(attention() for _ in range(2))


def test_checkpoints_of_exact_attention_load_strictly():
    """The features stay as they were drawn; one of several arrays that is missing, or another shape, is an error."""
    exact_model = Model(torch.nn.Identity)
    for persistent in (True, False):
        model = Model(lambda persistent=persistent: make(persistent=persistent))
        before = rows_of(*model.attention)
        model.load_state_dict(exact_model.state_dict())
        assert rows_of(*model.attention) == before
        assert torch.equal(model.project.weight, exact_model.project.weight)
        assert ("attention.0.rows" in model.state_dict()) is persistent
    model, other = Model(make), Model(make)
    model.load_state_dict(other.state_dict())
    assert rows_of(*model.attention) == rows_of(*other.attention)
    with pytest.raises(RuntimeError, match=r"size mismatch for attention\.0\.rows"):
        model.load_state_dict(Model(lambda: LinearAttention(rf.PositiveFeatures(), 8, 32)).state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*attention\.0\.rows"):
        Model(lambda: make(persistent=False)).load_state_dict(other.state_dict())
    several = LinearAttention(fitted(), 8, 16)
    state = several.state_dict()
    assert len(state) > 1
    state.popitem()
    with pytest.raises(RuntimeError, match="Missing key"):
        several.load_state_dict(state)


def test_set_estimator_replaces_the_features():
    """Of the old ones nothing remains; device, dtype, seed and number of maps do."""
    (q, k, v), _, _ = problem("plain", torch.float64)
    module = make(heads=4, rng=3).double()
    module.rows = torch.nn.Parameter(module.rows)
    for estimator in (fitted(), rf.TrigonometricFeatures(), rf.PositiveFeatures()):
        module.set_estimator(estimator)
        phi = estimator.draw(8, 16, rng=3, like=q, batch_shape=(4,))
        assert rows_of(module) == [phi.fingerprint]
        assert set(module.state_dict()) == {name.replace(".", "_") for name in phi.arrays}
        assert same_bits(module(q, k, v), rf.linear_attention(q, k, v, phi))
    module.set_estimator(rf.PositiveFeatures(), num_features=32, rng=1)
    assert (module.num_features, module.rng, tuple(module.rows.shape)) == (32, 1, (4, 32, 8))
    assert list(module.parameters()) == []
    with pytest.raises(TypeError, match="must be an Estimator, got the class PositiveFeatures"):
        module.set_estimator(rf.PositiveFeatures)
    assert tuple(module.rows.shape) == (4, 32, 8)  # after an error nothing has changed


def test_rows_are_trained_once_they_are_a_parameter():
    """Steps reduce the error against exact attention; saved, reset and moved like any parameter."""
    (q, k, v), _, _ = problem("plain", torch.float64)
    module = make(heads=4, rng=0).double()
    module.rows = torch.nn.Parameter(module.rows)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    errors = []
    for _ in range(10):
        error = (module(q, k, v) - exact(q, k, v)).square().mean()
        errors.append(float(error.detach()))
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert errors[-1] < 0.9 * errors[0]
    assert list(module.state_dict()) == ["rows"]
    module.reset_parameters()
    assert rows_of(module) == rows_of(make(heads=4, rng=0))
    assert isinstance(module.rows, torch.nn.Parameter)


CASTS = {
    "half()": lambda module: module.half(),
    "bfloat16()": lambda module: module.bfloat16(),
    "to(torch.bfloat16)": lambda module: module.to(torch.bfloat16),
    "to(device, torch.float16)": lambda module: module.to("cpu", torch.float16),
    "type": lambda module: module.type(torch.bfloat16),
    "to(like another tensor)": lambda module: module.to(torch.zeros(1, dtype=torch.bfloat16)),
    "inside a model": lambda module: torch.nn.Sequential(module).to(torch.bfloat16)[0],
}


@pytest.mark.parametrize("name", CASTS)
def test_casts_to_half_precision_leave_the_buffers_in_float32(name):
    module = make(rng=0, decay=torch.tensor([0.99, 0.9]), is_causal=True)
    expected = {key: value.clone() for key, value in module.state_dict().items()}
    cast = CASTS[name](module)
    assert {key: value.dtype for key, value in cast.state_dict().items()} == dict.fromkeys(expected, torch.float32)
    assert all(same_bits(value, expected[key]) for key, value in cast.state_dict().items())
    inputs = torch.randn(3, 1, 2, 5, 8).to(torch.bfloat16)
    output = make(rng=0)(*inputs.float(), decay=expected["decay"], is_causal=True)
    assert same_bits(cast(*inputs), output.to(torch.bfloat16))
    assert {x.dtype for x in module.double().buffers()} == {torch.float64}


def test_module_inside_a_model_learns():
    """Gradients pass through it to the layers around it."""

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.project = torch.nn.Linear(8, 24)
            self.attention = LinearAttention(rf.PositiveFeatures(), 8, 16)

        def forward(self, x):
            return self.attention(*self.project(x).chunk(3, dim=-1), is_causal=True)

    layer = Layer()
    assert set(layer.state_dict()) == {"project.weight", "project.bias", "attention.rows"}
    layer(torch.ones(2, 5, 8)).square().sum().backward()
    assert torch.all(torch.isfinite(layer.project.weight.grad))
    assert float(layer.project.weight.grad.abs().max()) > 0


def test_dropout_is_that_of_the_outputs():
    """In training by the module, in every call by the function; the same numbers as PyTorch's own on the outputs."""
    (q, k, v), _, _ = problem("plain", torch.float32)
    module = make(rng=0, dropout=0.25)
    plain = make(rng=0)(q, k, v, is_causal=True)
    assert "dropout=0.25" in repr(module)
    assert same_bits(module.eval()(q, k, v, is_causal=True), plain)
    results = []
    for call in (
        lambda: module.train()(q, k, v, is_causal=True),
        lambda: module(q, k, v, is_causal=True, return_state=True)[0],
        lambda: scaled_dot_product_attention(q, k, v, is_causal=True, features=module, dropout=0.25),
        lambda: torch.nn.functional.dropout(plain, 0.25),
    ):
        torch.manual_seed(0)
        results.append(call())
    assert all(same_bits(result, results[-1]) for result in results[1:])
    np.testing.assert_allclose(results[0], results[-1], rtol=1e-6, atol=1e-6)
    for wrong in (-0.1, 1.5, True, "0.1"):
        with pytest.raises(ValueError, match="dropout must be a probability"):
            make(dropout=wrong)


def test_scale_and_balance_are_trained_outside_of_the_features():
    """Factors whose product is one change the estimate alone; a scale changes exact attention, too."""
    (q, k, v), _, _ = problem("plain", torch.float64)
    module = make(heads=4, rng=0).double()
    log_balance = torch.nn.Parameter(torch.zeros(4, 1, 8, dtype=torch.float64))
    log_scale = torch.nn.Parameter(torch.zeros(4, 1, 1, dtype=torch.float64))

    def attend(**options):
        return module(q * (log_balance + log_scale).exp(), k * (-log_balance).exp(), v, **options)

    for options, changes in (({}, True), ({"method": "exact"}, False)):
        slopes = torch.autograd.grad(attend(**options).square().sum(), (log_balance, log_scale))
        assert bool(slopes[0].abs().max() > 1e-3) is changes
        assert bool(slopes[0].abs().max() < 1e-12) is not changes
        assert slopes[1].abs().max() > 1e-3
    with torch.no_grad():
        log_balance += torch.linspace(-0.5, 0.5, 8, dtype=torch.float64)
        expected = exact(q, k, v)
        torch.testing.assert_close(attend(method="exact"), expected)
        assert not torch.allclose(attend(), module(q, k, v))


def test_module_misuse():
    with pytest.raises(TypeError, match="must be an Estimator, got the class PositiveFeatures; write PositiveFeatures"):
        LinearAttention(rf.PositiveFeatures, 8, 16)
    with pytest.raises((ValueError, TypeError), match="heads"):
        LinearAttention(rf.PositiveFeatures(), 8, 16, heads=0)
    with pytest.raises(ValueError, match="dimension 8, but the features were drawn for 4"):
        LinearAttention(rf.PositiveFeatures(), 4, 16)(*problem("plain")[0])


def test_the_feature_map_is_kept_until_a_buffer_changes():
    """Its fingerprint is computed once; every way to change the rows gives a new one."""
    module = LinearAttention(rf.PositiveFeatures(), dim=8, num_features=16)
    other = LinearAttention(rf.PositiveFeatures(), dim=8, num_features=16, rng=1)
    assert module.features is module.features
    seen = [module.features.fingerprint]
    changes = (
        lambda: module.redraw(2),
        lambda: module.load_state_dict(other.state_dict()),
        lambda: module.rows.mul_(2),
        lambda: setattr(module, "rows", module.rows + 1),
    )
    for change in changes:
        change()
        rows = rf.FeatureMap(module.estimator, 8, 16, {"rows": module.rows})
        assert module.features.fingerprint == rows.fingerprint
        seen.append(rows.fingerprint)
    assert len(set(seen)) == len(seen)
    assert copy.deepcopy(module).features.arrays["rows"] is not module.rows


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("pair", [False, True])
def test_offsets_of_packed_sequences_are_tensors_on_the_host(dtype, pair):
    inputs, cuts = torch.randn(3, 2, 7, 8), [0, 3, 3, 7]
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=inputs[0])
    given = torch.tensor(cuts, dtype=dtype)
    for function in (rf.linear_attention, lambda *given, **options: rf.softmax_attention(*given[:3], **options)):
        actual = function(*inputs, phi, cu_seqlens=(given, given) if pair else given)
        assert same_bits(actual, function(*inputs, phi, cu_seqlens=cuts))
    with pytest.raises(TypeError, match=r"on the host .* got Tensor on meta"):
        rf.linear_attention(*inputs, phi, cu_seqlens=given.to("meta"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_summands_of_the_logits(dtype):
    """0 and -inf are a mask, to the bit; any others are those of PyTorch's function."""
    inputs = torch.randn(3, 2, 4, 7, 8)
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=inputs[0])
    mask = MASK[:, None, None]
    added = torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, -torch.inf)
    for is_causal in (False, True):
        actual, expected = (
            scaled_dot_product_attention(*inputs, m, is_causal=is_causal, features=phi) for m in (added, mask)
        )
        assert same_bits(actual, expected)
    bias = torch.linspace(-2, 2, 2 * 4 * 7).reshape(2, 4, 1, 7).masked_fill(~mask, -torch.inf)
    biased = scaled_dot_product_attention(*inputs, bias.to(dtype), features=phi, method="exact")
    expected = exact(*inputs, bias.to(dtype).float())
    torch.testing.assert_close(biased, expected)
    estimated = scaled_dot_product_attention(*inputs, bias.to(dtype), features=phi)
    assert same_bits(estimated, rf.linear_attention(*inputs, phi, key_bias=bias.to(dtype)[..., 0, :]))
    with pytest.raises(TypeError, match="multiple values"):
        scaled_dot_product_attention(*inputs, mask, features=phi, key_mask=MASK[:, None])
