"""Other implementations of attention on the CPU, as calls without arguments.

All get the same contiguous inputs (b, h, n, d), projection (m, d) and number of threads. Each gets its best settings,
found by trying.
"""

import importlib.util
import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from experiments.benchmarks.timing import Call
from experiments.benchmarks.workload import Workload
from randfeat._numpy.threads import resolve_num_threads

__all__ = ["CHUNKED", "COMPILED", "IN_PLACE", "PERFORMER", "PLAIN", "SDPA", "missing", "torch_gradients", "torch_peers"]

SDPA = "exact SDPA, torch"
PLAIN = "FAVOR+, plain torch"
IN_PLACE = "FAVOR+, torch in place"
CHUNKED = "FAVOR+, torch in chunks"
COMPILED = "FAVOR+, torch.compile"
PERFORMER = "performer-pytorch"

CHUNKS = (64, 128, 256)  # rows, of which the fastest are taken
PERFORMER_CHUNKS = (128, 256, 512, 1024)  # of the whole sequence: 128 is its default


def torch_peers(names: Sequence[str], work: Workload, *, is_causal: bool) -> tuple[dict[str, Call], list[str]]:
    """Calls of the named contenders, without gradients, and notes on missing contenders and tuned settings."""
    absent = {name: missing(name) for name in names}
    notes = [f"{name} is left out: {reason}" for name, reason in absent.items() if reason]
    peers: dict[str, Call] = {}
    present = [name for name in names if absent[name] is None]
    arguments = tensors(work) if present else ()
    for name in present:
        function, note = MAKERS[name](arguments, is_causal)
        notes += [note] if note else []
        peers[name] = without_gradients(function, arguments)
    return peers, notes


def torch_gradients(work: Workload, *, is_causal: bool) -> dict[str, Call]:
    """FAVOR+ in PyTorch, in place or in chunks: "forward", and "both" passes, with the values as output gradient.

    Empty if PyTorch is not installed.
    """
    if not importlib.util.find_spec("torch"):
        return {}
    import torch

    q, k, v, w = tensors(work)
    favor: Callable[..., Any] = tuned_chunks((q, k, v, w))[0] if is_causal else in_place_favor

    def both() -> list[Any]:
        inputs = [x.detach().requires_grad_() for x in (q, k, v)]
        output = favor(*inputs, w)
        return [output, *torch.autograd.grad(output, inputs, v)]

    return {"forward": without_gradients(favor, (q, k, v, w)), "both": both}


def tensors(work: Workload) -> tuple[Any, ...]:
    """Inputs and projection as tensors that share memory with the arrays; PyTorch gets as many threads as we do."""
    import torch

    torch.set_num_threads(resolve_num_threads(None))
    arrays = (work.query, work.key, work.value, work.rows)
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)


def without_gradients(function: Callable[..., Any], arguments: Sequence[Any]) -> Call:
    """The call in inference mode, in which PyTorch records no gradient."""
    import torch

    def call() -> object:
        with torch.inference_mode():
            return function(*arguments)

    return call


def missing(name: str) -> str | None:
    """Reason why a contender cannot take part; None if it can."""
    if not importlib.util.find_spec("torch"):
        return "torch is not installed"
    if name == PERFORMER and not importlib.util.find_spec("performer_pytorch"):
        return "not installed"
    if name == COMPILED and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "no C++ compiler"
    return None


Arguments = tuple[Any, ...]
Made = tuple[Callable[..., Any], str]


def sdpa(arguments: Arguments, is_causal: bool) -> Made:
    """Exact attention of PyTorch, which does not form the matrix of weights."""
    import torch

    scaled = torch.nn.functional.scaled_dot_product_attention
    return lambda q, k, v, w: scaled(q, k, v, is_causal=is_causal), ""


def compiled(arguments: Arguments, is_causal: bool) -> Made:
    """Plain or chunked FAVOR+ under `torch.compile`, compiled anew for each shape: no length runs slower code."""
    import torch

    torch.compiler.reset()
    function, note = tuned_chunks(arguments) if is_causal else (plain_favor, "")
    return torch.compile(function, dynamic=False, fullgraph=True), note and f"{COMPILED}: {note}"


