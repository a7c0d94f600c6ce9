"""Executors: the ways to compute linear attention and its gradient, asked in turn whether a problem is theirs."""

from typing import Protocol

from randfeat._array import Array, namespace
from randfeat.attention.cuda.executor import CudaExecutor
from randfeat.attention.generic.sweeps import Gradients, sum_to
from randfeat.attention.numpy.executor import NumPyExecutor
from randfeat.attention.problem import Attended, Problem
from randfeat.attention.state import AttentionState


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


class GenericExecutor:
    """Every problem on every array library, by the pass of its relation."""

    def attend(self, problem: Problem) -> Attended:
        """Partial outputs by the relation's pass, normalized."""
        outputs, state = problem.relation.attend(problem.inputs.prepared(), problem.features, problem.start())
        return [output.normalized() for output in outputs], state

    def pull_back(
        self, problem: Problem, gradient: Array, output: Array | None, final_state: AttentionState | None
    ) -> Gradients:
        """The two sweeps through each sequence. ValueError for relations that have no analytic gradient."""
        inputs, state, xp = problem.inputs, problem.start(), namespace(gradient)
        columns: tuple[list[Array], ...] = ([], [], [])
        for queries, part, relation in problem.relation.sequences(inputs.prepared()):
            found = relation.pull_back(part, problem.features, gradient[..., queries, :], state)
            for column, x in zip(columns, found, strict=True):
                column.append(x)
        dq, dk, dv = (column[0] if len(column) == 1 else xp.concat(column, axis=-2) for column in columns)
        if inputs.key_mask is not None:
            present = inputs.key_mask[..., None]  # it may have broadcast the values to the shape of the keys
            dk, dv = (
                sum_to(xp.where(present, x, xp.zeros_like(x)), tuple(like.shape))
                for x, like in ((dk, inputs.key), (dv, inputs.value))
            )
        return dq * inputs.root, dk * inputs.root, dv


EXECUTORS: tuple[Executor, ...] = (CudaExecutor(), NumPyExecutor(), GenericExecutor())
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
