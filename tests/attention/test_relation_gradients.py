"""The gradient of causal offsets, windows and sinks: against PyTorch and differences, and fast against generic."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention import executors
from randfeat.attention.generic import chunks
from randfeat.attention.numpy import exact_rows
from randfeat.attention.numpy.executor import NumPyExecutor
from tests.arrays import eps_of, same_bits
from tests.attention.test_causal import FUTURES
from tests.attention.test_numpy_executor import FORMS, draw

pytestmark = pytest.mark.usefixtures("small_blocks")

LENGTHS = [(11, 11), (5, 13), (13, 5)]
OPTIONS = [
    *({"is_causal": True, "causal_offset": offset} for offset in (3, -3, 40, -40)),
    *(
        {"is_causal": True, "causal_offset": offset, "window": width, "num_sinks": sinks}
        for offset, width, sinks in (
            (0, 1, 0), (0, 3, 2), (0, 0, 5), (0, 50, 1), (4, 3, 4), (-3, 2, 1), (9, 2, 50), (40, 3, 1), (-40, 3, 1),
        )
    ),
    *({"window": width, "num_sinks": sinks} for width, sinks in ((0, 0), (0, 3), (1, 0), (3, 2), (50, 50))),
]  # fmt: skip
MAPS = {
    "positive": rf.PositiveFeatures(),
    "waves": rf.TrigonometricFeatures(),
    "Gaussian": rf.PositiveFeatures(rf.GaussianKernel(1.5)),
    "centered": rf.CenteredFeatures(query_shift=np.full(5, 0.3), key_shift=np.linspace(-0.5, 0.5, 5)),
    "normalized": rf.PositiveFeatures(rf.NormalizedSoftmaxKernel()),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 4)
    monkeypatch.setattr(chunks, "CAUSAL_CHUNK", 4)
    monkeypatch.setattr(exact_rows, "BAND", 4)
    monkeypatch.setattr(exact_rows, "PAIRS", 50)


def problem(rng, num_queries, num_keys, scale=1.0, heads=2, dtype="float64"):
    shapes = [(heads, num_queries, 5), (2, num_keys, 5), (2, num_keys, 3), (heads, num_queries, 3)]
    query, key, value, cotangent = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return query * query.dtype.type(scale), key * key.dtype.type(scale), value, cotangent


def pull_back(executor, phi, query, key, value, cotangent, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "EXECUTORS", (executor,))
        return rf.linear_attention_vjp(query, key, value, phi, cotangent, **options)


def generic(phi, *inputs, **options):
    return pull_back(executors.GenericExecutor(), phi.to(np.zeros(1)), *(np.float64(x) for x in inputs), **options)


def fast(phi, *inputs, **options):
    return pull_back(NumPyExecutor(), phi, *inputs, **options)


def worst(actual, expected):
    return max(
        np.max(np.abs(a - b), initial=0) / max(np.max(np.abs(b), initial=0), 1e-2)
        for a, b in zip(actual, expected, strict=True)
    )


@pytest.mark.parametrize("name", MAPS)
def test_equals_automatic_differentiation(torch, rng, name):
    """Of the generic pass in PyTorch; masks of keys, and the row terms of queries, which do not cancel."""
    for lengths in LENGTHS[: 3 if name == "positive" else 1]:
        query, key, value, cotangent = problem(rng, *lengths)
        phi = MAPS[name].draw(5, 8, rng=0, batch_shape=(2,))
        for options in OPTIONS:
            mask = rng.random((2, lengths[1])) < 0.7
            leaves = [torch.tensor(x, requires_grad=True) for x in (query, key, value)]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(executors, "EXECUTORS", (executors.GenericExecutor(),))
                given = {"key_mask": torch.tensor(mask), "scale": 0.5, **options}
                out = rf.linear_attention(*leaves, phi.to(leaves[0].detach()), **given)
            found = torch.autograd.grad((out * torch.tensor(cotangent)).sum(), leaves, allow_unused=True)
            pairs = zip(found, (query, key, value), strict=True)
            expected = [np.zeros_like(x) if g is None else g.numpy() for g, x in pairs]
            ours = generic(phi, query, key, value, cotangent, scale=0.5, key_mask=mask, **options)
            assert worst(ours, expected) < 1e-10, (lengths, options)


def test_differences(rng):
    """A step along a random direction in all inputs."""
    query, key, value, cotangent = problem(rng, 11, 11)
    phi, _ = draw("positive")
    for options in OPTIONS:
        steps = [1e-6 * rng.standard_normal(x.shape) for x in (query, key, value)]
        moved = ([x + s * step for x, step in zip((query, key, value), steps, strict=True)] for s in (1, -1))
        ends = [np.sum(cotangent * rf.linear_attention(*inputs, phi, **options)) for inputs in moved]
        found = fast(phi, query, key, value, cotangent, **options)
        along = sum(np.sum(x * step) for x, step in zip(found, steps, strict=True))
        assert abs((ends[0] - ends[1]) / 2 - along) < 1e-6 * (abs(along) + 1e-6), options


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fast_equals_generic(rng, dtype):
    """Grouped heads, masks, hostile logits, states."""
    for lengths in LENGTHS:
        for options in OPTIONS:
            scale = rng.choice([1.0, 5.0])
            inputs = problem(rng, *lengths, scale, heads=4, dtype=dtype)
            phi, _ = draw(str(rng.choice(["positive", "centered", "lopsided", "optimal positive"])), (2,), dtype=dtype)
            given = {"enable_gqa": True, "key_mask": rng.random((2, lengths[1])) < 0.7, **options}
            if not options.get("num_sinks") and rng.random() < 0.5:
                past = problem(rng, 4, 4)
                _, state = rf.linear_attention(*past[:3], phi.to(np.zeros(1)), return_state=True)
                sums = (x[:, None].astype(dtype) for x in (state.log_max, state.weighted, state.total))
                given["initial_state"] = rf.AttentionState(*sums)
            bound = (2e3 if dtype == "float32" else 1e4) * scale**2 * eps_of(dtype)
            assert worst(fast(phi, *inputs, **given), generic(phi, *inputs, **given)) < bound, (lengths, options)


def test_every_form(rng):
    inputs = problem(rng, 11, 11)
    for form in FORMS:
        phi, scale = draw(form, (2,))
        for options in ({"is_causal": True, "causal_offset": -2}, {"window": 3, "num_sinks": 1}):
            if "window" not in options or phi.estimator.kernel == rf.SoftmaxKernel():
                assert worst(fast(phi, *inputs, **options, **scale), generic(phi, *inputs, **options, **scale)) < 1e-11


@pytest.mark.parametrize("future", FUTURES)
@pytest.mark.parametrize("pass_of", [fast, generic])
def test_causal_to_the_last_bit(rng, pass_of, future):
    """dq_i from the keys up to its own position, dk_j and dv_j from the queries from their own position on."""
    phi, _ = draw("positive", (2,))
    for scale in (1.0, 30.0)[:: 1 if future == "NaN" else 2]:
        inputs = rng.standard_normal((4, 2, 21, 5)) * np.array([scale, scale, 1.0, 1.0])[:, None, None, None]
        for options in ({"window": 2, "num_sinks": 4}, {"window": 3, "causal_offset": -2}):
            options = {"is_causal": True, **options}
            clean = pass_of(phi, *inputs, **options)
            for cut in (1, 8, 15):
                later, earlier = inputs.copy(), inputs.copy()
                with np.errstate(all="ignore"):
                    later[:, :, cut:] = FUTURES[future](later[:, :, cut:])
                    earlier[[0, 3], :, :cut] = FUTURES[future](earlier[[0, 3], :, :cut])
                    in_query, _, _ = pass_of(phi, *later, **options)
                    _, in_key, in_value = pass_of(phi, *earlier, **options)
                assert same_bits(in_query[:, :cut], clean[0][:, :cut]), "a query saw the future"
                assert same_bits(in_key[:, cut:], clean[1][:, cut:]), "a key saw the past"
                assert same_bits(in_value[:, cut:], clean[2][:, cut:]), "a value saw the past"


@pytest.mark.parametrize("pass_of", [fast, generic])
def test_nan_in_a_gradient_spoils_what_it_reaches(rng, pass_of):
    """The query itself, and all keys that it sees."""
    phi, _ = draw("positive", (2,))
    inputs = problem(rng, 11, 11)
    inputs[3][0, 6] = np.nan
    in_query, in_key, in_value = pass_of(phi, *inputs, is_causal=True, window=3, num_sinks=1)
    assert np.array_equal(np.isnan(in_query).any(-1)[0], np.arange(11) == 6)
    for x in (in_key, in_value):
        assert np.array_equal(np.isnan(x).any(-1)[0], np.arange(11) <= 6)
        assert not np.isnan(x[1]).any()


def test_threads_change_no_bit(rng):
    phi, _ = draw("positive", (2,), num_features=32, dtype="float32")
    inputs = problem(rng, 23, 23, dtype="float32")
    for options in ({"window": 3, "num_sinks": 2}, {"is_causal": True, "causal_offset": -4}):
        one, *others = (fast(phi, *inputs, num_threads=num, **options) for num in (1, 2, 3))
        assert all(same_bits(x, y) for other in others for x, y in zip(one, other, strict=True))


def test_packed_sequences(rng):
    inputs, cuts = problem(rng, 11, 11), [0, 4, 4, 11]
    phi, _ = draw("positive")
    options = {"is_causal": True, "window": 2, "num_sinks": 1}
    packed = rf.linear_attention_vjp(*inputs[:3], phi, inputs[3], cu_seqlens=cuts, **options)
    for start, stop in ((0, 4), (4, 11)):
        alone = generic(phi, *(x[:, start:stop] for x in inputs), **options)
        assert worst([x[:, start:stop] for x in packed], alone) < 1e-12


def test_without_queries_the_first_keys_have_zero_gradients(rng):
    """In a call, or in a packed sequence that has keys only."""
    phi, _ = draw("positive")
    query, key, value, cotangent = problem(rng, 3, 5)
    for options in ({"window": 0, "num_sinks": 2}, {"window": 2, "num_sinks": 1}):
        none = rf.linear_attention_vjp(query[:, :0], key, value, phi, cotangent[:, :0], **options)
        assert [x.shape for x in none] == [(2, 0, 5), (2, 5, 5), (2, 5, 3)]
        assert not any(x.any() for x in none)
        packed = rf.linear_attention_vjp(
            query, key, value, phi, cotangent, cu_seqlens=([0, 0, 3], [0, 2, 5]), **options
        )
        alone = generic(phi, query, key[:, 2:], value[:, 2:], cotangent, **options)
        assert not any(x[:, :2].any() for x in packed[1:])
        assert worst([packed[0], *(x[:, 2:] for x in packed[1:])], alone) < 1e-12


def test_what_has_no_gradient_says_so(rng):
    query, key, value, cotangent = problem(rng, 5, 5)
    phi = rf.TrigonometricFeatures(rf.GaussianKernel(1.0)).draw(5, 8, rng=0)
    matern = rf.SpectralFeatures(rf.MaternKernel(1.5)).draw(5, 8, rng=0)
    rf.linear_attention_vjp(query, key, value, phi, cotangent, scale=1.0, window=2)
    with pytest.raises(ValueError, match="window has an analytic gradient for kernels of the softmax family"):
        rf.linear_attention_vjp(query, key, value, matern, cotangent, scale=1.0, window=2)
    with pytest.raises(ValueError, match="num_sinks needs window"):
        rf.linear_attention_vjp(query, key, value, phi, cotangent, scale=1.0, num_sinks=2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_sinks": 2}, "num_sinks needs window"),
        ({"num_sinks": -1, "window": 2}, "num_sinks must not be negative, got -1"),
        ({"num_sinks": 2, "window": 2, "return_state": True}, "num_sinks cannot be combined with a state"),
    ],
)
def test_wrong_numbers_of_sinks(rng, options, match):
    query, key, value, _ = problem(rng, 5, 5)
    phi, _ = draw("positive")
    with pytest.raises(ValueError, match=match):
        rf.linear_attention(query, key, value, phi, **options)
