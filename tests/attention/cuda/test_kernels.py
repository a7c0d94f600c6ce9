"""The CUDA kernels, run on a CPU, against the generic pass: indices, barriers and numerics, but not a device."""

import re

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention import executors
from randfeat.attention.cuda import passes
from randfeat.attention.cuda.kernels import source
from tests.arrays import eps_of, same_bits
from tests.attention.cuda.emulator import barriers, build
from tests.attention.test_causal import FUTURES
from tests.attention.test_linear import LAYOUTS, MAPS, problem, spreads
from tests.attention.test_numpy_executor import DTYPES, EXTREMES, FORMS, MODES, draw
from tests.cases import ATTENTION
from tests.reference import naive_attention


def generic(monkeypatch, query, key, value, phi, **options):
    """The generic pass in float64, with the same numbers."""
    query, key, value = (x.astype(np.float64) for x in (query, key, value))
    with monkeypatch.context() as patch:
        patch.setattr(executors, "EXECUTORS", executors.EXECUTORS[-1:])
        return rf.linear_attention(query, key, value, phi.to(np.zeros(1)), **options)


def worst_error(monkeypatch, query, key, value, phi, out, **options):
    """The largest error of an output relative to the values that it may mix, beyond what rounding explains.

    An exponent of size t is off by t eps, and so is each weight, relative to itself.
    """
    expected = generic(monkeypatch, query, key, value, phi, **options)
    unit = np.sqrt(options.get("scale", query.shape[-1] ** -0.5))
    wide = phi.to(np.zeros(1))
    logs = max(np.max(np.abs(side(unit * x).log_scale)) for side, x in ((wide.queries, query), (wide.keys, key)))
    size = np.max(np.abs(value), axis=-1, initial=0.0).astype(np.float64)
    size = np.maximum.accumulate(size, axis=-1) if options.get("is_causal") else np.max(size, axis=-1, keepdims=True)
    error = np.max(np.abs(out - expected), axis=-1) / np.maximum(size, 1e-45)
    assert np.all(np.isfinite(error))
    return np.max(error) / ((32 * logs + 256) * float(np.finfo(phi.arrays["rows"].dtype).eps))


def inputs_of(rng, heads, length, num_keys, dim, value_dim, dtype, scale=1.0):
    query = scale * rng.standard_normal((heads, length, dim))
    key = scale * rng.standard_normal((heads, num_keys, dim))
    return [x.astype(dtype) for x in (query, key, rng.standard_normal((heads, num_keys, value_dim)))]


# the same numbers -------------------------------------------------------------------------------------------------


@DTYPES
@MODES
@pytest.mark.parametrize("name", FORMS)
def test_every_form(monkeypatch, emulator, rng, name, is_causal, dtype):
    phi, options = draw(name, (2,), num_features=16, dtype=dtype)
    inputs = inputs_of(rng, 2, 70, 70, 5, 3, dtype)
    options |= {"is_causal": is_causal, "key_mask": rng.random((2, 70)) < 0.8}
    out = rf.linear_attention(*inputs, phi, **options)
    assert len(emulator.launched) == 3
    assert out.dtype == dtype
    assert worst_error(monkeypatch, *inputs, phi, out, **options) < 1


SIZES = [  # L, S, d, dv, m
    (1, 1, 1, 1, 1),
    (1, 300, 3, 2, 5),
    (65, 1, 16, 64, 64),
    (64, 64, 17, 65, 65),
    (31, 600, 64, 64, 100),
    (3, 40, 256, 130, 33),
    (5, 20, 8, 4, 1024),
]


@DTYPES
@MODES
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(monkeypatch, emulator, rng, sizes, is_causal, dtype):
    length, num_keys, dim, value_dim, num_features = sizes
    length = num_keys if is_causal else length
    inputs = inputs_of(rng, 1, length, num_keys, dim, value_dim, dtype)
    phi = rf.PositiveFeatures().draw(dim, num_features, rng=0, like=inputs[0])
    out = rf.linear_attention(*inputs, phi, is_causal=is_causal)
    assert emulator.launched
    assert worst_error(monkeypatch, *inputs, phi, out, is_causal=is_causal) < 1


