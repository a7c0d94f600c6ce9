"""The first keys of the sequences of a stream, for queries that see few keys."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from randfeat.integrations.transformers.calls import LayerCall
from randfeat.integrations.transformers.exact import all_present
from randfeat.integrations.transformers.few_keys import first_of, keys_at


@dataclass(frozen=True, eq=False)
class FirstKeys:
    """At most `limit` keys (batch, key heads, C, d) of each sequence, without padding before or between them.

    value : (batch, key heads, C, dv). mask, bias : (batch, 1, C), or None. A sequence with fewer than C keys is masked
    behind them.
    """

    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    bias: torch.Tensor | None

    @classmethod
    def of(cls, call: LayerCall, limit: int) -> "FirstKeys":
        """The first keys of a call."""
        if all_present(call):
            return cls(call.key[:, :, :limit], call.value[:, :, :limit], None, None)
        present = call.present
        assert present is not None
        longest = int(present.sum(dim=-1).max())
        index = first_of(present, min(limit, longest))
        kept = keys_at(call, index)
        mask = present.gather(-1, index)
        return cls(kept.key, kept.value, None if bool(mask.all()) else mask, kept.key_bias)

    def __len__(self) -> int:
        """The number C of keys of the longest sequence."""
        return self.key.shape[2]

    def is_full(self, limit: int) -> bool:
        """Whether every sequence has `limit` keys, so that later queries see more."""
        return len(self) == limit and self.mask is None

    def before(self, call: LayerCall) -> LayerCall:
        """The call with these keys before its own."""
        masks: dict[str, Any] = {}
        for name, mine, own, fill in (
            ("key_mask", self.mask, call.key_mask, True),
            ("key_bias", self.bias, call.key_bias, 0.0),
        ):
            like = mine if own is None else own
            if like is not None:
                parts = [
                    like.new_full((1, 1, length), fill) if x is None else x
                    for x, length in ((mine, len(self)), (own, call.num_keys))
                ]
                masks[name] = torch.cat([x.expand(len(call.query), -1, -1) for x in parts], dim=-1)
        return replace(
            call,
            key=torch.cat([self.key, call.key], dim=2),
            value=torch.cat([self.value, call.value], dim=2),
            offset=call.offset + len(self),
            **masks,
        )

    def select(self, index: torch.Tensor) -> "FirstKeys":
        """The keys of the sequences of these indices."""
        index = index.to(self.key.device)
        mask, bias = (None if x is None else x[index] for x in (self.mask, self.bias))
        return FirstKeys(self.key[index], self.value[index], mask, bias)
