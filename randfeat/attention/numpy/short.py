"""Calls with a few tokens after many: steps of decoding, from running sums."""

from dataclasses import dataclass

import numpy as np

from randfeat._array import broadcast_shapes, compute_dtype, dtype_name, namespace
from randfeat.attention.numpy.arrangement import Arrangement
from randfeat.attention.numpy.running_sums import KEPT, RunningSums
from randfeat.attention.numpy.sides import Sides
from randfeat.attention.problem import Attended, Problem
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap

LONGEST = 8
"""Tokens of a call up to which it is faster to go through the sums once than to form blocks of features."""


@dataclass(frozen=True, eq=False)
class ShortCall:
    """The layout of a causal call with a few tokens, made once for all calls with the same shapes.

    arrangement, of_sums : of the leading dimensions of the call, and of the sums alone. dtype : the computing dtype.
    shapes : those of query, key and value, with their heads grouped. mask_shape : likewise.
    """

    arrangement: Arrangement
    of_sums: Arrangement
    sides: Sides
    dtype: np.dtype
    shapes: tuple[tuple[int, ...], ...]
    mask_shape: tuple[int, ...] | None

    @classmethod
    def of(cls, problem: Problem, features: FeatureMap, sides: Sides | None = None) -> "ShortCall | None":
        """The call that a problem poses; None for one with more tokens, or features that are not exponentials.

        features : the map of the problem, laid out like its heads, in NumPy arrays. sides : those of the map, if known.
        """
        inputs, factor = problem.inputs, problem.unit_factor
        shapes = tuple(tuple(x.shape) for x in (inputs.query, inputs.key, inputs.value))
        num = inputs.num_queries
        is_short = inputs.num_keys == num <= LONGEST and problem.is_aligned and (problem.relation.is_causal or num == 1)
        if not is_short or factor is None or any(0 in shape for shape in shapes):
            return None
        dtype = np.dtype(dtype_name(compute_dtype(namespace(inputs.value), inputs.dtype)))
        if dtype not in (np.float32, np.float64):
            return None
        sides = sides or Sides.of(features, inputs.root * factor, dtype)
        if sides is None:
            return None
        mask_shape = None if inputs.key_mask is None else tuple(inputs.key_mask.shape)
        lead, maps = problem.lead, features.batch_shape
        of_call = Arrangement.of(lead, broadcast_shapes(shapes[0][:-2], lead), maps)
        return cls(of_call, Arrangement.of(lead, lead, maps), sides, dtype, shapes, mask_shape)

    def sums_of(self, state: AttentionState, num_kept: int = KEPT) -> RunningSums | None:
        """The sums in a state of NumPy arrays, as views; None if its leading dimensions are not those of the keys.

        num_kept : of recent keys that are kept one by one, at least as many as a call has.
        """
        lead = self.of_sums.lead
        if state.total.dtype != self.dtype or broadcast_shapes(state.total.shape[:-2], lead) != lead:
            return None
        return RunningSums.of(state, self.sides, self.of_sums, num_kept)

    def fits(self, sums: RunningSums) -> bool:
        """Whether keys like those of this call can be added to the sums as they are."""
        value_dim, lead = self.shapes[-1][-1], self.of_sums.lead
        return sums.arrangement.lead == lead and sums.value_dim == value_dim and sums.dtype == self.dtype

    def append(self, sums: RunningSums, key: np.ndarray, value: np.ndarray, mask: np.ndarray | None) -> None:
        """Add the keys to the sums."""
        sums.append(*self.keys(key, value, mask))

    def keys(
        self, key: np.ndarray, value: np.ndarray, mask: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Keys, values and mask as the running sums take them."""
        _, key_shape, value_shape = self.shapes
        key, value = key.reshape(key_shape), value.reshape(value_shape)
        key, value = (self.arrangement.keys(x.astype(self.dtype, copy=False)) for x in (key, value))
        if mask is None or self.mask_shape is None or mask.all():
            return key, value, None
        return key, value, self.arrangement.keys(mask.reshape(self.mask_shape)[..., None])[..., 0]

    def attend(
        self, sums: RunningSums, query: np.ndarray, key: np.ndarray, value: np.ndarray, mask: np.ndarray | None
    ) -> np.ndarray:
        """Add the keys to the sums; returns the outputs, with heads grouped."""
        query = self.arrangement.queries(query.reshape(self.shapes[0]).astype(self.dtype, copy=False))
        return self.arrangement.outputs(sums.attend(query, *self.keys(key, value, mask)))


def attend_to_few(problem: Problem) -> Attended | None:
    """The outputs of a few tokens after those of a state, and the state with them; None for other problems.

    Memory beside the output: the new state.
    """
    inputs, state = problem.inputs, problem.initial_state
    arrays = [inputs.query, inputs.key, inputs.value, *problem.features.arrays.values()]
    if state is None or not all(isinstance(x, np.ndarray) for x in arrays):
        return None
    call = ShortCall.of(problem, problem.features)
    sums = None if call is None else call.sums_of(state, LONGEST)
    if call is None or sums is None:
        return None
    outputs = [call.attend(sums, inputs.query, inputs.key, inputs.value, inputs.key_mask)]
    return outputs, sums.state() if problem.return_state else None