@MODES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(emulator, rng, layout, is_causal):
    """Leading dimensions, groups, masks, unequal lengths; causal of unequal lengths is left to the generic pass."""
    query, key, value, options = problem(rng, layout)
    for batch_shape in [(), *(shape for name, shape in MAPS if name == layout)]:
        emulator.launched.clear()
        phi, _ = draw("hyperbolic", batch_shape)
        expected = naive_attention(phi, query, key, value, is_causal=is_causal, **options)
        expected.check(rf.linear_attention(query, key, value, phi, is_causal=is_causal, **options), 2.0**-52)
        assert (not emulator.launched) == (is_causal and query.shape[-2] != key.shape[-2])


@MODES
def test_views_are_read_where_they_are(emulator, rng, is_causal):
    """Slices of one array, lengths before heads, reversed heads: the same bits as for copies."""
    packed = rng.standard_normal((2, 40, 3, 4, 6))  # batch, length, three inputs, heads
    views = [packed[:, :, which, ::-1] for which in range(3)]
    phi = rf.PositiveFeatures().draw(6, 16, rng=0, like=packed, batch_shape=(4,))
    copies = [np.ascontiguousarray(np.swapaxes(x, 1, 2)) for x in views]
    outs = [
        rf.linear_attention(*views, phi, is_causal=is_causal, layout="blhd"),
        np.swapaxes(rf.linear_attention(*copies, phi, is_causal=is_causal), 1, 2),
        rf.linear_attention(*(np.asfortranarray(x) for x in views), phi, is_causal=is_causal, layout="blhd"),
    ]
    assert len(emulator.launched) == 9
    assert same_bits(outs[0], outs[1])
    np.testing.assert_allclose(outs[0], outs[2], rtol=1e-11)  # NumPy sums |k|² of columns in another order


@MODES
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(monkeypatch, emulator, rng, dtype, is_causal):
    """Read and written as it is, added up in float32: the error is half a spacing of the output."""
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes", reason="pip install '.[frameworks]'").bfloat16
    inputs = inputs_of(rng, 2, 70, 70, 5, 3, dtype)
    phi = rf.PositiveFeatures().draw(5, 16, rng=0, like=np.zeros(1, "float32"))
    out = rf.linear_attention(*inputs, phi, is_causal=is_causal)
    assert any(name in emulator.launched for name in ("read<Half, 4>", "read<BFloat16, 4>", "read_causal<Half, 4>",
                                                      "read_causal<BFloat16, 4>"))  # fmt: skip
    assert out.dtype == inputs[0].dtype
    expected = generic(monkeypatch, *inputs, phi, is_causal=is_causal)
    spacing = eps_of(np.dtype(dtype).name)
    assert np.all(np.abs(out.astype(np.float64) - expected) <= 0.501 * spacing * np.abs(expected) + 1e-4 * spacing)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_conversions_are_those_of_numpy(emulator, rng, dtype):
    """All sizes, ties, subnormal and infinite numbers; that of bfloat16 is the device's own code."""
    kind = np.float16
    if dtype == "bfloat16":
        kind = pytest.importorskip("ml_dtypes", reason="pip install '.[frameworks]'").bfloat16
    every = np.arange(1 << 16, dtype=np.uint16).view(kind).astype(np.float32)
    every = np.sort(every[np.isfinite(every)])
    ties = every[1:] / 2 + every[:-1] / 2
    others = [rng.standard_normal(1000) * 10.0 ** rng.integers(-9, 6, 1000), [np.inf, -np.inf, np.nan, 65519.9, 65520]]
    x = np.concatenate([every, ties, *(np.asarray(part, np.float32) for part in others)])
    with np.errstate(over="ignore", invalid="ignore"):
        assert same_bits(emulator.rounded(x, brain=dtype == "bfloat16"), x.astype(kind).astype(np.float32))


# any scale --------------------------------------------------------------------------------------------------------


@MODES
@DTYPES
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extremes(monkeypatch, emulator, rng, extreme, dtype, is_causal):
    query, key = rng.standard_normal((2, 40, 5))
    inputs = [x.astype(dtype) for x in EXTREMES[extreme](query, key, rng.standard_normal((40, 3)))]
    for name in ("positive", "centered"):
        phi, _ = draw(name, num_features=16, dtype=dtype)
        out = rf.linear_attention(*inputs, phi, is_causal=is_causal)
        assert emulator.launched
        assert worst_error(monkeypatch, *inputs, phi, out, is_causal=is_causal) < 1, name


