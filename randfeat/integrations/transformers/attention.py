"""The attention function of a model: linear attention with features of its own in each layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from randfeat._array import as_bool, as_count
from randfeat.attention import linear_attention
from randfeat.estimators.base import Estimator
from randfeat.integrations.options import EVERY, check_options
from randfeat.integrations.transformers.keywords import check_keywords
from randfeat.integrations.transformers.masks import options_of
from randfeat.integrations.transformers.packing import Packing
from randfeat.integrations.transformers.storing import check_known, note_known
from randfeat.maps import FeatureMap

NOT_OFFERED = tuple(name for name in EVERY if name not in ("decay", "window", "method", "num_threads"))


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
    arrays: dict[tuple[Any, ...], dict[str, torch.Tensor]] = field(default_factory=dict, repr=False)
    """The arrays of the maps that are drawn."""

    def __post_init__(self) -> None:
        estimators = self.estimator.values() if isinstance(self.estimator, Mapping) else [self.estimator]
        for estimator in estimators:
            if not isinstance(estimator, Estimator):
                raise TypeError(f"estimator must be an Estimator, or one for each layer, got {estimator!r}.")
        as_count(self.num_features, "num_features")
        if not isinstance(self.rng, int):
            raise TypeError(f"rng must be an int, from which every layer has its seed, got {type(self.rng).__name__}.")
        check_options(self.options, where="a model", refused=NOT_OFFERED, reason="the model decides")
        note_known(self.estimator)
        note_known(self.description)

    @property
    def description(self) -> dict[str, Any]:
        """Everything that determines the outputs, as `randfeat.save` takes it."""
        options = {
            name: option.detach().cpu().numpy() if isinstance(option, torch.Tensor) else option
            for name, option in self.options.items()
        }
        estimator = dict(self.estimator) if isinstance(self.estimator, Mapping) else self.estimator
        return {"estimator": estimator, "num_features": self.num_features, "rng": self.rng, "options": options}

    def features(self, layer: int, heads: int, like: torch.Tensor) -> FeatureMap:
        """Features of one layer, for inputs like `like`: one map for each head, or for each that was calibrated."""
        cache_key = (layer, heads, like.shape[-1], like.device, like.dtype)
        if torch.compiler.is_compiling() and cache_key in self.arrays:  # whose tracing knows no read-only mapping
            drawn = self.drawn[cache_key]
            return FeatureMap(drawn.estimator, drawn.dim, drawn.num_features, self.arrays[cache_key])
        if cache_key not in self.drawn:
            estimator = self.estimator
            if isinstance(estimator, Mapping):
                if layer not in estimator:
                    raise ValueError(f"there is no estimator for layer {layer}, only for {sorted(estimator)}.")
                estimator = estimator[layer]
            seed = np.random.SeedSequence(self.rng, spawn_key=(layer,))
            shape = estimator.batch_shape or (heads,)
            drawn = estimator.draw(like.shape[-1], self.num_features, rng=seed, like=like, batch_shape=shape)
            self.drawn[cache_key], self.arrays[cache_key] = drawn, dict(drawn.arrays)
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
        sliding_window: int | None = None,
        cu_seq_lens_q: torch.Tensor | None = None,
        cu_seq_lens_k: torch.Tensor | None = None,
        seq_idx: torch.Tensor | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attention in the interface of transformers: (batch, heads, L, d) -> (batch, L, heads, dv).

        While a model is trained, `dropout` is that of the outputs: single weights are never computed.
        """
        check_known(module)
        length, num_keys = query.shape[2], key.shape[2]
        check_keywords(others, sliding_window, num_keys, masked=attention_mask is not None and length == 1)
        causal = as_bool(getattr(module, "is_causal", True) if is_causal is None else is_causal, "is_causal")
        features = self.features(layer_of(module), query.shape[1], query)
        mask = options_of(attention_mask)
        packing = Packing.of(len(query), mask.pop("cu_seqlens", None), cu_seq_lens_q, cu_seq_lens_k, seq_idx)
        options = {**self.options, **mask}
        if packing is not None:
            query, key, value = (packing.packed(x) for x in (query, key, value))
            options |= {name: packing.packed_per_key(mask[name]) for name in ("key_mask", "key_bias") if name in mask}
            options |= packing.options
        offset = options.pop("causal_offset", num_keys - length) if packing is None else packing.offset
        if length == 1 and packing is None:
            causal = causal and self.needs_position(attention_mask)  # else it sees the keys that the mask leaves
        output = linear_attention(
            query,
            key,
            value,
            features,
            is_causal=causal,
            causal_offset=offset if causal else 0,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
            **options,
        )
        output = output if packing is None else packing.unpacked(output)
        if dropout:
            output = torch.nn.functional.dropout(output, dropout)
        return output.transpose(1, 2).contiguous(), None

    def needs_position(self, attention_mask: torch.Tensor | None) -> bool:
        """Whether weights depend on the distance of a single query and a key; ValueError where it is not known."""
        if self.options.get("window") is not None and attention_mask is not None and torch.compiler.is_compiling():
            raise ValueError("a window needs the position of the query, which a compiled model does not tell.")
        return any(self.options.get(name) is not None for name in ("decay", "window"))


def layer_of(module: torch.nn.Module) -> int:
    """Number of an attention module; modules without one count as layer 0 and share its features."""
    number = getattr(module, "layer_idx", None)
    return 0 if number is None else int(number)
