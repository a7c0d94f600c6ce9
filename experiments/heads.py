"""The attention heads of trained models in `experiments/data` (see the README there)."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import randfeat as rf

FOLDER = Path(__file__).parent / "data"

MODELS = {"minilm": "MiniLM", "whisper": "Whisper", "vit": "ViT", "antiberty": "AntiBERTy"}
"""Files by name, and what the models are called."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Inputs:
    """The inputs of one head: float64 query (L, d), key (S, d), value (S, dv)."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    is_causal: bool = False

    @property
    def dim(self) -> int:
        """Length of queries and keys."""
        return int(self.query.shape[-1])

    @functools.cached_property
    def exact(self) -> np.ndarray:
        """Exact attention in float64."""
        return rf.softmax_attention(self.query, self.key, self.value, is_causal=self.is_causal)


@dataclass(frozen=True, eq=False, kw_only=True)
class Head(Inputs):
    """One head, and its exact output as stored in the file.

    name : `model/input/LxHy`. out_dtype : dtype that `out` was stored in. logits : smallest and largest, of all pairs.
    """

    name: str
    out: np.ndarray
    out_dtype: str
    logits: tuple[float, float]

    @property
    def model(self) -> str:
        return MODELS[self.name.partition("/")[0]]


@functools.cache
def entries(model: str) -> dict[str, dict]:
    """What the file says about each of its heads, by the head's full name."""
    with np.load(FOLDER / f"{model}_qkv.npz") as file:
        return {f"{model}/{entry['key']}": entry for entry in json.loads(str(file["meta"]))["entries"]}


@functools.cache
def head_names() -> tuple[str, ...]:
    """The names of all heads, `model/input/LxHy`, in the order of the files."""
    return tuple(name for model in MODELS for name in entries(model))


@functools.lru_cache(maxsize=4)
def load_head(name: str) -> Head:
    """One head by its name; the last few are kept in memory."""
    model, _, entry_name = name.partition("/")
    if model not in MODELS or name not in entries(model):
        raise ValueError(f"unknown head {name!r}; expected one of {', '.join(head_names())}.")
    entry = entries(model)[name]
    with np.load(FOLDER / f"{model}_qkv.npz") as file:
        query, key, value, out = (file[f"{entry_name}/{part}"] for part in ("q", "k", "v", "out"))
    return Head(
        name=name,
        query=query.astype(np.float64),
        key=key.astype(np.float64),
        value=value.astype(np.float64),
        out=out.astype(np.float64),
        out_dtype=str(out.dtype),
        is_causal=bool(entry["causal"]),
        logits=(float(entry["logit_min"]), float(entry["logit_max"])),
    )


def relative_error(output: np.ndarray, exact: np.ndarray) -> float:
    """`|output - exact| / |exact|`, Frobenius norms."""
    return float(np.linalg.norm(output - exact) / np.linalg.norm(exact))


def linear_error(head: Inputs, phi: rf.FeatureMap) -> float:
    """The relative error of the output of linear attention; signed features may divide by 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        output = rf.linear_attention(head.query, head.key, head.value, phi, is_causal=head.is_causal)
    return relative_error(output, head.exact)


def average_of_values(head: Head) -> np.ndarray:
    """What attention that looks nowhere in particular returns, (L, dv): the mean value of the keys each query sees."""
    if not head.is_causal:
        return np.broadcast_to(head.value.mean(axis=0), head.out.shape)
    return running(np.add, head) / np.arange(1, len(head.value) + 1)[: len(head.query), None]


def value_range(head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value in each coordinate, of the keys each query sees: (L or 1, dv) each."""
    if not head.is_causal:
        return head.value.min(axis=0, keepdims=True), head.value.max(axis=0, keepdims=True)
    return running(np.minimum, head), running(np.maximum, head)


def running(combine: np.ufunc, head: Head) -> np.ndarray:
    """Values combined over the keys up to each query of a causal head."""
    return combine.accumulate(head.value, axis=0)[: len(head.query)]
