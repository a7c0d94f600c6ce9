"""GenericExecutor: every problem on every array library, the naive twin of all other executors."""

from randfeat._array import Array, namespace
from randfeat.attention.generic.sweeps import Gradients, sum_to
from randfeat.attention.problem import Attended, Problem
from randfeat.attention.state import AttentionState


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
