"""`method="auto"`: a query that sees few keys attends to them exactly, all others by features, however a text comes."""

from types import SimpleNamespace

import numpy as np
import pytest

import randfeat as rf

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
transformers = pytest.importorskip("transformers", "5.4", reason="pip install '.[transformers]'")
from randfeat.integrations.transformers import StateCache, few_keys, register  # noqa: E402
from tests.integrations.small_models import bert, distance, hidden, llama, run  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

LIMIT = 8
LENGTHS = (5, LIMIT, LIMIT + 1, 20)
TEXTS = torch.arange(2 * 24).reshape(2, 24) * 7 % 50
ROUNDING = 1e-12  # of float64, through the layers of a model


def small(make, **options):
    return run(make(**{"max_position_embeddings": 80} | options))


def both(text, length, *, left):
    """A batch of a text and a longer one, with padding on one side, the mask, and the place of the text."""
    tokens, present = TEXTS.flip(0).clone(), torch.ones_like(TEXTS)
    place = slice(24 - length, 24) if left else slice(0, length)
    tokens[1], present[1] = 3, 0
    tokens[1, place], present[1, place] = text[0], 1
    return tokens, present, place


def padded(model, text, *, left):
    tokens, present, place = both(text, text.shape[1], left=left)
    positions = (present.cumsum(-1) - 1).clamp(min=0)
    return hidden(model, tokens, attention_mask=present, position_ids=positions)[1:, place]


def additive(model, text):
    tokens, present, place = both(text, text.shape[1], left=True)
    mask = torch.zeros(2, 1, 1, 24, dtype=torch.float64)
    mask = mask.masked_fill(~present.bool()[:, None, None], torch.finfo(torch.float64).min)
    positions = (present.cumsum(-1) - 1).clamp(min=0)
    return hidden(model, tokens, attention_mask=mask, position_ids=positions)[1:, place]


def packed(model, text):
    length = text.shape[1]
    row = torch.cat([TEXTS[1:], text, TEXTS[1:, :4]], dim=1)
    cuts = torch.tensor([0, 24, 24 + length, 28 + length], dtype=torch.int32)
    positions = torch.cat([torch.arange(n) for n in (24, length, 4)])[None]
    out = hidden(model, row, cu_seq_lens_q=cuts, cu_seq_lens_k=cuts, position_ids=positions)
    return out[:, 24 : 24 + length]


def cuts_of(length, first=3, step=4):
    return [(0, first), *((a, min(a + step, length)) for a in range(first, length, step))]


def pieces(model, text, cache, cuts):
    with torch.no_grad():
        steps = [model(text[:, a:b], past_key_values=cache, use_cache=True).logits for a, b in cuts]
    return torch.cat(steps, dim=1)


def padded_pieces(model, text, cache, step):
    """With a longer text in the other row, and padding on the left: rows pass the limit in different calls."""
    tokens, present, place = both(text, text.shape[1], left=True)
    positions, logits = (present.cumsum(-1) - 1).clamp(min=0), []
    for a, b in cuts_of(24, step, step):
        given = {"attention_mask": present[:, :b], "position_ids": positions[:, a:b]}
        with torch.no_grad():
            logits.append(model(tokens[:, a:b], past_key_values=cache, use_cache=True, **given).logits)
    return torch.cat(logits, dim=1)[1:, place]


def reordered(model, text):
    """The text in the second row from its third token on, and in both rows from its seventh token on."""
    cache, length = StateCache(model.config), text.shape[1]
    rows = torch.cat([text, TEXTS[1:, :length]])
    with torch.no_grad():
        first = model(rows[:, :3], past_key_values=cache).logits[:1]
        cache.reorder_cache(torch.tensor([1, 0]))
        second = model(rows.flip(0)[:, 3:7], past_key_values=cache).logits[1:]
        cache.reorder_cache(torch.tensor([1, 1]))
        steps = [first, second]
        for t in range(7, length):
            steps.append(model(text[:, t : t + 1].expand(2, -1), past_key_values=cache).logits[1:])
    return torch.cat(steps, dim=1)[:, :length]


ENCODER = {
    "padded left": lambda model, text: padded(model, text, left=True),
    "padded right": lambda model, text: padded(model, text, left=False),
    "additive mask": additive,
    "packed": packed,
}
DECODER = ENCODER | {
    "pieces, all keys": lambda model, text: pieces(
        model, text, transformers.DynamicCache(config=model.config), cuts_of(text.shape[1])
    ),
    "one by one, all keys": lambda model, text: pieces(
        model, text, transformers.DynamicCache(config=model.config), cuts_of(text.shape[1], 1, 1)
    ),
    "pieces, fixed length": lambda model, text: pieces(
        model, text, transformers.StaticCache(config=model.config, max_cache_len=40), cuts_of(text.shape[1])
    ),
    "pieces, padded, all keys": lambda model, text: padded_pieces(
        model, text, transformers.DynamicCache(config=model.config), 3
    ),
    "whole, state": lambda model, text: pieces(model, text, StateCache(model.config), [(0, text.shape[1])]),
    "pieces, state": lambda model, text: pieces(model, text, StateCache(model.config), cuts_of(text.shape[1])),
    "one by one, state": lambda model, text: pieces(
        model, text, StateCache(model.config), cuts_of(text.shape[1], 1, 1)
    ),
    "pieces, padded, state": lambda model, text: padded_pieces(model, text, StateCache(model.config), 4),
    "one by one, padded, state": lambda model, text: padded_pieces(model, text, StateCache(model.config), 1),
    "reordered, state": reordered,
}
TABLE = [(bert, way) for way in ENCODER] + [(llama, way) for way in DECODER]


