"""Calibrations: fitted to every layer, kept in files, and asked for by a model that was saved with one."""

import subprocess
import sys

import numpy as np
import pytest

import randfeat as rf

torch = pytest.importorskip("torch", reason="pip install '.[transformers]'")
transformers = pytest.importorskip("transformers", "5.4", reason="pip install '.[transformers]'")
from randfeat.integrations.transformers import calibrate, register, save_pretrained  # noqa: E402
from randfeat.integrations.transformers.storing import FILE, MARK, digest  # noqa: E402
from tests.integrations.small_models import PADDING, TOKENS, bert, distance, hidden, llama  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
INPUTS = {"input_ids": TOKENS, "attention_mask": PADDING}


@pytest.mark.parametrize(("make", "heads"), [(bert, 4), (llama, 2)], ids=["bidirectional", "causal, grouped heads"])
def test_an_estimator_for_each_layer(make, heads):
    """With a set of parameters for each key head, fitted to what is not padding; the model is as it was."""
    model = make()
    exact = hidden(model, attention_mask=PADDING)
    estimators = calibrate(model, INPUTS, 32, level="balance")
    assert set(estimators) == {0, 1}
    assert all(estimator.batch_shape == (heads,) for estimator in estimators.values())
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(hidden(model, attention_mask=PADDING), exact)
    spoilt = torch.where(PADDING.bool(), TOKENS, 3)
    again = calibrate(model, {"input_ids": spoilt, "attention_mask": PADDING}, 32, level="balance")
    phi, twin = (found[1].draw(8, 32, rng=0).keys(np.ones((heads, 3, 8))) for found in (estimators, again))
    np.testing.assert_allclose(phi.log_scale, twin.log_scale, rtol=1e-9)
    fits = [calibrate(model, {"input_ids": tokens, "attention_mask": PADDING}, 32) for tokens in (TOKENS, spoilt)]
    assert fits[0] == fits[1]  # the posterior map, with its pilot rows: no bit depends on the padding
    register(estimators, 32, method="linear")
    model.set_attn_implementation("randfeat")
    assert distance(hidden(model, attention_mask=PADDING), exact) < 1.0


def test_grouped_heads_share_the_fit_of_their_key_head():
    """What `adapt` fits to the queries of all heads of a group; and it is nearer to the exact model than plain maps."""
    model = llama(initializer_range=0.3)
    recorded = []

    def record(module, query, key, value, mask, **options):
        recorded.append((query, key))
        return sdpa(module, query, key, value, mask, **options)

    sdpa = transformers.AttentionInterface()["sdpa"]
    transformers.AttentionInterface.register("recording", record)
    model.set_attn_implementation("recording")
    exact = hidden(model)
    model.set_attn_implementation("sdpa")
    estimators = calibrate(model, {"input_ids": TOKENS}, 64, level="dense")
    for layer, (query, key) in enumerate(recorded):
        for head in range(2):
            pair = query[:, 2 * head : 2 * head + 2].reshape(1, -1, 8), key[:, head].reshape(1, -1, 8)
            expected = rf.adapt(*pair, level="dense", num_features=64, scale=8**-0.5)
            shifts = estimators[layer].query_shift[head], estimators[layer].key_shift[head]
            np.testing.assert_allclose(shifts[0], expected.query_shift[0], atol=1e-12)
            np.testing.assert_allclose(shifts[1], expected.key_shift[0], atol=1e-12)
    errors = []
    for chosen in (None, estimators):
        errors.append([])
        for seed in range(8):
            attention = register(chosen, 64, rng=seed, method="linear")
            model.set_attn_implementation("randfeat")
            errors[-1].append(distance(hidden(model), exact))
    assert attention.features(0, 4, torch.zeros(1, 4, 9, 8)).batch_shape == (2,)
    assert np.mean(errors[1]) < np.mean(errors[0])


def test_a_causal_model_is_calibrated_as_a_causal_model():
    """Its second layer gets what the first one gives without a look at later tokens, with and without padding."""
    model = llama()
    ones = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
    found = [calibrate(model, inputs, 16, level="center")[1] for inputs in ({"input_ids": TOKENS}, ones)]
    np.testing.assert_allclose(found[0].query_shift, found[1].query_shift, rtol=1e-12)
    short = {"input_ids": TOKENS[1:, :5]}
    padded = {"input_ids": TOKENS[1:], "attention_mask": PADDING[1:]}
    found = [calibrate(model, inputs, 16, level="center")[1] for inputs in (short, padded)]
    np.testing.assert_allclose(found[0].query_shift, found[1].query_shift, rtol=1e-12)


