"""Window: exact weights around each query, and features for everything outside, under one normalizer."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

from randfeat._array import namespace
from randfeat._hints import short
from randfeat.attention.generic import chunks
from randfeat.attention.generic.near import near_partial, sink_partial
from randfeat.attention.generic.passes import Passed, causal_pass
from randfeat.attention.inputs import Inputs
from randfeat.attention.partial import PartialOutput
from randfeat.attention.relations.base import Relation, Setting, as_int
from randfeat.attention.relations.work import Sizes, Work, feature_work, pair_work
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap


@dataclass(frozen=True, eq=False)
class Window(Relation):
    """Keys at a distance |i + offset - j| < width have their exact weights, and so have the first `num_sinks` keys.

    All others have those of the features. It changes nothing for exact attention.
    """

    width: int = field(kw_only=True)
    num_sinks: int = field(default=0, kw_only=True)

    @classmethod
    def of(cls, option: Any, setting: Setting) -> Self:
        if as_int(option, "window") < 0:
            raise ValueError(f"window must not be negative, got {short(option)}.")
        if setting.inputs.key_bias is not None:
            raise ValueError("window cannot be combined with key_bias; a mask of keys is key_mask.")
        if setting.num_sinks < 0:
            raise ValueError(f"num_sinks must not be negative, got {setting.num_sinks}.")
        if setting.num_sinks and setting.has_state:
            raise ValueError(
                "num_sinks cannot be combined with a state, which does not hold the first keys themselves."
            )
        return cls(setting.is_causal, setting.offset, width=int(option), num_sinks=setting.num_sinks)

    @property
    def has_fast_form(self) -> bool:
        return True

    def sinks(self, num_keys: int) -> int:
        """The number of sinks among so many keys."""
        return min(self.num_sinks, num_keys)

    def offset_before(self, num_keys: int) -> int:
        """The offset at which the keys before the window, from the first that is no sink on, are causal attention."""
        return self.offset - self.width - self.sinks(num_keys)

    def offset_after(self, num_queries: int, num_keys: int) -> int:
        """The offset, counted from the last positions, at which the keys after the window are causal attention."""
        return num_keys - num_queries - max(self.width, 1)

    def attend(self, inputs: Inputs, features: FeatureMap, state: AttentionState) -> Passed:
        """`Σ_near K_ij v_j + Σ_far K̂_ij v_j` over the sum of the weights.

        What is far is never obtained by subtracting what is near: the keys before the window are a causal pass with the
        offset reduced by it, those after it the same pass from the other end. So weights stay positive where they are,
        and causal outputs do not depend on later keys. Both sums have their absolute size, kernel and estimate of the
        kernel, so that they may be added. The cost beside the features' is that of L · 2 width (L · width if causal)
        exact weights, and L · num_sinks.
        """
        num_sinks, kernel = self.sinks(inputs.num_keys), features.estimator.kernel
        far = inputs.part(slice(None), slice(num_sinks, None))
        outputs, final = causal_pass(far, features, state, offset=self.offset_before(inputs.num_keys))
        result = PartialOutput.concat(outputs)
        if not self.is_causal:
            nothing = AttentionState.empty(
                features.num_features,
                inputs.value.shape[-1],
                like=inputs.value,
                batch_shape=inputs.leading_shape(features),
            )
            after = self.offset_after(inputs.num_queries, inputs.num_keys)
            outputs, _ = causal_pass(reversed_inputs(far), features, nothing, offset=after)
            result = result.merge(reversed_rows(PartialOutput.concat(outputs)))
        if self.width:
            near = near_partial(inputs, kernel, window=self.width, offset=self.offset, is_causal=self.is_causal)
            result = result.merge(near)
        if num_sinks:
            sinks = inputs.part(slice(None), slice(0, num_sinks))
            result = result.merge(
                sink_partial(sinks, kernel, window=self.width, offset=self.offset, is_causal=self.is_causal)
            )
        return [result], final

    def linear_work(self, sizes: Sizes) -> Work:
        rows = sizes.query_heads * sizes.num_queries + sizes.key_heads * sizes.num_keys
        span = self.width if self.is_causal else 2 * self.width
        near = min(span + chunks.CAUSAL_CHUNK, sizes.num_keys) if self.width else 0
        exact = pair_work(sizes, sizes.query_heads * sizes.num_queries * (near + self.num_sinks), passes=2)
        return exact | feature_work(sizes, rows if self.is_causal else 2 * rows, is_causal=True)


def reversed_inputs(inputs: Inputs) -> Inputs:
    """The inputs from the last position to the first."""
    xp = namespace(inputs.query)
    query, key, value = (xp.flip(x, axis=-2) for x in (inputs.query, inputs.key, inputs.value))
    mask = None if inputs.key_mask is None else xp.flip(inputs.key_mask, axis=-1)
    return replace(inputs, query=query, key=key, value=value, key_mask=mask)


def reversed_rows(partial: PartialOutput) -> PartialOutput:
    """The outputs from the last query to the first."""
    xp = namespace(partial.numerator)
    return PartialOutput(*(xp.flip(x, axis=-2) for x in partial.columns))
