"""Problem: one call of attention, checked and laid out once; all that executors take."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from randfeat._array import (
    Array,
    as_bool,
    as_floating,
    broadcast_shapes,
    cast,
    compute_dtype,
    dtype_name,
    host_threads,
    host_twins,
    namespace,
)
from randfeat._numpy.threads import resolve_num_threads
from randfeat.attention.inputs import Inputs, swap_heads
from randfeat.attention.relations import Plain, Relation, relation_of
from randfeat.attention.state import AttentionState
from randfeat.kernels import Kernel
from randfeat.maps import FeatureMap, check_feature_map

Attended = tuple[list[Array], AttentionState | None]
"""Outputs of consecutive queries, and the state after all keys."""


@dataclass(frozen=True, eq=False)
class Problem:
    """The inputs of a call of linear attention, which keys each query sees, and the features.

    features : laid out like the heads; `drawn` is the same map as it was given.
    lead : leading dimensions of what is summed over the keys.
    initial_state : of earlier keys, with the leading dimensions of the sums over keys; None where there is none.
    """

    inputs: Inputs
    relation: Relation
    features: FeatureMap
    drawn: FeatureMap
    lead: tuple[int, ...]
    initial_state: AttentionState | None = None
    return_state: bool = False
    num_threads: int | None = None

    @classmethod
    def of(
        cls,
        query: Any,
        key: Any,
        value: Any,
        features: Any,
        *,
        initial_state: Any = None,
        return_state: bool = False,
        num_threads: int | None = None,
        state_name: str = "initial_state",
        **options: Any,
    ) -> "Problem":
        """Check everything at the border; options as of `checked`. state_name : what errors call the state."""
        if num_threads is not None:
            num_threads = resolve_num_threads(num_threads)
        check_feature_map(features)
        return_state = as_bool(return_state, "return_state")
        has_state = initial_state is not None or return_state
        inputs, relation = checked(
            query, key, value, features.estimator.kernel,
            num_features=features.num_features, has_state=has_state, **options,
        )  # fmt: skip
        if initial_state is not None and is_step(inputs, relation):
            relation = Plain()
        if (dim := inputs.query.shape[-1]) != features.dim:
            raise ValueError(f"query and key have dimension {dim}, but the features were drawn for {features.dim}.")
        if isinstance(inputs.value, np.ndarray):  # other libraries have threads of their own
            num_threads = resolve_num_threads(num_threads)
        aligned = inputs.align(features)
        lead = inputs.leading_shape(aligned)
        problem = cls(inputs, relation, aligned, features, lead, None, return_state, num_threads)
        return (
            problem
            if initial_state is None
            else replace(problem, initial_state=problem.state_of(initial_state, state_name))
        )

    @property
    def kernel(self) -> Kernel:
        """The kernel that the features estimate."""
        return self.features.estimator.kernel

    @property
    def unit_factor(self) -> float | None:
        """The number that brings inputs times √scale to kernel units, if it is one number."""
        return self.kernel.unit_factor

    @property
    def has_state(self) -> bool:
        """Whether the call takes or returns a state."""
        return self.initial_state is not None or self.return_state

    @property
    def is_aligned(self) -> bool:
        """Whether queries see all keys, or causally as many keys those up to their own position, and nothing else."""
        same_length = self.inputs.num_queries == self.inputs.num_keys
        is_plain = self.relation.is_aligned and self.inputs.key_bias is None
        return is_plain and (same_length or not self.relation.is_causal)

    @property
    def has_fast_relation(self) -> bool:
        """Whether the relation is one that fast executors take."""
        return self.inputs.key_bias is None and self.relation.has_fast_form(self.kernel)

    @property
    def arrays(self) -> list[Array | None]:
        """All arrays: those of the inputs, of the features, of the relation, and of the initial state."""
        state = () if self.initial_state is None else self.initial_state.arrays
        return [*self.inputs.arrays, *self.drawn.arrays.values(), *self.relation.arrays, *state]

    def with_arrays(self, arrays: Sequence[Any]) -> "Problem":
        """The same problem of other arrays of the same shapes, in the order of `arrays`."""
        rest = iter(arrays)
        inputs = self.inputs.with_arrays(*islice(rest, len(self.inputs.arrays)))
        drawn = replace(self.drawn, arrays={name: next(rest) for name in self.drawn.arrays})
        relation, state = self.relation.with_arrays(rest), self.initial_state
        if state is not None:
            state = AttentionState(next(rest), next(rest), next(rest), state.origin)
        return replace(
            self, inputs=inputs, relation=relation, drawn=drawn, features=inputs.align(drawn), initial_state=state
        )

    def sequences(self) -> "Iterator[tuple[slice, Problem]]":
        """The sequences that do not see each other: positions of the queries, and the problem of each alone."""
        for queries, inputs, relation in self.relation.sequences(self.inputs):
            yield queries, replace(self, inputs=inputs, relation=relation)

    def on_host(self) -> "Problem | None":
        """The problem of another library on host twins of all its arrays, without a copy; None without twins.

        Threads are as many as the library of the arrays is set to, unless the call or the environment says otherwise.
        """
        if isinstance(self.inputs.value, np.ndarray):
            return None
        namespace(self.inputs.value, *self.drawn.arrays.values())  # one library for all, or TypeError
        twins = host_twins(*self.arrays)
        if twins is None:
            return None
        twin, threads = self.with_arrays(twins), host_threads(self.inputs.value)
        twin.drawn.keep_with(self.drawn)
        return replace(twin, num_threads=resolve_num_threads(self.num_threads, threads))

    def empty_state(self) -> AttentionState:
        """The state before the first key."""
        num_features, value = self.features.num_features, self.inputs.value
        return AttentionState.empty(num_features, value.shape[-1], like=value, batch_shape=self.lead)

    def start(self) -> AttentionState:
        """The state that the sums over keys start from."""
        return self.empty_state() if self.initial_state is None else self.initial_state

    def state_of(self, given: Any, name: str = "initial_state") -> AttentionState:
        """`given`, as a state with all leading dimensions; an error if its shape or its feature map does not fit."""
        if not isinstance(given, AttentionState):
            raise TypeError(f"{name} must be an AttentionState, got {type(given).__name__}.")
        value, lead = self.inputs.value, self.lead
        got, expected = tuple(given.weighted.shape[-2:]), (self.features.num_features, value.shape[-1])
        if got != expected:
            raise ValueError(f"{name} has (num_features, value dim) {got}, expected {expected}.")
        got_lead = tuple(given.total.shape[:-2])
        try:
            broadcast_shapes(lead, got_lead)
        except ValueError:
            raise ValueError(f"{name} has leading shape {got_lead}, expected {lead}, that of the keys.") from None
        given.check_origin(self.drawn)
        arrays = (given.log_max, given.weighted, given.total)
        dtype = compute_dtype(namespace(value, *arrays), value.dtype)
        if all(tuple(x.shape[:-2]) == lead and x.dtype == dtype for x in arrays):
            return given
        return self.empty_state().merge(given)

    def restore(self, outputs: list[Array], state: AttentionState | None) -> Any:
        """The return value of the call: the output in the caller's layout and dtype, with the state if asked for."""
        output = self.inputs.restore(outputs)
        if not self.return_state:
            return output
        assert state is not None
        if not self.inputs.num_keys:  # then it may be the state that was given
            state = state.copied()
        return output, replace(state, origin=self.drawn)

    def like_output(self, name: str, given: Any) -> Array:
        """An array of the output's shape and dtype, in the computing dtype, heads grouped as the inputs are."""
        inputs, array = self.inputs, as_floating(given, name)
        if inputs.layout == "blhd":
            array = swap_heads(array, name)
        xp = namespace(array, inputs.value)
        lead = broadcast_shapes(inputs.query.shape[:-2], self.lead)
        heads = lead if inputs.group is None else (*lead[:-2], lead[-2] * lead[-1])
        trailing = (inputs.num_queries, inputs.value.shape[-1])
        expected, got = (*heads, *trailing), tuple(array.shape)
        if got != expected:
            raise ValueError(f"{name} must have the shape of the output, {expected}, got {got}.")
        if array.dtype != inputs.dtype:
            raise TypeError(
                f"{name} must have the dtype of the output, {dtype_name(inputs.dtype)}, got {dtype_name(array.dtype)}."
            )
        return xp.reshape(cast(array, compute_dtype(xp, inputs.dtype)), (*lead, *trailing))


def is_step(inputs: Inputs, relation: Relation) -> bool:
    """Whether a single query sees a single key and all earlier ones: then causal attention is full attention."""
    one_pair = inputs.num_queries == 1 and inputs.num_keys == 1
    return one_pair and isinstance(relation, Plain) and relation.is_causal and relation.offset == 0


def checked(
    query: Any,
    key: Any,
    value: Any,
    kernel: Kernel,
    *,
    scale: float | None = None,
    key_mask: Any = None,
    enable_gqa: bool = False,
    key_lengths: Any = None,
    key_bias: Any = None,
    layout: str = "bhld",
    num_features: int | None = None,
    has_state: bool = False,
    **relation: Any,
) -> tuple[Inputs, Relation]:
    """The inputs, and which keys each query sees, from the arguments of an attention function."""
    inputs = Inputs.of(
        query, key, value, kernel=kernel, scale=scale, key_mask=key_mask, enable_gqa=enable_gqa,
        key_lengths=key_lengths, key_bias=key_bias, layout=layout,
    )  # fmt: skip
    found = relation_of(
        inputs, num_features=num_features, has_state=has_state, has_key_lengths=key_lengths is not None, **relation
    )
    return inputs, found
