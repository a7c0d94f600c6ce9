"""AttentionDecoder: token by token, in pieces, reordered and repeated, what one causal pass gives."""

import copy
import itertools
import pickle

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention import decoder as decoder_module
from randfeat.attention import executors
from randfeat.attention.numpy import running_sums
from tests.arrays import HALF, asarray, eps_of, library, to_numpy
from tests.attention.test_numpy_executor import DTYPES, FORMS, draw
from tests.cases import ATTENTION
from tests.conftest import load_backend
from tests.reference import naive_attention

LENGTH = 21  # more than the keys that are kept one by one
FAST = ("numpy", "torch", "jax")


@pytest.fixture
def only_short(monkeypatch):
    """No call may take the long way."""

    def refuse(*args, **options):
        raise AssertionError("linear_attention was called")

    monkeypatch.setattr(decoder_module, "attend", refuse)


def tokens(xp, rng, *lead, length=LENGTH, dim=5, value_dim=3, dtype="float64", spread=1.0):
    query, key = spread * rng.standard_normal((2, *lead, length, dim))
    return [asarray(xp, x, dtype) for x in (query, key, rng.standard_normal((*lead, length, value_dim)))]


def piece(arrays, start, stop):
    return [x[..., start:stop, :] for x in arrays]


def decoded(decoder, arrays, cuts, masks=None):
    """Outputs of steps between the cuts."""
    outputs = []
    for start, stop in itertools.pairwise(cuts):
        mask = None if masks is None else masks[..., start:stop]
        outputs.append(to_numpy(decoder.step(*piece(arrays, start, stop), mask)))
    return np.concatenate(outputs, axis=-2)


def cuts_of(length=LENGTH):
    """A prompt, a short piece, then single tokens."""
    return [0, 3, 5, *range(6, length + 1)]


def assert_same_state(actual, expected, rtol=1e-10):
    """Equal up to rounding, after division by the largest key of each feature."""
    for name in ("log_max", "weighted", "total"):
        a, b = to_numpy(getattr(actual, name)), to_numpy(getattr(expected, name))
        assert a.shape == b.shape
        assert np.allclose(a, b, rtol=rtol, atol=rtol * np.max(np.abs(b[np.isfinite(b)]), initial=1.0)), name


def causal(monkeypatch, *arrays, **options):
    """The generic pass over all tokens, and its state."""
    with monkeypatch.context() as patch:
        patch.setattr(executors, "EXECUTORS", executors.EXECUTORS[-1:])
        return rf.linear_attention(*arrays, is_causal=True, return_state=True, **options)


@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_steps_are_a_causal_pass(xp, rng, estimator):
    """Against the naive twin, with the state of `linear_attention` at the end."""
    if library(xp) == "jax" and estimator is not ATTENTION[0]:
        pytest.skip("one estimator where each shape is compiled")
    arrays = tokens(xp, rng, 2)
    phi = estimator.draw(5, 8, rng=0, like=arrays[0], batch_shape=(2,))
    decoder = rf.AttentionDecoder(phi)
    assert decoder.state is None
    expected = naive_attention(phi, *arrays, is_causal=True, merges=4 * LENGTH)
    expected.check(decoded(decoder, arrays, cuts_of()), eps_of("float64"), most=1e-10 if estimator.positive else 1e-5)
    _, state = rf.linear_attention(*arrays, phi, return_state=True)
    assert decoder.num_keys == LENGTH
    assert decoder.state.origin is phi
    assert_same_state(decoder.state, state)


SHAPES = {
    "no lead": ((), (), (), False),
    "one map": ((2, 3), (2, 3), (), False),
    "map per head": ((2, 3), (2, 3), (3,), False),
    "map per batch and head": ((2, 3), (2, 3), (2, 3), False),
    "keys shared by the batch": ((2, 3), (1, 3), (3,), False),
    "keys shared by heads": ((2, 3), (2, 1), (), False),
    "keys of one head, maps of all": ((2, 3), (2, 1), (3,), False),
    "grouped, one map": ((2, 4), (2, 2), (), True),
    "grouped, map per query head": ((2, 4), (2, 2), (4,), True),
    "grouped, map per key head": ((2, 4), (2, 2), (2,), True),
    "grouped, one key head": ((2, 4), (2, 1), (4,), True),
}
"""Leading dimensions of queries, of keys and of maps, and whether heads are grouped."""


