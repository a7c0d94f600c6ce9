"""Which keys the queries of a model see: packed sequences, caches, windows and additive masks."""

import re
from pathlib import Path

import numpy as np
import pytest

import randfeat as rf

torch = pytest.importorskip("torch", reason="pip install '.[transformers]'")
transformers = pytest.importorskip("transformers", "5.4", reason="pip install '.[transformers]'")
from randfeat.integrations.transformers import keywords, register  # noqa: E402
from randfeat.integrations.transformers.masks import padding_mask  # noqa: E402
from tests.integrations.small_models import PADDING, TOKENS, bert, distance, hidden, llama, mistral, run  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

ROW = TOKENS.reshape(1, 18)
CUTS = torch.tensor([0, 5, 6, 18], dtype=torch.int32)
POSITIONS = torch.cat([torch.arange(n) for n in (5, 1, 12)])[None]
OFFSETS = {"cu_seq_lens_q": CUTS, "cu_seq_lens_k": CUTS, "max_length_q": 12, "max_length_k": 12}
NUMBERS = torch.tensor([0] * 5 + [1] + [2] * 12)[None].int()


AUTO = {"method": "auto", "exact_up_to": 4}


@pytest.fixture(params=[{}, {"method": "exact"}, {"decay": 0.8}, {"window": 2}, AUTO, AUTO | {"window": 2}], ids=str)
def attention(request):
    """An attention function, registered as "randfeat"; the exact one is compared with the exact model."""
    return register(num_features=32, **{"method": "linear"} | request.param)


@pytest.mark.parametrize(
    "packing",
    [
        {**OFFSETS},
        {**OFFSETS, "position_ids": POSITIONS},
        {"position_ids": POSITIONS, "use_cache": False},
        {"position_ids": POSITIONS, "seq_idx": NUMBERS},
    ],
    ids=["offsets", "offsets and positions", "positions", "numbers"],
)
def test_packed_sequences_are_those_alone(attention, packing):
    """Each of three sequences in a row has the logits that it has alone."""
    model = run(llama())
    given = {"position_ids": POSITIONS} | packing
    packed = hidden(model, ROW, **given)
    for start, stop in ((0, 5), (5, 6), (6, 18)):
        assert distance(packed[:, start:stop], hidden(model, ROW[:, start:stop])) < 1e-12
    assert distance(packed, hidden(model, ROW, position_ids=POSITIONS)) > 1e-2  # with a cache, positions say nothing


def test_rows_that_are_packed_differently(attention):
    model = run(llama())
    positions = torch.stack([torch.arange(9), torch.cat([torch.arange(4), torch.arange(5)])])
    packed = hidden(model, TOKENS, position_ids=positions, use_cache=False)
    for row, start, stop in ((0, 0, 9), (1, 0, 4), (1, 4, 9)):
        alone = hidden(model, TOKENS[row : row + 1, start:stop])
        assert distance(packed[row : row + 1, start:stop], alone) < 1e-12


def test_packed_sequences_of_a_bidirectional_model():
    """And padding within them; offsets count through all rows of the batch."""
    register(num_features=32, method="linear")
    model = run(bert())
    cuts = torch.tensor([0, 5, 9, 18], dtype=torch.int32)
    given = {
        "cu_seq_lens_q": cuts,
        "cu_seq_lens_k": cuts,
        "position_ids": torch.tensor([[*range(5), *range(4)], [*range(9)]]),
    }
    packed = hidden(model, TOKENS, **given)
    for row, start, stop in ((0, 0, 5), (0, 5, 9), (1, 0, 9)):
        alone = hidden(model, TOKENS[row : row + 1, start:stop])
        assert distance(packed[row : row + 1, start:stop], alone) < 1e-12
    masked = hidden(model, TOKENS, attention_mask=PADDING, **given)
    assert distance(masked[1:, :5], hidden(model, TOKENS[1:, :5])) < 1e-12


def test_offsets_that_do_not_fit_are_refused():
    register(num_features=32, method="linear")
    model = run(llama())
    for given, message in (
        ({"cu_seq_lens_q": CUTS}, "cu_seq_lens_q and cu_seq_lens_k must be given together"),
        ({"cu_seq_lens_q": CUTS, "cu_seq_lens_k": torch.tensor([0, 4, 6, 18])}, "same number of keys before"),
        ({"cu_seq_lens_q": CUTS[:3], "cu_seq_lens_k": CUTS[:3]}, "offsets from 0 to the length of the query, 18"),
    ):
        with pytest.raises(ValueError, match=message):
            hidden(model, ROW, **given)


