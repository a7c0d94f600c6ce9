"""Sequences of a batch, packed or padded, each of which is attended to alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from randfeat.attention import softmax_attention
from randfeat.integrations.transformers.calls import LayerCall


def each_alone(call: LayerCall, run: Callable[..., torch.Tensor], rng: Any) -> torch.Tensor:
    """Outputs of `run` for each sequence of a call: those that it has without the others, and without padding.

    Queries at the positions of masked keys, which are padding in self-attention, are read exactly.
    """
    rows: list[list[torch.Tensor]] = [[] for _ in range(len(call.query))]
    for row, sequence in sequences_of(call):
        rows[row].append(attend_one(sequence, run, rng))
    return torch.cat([torch.cat(outputs, dim=2) for outputs in rows])


def sequences_of(call: LayerCall) -> Iterator[tuple[int, LayerCall]]:
    """The row of each sequence, and a call for it alone, (1, heads, L, d)."""
    if call.packing is None:
        for row in range(len(call.query)):
            yield row, call.part(row, slice(None), slice(None))
        return
    query_cuts, key_cuts = call.packing.query_cuts, call.packing.key_cuts
    for cuts, length, name in ((query_cuts, call.num_queries, "query"), (key_cuts, call.num_keys, "key")):
        if cuts != sorted(cuts) or cuts[:1] != [0] or cuts[-1] != length or len(cuts) != len(query_cuts):
            raise ValueError(
                f"expected the offsets of all sequences, from 0 to the length {length} of the {name}, got {cuts}."
            )
    for queries, keys in zip(pairwise(query_cuts), pairwise(key_cuts), strict=True):
        yield 0, call.part(0, slice(*queries), slice(*keys))


def attend_one(call: LayerCall, run: Callable[..., torch.Tensor], rng: Any) -> torch.Tensor:
    """Outputs of the queries of one sequence."""
    call = with_bias_in_keys(call.with_bias_as_mask())
    present, options = call.key_mask, {"rng": rng, **call.common}
    if present is None or bool(present.all()):
        return run(call.query, call.key, call.value, **options)
    if present.shape[1] > 1:  # each head has a mask of its own
        return run(call.query, call.key, call.value, key_mask=present, **options)
    kept, rest = (which[0, 0].nonzero()[:, 0] for which in (present, ~present))
    real = call.with_keys(kept)
    if call.num_queries != call.num_keys:
        return run(real.query, real.key, real.value, **options)
    found = run(real.query[:, :, kept], real.key, real.value, **options)
    others = softmax_attention(real.query[:, :, rest], real.key, real.value, **call.common)
    order = torch.argsort(torch.cat([kept, rest]))
    return torch.cat([found, others], dim=2)[:, :, order]


def with_bias_in_keys(call: LayerCall) -> LayerCall:
    """The call with the bias as one more coordinate of the keys: `(q, 1) · (k, b / scale) = q · k + b / scale`."""
    if call.key_bias is None:
        return call
    scale = call.query.shape[-1] ** -0.5 if call.scale is None else call.scale
    bias = (call.key_bias[..., None] / scale).to(call.key.dtype).expand(*call.key.shape[:-1], 1)
    query = torch.cat([call.query, torch.ones_like(call.query[..., :1])], dim=-1)
    return replace(call, query=query, key=torch.cat([call.key, bias], dim=-1), scale=scale, key_bias=None)