@pytest.mark.parametrize("case", SHAPES)
def test_leading_dimensions(rng, case):
    queries, keys, maps, grouped = SHAPES[case]
    query, _, _ = tokens(np, rng, *queries)
    _, key, value = tokens(np, rng, *keys)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, batch_shape=maps)
    decoder = rf.AttentionDecoder(phi, enable_gqa=grouped)
    options = {"is_causal": True, "enable_gqa": grouped, "return_state": True}
    expected, state = rf.linear_attention(query, key, value, phi, **options)
    assert np.allclose(decoded(decoder, (query, key, value), cuts_of()), expected, rtol=1e-11, atol=1e-12)
    assert_same_state(decoder.state, state)
    appended = rf.AttentionDecoder(phi, enable_gqa=grouped)
    for start, stop in ((0, 9), (9, 10), (10, LENGTH)):
        appended.append(key[..., start:stop, :], value[..., start:stop, :])
    assert_same_state(appended.state, state)


@DTYPES
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.usefixtures("only_short")
def test_every_exponential_form(rng, monkeypatch, name, dtype):
    """In place, and without a call of `linear_attention`; against the generic pass in float64."""
    phi, options = draw(name, (2,), dtype=dtype)
    arrays = tokens(np, rng, 3, 2, dtype=dtype)
    decoder = rf.AttentionDecoder(phi, **options)
    outputs = decoded(decoder, arrays, [0, 1, 4, *range(5, LENGTH + 1)])
    exact = [x.astype(np.float64) for x in arrays]
    expected, state = causal(monkeypatch, *exact, phi.to(exact[0]), **options)
    rtol = 1e-11 if dtype == "float64" else 2e-5
    assert np.allclose(outputs, expected, rtol=rtol, atol=rtol)
    assert_same_state(decoder.state, state, rtol)


@pytest.mark.parametrize("name", [name for name in FAST if name != "numpy"])
@pytest.mark.usefixtures("only_short")
def test_arrays_of_other_libraries_on_a_cpu(rng, name):
    """The numbers of NumPy, to the last bit, in the library of the arrays."""
    xp = load_backend({"jax": "jax.numpy"}.get(name, name))
    arrays = tokens(np, rng, 2, dtype="float32")
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=arrays[0])
    there = [asarray(xp, x, "float32") for x in arrays]
    mask = rng.random((1, LENGTH)) < 0.7
    decoders = rf.AttentionDecoder(phi), rf.AttentionDecoder(phi.to(there[0]))
    for at in range(6):
        ours = decoders[0].step(*piece(arrays, at, at + 1), mask[..., at : at + 1])
        theirs = decoders[1].step(*piece(there, at, at + 1), asarray(xp, mask[..., at : at + 1], "bool"))
        assert type(theirs) is type(there[0])
        assert theirs.dtype == there[0].dtype
        assert np.array_equal(to_numpy(theirs), ours)
    state = decoders[1].state
    assert type(state.total) is type(there[0])
    assert np.array_equal(to_numpy(state.weighted), decoders[0].state.weighted)


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision(xp, rng, dtype):
    """Computed in float32; the output in the dtype of the value."""
    if library(xp) == "array_api_strict":
        pytest.skip("array_api_strict has no half precision")
    arrays = tokens(xp, rng, 2, dtype=dtype)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=arrays[0])
    decoder = rf.AttentionDecoder(phi)
    outputs = [decoder.step(*piece(arrays, at, at + 1)) for at in range(4)]
    assert all(output.dtype == arrays[0].dtype for output in outputs)
    assert decoder.state.total.dtype == xp.float32
    expected = naive_attention(phi, *(x[..., :4, :] for x in arrays), is_causal=True, merges=20)
    expected.check(xp.concat(outputs, axis=-2), eps_of("float32"), output_eps=eps_of(dtype), most=1e-2)


