"""HostExecutor: arrays of other libraries on the CPU, computed by NumPy on views of their numbers."""

from randfeat._array import Array, from_host, host_twins, is_dispatched
from randfeat.attention.generic.sweeps import Gradients
from randfeat.attention.generic_executor import GenericExecutor
from randfeat.attention.numpy.executor import NumPyExecutor
from randfeat.attention.packed_executor import PackedExecutor
from randfeat.attention.problem import Attended, Problem
from randfeat.attention.state import AttentionState

PACKED, FAST, EVERY = PackedExecutor(), NumPyExecutor(), GenericExecutor()


class HostExecutor:
    """PyTorch and JAX arrays that lie on the CPU and that nobody watches (`host_twins`).

    Nothing is copied on the way in, except float16 and bfloat16, which are widened. Outputs own their memory. The
    numbers are those of the same call on NumPy arrays, to the last bit. What is not a problem for the NumPy executor
    stays with PyTorch, which has threads for single operations. It does not stay with JAX, whose single operations cost
    more to call than to compute outside of `jit`.
    """

    def attend(self, problem: Problem) -> Attended | None:
        """Outputs and state by NumPy, handed back in the library of the inputs."""
        twin = problem.on_host()
        if twin is None:
            return None
        like, found = like_inputs(problem), PACKED.attend(twin) or FAST.attend(twin)
        if found is None and is_dispatched(like[0]):
            found = EVERY.attend(twin)
        if found is None:
            return None
        outputs, state = found
        return [from_host(output, *like) for output in outputs], None if state is None else state.like(*like)

    def pull_back(
        self, problem: Problem, gradient: Array, output: Array | None, final_state: AttentionState | None
    ) -> Gradients | None:
        """Gradients by NumPy, handed back in the library of the inputs."""
        sums = () if final_state is None else final_state.arrays
        twins, twin = host_twins(gradient, output, *sums), problem.on_host()
        if twins is None or twin is None:
            return None
        state = None if final_state is None else AttentionState(twins[2], twins[3], twins[4], final_state.origin)
        like, asked = like_inputs(problem), (twin, twins[0], twins[1], state)
        found = PACKED.pull_back(*asked) or FAST.pull_back(*asked)
        if found is None and is_dispatched(like[0]):
            found = EVERY.pull_back(*asked)
        if found is None:
            return None
        dq, dk, dv = (from_host(x, *like) for x in found)
        return dq, dk, dv


def like_inputs(problem: Problem) -> tuple[Array, Array, Array]:
    """The arrays whose library and device the outputs have."""
    return problem.inputs.query, problem.inputs.key, problem.inputs.value
