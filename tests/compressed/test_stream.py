"""Causal compressed attention: causality, cuts, exact beginnings, sinks, references, on every library."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.compressed import causal
from randfeat.compressed.compression import Options as Compression
from randfeat.compressed.compression import merge_rows
from randfeat.compressed.merging import Rows
from randfeat.compressed.stacks import merge_stack
from tests.arrays import asarray, same_bits, to_numpy
from tests.attention.test_linear import one_under_jax
from tests.compressed.heads import head, smooth
from tests.compressed.naive import relative

OPTIONS = {"num_keys": 12, "window": 8, "is_causal": True}
ROUNDING = 1e-11


def test_equals_its_definition(xp, rng):
    """Chunk by chunk, with the public cache in place of the stream's own."""
    for num_sinks in one_under_jax(xp, [0, 3, 11], 1):
        check_definition(xp, *head(rng, 70), num_sinks)


def check_definition(xp, query, key, value, num_sinks):
    references = query[::2]
    expected = np.empty_like(value)
    cache, merged_to = rf.KeyCache.exact(key[:0], value[:0]), min(num_sinks, 70)
    for start in range(0, 70, 8):
        stop = min(start + 8, 70)
        older = max(start - 8, 0)
        if older > merged_to:
            cache = cache.concat(rf.KeyCache.exact(key[merged_to:older], value[merged_to:older]))
            merged_to = older
        exact_from = max(merged_to, older)
        for i in range(start, stop):
            seen = np.r_[0 : min(num_sinks, i + 1), exact_from : i + 1] if i >= num_sinks else np.r_[0 : i + 1]
            part = cache.read(query[i : i + 1]).merge(rf.KeyCache.exact(key[seen], value[seen]).read(query[i : i + 1]))
            expected[i] = part.normalized()[0]
    # With as many rows as keys nothing is merged, and the definition above is exact attention.
    options = {"num_keys": 70, "window": 8, "num_sinks": num_sinks}
    arrays = (asarray(xp, x) for x in (query, key, value))
    found = rf.compressed_attention(*arrays, is_causal=True, queries=asarray(xp, references), **options)
    assert np.max(np.abs(to_numpy(found) - expected)) < ROUNDING
    assert np.max(np.abs(expected - rf.softmax_attention(query, key, value, is_causal=True))) < ROUNDING


def test_is_exact_at_the_beginning_and_close_after(xp, rng):
    query, key, value = head(rng, 200, lead=(2,))
    exact = rf.softmax_attention(query, key, value, is_causal=True)
    found = to_numpy(rf.compressed_attention(*(asarray(xp, x) for x in (query, key, value)), **OPTIONS))
    assert np.max(np.abs(found - exact)[:, :24]) < ROUNDING
    assert 1e-3 < relative(found[:, 24:], exact[:, 24:]) < 0.5


@pytest.mark.parametrize("fit", [False, True], ids=["merged", "fitted"])
def test_equal_sequences_of_a_batch_have_equal_outputs(rng, fit):
    """And each has those that it has alone, also after its place has changed; heads of one sequence differ."""
    options = OPTIONS | {"fit": fit, "enable_gqa": True}
    query, key, value = (np.stack([x, x, np.roll(x, 1, axis=-2)]) for x in head(rng, 200, lead=(4,)))
    key, value = key[:, ::2], value[:, ::2]
    found = rf.compressed_attention(query, key, value, **options)
    assert np.array_equal(found[0], found[1])
    for i in range(3):
        alone = rf.compressed_attention(*(x[i : i + 1] for x in (query, key, value)), **options)
        assert np.max(np.abs(alone - found[i : i + 1])) < ROUNDING
    same = [np.repeat(x[:, :1], 2, axis=1) for x in (query, key, value)]
    of_heads = rf.compressed_attention(*same, **options)
    assert not np.allclose(of_heads[:, 0], of_heads[:, 1])


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 100])
@pytest.mark.parametrize("num_sinks", [0, 5])
def test_the_cut_does_not_matter(rng, cut, num_sinks):
    arrays = head(rng, 200, lead=(2,))
    whole, last = rf.compressed_attention(*arrays, **OPTIONS, num_sinks=num_sinks, return_state=True, rng=3)
    state, outputs = None, []
    for start in range(0, 200, cut):
        part = (x[:, start : start + cut] for x in arrays)
        first = {"num_keys": 12, "window": 8, "num_sinks": num_sinks} if state is None else {}
        output, state = rf.compressed_attention(
            *part, is_causal=True, initial_state=state, return_state=True, rng=3, **first
        )
        outputs.append(output)
    assert np.max(np.abs(np.concatenate(outputs, axis=1) - whole)) < ROUNDING
    for mine, other in zip(state.merged.arrays, last.merged.arrays, strict=True):
        assert same_bits(mine, other)  # caches are made of the same chunks