SPREADS = {"ordinary": 1.0, "7 sigma": 7.0}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.usefixtures("only_short")
def test_long_inputs(rng, monkeypatch, spread):
    """Many keys that exceed the headroom, alone and in the middle of a call, in float32."""
    arrays = tokens(np, rng, 2, 2, length=60, dtype="float32", spread=SPREADS[spread])
    phi = rf.PositiveFeatures().draw(5, 16, rng=0, like=arrays[0], batch_shape=(2,))
    raised = []
    raise_reference = decoder_module.RunningSums.raise_reference
    monkeypatch.setattr(
        decoder_module.RunningSums, "raise_reference",
        lambda self, *keys: raised.append(1) or raise_reference(self, *keys),
    )  # fmt: skip
    exact = [x.astype(np.float64) for x in arrays]
    expected, state = causal(monkeypatch, *exact, phi.to(exact[0]))
    for cuts in (range(61), [*range(0, 57, 7), 60]):
        raised.clear()
        decoder = rf.AttentionDecoder(phi)
        outputs = decoded(decoder, arrays, list(cuts))
        assert len(raised) < 4 if spread == "ordinary" else 4 < len(raised) < 30
        # exponents up to 500 in float32
        tolerance = 1e-5 if spread == "ordinary" else 5e-4
        assert np.allclose(outputs, expected, rtol=tolerance, atol=tolerance)
        assert np.allclose(decoder.state.log_max, state.log_max, rtol=1e-5, atol=1e-5)
        assert np.allclose(decoder.state.read(phi.queries(arrays[0])), state.read(phi.to(exact[0]).queries(exact[0])),
                           rtol=tolerance, atol=tolerance)  # fmt: skip


@pytest.mark.parametrize("estimator", ATTENTION[::2], ids=repr)
def test_masked_keys(rng, estimator):
    """Sequences that begin at different times, with holes, and anything in what is masked."""
    arrays = tokens(np, rng, 3, 2)
    mask = rng.random((3, 1, LENGTH)) < 0.8
    mask[1, :, :10], mask[2, :, :LENGTH] = False, False
    for x in arrays[1:]:
        x[np.broadcast_to(~mask, x.shape[:-1])] = np.nan
    phi = estimator.draw(5, 8, rng=0, batch_shape=(2,))
    clean = [np.nan_to_num(x) for x in arrays]
    expected, state = rf.linear_attention(*clean, phi, is_causal=True, key_mask=mask, return_state=True)
    for cuts in (cuts_of(), range(LENGTH + 1), [0, 8, 16, LENGTH]):
        decoder = rf.AttentionDecoder(phi)
        outputs = decoded(decoder, arrays, list(cuts), mask)
        assert np.allclose(outputs, expected, rtol=1e-10, atol=1e-10)
        assert np.all(outputs[2] == 0)
        assert_same_state(decoder.state, state)
        assert decoder.num_keys == LENGTH


