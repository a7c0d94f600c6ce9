"""Heads: the heads of one call on NumPy arrays, and the threads that they are computed on."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from randfeat._numpy.threads import Scratch, Workers, resolve_num_threads
from randfeat.attention.inputs import Inputs
from randfeat.attention.numpy.exponents import Exponents, block_rows
from randfeat.attention.numpy.sums import Readout, Sums, merged
from randfeat.attention.numpy.tables import Tables
from randfeat.attention.problem import Problem
from randfeat.attention.relations import Decay
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap

SHORTEST = 64  # queries or keys below which the generic pass, over all heads at once, is as fast
FEW = 1 << 22  # products of numbers below which threads do not pay


@dataclass(frozen=True, eq=False)
class Heads:
    """The heads of one call, one for each index of what is summed over keys, and the queries that read each."""

    inputs: Inputs
    maps: list[FeatureMap]
    keys: list[Exponents]
    queries: list[Exponents]
    indices: list[tuple[int, ...]]
    """Index of each head in the leading dimensions of the sums."""
    targets: list[list[tuple[int, ...]]]
    """Indices in the leading dimensions of the output that read each head."""
    key: np.ndarray
    value: np.ndarray
    mask: np.ndarray | None
    query: np.ndarray
    output: np.ndarray
    initial: AttentionState | None
    lead: tuple[int, ...]
    log_gates: np.ndarray | None
    """(*lead, S or 1) where what is remembered fades."""

    @classmethod
    def of(cls, problem: Problem) -> "Heads | None":
        """The heads with all leading dimensions broadcast; None for a problem that is not this executor's own."""
        features, factor, state = problem.features, problem.unit_factor, problem.initial_state
        inputs, lengths = problem.inputs, (problem.inputs.num_queries, problem.inputs.num_keys)
        log_gates = problem.relation.log_gates if isinstance(problem.relation, Decay) else None
        arrays = [inputs.query, inputs.key, inputs.value, *features.arrays.values()]
        if (
            not problem.has_fast_relation
            or not all(isinstance(array, np.ndarray) for array in arrays)
            or factor is None
            or max(lengths) < SHORTEST
            or 0 in (*lengths, *inputs.value.shape, *inputs.query.shape)
        ):
            return None
        inputs, lead = inputs.computing(), problem.lead
        if log_gates is not None:
            lead = np.broadcast_shapes(lead, log_gates.shape[:-2])
            log_gates = np.broadcast_to(log_gates[..., 0], (*lead, log_gates.shape[-2]))
        dtype = inputs.value.dtype
        if dtype not in (np.float32, np.float64):
            return None
        if state is not None and np.broadcast_shapes(lead, state.total.shape[:-2]) != lead:
            return None
        tables = Tables.of(problem.drawn, inputs.root * factor, dtype)  # heads are laid out in the order of the batch
        if tables is None:
            return None
        indices, batch = list(np.ndindex(lead)), features.batch_shape
        numbers = np.broadcast_to(np.arange(int(np.prod(batch)), dtype=np.int64).reshape(batch), lead)
        order = [int(numbers[index]) for index in indices]
        full = np.broadcast_shapes(inputs.query.shape[:-2], lead)
        which = np.broadcast_to(np.arange(len(indices)).reshape(lead), full)
        targets: list[list[tuple[int, ...]]] = [[] for _ in indices]
        for index in np.ndindex(full):
            targets[int(which[index])].append(index)
        mask = inputs.key_mask
        return cls(
            inputs,
            [tables.maps[number] for number in order],
            [tables.keys[number] for number in order],
            [tables.queries[number] for number in order],
            indices,
            targets,
            np.broadcast_to(inputs.key, (*lead, *inputs.key.shape[-2:])),
            np.broadcast_to(inputs.value, (*lead, *inputs.value.shape[-2:])),
            None if mask is None else np.broadcast_to(mask, (*lead, lengths[1])),
            np.broadcast_to(inputs.query, (*full, *inputs.query.shape[-2:])),
            np.empty((*full, lengths[0], inputs.value.shape[-1]), dtype),
            state,
            lead,
            log_gates,
        )

    @property
    def dtype(self) -> np.dtype:
        """The computing dtype, float32 or float64."""
        return self.output.dtype

    @property
    def sum_shape(self) -> tuple[int, int]:
        """The shape (m, dv) of the weighted sums of one head."""
        return self.maps[0].num_features, self.output.shape[-1]

    @property
    def block_rows(self) -> int:
        """The number of rows in a block."""
        return block_rows(self.maps[0].num_features, self.dtype)

    @property
    def logit_scale(self) -> float:
        """The factor of q·k in the exponent of the softmax kernel."""
        factor = self.maps[0].estimator.kernel.unit_factor
        assert factor is not None
        return factor**2

    @property
    def num_products(self) -> int:
        """Roughly the number of multiplications in the whole call."""
        rows = self.output.size // self.output.shape[-1] + len(self.indices) * self.inputs.num_keys
        return rows * self.sum_shape[0] * (self.maps[0].dim + self.sum_shape[1])

    def workers(self, num_threads: int | None) -> Workers[Scratch]:
        """Threads for the tasks; one thread if the call is small."""
        return Workers(partial(Scratch, self.dtype), resolve_num_threads(num_threads) if self.num_products > FEW else 1)

    def initial_sums(self, which: int) -> Sums:
        """The sums that a head starts with."""
        return Sums.empty(*self.sum_shape, self.dtype) if self.initial is None else self.sums_in(self.initial, which)

    def folded(self, parts: "list[Sums | None]", which: int) -> Sums:
        """The sums of one head: those it starts with, then its tasks in order."""
        total = None if self.initial is None else self.initial_sums(which)
        for part in parts:
            total = merged(total, part, self.keys[which].limits)
        return self.initial_sums(which) if total is None else total

    def gates(self, which: int) -> np.ndarray | None:
        """Logarithms of the gates of one head, (S,) or (1,)."""
        return None if self.log_gates is None else self.log_gates[self.indices[which]]

    def readout(self, sums: Sums, which: int) -> Readout:
        """The tables through which queries read the sums of one head."""
        return Readout.of(sums, self.queries[which], self.keys[which])

    def sums_in(self, state: AttentionState, which: int) -> Sums:
        """The sums of one head in a state of all heads."""
        keys = self.keys[which]
        num_features, value_dim = self.sum_shape
        shapes = ((1, num_features), (num_features, value_dim), (num_features, 1))
        log_max, weighted, total = (
            np.broadcast_to(array, (*self.lead, *shape))[self.indices[which]]
            for array, shape in zip((state.log_max, state.weighted, state.total), shapes, strict=True)
        )
        return Sums.of_state(log_max, weighted, total, keys)

    def state(self, sums: list[Sums]) -> AttentionState:
        """The attention state of all heads."""
        states = [one.to_state(keys) for one, keys in zip(sums, self.keys, strict=True)]

        def together(arrays: list[np.ndarray]) -> np.ndarray:
            return np.stack(arrays).reshape(*self.lead, *arrays[0].shape)

        return AttentionState(
            together([state.log_max for state in states]),
            together([state.weighted for state in states]),
            together([state.total for state in states]),
        )
