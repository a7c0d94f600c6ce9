"""AttentionDecoder: causal linear attention, a few tokens at a time."""

from dataclasses import replace
from typing import Any

import numpy as np

from randfeat._array import (
    Array,
    as_bool,
    as_count,
    as_floating,
    as_integers,
    device_of,
    is_on_host,
    namespace,
)
from randfeat._hints import hinted
from randfeat.attention.linear import linear_attention
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap, check_feature_map


class AttentionDecoder:
    """Causal linear attention, a few tokens at a time: together, the outputs of one causal pass over all tokens.

    features : the feature map, as of `linear_attention`.
    state : the sums over earlier keys, as `linear_attention` returns them. None for sequences that begin.
    scale, enable_gqa, num_threads : as of `linear_attention`, for every call.

    >>> import numpy as np, randfeat as rf
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 2, 8, 100, 16))  # (batch, heads, length, dim)
    >>> phi = rf.PositiveFeatures().draw(dim=16, num_features=64, rng=0, batch_shape=(8,))
    >>> decoder = rf.AttentionDecoder(phi)
    >>> prompt = decoder.step(q[..., :98, :], k[..., :98, :], v[..., :98, :])
    >>> token = decoder.step(q[..., 98:99, :], k[..., 98:99, :], v[..., 98:99, :])
    >>> decoder.append(k[..., 99:, :], v[..., 99:, :])
    >>> whole, state = rf.linear_attention(q, k, v, phi, is_causal=True, return_state=True)
    >>> bool(np.allclose(token, whole[..., 98:99, :])), bool(np.allclose(decoder.state.total, state.total))
    (True, True)
    """

    @hinted
    def __init__(
        self,
        features: FeatureMap,
        state: AttentionState | None = None,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
        num_threads: int | None = None,
    ) -> None:
        check_feature_map(features)
        if state is not None:
            check_state(state, features)
        self.features = features
        self._state = state
        self._grouped = as_bool(enable_gqa, "enable_gqa")
        self._options: dict[str, Any] = {"scale": scale, "enable_gqa": self._grouped, "num_threads": num_threads}
        self._num_keys = 0

    def __repr__(self) -> str:
        return f"AttentionDecoder({self.features!r}, num_keys={self.num_keys})"

    @property
    def state(self) -> AttentionState | None:
        """The sums over all keys so far, a copy, as `linear_attention` takes them; None before the first key."""
        return self._state

    @property
    def num_keys(self) -> int:
        """The number of keys that `step` and `append` have added to each sequence, masked ones included."""
        return self._num_keys

    def step(self, query: Any, key: Any, value: Any, key_mask: Any = None) -> Array:
        """Add keys, and return the outputs of their queries: (..., L, d), (..., L, d), (..., L, dv) -> (..., L, dv).

        Query i sees all earlier keys, and those of this call up to its own.

        key_mask : bool, (L,) or the shape of `key` without its last dimension. True: the key takes part.
        """
        query, key = as_floating(query, "query"), as_floating(key, "key")
        if query.ndim > 1 and key.ndim > 1 and query.shape[-2] != key.shape[-2]:
            raise ValueError(
                f"step takes one query for each key, got {query.shape[-2]} and {key.shape[-2]}; "
                "append takes keys without queries."
            )
        output, state = linear_attention(
            query, key, value, self.features,
            is_causal=True, key_mask=key_mask, initial_state=self._state, return_state=True, **self._options,
        )  # fmt: skip
        self._state = state
        self._num_keys += key.shape[-2]
        return output

    def append(self, key: Any, value: Any, key_mask: Any = None) -> None:
        """Add keys (..., S, d) with their values (..., S, dv), for whose queries no output is needed."""
        key = as_floating(key, "key")
        _, self._state = linear_attention(
            self._unread(key), key, value, self.features,
            key_mask=key_mask, initial_state=self._state, return_state=True, **self._options,
        )  # fmt: skip
        self._num_keys += key.shape[-2]

    def reorder(self, index: Any) -> None:
        """Continue with the sequences `index`, integers (n,) into the first leading dimension.

        For beams, and for batches of which some sequences have ended: an index may be repeated, or missing.
        """
        if self._state is None:
            return
        state = self._state
        index = as_integers(index, "index", state.total)
        size = self._batch_size(state)
        if index.ndim != 1:
            raise ValueError(f"index must be integers of shape (n,), got shape {tuple(index.shape)}.")
        if is_on_host(index) and index.size and not 0 <= index.min() <= index.max() < size:
            raise IndexError(f"index must be between 0 and {size - 1}, got {int(index.min())} .. {int(index.max())}.")
        self._state = selected(state, index)

    def repeat(self, num: int) -> None:
        """Continue each sequence `num` times, as consecutive entries of the first leading dimension."""
        num = as_count(num, "num")
        if self._state is not None:
            self.reorder(np.repeat(np.arange(self._batch_size(self._state)), num))

    def _batch_size(self, state: AttentionState) -> int:
        """Length of the first leading dimension, which must not be that of the heads."""
        lead, maps = state.total.shape[:-2], self.features.batch_shape
        if len(lead) < 1 + 2 * self._grouped or (maps and len(maps) + self._grouped >= len(lead) and maps[0] != 1):
            raise ValueError(
                f"the sums have the leading dimensions {tuple(lead)}, without a batch before those of the heads."
            )
        return lead[0]

    def _unread(self, key: Array) -> Array:
        """One query for each head, whose output nobody reads."""
        if key.ndim < 2:
            return key
        lead, maps = tuple(key.shape[:-2]), self.features.batch_shape
        if self._grouped and lead and maps and lead[-1] and maps[-1] % lead[-1] == 0:
            lead = (*lead[:-1], maps[-1])
        return namespace(key).zeros((*lead, 1, key.shape[-1]), dtype=key.dtype, device=device_of(key))


def check_state(state: Any, features: FeatureMap) -> None:
    """Errors for anything but a state of these features."""
    if not isinstance(state, AttentionState):
        raise TypeError(f"state must be an AttentionState, got {type(state).__name__}.")
    if (width := state.weighted.shape[-2]) != features.num_features:
        raise ValueError(f"state has {width} features, expected {features.num_features}.")
    state.check_origin(features)


def selected(state: AttentionState, index: Array) -> AttentionState:
    """The state of some entries of the first leading dimension."""
    xp, lead = namespace(state.total), state.total.shape[:-2]
    log_max, weighted, total = (
        xp.take(xp.broadcast_to(x, (*lead, *x.shape[-2:])), index, axis=0)
        for x in (state.log_max, state.weighted, state.total)
    )
    return replace(state, log_max=log_max, weighted=weighted, total=total)