@pytest.mark.parametrize("spoiled", ["key", "value"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_spoils_later_outputs_of_its_head(rng, spoiled, number):
    """And no earlier one, nor another head, alone and in the middle of a call."""
    arrays = tokens(np, rng, 2, 2, dtype="float32")
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=arrays[0], batch_shape=(2,))
    clean = decoded(rf.AttentionDecoder(phi), arrays, range(LENGTH + 1))
    arrays[("query", "key", "value").index(spoiled)][1, 0, 9, 1] = number
    for cuts in (range(LENGTH + 1), [0, 4, 12, 20, 21]):
        outputs = decoded(rf.AttentionDecoder(phi), arrays, list(cuts))
        others = np.ones_like(outputs, dtype=bool)
        others[1, 0, 9:] = False
        assert np.allclose(outputs[others], clean[others], rtol=1e-5, atol=1e-6)
        assert not np.any(np.isfinite(outputs[1, 0, 9:, 1]))


FUTURES = {"long": (1, 40.0), "NaN key": (1, np.nan), "NaN value": (2, np.nan), "infinite value": (2, np.inf)}


@pytest.mark.parametrize("future", FUTURES)
@pytest.mark.parametrize("way", ["decoder", "linear_attention"])
def test_outputs_do_not_depend_on_later_tokens_of_the_call(rng, future, way):
    """To the last bit, whether the keys after them fit or not."""
    arrays = tokens(np, rng, 2, length=16, dtype="float32")
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=arrays[0])
    _, state = rf.linear_attention(*piece(arrays, 0, 8), phi, return_state=True)

    def outputs():
        if way == "decoder":
            return rf.AttentionDecoder(phi, state).step(*piece(arrays, 8, 16))
        return rf.linear_attention(*piece(arrays, 8, 16), phi, is_causal=True, initial_state=state)

    before = outputs()
    which, number = FUTURES[future]
    for at in (15, 12, 9):
        arrays[which][:, at] = number
        assert np.array_equal(outputs()[:, : at - 8], before[:, : at - 8])


@pytest.mark.parametrize("name", FAST)
def test_reorder_and_repeat(rng, name):
    """With keys in the sums and others not yet, as if the tokens of each sequence had been another's."""
    xp = load_backend({"jax": "jax.numpy"}.get(name, name))
    arrays = tokens(xp, rng, 3, 2)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=arrays[0], batch_shape=(2,))
    index = np.array([2, 0, 0, 1])
    expected = rf.linear_attention(*(to_numpy(x)[index] for x in arrays), phi.to(np.zeros(1)), is_causal=True)
    decoder = rf.AttentionDecoder(phi)
    decoded(decoder, arrays, [0, 8, 14, *range(15, 19)])
    decoder.reorder(asarray(xp, index, "int64"))
    chosen = [x[asarray(xp, index, "int64")] for x in arrays]
    assert np.allclose(decoded(decoder, chosen, [18, 19, 21]), expected[..., 18:, :], rtol=1e-11, atol=1e-12)

    decoder = rf.AttentionDecoder(phi)
    decoded(decoder, arrays, [0, 7, *range(8, 19)])
    decoder.repeat(2)
    twice = [xp.repeat(x, 2, axis=0) if name != "torch" else x.repeat_interleave(2, 0) for x in arrays]
    expected = rf.linear_attention(*map(to_numpy, twice), phi.to(np.zeros(1)), is_causal=True)
    assert np.allclose(decoded(decoder, twice, range(18, 22)), expected[..., 18:, :], rtol=1e-11, atol=1e-12)
    assert decoder.num_keys == LENGTH


def test_reorder_on_any_library_and_map(xp, rng):
    """Through the immutable state, where there are no sums in place."""
    arrays = tokens(xp, rng, 3)
    phi = rf.TrigonometricFeatures().draw(5, 8, rng=0, like=arrays[0])
    decoder = rf.AttentionDecoder(phi)
    decoder.append(*arrays[1:])
    before = to_numpy(decoder.state.weighted)
    decoder.reorder([2, 0])
    assert np.array_equal(to_numpy(decoder.state.weighted), before[[2, 0]])
    decoder.repeat(2)
    assert np.array_equal(to_numpy(decoder.state.weighted), before[[2, 2, 0, 0]])
    with pytest.raises(IndexError, match=r"index must be between 0 and 3, got \[4, -1\]"):
        decoder.reorder([4, -1])
    single = [to_numpy(x)[[2, 2, 0, 0], :1] for x in arrays]
    initial = rf.AttentionState(*(to_numpy(getattr(decoder.state, x)) for x in ("log_max", "weighted", "total")))
    expected = rf.linear_attention(*single, phi.to(np.zeros(1)), is_causal=True, initial_state=initial)
    output = decoder.step(*(asarray(xp, x) for x in single))
    assert np.allclose(to_numpy(output), expected, rtol=1e-9, atol=1e-9)