def test_outputs_do_not_depend_on_later_positions(xp, rng):
    arrays = head(rng, 100)
    first = to_numpy(rf.compressed_attention(*(asarray(xp, x) for x in arrays), **OPTIONS))
    for spoiled in one_under_jax(xp, [1.0, 1e30, np.nan], 2):
        for x in arrays:
            x[61:] = spoiled
        second = to_numpy(rf.compressed_attention(*(asarray(xp, x) for x in arrays), **OPTIONS))
        assert same_bits(first[:61], second[:61]), spoiled
        if np.isnan(spoiled):
            assert np.all(np.isnan(second[61:]))


@pytest.mark.parametrize("where", ["key", "value"])
def test_what_is_not_finite_spoils_all_later_outputs(rng, where):
    arrays = dict(zip(("query", "key", "value"), head(rng, 200), strict=True))
    arrays[where][61] = np.nan
    found = rf.compressed_attention(*arrays.values(), **OPTIONS)
    assert np.array_equal(np.isnan(found).all(axis=1), np.arange(200) >= 61)


def test_a_query_that_is_not_finite_spoils_its_own_output_only(rng):
    query, key, value = head(rng, 200)
    query[61] = np.nan
    found = rf.compressed_attention(query, key, value, **OPTIONS)
    assert np.array_equal(np.isnan(found).all(axis=1), np.arange(200) == 61)


@pytest.mark.parametrize("length", [1, 8, 13])
def test_states_own_their_arrays(rng, length):
    arrays = head(rng, length)
    _, state = rf.compressed_attention(*arrays, **OPTIONS, return_state=True)
    more = head(rng, 30)
    before = rf.compressed_attention(*more, is_causal=True, initial_state=state)
    for x in arrays:
        x[:] = 0
    assert np.array_equal(rf.compressed_attention(*more, is_causal=True, initial_state=state), before)


def test_memory_is_bounded(rng):
    arrays = head(rng, 400)
    _, state = rf.compressed_attention(*arrays, **OPTIONS, num_sinks=4, return_state=True)
    assert [len(part) for part in (state.sinks, state.merged, state.recent)] == [4, 12, 8]
    assert state.references.shape[-2] == 32
    assert state.position == 400
    assert "position=400" in repr(state)


def test_masked_positions_are_as_if_they_were_not_there(xp, rng):
    query, key, value = head(rng, 100)
    present = np.arange(100) >= 24  # padding on the left, of whole chunks
    spoiled = (asarray(xp, np.where(present[:, None], x, 1e30)) for x in (query, key, value))
    masks = {"key_mask": xp.asarray(present), "query_mask": xp.asarray(present)}
    found = to_numpy(rf.compressed_attention(*spoiled, **OPTIONS, **masks))
    exact = rf.softmax_attention(query[24:], key[24:], value[24:], is_causal=True)
    assert np.max(np.abs(found[24:48] - exact[:24])) < ROUNDING
    assert relative(found[24:], exact) < 0.5


