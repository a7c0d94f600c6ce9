"""Other implementations of attention on the CPU, as calls without arguments."""

import importlib.util
import math
import os
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["torch_peers"]

Call = Callable[[], object]


def torch_peers(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, rows: np.ndarray, *, is_causal: bool
) -> tuple[dict[str, Call], list[str]]:
    """Contenders by name, all with the same inputs (b, h, n, d) and projection (m, d), and notes on who is missing."""
    if not importlib.util.find_spec("torch"):
        return {}, ["torch is not installed: only our own passes are timed"]
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    q, k, v, w = (torch.from_numpy(np.ascontiguousarray(x)) for x in (query, key, value, rows))
    peers: dict[str, Call] = {}
    notes: list[str] = []

    def add(name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        def call() -> object:
            with torch.inference_mode():
                return function(*arguments, **options)

        peers[name] = call

    scaled = torch.nn.functional.scaled_dot_product_attention
    add("exact SDPA, torch", scaled, q, k, v, is_causal=is_causal)
    favor = chunked_favor if is_causal else favor_plus
    add("FAVOR+, plain torch", favor, q, k, v, w)
    if shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"):
        add("FAVOR+, torch.compile", torch.compile(favor), q, k, v, w)
    else:
        notes.append("torch.compile is left out: no C++ compiler")
    if is_causal:
        notes.append("performer-pytorch is left out: its causal pass on the CPU takes tens of times as long")
    elif importlib.util.find_spec("performer_pytorch"):
        from performer_pytorch import FastAttention

        performer = FastAttention(dim_heads=q.shape[-1], nb_features=len(rows), causal=False)
        add("performer-pytorch", performer, q, k, v)
    else:
        notes.append("performer-pytorch is left out: not installed")
    return peers, notes


def favor_features(x: Any, w: Any, *, keys: bool) -> Any:
    """`exp(w·x' - |x'|²/2 - top)`, x' = x/d^(1/4), in place; the top is each query's own, or that of all keys."""
    x = x * x.shape[-1] ** -0.25
    log = x @ w.mT - (x * x).sum(-1, keepdim=True) / 2
    top = log.amax((-2, -1), keepdim=True) if keys else log.amax(-1, keepdim=True)
    return (log - top).exp()


def favor_plus(q: Any, k: Any, v: Any, w: Any) -> Any:
    """Linear attention with positive features, as one writes it."""
    queries, keys = favor_features(q, w, keys=False), favor_features(k, w, keys=True)
    total = queries @ keys.sum(-2)[..., None]
    return queries @ (keys.mT @ v) / total


def chunked_favor(q: Any, k: Any, v: Any, w: Any, chunk: int = 128) -> Any:
    """The same, causal: weights within chunks, prefix sums over chunks. Its one maximum over all keys leaks the future.

    The length must be a multiple of the chunk.
    """
    queries, keys = favor_features(q, w, keys=False), favor_features(k, w, keys=True)
    size = (math.prod(q.shape[:-2]), q.shape[-2] // chunk, chunk)
    queries, keys, values = (x.reshape(*size, x.shape[-1]) for x in (queries, keys, v))
    values = pad_one(values)
    states = keys.mT @ values
    before = states.cumsum(1) - states
    output = (queries @ keys.mT).tril() @ values + queries @ before
    return (output[..., :-1] / output[..., -1:]).reshape(v.shape)


def pad_one(x: Any) -> Any:
    """A column of ones beside x."""
    import torch

    return torch.nn.functional.pad(x, (0, 1), value=1.0)
