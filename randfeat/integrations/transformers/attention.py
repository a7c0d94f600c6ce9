"""The attention function of a model: what every method has in common."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from randfeat._array import as_bool
from randfeat.integrations.transformers.calls import LayerCall
from randfeat.integrations.transformers.keywords import check_keywords
from randfeat.integrations.transformers.masks import options_of
from randfeat.integrations.transformers.packing import Packing
from randfeat.integrations.transformers.storing import check_known, note_known

STREAM = "randfeat_layer"
"""Attribute of the new keys of a call: the layer of a cache that answers for all earlier ones."""


@dataclass(frozen=True, eq=False)
class ModelAttention(abc.ABC):
    """The attention function of a model; made by `register`.

    rng : the seed, from which every layer has its own.
    options : keywords of the operator for every layer.
    """

    rng: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.rng, int):
            raise TypeError(f"rng must be an int, from which every layer has its seed, got {type(self.rng).__name__}.")
        self.check()
        note_known(self.description)

    @abc.abstractmethod
    def check(self) -> None:
        """Errors for fields that are not possible."""

    @abc.abstractmethod
    def attend(self, call: LayerCall) -> torch.Tensor:
        """Outputs (batch, heads, L, dv) of a call whose keys are all there, with the dropout of the call."""

    @property
    @abc.abstractmethod
    def method(self) -> str:
        """The word for it in `register`."""

    @property
    def description(self) -> dict[str, Any]:
        """Everything that determines the outputs, as `randfeat.save` takes it."""
        options = {
            name: option.detach().cpu().numpy() if isinstance(option, torch.Tensor) else option
            for name, option in self.options.items()
        }
        return {"rng": self.rng, "options": options}

    def seed(self, layer: int) -> np.random.SeedSequence:
        """The seed of a layer."""
        return np.random.SeedSequence(self.rng, spawn_key=(layer,))

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

        While a model is trained, `dropout` is that of the outputs: single weights are computed for short texts alone.
        """
        check_known(module)
        stream = getattr(key, STREAM, None)
        is_single_masked = attention_mask is not None and query.shape[2] == 1 and stream is None
        num_keys = key.shape[2] if stream is None else stream.get_seq_length()
        check_keywords(others, sliding_window, num_keys, masked=is_single_masked)
        if stream is not None and attention_mask is None:
            stream.check_positions(others.get("position_ids"), query.shape[2])
        causal = as_bool(getattr(module, "is_causal", True) if is_causal is None else is_causal, "is_causal")
        mask = options_of(attention_mask)
        packing = Packing.of(len(query), mask.pop("cu_seqlens", None), cu_seq_lens_q, cu_seq_lens_k, seq_idx)
        call = LayerCall.of(
            mask, packing, layer=layer_of(module), query=query, key=key, value=value, scale=scaling,
            is_causal=causal, has_mask=attention_mask is not None, dropout=dropout,
        )  # fmt: skip
        output = self.attend(call) if stream is None else stream.read(self, call)
        output = output if packing is None else packing.unpacked(output)
        return output.transpose(1, 2).contiguous(), None


def layer_of(module: torch.nn.Module) -> int:
    """Number of an attention module; modules without one count as layer 0 and share its features."""
    number = getattr(module, "layer_idx", None)
    return 0 if number is None else int(number)
