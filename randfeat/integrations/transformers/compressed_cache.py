"""CompressedCache: recent keys of each layer as they are, and a few merged keys for all older ones."""

from functools import partial
from typing import Any

import torch

from randfeat.compressed import CompressedState
from randfeat.compressed.padding import trimmed
from randfeat.integrations.transformers.attention import ModelAttention
from randfeat.integrations.transformers.calls import LayerCall
from randfeat.integrations.transformers.merged import CompressedAttention
from randfeat.integrations.transformers.streams import StreamCache, StreamLayer, attention_of, decoder_config


class CompressedLayer(StreamLayer):
    """The stream of a key cache in a layer."""

    state: CompressedState | None = None

    def __init__(self, config: Any, stream: CompressedAttention) -> None:
        self.stream = stream
        super().__init__(config)

    def forget(self) -> None:
        super().forget()
        self.state = None

    def attend(self, attention: ModelAttention, call: LayerCall) -> torch.Tensor:
        output, self.state = self.stream.attend_stream(call, self.state)
        return call.dropped(output)

    def select(self, index: torch.Tensor) -> None:
        if self.state is not None:
            self.state = trimmed(self.state.select(index.cpu().numpy()))


class CompressedCache(StreamCache):
    """A cache for `generate()` with bounded memory: exact recent keys, and few merged ones for all older keys.

        model.generate(tokens, cache=CompressedCache(model.config, num_keys=64, window=64, num_sinks=4))

    The argument of `generate` is `past_key_values` in older versions of transformers.

    config : that of a model which runs with an attention of randfeat, by whatever method: this cache decides how
        earlier keys are read, as `randfeat.compressed_attention(..., is_causal=True)` does. Nothing is calibrated.
    num_keys, window, num_sinks, fit : as of `compressed_attention`; by default those of
        `register(method="compressed", ...)`, and otherwise 64, 64, 0 and False. In language models the first keys have
        much of the weight: take `num_sinks=4`.
    rng : the seed of the merging, by default that of the registered attention.

    Each layer keeps, for each key head and sequence, `num_keys + 2 window` rows, beside the sinks and a sample of about
    2 `num_keys` queries that rows are merged for. The query heads of a group share the rows of their key head.
    Outputs are exact up to `num_sinks + num_keys + window` tokens, and approximate after that. Prompts may come in
    pieces, which change nothing. Padding on the left, beams and several sequences for a prompt work. Tokens cannot be
    taken out again, so `generate` refuses assistants.
    """

    def __init__(
        self,
        config: Any,
        *,
        num_keys: int | None = None,
        window: int | None = None,
        num_sinks: int | None = None,
        fit: bool | None = None,
        rng: int | None = None,
    ) -> None:
        given = {"num_keys": num_keys, "window": window, "num_sinks": num_sinks, "fit": fit}
        attention = attention_of(decoder_config(config))
        options = dict(attention.options) if isinstance(attention, CompressedAttention) else {}
        options |= {name: option for name, option in given.items() if option is not None}
        stream = CompressedAttention(0 if attention is None else attention.rng if rng is None else rng, options)
        super().__init__(config, partial(CompressedLayer, stream=stream))
