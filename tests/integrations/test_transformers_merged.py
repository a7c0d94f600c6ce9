"""Clustered and compressed attention in models: each sequence alone, exact where the operator is, and saved by name."""

import numpy as np
import pytest

import randfeat as rf

torch = pytest.importorskip("torch", reason="pip install '.[transformers]'")
transformers = pytest.importorskip("transformers", "5.4", reason="pip install '.[transformers]'")
from randfeat.integrations.transformers import register, save_pretrained  # noqa: E402
from randfeat.integrations.transformers.storing import FILE  # noqa: E402
from tests.integrations.small_models import SIZES, bert, distance, generated, hidden, llama, run  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

LONG = torch.arange(2 * 60).reshape(2, 60) * 7 % 50
MASK = (torch.arange(60) < torch.tensor([[60], [45]])).long()
OPERATORS = [
    {"method": "clustered", "num_clusters": 4, "num_exact": 6},
    {"method": "compressed", "num_keys": 8},
    {"method": "compressed", "num_keys": 8, "fit": True},
]


def encoder(kind="bert"):
    if kind == "bert":
        return bert(max_position_embeddings=70, initializer_range=0.3)
    torch.manual_seed(0)
    config = transformers.RobertaConfig(**SIZES | {"max_position_embeddings": 70})
    return transformers.RobertaModel(config, add_pooling_layer=False).double().eval()


@pytest.mark.parametrize("options", OPERATORS, ids=["clustered", "compressed", "fitted"])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_padded_sequence_is_that_alone(kind, options):
    """To the bit whatever the padding holds, in whatever row; and near the exact model without being it."""
    model = encoder(kind)
    exact = hidden(model, LONG, attention_mask=MASK)
    register(**options)
    out = hidden(run(model), LONG, attention_mask=MASK)
    assert distance(out[1:, :45], hidden(model, LONG[1:, :45])) < 1e-12
    assert distance(out[:1], hidden(model, LONG[:1])) < 1e-12
    assert 1e-6 < distance(out[MASK.bool()], exact[MASK.bool()]) < 0.5
    assert bool(torch.isfinite(out).all())
    other = torch.where(MASK.bool(), LONG, 3)
    assert distance(hidden(model, other, attention_mask=MASK)[1:, :45], out[1:, :45]) < 1e-12


@pytest.mark.parametrize("options", OPERATORS[:2], ids=["clustered", "compressed"])
def test_short_sequences_are_exact(options):
    model = encoder()
    register(**options)
    short, mask = LONG[:, :8], MASK[:, -8:]
    exact = hidden(model, short, attention_mask=mask)
    present = mask.bool()
    assert distance(hidden(run(model), short, attention_mask=mask)[present], exact[present]) < 1e-12


def call(query, key, mask=None, *, is_causal=False, **options):
    """The attention of a layer without a number."""
    module = torch.nn.Module()
    module.is_causal = is_causal
    attention = transformers.AttentionInterface()["randfeat"]
    return attention(module, query, key, key, mask, **options)[0].transpose(1, 2)


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", OPERATORS[:2], ids=["clustered", "compressed"])
def test_packed_sequences_are_those_alone(options):
    """And so are grouped query heads: they are those of the operator with its seed for the layer."""
    register(**options, rng=3)
    query, key = drawn(1, 4, 100, 8), drawn(1, 2, 100, 8)
    cuts = torch.tensor([0, 60, 100], dtype=torch.int32)
    packed = call(query, key, cu_seq_lens_q=cuts, cu_seq_lens_k=cuts)
    operator = rf.clustered_attention if options["method"] == "clustered" else rf.compressed_attention
    given = {name: option for name, option in options.items() if name != "method"}
    for start, stop in ((0, 60), (60, 100)):
        part = query[:, :, start:stop], key[:, :, start:stop], key[:, :, start:stop]
        alone = operator(*part, **given, enable_gqa=True, rng=np.random.SeedSequence(3, spawn_key=(0,)))
        assert distance(packed[:, :, start:stop], alone) < 1e-12
    shorter = torch.tensor([0, 50, 70], dtype=torch.int32)
    others = call(query, key[:, :, :70], cu_seq_lens_q=cuts, cu_seq_lens_k=shorter)
    assert distance(others[:, :, :60], call(query[:, :, :60], key[:, :, :50])) < 1e-12
    for wrong in ([0, 60], [0, 70, 60, 100], [10, 60, 100]):
        with pytest.raises(ValueError, match="offsets of all sequences, from 0 to the length 100 of the query"):
            call(query, key, cu_seq_lens_q=torch.tensor(wrong), cu_seq_lens_k=cuts[: len(wrong)])


@pytest.mark.parametrize("heads", [1, 4], ids=["all heads", "each head"])
def test_biases_of_keys(heads):
    """The lowest numbers are masks; others act as they do in exact attention, with a cluster for each query."""
    query, key = drawn(2, 4, 60, 8), drawn(2, 2, 60, 8)
    bias = 2 * drawn(2, heads, 1, 60).clone()
    bias[1, :, :, 45:] = torch.finfo(torch.float64).min
    exact = torch.nn.functional.scaled_dot_product_attention(query, key, key, bias, enable_gqa=True)
    unbiased = torch.nn.functional.scaled_dot_product_attention(query, key, key, enable_gqa=True)
    for options, bound in (({"num_clusters": 5, "num_exact": 20}, 0.15), ({"num_clusters": 40, "num_exact": 59}, 0)):
        register(method="clustered", **options)
        error = distance(call(query, key, bias), exact)
        assert error < 1e-12 if not bound else error < bound < 0.5 * distance(unbiased, exact)


