"""What can stand in place of exact attention in a trained model: causal, and with a bounded number of rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import randfeat as rf
from experiments.compressed_stream.evictions import EVICTIONS, NUM_SINKS
from experiments.language_model.settings import CUT, EXACT, FEATURES, FITTED, ModelSettings
from experiments.transformer import Attention, exact

OfArrays = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def attention_of(method: str, memory: int, settings: ModelSettings) -> Attention:
    """Attention of all layers by a method with this many rows for each key head."""
    if method == EXACT:
        return exact(is_causal=True)
    if method == CUT:
        return on_arrays(lambda layer: cut(memory))
    if method in EVICTIONS:
        return on_arrays(lambda layer: evicting(method, memory))
    if method == FEATURES:
        return on_arrays(lambda layer: features(memory, settings.rng("features", memory, layer)))
    return on_arrays(lambda layer: merging(memory, fit=method == FITTED, rng=settings.rng(method, memory, layer)))


def on_arrays(made: Callable[[int], OfArrays]) -> Attention:
    """The function of each layer, made by its number, on tensors."""

    def attend(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = made(layer)(*(x.contiguous().numpy() for x in (query, key, value)))
        return torch.from_numpy(np.ascontiguousarray(output, dtype=np.float32))

    return attend


def merging(memory: int, *, fit: bool, rng: np.random.Generator) -> OfArrays:
    """A stream of merged keys: a third of the rows merged, two thirds the last keys, beside the sinks.

    References are the past of the sequence itself.
    """
    window = (memory - NUM_SINKS) // 3
    options: dict[str, Any] = {"num_keys": memory - NUM_SINKS - 2 * window, "window": window, "num_sinks": NUM_SINKS}
    seed = int(rng.integers(2**31))
    return lambda query, key, value: rf.compressed_attention(
        query, key, value, is_causal=True, enable_gqa=True, fit=fit, rng=seed, **options
    )


def evicting(method: str, memory: int) -> OfArrays:
    """Some keys as they are, each document by itself."""

    def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        return np.stack([EVICTIONS[method](*one, memory) for one in zip(query, key, value, strict=True)])

    return attend


def features(memory: int, rng: np.random.Generator) -> OfArrays:
    """Linear attention with two positive features for each row, a map for each query head."""

    def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        estimator = rf.PositiveFeatures(coupling="orthogonal")
        phi = estimator.draw(query.shape[-1], 2 * memory, rng=rng, like=query, batch_shape=query.shape[1:2])
        return rf.linear_attention(query, key, value, phi, is_causal=True, enable_gqa=True)

    return attend


def cut(memory: int) -> OfArrays:
    """Exact attention to the last keys alone."""

    def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        age = np.subtract.outer(np.arange(query.shape[-2]), np.arange(query.shape[-2]))
        seen = torch.from_numpy((age >= 0) & (age < memory))
        group = query.shape[1] // key.shape[1]
        key, value = (np.repeat(x, group, axis=1) for x in (key, value))
        inputs = (torch.from_numpy(x) for x in (query, key, value))
        return torch.nn.functional.scaled_dot_product_attention(*inputs, attn_mask=seen).numpy()

    return attend