def performer(arguments: Arguments, is_causal: bool) -> Made:
    """The module of performer-pytorch, with the same projection as the other contenders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        from performer_pytorch import performer_pytorch as library
    q, *_, w = arguments
    module = library.FastAttention(dim_heads=q.shape[-1], nb_features=len(w), causal=False)
    module.projection_matrix.copy_(w)
    if not is_causal:
        return lambda q, k, v, w: module(q, k, v), ""
    module.causal = True  # set here, since the constructor looks for CUDA, and prints what it found

    def in_chunks(chunks: int, q: Any, k: Any, v: Any, w: Any) -> Any:
        module.causal_linear_fn = partial(library.causal_linear_attention_noncuda, chunk_size=chunks)
        return module(q, k, v)

    candidates = {chunks: partial(in_chunks, chunks) for chunks in PERFORMER_CHUNKS if chunks <= q.shape[-2]}
    best = fastest(candidates, arguments)
    return candidates[best], f"{PERFORMER}, causal, L={q.shape[-2]}: {best} chunks, the fastest of {list(candidates)}"


def tuned_chunks(arguments: Arguments) -> Made:
    """Chunked FAVOR+ with its fastest chunk size."""
    length = arguments[0].shape[-2]
    candidates = {chunk: partial(chunked_favor, chunk=chunk) for chunk in CHUNKS if length % chunk == 0}
    best = fastest(candidates, arguments)
    return candidates[best], f"chunks of {best} at L={length}, the fastest of {list(candidates)}"


def fastest(candidates: Mapping[int, Callable[..., Any]], arguments: Arguments) -> int:
    """Key of the candidate with the shortest call, best of three after one to warm up."""
    import torch

    best = dict.fromkeys(candidates, math.inf)
    with torch.inference_mode():
        for function in candidates.values():
            function(*arguments)
        for _ in range(3):
            for key, function in candidates.items():
                start = time.perf_counter()
                function(*arguments)
                best[key] = min(best[key], time.perf_counter() - start)
    return min(best, key=best.__getitem__)


def chunked(arguments: Arguments, is_causal: bool) -> Made:
    """Causal FAVOR+ in chunks of the fastest size."""
    function, note = tuned_chunks(arguments)
    return function, f"{CHUNKED}: {note}"


def favor_features(x: Any, w: Any, *, keys: bool) -> Any:
    """`exp(w·x' - |x'|²/2 - top)`, x' = x/d^(1/4), written plainly; top: maximum for each query, or over all keys."""
    x = x * x.shape[-1] ** -0.25
    log = x @ w.mT - (x * x).sum(-1, keepdim=True) / 2
    top = log.amax((-2, -1), keepdim=True) if keys else log.amax(-1, keepdim=True)
    return (log - top).exp()


def in_place_features(x: Any, w: Any, *, keys: bool) -> Any:
    """`favor_features` without new arrays, and without a gradient through the top, which cancels."""
    x = x * x.shape[-1] ** -0.25
    log = x @ w.mT
    log -= (x * x).sum(-1, keepdim=True) / 2
    top = log.detach().amax((-2, -1) if keys else -1, keepdim=True)
    return log.sub_(top).exp_()


def plain_favor(q: Any, k: Any, v: Any, w: Any) -> Any:
    """Linear attention with positive features, written plainly."""
    return full_attention(favor_features(q, w, keys=False), favor_features(k, w, keys=True), v)


def in_place_favor(q: Any, k: Any, v: Any, w: Any) -> Any:
    """Linear attention with positive features in place, which avoids the cost of fresh memory."""
    return full_attention(in_place_features(q, w, keys=False), in_place_features(k, w, keys=True), v)


def full_attention(queries: Any, keys: Any, v: Any) -> Any:
    """Linear attention computed from given features."""
    total = queries @ keys.sum(-2)[..., None]
    return queries @ (keys.mT @ v) / total


def chunked_favor(q: Any, k: Any, v: Any, w: Any, chunk: int = 128) -> Any:
    """Causal linear attention: weights within chunks, prefix sums over chunks.

    The length must be a multiple of the chunk. Its single maximum over all keys leaks the future.
    """
    queries, keys = in_place_features(q, w, keys=False), in_place_features(k, w, keys=True)
    size = (math.prod(q.shape[:-2]), q.shape[-2] // chunk, chunk)
    queries, keys, values = (x.reshape(*size, x.shape[-1]) for x in (queries, keys, v))
    values = pad_one(values)
    states = keys.mT @ values
    before = states.cumsum(1).sub_(states)
    output = (queries @ keys.mT).tril_() @ values
    output += queries @ before
    return (output[..., :-1] / output[..., -1:]).reshape(v.shape)


def pad_one(x: Any) -> Any:
    """`x` with a column of ones appended."""
    import torch

    return torch.nn.functional.pad(x, (0, 1), value=1.0)


MAKERS: dict[str, Callable[[Arguments, bool], Made]] = {
    SDPA: sdpa,
    PLAIN: lambda arguments, is_causal: (plain_favor, ""),
    IN_PLACE: lambda arguments, is_causal: (in_place_favor, ""),
    CHUNKED: chunked,
    COMPILED: compiled,
    PERFORMER: performer,
}
