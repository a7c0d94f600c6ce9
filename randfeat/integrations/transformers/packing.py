"""Packed sequences of a model, (batch, heads, L, d) with several of them in each row, as one row."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from randfeat.integrations.transformers.masks import cuts_of


@dataclass(frozen=True)
class Packing:
    """Offsets of the sequences among the queries and keys of all rows of a batch, one row behind another."""

    batch: int
    query_cuts: list[int]
    key_cuts: list[int]

    @classmethod
    def of(
        cls,
        batch: int,
        cuts: list[int] | None,
        cu_seq_lens_q: torch.Tensor | None,
        cu_seq_lens_k: torch.Tensor | None,
        seq_idx: torch.Tensor | None,
    ) -> "Packing | None":
        """Packing by the mask, the offsets of flash attention, or numbers of sequences (batch, L); None for none."""
        if cu_seq_lens_q is None and cu_seq_lens_k is None:
            if cuts is None and seq_idx is not None:
                cuts = cuts_of(seq_idx.expand(batch, -1))
            return None if cuts is None else cls(batch, cuts, cuts)
        if cu_seq_lens_q is None or cu_seq_lens_k is None:
            raise ValueError("cu_seq_lens_q and cu_seq_lens_k must be given together.")
        return cls(batch, cu_seq_lens_q.tolist(), cu_seq_lens_k.tolist())

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of `linear_attention`."""
        return {"cu_seqlens": (self.query_cuts, self.key_cuts)}

    @property
    def offset(self) -> int:
        """The `causal_offset` at which the last query of each sequence has the position of its last key."""
        lengths = [[b - a for a, b in pairwise(cuts)] for cuts in (self.query_cuts, self.key_cuts)]
        offsets = {keys - queries for queries, keys in zip(*lengths, strict=False)}
        if len(offsets) > 1:
            raise ValueError(
                "causal packed sequences must have the same number of keys before their queries, got "
                f"cu_seq_lens_q {self.query_cuts} and cu_seq_lens_k {self.key_cuts}."
            )
        return offsets.pop() if offsets else 0

    def packed(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, heads, L, d) as (1, heads, batch L, d)."""
        return x.transpose(0, 1).reshape(1, x.shape[1], -1, x.shape[3])

    def packed_per_key(self, x: torch.Tensor) -> torch.Tensor:
        """A mask or bias of keys (batch or 1, heads or 1, S) as (1, heads or 1, batch S)."""
        return x.expand(self.batch, -1, -1).transpose(0, 1).reshape(1, x.shape[1], -1)

    def unpacked(self, x: torch.Tensor) -> torch.Tensor:
        """(1, heads, batch L, d) as (batch, heads, L, d)."""
        return x.reshape(x.shape[1], self.batch, -1, x.shape[3]).transpose(0, 1)
