"""Exact attention of a call, by the function that computes it under attn_implementation="sdpa"."""

from dataclasses import dataclass

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from randfeat._array import host_twins
from randfeat.integrations.transformers.calls import LayerCall


@dataclass(frozen=True)
class Grouping:
    """The attributes of a layer that the function of transformers reads."""

    num_key_value_groups: int
    is_causal: bool


def exact_outputs(call: LayerCall) -> torch.Tensor:
    """Softmax attention (batch, heads, L, dv), with dropout of single weights; zero for queries that see no key."""
    if not call.num_keys:
        return call.query.new_zeros((*call.query.shape[:-1], call.value.shape[-1]))
    present = None if all_present(call) else call.present
    visible = None if present is None else present[:, :, None]
    if call.is_causal and call.num_queries > 1 and (visible is not None or call.num_queries != call.num_keys):
        queries, keys = (torch.arange(n, device=call.key.device) for n in (call.num_queries, call.num_keys))
        past = keys <= queries[:, None] + call.offset
        visible = past[None, None] if visible is None else visible & past
    return softmax_outputs(call, visible)


def all_present(call: LayerCall) -> bool:
    """Whether a call is known to have no padding, and no other bias."""
    if call.key_bias is not None:
        return False
    known = host_twins(call.key_mask)
    return call.key_mask is None or (known is not None and bool(known[0].all()))


def softmax_outputs(call: LayerCall, visible: torch.Tensor | None) -> torch.Tensor:
    """Softmax attention of queries to the keys that they see, bool (batch or 1, heads or 1, L or 1, S).

    visible : None for all keys, or, in a causal call, those up to the position of the query. It has no key whose bias
        is that of padding.
    """
    mask, nothing = visible, None
    if visible is not None:
        nothing = ~visible.any(dim=-1, keepdim=True)
        mask = visible | nothing  # else 0/0, where PyTorch is older than 2.5
        if call.key_bias is not None:
            bias = torch.where(visible, call.key_bias[:, :, None].to(call.query.dtype), 0)
            mask = bias.masked_fill(~mask, -torch.inf)
    group = call.query.shape[1] // call.key.shape[1]
    output, _ = sdpa_attention_forward(
        Grouping(group, call.is_causal), call.query, call.key, call.value, mask,
        dropout=call.dropout, scaling=call.scale, is_causal=call.is_causal,
    )  # fmt: skip
    output = output.transpose(1, 2)
    return output if nothing is None else output.masked_fill(nothing, 0)