def pieces(model, cuts, tokens=TOKENS, **options):
    """Logits of a text that is given in pieces, each after the cache of those before."""
    logits, cache, mask = [], options.pop("cache", None), options.pop("attention_mask", None)
    for start, stop in cuts:
        given = {} if mask is None else {"attention_mask": mask[:, :stop]}
        with torch.no_grad():
            step = model(tokens[:, start:stop], past_key_values=cache, use_cache=True, **given)
        cache = step.past_key_values
        logits.append(step.logits)
    return torch.cat(logits, dim=1)


SPLITS = {"one by one": [(0, 5), *((i, i + 1) for i in range(5, 9))], "pieces": [(0, 4), (4, 6), (6, 9)]}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("is_padded", [False, True], ids=["whole", "padded"])
def test_queries_after_a_cache(attention, split, is_padded):
    """One or several at a time, with padding on the left or none: the logits of the whole sequence."""
    model = run(llama())
    mask = PADDING.flip(-1) if is_padded else None
    whole = hidden(model, attention_mask=mask)
    found = pieces(model, SPLITS[split], attention_mask=mask)
    present = torch.ones(2, 9, dtype=torch.bool) if mask is None else mask.bool()
    assert distance(found[present], whole[present]) < 1e-12


def test_queries_after_a_cache_of_fixed_length(attention):
    """Its keys are more than there are tokens: positions come from the cache, not from the shapes."""
    model = run(llama())
    whole = hidden(model)
    for split in SPLITS.values():
        cache = transformers.StaticCache(config=model.config, max_cache_len=20)
        assert distance(pieces(model, split, cache=cache), whole) < 1e-12


@pytest.mark.parametrize("options", [{}, {"prefill_chunk_size": 4}, {"cache_implementation": "static"}], ids=str)
def test_generated_tokens_are_those_without_a_cache(options):
    register(num_features=32, method="linear")
    model = run(llama())
    common = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "attention_mask": PADDING.flip(-1)}
    if "cache_implementation" in options:
        common["disable_compile"] = True
    tokens = torch.where(PADDING.flip(-1).bool(), TOKENS, 0)
    expected = model.generate(tokens, **common, use_cache=False)
    assert torch.equal(model.generate(tokens, **common, **options), expected)
    assert len(expected[0].unique()) > 6


def test_windows_that_hide_nothing():
    """A model with a sliding window runs on texts within it, and word by word on longer ones; else it is refused."""
    attention = register(num_features=32, method="exact")
    for window in (9, 12):
        model = mistral(window)
        expected = hidden(model)
        assert distance(hidden(run(model)), expected) < 1e-12
        assert distance(pieces(model, SPLITS["pieces"]), expected) < 1e-12
    model = mistral(4)
    expected = hidden(model)
    with pytest.raises(ValueError, match="windows that are as long as the text"):
        hidden(run(model))
    assert distance(pieces(model, [(i, i + 1) for i in range(9)]), expected) < 1e-12
    for make, width in (
        ("sliding_window_bidirectional_mask_function", (8,)),
        ("chunked_causal_mask_function", (9, None)),
    ):
        mask_function = getattr(transformers.masking_utils, make)(*width)
        assert padding_mask(2, 9, 9, mask_function=mask_function) is None
    with pytest.raises(ValueError, match="sliding_window 4 of this layer has no linear-time form for 9 keys"):
        call(attention, sliding_window=4)


