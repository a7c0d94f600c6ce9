"""The fast NumPy gradient against the generic sweeps: forms, layouts, dtypes, extremes; and what it never sees."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention import blocked_gradient, gradient
from tests.arrays import eps_of, same_bits
from tests.attention.test_blocked import DTYPES, EXTREMES, FORMS, MODES, draw
from tests.attention.test_causal import FUTURES
from tests.attention.test_linear import LAYOUTS, MAPS, problem

pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.fixture
def taken(monkeypatch):
    """What `fast_sweeps` gave, call by call."""
    results = []

    def counted(*arguments, **options):
        results.append(blocked_gradient.fast_sweeps(*arguments, **options))
        return results[-1]

    monkeypatch.setattr(gradient, "fast_sweeps", counted)
    return results


def generic(phi, *inputs, **options):
    """The generic sweeps, in float64."""
    inputs = [np.asarray(x, np.float64) for x in inputs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient, "fast_sweeps", lambda *arguments, **options: None)
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
        assert (taken[-1] is None) == (is_causal and query.shape[-2] != key.shape[-2])
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
