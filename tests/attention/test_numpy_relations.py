"""Offsets, windows, sinks and decay on the fast NumPy pass: the generic pass is their twin."""

from itertools import pairwise

import numpy as np
import pytest

import randfeat as rf
from randfeat._numpy.threads import Scratch
from randfeat.attention import executors
from randfeat.attention.numpy import exact_rows, exponents, heads, key_block, partial_rows, sums
from randfeat.attention.numpy.executor import NumPyExecutor
from randfeat.attention.packed_executor import PackedExecutor
from randfeat.attention.problem import Problem
from tests.arrays import eps_of, same_bits
from tests.attention.test_causal import FUTURES
from tests.attention.test_numpy_executor import DTYPES, EXTREMES, FORMS, draw

pytestmark = pytest.mark.usefixtures("small_blocks")

LENGTHS = [(23, 23), (9, 31), (31, 9)]
OFFSETS = [0, 1, -1, 5, -5, 22, -22, 100, -100]
WIDTHS = [0, 1, 2, 5, 100]
GATES = np.random.default_rng(1).uniform(0.1, 1.0, (2, 31, 1))
GATES[0, 11] = GATES[1, 4] = 0.0
DECAYS = [1.0, 0.8, 1e-26, 0.0, np.array([0.3, 0.97])]


@pytest.fixture(autouse=True)
def small_bands(monkeypatch):
    """Bands and batches of bands with borders within short sequences."""
    monkeypatch.setattr(exact_rows, "BAND", 4)
    monkeypatch.setattr(exact_rows, "PAIRS", 50)


def causal(num_queries, num_keys):
    """Every option that is causal and fits the lengths."""
    for offset in OFFSETS:
        base = {"is_causal": True, "causal_offset": offset}
        yield base
        yield from (base | {"decay": decay} for decay in DECAYS)
        if 0 <= offset <= num_keys - num_queries:
            yield base | {"decay": GATES[:, :num_keys]}
        for width in WIDTHS:
            yield from (base | {"window": width, "num_sinks": num} for num in (0, 1 + offset % 6))


def two_sided():
    return [{"window": width, "num_sinks": num} for width in WIDTHS for num in (0, 1, 6, 100)]


OPTIONS = {lengths: [*causal(*lengths), *two_sided()] for lengths in LENGTHS}


