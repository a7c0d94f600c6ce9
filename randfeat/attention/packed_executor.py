"""PackedExecutor: packed sequences of NumPy arrays, each a problem of its own."""

import numpy as np

from randfeat._array import Array
from randfeat.attention.generic.sweeps import Gradients
from randfeat.attention.generic_executor import GenericExecutor
from randfeat.attention.numpy.executor import NumPyExecutor
from randfeat.attention.problem import Attended, Problem
from randfeat.attention.relations.packed import Packed
from randfeat.attention.state import AttentionState

FAST, EVERY = NumPyExecutor(), GenericExecutor()


class PackedExecutor:
    """Packed sequences of NumPy arrays, of which the fast pass takes at least one; it leaves the others to the generic.

    Outputs and gradients are those of each sequence alone, to the last bit.
    """

    def attend(self, problem: Problem) -> Attended | None:
        if not is_packed(problem):
            return None
        parts = [part for _, part in problem.sequences()]
        found = [FAST.attend(part) for part in parts]
        if not any(found):
            return None
        attended = [EVERY.attend(part) if own is None else own for part, own in zip(parts, found, strict=True)]
        return [output for outputs, _ in attended for output in outputs], None

    def pull_back(
        self, problem: Problem, gradient: Array, output: Array | None, final_state: AttentionState | None
    ) -> Gradients | None:
        if not is_packed(problem):
            return None
        asked = [
            (part, gradient[..., queries, :], None if output is None else output[..., queries, :], None)
            for queries, part in problem.sequences()
        ]
        found = [FAST.pull_back(*part) for part in asked]
        if not any(found):
            return None
        gradients = [EVERY.pull_back(*part) if own is None else own for part, own in zip(asked, found, strict=True)]
        dq, dk, dv = (np.concatenate(parts, axis=-2) for parts in zip(*gradients, strict=True))
        return dq, dk, dv


def is_packed(problem: Problem) -> bool:
    """Whether this is a problem of packed sequences in NumPy arrays."""
    return isinstance(problem.relation, Packed) and isinstance(problem.inputs.value, np.ndarray)
