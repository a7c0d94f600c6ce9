"""Window: exact weights around each query, and features for everything outside, under one normalizer."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

from randfeat._array import Array, namespace
from randfeat._hints import short
from randfeat.attention.generic import chunks
from randfeat.attention.generic.near import near_partial, sink_partial
from randfeat.attention.generic.near_gradient import near_gradients, sink_gradients
from randfeat.attention.generic.passes import Passed, causal_pass
from randfeat.attention.generic.sweeps import Gradients, Kept, causal_sweeps
from randfeat.attention.inputs import Inputs
from randfeat.attention.partial import PartialOutput
from randfeat.attention.relations.base import Relation, Setting, as_int
from randfeat.attention.relations.work import Sizes, Work, feature_work, pair_work
from randfeat.attention.state import AttentionState
from randfeat.kernels import Kernel, SoftmaxKernel
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
            raise ValueError(f"num_sinks must not be negative, got {short(setting.num_sinks)}.")
        if setting.num_sinks and setting.has_state:
            raise ValueError(
                "num_sinks cannot be combined with a state, which does not hold the first keys themselves."
            )
        return cls(setting.is_causal, setting.offset, width=int(option), num_sinks=setting.num_sinks)

    def has_fast_form(self, kernel: Kernel) -> bool:
        return type(kernel) is SoftmaxKernel

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
            after = self.offset_after(inputs.num_queries, inputs.num_keys)
            outputs, _ = causal_pass(reversed_inputs(far), features, no_keys(inputs, features), offset=after)
            result = result.merge(PartialOutput(*map(backwards, PartialOutput.concat(outputs).columns)))
        if self.width:
            result = result.merge(near_partial(inputs, kernel, **self.near))
        if num_sinks:
            result = result.merge(sink_partial(inputs.part(slice(None), slice(0, num_sinks)), kernel, **self.near))
        return [result], final

    @property
    def near(self) -> dict[str, Any]:
        """The window as keywords."""
        return {"window": self.width, "offset": self.offset, "is_causal": self.is_causal}

    def pull_back(self, inputs: Inputs, features: FeatureMap, gradient: Array, state: AttentionState) -> Gradients:
        """The same parts once more, from the sums of all of them, which are kept for each query."""
        (output,), _ = self.attend(inputs, features, state)
        kept = Kept.of(output, gradient)
        num_sinks, kernel = self.sinks(inputs.num_keys), features.estimator.kernel
        far = inputs.part(slice(None), slice(num_sinks, None))
        of_queries, of_far = [], []
        in_query, *others = causal_sweeps(
            far, features, gradient, state, offset=self.offset_before(inputs.num_keys), known=kept
        )
        of_queries.append(in_query)
        of_far.append(others)
        if not self.is_causal:
            in_query, *others = map(
                backwards,
                causal_sweeps(
                    reversed_inputs(far),
                    features,
                    backwards(gradient),
                    no_keys(inputs, features),
                    offset=self.offset_after(inputs.num_queries, inputs.num_keys),
                    known=Kept(*map(backwards, kept.columns)),
                ),
            )
            of_queries.append(in_query)
            of_far.append(others)
        xp = namespace(gradient)
        in_key, in_value = (sum(column[1:], column[0]) for column in zip(*of_far, strict=True))
        if num_sinks:
            sinks = inputs.part(slice(None), slice(0, num_sinks))
            in_query, *others = sink_gradients(sinks, kernel, gradient, kept, **self.near)
            of_queries.append(in_query)
            in_key, in_value = (xp.concat(pair, axis=-2) for pair in zip(others, (in_key, in_value), strict=True))
        if self.width:
            in_query, *others = near_gradients(inputs, kernel, gradient, kept, **self.near)
            of_queries.append(in_query)
            in_key, in_value = in_key + others[0], in_value + others[1]
        return sum(of_queries[1:], of_queries[0]), in_key, in_value

    def linear_work(self, sizes: Sizes) -> Work:
        rows = sizes.query_heads * sizes.num_queries + sizes.key_heads * sizes.num_keys
        span = self.width if self.is_causal else 2 * self.width
        near = min(span + chunks.CAUSAL_CHUNK, sizes.num_keys) if self.width else 0
        exact = pair_work(sizes, sizes.query_heads * sizes.num_queries * (near + self.num_sinks), passes=2)
        return exact | feature_work(sizes, rows if self.is_causal else 2 * rows, is_causal=True)


def reversed_inputs(inputs: Inputs) -> Inputs:
    """The inputs from the last position to the first."""
    xp = namespace(inputs.query)
    query, key, value = map(backwards, (inputs.query, inputs.key, inputs.value))
    mask = None if inputs.key_mask is None else xp.flip(inputs.key_mask, axis=-1)
    return replace(inputs, query=query, key=key, value=value, key_mask=mask)


def backwards(x: Array) -> Array:
    """The rows of x (..., n, c) from the last to the first."""
    return namespace(x).flip(x, axis=-2)


def no_keys(inputs: Inputs, features: FeatureMap) -> AttentionState:
    """The state before the first key."""
    lead, value = inputs.leading_shape(features), inputs.value
    return AttentionState.empty(features.num_features, value.shape[-1], like=value, batch_shape=lead)
