"""The exact encoder on passages of the novel, and what can stand in place of its attention."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.experiment import Settings
from experiments.minilm import Attention, load_minilm, softmax_attention
from experiments.texts import passage

NUM_LAYERS = 6
CALIBRATION = (0.10, 0.35, 0.60)
FEATURES = ("plain", "adapted")


@dataclass(frozen=True)
class PropagationSettings(Settings):
    """Sizes: widths, passages (as shares of the novel, apart from those of the fit), tokens, and draws for each.

    num_clusters, num_keys : of clustered attention and of caches. long_tokens : the longer passages that these two are
    measured on, too. num_documents : passages that are searched, with a phrase out of each.
    """

    num_features: tuple[int, ...] = (64, 256, 1024)
    num_clusters: tuple[int, ...] = (11, 21)
    num_keys: tuple[int, ...] = (64,)
    passages: tuple[float, ...] = (0.20, 0.45, 0.70, 0.90)
    num_tokens: int = 256
    long_tokens: int = 512
    num_draws: int = 3
    num_documents: int = 40
    retrieval_features: int = 256


@functools.cache
def token_ids(share: float, num_tokens: int) -> np.ndarray:
    """The first tokens of the passage at this share of the novel."""
    return load_minilm().tokens(passage(share, 8 * num_tokens), num_tokens)


@functools.cache
def exact_states(share: float, num_tokens: int) -> tuple[np.ndarray, ...]:
    """Hidden states of the exact model before the first layer and after each."""
    bert = load_minilm().bert
    states = [bert.embed(token_ids(share, num_tokens))]
    for layer in range(NUM_LAYERS):
        states.append(bert.layer(layer, states[-1], softmax_attention))
    return tuple(states)


@functools.cache
def fitted(layer: int, num_features: int, num_tokens: int, seed: int) -> rf.Estimator:
    """Features adapted to each head of a layer on the calibration passages."""
    calls: list[tuple[np.ndarray, np.ndarray]] = []

    def record(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        calls.append((query, key))
        return value

    for share in CALIBRATION:
        load_minilm().bert.layer(layer, exact_states(share, num_tokens)[layer], record)
    query, key = (np.stack(sides) for sides in zip(*calls, strict=True))
    rng = Settings(seed=seed).rng("fit", layer, num_features)
    return rf.adapt(query, key, num_features=num_features, rng=rng)


def average(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The mean of the values, whatever the query: what a model is left with that cannot attend."""
    return np.broadcast_to(value.mean(axis=-2, keepdims=True), value.shape)


@dataclass(frozen=True)
class Replacement:
    """What stands in place of softmax attention; size : number of features, clusters or merged keys, 0 for none."""

    method: str
    size: int = 0

    def attention(self, layer: int, rng: np.random.Generator, settings: PropagationSettings) -> Attention:
        """The attention function of one layer."""
        if self.method == "exact":
            return softmax_attention
        if self.method == "average":
            return average
        if self.method == "clustered":
            return lambda q, k, v: rf.clustered_attention(q, k, v, num_clusters=self.size, rng=rng)
        if self.method == "merged keys":
            return lambda q, k, v: rf.compressed_attention(q, k, v, num_keys=self.size, rng=rng)
        estimator: Any = rf.PositiveFeatures()
        if self.method == "adapted":
            estimator = fitted(layer, self.size, settings.num_tokens, settings.seed)
        batch_shape = (load_minilm().bert.num_heads,) if self.method == "plain" else None  # a fit has its heads
        like = np.zeros(0, dtype=np.float32)
        phi = estimator.draw(32, self.size, rng=rng, like=like, batch_shape=batch_shape)
        return lambda q, k, v: rf.linear_attention(q, k, v, phi)


def features(settings: PropagationSettings) -> list[Replacement]:
    """The maps of random features."""
    return [Replacement(method, width) for method in FEATURES for width in settings.num_features]


def operators(settings: PropagationSettings) -> list[Replacement]:
    """Compressed attention: caches of merged keys, and clusters of queries."""
    caches = [Replacement("merged keys", size) for size in settings.num_keys]
    return caches + [Replacement("clustered", size) for size in settings.num_clusters]
