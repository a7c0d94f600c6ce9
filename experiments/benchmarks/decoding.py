"""One step of decoding on the CPU: `AttentionDecoder`, against `linear_attention` with a state, and exact attention."""

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

import randfeat as rf
from experiments.benchmarks.goals import Goal, goal_table
from experiments.benchmarks.timing import Call, Ratio, Times, interleaved, medians, ratio
from experiments.benchmarks.workload import DIM, FEATURES, HEADS
from experiments.results import Summary
from randfeat._numpy.threads import resolve_num_threads
from randfeat.attention import executors

__all__ = ["Step", "decode_tables"]

NUMPY, TORCH = "AttentionDecoder, NumPy", "AttentionDecoder, PyTorch"
STATE, TORCH_STATE = "linear_attention with a state, NumPy", "linear_attention with a state, PyTorch"
GENERIC = "linear_attention with a state, generic pass"
BATCHES = {1: (256, 1024, 4096, 16384), 32: (256, 1024)}
"""Batch sizes, and the lengths of the caches that exact attention reads."""
QUICK_BATCHES = {1: (256, 1024)}
ROUNDS, QUICK_ROUNDS = 9, 3
STEPS = {NUMPY: 32, TORCH: 32}
"""Steps in one timed call of the decoders, which write their sums once in 16 steps; two of the others."""
OTHER_STEPS = 2

BOUNDS = {(NUMPY, 1): 0.15, (TORCH, 1): 0.2, (NUMPY, 32): 3.0, (TORCH, 32): 3.0}
"""Most milliseconds for a step."""


def decode_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """A table for each batch size, a table of goals, and notes."""
    tables: list[Summary] = []
    goals: list[Goal] = []
    for batch, caches in (QUICK_BATCHES if quick else BATCHES).items():
        report(f"decoding, batch of {batch}")
        calls = Step.of(batch).calls(caches)
        timed = {name: partial(repeated, call, steps_of(name)) for name, call in calls.items()}
        times = {
            name: [seconds / steps_of(name) for seconds in each]
            for name, each in interleaved(timed, QUICK_ROUNDS if quick else ROUNDS).items()
        }
        tables.append(step_table(times, batch))
        goals += step_goals(times, batch)
    notes = [
        "A step of the decoder is the mean of 32. Exact attention reads a cache that is there already: keys are not "
        "appended. All have the same number of threads."
    ]
    if not importlib.util.find_spec("torch"):
        notes.append("PyTorch and exact attention are left out: torch is not installed")
    return [*tables, goal_table("Decoding: milliseconds for a step", goals)], notes


def steps_of(name: str) -> int:
    """The number of steps that are timed together."""
    return STEPS.get(name, OTHER_STEPS)


def repeated(call: Call, number: int) -> None:
    """The steps of one timed call."""
    for _ in range(number):
        call()


class Step:
    """One token of each sequence (batch, heads, 1, d), a map for each head, and the state after 64 tokens."""

    def __init__(self, arrays: tuple[Any, ...], prompt: tuple[Any, ...], features: rf.FeatureMap) -> None:
        self.arrays, self.features = arrays, features
        query, key, value = prompt
        _, self.state = rf.linear_attention(query, key, value, features, return_state=True)
        self.decoder = rf.AttentionDecoder(features, self.state)

    @classmethod
    def of(cls, batch: int) -> "Step":
        """Standard normal inputs in NumPy."""
        rng = np.random.default_rng(0)
        prompt = tuple(rng.standard_normal((3, batch, HEADS, 64, DIM), dtype=np.float32))
        arrays = tuple(rng.standard_normal((3, batch, HEADS, 1, DIM), dtype=np.float32))
        phi = rf.PositiveFeatures().draw(DIM, FEATURES, rng=0, like=prompt[0], batch_shape=(HEADS,))
        return cls(arrays, prompt, phi)

    def in_torch(self) -> "Step":
        """The same numbers as tensors."""
        import torch

        arrays = tuple(torch.from_numpy(x) for x in self.arrays)
        return Step(arrays, arrays, self.features.to(arrays[0]))

    def decode(self) -> Any:
        """The output of the token, which the decoder has then seen once more."""
        return self.decoder.step(*self.arrays)

    def attend(self) -> Any:
        """The output of the token, and the state after it."""
        query, key, value = self.arrays
        return rf.linear_attention(
            query, key, value, self.features, is_causal=True, initial_state=self.state, return_state=True
        )

    def attend_generically(self) -> Any:
        """The result of `attend` from the pass that serves every array library."""
        with mock.patch.object(executors, "EXECUTORS", executors.EXECUTORS[-1:]):
            return self.attend()

    def calls(self, caches: tuple[int, ...]) -> dict[str, Call]:
        """All contenders, ours first; caches : the lengths of those of exact attention."""
        calls: dict[str, Call] = {NUMPY: self.decode, STATE: self.attend, GENERIC: self.attend_generically}
        if not importlib.util.find_spec("torch"):
            return calls
        import torch

        torch.set_num_threads(resolve_num_threads(None))
        there = self.in_torch()
        calls |= {TORCH: there.decode, TORCH_STATE: there.attend}
        query = there.arrays[0]
        for length in caches:
            key, value = torch.randn(2, len(query), HEADS, length, DIM)
            calls[exact(length)] = partial(torch.nn.functional.scaled_dot_product_attention, query, key, value)
        return {name: without_gradients(call) for name, call in calls.items()}


def exact(length: int) -> str:
    return f"exact SDPA, {length} keys"


def without_gradients(call: Call) -> Call:
    """The call in a mode in which PyTorch records no gradient."""
    import torch

    def quiet() -> object:
        with torch.no_grad():
            return call()

    return quiet


def step_table(times: Times, batch: int) -> Summary:
    """Milliseconds for a step of each contender, and its time over that of the decoder in NumPy."""
    found = medians(times)
    rows = [(name, f"{1e3 * seconds:.3f}", f"{ratio(times, name, NUMPY).value:.2f}") for name, seconds in found.items()]
    title = f"One step of decoding, B={batch} H={HEADS} d={DIM} m={FEATURES}, float32"
    return Summary(title, ("contender", "ms", "over the decoder"), tuple(rows), sections=(2,))


def step_goals(times: Mapping[str, list[float]], batch: int) -> list[Goal]:
    """Goals for the milliseconds of the decoders, with quartiles over rounds."""
    goals = []
    for name in (NUMPY, TORCH):
        measured = None
        if name in times:
            each = 1e3 * np.asarray(times[name])
            measured = Ratio(*(float(np.quantile(each, share)) for share in (0.5, 0.25, 0.75)))
        goals.append(Goal(f"{name}, B={batch}", measured, BOUNDS[name, batch], at_least=False, unit="ms"))
    return goals
