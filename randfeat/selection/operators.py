"""Attention without features on a sample of the queries: clusters and caches of several sizes, and their errors."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat.attention.cost_model.sizes import CLUSTERED, SWEEPS
from randfeat.compressed import clustered_attention, compressed_attention
from randfeat.selection.pilot import Pilot, Sequences

CLUSTERS = (5, 11, 21)
KEYS = (16, 32, 64)


@dataclass(frozen=True, eq=False)
class OperatorCandidate:
    """One form of attention without features, and its error.

    name : the call, as it is written. cost : the number of features with which linear attention takes as many
    multiplications, fit included.
    errors (heads,) : relative errors of the attention output on the sampled queries.
    """

    name: str
    cost: float
    errors: np.ndarray

    @property
    def error(self) -> float:
        """The median of the errors over heads."""
        return float(np.median(self.errors))


@dataclass(frozen=True, eq=False)
class Operators:
    """Everything that the operators need to be tried on the sampled queries `rows`, on request."""

    sequences: Sequences
    pilot: Pilot
    rows: np.ndarray
    scale: float
    is_causal: bool

    def candidates(self) -> tuple[OperatorCandidate, ...]:
        """Clustered attention (not causally), compressed attention, and exact attention, least error first.

        Each runs once, on all queries and keys. So time is linear in their number, but for the exact outputs of the
        sample.
        """
        given = self.sequences
        length, num_keys = given.query.shape[-2], given.key.shape[-2]
        exact = length * num_keys / (length + num_keys) * (0.5 if self.is_causal else 1)
        options: dict[str, Any] = {"scale": self.scale, "key_mask": given.key_mask, "query_mask": given.query_mask}
        arrays = given.query, given.key, given.value
        found = []
        for number in () if self.is_causal else CLUSTERS:
            output = clustered_attention(*arrays, num_clusters=number, **options)
            cost = (9 * number * length + 5 * number * num_keys) / (2 * (length + num_keys))
            found.append((f"clustered_attention, num_clusters={number}", min(cost, exact), output))
        for number in KEYS:
            if self.is_causal:
                output = compressed_attention(*arrays, is_causal=True, num_keys=number, window=number, **options)
                name, cost = f"compressed_attention, num_keys={number}, window={number}", 17 * number / 4
            else:
                output = compressed_attention(*arrays, num_keys=number, **options)
                seen = 2 * SWEEPS * min(num_keys, CLUSTERED * number) * number
                work = num_keys * (max(2 * number, 32) + 2 * number) + seen + 2 * length * number
                name, cost = f"compressed_attention, num_keys={number}", work / (2 * (length + num_keys))
            found.append((name, cost, output))
        candidates = [
            OperatorCandidate(name, cost, self.pilot.relative(output[..., self.rows, :]))
            for name, cost, output in found
        ]
        candidates.append(OperatorCandidate("softmax_attention", exact, np.zeros_like(candidates[0].errors)))
        return tuple(sorted(candidates, key=lambda candidate: (candidate.error, candidate.cost)))