def test_a_calibration_is_saved_and_loaded(tmp_path):
    model = bert()
    estimators = calibrate(model, INPUTS, 32)
    rf.save(tmp_path / "estimators", estimators)
    again = rf.load(tmp_path / "estimators")
    assert digest(again) == digest(estimators)
    outputs = []
    for given in (estimators, again, tmp_path / "estimators"):
        register(given, 32, method="linear")
        model.set_attn_implementation("randfeat")
        outputs.append(hidden(model, **{"attention_mask": PADDING}))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


IN_ANOTHER_PROCESS = """
import sys, torch, transformers
from randfeat.integrations.transformers import register
folder = sys.argv[1]
tokens, padding = torch.load(folder + "/inputs")
register()
model = transformers.AutoModel.from_pretrained(folder, attn_implementation="randfeat", dtype=torch.float64).eval()
try:
    model(tokens, attention_mask=padding)
except ValueError as error:
    print(error)
attention = register(folder)
model.set_attn_implementation("randfeat")
with torch.no_grad():
    output = model(tokens, attention_mask=padding)[0]
torch.save((output, [dict(phi.arrays) for phi in attention.drawn.values()]), folder + "/outputs")
"""


def test_a_saved_model_finds_its_calibration(tmp_path):
    """One file beside the weights. Another process asks for it, and then has the same features to the bit."""
    model, folder = bert(), str(tmp_path)
    attention = register(calibrate(model, INPUTS, 32), 32, rng=5, method="linear")
    model.set_attn_implementation("randfeat")
    expected = hidden(model, attention_mask=PADDING)
    save_pretrained(model, folder)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", FILE}
    assert torch.equal(hidden(model, attention_mask=PADDING), expected)
    torch.save((TOKENS, PADDING), f"{folder}/inputs")
    command = [sys.executable, "-W", "ignore", "-c", IN_ANOTHER_PROCESS, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "this model was saved or calibrated with another attention than the one that is registered" in done.stdout
    output, drawn = torch.load(f"{folder}/outputs")
    for arrays, phi in zip(drawn, attention.drawn.values(), strict=True):
        assert all(torch.equal(arrays[name], array) for name, array in phi.arrays.items())
    assert distance(output, expected) < 1e-13  # weights lie at other addresses there, which matrix products notice
    again = register(folder)
    assert (again.num_features, again.rng, again.options) == (32, 5, {})
    assert register(folder, 16, rng=6).num_features == 16


def test_a_model_that_is_saved_without_its_calibration_says_so(tmp_path):
    """Even by the method of transformers, which keeps the mark in the config, but no file."""
    model = llama()
    calibrate(model, {"input_ids": TOKENS}, 16, level="center")
    model.save_pretrained(tmp_path)
    assert isinstance(getattr(model.config, MARK), str)
    setattr(model.config, MARK, "of another process")
    register()
    model.set_attn_implementation("randfeat")
    with pytest.raises(ValueError, match=f"del model.config.{MARK}"):
        hidden(model)
    delattr(model.config, MARK)
    hidden(model)
    with pytest.raises(FileNotFoundError, match=r"save a model with its attention by .*save_pretrained"):
        register(tmp_path)
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match=r"attn_implementation='sdpa', which is not of randfeat"):
        save_pretrained(model, tmp_path)


def test_layers_that_cannot_be_calibrated_are_refused():
    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=50, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=40,
    )  # fmt: skip
    model = transformers.BartModel(config).eval()
    with pytest.raises(ValueError, match="self-attention layers with numbers of their own"):
        calibrate(model, {"input_ids": TOKENS}, 32)
    assert model.config._attn_implementation == "sdpa"


def test_the_width_of_a_calibration_is_kept(tmp_path):
    """As many features as the estimators were fitted for, unless another number is given."""
    estimators = calibrate(bert(), INPUTS, 48, level="center")
    rf.save(tmp_path / "estimators", estimators)
    for given in (estimators, rf.load(tmp_path / "estimators"), tmp_path / "estimators"):
        assert register(given).num_features == 48
        assert register(given, 16).num_features == 16
    assert register({0: rf.PositiveFeatures(), 1: rf.PositiveFeatures()}).num_features == 256
