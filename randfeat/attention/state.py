"""AttentionState: everything that linear attention remembers of the keys and values it has seen."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from randfeat._array import (
    Array,
    as_bool,
    as_floating,
    cast,
    compute_dtype,
    copied,
    device_of,
    from_host,
    host_to,
    is_on_host,
    log_of,
    namespace,
    own_precision,
    replace_minus_inf,
)
from randfeat._hints import short
from randfeat.attention.partial import PartialOutput, key_weights, query_weights
from randfeat.features import Features
from randfeat.maps import FeatureMap


@dataclass(frozen=True, eq=False)
class AttentionState:
    """The sums over keys from which outputs are computed; the memory does not depend on the number of keys.

    With key features `values_jf exp(log_jf)` and `c_f = max_j log_jf`, per feature f:

        log_max (..., 1, f or 1)    c_f, -inf before the first key,
        weighted (..., f, dv)       Σ_j values_jf exp(log_jf - c_f) v_j,
        total (..., f, 1)           Σ_j values_jf exp(log_jf - c_f).

    `append` adds keys. `merge` joins the states of two parts of a sequence, which may be cut anywhere. The order of
    merging does not matter. Merging with `empty` changes nothing. For the outputs, c_f is added to the `log_scale` of
    the query features, so nothing overflows for any finite logits. With positive features the largest term of every
    denominator is 1 after scaling: there is no epsilon. States are immutable and in the computing dtype (float32 for
    float16 and bfloat16).

    Source: Milakov & Gimelshein 2018, "Online normalizer calculation for softmax", for the running maximum; here there
        is one maximum for each feature.
    """

    log_max: Array
    weighted: Array
    total: Array
    origin: FeatureMap | str | None = None
    """The feature map of the keys, or its fingerprint, if known. States of other maps then raise an error."""

    def __repr__(self) -> str:
        log_max, weighted, total = (tuple(getattr(array, "shape", ())) for array in self.arrays)
        return f"AttentionState of shapes log_max={log_max}, weighted={weighted}, total={total}"

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the feature map, or None if it is not known; computed on the host when it is read."""
        return self.origin.fingerprint if isinstance(self.origin, FeatureMap) else self.origin

    def check_origin(self, other: FeatureMap | str | None) -> None:
        """ValueError if this state and `other` are known to be of different feature maps."""
        if self.origin is None or other is None or self.origin is other:
            return
        mine, theirs = self.fingerprint, other.fingerprint if isinstance(other, FeatureMap) else other
        if mine is not None and theirs is not None and mine != theirs:
            raise ValueError(
                "the state was made with another feature map: its sums mean nothing to these features. Continue with "
                "the map that it was made with (randfeat.save and load keep maps), or start anew."
            )

    @classmethod
    def empty(
        cls,
        num_features: int,
        value_dim: int,
        *,
        like: Array,
        batch_shape: tuple[int, ...] = (),
        per_feature: bool = False,
    ) -> "AttentionState":
        """The state before the first key, in the namespace, device and computing dtype of `like`.

        `batch_shape` can be left out: the state gets the leading dimensions of the first keys. With `per_feature`,
        `log_max` has one number for each feature from the start. Then the shapes do not change with the first keys, as
        the carry of `jax.lax.scan` needs it; give `batch_shape` there, too.
        """
        width = num_features if as_bool(per_feature, "per_feature") else 1
        like = as_floating(like, "like")
        xp = namespace(like)
        options = {"dtype": compute_dtype(xp, like.dtype), "device": device_of(like)}
        return cls(
            xp.full((*batch_shape, 1, width), -xp.inf, **options),
            xp.zeros((*batch_shape, num_features, value_dim), **options),
            xp.zeros((*batch_shape, num_features, 1), **options),
        )

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """The maxima, weighted sums and totals, in the order of the fields."""
        return self.log_max, self.weighted, self.total

    def copied(self) -> "AttentionState":
        """The same state in memory of its own."""
        return AttentionState(copied(self.log_max), copied(self.weighted), copied(self.total), self.origin)

    def like(self, *arrays: Array) -> "AttentionState":
        """This state of NumPy arrays, which nobody else holds, in the library and on the device of `arrays`."""
        log_max, weighted, total = (from_host(x, *arrays) for x in self.arrays)
        return AttentionState(log_max, weighted, total, self.origin)

    def append(self, keys: Features, values: Array) -> "AttentionState":
        """The state after more keys (..., k, f) with their values (..., k, dv)."""
        xp = namespace(self.total, keys.values, values)
        values = cast(values, self.total.dtype)
        weights, log_max = key_weights(keys)
        weights = xp.matrix_transpose(weights)
        with own_precision(weights):
            weighted = weights @ values
        return self.merge(AttentionState(log_max, weighted, xp.sum(weights, axis=-1, keepdims=True)))

    def merge(self, other: "AttentionState") -> "AttentionState":
        """The state of both parts together; associative, and commutative up to rounding."""
        self.check_origin(other.origin)
        xp = namespace(self.total, other.total)
        log_max = xp.maximum(self.log_max, other.log_max)
        shift = replace_minus_inf(log_max)
        mine = xp.matrix_transpose(xp.exp(self.log_max - shift))
        theirs = xp.matrix_transpose(xp.exp(other.log_max - shift))
        return AttentionState(
            log_max,
            self.weighted * mine + other.weighted * theirs,
            self.total * mine + other.total * theirs,
            self.origin if self.origin is not None else other.origin,
        )

    def decay(self, factor: Any) -> "AttentionState":
        """The state with all its sums multiplied by `factor` >= 0: a number, or (..., 1, 1) or (..., 1, f).

        Only the keys so far are multiplied: keys that are appended later have their full weight. If no keys are
        appended, one factor for all features changes no output, because it cancels in the ratio. Different factors for
        the features do change outputs.
        """
        if is_on_host(factor):
            host = np.asarray(factor, dtype=np.float64)
            if not np.all((host >= 0) & np.isfinite(host)):
                raise ValueError(f"factor must be finite and not negative, got {short(factor)}.")
            return self.scaled(host_to(log_of(host), self.log_max))
        return self.scaled(cast(log_of(factor), self.log_max.dtype))

    def scaled(self, log_factor: Array) -> "AttentionState":
        """The state times `exp(log_factor)`: `decay` in the logarithm."""
        return replace(self, log_max=self.log_max + log_factor)

    def read(self, queries: Features) -> Array:
        """The normalized outputs (..., n, dv) for query features (..., n, f); zero while the state is empty."""
        return self.partial(queries).normalized()

    def partial(self, queries: Features) -> PartialOutput:
        """Numerators and denominators of the outputs, which can be merged with sums over other keys."""
        weights, log_scale = query_weights(queries, self.log_max)
        with own_precision(weights):
            return PartialOutput(weights @ self.weighted, weights @ self.total, log_scale)
