"""One training of the character model, from a checkpoint if there is one."""

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

import randfeat as rf
from experiments.experiment import Record, Tables
from experiments.texts import novel
from experiments.transformer import (
    Attention,
    Shape,
    Transformer,
    draw_maps,
    exact,
    linear,
    load_checkpoint,
    make_model,
    one_thread,
    save_checkpoint,
    take_step,
)

if TYPE_CHECKING:
    from experiments.training_stability import TrainingCell, TrainingSettings

HELD_OUT = 0.1
CLIP = 0.5


@functools.cache
def characters() -> torch.Tensor:
    """The novel as numbers of characters, in the order of their codes."""
    kinds = {character: index for index, character in enumerate(sorted(set(novel())))}
    return torch.tensor([kinds[character] for character in novel()])


def shape_of(settings: "TrainingSettings") -> Shape:
    kinds = int(characters().max()) + 1
    return Shape(kinds, settings.length, kinds, width=settings.width, heads=settings.heads)


def make_features(name: str, norms: str, dim: int) -> rf.Estimator:
    """The estimator of an arm. OPRF has the best exponent for |x + y|² = d."""
    coupling = rf.Orthogonal(norms="constant") if norms == "constant" else rf.Orthogonal()
    if name == "OPRF":
        return rf.OptimalPositiveFeatures.for_sqnorm(float(dim), dim, coupling=coupling)
    kinds = {"trig": rf.TrigonometricFeatures, "positive": rf.PositiveFeatures, "hyp+": rf.HyperbolicFeatures}
    return kinds[name](coupling=coupling)


def maps_at(cell: "TrainingCell", settings: "TrainingSettings", step: int) -> list[rf.FeatureMap]:
    """The maps that the arm uses at this step: those of step 0, or of the last redraw."""
    shape = shape_of(settings)
    drawn = step - step % settings.redraw_every if cell.redraw else 0
    return draw_maps(
        make_features(cell.attention, cell.norms, shape.dim),
        shape,
        settings.num_features,
        settings.rng("maps", cell.name, drawn),
    )


def attention_of(cell: "TrainingCell", maps: list[rf.FeatureMap]) -> Attention:
    if cell.attention == "none":
        return lambda layer, query, key, value: value
    return linear(maps, is_causal=True) if maps else exact(is_causal=True)


def windows(settings: "TrainingSettings", rng: Any, count: int, *, held_out: bool) -> torch.Tensor:
    """Stretches (count, length + 1) of the novel, from its last tenth or from the rest."""
    text, border = characters(), int((1 - HELD_OUT) * len(characters()))
    low, high = (border, len(text)) if held_out else (0, border)
    starts = torch.from_numpy(rng.integers(low, high - settings.length - 1, size=count))
    return text[starts[:, None] + torch.arange(settings.length + 1)]


def loss_of(model: Transformer, batch: torch.Tensor, attention: Attention) -> torch.Tensor:
    """Nats per character."""
    return cross_entropy(model(batch[:, :-1], attention).flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def relative_denominators(phi: rf.FeatureMap, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """`Σ_{j≤i} φ(q_i)·φ(k_j) / Σ_{j≤i} exp(q_i·k_j/√d)`, (..., L), in float64; 1 is exact."""
    root = query.shape[-1] ** -0.25
    q, k = root * query.double(), root * key.double()
    future = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(1)
    log_exact = torch.logsumexp((q @ k.mT).masked_fill(future, -math.inf), dim=-1, keepdim=True)
    phi = phi.to(q)
    return torch.tril(phi.queries(q).scaled(-log_exact).dot(phi.keys(k))).sum(dim=-1)


def diagnose(model: Transformer, batch: torch.Tensor, maps: list[rf.FeatureMap]) -> Record:
    """The smallest relative denominator on the batch over all layers and heads, and the share of negative ones."""
    found = []
    through = linear(maps, is_causal=True)

    def watched(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        found.append(relative_denominators(maps[layer], query, key).flatten())
        return through(layer, query, key, value)

    with torch.no_grad():
        model(batch[:, :-1], watched)
    values = torch.cat(found)
    return {"minimum": float(values.min()), "negative": float((values < 0).double().mean())}


def train(cell: "TrainingCell", settings: "TrainingSettings", checkpoint: Path | None) -> Tables:
    """Train, and measure what the trained model loses on the held-out tenth of the novel."""
    with one_thread():
        return Training(cell, settings).run(checkpoint)


class Training:
    """A model, its optimizer and what was measured so far: all that a checkpoint holds."""

    def __init__(self, cell: "TrainingCell", settings: "TrainingSettings") -> None:
        self.cell, self.settings, self.step = cell, settings, 0
        self.arm: Record = {"attention": cell.attention, "norms": cell.norms, "redraw": cell.redraw}
        self.arm |= {"repetition": cell.repetition}
        self.model = make_model(shape_of(settings), settings.rng("model", cell.repetition))
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.1
        )
        self.tables: Tables = {"steps": [], "denominators": []}

    def run(self, checkpoint: Path | None) -> Tables:
        name = f"{self.cell.key} {self.settings}"
        if checkpoint is not None and (state := load_checkpoint(checkpoint, name)) is not None:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.tables = state["step"], state["tables"]
        maps = self.maps()
        while self.step < self.settings.steps:
            if self.step % self.settings.redraw_every == 0:
                maps = self.maps()
            self.take_step(maps)
            if checkpoint is not None and self.step % self.settings.save_every == 0:
                save_checkpoint(checkpoint, name, self.state())
        return self.tables | {"final": [self.arm | self.final()]}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: batches and maps are functions of the step."""
        return {
            "step": self.step,
            "tables": self.tables,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def maps(self) -> list[rf.FeatureMap]:
        return maps_at(self.cell, self.settings, self.step) if self.cell.norms else []

    def take_step(self, maps: list[rf.FeatureMap]) -> None:
        rng = self.settings.rng("batch", self.cell.repetition, self.step)
        batch = windows(self.settings, rng, self.settings.batch, held_out=False)
        if maps and self.step % self.settings.diagnose_every == 0:
            self.tables["denominators"].append(self.arm | {"step": self.step} | diagnose(self.model, batch, maps))
        loss = loss_of(self.model, batch, attention_of(self.cell, maps))
        norm = take_step(self.model, self.optimizer, loss, CLIP)
        self.tables["steps"].append(self.arm | {"step": self.step, "loss": loss.item(), "gradient_norm": norm})
        self.step += 1

    @torch.no_grad()
    def final(self) -> Record:
        """Losses on held-out text: with the attention trained with, with fresh maps, and with softmax attention."""
        settings = self.settings
        batch = windows(settings, settings.rng("validation"), settings.validation_windows, held_out=True)
        maps = maps_at(self.cell, settings, settings.steps - 1) if self.cell.norms else []
        fresh = [phi.redraw(settings.rng("fresh", self.cell.name, i)) for i, phi in enumerate(maps)]
        return {
            "own": float(loss_of(self.model, batch, attention_of(self.cell, maps))),
            "fresh": float(loss_of(self.model, batch, attention_of(self.cell, fresh))),
            "exact": float(loss_of(self.model, batch, exact(is_causal=True))),
        }
