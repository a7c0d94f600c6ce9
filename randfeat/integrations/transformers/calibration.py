"""Calibration: estimators fitted to the layers of a model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from randfeat.estimators.base import Estimator
from randfeat.integrations.transformers.attention import layer_of
from randfeat.integrations.transformers.storing import digest, note_known, set_mark
from randfeat.selection.adaptation import Level, adapt

NAME = "randfeat_calibration"


def calibrate(
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    num_features: int = 256,
    *,
    level: Level = "posterior",
    rng: int = 0,
    **options: Any,
) -> dict[int, Estimator]:
    """Fit an estimator to every self-attention layer by `randfeat.adapt`, from one batch run with exact attention.

    inputs : keyword arguments of the model: input_ids, attention_mask, ...; padding is left out of the fit.
    num_features, level, options : as in `randfeat.adapt`. `register` takes the same number of features by default.

    Returns a mapping from layer numbers to estimators, for `register`, `randfeat.save` and `save_pretrained`. Each has
    one set of parameters for each key head, fitted to all query heads that it serves. The attention modules of the
    model must have a layer_idx. The model runs as before; only its config is marked, so that a saved model asks for
    its calibration.
    """
    recorded: dict[int, dict[str, Any]] = {}

    def record(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **given: Any,
    ) -> tuple[torch.Tensor, None]:
        layer = layer_of(module)
        if layer in recorded or query.shape[2] != key.shape[2]:
            raise ValueError("calibrate needs self-attention layers with numbers of their own, and no cache.")
        recorded[layer] = {
            **by_key_head(query, key.shape[1], seen_by_any(attention_mask)),
            "key": key,
            "value": value,
            "scale": given.get("scaling"),
        }
        return sdpa_attention_forward(module, query, key, value, attention_mask, **given)

    implementation = model.config._attn_implementation
    AttentionInterface.register(NAME, record)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    try:
        model.set_attn_implementation(NAME)
        with torch.no_grad():
            model(**inputs)
    finally:
        model.set_attn_implementation(implementation)
    estimators: dict[int, Estimator] = {}
    for layer, arrays in sorted(recorded.items()):
        seed = np.random.SeedSequence(rng, spawn_key=(layer,))
        estimators[layer] = adapt(**arrays, level=level, num_features=num_features, rng=seed, **options)
    note_known(estimators, num_features)
    set_mark(model, digest(estimators))
    return estimators


def seen_by_any(attention_mask: torch.Tensor | None) -> np.ndarray | None:
    """The keys (batch, 1, S) that some query sees, from a mask of pairs, bool or additive."""
    if attention_mask is None:
        return None
    mask = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
    return mask.any(dim=-2)[:, :1].cpu().numpy()


def by_key_head(query: torch.Tensor, key_heads: int, present: np.ndarray | None) -> dict[str, Any]:
    """Queries (batch, heads, L, d) as (batch, key heads, group L, d), with the masks of queries and keys."""
    batch, heads, length, dim = query.shape
    group = heads // key_heads
    query_mask = None if present is None else np.tile(present, (1, 1, group))
    return {
        "query": query.reshape(batch, key_heads, group * length, dim),
        "query_mask": query_mask,
        "key_mask": present,
    }
