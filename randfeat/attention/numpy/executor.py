"""NumPyExecutor: linear attention of NumPy arrays, block by block in cache, heads on several threads."""

import numpy as np

from randfeat.attention.generic.sweeps import Gradients
from randfeat.attention.numpy.causal import attend_causally
from randfeat.attention.numpy.full import attend_all
from randfeat.attention.numpy.gradient import pull_back_all, pull_back_causally
from randfeat.attention.numpy.heads import Heads
from randfeat.attention.numpy.short import attend_to_few
from randfeat.attention.numpy.window import attend_around
from randfeat.attention.problem import Attended, Problem
from randfeat.attention.relations import Decay, Window
from randfeat.attention.state import AttentionState


class NumPyExecutor:
    """Full and causal attention, decay and windows of NumPy arrays, for features with an `exponential_form`.

    Not of short sequences, nor with gates for each feature, nor windows of other kernels than `SoftmaxKernel`, nor the
    gradient of decay.

    Per block and feature there are one product, one exponential and one more product: per-row factors of queries
    cancel, those of keys are factors of their values, the weights of features are factors of the sums. No shift is
    taken while none is needed (`Limits`). Results are those of the generic executor up to rounding, and the same for
    every number of threads to the last bit.
    """

    def attend(self, problem: Problem) -> Attended | None:
        """Memory beside the output: the sums, and scratch of one or two blocks of features for each thread."""
        few = attend_to_few(problem)
        if few is not None:
            return few
        heads = Heads.of(problem)
        if heads is None:
            return None
        relation = problem.relation
        with heads.workers(problem.num_threads) as workers:
            if isinstance(relation, Window):
                sums = attend_around(heads, relation, workers, final=problem.return_state)
            elif relation.is_causal:
                sums = attend_causally(heads, relation.offset, workers, final=problem.return_state)
            else:
                sums = attend_all(heads, workers, peak=problem.return_state)
        return [heads.output], heads.state(sums) if problem.return_state else None

    def takes(self, problem: Problem) -> bool:
        """Whether this is a problem for this executor; the numbers in its arrays do not matter."""
        return Heads.of(problem) is not None

    def pull_back(
        self, problem: Problem, gradient: np.ndarray, output: np.ndarray | None, final_state: AttentionState | None
    ) -> Gradients | None:
        """Memory beside the gradients: the sums, scratch of a few blocks of features for each thread, and, where
        attention is causal, two numbers for each query.
        """
        relation = problem.relation
        heads = None if isinstance(relation, Decay) else Heads.of(problem)
        if heads is None:
            return None
        if relation.is_causal or isinstance(relation, Window):
            return pull_back_causally(heads, relation, gradient, output, problem.num_threads)
        return pull_back_all(heads, gradient, output, final_state, problem.num_threads)
