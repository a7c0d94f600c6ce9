"""Executors: the ways to compute linear attention and its gradient, asked in turn whether a problem is theirs."""

from typing import Protocol

from randfeat._array import Array
from randfeat.attention.cuda.executor import CudaExecutor
from randfeat.attention.generic.sweeps import Gradients
from randfeat.attention.generic_executor import GenericExecutor
from randfeat.attention.host.executor import HostExecutor
from randfeat.attention.numpy.executor import NumPyExecutor
from randfeat.attention.packed_executor import PackedExecutor
from randfeat.attention.problem import Attended, Problem
from randfeat.attention.state import AttentionState
from randfeat.attention.torch.executor import TorchExecutor


class Executor(Protocol):
    """One way to compute some problems; a method returns None for a problem that is not its own."""

    def attend(self, problem: Problem) -> Attended | None:
        """Outputs of consecutive queries, and the state after all keys, which may be None if it is not asked for."""

    def pull_back(
        self, problem: Problem, gradient: Array, output: Array | None, final_state: AttentionState | None
    ) -> Gradients | None:
        """The gradients in query, key and value from that in the output.

        output, final_state : what `attend` gave, where that is known.
        """


EXECUTORS: tuple[Executor, ...] = (
    CudaExecutor(),
    PackedExecutor(),
    NumPyExecutor(),
    HostExecutor(),
    TorchExecutor(),
    GenericExecutor(),
)
"""The fastest first; the last one attends to every problem."""


def attend(problem: Problem) -> Attended:
    """Linear attention by the first executor whose problem it is."""
    return next(found for found in (executor.attend(problem) for executor in EXECUTORS) if found is not None)


def pull_back(
    problem: Problem, gradient: Array, output: Array | None = None, final_state: AttentionState | None = None
) -> Gradients:
    """The gradients in query, key and value, by the first executor whose problem it is."""
    tried = (executor.pull_back(problem, gradient, output, final_state) for executor in EXECUTORS)
    return next(found for found in tried if found is not None)
