"""Training a classifier of sequences with one attention, and what a step of it costs."""

import statistics
import time
from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import randfeat as rf
from experiments.experiment import Record
from experiments.long_range.tasks import make_examples
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
    from experiments.long_range import CostCell, LongRangeSettings, TaskCell


def attention_at(cell: "TaskCell | CostCell", settings: "LongRangeSettings", shape: Shape, step: int) -> Attention:
    """Exact attention, or positive features that are drawn again every `redraw_every` steps."""
    if cell.attention == "exact":
        return exact(is_causal=False)
    rng = settings.rng("maps", cell.name, step // settings.redraw_every)
    return linear(draw_maps(rf.PositiveFeatures(), shape, settings.num_features, rng), is_causal=False)


def train(cell: "TaskCell", settings: "LongRangeSettings") -> Record:
    """Accuracy on held-out examples after some epochs of training."""
    with one_thread():
        data, test = (
            make_examples(
                cell.task,
                settings.length,
                settings.test_examples if held_out else settings.train_examples,
                settings.rng(cell.task, cell.repetition, held_out),
                held_out=held_out,
            )
            for held_out in (False, True)
        )
        shape = Shape(data.vocabulary, data.tokens.shape[-1], data.classes, settings.width, pooled=True)
        model = make_model(shape, settings.rng("model", cell.task, cell.repetition))
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=settings.steps)
        tokens, labels = torch.from_numpy(data.tokens), torch.from_numpy(data.labels)
        for step in range(settings.steps):
            if step % settings.redraw_every == 0:
                attention = attention_at(cell, settings, shape, step)
            chosen = torch.arange(step * settings.batch, (step + 1) * settings.batch) % len(labels)
            loss = cross_entropy(model(tokens[chosen], attention), labels[chosen])
            take_step(model, optimizer, loss)
            schedule.step()
        with torch.no_grad():
            logits = model(torch.from_numpy(test.tokens), attention_at(cell, settings, shape, settings.steps))
        right = int((logits.argmax(-1) == torch.from_numpy(test.labels)).sum())
    return {"right": right, "examples": len(test.labels), "accuracy": right / len(test.labels)} | {
        "majority": test.majority
    }


def cost_of_step(cell: "CostCell", settings: "LongRangeSettings") -> Record:
    """Median time of a training step at one length, and the largest memory that its tensors hold at once."""
    with one_thread():
        shape = Shape(vocabulary=16, length=cell.length, outputs=2, width=settings.width, pooled=True)
        model = make_model(shape, settings.rng("cost"))
        attention = attention_at(cell, settings, shape, 0)
        tokens = torch.from_numpy(settings.rng("cost", cell.length).integers(16, size=(1, cell.length)))
        labels = torch.zeros(1, dtype=torch.int64)
        memory = peak_bytes(model, tokens, labels, attention)
        seconds = []
        for _ in range(settings.timed_steps):
            started = time.perf_counter()
            one_step(model, tokens, labels, attention)
            seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds), "peak_bytes": memory}


def one_step(model: Transformer, tokens: torch.Tensor, labels: torch.Tensor, attention: Attention) -> None:
    model.zero_grad(set_to_none=True)
    cross_entropy(model(tokens, attention), labels).backward()


def peak_bytes(model: Transformer, tokens: torch.Tensor, labels: torch.Tensor, attention: Attention) -> int:
    """Largest sum of what the operations of a step return and hold at once, in bytes; the weights are not counted."""
    with HeldMemory() as held:
        one_step(model, tokens, labels, attention)
    return held.peak


class HeldMemory(TorchDispatchMode):
    """Follows the memory that results of operations occupy, until nothing refers to it."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self.held: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        own = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        self.held = {key: entry for key, entry in self.held.items() if not entry[0].expired()}
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and (key := x.untyped_storage()._cdata) not in own | self.held.keys():
                self.held[key] = (StorageWeakRef(x.untyped_storage()), x.untyped_storage().nbytes())
        self.peak = max(self.peak, sum(size for _, size in self.held.values()))
        return result
