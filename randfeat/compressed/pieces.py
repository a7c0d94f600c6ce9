"""Positions of the members of groups, in pieces of one length: then arrays of groups have shapes known in advance."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Pieces:
    """At most 2 G pieces of n positions that are sorted into G groups, each of at most ⌈n / G⌉ positions of one group.

    positions (2 G, p) : into the sorted order; 0 where `filled` (2 G, p) is False.
    owner (2 G,) : the group of each piece.
    """

    positions: np.ndarray
    filled: np.ndarray
    owner: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray, num_groups: int, total: int) -> "Pieces":
        """The pieces of groups with these numbers of members, `total` in all; a shape for each (num_groups, total)."""
        length = max(-(-total // num_groups), 1)
        starts = np.cumsum(counts) - counts
        numbers = -(-counts // length)
        owner = np.repeat(np.arange(len(counts)), numbers)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(numbers) - numbers, numbers)
        first = starts[owner] + within * length
        last = np.minimum(first + length, (starts + counts)[owner])
        positions = first[:, None] + np.arange(length)
        filled = positions < last[:, None]
        missing = 2 * num_groups - len(owner)
        positions = np.pad(np.where(filled, positions, 0), ((0, missing), (0, 0)))
        filled = np.pad(filled, ((0, missing), (0, 0)))
        return cls(positions, filled, np.pad(owner, (0, missing)))