def test_nobody_else_holds_its_arrays(rng):
    """Neither the state that it is given, nor the one that it gives, nor the tokens, change with it."""
    arrays = tokens(np, rng, 2)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    _, state = rf.linear_attention(*piece(arrays, 0, 9), phi, return_state=True)
    kept = copy.deepcopy(state)
    decoder = rf.AttentionDecoder(phi, state)
    decoded(decoder, arrays, range(9, 13))
    middle = decoder.state
    kept_middle = copy.deepcopy(middle)
    for copied in (decoder, copy.deepcopy(decoder), pickle.loads(pickle.dumps(decoder))):
        outputs = decoded(copied, arrays, range(12, LENGTH + 1))
        expected = rf.linear_attention(*arrays, phi, is_causal=True)[..., 12:, :]
        assert np.allclose(outputs, expected, rtol=1e-11, atol=1e-12)
        assert copied.num_keys == LENGTH - 9
    for one, same in ((state, kept), (middle, kept_middle)):
        assert all(np.array_equal(getattr(one, name), getattr(same, name)) for name in ("log_max", "weighted", "total"))
    after = decoder.state
    for x in (after.log_max, after.weighted, after.total, *arrays):
        x[...] = 0
    assert decoder.state.total.min() > 0


def test_gradients_are_recorded(rng):
    """Where tensors record gradients, the sums are the immutable ones of the tensors."""
    xp = load_backend("torch")
    arrays = tokens(xp, rng, 2, length=5)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=arrays[0])
    decoder = rf.AttentionDecoder(phi)
    ours, theirs = ([x.clone().requires_grad_() for x in arrays] for _ in range(2))
    xp.concat([decoder.step(*piece(ours, at, at + 1)) for at in range(5)], axis=-2).sum().backward()
    rf.linear_attention(*theirs, phi, is_causal=True).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        assert np.allclose(one.grad, other.grad, rtol=1e-10, atol=1e-12)


def test_other_shapes_and_dtypes_in_between(rng):
    """A call that does not fit the sums is `linear_attention` with the state; errors leave the decoder as it was."""
    arrays = tokens(np, rng, 3, 2)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, batch_shape=(2,))
    decoder = rf.AttentionDecoder(phi)
    decoded(decoder, [x[:1] for x in arrays], range(4))
    with pytest.raises(ValueError, match=r"the state of this decoder has \(num_features, value dim\) \(8, 3\), ex"):
        decoder.step(arrays[0][:1, :, :1], arrays[1][:1, :, :1], arrays[1][:1, :, :1])
    with pytest.raises(ValueError, match="step takes one query for each key, got 2 and 1"):
        decoder.step(arrays[0][:, :, :2], *piece(arrays[1:], 0, 1))
    with pytest.raises(TypeError, match="must have one dtype"):
        decoder.step(arrays[0][:1, :, :1].astype(np.float32), *(x[:1, :, :1] for x in arrays[1:]))
    assert decoder.num_keys == 3
    together = [np.concatenate([np.broadcast_to(x[:1, :, :3], x[:, :, :3].shape), x[:, :, 3:]], axis=2) for x in arrays]
    expected = rf.linear_attention(*together, phi, is_causal=True)
    outputs = decoded(decoder, arrays, range(3, LENGTH + 1))
    assert np.allclose(outputs, expected[..., 3:, :], rtol=1e-11, atol=1e-12)
    single = [x[..., :1, :] for x in arrays]
    assert np.allclose(copy.deepcopy(decoder).step(*(x.tolist() for x in single)), copy.deepcopy(decoder).step(*single))
    assert decoder.step(*(x.astype(np.float32) for x in single)).dtype == np.float32