def both(function, phi, *inputs, **options):
    """The fast result, which must be taken, and the generic one in float64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "EXECUTORS", (NumPyExecutor(),))
        fast = function(phi, *inputs, **options)
        patch.setattr(executors, "EXECUTORS", (executors.GenericExecutor(),))
        return fast, function(phi.to(np.zeros(1)), *(x.astype(np.float64) for x in inputs), **options)


def attend(phi, query, key, value, **options):
    return rf.linear_attention(query, key, value, phi, **options)


def inputs_of(rng, num_queries, num_keys, scale=1.0, lead=(2,), dtype="float64"):
    shapes = ((*lead, num_queries, 5), (*lead, num_keys, 5), (*lead, num_keys, 3))
    query, key, value = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return query * query.dtype.type(scale), key * key.dtype.type(scale), value


def close(actual, expected, bound, named):
    assert actual.shape == expected.shape, named
    differ = actual != expected  # infinities that agree do not
    error = np.max(np.abs(np.subtract(actual, expected, where=differ, out=np.zeros(actual.shape))), initial=0.0)
    assert error <= bound, (named, error / bound)


@DTYPES
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_equal_the_generic_pass(rng, lengths, dtype):
    """Every option, with masks and without, at logits of 1 and of 50; the states, too."""
    for part, scale in enumerate((0.7, 6.0)):
        query, key, value = inputs_of(rng, *lengths, scale, dtype=dtype)
        mask = rng.random((2, lengths[1])) < 0.7
        mask[0, :6] = False
        bound = 100 * (1 + scale**2) * eps_of(dtype)
        for options in OPTIONS[lengths][part + (dtype == "float32") :: 2]:
            phi, _ = draw("positive" if rng.random() < 0.7 else "optimal positive", (2,), dtype=dtype)
            given = options | ({"key_mask": mask} if rng.random() < 0.5 else {})
            with_state = not options.get("num_sinks")
            fast, generic = both(attend, phi, query, key, value, return_state=with_state, **given)
            if with_state:
                (fast, state), (generic, expected) = fast, generic
                close(state.log_max, expected.log_max, 10 * bound, given)
                close(state.total, expected.total, 10 * bound, given)
                close(state.weighted, expected.weighted, 10 * bound, given)
            close(fast, generic, bound, given)


RELATIONS = {
    "offset": {"is_causal": True, "causal_offset": 3},
    "earlier": {"is_causal": True, "causal_offset": -6},
    "decay": {"is_causal": True, "decay": 0.8},
    "gates": {"is_causal": True, "decay": GATES[:, :23]},
    "window": {"is_causal": True, "window": 3},
    "window of 20": {"is_causal": True, "window": 20, "causal_offset": 2},
    "sinks": {"is_causal": True, "window": 2, "num_sinks": 5},
    "both sides": {"window": 3, "num_sinks": 2},
}
NAMES = pytest.mark.parametrize("name", RELATIONS)


@NAMES
def test_every_form(rng, name):
    """Weights of features, origins, scales; windows of other kernels than the softmax kernel are generic."""
    query, key, value = inputs_of(rng, 23, 23)
    for form in FORMS:
        phi, scale = draw(form, (2,))
        if "window" in RELATIONS[name] and phi.estimator.kernel != rf.SoftmaxKernel():
            continue
        fast, generic = both(attend, phi, query, key, value, **scale, **RELATIONS[name])
        close(fast, generic, 1e-12, form)


def test_windows_of_a_scaled_kernel(rng):
    """The scale of the kernel is in the exact weights."""
    query, key, value = inputs_of(rng, 23, 23)
    phi = rf.PositiveFeatures(rf.SoftmaxKernel(scale=2.0)).draw(5, 8, rng=0)
    fast, generic = both(attend, phi, query, key, value, scale=0.4, window=3, num_sinks=1)
    close(fast, generic, 1e-12, "scale")


@NAMES
def test_layouts(rng, name):
    """Grouped heads, maps and gates of each query head or of each key head, broadcast keys, states of more heads."""
    options = {option: x for option, x in RELATIONS[name].items() if name != "gates" or option != "decay"}
    query, (key, value) = rng.standard_normal((2, 4, 23, 5)), rng.standard_normal((2, 2, 2, 23, 5))
    for batch_shape in ((), (2,), (4,), (2, 4)):
        phi, _ = draw("positive", batch_shape)
        gates = (GATES[:, :23], np.repeat(GATES[:, :23], 2, axis=0)) if name == "gates" else ({},)
        for each in gates:
            given = options | ({"decay": np.stack([each, each**0.5])} if name == "gates" else {})
            fast, generic = both(attend, phi, query, key, value, enable_gqa=True, **given)
            close(fast, generic, 1e-12, (batch_shape, np.shape(each)))
    phi, _ = draw("positive")
    if name != "gates":
        fast, generic = both(attend, phi, query, key[:, :1], value[0, 0], **options)
        close(fast, generic, 1e-12, "broadcast")


@pytest.mark.parametrize("name", [name for name in RELATIONS if "sinks" not in name and name != "both sides"])
def test_after_a_state(rng, name):
    """What is in the state is before the first key, and fades from there."""
    phi, _ = draw("positive")
    query, key, value = inputs_of(rng, 23, 23, 2.0)
    _, state = rf.linear_attention(query[:, :9], key[:, :9], value[:, :9], phi, return_state=True)
    for offset in {RELATIONS[name].get("causal_offset", 0), 0, *(() if name == "gates" else (-8, 30))}:
        options = RELATIONS[name] | {"causal_offset": offset}
        given = {"initial_state": state, "return_state": True, **options}
        (fast, after), (generic, expected) = both(attend, phi, query, key, value, **given)
        close(fast, generic, 1e-11, offset)
        close(after.weighted, expected.weighted, 1e-10, offset)


@NAMES
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extremes(rng, name, extreme):
    """Long inputs, values of any size: to the rounding of exponents of the size of the logits."""
    dtype = "float32" if len(name + extreme) % 2 else "float64"
    options = {option: x[0] if np.ndim(x) else x for option, x in RELATIONS[name].items()}
    query, key = rng.standard_normal((2, 40, 5))
    if "decay" in options and np.ndim(options["decay"]):
        options["decay"] = np.concatenate([options["decay"], options["decay"]])[:40]
    query, key, value = (x.astype(dtype) for x in EXTREMES[extreme](query, key, rng.standard_normal((40, 3))))
    phi, _ = draw("positive", num_features=16, dtype=dtype)
    fast, generic = both(attend, phi, query, key, value, **options)
    logs = max(np.max(np.abs(side(x * 5**-0.25).log_scale)) for side, x in ((phi.queries, query), (phi.keys, key)))
    logs = max(logs, np.max(np.abs(query.astype(np.float64) @ key.T.astype(np.float64))))
    size = np.maximum.accumulate(np.abs(value).max(axis=-1)) if "is_causal" in options else np.abs(value).max()
    error = np.max(np.abs(fast - generic), axis=-1) / np.maximum(size, 1e-45)
    if options.get("causal_offset", 0) > 0:
        error = np.max(np.abs(fast - generic), axis=-1) / np.abs(value).max()
    assert np.max(error) <= (64 * logs + 256) * eps_of(dtype)


@pytest.mark.parametrize("future", FUTURES)
def test_outputs_never_see_the_future(rng, future):
    """Bit-equal, whatever later queries, keys and values become: infinite, NaN, huge."""
    scale = [1.0, 6.0, 60.0][[*FUTURES].index(future) % 3]
    phi, _ = draw("positive", (2,))
    inputs = rng.standard_normal((3, 2, 23, 5)) * np.array([scale, scale, 1.0])[:, None, None, None]
    for name, options in RELATIONS.items():
        if "is_causal" not in options:
            continue
        clean = attend(phi, *inputs, **options)
        offset = options.get("causal_offset", 0)
        for now in (0, 2, 3, 7, 8, 14):
            changed = inputs.copy()
            with np.errstate(all="ignore"):
                changed[1:, :, now + 1 + max(offset, 0) :] = FUTURES[future](changed[1:, :, now + 1 + max(offset, 0) :])
                changed[0, :, now + 1 :] = FUTURES[future](changed[0, :, now + 1 :])
                out = attend(phi, *changed, **options)
            assert same_bits(out[:, : now + 1], clean[:, : now + 1]), f"{name}: position {now} saw the future"
            assert scale > 10 or not same_bits(out, clean)


@NAMES
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_numbers_spoil_what_sees_them_and_nothing_else(rng, name, bad):
    """As in the generic pass; in values that are masked they count for nothing."""
    phi, _ = draw("hyperbolic", (2,))
    options = RELATIONS[name]
    if name == "gates":  # a gate of 0 times NaN may be either
        options = options | {"decay": np.maximum(options["decay"], 0.1)}
    for position in (0, 2, 9, 17, 22):
        for which in (1, 2):
            inputs = [*inputs_of(rng, 23, 23)]
            inputs[which][0, position, 1] = bad
            with np.errstate(all="ignore"):
                fast, generic = both(attend, phi, *inputs, **options)
            assert np.array_equal(np.isfinite(fast), np.isfinite(generic)), (name, position, which)
            mask = np.arange(23) != position
            masked = attend(phi, *inputs, key_mask=mask, **options)
            inputs[which][0, position, 1] = 1.0
            assert same_bits(masked, attend(phi, *inputs, key_mask=mask, **options))


@NAMES
def test_threads_change_no_bit(rng, name):
    phi, _ = draw("positive", (2,), num_features=32, dtype="float32")
    query, key, value = inputs_of(rng, 23, 23, dtype="float32")
    one, *others = (attend(phi, query, key, value, num_threads=num, **RELATIONS[name]) for num in (1, 2, 3))
    assert all(same_bits(one, other) for other in others)


def test_half_precision(rng):
    """float16 is computed in float32 and rounded once."""
    query, key, value = inputs_of(rng, 23, 23, dtype="float16")
    phi, _ = draw("positive", dtype="float16")
    for options in RELATIONS.values():
        fast, generic = both(attend, phi, query, key, value, **options)
        assert fast.dtype == np.float16
        close(fast.astype(np.float64), generic, 2 * eps_of("float16") * np.max(np.abs(value)), options)


@NAMES
def test_packed_sequences(rng, name):
    """Each sequence is a problem of its own."""
    if name == "gates":
        pytest.skip("gates of a position are those of a packed sequence as they are of a single one")
    phi, _ = draw("positive")
    query, key, value = inputs_of(rng, 40, 40)
    cuts = [0, 7, 7, 30, 40]
    packed = attend(phi, query, key, value, cu_seqlens=cuts, **RELATIONS[name])
    for start, stop in pairwise(cuts):
        alone = attend(phi, *(x[:, start:stop] for x in (query, key, value)), **RELATIONS[name])
        close(packed[:, start:stop], alone, 1e-12, (start, stop))


@pytest.mark.parametrize("name", ["full", "causal", "window"])
def test_packed_sequences_are_those_alone(rng, monkeypatch, name):
    """To the last bit: outputs, and gradients with and without outputs, of long sequences and of short ones."""
    monkeypatch.setattr(heads, "SHORTEST", 8)
    phi, _ = draw("positive")
    options, cuts = PACKED[name], [0, 9, 9, 33, 38, 60]
    query, key, value = inputs_of(rng, 60, 60)
    mask, gradient = rng.random((2, 60)) < 0.8, rng.standard_normal((2, 60, 3))
    taken = []
    for method in ("attend", "pull_back"):
        monkeypatch.setattr(PackedExecutor, method, recorded(getattr(PackedExecutor, method), taken))
    packed = attend(phi, query, key, value, key_mask=mask, cu_seqlens=cuts, **options)
    pulled = [
        rf.linear_attention_vjp(
            query, key, value, phi, gradient, key_mask=mask, cu_seqlens=cuts, output=output, **options
        )
        for output in (None, packed)
    ]
    assert taken == ["fast"] * 3
    for start, stop in pairwise(cuts):
        part = slice(start, stop)
        own = [x[:, part] for x in (query, key, value)]
        alone = attend(phi, *own, key_mask=mask[:, part], **options)
        assert same_bits(packed[:, part], alone)
        for found, output in zip(pulled, (None, alone), strict=True):
            expected = rf.linear_attention_vjp(
                *own[:3], phi, gradient[:, part], key_mask=mask[:, part], output=output, **options
            )
            for x, y in zip(found, expected, strict=True):
                assert same_bits(x[:, part], y)


PACKED = {"full": {}, "causal": {"is_causal": True}, "window": {"is_causal": True, "window": 3, "num_sinks": 1}}


def recorded(method, taken):
    """The method of an executor, which notes the calls that it answered."""

    def function(self, *arguments):
        found = method(self, *arguments)
        taken.extend([] if found is None else ["fast"])
        return found

    return function


def test_packed_sequences_that_are_short_stay_together(rng, monkeypatch):
    """The generic pass of all, where no sequence is long enough for the fast one."""
    monkeypatch.setattr(heads, "SHORTEST", 64)
    phi, _ = draw("positive")
    problem = Problem.of(*inputs_of(rng, 80, 80), phi, cu_seqlens=[0, 40, 80])
    assert PackedExecutor().attend(problem) is None
    assert PackedExecutor().attend(Problem.of(*inputs_of(rng, 80, 80), phi, cu_seqlens=[0, 64, 80])) is not None


def test_ordinary_sizes(monkeypatch):
    """Blocks, groups and bands as they are."""
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    query, key, value = inputs_of(rng, 1400, 1400, lead=(), dtype="float32")
    assert heads.SHORTEST == 64
    assert exact_rows.BAND == 64
    phi, _ = draw("positive", num_features=512, dtype="float32")
    gates = rng.uniform(0.9, 1.0, (1400, 1))
    for options in (
        {"causal_offset": -70}, {"causal_offset": 300}, {"decay": 0.99}, {"decay": gates},
        {"window": 50, "num_sinks": 3}, {"window": 700, "num_sinks": 100},
    ):  # fmt: skip
        fast, generic = both(attend, phi, query, key, value, is_causal=True, **options)
        close(fast, generic, 200 * eps_of("float32"), options)
    fast, generic = both(attend, phi, query, key, value, window=50, num_sinks=3)
    close(fast, generic, 200 * eps_of("float32"), "both sides")


@pytest.mark.parametrize("scale", [1.0, 400.0])
def test_sums_that_are_read_have_their_absolute_size(rng, scale):
    """Numerators, denominators and their scale, with shifts and without: what exact weights are added to."""
    phi, _ = draw("lopsided")
    (query, key, value), root = inputs_of(rng, 23, 23, scale, lead=()), 5**-0.25
    limits = exponents.Limits.of(query.dtype)
    sides = [exponents.Exponents.of(phi, root, query.dtype, keys=keys) for keys in (False, True)]
    scratch = Scratch(query.dtype)
    total = sums.sum_keys(sides[1], key, value, scratch, size=5, peak=False)
    found = partial_rows.PartialRows.in_memory_of(np.empty_like(value))
    partial_rows.PartialHead(phi, *sides, [query], key, value, None, [found], root).read(total, scratch)
    _, state = rf.linear_attention(query, key, value, phi, return_state=True)
    expected = state.partial(phi.queries(root * query))
    logs = np.log(expected.denominator[:, 0]) + expected.log_scale[:, 0]
    np.testing.assert_allclose(np.log(found.total) + found.log_scale / limits.exponent_unit, logs, rtol=1e-11)
    np.testing.assert_allclose(found.numerator / found.total[:, None], expected.normalized(), atol=1e-9)


@pytest.mark.parametrize("log_gates", [None, [-0.3], -np.linspace(0.01, 2, 23)], ids=["none", "one", "each"])
def test_sums_before_every_chunk(rng, log_gates):
    """Of the groups that were visited: those from which rows are done again."""
    phi, _ = draw("positive")
    _, key, value = inputs_of(rng, 23, 23, lead=())
    gates = None if log_gates is None else np.asarray(log_gates)
    keys, scratch = exponents.Exponents.of(phi, 1.0, key.dtype, keys=True), Scratch(key.dtype)
    rows, nothing = sums.KeyRows(key, value, None, log_gates=gates), sums.Sums.empty(8, 3, key.dtype)
    block = key_block.KeyBlock.of(keys, nothing, rows, scratch, one_reference=True, peak=False)
    assert len([*block.groups(23, scratch, for_slopes=False)]) == 3
    for chunk in range(1, 6):
        found = block.sums_before(chunk).to_state(keys)
        first = rows.part(slice(0, 4 * chunk))
        expected = sums.append_rows(None, keys, first, scratch, size=4, peak=True).to_state(keys)
        scaled = np.exp(found.log_max - expected.log_max)[0][:, None]
        np.testing.assert_allclose(found.weighted * scaled, expected.weighted, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(found.total * scaled, expected.total, rtol=1e-11)
