"""Caches for `generate()` that keep no keys: a layer of the cache answers for the keys of all earlier calls."""

import abc
from collections.abc import Callable
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from randfeat.integrations.transformers.attention import STREAM, ModelAttention
from randfeat.integrations.transformers.calls import LayerCall
from randfeat.integrations.transformers.masks import no_continuation

WITH_KEYS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Types of layers that have keys of their own; those with sliding windows run within the window."""


class StreamLayer(CacheLayerMixin):
    """The memory of a layer for all earlier keys, whose size does not depend on their number.

    `update` returns the new keys alone, and this layer with them: the attention function of the model reads them
    through `read`.
    """

    is_compileable = False
    is_croppable = False
    supports_early_init = False
    is_sliding = False
    batch_size: int

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.forget()

    def forget(self) -> None:
        """Return to the state before the first key."""
        self.length = 0
        self.is_read = True
        self.is_initialized = False
        self.__dict__.pop("batch_size", None)  # which transformers compares with that of the tokens

    @abc.abstractmethod
    def attend(self, attention: ModelAttention, call: LayerCall) -> torch.Tensor:
        """Outputs of queries at the positions of the new keys; they see all earlier keys, and the new ones causally."""

    @abc.abstractmethod
    def select(self, index: torch.Tensor) -> None:
        """Continue with the sequences of these indices, some of which may be repeated or missing."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        check_attention(self.config)
        if not self.is_read:
            raise ValueError(
                f"{type(self).__name__}: the keys of the last call did not reach the attention function of randfeat. "
                "If that call raised an error, reset() the cache and begin again with the whole text; otherwise this "
                "cache cannot serve the model: use transformers.DynamicCache."
            )
        if self.is_initialized and len(key_states) != self.batch_size:
            raise ValueError(
                f"this cache has the keys of {self.batch_size} sequences, got {len(key_states)}: reset() it before "
                "other texts."
            )
        self.length += key_states.shape[-2]
        self.batch_size = len(key_states)
        self.is_read, self.is_initialized = False, True
        setattr(key_states, STREAM, self)
        return key_states, value_states

    def read(self, attention: ModelAttention, call: LayerCall) -> torch.Tensor:
        """`attend`, after checks; if it raises an error, the cache is of no use until it is reset."""
        self.check(call)
        output = self.attend(attention, call)
        self.is_read = True
        return output

    def check(self, call: LayerCall) -> None:
        """Check that a call is the continuation of the sequences so far."""
        if call.packing is not None:
            raise ValueError("packed sequences have no stream cache: give one sequence in each row, or no cache.")
        if not call.is_causal or call.offset or call.num_queries != call.num_keys:
            raise ValueError("a stream cache is for causal self-attention: use transformers.DynamicCache.")

    def check_positions(self, positions: Any, num_new: int) -> None:
        """Check that several new tokens without a mask have later positions than those before, where that is known."""
        if num_new < 2 or not isinstance(positions, torch.Tensor) or positions.ndim != 2:
            return
        before, first = self.length - num_new, int(positions.min())
        if first < before:
            raise ValueError(no_continuation(before, f"the new ones have positions from {first} on"))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, self.length

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # the name in transformers 5.4

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: what is remembered takes its shape from the first keys."""

    def reset(self) -> None:
        self.forget()

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        if self.is_initialized:
            self.select(beam_idx)
            self.batch_size = len(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            self.reorder_cache(torch.arange(self.batch_size).repeat_interleave(repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if self.is_initialized:
            self.reorder_cache(torch.arange(self.batch_size, device=indices.device)[indices])

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove:
            raise ValueError(
                "keys that were summed or merged cannot be taken out again, as assisted decoding needs it: generate "
                "without an assistant, or with transformers.DynamicCache."
            )

    def offload(self) -> None:
        """Nothing: the memory is small."""

    prefetch = offload


class StreamCache(Cache):
    """A cache of stream layers, one for each attention layer of a decoder."""

    def __init__(self, config: Any, make_layer: Callable[[Any], StreamLayer]) -> None:
        config = decoder_config(config)
        types: list[str] = getattr(config, "layer_types", None) or []
        others, num_shared = set(types) - WITH_KEYS, getattr(config, "num_kv_shared_layers", 0)
        if others or num_shared:
            what = f"layers of the types {sorted(others)}" if others else "layers that read the keys of other layers"
            raise ValueError(
                f"{type(self).__name__} is for models whose layers have keys of their own, but this one has {what}: "
                "use transformers.DynamicCache."
            )
        check_attention(config)
        super().__init__(layers=[make_layer(config) for _ in range(config.num_hidden_layers)])


def decoder_config(config: Any) -> Any:
    """The config of the text decoder of a model, from `model.config`."""
    if not hasattr(config, "get_text_config"):
        raise TypeError(f"config must be the config of a model, model.config, got {type(config).__name__}.")
    return config.get_text_config(decoder=True)


def attention_of(config: Any) -> ModelAttention | None:
    """The attention of randfeat that a model with this config runs with; None for other kinds."""
    found = AttentionInterface().get(config._attn_implementation)
    return found if isinstance(found, ModelAttention) else None


def check_attention(config: Any) -> None:
    """ValueError if the model does not run with an attention of randfeat, which alone reads such a cache."""
    if attention_of(config) is None:
        raise ValueError(
            f"this model runs with attn_implementation={config._attn_implementation!r}, which cannot read a cache "
            'without keys: call register(...) and model.set_attn_implementation("randfeat") first, or use '
            "transformers.DynamicCache."
        )
