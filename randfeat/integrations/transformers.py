"""Hugging Face transformers: linear attention in pretrained models, as `attn_implementation="randfeat"`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from randfeat._hints import needs

try:
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import bidirectional_mask_function, causal_mask_function
except ImportError as error:
    raise ImportError(needs("transformers", "transformers 5 or later and PyTorch", "transformers")) from error

from randfeat._array import as_count
from randfeat.attention import linear_attention
from randfeat.estimators.base import Estimator
from randfeat.estimators.positive import PositiveFeatures
from randfeat.integrations.masks import key_mask_of
from randfeat.integrations.options import EVERY, check_options
from randfeat.maps import FeatureMap
from randfeat.selection.adaptation import Level, adapt

__all__ = ["ModelAttention", "calibrate", "register"]

NOT_OFFERED = tuple(name for name in EVERY if name not in ("decay", "window", "method", "num_threads"))
REFUSED = ("position_bias", "softcap", "sliding_window", "s_aux", "cache")  # arguments of other attention functions


def register(
    estimator: Estimator | Mapping[int, Estimator] | None = None,
    num_features: int = 256,
    *,
    rng: int = 0,
    name: str = "randfeat",
    **options: Any,
) -> "ModelAttention":
    """Register linear attention with transformers, for `from_pretrained(..., attn_implementation=name)`.

    estimator : one for all layers, or a mapping from layer numbers to estimators, as `calibrate` returns it;
        `PositiveFeatures` with orthogonal rows by default.
    num_features : length of the features.
    rng : seed, an int. Layer i draws one map for each head from (seed, i): the same maps in every process.
    name : name of the implementation; a second call with the same name replaces the first.
    options : keywords of `randfeat.linear_attention` for every layer, if they do not depend on the input: `decay`, a
        number or one for each head; `window`, with exact weights inside and estimated ones outside, for whole
        sequences; `method`.

    Padding masks and causal models work. Sliding windows, packed sequences, additive biases, dropout during training
    and several new tokens after a cache raise an error, as they have no linear-time form here. For a model that is
    already loaded, use `model.set_attn_implementation(name)`.
    """
    attention = ModelAttention(PositiveFeatures() if estimator is None else estimator, num_features, rng, options)
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, padding_mask)
    return attention


@dataclass(frozen=True, eq=False)
class ModelAttention:
    """The attention function of a model, with the features of its layers; made by `register`.

    Features are determined by seed, layer, sizes and estimator. They are drawn when a layer first runs, and kept on the
    device that it ran on.
    """

    estimator: Estimator | Mapping[int, Estimator]
    num_features: int
    rng: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    drawn: dict[tuple[Any, ...], FeatureMap] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        estimators = self.estimator.values() if isinstance(self.estimator, Mapping) else [self.estimator]
        for estimator in estimators:
            if not isinstance(estimator, Estimator):
                raise TypeError(f"estimator must be an Estimator, or one for each layer, got {estimator!r}.")
        as_count(self.num_features, "num_features")
        if not isinstance(self.rng, int):
            raise TypeError(f"rng must be an int, from which every layer has its seed, got {type(self.rng).__name__}.")
        check_options(self.options, where="a model", refused=NOT_OFFERED, reason="the model decides")

    def features(self, layer: int, heads: int, like: torch.Tensor) -> FeatureMap:
        """Features of one layer: one map for each head, for inputs like `like`."""
        cache_key = (layer, heads, like.shape[-1], like.device, like.dtype)
        if cache_key not in self.drawn:
            estimator = self.estimator
            if isinstance(estimator, Mapping):
                if layer not in estimator:
                    raise ValueError(f"there is no estimator for layer {layer}, only for {sorted(estimator)}.")
                estimator = estimator[layer]
            seed = np.random.SeedSequence(self.rng, spawn_key=(layer,))
            self.drawn[cache_key] = estimator.draw(
                like.shape[-1], self.num_features, rng=seed, like=like, batch_shape=(heads,)
            )
        return self.drawn[cache_key]

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attention in the interface of transformers: (batch, heads, L, d) -> (batch, L, heads, dv)."""
        given = [name for name in REFUSED if options.get(name) is not None]
        if given:
            raise ValueError(f"{', '.join(given)} of this layer has no linear-time form.")
        if dropout != 0:
            raise ValueError(f"attention dropout must be 0, got {dropout}: call model.eval(), or set it in the config.")
        causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
        keywords = dict(self.options)
        length, num_keys = query.shape[2], key.shape[2]
        if length != num_keys and keywords.get("window") is not None:
            raise ValueError("a window needs the positions of the queries, which a cache hides: use use_cache=False.")
        if causal and length == 1:  # after a cache, whose keys it sees as far as the mask allows
            causal = keywords.get("decay") is not None
            keywords["causal_offset"] = num_keys - 1 if causal else 0
        output = linear_attention(
            query,
            key,
            value,
            self.features(layer_of(module), query.shape[1], query),
            is_causal=causal,
            scale=scaling,
            key_mask=None if attention_mask is None else key_mask_of(attention_mask, 4, name="attention_mask"),
            enable_gqa=query.shape[1] != key.shape[1],
            **keywords,
        )
        return output.transpose(1, 2).contiguous(), None


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
    num_features, level, options : as in `randfeat.adapt`; use the same number of features in `register`.

    Returns a mapping from layer numbers to estimators, for `register`. The model must have one query head per key head
    and a layer_idx in its attention modules. It is left unchanged.
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
        if layer in recorded or query.shape[:3] != key.shape[:3]:
            raise ValueError("calibrate needs self-attention layers with numbers of their own and ungrouped heads.")
        mask = None if attention_mask is None else key_mask_of(attention_mask, 4, name="attention_mask")
        recorded[layer] = {"query": query, "key": key, "value": value, "scale": given.get("scaling"), "key_mask": mask}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **given)

    implementation, name = model.config._attn_implementation, "randfeat_calibration"
    AttentionInterface.register(name, record)
    AttentionMaskInterface.register(name, padding_mask)
    try:
        model.set_attn_implementation(name)
        with torch.no_grad():
            model(**inputs)
    finally:
        model.set_attn_implementation(implementation)
    estimators: dict[int, Estimator] = {}
    for layer, arrays in sorted(recorded.items()):
        mask = arrays.pop("key_mask")
        mask = None if mask is None else mask.cpu().numpy()
        seed = np.random.SeedSequence(rng, spawn_key=(layer,))
        estimators[layer] = adapt(
            **arrays, key_mask=mask, query_mask=mask, level=level, num_features=num_features, rng=seed, **options
        )
    return estimators