def test_sinks_are_the_first_keys_that_are_not_masked(xp, rng):
    """Of each sequence, however long the padding before them is: longer than a chunk, or than two."""
    arrays = [asarray(xp, rng.standard_normal((3, 50, 4))) for _ in range(3)]
    padding = np.array([0, 11, 21])
    mask = np.arange(50) >= padding[:, None]
    _, state = rf.compressed_attention(
        *arrays, **OPTIONS, num_sinks=3, key_mask=xp.asarray(mask), query_mask=mask, return_state=True
    )
    for number, start in enumerate(padding):
        sinks = to_numpy(arrays[1])[number, start : start + 3]
        np.testing.assert_allclose(to_numpy(state.sinks.keys)[number], sinks * 4**-0.25, rtol=1e-6)
        assert np.all(to_numpy(state.sinks.bias)[number] == 0)


def test_grouped_heads_share_the_stream_of_their_key_head(xp, rng):
    query, key, value = head(rng, 100, lead=(4,))[0], *head(rng, 100, lead=(2,))[1:]
    arrays = [asarray(xp, x) for x in (query, key, value)]
    found, state = rf.compressed_attention(*arrays, **OPTIONS, enable_gqa=True, return_state=True)
    exact = rf.softmax_attention(query, key, value, enable_gqa=True, is_causal=True)
    assert state.batch_shape == (2,)
    assert np.max(np.abs(to_numpy(found)[:, :24] - exact[:, :24])) < ROUNDING
    assert relative(to_numpy(found), exact) < 0.5


def test_references_of_the_caller_replace_the_own_ones(rng):
    query, key, value = head(rng, 200)
    exact = rf.softmax_attention(query, key, value, is_causal=True)
    own = rf.compressed_attention(query, key, value, **OPTIONS)
    given = rf.compressed_attention(query, key, value, **OPTIONS, queries=query)
    assert not np.allclose(own, given)
    assert relative(given, exact) < 1.5 * relative(own, exact)


def test_gradients_hold_the_merging_constant(rng):
    torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")
    arrays = [torch.from_numpy(x).requires_grad_() for x in head(rng, 60, dim=3, value_dim=2)]
    output = rf.compressed_attention(*arrays, **OPTIONS)
    output[20].sum().backward()  # before anything is merged: the gradient of exact attention
    found = [x.grad.clone() for x in arrays]
    for x in arrays:
        x.grad = None
    rf.softmax_attention(*arrays, is_causal=True)[20].sum().backward()
    for mine, x in zip(found, arrays, strict=True):
        assert torch.allclose(mine, x.grad, atol=1e-12)
    rf.compressed_attention(*arrays, **OPTIONS)[59].sum().backward()
    assert all(torch.isfinite(x.grad).all() and x.grad[0].abs().sum() > 0 for x in arrays[1:])


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_fit_lowers_the_error(rng, is_causal):
    arrays = head(rng, 600, lead=(4,), size=2.0)
    exact = rf.softmax_attention(*arrays, is_causal=is_causal)
    causal = {"is_causal": True, "window": 32} if is_causal else {}
    errors = [
        relative(rf.compressed_attention(*arrays, num_keys=32, fit=fit, **causal), exact) for fit in (False, True)
    ]
    assert errors[1] < errors[0]


def test_a_fitted_stream_may_be_cut(xp, rng):
    arrays = [asarray(xp, x) for x in head(rng, 100, lead=(2,))]
    options = {"is_causal": True, "return_state": True}
    whole, _ = rf.compressed_attention(*arrays, num_keys=12, window=8, fit=True, **options)
    first, state = rf.compressed_attention(*(x[:, :50, :] for x in arrays), num_keys=12, window=8, fit=True, **options)
    rest, _ = rf.compressed_attention(*(x[:, 50:, :] for x in arrays), initial_state=state, **options)
    found = np.concatenate([to_numpy(first), to_numpy(rest)], axis=1)
    assert np.max(np.abs(found - to_numpy(whole))) < 1e-9  # the regression is less well conditioned than the merging


