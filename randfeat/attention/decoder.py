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
    cast,
    device_of,
    dtype_name,
    from_host,
    host_twins,
    is_on_host,
    namespace,
    own_precision,
    to_numpy,
)
from randfeat._hints import hinted
from randfeat._numpy.threads import resolve_num_threads
from randfeat.attention.executors import attend
from randfeat.attention.numpy.running_sums import RunningSums
from randfeat.attention.numpy.short import LONGEST, ShortCall
from randfeat.attention.numpy.sides import Sides
from randfeat.attention.problem import Problem
from randfeat.attention.state import AttentionState
from randfeat.kernels.softmax import resolve_scale
from randfeat.maps import FeatureMap, check_feature_map

NAME = "the state of this decoder"


class AttentionDecoder:
    """Causal linear attention, a few tokens at a time: together, the outputs of one causal pass over all tokens.

    features : the feature map, as of `linear_attention`.
    state : the sums over earlier keys, as `linear_attention` returns them. None for sequences that begin.
    scale, enable_gqa, num_threads : as of `linear_attention`, for every call.

    The decoder changes with each token. It is fast for NumPy arrays, and for arrays of PyTorch and JAX on a CPU, if the
    features have an `exponential_form`: calls with at most 8 tokens add them to sums in place, which nobody else holds.
    All other calls are those of `linear_attention` with the state so far, and return what it returns.

    Memory: 2 m (dv + 1) numbers for each head, and 16 recent tokens; it does not grow.
    Error: that of `linear_attention`. Sums are compensated (Kahan), so rounding does not add up: after n keys they are
        off by less than 20 u + n u² in proportion to the sum of the sizes of their terms, u = 2^-24 in float32.
    Limits: no `decay`, `window` or `layout`. Functions that PyTorch or JAX compile need `linear_attention` with a
        state, which is a value. A token keeps its length dimension, (..., 1, d): `q[..., t : t + 1, :]`. The map is of
        the array library of the tokens: `features.to(q)`.

    >>> import numpy as np, randfeat as rf
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 2, 8, 100, 16))  # (batch, heads, L, dim)
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
        resolve_scale(scale, features.estimator.kernel, features.dim)
        if num_threads is not None:
            resolve_num_threads(num_threads)
        if state is not None:
            check_state(state, features)
            state = state.copied()
        self.features = features
        self._grouped = as_bool(enable_gqa, "enable_gqa")
        self._options: dict[str, Any] = {"scale": scale, "enable_gqa": self._grouped, "num_threads": num_threads}
        self._num_keys = 0
        self._state = state  # where there are no running sums
        self._sums: RunningSums | None = None
        self._on_host = exponentials_on_host(features)
        self._sides: dict[str, Sides] = {}  # by dtype
        self._calls: dict[tuple[Any, ...], ShortCall] = {}  # by types, shapes and dtypes of the arguments

    def __repr__(self) -> str:
        return f"AttentionDecoder({self.features!r}, num_keys={self.num_keys})"

    def __getstate__(self) -> dict[str, Any]:
        """Support copy and pickle, by the state."""
        return {**self.__dict__, "_state": self.state, "_sums": None, "_sides": {}, "_calls": {}}

    @property
    def state(self) -> AttentionState | None:
        """The sums over all keys so far, as `linear_attention` takes them; later steps do not change this value.

        None before the first key.
        """
        if self._sums is None:
            return None if self._state is None else self._state.copied()
        return replace(self._sums.state().like(self._like), origin=self.features)

    @property
    def num_keys(self) -> int:
        """The number of keys that `step` and `append` have added to each sequence, masked ones included."""
        return self._num_keys

    def step(self, query: Any, key: Any, value: Any, key_mask: Any = None) -> Array:
        """Add keys, and return the outputs of their queries: (..., L, d), (..., L, d), (..., L, dv) -> (..., L, dv).

        Query i sees all earlier keys, and those of this call up to its own.

        key_mask : bool, (L,) or the shape of `key` without its last dimension. True: the key takes part.
        """
        call = self._short_call(query, key, value, key_mask)
        arrays = None if call is None else host_twins(query, key, value, key_mask)
        if call is None or arrays is None or self._sums is None:
            query, key = as_floating(query, "query"), as_floating(key, "key")
            check_pairs(query, key)
            output = self._long_call(query, key, value, key_mask, is_causal=True)
        else:
            found = call.attend(self._sums, *arrays)
            if self._grouped:
                found = found.reshape(*found.shape[:-4], -1, *found.shape[-2:])
            output = cast(from_host(found, value), value.dtype)
        self._num_keys += key.shape[-2]
        return output

    def append(self, key: Any, value: Any, key_mask: Any = None) -> None:
        """Add keys (..., S, d) with their values (..., S, dv), for whose queries no output is needed."""
        key = as_floating(key, "key")
        call = self._short_call(None, key, value, key_mask)
        arrays = None if call is None else host_twins(key, value, key_mask)
        if call is None or arrays is None or self._sums is None:
            self._long_call(self._unread(key, 1), key, value, key_mask, is_causal=False)
        else:
            call.append(self._sums, *arrays)
        self._num_keys += key.shape[-2]

    def reorder(self, index: Any) -> None:
        """Continue with the sequences `index`, integers (n,) into the first leading dimension.

        For beams, and for batches of which some sequences have ended: an index may be repeated, or missing.
        """
        known = numbers_of(index)
        index = as_integers(index, "index", self._like)
        if index.ndim != 1:
            raise ValueError(f"index must be integers of shape (n,), got shape {tuple(index.shape)}.")
        if self._state is None and self._sums is None:
            return
        size = self._batch_size()
        if known is not None and np.any(outside := (known < 0) | (known >= size)):
            raise IndexError(f"index must be between 0 and {size - 1}, got {known[outside].tolist()}.")
        if self._sums is not None:
            self._sums.select(to_numpy(index))
        elif self._state is not None:
            self._state = selected(self._state, index)

    def repeat(self, num: int) -> None:
        """Continue each sequence `num` times, as consecutive entries of the first leading dimension."""
        num = as_count(num, "num")
        if self._state is not None or self._sums is not None:
            self.reorder(np.repeat(np.arange(self._batch_size()), num))

    @property
    def _like(self) -> Array:
        """An array of the library and device of the features."""
        return next(iter(self.features.arrays.values()))

    def _short_call(self, query: Any, key: Any, value: Any, key_mask: Any) -> ShortCall | None:
        """The layout of a call with a few tokens that the running sums take; None for other calls.

        Calls with the same types, shapes and dtypes are checked once.
        """
        if self._on_host is None:  # features are not exponentials, or not on the host
            return None
        kinds = tuple(
            (type(x), getattr(x, "shape", None), getattr(x, "dtype", None)) for x in (query, key, value, key_mask)
        )
        call = self._calls.get(kinds)
        if call is None or self._sums is None:
            call = self._laid_out(query, key, value, key_mask)
            if call is not None:
                self._calls[kinds] = call
        return call if call is not None and self._sums is not None and call.fits(self._sums) else None

    def _laid_out(self, query: Any, key: Any, value: Any, key_mask: Any) -> ShortCall | None:
        """Check a call and lay it out, and start the running sums from the state if there are none."""
        features, is_watched = self._on_host, host_twins(query, key, value, key_mask) is None
        if features is None or is_watched or key.ndim < 2 or key.shape[-2] > LONGEST:
            return None
        query = self._unread(key, key.shape[-2]) if query is None else query
        namespace(query, self._like)
        problem = Problem.of(
            query, key, value, self.features,
            is_causal=True, key_mask=key_mask, initial_state=self._state, return_state=True, state_name=NAME,
            **self._options,
        )  # fmt: skip
        inputs, dtype = problem.inputs, value.dtype
        if not inputs.dtype == dtype == key.dtype == query.dtype:
            return None
        name = dtype_name(dtype)
        call = ShortCall.of(problem, inputs.align(features), self._sides.get(name))
        if call is None:
            return None
        self._sides[name] = call.sides
        if self._sums is None:
            arrays = host_twins(*problem.start().arrays)
            self._sums = None if arrays is None else call.sums_of(AttentionState(*arrays))
            if self._sums is not None:
                self._sums.own()
                self._state = None
        return call

    def _long_call(self, query: Array, key: Array, value: Any, key_mask: Any, *, is_causal: bool) -> Array:
        """The outputs of any call, and the state after it."""
        problem = Problem.of(
            query, key, value, self.features,
            is_causal=is_causal, key_mask=key_mask, initial_state=self.state, return_state=True, state_name=NAME,
            **self._options,
        )  # fmt: skip
        with own_precision(problem.inputs.value):
            output, self._state = problem.restore(*attend(problem))
        self._sums = None
        return output

    def _batch_size(self) -> int:
        """The length of the first leading dimension, which must not be that of the heads."""
        if self._sums is not None:
            lead = self._sums.arrangement.lead
        else:
            assert self._state is not None
            lead = tuple(self._state.total.shape[:-2])
        maps = self.features.batch_shape
        if len(lead) < 1 + 2 * self._grouped or (maps and len(maps) + self._grouped >= len(lead) and maps[0] != 1):
            raise ValueError(f"the sums have the leading dimensions {lead}, without a batch before those of the heads.")
        return lead[0]

    def _unread(self, key: Array, num: int) -> Array:
        """Queries for each head, whose outputs nobody reads."""
        if key.ndim < 2:
            return key
        lead, maps = tuple(key.shape[:-2]), self.features.batch_shape
        if self._grouped and lead and maps and lead[-1] and maps[-1] % lead[-1] == 0:
            lead = (*lead[:-1], maps[-1])
        return namespace(key).zeros((*lead, num, key.shape[-1]), dtype=key.dtype, device=device_of(key))


def check_state(state: Any, features: FeatureMap) -> None:
    """Raise an error for anything but a state of these features."""
    if not isinstance(state, AttentionState):
        raise TypeError(f"state must be an AttentionState, got {type(state).__name__}.")
    if (width := state.weighted.shape[-2]) != features.num_features:
        raise ValueError(f"state has {width} features, expected {features.num_features}.")
    state.check_origin(features)


def check_pairs(query: Array, key: Array) -> None:
    """ValueError unless there is one query for each key."""
    if query.ndim > 1 and key.ndim > 1 and query.shape[-2] != key.shape[-2]:
        raise ValueError(
            f"step takes one query for each key, got {query.shape[-2]} and {key.shape[-2]}; "
            "append takes keys without queries."
        )


def exponentials_on_host(features: FeatureMap) -> FeatureMap | None:
    """A copy of the map in NumPy arrays; None if it must stay where it is, or its features are not exponentials."""
    twins = host_twins(*features.arrays.values())
    forms = (features.exponential_form(keys=False), features.exponential_form(keys=True))
    if twins is None or None in forms:
        return None
    arrays = {name: np.array(twin) for name, twin in zip(features.arrays, twins, strict=True)}
    return FeatureMap(features.estimator, features.dim, features.num_features, arrays)


def numbers_of(index: Any) -> np.ndarray | None:
    """The values of an array if they are on the host, so that reading them waits for nothing."""
    twins = [np.asarray(index)] if is_on_host(index) else host_twins(index)
    return None if twins is None else twins[0]


def selected(state: AttentionState, index: Array) -> AttentionState:
    """The state of some entries of the first leading dimension."""
    xp, lead = namespace(state.total), state.total.shape[:-2]
    log_max, weighted, total = (
        xp.take(xp.broadcast_to(x, (*lead, *x.shape[-2:])), index, axis=0) for x in state.arrays
    )
    return replace(state, log_max=log_max, weighted=weighted, total=total)
