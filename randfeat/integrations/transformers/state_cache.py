"""StateCache: the sums of linear attention in each layer, in place of keys."""

from typing import Any

import torch

from randfeat.attention import AttentionDecoder, AttentionState, linear_attention
from randfeat.attention.decoder import selected
from randfeat.integrations.transformers.attention import ModelAttention
from randfeat.integrations.transformers.calls import LayerCall
from randfeat.integrations.transformers.exact import exact_outputs
from randfeat.integrations.transformers.features import FeatureAttention
from randfeat.integrations.transformers.few_keys import with_exact_queries
from randfeat.integrations.transformers.first_keys import FirstKeys
from randfeat.integrations.transformers.streams import StreamCache, StreamLayer, attention_of, decoder_config
from randfeat.maps import FeatureMap


class StateLayer(StreamLayer):
    """The sums over the earlier keys of a layer; and its first keys, while some query may see no others."""

    def forget(self) -> None:
        super().forget()
        self.decoder: AttentionDecoder | None = None
        self.state: AttentionState | None = None  # in place of the decoder where weights fade
        self.first: FirstKeys | None = None
        self.limit: int | None = None  # of the keys that exact queries see, as it was in the first call

    def attend(self, attention: ModelAttention, call: LayerCall) -> torch.Tensor:
        linear = check_linear(attention)
        if self.limit is None:
            self.limit = linear.exact_up_to
        if not self.limit:
            return call.dropped(self.linear_outputs(linear, call))
        check_one_mask(call)
        whole = call if self.first is None else self.first.before(call)
        if not self.has_sums and whole.num_keys <= self.limit:
            self.first = FirstKeys.of(whole, self.limit)
            return exact_outputs(whole)
        if not self.has_sums and self.first is not None:
            self.add_first(linear, call, self.first)
        output = with_exact_queries(whole, self.limit, call.dropped(self.linear_outputs(linear, call)))
        self.first = FirstKeys.of(whole, self.limit)
        if self.first.is_full(self.limit):
            self.first, self.limit = None, 0
        return output

    def add_first(self, linear: FeatureAttention, call: LayerCall, first: FirstKeys) -> None:
        """Begin the sums, with the keys of all earlier calls."""
        _, self.state = linear_attention(
            call.query[:, :, :1], first.key, first.value, linear.features_of(call),
            key_mask=first.mask, key_bias=first.bias, return_state=True, **call.common,
        )  # fmt: skip

    def linear_outputs(self, linear: FeatureAttention, call: LayerCall) -> torch.Tensor:
        """Add the keys of a call to the sums, and return the outputs of its queries."""
        features, options = linear.features_of(call), linear.state_options
        if options or call.key_bias is not None:
            return self.outputs_with_state(call, features, options)
        if self.decoder is None or self.decoder.features is not features:
            threads = linear.options.get("num_threads")
            self.decoder = AttentionDecoder(features, self.sums, num_threads=threads, **call.common)
            self.state = None
        return self.decoder.step(call.query, call.key, call.value, call.key_mask)

    def outputs_with_state(self, call: LayerCall, features: FeatureMap, options: dict[str, Any]) -> torch.Tensor:
        """Outputs of a call for which a decoder has no form."""
        output, self.state = linear_attention(
            call.query, call.key, call.value, features,
            is_causal=True, initial_state=self.sums, return_state=True, **call.common, **call.masks, **options,
        )  # fmt: skip
        self.decoder = None
        return output

    @property
    def has_sums(self) -> bool:
        """Whether keys have been added to sums."""
        return self.decoder is not None or self.state is not None

    @property
    def sums(self) -> AttentionState | None:
        """The sums over all keys so far; None before the first one."""
        return self.state if self.decoder is None else self.decoder.state

    def select(self, index: torch.Tensor) -> None:
        if self.decoder is not None:
            self.decoder.reorder(index)
        elif self.state is not None:
            self.state = selected(self.state, index.to(self.state.total.device))
        if self.first is not None:
            self.first = self.first.select(index)


class StateCache(StreamCache):
    """A cache for `generate()` with linear attention: sums over keys, whose size does not depend on their number.

        model.generate(tokens, cache=StateCache(model.config))

    The argument of `generate` is `past_key_values` in older versions of transformers.

    config : that of a model which runs with linear attention, `register(...)`.

    Each layer keeps an `AttentionState` for each sequence. So a token takes the same time after any number of others.
    Outputs are those without a cache (`use_cache=False`), up to rounding. With `method="auto"` a layer begins with
    exact attention: it keeps the first `exact_up_to` keys and values, and no sums as long as these are all. It drops
    them when every sequence of the batch is longer. Prompts may come in pieces (`prefill_chunk_size`). Padding on the
    left, beams and several sequences for a prompt work. Tokens cannot be taken out again, so `generate` refuses
    assistants.

    The sums of a layer and sequence are heads × num_features × (dv + 1) numbers, and 1 / group of that if the query
    heads of a group have one map in common: `register(..., share_maps=True)`, or a calibration. The first keys and
    values are at most exact_up_to × key heads × (d + dv) numbers, for each sequence of the batch.

    ValueError if the model does not run with linear attention: with a `window`, or `method="exact"`, there are no sums.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config, StateLayer)
        attention = attention_of(decoder_config(config))
        assert attention is not None
        check_linear(attention)


def check_one_mask(call: LayerCall) -> None:
    """ValueError for masks and biases that differ between heads: one set of first keys serves all of them."""
    for name, x in call.masks.items():
        if x.shape[1] > 1:
            raise ValueError(
                f"a StateCache with exact attention for the first keys needs one {name} for all heads, got the shape "
                f'{tuple(x.shape)}: register(..., method="linear").'
            )


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
        'CompressedCache, or register it with features, by method="auto" or "linear" and without a window.'
    )
