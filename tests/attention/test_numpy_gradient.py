"""The fast NumPy gradient against the generic sweeps: forms, layouts, dtypes, extremes; and what it never sees."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention import executors
from randfeat.attention.numpy import gradient as numpy_gradient
from randfeat.attention.numpy.executor import NumPyExecutor
from tests.arrays import eps_of, same_bits
from tests.attention.test_causal import FUTURES
from tests.attention.test_linear import LAYOUTS, MAPS, problem
from tests.attention.test_numpy_executor import DTYPES, EXTREMES, FORMS, MODES, draw

pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.fixture
def taken(recorded):
    """What the NumPy executor gave, call by call."""
    return recorded(NumPyExecutor, "pull_back")


def generic(phi, *inputs, **options):
    """The generic sweeps, in float64."""
    inputs = [np.asarray(x, np.float64) for x in inputs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "EXECUTORS", executors.EXECUTORS[-1:])
        return rf.linear_attention_vjp(*inputs[:3], phi.to(np.zeros(1)), inputs[3], **options)


def fast(phi, query, key, value, cotangent, **options):
    return rf.linear_attention_vjp(query, key, value, phi, cotangent, **options)


def worst(actual, expected):
    """The largest error of each of the three gradients, relative to its largest entry."""
    return max(
        np.max(np.abs(ours - theirs)) / max(np.max(np.abs(theirs)), 1e-300)
        for ours, theirs in zip(actual, expected, strict=True)
    )


@DTYPES
@MODES
@pytest.mark.parametrize("name", FORMS)
def test_equals_the_generic_sweeps(taken, rng, name, is_causal, dtype):
    """Without shifts and with them, beside absent keys: to the rounding of exponents of the size of the logits."""
    phi, options = draw(name, (2,), dtype=dtype)
    for scale in (0.5, 6.0):
        inputs = [scale * x for x in rng.standard_normal((2, 2, 23, 5))] + list(rng.standard_normal((2, 2, 23, 3)))
        inputs = [x.astype(dtype) for x in inputs]
        mask = rng.random((2, 23)) < 0.8
        ours = fast(phi, *inputs, is_causal=is_causal, key_mask=mask, **options)
        assert taken[-1] is not None
        assert all(x.dtype == dtype for x in ours)
        expected = generic(phi, *inputs, is_causal=is_causal, key_mask=mask, **options)
        for mine, theirs, size in zip(ours, expected, sizes(*inputs), strict=True):
            assert np.max(np.abs(mine - theirs)) < 10 * (1 + scale**2) * eps_of(dtype) * size
        assert all(np.all(x[~mask] == 0) for x in ours[1:])


@MODES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(taken, rng, layout, is_causal):
    """Leading dimensions, groups, masks, broadcast heads."""
    query, key, value, options = problem(rng, layout)
    for batch_shape in [(), *(shape for name, shape in MAPS if name == layout)]:
        phi, _ = draw("hyperbolic", batch_shape)
        cotangent = rng.standard_normal(rf.linear_attention(query, key, value, phi, **options).shape)
        ours = fast(phi, query, key, value, cotangent, is_causal=is_causal, **options)
        assert taken[-1] is not None
        assert worst(ours, generic(phi, query, key, value, cotangent, is_causal=is_causal, **options)) < 1e-12


@MODES
@DTYPES
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extremes(taken, rng, extreme, dtype, is_causal):
    """Finite, and as good as the generic sweeps in the same dtype, a factor of ten and the rounding of inputs apart."""
    query, key = rng.standard_normal((2, 40, 5))
    query, key, value = (x.astype(dtype) for x in EXTREMES[extreme](query, key, rng.standard_normal((40, 3))))
    cotangent = rng.standard_normal((40, 3)).astype(dtype)
    with np.errstate(over="ignore"):
        if np.abs(value).max() > 1e20:
            cotangent = cotangent * cotangent.dtype.type(1e-10)  # the gradient in the inputs is of the size of values
    logs = []
    for name in ("positive", "dense", "posterior", "centered"):
        phi, _ = draw(name, num_features=16, dtype=dtype)
        logs = [np.max(np.abs(side(x * 5**-0.25).log_scale)) for side, x in ((phi.queries, query), (phi.keys, key))]
        ours = fast(phi, query, key, value, cotangent, is_causal=is_causal)
        assert taken[-1] is not None
        assert all(np.all(np.isfinite(x)) for x in ours)
        expected = generic(phi, query, key, value, cotangent, is_causal=is_causal)
        for mine, theirs, size in zip(ours, expected, sizes(query, key, value, cotangent), strict=True):
            assert np.max(np.abs(mine - theirs)) < (64 * max(logs) + 512) * eps_of(dtype) * size, name


def sizes(query, key, value, cotangent):
    """What gradients are made of: `|G| |v| |k|`, `|G| |v| |q|`, summed over queries, and `|G|` summed."""
    total = np.sum(np.linalg.norm(np.float64(cotangent), axis=-1))
    spread = np.max(np.abs(np.float64(value)))
    lengths = [np.max(np.linalg.norm(np.float64(x), axis=-1)) for x in (query, key)]
    longest = 10 * (max(lengths) + 10)  # rows are up to ten long
    return total * spread * longest, total * spread * longest, total


@MODES
def test_tiny_and_huge_gradients(taken, rng, is_causal):
    """Linear in the gradient at any of its sizes; full attention to the last bit, for powers of 2."""
    phi, _ = draw("positive", dtype="float32")
    query, key, value, cotangent = rng.standard_normal((4, 30, 5)).astype("float32")
    one = fast(phi, query, key, value, cotangent, is_causal=is_causal)
    for factor in (2.0**-60, 2.0**40):
        scaled = fast(phi, query, key, value, cotangent * np.float32(factor), is_causal=is_causal)
        if not is_causal:
            assert all(same_bits(x, y * np.float32(factor)) for x, y in zip(scaled, one, strict=True))
        assert worst([x / np.float32(factor) for x in scaled], one) < 1e-5


@MODES
def test_after_a_state(taken, rng, is_causal):
    """As the gradient of the whole, of its last part: what the state holds is fixed."""
    query, key, value, cotangent = rng.standard_normal((4, 2, 31, 5))
    phi, _ = draw("positive")
    _, state = rf.linear_attention(query[:, :9], key[:, :9], value[:, :9], phi, return_state=True)
    rest = [x[:, 9:] for x in (query, key, value, cotangent)]
    ours = fast(phi, *rest, is_causal=is_causal, initial_state=state)
    assert taken[-1] is not None
    full = [np.concatenate([np.zeros_like(x[:, :9]), x[:, 9:]], axis=1) for x in (query, cotangent)]
    whole = generic(phi, full[0], key, value, full[1], is_causal=is_causal)
    assert worst(ours, [x[:, 9:] for x in whole]) < 1e-12
    assert worst(generic(phi, *rest, is_causal=is_causal, initial_state=state), ours) < 1e-12


def forward(phi, query, key, value, *, is_causal, **options):
    """What `linear_attention` leaves to its gradient: the output, and for full attention the state."""
    output, state = rf.linear_attention(query, key, value, phi, is_causal=is_causal, return_state=True, **options)
    return {"output": output} if is_causal else {"output": output, "final_state": state}


@MODES
@DTYPES
@pytest.mark.parametrize("name", ["positive", "centered"])
def test_known_outputs_change_nothing_but_the_time(taken, monkeypatch, rng, name, dtype, is_causal):
    """With shifts and without, masks, queries without keys, and an initial state; and the sums are not made again."""
    phi, _ = draw(name, (2,), dtype=dtype)
    for scale in (0.5, 6.0, 60.0):
        inputs = rng.standard_normal((4, 2, 23, 5)) * np.array([scale, scale, 1.0, 1.0])[:, None, None, None]
        *inputs, cotangent = (x.astype(dtype) for x in inputs)
        mask = rng.random((2, 23)) < 0.8
        mask[:, :2] = False
        _, state = rf.linear_attention(*(x[:, :9] for x in inputs), phi, return_state=True)
        for options in ({}, {"key_mask": mask}, {"initial_state": state}):
            options = {"is_causal": is_causal, **options}
            known = forward(phi, *inputs, **options)
            ours = fast(phi, *inputs, cotangent, **known, **options)
            assert taken[-1] is not None
            plain = fast(phi, *inputs, cotangent, **options)
            for mine, theirs, size in zip(ours, plain, sizes(*inputs, cotangent), strict=True):
                assert np.max(np.abs(mine - theirs)) < 10 * (1 + scale**2) * eps_of(dtype) * size
    monkeypatch.setattr(numpy_gradient, "summed_keys", None)
    if not is_causal:
        fast(phi, *inputs, cotangent, **known, **options)


@MODES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_outputs_in_every_layout(rng, layout, is_causal):
    query, key, value, options = problem(rng, layout)
    if is_causal and query.shape[-2] != key.shape[-2]:
        key, value = (x[..., -query.shape[-2] :, :] for x in (key, value))
        options = {name: x for name, x in options.items() if name != "key_mask"}
    for estimator in (rf.PositiveFeatures(), rf.TrigonometricFeatures()):
        phi = estimator.draw(dim=query.shape[-1], num_features=8, rng=1)
        known = forward(phi, query, key, value, is_causal=is_causal, **options)
        cotangent = rng.standard_normal(known["output"].shape)
        ours = fast(phi, query, key, value, cotangent, is_causal=is_causal, **known, **options)
        assert worst(ours, fast(phi, query, key, value, cotangent, is_causal=is_causal, **options)) < 1e-9


@MODES
def test_wrong_outputs_and_states_are_noticed(rng, is_causal):
    """They are used; those that cannot be right are refused."""
    phi, _ = draw("positive")
    query, key, value, _ = inputs = rng.standard_normal((4, 2, 23, 5))
    known = forward(phi, *inputs[:3], is_causal=is_causal)
    right = fast(phi, *inputs, is_causal=is_causal)
    wrong = fast(phi, *inputs, is_causal=is_causal, **(known | {"output": known["output"] + 1}))
    assert worst(wrong, right) > 1e-3
    for output, match in (
        (value[:1], r"output must have the shape of the output, \(2, 23, 5\), got \(1, 23, 5\)"),
        (value.astype("float32"), "output must have the dtype of the output, float64, got float32"),
    ):
        with pytest.raises((TypeError, ValueError), match=match):
            fast(phi, *inputs, is_causal=is_causal, output=output)
    _, state = rf.linear_attention(query, key, value, phi, return_state=True)
    _, other = rf.linear_attention(query, key, value, draw("positive", num_features=16)[0], return_state=True)
    _, single = rf.linear_attention(query[0], key[0], value[0], phi, return_state=True)
    refused = [(other, r"final_state has \(num_features, value dim\)"), (single, r"leading shape \(2,\), got")]
    if is_causal:
        refused.append((state, "final_state must be .* without is_causal"))
    for final_state, match in refused:
        with pytest.raises(ValueError, match=match):
            fast(phi, *inputs, is_causal=is_causal, final_state=final_state)


@pytest.mark.parametrize("future", FUTURES)
@pytest.mark.parametrize("scale", [1.0, 6.0, 60.0])
def test_causal_to_the_last_bit(taken, rng, scale, future):
    """dq_i from the keys j <= i and its own query; dk_j, dv_j from the queries i >= j and its own key and value."""
    length = 21
    for name in ("positive", "centered"):
        phi, _ = draw(name)
        inputs = rng.standard_normal((4, 2, length, 5)) * np.array([scale, scale, 1.0, 1.0])[:, None, None, None]
        clean = fast(phi, *inputs, is_causal=True)
        for cut in (1, 4, 7, 8, 15):
            later, earlier = inputs.copy(), inputs.copy()
            with np.errstate(all="ignore"):
                later[:, :, cut:] = FUTURES[future](later[:, :, cut:])
                earlier[[0, 3], :, :cut] = FUTURES[future](earlier[[0, 3], :, :cut])
                in_query, _, _ = fast(phi, *later, is_causal=True)
                _, in_key, in_value = fast(phi, *earlier, is_causal=True)
            assert same_bits(in_query[:, :cut], clean[0][:, :cut]), f"{name}: a query before {cut} saw the future"
            assert same_bits(in_key[:, cut:], clean[1][:, cut:]), f"{name}: a key from {cut} on saw the past"
            assert same_bits(in_value[:, cut:], clean[2][:, cut:]), f"{name}: a value from {cut} on saw the past"
    assert all(result is not None for result in taken)


@MODES
def test_threads_change_no_bit(rng, is_causal):
    phi, _ = draw("positive", num_features=32, dtype="float32")
    inputs = 1.5 * rng.standard_normal((4, 3, 100, 5)).astype("float32")
    one, *others = (fast(phi, *inputs, is_causal=is_causal, num_threads=num) for num in (1, 2, 3))
    for other in others:
        assert all(same_bits(x, y) for x, y in zip(one, other, strict=True))


@MODES
def test_queries_without_keys_and_masked_content(rng, is_causal):
    query, key, value, cotangent = rng.standard_normal((4, 2, 21, 5))
    mask = rng.random((2, 21)) < 0.5
    mask[0], mask[1, :4] = False, False
    spoiled = [np.where(mask[..., None], x, np.nan) for x in (key, value)]
    phi, _ = draw("centered")
    clean = fast(phi, query, key, value, cotangent, is_causal=is_causal, key_mask=mask)
    dirty = fast(phi, query, *spoiled, cotangent, is_causal=is_causal, key_mask=mask)
    assert all(same_bits(x, y) for x, y in zip(clean, dirty, strict=True))
    assert np.all(clean[0][0] == 0)
    assert not is_causal or np.all(clean[0][1, :4] == 0)


@pytest.mark.parametrize("mistake", ["log_gaussian", "log_gaussian_slope"])
@MODES
def test_planted_mistakes_are_seen(monkeypatch, rng, is_causal, mistake):
    """Factors of keys that are left out, or their derivatives."""
    phi, _ = draw("positive")
    inputs = rng.standard_normal((4, 2, 23, 5))
    expected = generic(phi, *inputs, is_causal=is_causal)
    right = getattr(rf.SoftmaxKernel, mistake)
    monkeypatch.setattr(rf.SoftmaxKernel, mistake, lambda kernel, x: 0 * right(kernel, x))
    assert worst(fast(phi, *inputs, is_causal=is_causal), expected) > 1e-3
