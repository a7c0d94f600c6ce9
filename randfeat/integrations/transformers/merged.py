"""Clustered and compressed attention in a model: without features, and without a calibration."""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from randfeat.attention import softmax_attention
from randfeat.attention.cost_model.sizes import NUM_KEYS
from randfeat.compressed import CompressedState, clustered_attention, compressed_attention
from randfeat.compressed.options import Options
from randfeat.integrations.transformers.alone import each_alone
from randfeat.integrations.transformers.attention import ModelAttention
from randfeat.integrations.transformers.calls import LayerCall
from randfeat.kernels import SoftmaxKernel


@dataclass(frozen=True, eq=False)
class MergedAttention(ModelAttention):
    """Softmax attention to merged keys, which are made in each call, for its own queries."""

    allowed: ClassVar[tuple[str, ...]]
    """The options that can be given to a model."""

    def check(self) -> None:
        unknown = [name for name in self.options if name not in self.allowed]
        if unknown:
            raise TypeError(
                f"a model got {', '.join(unknown)}, expected the options of method={self.method!r}: "
                f"{', '.join(self.allowed)}."
            )
        self.check_values()

    def check_values(self) -> None:
        """Errors of the operator for its options."""
        nothing = np.zeros((1, 1, 1))
        self.run(nothing, nothing, nothing, rng=0)

    @property
    def description(self) -> dict[str, Any]:
        return {"kernel": SoftmaxKernel(), "method": self.method, **super().description}

    @abc.abstractmethod
    def outputs(self, call: LayerCall) -> torch.Tensor:
        """Outputs (batch, heads, L, dv) of a call whose keys are all there."""

    def attend(self, call: LayerCall) -> torch.Tensor:
        return call.dropped(self.outputs(call))

    @abc.abstractmethod
    def run(self, query: Any, key: Any, value: Any, **options: Any) -> Any:
        """Bidirectional attention of one sequence or several, without masks."""

    @abc.abstractmethod
    def is_exact(self, num_queries: int, num_keys: int) -> bool:
        """Whether the operator computes exact attention for so many; then it does so for fewer, too."""

    def attend_both_ways(self, call: LayerCall) -> torch.Tensor:
        """Outputs of queries that see all keys of their sequence."""
        call = call.with_own_keys()
        if call.packing is None and self.is_exact(call.num_queries, call.num_keys):
            return softmax_attention(call.query, call.key, call.value, **call.common, **call.masks)
        return each_alone(call, self.run, rng=self.seed(call.layer))


@dataclass(frozen=True, eq=False)
class ClusteredAttention(MergedAttention):
    """`randfeat.clustered_attention` in a model whose queries see all keys."""

    method = "clustered"
    allowed: ClassVar[tuple[str, ...]] = (
        "num_clusters", "num_exact", "num_merged", "accuracy", "second_order", "num_threads",
    )  # fmt: skip

    def run(self, query: Any, key: Any, value: Any, **options: Any) -> Any:
        return clustered_attention(query, key, value, **self.options, **options)

    def is_exact(self, num_queries: int, num_keys: int) -> bool:
        clusters, near, merged, accuracy = (
            self.options.get(name) for name in ("num_clusters", "num_exact", "num_merged", "accuracy")
        )
        options = Options.of(clusters, near, merged, None, accuracy, second_order=False)
        return options.is_dearer_than_exact(num_queries, num_keys)

    def outputs(self, call: LayerCall) -> torch.Tensor:
        if call.is_causal:
            raise ValueError(
                "clusters of queries are fitted to the whole sequence, so a causal layer would see later tokens: "
                'register it with method="compressed".'
            )
        return self.attend_both_ways(call)


@dataclass(frozen=True, eq=False)
class CompressedAttention(MergedAttention):
    """`randfeat.compressed_attention` in a model, in both directions or causal."""

    method = "compressed"
    allowed: ClassVar[tuple[str, ...]] = ("num_keys", "window", "num_sinks", "fit")

    def check_values(self) -> None:
        nothing = np.zeros((1, 1, 1))
        compressed_attention(nothing, nothing, nothing, is_causal=True, **self.options)

    def run(self, query: Any, key: Any, value: Any, **options: Any) -> Any:
        given = {name: self.options[name] for name in ("num_keys", "fit") if name in self.options}
        return compressed_attention(query, key, value, **given, **options)

    def is_exact(self, num_queries: int, num_keys: int) -> bool:
        return num_keys <= (self.options.get("num_keys") or NUM_KEYS)

    def outputs(self, call: LayerCall) -> torch.Tensor:
        if not call.is_causal:
            return self.attend_both_ways(call)
        if call.packing is not None:
            return each_alone(call, self.run_causally, rng=self.seed(call.layer))
        call = call.up_to_last_query()
        if call.offset == 0:
            return self.attend_stream(call, None)[0]
        return softmax_attention(
            call.query, call.key, call.value, is_causal=True, causal_offset=call.offset, **call.common, **call.masks
        )  # the cache has all keys, but not the queries that they would be merged for

    def run_causally(self, query: Any, key: Any, value: Any, **options: Any) -> Any:
        """Causal attention of one sequence."""
        return compressed_attention(query, key, value, is_causal=True, **self.options, **options)

    def attend_stream(self, call: LayerCall, state: CompressedState | None) -> tuple[torch.Tensor, CompressedState]:
        """Outputs of consecutive queries, and the state after them; padding is no reference for merging."""
        call = call.with_bias_as_mask()
        if call.key_bias is not None:
            raise ValueError("biases of keys have no form in a causal stream: give a mask of padding, or no bias.")
        mask = call.key_mask
        if mask is not None and mask.shape[1] > 1:
            raise ValueError(f"a causal stream needs one mask for all heads, got the shape {tuple(mask.shape)}.")
        given = {} if mask is None else {"key_mask": mask, "query_mask": mask}
        given |= {"initial_state": state} if state is not None else {**self.options, "rng": self.seed(call.layer)}
        output, state = compressed_attention(
            call.query, call.key, call.value, is_causal=True, return_state=True, **given, **call.common
        )
        return output, state