def test_without_is_causal_it_is_a_cache_of_the_call(xp, rng):
    query, key, value = head(rng, lead=(2,))
    arrays = [asarray(xp, x) for x in (query, key, value)]
    found = to_numpy(rf.compressed_attention(*arrays, num_keys=12))
    cache = rf.compress(key, value, num_keys=12, queries=query, fit=False)
    assert np.max(np.abs(found - cache.read(query).normalized())) < ROUNDING


def test_a_call_without_queries_that_count_has_outputs(xp, rng):
    """An input of a batch that is all padding is attended like any other; the other inputs do not notice."""
    query, key, value = head(rng, lead=(2,))
    arrays = [asarray(xp, x) for x in (query, key, value)]
    mask = xp.asarray(np.array([[True], [False]]) & np.ones(query.shape[-2], bool))
    found = to_numpy(rf.compressed_attention(*arrays, num_keys=12, query_mask=mask))
    assert np.max(np.abs(found - to_numpy(rf.compressed_attention(*arrays, num_keys=12)))) < ROUNDING
    empty = to_numpy(rf.compressed_attention(arrays[0][:, :0, :], *arrays[1:], num_keys=12))
    assert empty.shape == (2, 0, value.shape[-1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"window": 8}, ValueError, "window needs is_causal=True"),
        ({"return_state": True}, ValueError, "return_state needs is_causal=True"),
        ({"is_causal": "yes"}, TypeError, "is_causal must be True or False"),
        ({"is_causal": True, "num_sinks": -1}, ValueError, "num_sinks must be"),
        ({"is_causal": True, "initial_state": 3}, TypeError, "initial_state must be a CompressedState, got int"),
    ],
    ids=["window", "state", "word", "sinks", "number"],
)
def test_bad_arguments(rng, options, error, message):
    with pytest.raises(error, match=message):
        rf.compressed_attention(*head(rng), **options)


def test_states_that_do_not_fit_are_refused(rng):
    query, key, value = head(rng)
    _, state = rf.compressed_attention(query, key, value, **OPTIONS, return_state=True)
    narrow = tuple(x.astype(np.float32) for x in (query, key, value))
    for arrays, options, error, message in (
        ((query, key, value), {"window": 9}, ValueError, "window = 8, got 9"),
        ((query, key, value), {"scale": 1.0}, ValueError, "logits times"),
        ((query, key, value[:, :2]), {}, ValueError, "value dim"),
        ((query, key[:9], value[:9]), {}, ValueError, "a key for each query, got 150 queries and 9 keys"),
        (narrow, {}, TypeError, "initial_state is in float64, but this call computes in float32"),
    ):
        with pytest.raises(error, match=message):
            rf.compressed_attention(*arrays, is_causal=True, initial_state=state, **options)


@pytest.mark.parametrize("spoiled", [False, True], ids=["all alike", "some apart"])
def test_heads_together_are_the_heads_alone(rng, monkeypatch, spoiled):
    """To the bit, whatever the other heads are, and on any number of threads."""
    arrays = head(rng, 100, lead=(3, 2))
    mask = np.ones((3, 2, 100), bool)
    if spoiled:  # heads whose references are not all there are merged one by one
        mask[0, 0, :40] = mask[2, 1, 70:] = False
        arrays[1][1, 1, 50] = np.nan
    options = OPTIONS | {"key_mask": mask, "query_mask": mask, "return_state": True}
    outputs = []
    for number in (1, 2, 5):
        monkeypatch.setenv("RANDFEAT_NUM_THREADS", str(number))
        outputs.append(rf.compressed_attention(*arrays, **options))
    for output, state in outputs[1:]:
        assert same_bits(output, outputs[0][0])
        assert all(same_bits(mine, other) for mine, other in zip(state.arrays, outputs[0][1].arrays, strict=True))
    first = [x[:1, :1] for x in arrays]
    alone, _ = rf.compressed_attention(*first, **options | {"key_mask": mask[:1, :1], "query_mask": mask[:1, :1]})
    assert same_bits(alone, outputs[0][0][:1, :1])


