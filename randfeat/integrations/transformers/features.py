"""Linear attention in a model, with features of its own in each layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from randfeat._array import as_bool, as_count
from randfeat.attention import linear_attention
from randfeat.estimators.base import Estimator
from randfeat.estimators.positive import PositiveFeatures
from randfeat.integrations.options import EVERY, check_options
from randfeat.integrations.transformers.attention import ModelAttention
from randfeat.integrations.transformers.calls import LayerCall
from randfeat.integrations.transformers.few_keys import attend_by_count
from randfeat.integrations.transformers.storing import note_known
from randfeat.kernels.softmax import SOFTMAX, SoftmaxKernel
from randfeat.maps import FeatureMap

EXACT_UP_TO = 1024
"""The default of `register(method="auto")`: about the number of keys up to which exact attention of PyTorch is as fast
as 256 features, in encoders; in causal layers it is about twice as large."""

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
    exact_up_to: int = 0
    """Queries that see at most so many keys attend to them exactly."""
    drawn: dict[tuple[Any, ...], FeatureMap] = field(default_factory=dict, repr=False)
    arrays: dict[tuple[Any, ...], dict[str, torch.Tensor]] = field(default_factory=dict, repr=False)
    """The arrays of the maps that are drawn."""

    def check(self) -> None:
        estimators = self.estimator.values() if isinstance(self.estimator, Mapping) else [self.estimator]
        for estimator in estimators:
            if not isinstance(estimator, Estimator):
                raise TypeError(f"estimator must be an Estimator, or one for each layer, got {estimator!r}.")
        as_count(self.num_features, "num_features")
        as_bool(self.share_maps, "share_maps")
        check_options(self.options, where="a model", refused=NOT_OFFERED, reason="the model decides")
        if self.exact_up_to != 0:
            as_count(self.exact_up_to, "exact_up_to")
            if reason := why_not_softmax(self.estimator, self.options):
                raise ValueError(
                    f'method="auto" is plain softmax attention for queries that see few keys, but {reason}: '
                    'register it with method="linear".'
                )
        note_known(self.estimator)

    @property
    def method(self) -> str:
        return "auto" if self.exact_up_to else self.options.get("method", "linear")

    @property
    def description(self) -> dict[str, Any]:
        estimator = dict(self.estimator) if isinstance(self.estimator, Mapping) else self.estimator
        described = super().description
        given = {"estimator": estimator, "num_features": self.num_features, **described}
        given |= {"share_maps": True} if self.share_maps else {}
        return given | {"exact_up_to": int(self.exact_up_to)} if self.exact_up_to else given  # as older files have it

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
        if self.exact_up_to:
            if not torch.compiler.is_compiling():
                self.features_of(call)  # errors of the features come with the first text, whatever its length
            return attend_by_count(call, self.exact_up_to, self.attend_linearly)
        return self.attend_linearly(call)

    def attend_linearly(self, call: LayerCall) -> torch.Tensor:
        """Outputs of the features, whatever the number of keys."""
        features = self.features_of(call)
        if call.has_own_masks:
            call, features = call.with_own_keys(), of_each_head(features, call.query.shape[1])
        causal = call.is_causal
        if call.num_queries == 1 and call.packing is None:
            causal = causal and self.needs_position(call)  # else it sees the keys that the mask leaves
        packed = {} if call.packing is None else call.packing.options
        output = linear_attention(
            call.query,
            call.key,
            call.value,
            features,
            is_causal=causal,
            causal_offset=call.offset if causal else 0,
            **call.common,
            **call.masks,
            **packed,
            **self.options,
        )
        return call.dropped(output)

    def needs_position(self, call: LayerCall) -> bool:
        """Whether weights depend on the distance of a single query and a key; ValueError where it is not known."""
        if self.options.get("window") is not None and call.has_mask and torch.compiler.is_compiling():
            raise ValueError("a window needs the position of the query, which a compiled model does not tell.")
        return any(self.options.get(name) is not None for name in ("decay", "window"))


def of_each_head(features: FeatureMap, heads: int) -> FeatureMap:
    """Features (key heads,) or (heads,) as one map for each query head."""
    arrays = {
        name: x if x.ndim == 2 else x.repeat_interleave(heads // x.shape[-3], dim=-3)
        for name, x in features.arrays.items()
    }
    return FeatureMap(features.estimator, features.dim, features.num_features, arrays)


def why_not_softmax(estimator: Estimator | Mapping[int, Estimator], options: Mapping[str, Any]) -> str | None:
    """The reason that features with these options estimate no plain softmax attention; None if they do."""
    if options.get("decay") is not None:
        return "with decay the weights are others"
    if options.get("method", "linear") != "linear":
        return f"all queries have method={options['method']!r}"
    estimators = estimator.values() if isinstance(estimator, Mapping) else [estimator]
    for each in estimators:
        kernel = getattr(each, "kernel", SOFTMAX)
        if type(kernel) is not SoftmaxKernel or kernel.scale != 1:
            return f"these features are of the kernel {kernel}"
    return None
