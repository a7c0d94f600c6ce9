"""A small pre-norm transformer in PyTorch whose attention is an argument, and what training it has to keep in order.

An attention function gets the index of the layer and queries, keys and values (batch, heads, L, d), not scaled, and
returns (batch, heads, L, d). There may be fewer key heads than query heads; then each serves a group of these. Weights
are drawn from a seed of their own; PyTorch's global generator is left as it was.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

import randfeat as rf
from experiments.atomic_files import replacing

Attention = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of a model.

    pooled : one output for a sequence, from the mean over its positions. key_heads : of each layer; as many as heads by
    default. reach : positions whose queries, keys and values are mixed before attention, each with its predecessors,
    channel by channel (So et al. 2021, "Primer"). positions : whether there are embeddings of positions.
    """

    vocabulary: int
    length: int
    outputs: int
    width: int = 32
    heads: int = 2
    layers: int = 2
    pooled: bool = False
    key_heads: int | None = None
    reach: int = 1
    positions: bool = True

    @property
    def dim(self) -> int:
        return self.width // self.heads

    @property
    def parts(self) -> tuple[int, int, int]:
        """Channels of queries, keys and values."""
        keys = self.dim * (self.heads if self.key_heads is None else self.key_heads)
        return self.width, keys, keys


class Mixing(torch.nn.Module):
    """Each channel as a learned sum over this position and its predecessors: (batch, L, channels) to the same.

    At the start the key of a position is mostly that of its predecessor, so that what followed an earlier token is
    found soon. Source: Olsson et al. 2022, "In-context Learning and Induction Heads", smeared keys.
    """

    def __init__(self, parts: tuple[int, int, int], reach: int) -> None:
        super().__init__()
        channels, queries = sum(parts), parts[0]
        self.sums = torch.nn.Conv1d(channels, channels, reach, groups=channels, padding=reach - 1)
        with torch.no_grad():
            self.sums.weight *= 0.3
            self.sums.weight[:, 0, -1] += 1.0
            self.sums.weight[queries : queries + parts[1], 0, -2:] += torch.tensor([1.0, -1.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sums(x.mT)[..., : x.shape[-2]].mT


class Layer(torch.nn.Module):
    """`x + attention(norm x)`, then `x + mlp(norm x)`."""

    def __init__(self, shape: Shape, index: int) -> None:
        super().__init__()
        self.shape, self.index = shape, index
        self.first_norm, self.second_norm = (torch.nn.LayerNorm(shape.width) for _ in range(2))
        self.inputs = torch.nn.Linear(shape.width, sum(shape.parts))
        self.mixing = Mixing(shape.parts, shape.reach) if shape.reach > 1 else torch.nn.Identity()
        self.output = torch.nn.Linear(shape.width, shape.width)
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(shape.width, 4 * shape.width),
            torch.nn.GELU(),
            torch.nn.Linear(4 * shape.width, shape.width),
        )

    def forward(self, x: torch.Tensor, attention: Attention) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.reshape(batch, length, -1, self.shape.dim).transpose(1, 2)
            for part in self.mixing(self.inputs(self.first_norm(x))).split(self.shape.parts, dim=-1)
        )
        mixed = attention(self.index, q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.output(mixed)
        return x + self.mlp(self.second_norm(x))


class Transformer(torch.nn.Module):
    """Embeddings of tokens and positions, layers, and logits for each position or each sequence."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = torch.nn.Embedding(shape.vocabulary, shape.width)
        self.positions = torch.nn.Embedding(shape.length, shape.width) if shape.positions else None
        self.layers = torch.nn.ModuleList(Layer(shape, index) for index in range(shape.layers))
        self.norm = torch.nn.LayerNorm(shape.width)
        self.logits = torch.nn.Linear(shape.width, shape.outputs)

    def forward(self, ids: torch.Tensor, attention: Attention) -> torch.Tensor:
        """(batch, L) to (batch, L, outputs), or to (batch, outputs) if pooled."""
        x = self.tokens(ids)
        if self.positions is not None:
            x = x + self.positions.weight[: ids.shape[-1]]
        for layer in self.layers:
            x = layer(x, attention)
        x = self.norm(x)
        return self.logits(x.mean(dim=-2) if self.shape.pooled else x)


def make_model(shape: Shape, rng: np.random.Generator) -> Transformer:
    """A model with PyTorch's default initial weights, drawn with a seed from `rng`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        return Transformer(shape)


def exact(is_causal: bool) -> Attention:
    """Exact attention; each key head serves its group of query heads."""

    def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if q.shape[1] != k.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        return scaled_dot_product_attention(q, k, v, is_causal=is_causal)

    return attend


def linear(maps: list[rf.FeatureMap], is_causal: bool, **options: Any) -> Attention:
    """Linear attention with one map for each layer."""
    return lambda layer, q, k, v: rf.linear_attention(q, k, v, maps[layer], is_causal=is_causal, **options)


def draw_maps(
    estimator: rf.Estimator, shape: Shape, num_features: int, rng: np.random.Generator
) -> list[rf.FeatureMap]:
    """Independent maps for each layer and head."""
    like = torch.zeros(0)
    return [
        estimator.draw(shape.dim, num_features, rng=rng, like=like, batch_shape=(shape.heads,))
        for _ in range(shape.layers)
    ]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread of PyTorch, so that sums have one order and numbers are the same on every run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def take_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor, clip: float = 1.0) -> float:
    """Change the weights to lower the loss; returns the norm of the gradient, which is at most `clip` in the step."""
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return float(norm)


def save_checkpoint(path: Path, name: str, state: dict[str, Any]) -> None:
    """Write tensors and plain values under this name; the file is complete at every moment, or not there."""
    with replacing(path) as file:
        torch.save({"name": name, "state": state}, file)


def load_checkpoint(path: Path, name: str) -> dict[str, Any] | None:
    """What was saved under this name; None if there is no file, or it is of something else."""
    if not path.exists():
        return None
    content = torch.load(path, weights_only=True)
    return content["state"] if content["name"] == name else None
