"""`method="auto"` in models: training, generated text, the memory of a cache, files, and what cannot be registered."""

import copy

import pytest

import randfeat as rf

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
transformers = pytest.importorskip("transformers", "5.4", reason="pip install '.[transformers]'")
from randfeat.integrations.transformers import CompressedCache, StateCache, register, save_pretrained  # noqa: E402
from randfeat.integrations.transformers.features import EXACT_UP_TO  # noqa: E402
from randfeat.integrations.transformers.storing import FILE, digest  # noqa: E402
from tests.integrations.small_models import TOKENS, bert, distance, generated, hidden, llama, run  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

LIMIT = 8
LEFT = (torch.arange(9) < torch.tensor([[9], [5], [2]])).long().flip(-1)
PROMPTS = torch.where(LEFT.bool(), torch.arange(27).reshape(3, 9) * 7 % 50, 0)


def losses(name, length, dropout):
    """Of a small language model, trained for some steps."""
    model = run(llama(attention_dropout=dropout), name).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    torch.manual_seed(0)
    found = []
    for _ in range(6):
        loss = model(TOKENS[:, :length], labels=TOKENS[:, :length]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return torch.tensor(found)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_short_texts_are_trained_as_with_exact_attention(dropout):
    """Single weights are dropped, by the same random numbers; of longer texts, the outputs of the later queries."""
    register(num_features=16, exact_up_to=6)
    assert distance(losses("randfeat", 6, dropout), losses("sdpa", 6, dropout)) < 1e-12
    assert distance(losses("randfeat", 9, dropout), losses("sdpa", 9, dropout)) > 1e-6


def test_gradients_are_finite_where_a_query_sees_no_key():
    """Padding on the left, and a row of padding alone."""
    register(num_features=16, exact_up_to=LIMIT)
    for make in (bert, llama):
        for length in (LIMIT, 9):
            model = run(make()).train()
            mask = torch.stack([torch.arange(9) > 3, torch.zeros(9, dtype=torch.bool)]).long()[:, :length]
            output = model(TOKENS[:, :length], attention_mask=mask)[0]
            output.square().mean().backward()
            assert bool(torch.isfinite(output).all())
            assert all(
                bool(torch.isfinite(weight.grad).all()) for weight in model.parameters() if weight.grad is not None
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("length", [3, 9])
def test_generated_tokens_are_those_without_a_cache(length, dtype):
    """For prompts that are shorter than the limit and pass it, and for longer ones; with padding, pieces and beams."""
    model = run(llama(initializer_range=0.3).to(dtype))
    register(num_features=32, exact_up_to=LIMIT)
    tokens, mask = PROMPTS[:, -length:], LEFT[:, -length:]
    expected = generated(model, tokens, mask, use_cache=False)
    assert len(expected[:, length:].unique()) > 4
    for options in ({}, {"prefill_chunk_size": 4}):
        found = generated(model, tokens, mask, past_key_values=StateCache(model.config), **options)
        assert torch.equal(found, expected)
    assert torch.equal(generated(model, tokens, mask), expected)
    beams = {"num_beams": 2, "num": 6}
    found = generated(model, tokens[:2], mask[:2], past_key_values=StateCache(model.config), **beams)
    assert torch.equal(found, generated(model, tokens[:2], mask[:2], use_cache=False, **beams))


def fed(model, cache, tokens, start, stop, mask=None):
    """Logits of some tokens of a text."""
    given = {} if mask is None else {"attention_mask": mask[:, :stop]}
    with torch.no_grad():
        return model(tokens[:, start:stop], past_key_values=cache, use_cache=True, **given).logits


def test_first_keys_are_dropped_when_every_text_is_longer():
    """No sums before the limit is passed; then both, until the row with most padding has passed it."""
    register(num_features=16, exact_up_to=LIMIT)
    model = run(llama())
    tokens = torch.arange(3 * 18).reshape(3, 18) * 7 % 50
    mask = (torch.arange(18) >= torch.tensor([[0], [4], [7]])).long()
    cache = StateCache(model.config)
    layer = cache.layers[1]
    fed(model, cache, tokens, 0, 6, mask)
    assert layer.sums is None
    assert layer.first.key.shape == (3, 2, 6, 8)
    fed(model, cache, tokens, 6, 8, mask)
    fed(model, cache, tokens, 8, 10, mask)
    assert layer.sums is not None
    assert layer.first.key.shape == (3, 2, LIMIT, 8)
    assert layer.first.mask[:, 0].sum(-1).tolist() == [8, 6, 3]
    for stop in range(11, 16):
        fed(model, cache, tokens, stop - 1, stop, mask)
    assert layer.first is None
    whole = hidden(model, tokens, attention_mask=mask)
    assert distance(fed(model, cache, tokens, 15, 18, mask), whole[:, 15:]) < 1e-12
    cache.reset()
    assert layer.limit is None
    assert distance(fed(model, cache, tokens[:1], 0, 18), hidden(model, tokens[:1])) < 1e-12
    assert layer.first is None


@pytest.mark.parametrize("start", [4, 10], ids=["before the limit", "after it"])
def test_sequences_are_selected_and_repeated(start):
    register(num_features=16, exact_up_to=LIMIT)
    model, tokens = run(llama()), torch.arange(2 * 14).reshape(2, 14) * 7 % 50
    mask = (torch.arange(14) >= torch.tensor([[0], [3]])).long()
    cache = StateCache(model.config)
    fed(model, cache, tokens, 0, start, mask)
    chosen, repeated = copy.deepcopy(cache), copy.deepcopy(cache)
    expected = fed(model, cache, tokens, start, 14, mask)
    chosen.batch_select_indices(torch.tensor([1]))
    assert distance(fed(model, chosen, tokens[1:], start, 14, mask[1:]), expected[1:]) < 1e-12
    repeated.batch_repeat_interleave(2)
    twice = (x.repeat_interleave(2, 0) for x in (tokens, mask))
    assert distance(fed(model, repeated, next(twice), start, 14, next(twice)), expected.repeat_interleave(2, 0)) < 1e-12


def test_biases_of_the_keys_of_a_stream():
    """They are kept with the first keys; one for each head is refused."""
    attention, module = register(num_features=16, exact_up_to=LIMIT), torch.nn.Module()
    model = run(llama())
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, heads, 14, 8, dtype=torch.float64, generator=generator) for heads in (4, 2))
    bias = torch.randn(2, 1, 1, 14, dtype=torch.float64, generator=generator)
    bias[1, ..., :3] = -torch.inf
    whole = attention(module, query, key, key, bias)[0]
    layer, found = StateCache(model.config).layers[0], []
    for start, stop in ((0, 5), (5, 7), (7, 10), *((t, t + 1) for t in range(10, 14))):
        new, values = layer.update(key[:, :, start:stop], key[:, :, start:stop])
        found.append(attention(module, query[:, :, start:stop], new, values, bias[..., start:stop])[0])
    difference = torch.cat(found, dim=1) - whole
    difference[1, :3] = 0
    assert float(difference.abs().max()) < 1e-12
    layer.reset()
    new, values = layer.update(key, key)
    with pytest.raises(
        ValueError, match=r"needs one key_bias for all heads, got the shape \(2, 4, 14\): register\(..."
    ):
        attention(module, query, new, values, bias.expand(-1, 4, -1, -1))