def test_errors(rng):
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, batch_shape=(2,))
    arrays = tokens(np, rng, 3, 2, length=1)
    for state, error, match in (
        ((1, 2), TypeError, "state must be an AttentionState, got tuple"),
        (rf.AttentionState.empty(4, 3, like=arrays[0]), ValueError, "state has 4 features, expected 8"),
        (
            rf.linear_attention(*arrays, phi.redraw(1), return_state=True)[1],
            ValueError,
            "made with another feature map",
        ),
    ):
        with pytest.raises(error, match=match):
            rf.AttentionDecoder(phi, state)
    with pytest.raises(TypeError, match="features must be a FeatureMap"):
        rf.AttentionDecoder(rf.PositiveFeatures())
    with pytest.raises(TypeError, match="enable_gqa must be True or False"):
        rf.AttentionDecoder(phi, enable_gqa=1)
    with pytest.raises(ValueError, match="scale must be positive"):
        rf.AttentionDecoder(phi, scale=-1.0)
    with pytest.raises(ValueError, match="num_threads must be a positive integer"):
        rf.AttentionDecoder(phi, num_threads=0)
    decoder = rf.AttentionDecoder(phi)
    decoder.reorder([0])
    decoder.repeat(3)
    assert decoder.state is None
    with pytest.raises(ValueError, match="query and key have dimension 3"):
        decoder.step(*(x[..., :3] for x in arrays))
    decoder.step(*arrays)
    with pytest.raises(ValueError, match=r"index must be integers of shape \(n,\), got shape \(1, 2\)"):
        decoder.reorder([[0, 1]])
    with pytest.raises(TypeError, match="index must be integers"):
        decoder.reorder([0.0])
    with pytest.raises(IndexError, match=r"index must be between 0 and 2, got \[3\]"):
        decoder.reorder([3])
    other = [np.concatenate([x, x[:1]]) for x in arrays]
    for call in (decoder.step, lambda _, *pair: decoder.append(*pair)):
        for repeats in (1, 9):
            with pytest.raises(ValueError, match=r"^the state of this decoder has leading shape \(3, 2\), expected"):
                call(*(np.repeat(x, repeats, axis=-2) for x in other))
    decoder = rf.AttentionDecoder(phi)
    decoder.step(*(x[0] for x in arrays))
    with pytest.raises(ValueError, match=r"leading dimensions \(2,\), without a batch before those of the heads"):
        decoder.repeat(2)


def test_mixed_libraries_are_refused(rng):
    torch = load_backend("torch")
    arrays = tokens(np, rng, 2, length=1)
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=asarray(torch, arrays[0]))
    with pytest.raises(TypeError, match="expected arrays of one array library"):
        rf.AttentionDecoder(phi).step(*arrays)


@pytest.mark.parametrize("length", [1, 2, 8, 9])
@pytest.mark.parametrize("name", ["positive", "centered, then balanced"])
def test_short_calls_of_linear_attention(rng, monkeypatch, name, length):
    """With a state, which they leave as it was: the generic pass, up to rounding."""
    phi, options = draw(name, (2,))
    arrays, more = tokens(np, rng, 2), tokens(np, rng, 4, 2, length=length)
    _, state = rf.linear_attention(*arrays, phi, return_state=True, **options)
    kept = copy.deepcopy(state)
    mask = rng.random((4, 1, length)) < 0.7
    for key_mask in (None, mask):
        given = {"initial_state": state, "key_mask": key_mask, **options}
        actual, after = rf.linear_attention(*more, phi, is_causal=True, return_state=True, **given)
        expected, expected_state = causal(monkeypatch, *more, phi, **given)
        assert np.allclose(actual, expected, rtol=1e-12, atol=1e-13)
        assert_same_state(after, expected_state, 1e-12)
        assert after.origin is phi
    assert all(np.array_equal(getattr(state, x), getattr(kept, x)) for x in ("log_max", "weighted", "total"))


