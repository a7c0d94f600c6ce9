"""Linear attention in a model, with features of its own in each layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from randfeat._array import as_bool, as_count
from randfeat.attention import linear_attention
from randfeat.estimators.base import Estimator
from randfeat.estimators.positive import PositiveFeatures
from randfeat.integrations.options import EVERY, check_options
from randfeat.integrations.transformers.attention import ModelAttention
from randfeat.integrations.transformers.calls import LayerCall
from randfeat.integrations.transformers.storing import note_known
from randfeat.maps import FeatureMap

NOT_OFFERED = tuple(name for name in EVERY if name not in ("decay", "window", "method", "num_threads"))


@dataclass(frozen=True, eq=False)
class FeatureAttention(ModelAttention):
    """Linear attention in a model, with the features of its layers.

    Features are determined by seed, layer, sizes and estimator. They are drawn when a layer first runs, and kept on the
    device that it ran on.
    """

    estimator: Estimator | Mapping[int, Estimator] = field(default_factory=PositiveFeatures)
    num_features: int = 256
    share_maps: bool = False
    """Whether the query heads of a group have one map in common."""
    drawn: dict[tuple[Any, ...], FeatureMap] = field(default_factory=dict, repr=False)
    arrays: dict[tuple[Any, ...], dict[str, torch.Tensor]] = field(default_factory=dict, repr=False)
    """The arrays of the maps that are drawn."""

    method: ClassVar[str] = "linear"

    def check(self) -> None:
        estimators = self.estimator.values() if isinstance(self.estimator, Mapping) else [self.estimator]
        for estimator in estimators:
            if not isinstance(estimator, Estimator):
                raise TypeError(f"estimator must be an Estimator, or one for each layer, got {estimator!r}.")
        as_count(self.num_features, "num_features")
        as_bool(self.share_maps, "share_maps")
        check_options(self.options, where="a model", refused=NOT_OFFERED, reason="the model decides")
        note_known(self.estimator)

    @property
    def description(self) -> dict[str, Any]:
        estimator = dict(self.estimator) if isinstance(self.estimator, Mapping) else self.estimator
        described = super().description
        given = {"estimator": estimator, "num_features": self.num_features, **described}
        return given | {"share_maps": True} if self.share_maps else given

    def features(self, layer: int, heads: int, like: torch.Tensor, key_heads: int | None = None) -> FeatureMap:
        """Features of one layer, for inputs like `like`: one map for each head, or for each that was calibrated."""
        heads = heads if key_heads is None or not self.share_maps else key_heads
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
            shape = estimator.batch_shape or (heads,)
            drawn = estimator.draw(
                like.shape[-1], self.num_features, rng=self.seed(layer), like=like, batch_shape=shape
            )
            self.drawn[cache_key], self.arrays[cache_key] = drawn, dict(drawn.arrays)
        return self.drawn[cache_key]

    def features_of(self, call: LayerCall) -> FeatureMap:
        """The features of the layer that makes a call."""
        return self.features(call.layer, call.query.shape[1], call.query, call.key.shape[1])

    @property
    def state_options(self) -> dict[str, Any]:
        """Options that change what a state is."""
        decay = self.options.get("decay")
        return {} if decay is None else {"decay": decay}

    def attend(self, call: LayerCall) -> torch.Tensor:
        causal = call.is_causal
        if call.num_queries == 1 and call.packing is None:
            causal = causal and self.needs_position(call)  # else it sees the keys that the mask leaves
        packed = {} if call.packing is None else call.packing.options
        return linear_attention(
            call.query,
            call.key,
            call.value,
            self.features_of(call),
            is_causal=causal,
            causal_offset=call.offset if causal else 0,
            **call.common,
            **call.masks,
            **packed,
            **self.options,
        )

    def needs_position(self, call: LayerCall) -> bool:
        """Whether weights depend on the distance of a single query and a key; ValueError where it is not known."""
        if self.options.get("window") is not None and call.has_mask and torch.compiler.is_compiling():
            raise ValueError("a window needs the position of the query, which a compiled model does not tell.")
        return any(self.options.get(name) is not None for name in ("decay", "window"))
