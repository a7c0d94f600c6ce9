"""One call of an attention layer of a model, as far as every method reads it alike."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from randfeat.integrations.transformers.packing import Packing


@dataclass(frozen=True, eq=False)
class LayerCall:
    """Queries (batch, heads, L, d), keys (batch, key heads, S, d) and values (batch, key heads, S, dv) of a layer.

    layer : its number. scale : of the logits. key_mask, key_bias : (batch or 1, heads or 1, S), or None.
    offset : query i sees the keys 0 .. i + offset where `is_causal`.
    packing : where sequences are packed; then there is one row, and offset is that of each sequence.
    has_mask : whether the model gave a mask of any kind.
    dropout : the probability of a model that is trained, or 0.
    """

    layer: int
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scale: float | None
    is_causal: bool
    offset: int
    key_mask: torch.Tensor | None = None
    key_bias: torch.Tensor | None = None
    packing: Packing | None = None
    has_mask: bool = False
    dropout: float = 0.0

    @classmethod
    def of(cls, mask: dict[str, Any], packing: Packing | None, **inputs: Any) -> "LayerCall":
        """A call with the mask as `options_of` reads it; packed sequences become one row."""
        offset = mask.get("causal_offset", inputs["key"].shape[2] - inputs["query"].shape[2])
        given = {name: mask[name] for name in ("key_mask", "key_bias") if name in mask}
        if packing is not None:
            inputs |= {name: packing.packed(inputs[name]) for name in ("query", "key", "value")}
            given = {name: packing.packed_per_key(x) for name, x in given.items()}
            offset = packing.offset if inputs["is_causal"] else 0
        return cls(**inputs, **given, packing=packing, offset=offset)

    @property
    def num_queries(self) -> int:
        """The number L of queries."""
        return self.query.shape[2]

    @property
    def num_keys(self) -> int:
        """The number S of keys."""
        return self.key.shape[2]

    @property
    def is_grouped(self) -> bool:
        """Whether several query heads read one key head."""
        return self.query.shape[1] != self.key.shape[1]

    @property
    def common(self) -> dict[str, Any]:
        """Keywords that all attention functions of randfeat take."""
        return {"scale": self.scale, "enable_gqa": self.is_grouped}

    @property
    def masks(self) -> dict[str, Any]:
        """The mask and the bias of the keys, where there are some, as keywords."""
        given = {"key_mask": self.key_mask, "key_bias": self.key_bias}
        return {name: x for name, x in given.items() if x is not None}

    @property
    def present(self) -> torch.Tensor | None:
        """The keys (batch, heads or 1, S) that are no padding: neither masked nor with the lowest bias; None: all."""
        present = self.key_mask
        if self.key_bias is not None:
            biased = self.key_bias > torch.finfo(self.key_bias.dtype).min
            present = biased if present is None else present & biased
        return None if present is None else present.expand(len(self.query), -1, -1)

    def dropped(self, output: torch.Tensor) -> torch.Tensor:
        """Outputs with dropout of single numbers, where single weights are not computed."""
        return torch.nn.functional.dropout(output, self.dropout) if self.dropout else output

    def part(self, row: int, queries: slice, keys: slice) -> "LayerCall":
        """The call of some queries and keys of one row."""
        pick = slice(row, row + 1)
        masks = {name: x[pick if len(x) > 1 else slice(None), :, keys] for name, x in self.masks.items()}
        query, key, value = self.query[pick, :, queries], self.key[pick, :, keys], self.value[pick, :, keys]
        return replace(self, query=query, key=key, value=value, packing=None, **masks)

    def rows(self, index: torch.Tensor) -> "LayerCall":
        """The call of the rows of these indices."""
        masks = {name: x[index] if len(x) > 1 else x for name, x in self.masks.items()}
        return replace(self, query=self.query[index], key=self.key[index], value=self.value[index], **masks)

    def first_queries(self, num: int) -> "LayerCall":
        """The call of the first `num` queries, and of the keys that they see."""
        return replace(self, query=self.query[:, :, :num]).up_to_last_query()

    def later_queries(self, num: int) -> "LayerCall":
        """The call of all queries but the first `num`."""
        return replace(self, query=self.query[:, :, num:], offset=self.offset + num)

    def with_keys(self, kept: torch.Tensor) -> "LayerCall":
        """The call with the keys of these indices alone, none of which is masked."""
        bias = None if self.key_bias is None else self.key_bias[:, :, kept]
        return replace(self, key=self.key[:, :, kept], value=self.value[:, :, kept], key_bias=bias, key_mask=None)

    @property
    def has_own_masks(self) -> bool:
        """Whether the query heads of a group have masks or biases of their own."""
        return self.is_grouped and any(x.shape[1] not in (1, self.key.shape[1]) for x in self.masks.values())

    def with_own_keys(self) -> "LayerCall":
        """The call with keys for each query head, where the heads of a group have masks or biases of their own."""
        if not self.has_own_masks:
            return self
        group = self.query.shape[1] // self.key.shape[1]
        key, value = (x.repeat_interleave(group, dim=1) for x in (self.key, self.value))
        return replace(self, key=key, value=value)

    def up_to_last_query(self) -> "LayerCall":
        """The call without the keys that no query sees: those of a cache of fixed length that is not full."""
        end = self.num_queries + self.offset
        if end >= self.num_keys:
            return self
        masks = {name: x[:, :, :end] for name, x in self.masks.items()}
        return replace(self, key=self.key[:, :, :end], value=self.value[:, :, :end], **masks)

    def with_bias_as_mask(self) -> "LayerCall":
        """The call with a mask in place of the lowest biases, and without a bias that is 0 elsewhere."""
        if self.key_bias is None:
            return self
        seen = self.key_bias > torch.finfo(self.key_bias.dtype).min
        bias = torch.where(seen, self.key_bias, 0)
        return replace(self, key_mask=seen, key_bias=bias if bool(torch.any(bias != 0)) else None)
