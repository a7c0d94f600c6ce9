"""StateCache: the sums of linear attention in each layer, in place of keys."""

from typing import Any

import torch

from randfeat.attention import AttentionDecoder, AttentionState, linear_attention
from randfeat.attention.decoder import selected
from randfeat.integrations.transformers.attention import ModelAttention
from randfeat.integrations.transformers.calls import LayerCall
from randfeat.integrations.transformers.features import FeatureAttention
from randfeat.integrations.transformers.streams import StreamCache, StreamLayer, attention_of, decoder_config
from randfeat.maps import FeatureMap


class StateLayer(StreamLayer):
    """The sums over the earlier keys of a layer."""

    def forget(self) -> None:
        super().forget()
        self.decoder: AttentionDecoder | None = None
        self.state: AttentionState | None = None  # in place of the decoder where weights fade

    def attend(self, attention: ModelAttention, call: LayerCall) -> torch.Tensor:
        linear = check_linear(attention)
        features, options = linear.features_of(call), linear.state_options
        if options or call.key_bias is not None:
            return self.attend_with_state(call, features, options)
        if self.decoder is None or self.decoder.features is not features:
            threads = linear.options.get("num_threads")
            self.decoder = AttentionDecoder(features, self.sums, num_threads=threads, **call.common)
            self.state = None
        return self.decoder.step(call.query, call.key, call.value, call.key_mask)

    def attend_with_state(self, call: LayerCall, features: FeatureMap, options: dict[str, Any]) -> torch.Tensor:
        """Outputs of a call for which a decoder has no form."""
        output, self.state = linear_attention(
            call.query, call.key, call.value, features,
            is_causal=True, initial_state=self.sums, return_state=True, **call.common, **call.masks, **options,
        )  # fmt: skip
        self.decoder = None
        return output

    @property
    def sums(self) -> AttentionState | None:
        """The sums over all keys so far; None before the first one."""
        return self.state if self.decoder is None else self.decoder.state

    def select(self, index: torch.Tensor) -> None:
        if self.decoder is not None:
            self.decoder.reorder(index)
        elif self.state is not None:
            self.state = selected(self.state, index.to(self.state.total.device))


class StateCache(StreamCache):
    """A cache for `generate()` with linear attention: sums over keys, whose size does not depend on their number.

        model.generate(tokens, cache=StateCache(model.config))

    The argument of `generate` is `past_key_values` in older versions of transformers.

    config : that of a model which runs with linear attention, `register(...)`.

    Each layer keeps an `AttentionState` for each sequence. So a token takes the same time after any number of others.
    Outputs are those without a cache (`use_cache=False`), up to rounding. Prompts may come in pieces
    (`prefill_chunk_size`). Padding on the left, beams and several sequences for a prompt work. Tokens cannot be taken
    out again, so `generate` refuses assistants.

    The memory of a layer and sequence is heads × num_features × (dv + 1) numbers, and 1 / group of that if the query
    heads of a group have one map in common: `register(..., share_maps=True)`, or a calibration.

    ValueError if the model does not run with linear attention: with a `window`, or `method="exact"`, there are no sums.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config, StateLayer)
        attention = attention_of(decoder_config(config))
        assert attention is not None
        check_linear(attention)


def check_linear(attention: ModelAttention) -> FeatureAttention:
    """The attention, if it is sums over features; else ValueError."""
    if not isinstance(attention, FeatureAttention):
        given = f"method={attention.method!r}"
    elif attention.options.get("method") == "exact" or attention.options.get("window") is not None:
        given = f"options {dict(attention.options)}"
    else:
        return attention
    raise ValueError(
        f"StateCache keeps the sums of linear attention, but this model is registered with {given}: use "
        'CompressedCache, or register it with method="linear" and without a window.'
    )
