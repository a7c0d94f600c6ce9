"""Padding on the left in causal compressed attention: each sequence of a batch has the outputs that it has alone."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.compressed.padding import trimmed
from tests.arrays import asarray, same_bits, to_numpy
from tests.compressed.heads import head

OPTIONS = {"num_keys": 12, "window": 8, "num_sinks": 3, "is_causal": True}
PADDING = np.array([0, 5, 70, 21, 21, 16])  # the third sequence is nothing else; chunks are 8 long
LENGTH = 70
ROUNDING = 1e-9  # a chunk is read in other pieces, and what is merged begins from their rounding


def padded_batch(rng, spoiled=1e30):
    """A batch of sequences with two heads behind their padding, which holds `spoiled`; the mask of what takes part."""
    arrays = head(rng, LENGTH, lead=(len(PADDING), 2))
    mask = np.array(np.broadcast_to(np.arange(LENGTH) >= PADDING[:, None, None], arrays[0].shape[:-1]))
    return [np.where(mask[..., None], x, spoiled) for x in arrays], mask


def alone(arrays, row, **options):
    """The outputs of one sequence without its padding."""
    return rf.compressed_attention(*(x[row : row + 1, :, PADDING[row] :] for x in arrays), **OPTIONS | options)


def check_alone(outputs, arrays, bound=ROUNDING, **options):
    for row, first in enumerate(PADDING):
        assert np.all(outputs[row, :, :first] == 0), row
        if first < LENGTH:
            assert np.max(np.abs(outputs[row : row + 1, :, first:] - alone(arrays, row, **options))) <= bound, row


@pytest.mark.parametrize("options", [{}, {"fit": True}, {"enable_gqa": True}], ids=["plain", "fitted", "grouped"])
def test_a_padded_sequence_is_itself_alone(xp, rng, options):
    """To the bit where NumPy computes, as for all arrays on a CPU that nobody watches."""
    arrays, mask = padded_batch(rng)
    own = [arrays[0], *(x[:, :1] for x in arrays[1:])] if options.get("enable_gqa") else arrays
    mask = np.array(mask[:, :1])
    found = rf.compressed_attention(*(asarray(xp, x) for x in own), **OPTIONS | options, key_mask=xp.asarray(mask))
    on_host = xp.__name__.rpartition(".")[-1] in ("numpy", "torch")
    check_alone(to_numpy(found), own, 0 if on_host else ROUNDING, **options)


@pytest.mark.parametrize("cut", [1, 6, 30])
def test_it_may_come_in_pieces(rng, cut):
    """Of which the first ones are padding alone for some sequences, and all of them for one."""
    arrays, mask = padded_batch(rng)
    state, outputs = None, []
    for start in range(0, LENGTH, cut):
        own = slice(start, start + cut)
        options = OPTIONS | {"return_state": True, "initial_state": state, "key_mask": mask[..., own]}
        output, state = rf.compressed_attention(*(x[..., own, :] for x in arrays), **options)
        outputs.append(output)
    check_alone(np.concatenate(outputs, axis=-2), arrays)
    np.testing.assert_array_equal(state.positions, np.broadcast_to(LENGTH - PADDING[:, None], (6, 2)))
    assert [len(rows) for rows in (state.sinks, state.merged)] == [3, 12]
    assert len(state.recent) <= 15


def test_states_without_the_padding_that_all_sequences_have(rng):
    """Of a batch with equal padding, and of a selection of sequences, as beams make it."""
    arrays, mask = padded_batch(rng)
    rows, options = np.array([3, 4]), OPTIONS | {"return_state": True}
    _, expected = rf.compressed_attention(*(x[rows, :, 21:] for x in arrays), **options)
    _, padded = rf.compressed_attention(*(x[rows] for x in arrays), **options, key_mask=mask[rows])
    _, whole = rf.compressed_attention(*arrays, **options, key_mask=mask)
    for state in (padded, trimmed(whole.select(rows))):
        assert state.padding is None
        assert state.position == LENGTH - 21
        assert same_bits(state.priorities, expected.priorities)
        assert all(map(same_bits, state.arrays, expected.arrays))


def test_gradients_are_those_alone(rng):
    torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")
    arrays, mask = padded_batch(rng)
    tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
    weights = torch.from_numpy(rng.standard_normal(arrays[2].shape))
    rf.compressed_attention(*tensors, **OPTIONS, key_mask=torch.from_numpy(mask)).mul(weights).sum().backward()
    for row in (1, 3):
        own = slice(PADDING[row], None)
        single = [torch.tensor(x[row : row + 1, :, own], requires_grad=True) for x in arrays]
        rf.compressed_attention(*single, **OPTIONS).mul(weights[row : row + 1, :, own]).sum().backward()
        for whole, x in zip(tensors, single, strict=True):
            assert torch.max(torch.abs(whole.grad[row, :, own] - x.grad[0])) < ROUNDING
            assert torch.all(whole.grad[row, :, : PADDING[row]] == 0)


@pytest.mark.parametrize("spoiled", [np.nan, np.inf], ids=str)
def test_the_padding_has_no_influence(rng, spoiled, monkeypatch):
    """On any number of threads, to the bit; a query that is padding spoils its own output."""
    arrays, mask = padded_batch(rng, spoiled)
    expected = rf.compressed_attention(*(np.where(mask[..., None], x, 0) for x in arrays), **OPTIONS, key_mask=mask)
    for number in (1, 5):
        monkeypatch.setenv("RANDFEAT_NUM_THREADS", str(number))
        found = rf.compressed_attention(*arrays, **OPTIONS, key_mask=mask)
        assert same_bits(found[mask], expected[mask])


def test_heads_may_have_padding_of_their_own(rng):
    arrays, _ = padded_batch(rng)
    own = [x[0] for x in arrays]
    found = rf.compressed_attention(*own, **OPTIONS, key_mask=np.arange(LENGTH) >= np.array([[0], [13]]))
    whole = rf.compressed_attention(*own, **OPTIONS)
    assert same_bits(found[0], whole[0])
    later = rf.compressed_attention(*(x[:, 13:] for x in own), **OPTIONS)
    assert same_bits(found[1, 13:], later[1])


def test_states_with_padding_are_saved(rng, tmp_path):
    arrays, mask = padded_batch(rng)
    first, rest = ([x[..., part, :] for x in arrays] for part in (slice(40), slice(40, None)))
    _, state = rf.compressed_attention(*first, **OPTIONS, key_mask=mask[..., :40], return_state=True)
    rf.save(tmp_path / "state.npz", state)
    options = {"is_causal": True, "key_mask": mask[..., 40:]}
    loaded = rf.load(tmp_path / "state.npz")
    outputs = [rf.compressed_attention(*rest, **options, initial_state=given) for given in (state, loaded)]
    assert same_bits(*outputs)
