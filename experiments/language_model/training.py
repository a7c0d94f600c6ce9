"""The language model, trained with exact attention; and small ones, trained with the PyTorch module beside."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import randfeat as rf
from experiments.experiment import Record, Tables
from experiments.language_model.documents import KINDS, documents, num_characters
from experiments.language_model.settings import EXACT, TEXTS, ModelSettings, Training
from experiments.transformer import Attention, Shape, Transformer, exact, make_model, one_thread, take_step
from randfeat.integrations.torch import LinearAttention


def shape_of(training: Training) -> Shape:
    """Without embeddings of positions, so that a model reads documents that are longer than those of its training."""
    kinds = num_characters()
    return Shape(
        kinds, 0, kinds, training.width, training.heads, training.layers,
        key_heads=training.key_heads, reach=4, positions=False,
    )  # fmt: skip


def losses(model: Transformer, tokens: np.ndarray, attention: Attention) -> torch.Tensor:
    """Nats of each character but the first: (n, length)."""
    batch = torch.from_numpy(tokens)
    return cross_entropy(model(batch[:, :-1], attention).mT, batch[:, 1:], reduction="none")


def batch_of(kinds: Sequence[str], length: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Documents for one step, as many of each kind."""
    parts = [documents(kind, length, size // len(kinds), rng, held_out=False).tokens for kind in kinds]
    return np.concatenate(parts)


def train(
    model: Transformer,
    training: Training,
    attention: Attention,
    rng_of: Callable[[int], np.random.Generator],
    kinds: Sequence[str] = KINDS,
) -> list[float]:
    """Train with AdamW, and a learning rate that rises and falls once; returns the loss of each step.

    rng_of : the generator of the documents of a step. kinds : of these documents.
    """
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.1)
    total = sum(steps for _, _, steps in training.stages)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.learning_rate, total_steps=total, pct_start=0.1)
    found: list[float] = []
    for length, size, steps in training.stages:
        for _ in range(steps):
            loss = losses(model, batch_of(kinds, length, size, rng_of(len(found))), attention).mean()
            take_step(model, optimizer, loss)
            schedule.step()
            found.append(loss.item())
    return found


@functools.cache
def trained(settings: ModelSettings) -> Transformer:
    """The model whose attention is replaced; trained once in a process."""
    with one_thread():
        model = make_model(shape_of(settings.training), settings.rng("model"))
        train(model, settings.training, exact(is_causal=True), lambda step: settings.rng("batch", step))
    return model.eval()


def modules(training: Training, num_features: int, rng: np.random.Generator) -> Attention:
    """`LinearAttention` in each layer, with a map for each head."""
    shape = shape_of(training)
    layers = [
        LinearAttention(
            rf.PositiveFeatures(coupling="orthogonal"), shape.dim, num_features, heads=shape.heads, rng=rng,
            is_causal=True, enable_gqa=True,
        )
        for _ in range(shape.layers)
    ]  # fmt: skip
    return lambda layer, query, key, value: layers[layer](query, key, value)


def curve(arm: str, text: str, repetition: int, settings: ModelSettings) -> Tables:
    """The losses of one training, and what the model loses on held-out text, with its own attention."""
    training = settings.small
    names: Record = {"attention": arm, "text": text, "repetition": repetition}
    with one_thread():
        model = make_model(shape_of(training), settings.rng("small", repetition))
        attention = exact(is_causal=True)
        if arm != EXACT:
            attention = modules(training, settings.num_features, settings.rng("maps", repetition))
        kinds = TEXTS[text]
        found = train(model, training, attention, lambda step: settings.rng("small batch", repetition, step), kinds)
        length = training.stages[-1][0]
        read = documents("novel", length, settings.held_out, settings.rng("held out"), held_out=True)
        with torch.no_grad():
            nats = losses(model, read.tokens, attention).mean().item()
    rows = [names | {"step": step, "loss": loss} for step, loss in enumerate(found)]
    return {"curves": rows, "final": [names | {"nats": nats}]}