@pytest.mark.parametrize("options", OPERATORS[:2], ids=["clustered", "compressed"])
def test_queries_of_other_sequences(options):
    """Cross-attention of as many queries as there are keys: those at the places of padding have outputs, too."""
    register(**options)
    query, key = drawn(1, 2, 60, 8), drawn(1, 2, 60, 8) + 1
    mask = (torch.arange(60) < 40)[None, None, None]
    exact = torch.nn.functional.scaled_dot_product_attention(query, key, key, mask)
    assert distance(call(query, key, mask)[:, :, 40:], exact[:, :, 40:]) < 1e-12
    for length in (5, 60):
        error = distance(call(query[:, :, :length], key, mask), exact[:, :, :length])
        assert error < 0.5


def test_dropout_is_that_of_the_outputs():
    register(**OPERATORS[0])
    query = drawn(1, 2, 60, 8)
    whole = call(query, query)
    torch.manual_seed(0)
    dropped = call(query, query, dropout=0.25)
    zero = dropped == 0
    torch.testing.assert_close(dropped[~zero], whole[~zero] / 0.75)
    # 960 entries, each dropped alone: six standard deviations, a false alarm in 5e8
    assert abs(float(zero.double().mean()) - 0.25) < 6 * (0.25 * 0.75 / zero.numel()) ** 0.5


def test_gradients_reach_the_weights():
    model = encoder().train()
    for options in OPERATORS[:2]:
        register(**options)
        run(model)(LONG, attention_mask=MASK)[0].square().mean().backward()
        assert all(bool(torch.isfinite(weight.grad).all()) for weight in model.parameters())
        assert float(model.encoder.layer[0].attention.self.query.weight.grad.abs().max()) > 0
        model.zero_grad()


def test_causal_models():
    """Clusters are refused with the way out; a compressed prompt is a stream, and later tokens read all keys."""
    model = llama(max_position_embeddings=80, initializer_range=0.3)
    exact = hidden(model, LONG)
    register(method="clustered")
    with pytest.raises(ValueError, match='see later tokens: register it with method="compressed"'):
        hidden(run(model), LONG)
    register(method="compressed", num_keys=6, window=6, num_sinks=1)
    out = hidden(model, LONG)
    assert torch.equal(out[:, :30], hidden(model, torch.cat([LONG[:, :30], LONG[:, :30]], dim=1))[:, :30])
    assert distance(out[:, :12], exact[:, :12]) < 1e-12
    assert 1e-6 < distance(out, exact) < 1.0
    register(method="compressed", num_keys=30, window=30)
    expected = generated(run(model, "sdpa"), LONG[:, :50])
    assert torch.equal(generated(run(model), LONG[:, :50]), expected)
    static = transformers.StaticCache(config=model.config, max_cache_len=70)
    assert torch.equal(generated(model, LONG[:, :50], past_key_values=static, disable_compile=True), expected)


def test_options_are_checked_when_they_are_given():
    for options, error, message in (
        ({"method": "clustered", "num_keys": 3}, TypeError, "got num_keys, expected the options of method='clustered'"),
        ({"method": "compressed", "decay": 0.5}, TypeError, "got decay, expected the options of method='compressed'"),
        ({"method": "compressed", "num_keys": 0}, ValueError, "num_keys must be a positive integer"),
        ({"method": "compressed", "num_sinks": -1}, ValueError, "num_sinks must be 0 or a positive integer"),
        ({"method": "clustered", "accuracy": 0.1, "num_exact": 3}, ValueError, "accuracy chooses num_exact"),
        ({"method": "clustered", "num_features": 32}, ValueError, "has no features: leave out num_features"),
        ({"method": "compressed", "estimator": rf.PositiveFeatures()}, ValueError, "leave out estimator"),
        ({"method": "cluster"}, ValueError, 'method must be "linear", "exact", "auto", "clustered" or "compressed"'),
    ):
        with pytest.raises(error, match=message):
            register(**options)


def test_a_saved_model_keeps_its_method(tmp_path, monkeypatch):
    """Without a registration it does not run with another attention, silently; with one it needs no argument."""
    model, folder, name = encoder(), str(tmp_path), "of this test"
    register(method="clustered", num_clusters=4, num_exact=6, rng=2, name=name)
    expected = hidden(run(model, name), LONG, attention_mask=MASK)
    save_pretrained(model, folder)
    assert (tmp_path / FILE).exists()
    assert not hasattr(model.config, "attn_implementation")
    with monkeypatch.context() as patched:
        patched.delitem(transformers.AttentionInterface._global_mapping, name)
        with pytest.raises(ValueError, match='attn_implementation="of this test"` is not supported'):
            transformers.AutoModel.from_pretrained(folder)
    again = register(folder, name=name)
    assert (again.method, again.options, again.rng) == ("clustered", {"num_clusters": 4, "num_exact": 6}, 2)
    loaded = transformers.AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    assert loaded.config._attn_implementation == name
    assert distance(hidden(loaded, LONG, attention_mask=MASK), expected) < 1e-12
    assert register(folder, num_clusters=5).options == {"num_clusters": 5}
