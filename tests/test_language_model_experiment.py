"""The language model experiment: its documents, its model, and what stands in place of exact attention."""

import importlib.util

import numpy as np
import pytest

from experiments.language_model.documents import documents
from experiments.language_model.settings import CUT, FEATURES, METHODS, ModelSettings, Training

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")

TINY = ModelSettings(training=Training(width=16, layers=2, stages=((32, 2, 3),)), length=48, num_documents=2)


def test_quotations_repeat_what_stands_before_them():
    made = documents("quoting", 512, 4, np.random.default_rng(0), held_out=False)
    assert made.tokens.shape == made.quoted.shape == (4, 513)
    assert 0.3 < made.quoted.mean() < 0.7
    for tokens, quoted in zip(made.tokens, made.quoted, strict=True):
        text = "".join(map(chr, 33 + tokens))
        starts = np.flatnonzero(np.diff(np.concatenate([[False], quoted]).astype(int)) == 1)
        for start in starts:
            stop = start + int(np.argmin(np.append(quoted[start:], False)))
            part = text[start : min(start + 16, stop)]  # neighbours may be quotations, too
            assert part in text[:start]


def test_held_out_documents_are_not_trained_on():
    rng = np.random.default_rng(1)
    read = documents("novel", 400, 3, rng, held_out=True)
    assert not read.quoted.any()
    np.testing.assert_array_equal(read.tokens[0, -1], read.tokens[1, 0])  # one follows the other
    trained = documents("novel", 400, 200, rng, held_out=False)
    windows = {row[:100].tobytes() for row in trained.tokens}
    assert len(windows) > 150
    assert not windows & {row[:100].tobytes() for row in read.tokens}


@needs_torch
def test_the_model_sees_no_later_character_and_has_grouped_queries():
    import torch

    from experiments.language_model.training import shape_of
    from experiments.transformer import exact, make_model

    model = make_model(shape_of(TINY.training), np.random.default_rng(0))
    sizes = []

    def seen(layer, query, key, value):
        sizes.append((query.shape[1], key.shape[1], value.shape[1]))
        return exact(is_causal=True)(layer, query, key, value)

    ids = torch.from_numpy(documents("novel", 40, 1, np.random.default_rng(0), held_out=False).tokens)
    other = ids.clone()
    other[:, 20:] = ids[:, 20:].flip(-1)
    with torch.no_grad():
        first, second = model(ids, seen), model(other, seen)
    assert torch.equal(first[:, :20], second[:, :20])
    assert not torch.allclose(first[:, 20:], second[:, 20:])
    assert set(sizes) == {(4, 2, 2)}


@needs_torch
@pytest.mark.parametrize("method", [*METHODS, CUT])
def test_replacements_with_room_for_all_keys_are_exact_and_none_sees_the_future(method):
    import torch

    from experiments.language_model.replacements import attention_of
    from experiments.transformer import exact

    rng = np.random.default_rng(2)
    query = torch.from_numpy(rng.standard_normal((2, 4, 60, 8), dtype=np.float32))
    key, value = torch.from_numpy(rng.standard_normal((2, 2, 2, 60, 8), dtype=np.float32))
    if method != FEATURES:
        output = attention_of(method, 196, TINY)(0, query, key, value)
        torch.testing.assert_close(output, exact(is_causal=True)(0, query, key, value), rtol=0, atol=1e-5)
    attend = attention_of(method, 28, TINY)
    whole = attend(0, query, key, value)
    later = [torch.cat([x[..., :40, :], -2 * x[..., 40:, :]], dim=-2) for x in (query, key, value)]
    other = attend(0, *later)
    torch.testing.assert_close(other[..., :40, :], whole[..., :40, :], rtol=0, atol=1e-6)
    assert not torch.allclose(other[..., 40:, :], whole[..., 40:, :], atol=0.1)
    assert whole.dtype == torch.float32


@needs_torch
def test_training_is_repeatable_and_lowers_the_loss():
    import torch

    from experiments.language_model.training import curve, trained

    first, second = trained(TINY), trained.__wrapped__(TINY)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    settings = ModelSettings(small=Training(width=16, layers=1, stages=((32, 8, 40),)), num_features=32, held_out=4)
    for arm in ("exact", "LinearAttention"):
        rows = curve(arm, "novel", 0, settings)["curves"]
        assert [row["step"] for row in rows] == list(range(40))
        assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
