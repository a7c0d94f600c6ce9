"""Queries that see few keys attend to them exactly: the rule of `exact_up_to`.

The number of keys that a query sees depends on its own sequence, and not on padding, other sequences, packing, pieces
or caches: padding does not count. So a text has the same outputs, however it comes.
"""

from collections.abc import Callable
from dataclasses import replace

import torch

from randfeat._array import host_twins
from randfeat.integrations.transformers.alone import sequences_of
from randfeat.integrations.transformers.calls import LayerCall
from randfeat.integrations.transformers.exact import all_present, exact_outputs, softmax_outputs

Attend = Callable[[LayerCall], torch.Tensor]


def attend_by_count(call: LayerCall, limit: int, linear: Attend) -> torch.Tensor:
    """Outputs of a call: exact for queries that see at most `limit` keys, those of `linear` for all others."""
    if call.packing is not None:
        return torch.cat([attend_by_count(part, limit, linear) for _, part in sequences_of(call)], dim=2)
    call = call.up_to_last_query() if call.is_causal else call
    if call.num_keys <= limit:
        return exact_outputs(call)
    if not call.is_causal or call.num_queries == 1:  # of which a mask says everything
        return linear(call) if all_present(call) else attend_by_row(call, limit, linear)
    if not all_present(call):
        return with_exact_queries(call, limit, linear(call))
    num = limit - call.offset
    if num <= 0:
        return linear(call)
    return torch.cat([exact_outputs(call.first_queries(num)), linear(call.later_queries(num))], dim=2)


def attend_by_row(call: LayerCall, limit: int, linear: Attend) -> torch.Tensor:
    """Outputs of queries that see all keys of their row which are present: rows with few keys are exact.

    If the numbers cannot be read, both are computed for all rows.
    """
    present = call.present
    assert present is not None
    is_short = counted(present)[..., -1] <= limit
    known = host_twins(is_short)
    if known is None or is_short.shape[1] > 1:
        return torch.where(is_short[..., None, None], exact_with_first_keys(call, limit), linear(call))
    if not known[0].any():
        return linear(call)
    if known[0].all():
        return exact_with_first_keys(call, limit)
    short, long = (which[:, 0].nonzero()[:, 0] for which in (is_short, ~is_short))
    found = torch.cat([exact_with_first_keys(call.rows(short), limit), linear(call.rows(long))])
    return found[torch.argsort(torch.cat([short, long]))]


def exact_with_first_keys(call: LayerCall, limit: int) -> torch.Tensor:
    """Exact outputs of queries that see the same keys, at most `limit` of them."""
    call = call.with_own_keys()
    present = call.present
    assert present is not None
    index = first_of(present, limit)
    return softmax_outputs(keys_at(call, index), present.gather(-1, index)[:, :, None])


def with_exact_queries(call: LayerCall, limit: int, output: torch.Tensor) -> torch.Tensor:
    """The outputs of a causal call, with the exact ones for tokens that see at most `limit` keys.

    Of each row, these are among its first `limit` tokens that are present, and so are their keys.
    """
    if all_present(call):
        num = min(limit - call.offset, call.num_queries)
        exact = exact_outputs(call.first_queries(num)) if num > 0 else output[:, :, :0]
        return torch.cat([exact, output[:, :, exact.shape[2] :]], dim=2)
    call = call.with_own_keys()
    present = call.present
    assert present is not None
    tokens = slice(call.offset, call.offset + call.num_queries)
    counts, own = counted(present)[..., tokens], present[..., tokens]
    is_few = own & (counts <= limit)
    known = host_twins(is_few)
    if known is not None and not known[0].any():
        return output
    queries, keys = first_of(own, limit), first_of(present, limit)
    counts, is_few = (x.gather(-1, queries)[..., None] for x in (counts, is_few))
    some = replace(call, query=rows_at(call.query, queries), is_causal=False)
    slots = torch.arange(keys.shape[-1], device=keys.device)
    visible = (slots < counts) & present.gather(-1, keys)[:, :, None]
    exact = softmax_outputs(keys_at(some, keys), visible).to(output.dtype)
    places = queries[..., None].expand(exact.shape)
    return output.scatter(2, places, torch.where(is_few, exact, output.gather(2, places)))


def counted(present: torch.Tensor) -> torch.Tensor:
    """The number of keys (..., S) that are present up to each one."""
    return present.cumsum(dim=-1)


def first_of(present: torch.Tensor, num: int) -> torch.Tensor:
    """Indices (..., num) of the first entries that are True, in order; of others where there are fewer."""
    return torch.argsort((~present).to(torch.uint8), dim=-1, stable=True)[..., :num]


def keys_at(call: LayerCall, index: torch.Tensor) -> LayerCall:
    """The call with the keys of these indices (batch, 1 or key heads, n), without the mask."""
    bias = call.key_bias
    if bias is not None:
        bias = bias.expand(*index.shape[:2], -1).gather(-1, index)
    key, value = rows_at(call.key, index), rows_at(call.value, index)
    return replace(call, key=key, value=value, key_bias=bias, key_mask=None)


def rows_at(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The rows (batch, heads, n, d) of x (batch, heads, S, d) with indices (batch, heads or 1, n)."""
    return x.gather(2, index[..., None].expand(-1, x.shape[1], -1, x.shape[3]))