def test_merging_of_many_heads_is_the_merging_of_each(rng):
    """Also with rows that are none, with equal keys, and where fewer rows are different than there are centers."""
    rows = [smooth(rng, 4, 30, 6), smooth(rng, 4, 32, 6)]
    rows[0][1] = rows[0][1, 0]
    rows[0][2, 5:] = rows[0][2, :1]
    bias = rng.standard_normal((4, 30))
    bias[3, 10:20] = -np.inf
    uniforms = np.stack([np.random.default_rng(i).random(8) for i in range(4)])
    values = rng.standard_normal((4, 30, 3))
    shares, merged = merge_stack(rows[0], bias, values, rows[1], 8, uniforms)
    for i in range(4):
        present = np.flatnonzero(bias[i] != -np.inf)
        own = Rows(rows[0][i][present], bias[i][present], values[i][present])
        expected = merge_rows(own, rows[1][i], Compression(8), np.random.default_rng(i))
        matrix, found = expected.matrix(present, 30), len(expected.bias)
        assert np.max(np.abs(shares[i].T @ shares[i] - matrix.T @ matrix)) < ROUNDING  # in whatever order of rows
        assert np.max(np.abs(np.sort(merged[i, :found]) - np.sort(expected.bias))) < ROUNDING
        assert np.all(merged[i, found:] == -np.inf)


def test_tensors_on_a_cpu_take_the_path_of_the_host(rng):
    """Outputs and states of a stream to the bit; caches, and with gradients recorded, to rounding."""
    torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")
    arrays = head(rng, 60, lead=(2,))
    tensors = [torch.from_numpy(x) for x in arrays]
    for options in (OPTIONS | {"return_state": True}, {"num_keys": 12}):
        expected, found = (rf.compressed_attention(*given, **options) for given in (arrays, tensors))
        if "return_state" in options:
            (expected, state), (found, other) = expected, found
            assert all(same_bits(x.numpy(), y) for x, y in zip(other.arrays, state.arrays, strict=True))
            assert all(isinstance(x, torch.Tensor) for x in other.arrays)
            more = head(rng, 30, lead=(2,))
            pair = [
                rf.compressed_attention(*given, is_causal=True, initial_state=after)
                for given, after in ((more, state), ([torch.from_numpy(x) for x in more], other))
            ]
            assert same_bits(pair[1].numpy(), pair[0])
            assert same_bits(found.numpy(), expected)
        assert np.max(np.abs(found.numpy() - expected)) < ROUNDING
        recorded = [x.clone().requires_grad_() for x in tensors]
        again = rf.compressed_attention(*recorded, **options | {"return_state": False})
        assert np.max(np.abs(again.detach().numpy() - expected)) < ROUNDING


def test_single_tokens_start_no_threads_and_leave_what_they_do_not_change(rng, monkeypatch):
    """Within a chunk; whole chunks are tasks as before. The outputs are those of one call."""
    arrays = head(rng, 60, lead=(2,))
    whole = rf.compressed_attention(*arrays, **OPTIONS)
    tasks, run_tasks = [], causal.run_tasks
    monkeypatch.setattr(causal, "run_tasks", lambda *given: tasks.append(position) or run_tasks(*given))
    state, outputs = None, []
    for position in range(60):
        given = [np.array(x[:, position : position + 1]) for x in arrays]
        options = OPTIONS if state is None else {"is_causal": True, "initial_state": state}
        output, after = rf.compressed_attention(*given, return_state=True, **options)
        outputs.append(output)
        assert not any(np.may_share_memory(x, y) for x in after.arrays for y in given)
        if state is not None and len(state.merged) and (position + 1) % 8:
            assert all(map(np.shares_memory, after.merged.arrays, state.merged.arrays))
        state = after
    assert tasks == [7, 15, 23, 31, 39, 47, 55]
    assert np.max(np.abs(np.concatenate(outputs, axis=1) - whole)) < ROUNDING
    monkeypatch.setattr(causal, "FEW", 0)
    rf.compressed_attention(*given, return_state=True, is_causal=True, initial_state=state)
    assert len(tasks) == 8