@MODES
@DTYPES
def test_outputs_are_convex_combinations_at_any_scale(emulator, rng, dtype, is_causal):
    value = rng.standard_normal((2, 6, 3)).astype(dtype)
    seen = [slice(0, i + 1) if is_causal else slice(None) for i in range(6)]
    low = np.stack([value[:, s].min(axis=1) for s in seen], axis=1)
    high = np.stack([value[:, s].max(axis=1) for s in seen], axis=1)
    phi, _ = draw("hyperbolic", num_features=16, dtype=dtype)
    for _, query, key in spreads(rng):
        out = rf.linear_attention(query.astype(dtype), key.astype(dtype), value, phi, is_causal=is_causal)
        slack = 300 * eps_of(dtype) * np.abs(value).max()
        assert np.all((out >= low - slack) & (out <= high + slack))
        assert not is_causal or np.all(np.abs(out[:, 0] - value[:, 0]) <= slack)


@MODES
def test_nan_spoils_what_sees_it_and_nothing_else(emulator, rng, is_causal):
    for position in (0, 9, 33, 44):
        for which in range(3):
            inputs = rng.standard_normal((3, 2, 45, 5))
            inputs[which, 0, position, 1] = np.nan
            out = rf.linear_attention(*inputs, draw("hyperbolic")[0], is_causal=is_causal)
            sees = np.arange(45) == position if which == 0 else (np.arange(45) >= position) | (not is_causal)
            spoilt = np.zeros((2, 45, 5), dtype=bool)
            spoilt[0, sees, slice(None) if which < 2 else 1] = True
            assert np.array_equal(np.isnan(out), spoilt)


@MODES
def test_absent_keys_are_absent(emulator, rng, is_causal):
    """Whatever masked keys and values hold; zeros for a query without any key."""
    query, key, value = rng.standard_normal((3, 45, 5))
    mask = rng.random(45) < 0.6
    mask[:3] = False
    phi, _ = draw("centered")
    clean = rf.linear_attention(query, key, value, phi, key_mask=mask, is_causal=is_causal)
    key[~mask], value[~mask] = np.nan, np.inf
    assert same_bits(rf.linear_attention(query, key, value, phi, key_mask=mask, is_causal=is_causal), clean)
    assert np.all(clean[:3] == 0) == is_causal
    nothing = rf.linear_attention(query, key, value, phi, key_mask=np.zeros(45, bool), is_causal=is_causal)
    assert np.all(nothing == 0)


# causality --------------------------------------------------------------------------------------------------------

PLACES = (0, 3, 7, 8, 15, 16, 21, 31, 32, 47, 63, 64)
"""Both sides of the borders of diagonal blocks, of squares, and of chunks."""


def sees_the_future(rng, future, length=70):
    """Positions whose outputs change with what comes after them."""
    phi, _ = draw("positive", num_features=20)
    inputs = 3 * rng.standard_normal((3, length, 5))
    clean = rf.linear_attention(*inputs, phi, is_causal=True)
    for now in PLACES:
        changed = inputs.copy()
        with np.errstate(invalid="ignore"):
            changed[:, now + 1 :] = FUTURES[future](changed[:, now + 1 :])
        out = rf.linear_attention(*changed, phi, is_causal=True)
        assert not same_bits(out, clean)
        if not same_bits(out[: now + 1], clean[: now + 1]):
            yield now


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("future", FUTURES)
def test_outputs_never_see_the_future(rng, future):
    assert list(sees_the_future(rng, future)) == []


def test_a_shift_that_looks_ahead_is_caught(emulate, rng, tmp_path):
    """A kernel whose squares take their shift from queries' positions too, which are later keys."""
    mutant, count = re.subn(r"b < n / BASE;", "b < 2 * n / BASE;", source())
    assert count == 1
    emulate(build(tmp_path, mutant, [("double", 4)]))
    assert list(sees_the_future(rng, "ten thousand times as large"))


# states, pieces, segments -----------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_states_in_and_out(monkeypatch, emulator, rng, is_causal, scale):
    query, key, value = inputs_of(rng, 2, 80, 80, 5, 3, "float64", scale)
    mask = rng.random((2, 80)) < 0.7
    phi, _ = draw("optimal positive")
    options = {"is_causal": is_causal, "return_state": True}
    out, state = rf.linear_attention(query, key, value, phi, key_mask=mask, **options)
    assert emulator.launched
    expected_out, expected = generic(monkeypatch, query, key, value, phi, key_mask=mask, **options)
    np.testing.assert_allclose(out, expected_out, rtol=1e-9 * scale, atol=1e-9)
    for name in ("log_max", "weighted", "total"):
        ours, theirs = getattr(state, name), getattr(expected, name)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-9 * scale, atol=1e-9)
    outs, last = [], None
    for part in (slice(0, 33), slice(33, 34), slice(34, 80)):
        piece = (x[:, part] for x in (query, key, value))
        more, last = rf.linear_attention(*piece, phi, key_mask=mask[:, part], initial_state=last, **options)
        outs.append(more)
    streamed = np.concatenate(outs, axis=-2) if is_causal else outs[-1]
    np.testing.assert_allclose(streamed, out[:, -streamed.shape[1] :], rtol=1e-9 * scale, atol=1e-9)
    np.testing.assert_allclose(last.total, state.total, rtol=1e-9 * scale)