def test_a_short_call_writes_no_state(rng):
    """Also where a key exceeds the headroom after another has been added."""
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    arrays = tokens(np, rng, 2)
    _, state = rf.linear_attention(*piece(arrays, 0, 15), phi, return_state=True)
    kept = copy.deepcopy(state)
    arrays[1][:, 18] = 60.0
    rf.linear_attention(*piece(arrays, 15, LENGTH), phi, is_causal=True, initial_state=state)
    assert all(np.array_equal(getattr(state, x), getattr(kept, x)) for x in ("log_max", "weighted", "total"))


def test_many_steps_do_not_drift(rng):
    """Twenty thousand tokens in float32: the state of one pass in float64, up to the rounding of a random walk.

    1250 additions of 16 tokens, each with a relative error below 2^-24: 2^-24 √1250 = 2e-6 is expected, and ten times
    that is allowed. Adding each token alone would be four times worse; a reference that is not put back is off by more
    than 1.
    """
    length, phi = 20_000, rf.PositiveFeatures().draw(4, 8, rng=0, like=np.zeros(1, np.float32))
    arrays = tokens(np, rng, length=length, dim=4, value_dim=2, dtype="float32", spread=2.0)
    decoder = rf.AttentionDecoder(phi)
    for start in range(0, length, 8):
        decoder.append(*piece(arrays[1:], start, start + 8))
    exact = [x.astype(np.float64) for x in arrays]
    _, state = rf.linear_attention(*exact, phi.to(exact[0]), return_state=True)
    ours = decoder.state
    scale = np.exp(ours.log_max.astype(np.float64) - state.log_max).swapaxes(-1, -2)
    assert np.max(np.abs(ours.total * scale / state.total - 1)) < 2e-5
    assert np.max(np.abs(ours.weighted * scale - state.weighted) / state.total) < 2e-5


def test_a_key_that_repeats_does_not_drift(rng, monkeypatch):
    """All terms of `weighted` are those of `total` times v, so the ratio of the sums is v.

    Each sum is compensated, and off by (2 + 16) u in proportion; one more u is for the products, and one for the state.
    Plain sums are off by up to n/16 u. They fail, which shows that the test can see a drift.
    """
    num, u = 40_000, 2.0**-24
    key, value = rng.standard_normal((2, 1, 8)).astype(np.float32)
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=key)

    def drift():
        decoder = rf.AttentionDecoder(phi)
        for _ in range(num // 8):
            decoder.append(np.repeat(key, 8, axis=0), np.repeat(value, 8, axis=0))
        state = decoder.state
        assert np.allclose(state.total, num, rtol=1e-5)
        return np.max(np.abs(state.weighted / (state.total * value.astype(np.float64)) - 1))

    assert drift() <= 2 * (18 + 2) * u
    monkeypatch.setattr(running_sums, "add_compensated", lambda total, surplus, terms: np.add(total, terms, out=total))
    assert drift() > 100 * u


def test_compensation_leaves_what_is_not_finite(rng):
    """A value that is infinite makes infinite sums, not NaN, however many keys follow; other sums stay finite."""
    key, value = rng.standard_normal((2, 2, 40, 8)).astype(np.float32)
    value[0, 3, 0] = np.inf
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=key, batch_shape=(2,))
    decoder, clean = rf.AttentionDecoder(phi), rf.AttentionDecoder(phi)
    for start in range(0, 40, 8):
        part = slice(start, start + 8)
        decoder.append(key[:, part], value[:, part])
        clean.append(key[:, part], np.where(np.isfinite(value[:, part]), value[:, part], 0))
    ours, theirs = decoder.state, clean.state
    assert np.all(ours.weighted[0, :, 0] == np.inf)
    assert np.allclose(ours.weighted[1], theirs.weighted[1], rtol=1e-5, atol=1e-5)
    assert np.allclose(ours.weighted[0, :, 1:], theirs.weighted[0, :, 1:], rtol=1e-5, atol=1e-5)