def test_a_window_gives_near_keys_their_exact_weights_in_longer_texts():
    model = llama()
    exact = hidden(model)
    errors = []
    for options in ({}, {"window": 3}, {"window": 9}):
        register(num_features=16, exact_up_to=4, **options)
        found = hidden(run(model))
        assert distance(found[:, :4], exact[:, :4]) < 1e-12
        errors.append(distance(found, exact))
    assert errors[0] > errors[1] > 1e-6
    assert errors[2] < 1e-12


def test_the_default():
    """By the number of keys, for features of plain softmax attention; others have features for all queries."""
    assert (register().method, register().exact_up_to) == ("auto", EXACT_UP_TO)
    assert register(window=3, exact_up_to=5).exact_up_to == 5
    gaussian = rf.PositiveFeatures(kernel=rf.GaussianKernel())
    for options in ({"method": "linear"}, {"exact_up_to": 0}, {"decay": 0.9}, {"estimator": gaussian}):
        attention = register(**options)
        assert (attention.method, attention.exact_up_to) == ("linear", 0)
    assert register(method="exact").method == "exact"
    for options, error, message in (
        ({"method": "linear", "exact_up_to": 3}, ValueError, 'exact_up_to is an option of method="auto", got'),
        ({"method": "clustered", "exact_up_to": 3}, ValueError, "got method='clustered': leave one of them out"),
        ({"method": "auto", "decay": 0.9}, ValueError, "with decay the weights are others: register it with method="),
        ({"exact_up_to": 3, "decay": 0.9}, ValueError, "with decay the weights are others"),
        ({"method": "auto", "estimator": {0: gaussian}}, ValueError, "features are of the kernel GaussianKernel"),
        ({"exact_up_to": -3}, ValueError, "exact_up_to must be a positive integer, got -3"),
        ({"exact_up_to": 2.5}, TypeError, "exact_up_to must be a positive integer, got 2.5"),
    ):
        with pytest.raises(error, match=message):
            register(**options)
    register({0: rf.PositiveFeatures()})
    with pytest.raises(ValueError, match=r"no estimator for layer 1, only for \[0\]"):
        hidden(run(bert()))


