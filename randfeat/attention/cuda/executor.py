"""CudaExecutor: linear attention of CuPy arrays by fused kernels."""

from randfeat._array import Array, is_on_cupy, on_device_of
from randfeat.attention.cuda.kernels import launch_on_device
from randfeat.attention.cuda.passes import Work
from randfeat.attention.generic.sweeps import Gradients
from randfeat.attention.problem import Attended, Problem
from randfeat.attention.state import AttentionState


class CudaExecutor:
    """Plain relations between CuPy arrays, for features with an `exponential_form`.

    Features are never in device memory, half precision is not cast beforehand, and no number is read back. Results are
    those of the generic executor up to rounding.
    """

    def attend(self, problem: Problem) -> Attended | None:
        """Launch the kernels on the current stream."""
        if not is_on_cupy(problem.inputs.value):
            return None
        with on_device_of(problem.inputs.value):
            work = Work.of(problem)
            if work is None:
                return None
            is_causal, return_state = problem.relation.is_causal, problem.return_state
            return work.run(launch_on_device, is_causal=is_causal, return_state=return_state)

    def pull_back(
        self, problem: Problem, gradient: Array, output: Array | None, final_state: AttentionState | None
    ) -> Gradients | None:
        """None: gradients are left to the generic executor."""
        return None
