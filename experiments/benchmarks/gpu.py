"""Forward time of linear attention on a CUDA device: fused kernels, the generic pass on CuPy, and PyTorch."""

import importlib
import importlib.util
import statistics
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

import randfeat as rf
from experiments.benchmarks.peers import chunked_favor, plain_favor
from experiments.benchmarks.timing import NotHere
from experiments.results import Summary
from randfeat.attention import executors

__all__ = ["device_times", "gpu_tables"]

HEADS, DIM, FEATURES = 16, 64, 256
LENGTHS, QUICK_LENGTHS = (1024, 4096, 16384, 65536), (1024,)
DTYPES = ("float32", "float16")
ROUNDS, QUICK_ROUNDS = 20, 3
LONGEST_EXACT = 16384

Call = Callable[[], object]


def gpu_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """A table for each dtype, full and causal, and notes. Raises `NotHere` without CuPy or a CUDA device."""
    cupy = usable_cupy()
    lengths, rounds = (QUICK_LENGTHS, QUICK_ROUNDS) if quick else (LENGTHS, ROUNDS)
    tables, notes = [], [f"{device_name(cupy)}, CuPy {cupy.__version__}; medians of {rounds} runs, by CUDA events"]
    for dtype in DTYPES:
        for is_causal in (False, True):
            columns = {}
            for length in lengths:
                report(f"{dtype}, {'causal' if is_causal else 'full'}, L = {length}")
                contenders, missing = field(cupy, length, dtype, is_causal=is_causal)
                columns[length] = {name: device_times(cupy, call, rounds) for name, call in contenders.items()}
                notes += [note for note in missing if note not in notes]
            tables.append(table(columns, dtype, is_causal=is_causal))
    return tables, notes


def usable_cupy() -> Any:
    """The module CuPy; `NotHere` unless it is installed and has a device."""
    if not importlib.util.find_spec("cupy"):
        raise NotHere("the benchmark gpu needs CuPy and a CUDA device; CuPy is not installed: pip install cupy-cuda12x")
    try:
        cupy = importlib.import_module("cupy")
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # libraries that are missing, drivers that are too old: each has an error of its own
        reason = str(error).strip().partition("\n")[0]
        raise NotHere(f"the benchmark gpu needs CuPy and a CUDA device; CuPy finds none: {reason}") from error
    if not count:
        raise NotHere("the benchmark gpu needs CuPy and a CUDA device; CuPy finds none")
    return cupy


def device_name(cupy: Any) -> str:
    """Model name of the current CUDA device."""
    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def field(cupy: Any, length: int, dtype: str, *, is_causal: bool) -> tuple[dict[str, Call], list[str]]:
    """Calls of all contenders at one length, ours first, and notes on contenders that are missing."""
    host = np.random.default_rng(0).standard_normal((3, 1, HEADS, length, DIM), dtype=np.float32).astype(dtype)
    query, key, value = (cupy.asarray(x) for x in host)
    phi = rf.PositiveFeatures().draw(DIM, FEATURES, rng=0, like=query)

    def fused() -> object:
        return rf.linear_attention(query, key, value, phi, is_causal=is_causal)

    def generic() -> object:
        with mock.patch.object(executors, "EXECUTORS", executors.EXECUTORS[-1:]):
            return fused()

    own: dict[str, Call] = {"randfeat, fused": fused, "randfeat, generic pass": generic}
    peers, notes = torch_peers(host, phi, is_causal=is_causal)
    return {**own, **peers}, notes


def torch_peers(host: np.ndarray, phi: rf.FeatureMap, *, is_causal: bool) -> tuple[dict[str, Call], list[str]]:
    """Calls of PyTorch on the same device with the same inputs, if it is installed there."""
    if not importlib.util.find_spec("torch"):
        return {}, ["torch is not installed: only our own passes are timed"]
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return {}, ["torch has no CUDA: only our own passes are timed"]
    query, key, value = (torch.from_numpy(x).cuda() for x in host)
    rows = torch.from_numpy(phi.arrays["rows"].get()).cuda().to(query.dtype)
    favor = chunked_favor if is_causal else plain_favor

    def plain() -> object:
        with torch.inference_mode():
            return favor(query, key, value, rows)

    def exact() -> object:
        with torch.inference_mode():
            return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=is_causal)

    peers: dict[str, Call] = {"FAVOR+, plain torch": plain}
    notes = ["plain torch FAVOR+ computes in the dtype of its inputs, and shares one maximum among all keys"]
    if host.shape[-2] <= LONGEST_EXACT:
        peers["exact SDPA, torch"] = exact
    return peers, notes


def device_times(cupy: Any, call: Call, rounds: int) -> float:
    """Median milliseconds between two CUDA events around a call, after two calls to compile and warm up."""
    times = []
    for _ in range(rounds + 2):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        cupy.cuda.runtime.deviceSynchronize()
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(float(cupy.cuda.get_elapsed_time(start, end)))
    return statistics.median(times[2:])


def table(columns: dict[int, dict[str, float]], dtype: str, *, is_causal: bool) -> Summary:
    """Time of our fused kernels in milliseconds, and of each contender relative to them."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    ours = names[0]
    rows: list[tuple[str, ...]] = [(f"{ours} [ms]", *(f"{column[ours]:.3f}" for column in columns.values()))]
    for name in names:
        ratios = (f"{column[name] / column[ours]:.2f}" if name in column else "-" for column in columns.values())
        rows.append((name, *ratios))
    kind = "Causal" if is_causal else "Full"
    title = f"{kind} attention, H={HEADS} d={DIM} m={FEATURES}, {dtype}: time over that of the fused kernels"
    return Summary(title, ("contender", *(f"L={length}" for length in columns)), tuple(rows))
