"""Linear attention inside of compiled JAX functions: on a CPU by a callback to NumPy, elsewhere by the generic pass."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from randfeat._array import as_bool, compute_dtype, namespace
from randfeat.attention import executors
from randfeat.attention.cost_model.method import is_exact
from randfeat.attention.exact import exact_outputs
from randfeat.attention.gradient import check_analytic
from randfeat.attention.numpy.executor import NumPyExecutor
from randfeat.attention.problem import Problem
from randfeat.attention.relations import Plain, Relation
from randfeat.attention.relations.packed import Packed
from randfeat.maps import FeatureMap

INPUTS = 3  # query, key and value are the first arrays of a problem


def linear_attention(
    query: Any,
    key: Any,
    value: Any,
    features: FeatureMap,
    *,
    host: bool | None = None,
    method: str = "linear",
    **options: Any,
) -> Any:
    """`randfeat.linear_attention`; in compiled functions on a CPU, NumPy computes it and its gradient in a callback.

    host : False for the generic pass everywhere. True for the callback on every CPU. None: the callback for causal and
        packed attention, `window` and `decay`, if this process sees one device only; XLA runs full attention as fast. A
        callback can be neither serialized by `jax.export` nor sharded over devices: JAX would gather its arguments on
        one of them.

    What the NumPy executor refuses, calls with a state, and arrays outside of compiled functions are left to
    `randfeat.linear_attention`; packed sequences are never refused. JAX knows the platform when it lowers a function
    (`jax.lax.platform_dependent`). `jit`, `grad`, `vmap` and `grad` of `grad` work. Forward-mode derivatives (`jvp`,
    `jacfwd`) need `host=False`: JAX refuses them for functions with a gradient of their own.
    """
    problem = Problem.of(query, key, value, features, **options)
    if is_exact(method, problem):
        return problem.inputs.restore(exact_outputs(problem.inputs, problem.relation, problem.kernel, problem.lead))
    if any(map(is_tracer, problem.arrays)) and uses_callback(host, problem) and is_fast_on_host(problem):
        return problem.restore([Attention(problem, on_host=True)()], None)
    return problem.restore(*executors.attend(problem))


def uses_callback(host: bool | None, problem: Problem) -> bool:
    """Whether attention may be a callback: if asked for, or by default if there is one device and it is not full.

    Full attention is two products for XLA. Of anything else it compiles, for seconds, a program that is no faster.
    """
    if host is not None:
        return as_bool(host, "host")
    is_full = isinstance(problem.relation, Plain) and not problem.relation.is_causal
    return jax.device_count() == 1 and not is_full


def is_tracer(x: Any) -> bool:
    """Whether JAX traces `x`: its numbers are not there yet."""
    return isinstance(x, jax.core.Tracer)


def is_fast_on_host(problem: Problem) -> bool:
    """Whether NumPy has a fast pass for this problem, asked with arrays that take no memory, and without a state.

    Of packed sequences each is a problem of its own: XLA would compile them one by one, for half a minute.
    """
    if problem.has_state or isinstance(problem.relation, Packed):
        return not problem.has_state
    empty = [None if x is None else np.broadcast_to(np.zeros((), x.dtype), x.shape) for x in problem.arrays]
    return NumPyExecutor().takes(problem.with_arrays(empty))


class Attention:
    """Output and gradients of a problem, as functions of those of its arrays that are traced.

    Between the passes only these arrays are stored, not the features.
    """

    def __init__(self, problem: Problem, *, on_host: bool) -> None:
        self.problem, self.on_host = problem, on_host
        self.places = [i for i, x in enumerate(problem.arrays) if is_tracer(x)]
        self.traced = [problem.arrays[i] for i in self.places]
        self.attend, self.pull_back = jax.custom_vjp(self.output), jax.custom_vjp(self.gradients)
        self.attend.defvjp(self.forward, self.backward, symbolic_zeros=True)
        self.pull_back.defvjp(lambda *given: (self.pull_back(*given), given), self.backward_again)

    def __call__(self) -> jax.Array:
        """The output, differentiable in every traced array."""
        return self.attend(*self.traced)

    def problem_of(self, traced: Sequence[Any]) -> Problem:
        """The problem with these arrays in place of the traced ones; all of NumPy if these are."""
        arrays, is_host = list(self.problem.arrays), all(isinstance(x, np.ndarray) for x in traced)
        for place, x in zip(self.places, traced, strict=True):
            arrays[place] = x
        return self.problem.with_arrays([np.asarray(x) if is_host and x is not None else x for x in arrays])

    def output_of(self, *traced: Any) -> Any:
        """The output by the executor of these arrays."""
        outputs, _ = executors.attend(self.problem_of(traced))
        return namespace(outputs[0]).concat(outputs, axis=-2) if len(outputs) > 1 else outputs[0]

    def output(self, *traced: Any) -> jax.Array:
        """The output, by NumPy on a CPU."""
        problem, value = self.problem, self.problem.inputs.value
        lead = np.broadcast_shapes(problem.inputs.query.shape[:-2], problem.lead)
        shape = (*lead, problem.inputs.num_queries, value.shape[-1])
        return self.computed(self.output_of, traced, jax.ShapeDtypeStruct(shape, compute_dtype(jnp, value.dtype)))

    def forward(self, *given: Any) -> tuple[jax.Array, Any]:
        """The output, and what the backward pass needs; it is marked if not only inputs are varied."""
        traced = [x.value for x in given]
        others = any(x.perturbed for x, place in zip(given, self.places, strict=True) if place >= INPUTS)
        return self.attend(*traced), (traced, () if others else None)

    def backward(self, stored: Any, gradient: Any) -> tuple[Any, ...]:
        """The gradient in each traced array: the analytic one in inputs, else that of JAX."""
        traced, others = stored
        if others is not None or not self.is_analytic:
            return jax.vjp(self.output_of, *traced)[1](gradient)
        return (*self.pull_back(gradient, *traced), *(None for place in self.places if place >= INPUTS))

    def backward_again(self, given: tuple[Any, ...], seeds: tuple[Any, ...]) -> tuple[Any, ...]:
        """Second derivatives, by JAX."""

        def gradients(gradient: Any, *traced: Any) -> tuple[Any, ...]:
            return jax.vjp(self.output_of, *traced)[1](gradient)[: len(seeds)]

        return jax.vjp(gradients, *given)[1](seeds)

    def gradients(self, gradient: Any, *traced: Any) -> tuple[Any, ...]:
        """The gradients in the traced ones of query, key and value, by NumPy on a CPU."""
        pairs = zip(self.places, traced, strict=True)
        like = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for place, x in pairs if place < INPUTS)
        return self.computed(self.gradients_of, (gradient, *traced), like)

    def gradients_of(self, gradient: Any, *traced: Any) -> tuple[Any, ...]:
        """The gradients by the executor of these arrays, in the shapes and dtypes of the inputs."""
        problem = self.problem_of(traced)
        found = dict(enumerate(executors.pull_back(problem, gradient)))
        pairs = ((found[place], x) for place, x in zip(self.places, traced, strict=True) if place < INPUTS)
        return tuple(x.reshape(like.shape).astype(like.dtype) for x, like in pairs)

    @property
    def is_analytic(self) -> bool:
        """Whether relation and features have an analytic gradient."""
        try:
            check_analytic(self.problem.features)
        except ValueError:
            return False
        relation = self.problem.relation
        kind = type(relation.each if isinstance(relation, Packed) else relation)
        return kind.pull_back is not Relation.pull_back

    def computed(self, function: Callable[..., Any], arrays: Sequence[Any], like: Any) -> Any:
        """`function(*arrays)`, of the shapes and dtypes `like`: by a callback where a compiled program runs on a CPU.

        If the CPU is the platform of this process, the function itself is not even traced.
        """
        if not self.on_host or not any(map(is_tracer, arrays)):
            return function(*arrays)

        def callback(*arrays: Any) -> Any:
            def run(*given: Any) -> Any:
                return function(*map(np.asarray, given))

            return jax.pure_callback(run, like, *arrays, vmap_method="sequential")

        if jax.default_backend() == "cpu":
            return callback(*arrays)
        return jax.lax.platform_dependent(*arrays, cpu=callback, default=function)
