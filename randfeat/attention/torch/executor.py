"""TorchExecutor: where PyTorch records gradients or compiles, linear attention is one operation of its graph."""

from randfeat._array import Array, is_compiling, takes_operators
from randfeat.attention.generic.sweeps import Gradients
from randfeat.attention.problem import Attended, Problem
from randfeat.attention.relations import Plain
from randfeat.attention.state import AttentionState
from randfeat.attention.torch.form import Form

SHORTEST = 64  # queries or keys below which recording the generic pass is as fast


class TorchExecutor:
    """Full and causal attention without states of tensors that are watched, for features with an `exponential_form`.

    The operation keeps its inputs alone for the backward pass, which computes the analytic gradient. Both passes run on
    views of the numbers by the executor of NumPy arrays, where they are on a CPU. Rows that require a gradient, other
    relations, and transformations of functions are left to the generic executor, which PyTorch differentiates itself.
    """

    def attend(self, problem: Problem) -> Attended | None:
        inputs, relation = problem.inputs, problem.relation
        given = (inputs.query, inputs.key, inputs.value, inputs.key_bias, inputs.key_mask)
        if (
            not isinstance(relation, Plain)
            or problem.has_state
            or not takes_operators(given, tuple(problem.features.arrays.values()))
            or not (is_compiling(inputs.query) or max(inputs.num_queries, inputs.num_keys) >= SHORTEST)
        ):
            return None
        form, factor = Form.of(problem), problem.unit_factor
        if form is None or factor is None:
            return None
        from randfeat.attention.torch.operators import operator

        factor *= inputs.root
        return [operator(*given, *form, factor, relation.is_causal, relation.offset, problem.num_threads)], None

    def pull_back(
        self, problem: Problem, gradient: Array, output: Array | None, final_state: AttentionState | None
    ) -> Gradients | None:
        return None
