"""Caches for `generate()` that keep no keys: the tokens are those without a cache, and the memory is bounded."""

import copy

import numpy as np
import pytest

import randfeat as rf

torch = pytest.importorskip("torch", reason="pip install '.[transformers]'")
transformers = pytest.importorskip("transformers", "5.4", reason="pip install '.[transformers]'")
from randfeat.integrations.transformers import CompressedCache, StateCache, calibrate, register  # noqa: E402
from tests.integrations.small_models import SIZES, TOKENS, distance, generated, hidden, llama, run  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

LEFT = (torch.arange(9) < torch.tensor([[9], [5], [2]])).long().flip(-1)
PROMPTS = torch.where(LEFT.bool(), torch.arange(27).reshape(3, 9) * 7 % 50, 0)
STREAM = {"num_keys": 4, "window": 4, "num_sinks": 1}


def decoder(kind):
    """A small decoder with grouped heads whose greedy tokens differ from each other."""
    torch.manual_seed(0)
    sizes = SIZES | {"num_key_value_heads": 2, "pad_token_id": 0, "initializer_range": 0.3}
    if kind == "llama":
        return llama(initializer_range=0.3)
    if kind == "qwen":
        return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes)).double().eval()
    return transformers.GemmaForCausalLM(transformers.GemmaConfig(**sizes, head_dim=8)).double().eval()


def caches(method):
    return CompressedCache if method == "compressed" else StateCache


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {"num_features": 32, "method": "linear"}),
        ("qwen", {"num_features": 32, "share_maps": True, "method": "linear"}),
        ("gemma", {"num_features": 32, "decay": 0.9}),
        ("llama", {"method": "compressed", **STREAM}),
    ],
    ids=["features", "one map a key head", "decay", "compressed"],
)
def test_tokens_are_those_without_a_cache(kind, options):
    """Greedy, for three prompts with padding on the left; and with the prompts in pieces of four tokens."""
    model = decoder(kind)
    register(**options)
    run(model)
    cache = caches(options.get("method"))
    expected = generated(model, PROMPTS, LEFT, use_cache=False)
    assert torch.equal(generated(model, PROMPTS, LEFT, past_key_values=cache(model.config)), expected)
    pieces = generated(model, PROMPTS, LEFT, past_key_values=cache(model.config), prefill_chunk_size=4)
    assert torch.equal(pieces, expected)
    assert len(expected[:, 9:].unique()) > 4


@pytest.mark.parametrize("num_beams", [1, 2])
def test_a_padded_prompt_is_that_alone(num_beams):
    """Chunks of a stream are counted from the first token of a text, in generated tokens and in logits."""
    model = decoder("llama")
    register(method="compressed", **STREAM)
    options = {"num_beams": num_beams}
    together = generated(run(model), PROMPTS, LEFT, past_key_values=CompressedCache(model.config), **options)
    with torch.no_grad():
        positions = (LEFT.cumsum(-1) - 1).clamp(min=0)  # as `generate` counts them
        logits = model(PROMPTS, attention_mask=LEFT, position_ids=positions, use_cache=False).logits
    for row, length in enumerate((9, 5, 2)):
        prompt, present = PROMPTS[row : row + 1, -length:], LEFT[row : row + 1, -length:]
        alone = generated(model, prompt, present, past_key_values=CompressedCache(model.config), **options)
        assert torch.equal(together[row : row + 1, 9:], alone[:, length:])
        with torch.no_grad():
            own = model(prompt, attention_mask=present, use_cache=False).logits
        assert distance(logits[row : row + 1, -length:], own) < 1e-12


@pytest.mark.parametrize("method", ["linear", "compressed"])
def test_beams(method):
    """Three for each of two prompts: sequences are taken from others, with all that they remember."""
    model = decoder("llama")
    options = {"num_features": 32} if method == "linear" else {"num_keys": 8, "window": 16, "num_sinks": 1}
    register(**{"method": method} | options)
    run(model)
    expected = generated(model, PROMPTS[:2], LEFT[:2], use_cache=False, num_beams=3)
    cache = caches(method)(model.config)
    assert torch.equal(generated(model, PROMPTS[:2], LEFT[:2], past_key_values=cache, num_beams=3), expected)
    assert not torch.equal(generated(model, PROMPTS[:2], LEFT[:2], use_cache=False), expected)