def padding_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: int = 0,
    mask_function: Any = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    device: Any = None,
    **unused: Any,
) -> torch.Tensor | None:
    """Mask of keys for a model, bool (batch, 1, 1, S) or None, in the interface of transformers.

    The causal part of a mask is left out: for a whole sequence `is_causal` does it. A single query that follows a cache
    gets a mask of the keys up to its position.
    """
    if mask_function not in (causal_mask_function, bidirectional_mask_function):
        raise ValueError(
            "this model masks pairs of queries and keys (sliding windows, packed sequences, ...), which has no "
            "linear-time form; only padding and plain causal masks do."
        )
    causal = mask_function is causal_mask_function
    if causal and q_length > 1 and int(q_offset) != kv_offset:
        raise ValueError(
            f"{q_length} queries after {int(q_offset)} cached keys: give the whole sequence at once, or one at a time."
        )
    mask = None
    if attention_mask is not None:
        padded = torch.nn.functional.pad(attention_mask, (0, max(0, kv_offset + kv_length - attention_mask.shape[-1])))
        mask = padded[:, None, None, kv_offset : kv_offset + kv_length].to(torch.bool)
    if causal and q_length == 1:
        visible = torch.arange(kv_offset, kv_offset + kv_length, device=device) <= q_offset
        mask = visible.expand(batch_size, 1, 1, -1) if mask is None else mask & visible
    return mask


def layer_of(module: torch.nn.Module) -> int:
    """Number of an attention module; modules without one count as layer 0 and share its features."""
    number = getattr(module, "layer_idx", None)
    return 0 if number is None else int(number)