@pytest.mark.parametrize(("make", "way"), TABLE, ids=lambda x: getattr(x, "__name__", x))
def test_a_text_has_the_outputs_that_it_has_alone(make, way):
    register(num_features=16, exact_up_to=LIMIT)
    model = small(make)
    for length in LENGTHS:
        text = TEXTS[:1, :length]
        assert distance((ENCODER | DECODER)[way](model, text), hidden(model, text)) < ROUNDING, length


def test_the_law_sees_a_count_of_padding(monkeypatch):
    """If padding counted, a padded text would have features where it is exact alone."""
    register(num_features=16, exact_up_to=LIMIT)
    monkeypatch.setattr(few_keys, "counted", lambda present: torch.ones_like(present, dtype=torch.long).cumsum(-1))
    text = TEXTS[:1, :LIMIT]
    for make, way in ((bert, "padded left"), (llama, "padded left"), (llama, "pieces, padded, state")):
        model = small(make)
        assert distance(DECODER[way](model, text), hidden(model, text)) > 1e-2


@pytest.mark.parametrize("make", [bert, llama])
def test_few_keys_are_exact_and_many_are_not(make):
    """Exactly the queries of the rule have the outputs of the exact model; with a limit of 0, none has."""
    model = small(make, num_hidden_layers=1, initializer_range=0.5)
    for length in LENGTHS:
        exact, text = hidden(run(model, "sdpa"), TEXTS[:1, :length]), TEXTS[:1, :length]
        register(num_features=16, exact_up_to=LIMIT)
        found = hidden(run(model), text)
        register(num_features=16, method="linear")
        linear = hidden(model, text)
        register(num_features=16, exact_up_to=0)
        assert torch.equal(hidden(model, text), linear)
        num = min(length, LIMIT) if make is llama else length * (length <= LIMIT)
        assert distance(found[:, :num], exact[:, :num]) < ROUNDING or not num
        assert distance(found[:, num:], linear[:, num:]) < ROUNDING or num == length
        errors = torch.linalg.norm(linear - exact, dim=-1)
        assert bool((errors[:, 1:] > 1e-3).all())


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_definition(attention, query, key, value, present, bias, offset):
    """Query by query: softmax attention to at most `LIMIT` keys that it sees, and linear attention to more."""
    heads, length = query.shape[1:3]
    group, output = heads // key.shape[1], torch.zeros(*query.shape[:3], value.shape[-1], dtype=query.dtype)
    features = attention.features(0, heads, query, key.shape[1])
    rows = features.arrays["rows"].repeat_interleave(heads // features.batch_shape[0], dim=0)
    for row, head, i in np.ndindex(len(query), heads, length):
        seen = present[row, head % present.shape[1]].clone()
        seen[len(seen) if offset is None else i + offset + 1 :] = False
        phi = rf.FeatureMap(features.estimator, features.dim, features.num_features, {"rows": rows[head : head + 1]})
        given = (x[row, head // group][None, seen] for x in (key, value))
        options = {"key_bias": bias[row, head % bias.shape[1]][seen]}
        args = query[row, head, i : i + 1][None], *given
        if int(seen.sum()) <= LIMIT:
            output[row, head, i] = rf.softmax_attention(*args, **options)[0, 0]
        else:
            output[row, head, i] = rf.linear_attention(*args, phi, **options)[0, 0]
    return output


MASKS = {
    "none": torch.ones(2, 1, 11, dtype=torch.bool),
    "left": torch.arange(11) >= torch.tensor([1, 4])[:, None, None],
    "right": torch.arange(11) < torch.tensor([11, 6])[:, None, None],
    "holes": torch.arange(11) * 7 % 11 < torch.tensor([9, 5])[:, None, None],
    "heads": torch.arange(11) * 7 % 11 < torch.tensor([[9, 7], [3, 10]])[..., None],
    "nothing": torch.zeros(2, 1, 11, dtype=torch.bool),
}


@pytest.mark.parametrize("is_compiling", [False, True], ids=["numbers", "no numbers"])
@pytest.mark.parametrize("num_queries", [11, 4, 1])
@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize(
    ("key_heads", "share_maps"), [(2, False), (1, False), (1, True)], ids=["heads", "group", "map"]
)
def test_calls_are_those_of_the_definition(key_heads, share_maps, causal, num_queries, is_compiling, monkeypatch):
    """With masks of every kind, biases, grouped heads, after a cache; also where numbers of masks cannot be read."""
    if is_compiling:
        monkeypatch.setattr(few_keys, "host_twins", lambda *arrays: None)
    attention = register(num_features=16, exact_up_to=LIMIT, share_maps=share_maps)
    module = SimpleNamespace(is_causal=causal)
    query = drawn(2, 2, num_queries, 8)
    key, value = drawn(2, key_heads, 11, 8, seed=3), drawn(2, key_heads, 11, 5, seed=4)
    offset = 11 - num_queries if causal else None
    for kind, present in MASKS.items():
        for is_biased in (False, True):
            bias = drawn(2, present.shape[1], 11, seed=5) * is_biased
            mask = None if kind == "none" else present[:, :, None]
            if is_biased:
                mask = bias[:, :, None].masked_fill(~present[:, :, None], torch.finfo(torch.float64).min)
            found = attention(module, query, key, value, mask)[0].transpose(1, 2)
            expected = by_definition(attention, query, key, value, present, bias, offset)
            if causal and num_queries > 1:  # others are padding, whose outputs mean nothing
                own = present[..., 11 - num_queries :, None]
                found, expected = (torch.where(own, x, 0) for x in (found, expected))
            scale = max(float(torch.linalg.norm(expected)), 1.0)
            assert float(torch.linalg.norm(found - expected)) < ROUNDING * scale, (kind, is_biased)