def fed(model, cache, cuts, tokens=TOKENS):
    """Logits of a text in pieces."""
    with torch.no_grad():
        steps = [model(tokens[:, a:b], past_key_values=cache, use_cache=True) for a, b in cuts]
    return torch.cat([step.logits for step in steps], dim=1)


def memory(thing, seen=None):
    """The number of entries of all tensors and arrays that can be reached from a layer of a cache."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (rf.FeatureMap, transformers.PreTrainedConfig, str)):
        return 0
    seen.add(id(thing))
    if hasattr(thing, "dtype") and hasattr(thing, "shape"):
        return int(torch.Size(thing.shape).numel())
    if isinstance(thing, dict):
        return sum(memory(part, seen) for part in thing.values())
    if isinstance(thing, (list, tuple)):
        return sum(memory(part, seen) for part in thing)
    return memory(vars(thing), seen) if hasattr(thing, "__dict__") else 0


@pytest.mark.parametrize("method", ["linear", "compressed"])
def test_memory_is_bounded(method):
    """After 40 and after 80 tokens; a cache of keys doubles."""
    options = {"num_features": 16, "method": "linear"} if method == "linear" else STREAM
    model = decoder("llama")
    register(**{"method": method} | options)
    cache = caches(method)(run(model).config)
    tokens = torch.arange(160).reshape(2, 80) * 7 % 50
    fed(model, cache, [(0, 30), *((i, i + 1) for i in range(30, 40))], tokens)
    halfway = memory(cache.layers)
    assert halfway > 0
    fed(model, cache, [(40, 70), *((i, i + 1) for i in range(70, 80))], tokens)
    assert memory(cache.layers) <= halfway
    assert cache.get_seq_length() == 80
    assert cache.get_mask_sizes(3, 0) == (3, 80)
    if method == "compressed":
        state = cache.layers[0].state
        assert len(state.sinks) + len(state.merged) + len(state.recent) <= 1 + 4 + 2 * 4


def test_sequences_are_selected_and_repeated():
    model = decoder("llama")
    for method, options in (("linear", {"num_features": 16}), ("compressed", {"num_keys": 8, "window": 8})):
        register(**{"method": method} | options)
        cache = caches(method)(run(model).config)
        cache.batch_repeat_interleave(2)  # of nothing
        fed(model, cache, [(0, 6)])
        assert cache.layers[0].batch_size == 2
        chosen, again = copy.deepcopy(cache), copy.deepcopy(cache)
        expected = fed(model, cache, [(6, 9)])
        chosen.batch_select_indices(torch.tensor([1]))
        assert chosen.layers[1].batch_size == 1
        assert distance(fed(model, chosen, [(6, 9)], TOKENS[1:]), expected[1:]) < 1e-12
        again.batch_repeat_interleave(2)
        repeated = fed(model, again, [(6, 9)], TOKENS.repeat_interleave(2, 0))
        assert distance(repeated, expected.repeat_interleave(2, 0)) < 1e-12
        cache.reset()
        assert cache.get_seq_length() == 0
        assert distance(fed(model, cache, [(0, 9)], TOKENS[:1]), hidden(model, TOKENS[:1])) < 1e-12


def test_grouped_heads_with_one_map_have_a_smaller_state():
    """By the size of the group, for calibrations as well; the logits are those of the whole text."""
    model = decoder("llama")
    sizes = []
    for given in (
        {},
        {"share_maps": True},
        {"estimator": calibrate(model, {"input_ids": TOKENS}, 16, level="balance")},
    ):
        register(**given, num_features=16, method="linear")
        cache = StateCache(run(model).config)
        assert distance(fed(model, cache, [(0, 7), (7, 8), (8, 9)]), hidden(model)) < 1e-12
        sizes.append(cache.layers[0].sums.weighted.numel())
        model.set_attn_implementation("sdpa")
    assert sizes == [2 * 4 * 16 * 8, 2 * 2 * 16 * 8, 2 * 2 * 16 * 8]


def test_a_stream_is_compressed_attention():
    """Of the same queries, keys and values, layer by layer, in pieces; it is exact while everything fits."""
    model, given = decoder("llama"), []
    register(num_features=16, method="linear")
    run(model)
    layer = CompressedCache(model.config, **STREAM, rng=5).layers[1]
    attention = transformers.AttentionInterface()["randfeat"]
    module = torch.nn.Module()
    module.layer_idx, generator = 1, torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, 40, 8, dtype=torch.float64, generator=generator) for heads in (4, 2, 2))
    mask = torch.arange(40) >= torch.tensor([[0], [6]])
    for start, stop in ((0, 15), (15, 16), (16, 17), (17, 40)):
        new, values = layer.update(key[:, :, start:stop], value[:, :, start:stop])
        pairs = mask[:, None, None, start:stop]
        given.append(attention(module, query[:, :, start:stop], new, values, pairs)[0])
    expected = rf.compressed_attention(
        query, key, value, is_causal=True, **STREAM, enable_gqa=True, rng=np.random.SeedSequence(5, spawn_key=(1,)),
        key_mask=mask[:, None], query_mask=mask[:, None],
    )  # fmt: skip
    assert distance(torch.cat(given, dim=1), expected.transpose(1, 2)) < 1e-12
    exact = hidden(run(model, "sdpa"), TOKENS)
    run(model)
    cuts = [(0, 4), (4, 5), (5, 9)]
    assert distance(fed(model, CompressedCache(model.config, num_keys=1, window=4, num_sinks=1), cuts), exact) > 1e-3
    assert distance(fed(model, CompressedCache(model.config, num_keys=4, window=4, num_sinks=1), cuts), exact) < 1e-12


def test_a_cache_takes_the_options_of_the_registration():
    register(method="compressed", **STREAM, rng=7)
    model = run(decoder("llama"))
    stream = CompressedCache(model.config, window=8).layers[0].stream
    assert (stream.options, stream.rng) == (STREAM | {"window": 8}, 7)
    register(num_features=16, rng=3, method="linear")
    stream = CompressedCache(model.config, num_keys=8, fit=True).layers[0].stream
    assert (stream.options, stream.rng) == ({"num_keys": 8, "fit": True}, 3)
    for wrong, message in (({"num_keys": 0}, "num_keys must be a positive integer"), ({"num_sinks": -1}, "num_sinks")):
        with pytest.raises(ValueError, match=message):
            CompressedCache(model.config, **wrong)


def test_models_that_cannot_read_such_a_cache_are_refused():
    model = decoder("llama")
    register(num_features=16, method="linear")
    for make in (StateCache, CompressedCache):
        model.set_attn_implementation("sdpa")
        with pytest.raises(ValueError, match=r"attn_implementation='sdpa', which cannot read .* call register"):
            make(model.config)
        cache = make(run(model).config)
        model.set_attn_implementation("eager")
        with pytest.raises(ValueError, match=r"attn_implementation='eager', which cannot read"):
            fed(model, cache, [(0, 3)])
    for options in ({"method": "exact"}, {"window": 3}):
        register(num_features=16, **options)
        with pytest.raises(ValueError, match="StateCache keeps the sums of linear attention"):
            StateCache(run(model).config)
    register(method="compressed")
    with pytest.raises(ValueError, match=r"method='compressed': use CompressedCache, .* by method=.auto. or"):
        StateCache(model.config)
    for kind in (StateCache, CompressedCache):
        with pytest.raises(TypeError, match=r"config must be the config of a model, model.config, got LlamaFor"):
            kind(model)
    config = transformers.LlamaConfig(**SIZES, layer_types=["full_attention", "linear_attention"])
    config._attn_implementation = "randfeat"
    with pytest.raises(ValueError, match=r"layers of the types \['linear_attention'\]: use transformers.DynamicCache"):
        CompressedCache(config)


def test_what_a_stream_has_no_form_for_is_refused():
    model = decoder("llama")
    register(num_features=16, method="linear")
    run(model)
    for make in (StateCache, CompressedCache):
        cache = make(model.config)
        fed(model, cache, [(0, 3)])
        with pytest.raises(ValueError, match="cannot be taken out again"):
            cache.crop(-1)
        cache.crop(0)
        with pytest.raises(ValueError, match=r"be cropped|be taken out"):
            generated(model, PROMPTS[:1], past_key_values=make(model.config), assistant_model=decoder("llama"))
        offsets = torch.tensor([0, 4, 9], dtype=torch.int32)
        with torch.no_grad(), pytest.raises(ValueError, match="packed sequences have no stream cache"):
            model(TOKENS[:1], past_key_values=make(model.config), cu_seq_lens_q=offsets, cu_seq_lens_k=offsets)
        layer = make(model.config).layers[0]
        key = torch.zeros(1, 2, 3, 8)
        layer.update(key, key)
        with pytest.raises(ValueError, match="did not reach the attention function of randfeat"):
            layer.update(key, key)


@pytest.mark.parametrize("method", ["linear", "compressed"])
def test_an_error_in_a_call_needs_a_reset(method):
    """Layers that took part and layers that did not would be at different positions."""
    model = decoder("llama")
    register(**({"num_features": 16, "method": "linear"} if method == "linear" else {"method": method, **STREAM}))
    cache = caches(method)(run(model).config)
    expected = fed(model, cache, [(0, 9)])
    offsets = torch.tensor([0, 4, 9], dtype=torch.int32)
    cache.reset()
    for options in ({"output_attentions": True}, {"cu_seq_lens_q": offsets, "cu_seq_lens_k": offsets}):
        fed(model, cache, [(0, 3)])
        with torch.no_grad(), pytest.raises(ValueError, match=r"output_attentions|packed sequences"):
            model(TOKENS, past_key_values=cache, **options)
        with pytest.raises(ValueError, match=r"If that call raised an error, reset\(\) the cache"):
            fed(model, cache, [(3, 9)])
        cache.reset()
        assert distance(fed(model, cache, [(0, 3), (3, 9)]), expected) < 1e-12
        cache.reset()


@pytest.mark.parametrize("method", ["linear", "compressed"])
def test_another_number_of_sequences_is_refused(method):
    """One state would be broadcast to two sequences, and the other way round."""
    model = decoder("llama")
    register(**({"num_features": 16, "method": "linear"} if method == "linear" else {"method": method, **STREAM}))
    run(model)
    for first, second in ((TOKENS[:1], TOKENS), (TOKENS, TOKENS[:1])):
        cache = caches(method)(model.config)
        fed(model, cache, [(0, 3)], first)
        with pytest.raises(ValueError, match=f"the keys of {len(first)} sequences, got {len(second)}"):
            fed(model, cache, [(3, 4)], second)


def test_several_texts_for_a_prompt_have_the_same_likeliest():
    """Where older tokens are merged, too: nothing depends on the place in the batch."""
    model = decoder("llama")
    register(method="compressed", **STREAM)
    cache = CompressedCache(run(model).config)
    twice = torch.cat([PROMPTS[:1]] * 2)
    found = generated(model, twice, num=20, past_key_values=cache)
    assert torch.equal(found[0], found[1])
    alone = generated(model, PROMPTS[:1], num=20, past_key_values=CompressedCache(model.config))
    assert torch.equal(found[:1], alone)


def test_a_model_with_a_window_runs_within_it():
    torch.manual_seed(0)
    config = transformers.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=8)
    model = transformers.MistralForCausalLM(config).double().eval()
    register(num_features=16, method="linear")
    cache = StateCache(run(model).config)
    assert distance(fed(model, cache, [(0, 4), (4, 8)]), hidden(model, TOKENS[:, :8])) < 1e-12
    with pytest.raises(ValueError, match="sliding_window 8 of this layer has no linear-time form for 9 keys"):
        fed(model, cache, [(8, 9)])