def test_segments_change_no_bit(monkeypatch, emulator, rng):
    """Causal attention with the states of some chunks in memory at a time, or of all."""
    inputs = inputs_of(rng, 2, 200, 200, 5, 3, "float64")
    phi, _ = draw("positive")
    whole, state = rf.linear_attention(*inputs, phi, is_causal=True, return_state=True)
    monkeypatch.setattr(passes, "FEWEST_CHUNKS", 2)
    monkeypatch.setattr(passes, "WORKSPACE", 0)
    emulator.launched.clear()
    parts, last = rf.linear_attention(*inputs, phi, is_causal=True, return_state=True)
    assert len(emulator.launched) == 3 * 4
    assert same_bits(whole, parts)
    assert same_bits(state.weighted, last.weighted)


def test_pieces_agree(monkeypatch, emulator, rng):
    inputs = inputs_of(rng, 2, 20, 300, 5, 3, "float64")
    phi, _ = draw("positive")
    outs = []
    for piece in (1, 37, 64, 1000):
        monkeypatch.setattr(passes, "SHORTEST_PIECE", piece)
        outs.append(rf.linear_attention(*inputs, phi))
    assert emulator.launched
    for out in outs[1:]:
        np.testing.assert_allclose(out, outs[0], rtol=1e-11, atol=1e-12)


def test_where_the_kernels_are_used(emulator, rng):
    inputs = rng.standard_normal((3, 20, 5))

    def is_fused(phi, query=inputs[0], key=inputs[1], value=inputs[2], **options):
        emulator.launched.clear()
        rf.linear_attention(query, key, value, phi, **options)
        return bool(emulator.launched)

    phi, _ = draw("positive")
    assert is_fused(phi)
    assert not is_fused(phi, value=inputs[2][:, :0])
    assert not is_fused(phi, query=inputs[0][:7], is_causal=True)
    assert not is_fused(phi, is_causal=True, decay=0.9)
    assert not is_fused(phi, initial_state=rf.AttentionState.empty(8, 5, like=inputs, batch_shape=(3,)))
    for estimator in ATTENTION:
        if not estimator.positive:
            assert not is_fused(estimator.draw(5, 8, rng=0))
    assert not is_fused(rf.PositiveFeatures(rf.NormalizedSoftmaxKernel()).draw(5, 8, rng=0), scale=1.0)


# threads of a block -----------------------------------------------------------------------------------------------


def both_orders(emulator, inputs, phi):
    """The outputs, full and causal, with the threads of a block in ascending and in descending order."""
    for descending in (False, True):
        emulator.descending = descending
        for is_causal in (False, True):
            yield rf.linear_attention(*inputs, phi, is_causal=is_causal)
    emulator.descending = False


@pytest.fixture
def several_of_everything(rng):
    """Inputs with more than one tile along every dimension, so that every barrier separates two uses of its memory."""
    inputs = inputs_of(rng, 1, 70, 70, 20, 70, "float64")
    return inputs, rf.PositiveFeatures().draw(20, 40, rng=0, like=inputs[0])


def test_the_order_of_threads_changes_no_bit(emulator, several_of_everything):
    outs = list(both_orders(emulator, *several_of_everything))
    assert same_bits(outs[0], outs[2])
    assert same_bits(outs[1], outs[3])


def test_every_barrier_is_needed(emulator, several_of_everything):
    """Without any one of them, the result changes in one order of the threads or the other."""
    clean = list(both_orders(emulator, *several_of_everything))
    lines = barriers()
    assert len(lines) >= 10
    unnoticed = []
    for line in lines:
        emulator.skipped = line
        outs = both_orders(emulator, *several_of_everything)
        if all(same_bits(out, expected) for out, expected in zip(outs, clean, strict=True)):
            unnoticed.append(source().splitlines()[line - 3 : line + 1])
    assert unnoticed == []