def test_a_saved_model_keeps_its_method(tmp_path):
    """And a file without one is of features for all queries, as it was when it was written."""
    model = llama()
    for options, method in (({"exact_up_to": LIMIT}, "auto"), ({"method": "linear"}, "linear")):
        attention = register(num_features=16, rng=2, **options)
        expected = hidden(run(model))
        save_pretrained(model, tmp_path)
        register()
        again = register(tmp_path)
        assert (again.method, again.exact_up_to) == (method, attention.exact_up_to)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
        assert distance(hidden(loaded), expected) < 1e-12
    before = {"estimator": rf.PositiveFeatures(), "num_features": 16, "rng": 2, "options": {}}
    rf.save(tmp_path / FILE, before)
    assert digest(register(tmp_path).description) == digest(before)
    assert torch.equal(hidden(run(model)), expected)
    for options, method, limit in (
        ({"method": "auto"}, "auto", EXACT_UP_TO),
        ({"exact_up_to": 5}, "auto", 5),
        ({"num_features": 32}, "linear", 0),
        ({"method": "exact"}, "exact", 0),
    ):
        again = register(tmp_path, **options)
        assert (again.method, again.exact_up_to) == (method, limit)
    by_shapes = before | {"options": {"method": "auto"}}  # of `linear_attention`, which older versions passed on
    rf.save(tmp_path / FILE, by_shapes)
    assert digest(register(tmp_path).description) == digest(by_shapes)


@pytest.mark.parametrize("make", [StateCache, CompressedCache])
def test_another_text_for_a_used_cache_is_refused(make):
    """`generate` would continue the old text. A longer text than that is taken for its continuation."""
    register(num_features=16)
    model = run(llama())
    cache, prompts = make(model.config), TOKENS[:1]
    first = generated(model, prompts, past_key_values=cache, num=4)  # 12 tokens
    for other, message in (
        (prompts, "new ones have positions from 3 on"),
        (prompts[:, :3], "the text that is given has no more of them"),
    ):
        used = copy.deepcopy(cache)
        with pytest.raises(ValueError, match=rf"this cache has 12 tokens and continues their text, but .*{message}"):
            generated(model, other, past_key_values=used)
    padded = torch.ones_like(prompts).index_fill(1, torch.tensor([0]), 0)
    with pytest.raises(ValueError, match="attention_mask has only 9 entries, and 6 tokens are new"):
        generated(model, prompts, padded, past_key_values=cache)
    cache.reset()
    assert torch.equal(generated(model, prompts, past_key_values=cache, num=4), first)
    longer = torch.cat([first, TOKENS[1:, :2]], dim=1)
    expected = generated(model, longer, use_cache=False)
    assert torch.equal(generated(model, longer, past_key_values=cache), expected) or make is CompressedCache


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
def test_one_graph_for_short_texts_and_one_for_longer_ones(causal):
    """With padding on the left in one row, and the features drawn by a call before, of whatever length."""
    from torch._dynamo.testing import CompileCounterWithBackend

    attention, module = register(num_features=16, exact_up_to=LIMIT), torch.nn.Module()
    module.is_causal = causal
    graphs = CompileCounterWithBackend("eager")
    torch._dynamo.reset()
    compiled = torch.compile(attention.__call__, backend=graphs, fullgraph=True, dynamic=True)
    for length, num_graphs in ((5, 1), (7, 1), (20, 2), (13, 2), (9, 2)):
        generator = torch.Generator().manual_seed(length)
        query, key = (torch.randn(2, heads, length, 8, generator=generator) for heads in (4, 2))
        mask = (torch.arange(length) >= torch.tensor([0, 3])[:, None])[:, None, None]
        if length == 5:
            attention(module, query, key, key, mask)
        found = compiled(module, query, key, key, mask)[0]
        expected = attention(module, query, key, key, mask)[0]
        torch.testing.assert_close(found[1, 3:], expected[1, 3:])
        torch.testing.assert_close(found[0], expected[0])
        assert graphs.frame_count == num_graphs
    torch._dynamo.reset()