def call(attention, length=9, mask=None, **options):
    """The attention function as a layer of a model calls it."""
    module = torch.nn.Module()
    module.is_causal = True
    query = torch.randn(2, 4, length, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return attention(module, query, query, query, mask, **options)[0]


def test_additive_masks():
    """Of the keys: 0 and the lowest number as models write them, and any bias; those of pairs are refused."""
    attention = register(num_features=32, method="linear")
    mask = PADDING[:, None, None].bool()
    expected = call(attention, mask=mask)
    lowest = torch.where(mask, 0.0, torch.finfo(torch.float32).min).double()
    assert distance(call(attention, mask=lowest)[:, :5], expected[:, :5]) < 1e-12
    bias = torch.linspace(-1, 1, 72, dtype=torch.float64).reshape(2, 4, 1, 9)
    query = torch.randn(2, 4, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = torch.nn.functional.scaled_dot_product_attention(
        query, query, query, bias + torch.full((9, 9), -torch.inf).triu(1)
    )
    actual = call(register(num_features=32, method="exact"), mask=bias)
    assert distance(actual, exact.transpose(1, 2)) < 1e-12
    for pairs in (torch.zeros(2, 1, 9, 9), torch.ones(2, 1, 9, 9, dtype=torch.bool)):
        with pytest.raises(ValueError, match="of pairs of queries and keys has no linear-time form"):
            call(attention, mask=pairs)
    with pytest.raises(TypeError, match="attention_mask must be boolean"):
        call(attention, mask=mask.long())


@pytest.mark.parametrize("name", keywords.REFUSED)
def test_arguments_that_would_change_the_outputs_are_refused(name):
    attention = register(num_features=32, method="linear")
    with pytest.raises(ValueError, match=f"{name} of this layer, .*, has no linear-time form"):
        call(attention, **{name: torch.zeros(1)})
    assert torch.equal(call(attention, **{name: None}), call(attention))


def test_other_arguments():
    attention = register(num_features=32, method="linear")
    with pytest.raises(ValueError, match="single weights are never computed"):
        call(attention, output_attentions=True)
    with pytest.raises(TypeError, match="is_causal must be True or False, got 'no'"):
        call(attention, is_causal="no")
    assert not torch.equal(call(attention, is_causal=False), call(attention))
    with pytest.warns(UserWarning, match="new_option of this layer is not known to randfeat"):
        call(attention, new_option=1)
    harmless = dict.fromkeys(keywords.WITHOUT_EFFECT, 0)
    assert torch.equal(call(attention, **harmless), call(attention))


def test_all_arguments_of_all_models_are_known():
    """Every keyword that a model of the installed transformers passes is used, refused or without effect."""
    used = {"query", "key", "value", "attention_mask", "dropout", "scaling", "is_causal", "sliding_window"}
    known = used | {"cu_seq_lens_q", "cu_seq_lens_k"} | set(keywords.REFUSED) | keywords.WITHOUT_EFFECT
    found = set()
    for path in Path(transformers.__file__).parent.glob("models/*/modeling_*.py"):
        source = path.read_text(encoding="utf-8")
        for match in re.finditer(r"\battention_interface\((?=\s*(?:self|module)\b)", source):
            arguments, depth, end = "", 1, match.end()
            while depth:
                depth += {"(": 1, ")": -1}.get(source[end], 0)
                arguments += source[end] if depth == 1 else ""
                end += 1
            found |= set(re.findall(r"(?:^|,)\s*(?:#[^\n]*\s*)*(\w+)=", arguments))
    assert {"scaling", "sliding_window", "s_aux", "softcap"} <= found
    assert found <= known, f"not known: {sorted(found - known)}"


@pytest.mark.parametrize(
    "mask_function",
    [
        lambda *indices: True,
        transformers.masking_utils.sliding_window_causal_mask_function(8),
        transformers.masking_utils.sliding_window_bidirectional_mask_function(7),
        transformers.masking_utils.chunked_causal_mask_function(8, None),
        transformers.masking_utils.or_masks(transformers.masking_utils.causal_mask_function, lambda *indices: True),
    ],
    ids=["unknown", "sliding", "both ways", "chunks", "images"],
)
def test_masks_of_pairs_are_refused(mask_function):
    with pytest.raises(ValueError, match="this model masks pairs of queries and keys"):
        padding_mask(2, 9, 9, mask_function=mask_function)


def test_a_mask_without_its_description_is_refused():
    """A model that copies the mask of packed sequences loses what it stands for."""
    attention = register(num_features=32, method="linear")
    packed = transformers.masking_utils.packed_sequence_mask_function(NUMBERS[:, :9].expand(2, -1))
    both = transformers.masking_utils.and_masks(transformers.masking_utils.causal_mask_function, packed)
    mask = padding_mask(2, 9, 9, mask_function=both)
    assert distance(call(attention, mask=mask)[:, :5], call(attention)[:, :5]) < 1e-12
    assert distance(call(attention, mask=mask)[:, 5:], call(attention)[:, 5:]) > 1e-2
    with pytest.raises(ValueError, match="of pairs"):
        call(attention, mask=mask.clone())


def test_registered_features_stay_the_same():
    """The numbers of plain features by seed, layer and head, which later versions keep."""
    features = register(num_features=4).features(1, 2, torch.zeros(1, 2, 3, 4, dtype=torch.float64))
    seed = np.random.SeedSequence(0, spawn_key=(1,))
    again = rf.PositiveFeatures().draw(4, 4, rng=seed, batch_shape=(2,))
    assert (features.arrays["rows"].numpy() == again.arrays["rows"]).all()
