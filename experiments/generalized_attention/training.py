"""Training one model with one function f in its attention."""

import math
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

import randfeat as rf
from experiments.experiment import Record
from experiments.generalized_attention.tasks import SIZES, Batch, make_batch
from experiments.transformer import (
    Attention,
    Shape,
    Transformer,
    draw_maps,
    exact,
    linear,
    make_model,
    one_thread,
    take_step,
)

if TYPE_CHECKING:
    from experiments.generalized_attention import GeneralizedSettings, TrainingCell

OFFSET = 1e-3


def make_features(function: str) -> rf.Estimator:
    """Features of f; ReLU and the absolute value with the Performer's offset, so that no weight vanishes."""
    if function == "trig":
        return rf.TrigonometricFeatures()
    offset = OFFSET if function in ("relu", "abs") else 0.0
    return rf.ActivationFeatures(rf.ActivationKernel(function, offset=offset))


def unnormalized(maps: list[rf.FeatureMap]) -> Attention:
    """`Σ_j φ(q_i)·φ(k_j) v_j`, without division."""

    def attend(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        phi, root = maps[layer], query.shape[-1] ** -0.25
        state = rf.AttentionState.empty(phi.num_features, value.shape[-1], like=value)
        sums = state.append(phi.keys(root * key), value).partial(phi.queries(root * query))
        return sums.numerator * torch.exp(sums.log_scale)

    return attend


def attention_at(cell: "TrainingCell", settings: "GeneralizedSettings", shape: Shape, step: int) -> Attention:
    if cell.function == "softmax":
        return exact(is_causal=False)
    rng = settings.rng("maps", cell.name, step // settings.redraw_every)
    maps = draw_maps(make_features(cell.function), shape, settings.num_features, rng)
    if not cell.renormalized:
        return unnormalized(maps)
    return linear(maps, is_causal=False, scale=1 / math.sqrt(shape.dim))


def asked_logits(model: Transformer, batch: Batch, attention: Attention) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and answers where an answer is asked for."""
    where = torch.from_numpy(batch.asked.copy())
    return model(torch.from_numpy(batch.tokens), attention)[where], torch.from_numpy(batch.answers)[where]


def train(cell: "TrainingCell", settings: "GeneralizedSettings") -> Record:
    """Accuracy on held-out sequences, the last loss, and whether the training broke down.

    It has if a loss is not finite, and then stops, or if it ends above the loss of equal probabilities.
    """
    num_tokens, num_answers = SIZES[cell.task]
    shape = Shape(num_tokens, settings.length, num_answers, settings.width)
    with one_thread():
        model = make_model(shape, settings.rng("model", cell.task, cell.repetition))
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
        losses = []
        for step in range(settings.steps):
            if step % settings.redraw_every == 0:
                attention = attention_at(cell, settings, shape, step)
            rng = settings.rng("batch", cell.task, cell.repetition, step)
            batch = make_batch(cell.task, settings.length, settings.batch, rng)
            loss = cross_entropy(*asked_logits(model, batch, attention))
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                break
            take_step(model, optimizer, loss)
        rng = settings.rng("test", cell.task, cell.repetition)
        test = make_batch(cell.task, settings.length, settings.test_examples, rng, held_out=True)
        with torch.no_grad():
            logits, answers = asked_logits(model, test, attention_at(cell, settings, shape, settings.steps))
    last = sum(losses[-10:]) / len(losses[-10:])
    return {
        "steps": len(losses),
        "loss": last,
        "diverged": not last < math.log(num_answers),
        "accuracy": float((logits.argmax(-1) == answers).double().mean()),
    }
