"""linear_attention: the public operator, and the generic pass over a sequence in chunks."""

from typing import Any

from randfeat._array import Array, device_of, namespace
from randfeat.attention.blocked import fast_pass
from randfeat.attention.causal import causal_partial
from randfeat.attention.inputs import AttentionInputs, checked_inputs, pieces
from randfeat.attention.state import AttentionState
from randfeat.attention.threads import resolve_num_threads
from randfeat.features import Features
from randfeat.maps import FeatureMap

__all__ = ["linear_attention"]

CHUNK = 256  # positions at a time: features of a chunk are the only arrays of size positions × features
CAUSAL_CHUNK = 128


def linear_attention(
    query: Any,
    key: Any,
    value: Any,
    features: FeatureMap,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    enable_gqa: bool = False,
    initial_state: AttentionState | None = None,
    return_state: bool = False,
    num_threads: int | None = None,
) -> Any:
    """Attention in time and memory linear in the length, `out_i = Σ_j K̂_ij v_j / Σ_j K̂_ij`, K̂_ij = φ(s q_i)·φ(s k_j).

    With features of the softmax kernel this estimates `softmax(scale · q kᵀ) v`; s = √scale.

    Parameters
    ----------
    query : (..., L, d)
    key : (..., S, d)
    value : (..., S, dv)
        Any leading dimensions, heads among them, in one array library and one dtype; (batch, heads, L, d) for example.
    features : a FeatureMap
        From `estimator.draw(dim=d, ..., like=query)`; with `batch_shape=(heads,)` one map per head.
    is_causal : query i sees keys 0 .. i (top-left alignment when L != S, as in PyTorch).
    scale : multiplies the logits; 1/√d by default. It enters once: refused as a default where the kernel of `features`
        has a scale of its own.
    key_mask : bool, (S,) or as many dimensions as `key` less one, True = take part. A masked key is absent, whatever it
        and its value hold.
    enable_gqa : query heads (dimension -3) may be a multiple of the key heads, each serving a group of queries.
    initial_state : AttentionState of keys that come before these, in the layout that `return_state` gave it.
    return_state : also return the state after all keys.
    num_threads : threads for NumPy arrays; by default what RANDFEAT_NUM_THREADS says, else the cores that this process
        may use. The output does not depend on it, to the last bit. Other libraries have settings of their own.

    Returns
    -------
    (..., L, dv) in the dtype of `value`, or the pair (output, state).

    Exactness: the estimate is consistent, not unbiased (a ratio); `predict_attention_error` has its error. Positive
    features give convex combinations of the values, at every scale and in every dtype; signed features
    (trigonometric) can have small or negative denominators. There is no epsilon: per feature the largest key is taken
    out and put back on the query side. Causal outputs never depend on later keys, to the last bit.
    A query without any key (empty sequence, everything masked) gives zeros, and so does one whose weights all vanish,
    as they can with ReLU features. NaN or infinity in a key or value that takes part spoils every output that sees it.

    Limits: masks over (L, S) pairs other than causal have no linear-time form and are refused.

    Source: Katharopoulos et al. 2020, "Transformers are RNNs"; Choromanski et al. 2021, "Rethinking Attention with
    Performers".

    Examples
    --------
    >>> import numpy as np, randfeat as rf
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 8, 100, 16))
    >>> phi = rf.PositiveFeatures().draw(dim=16, num_features=128, rng=0, like=q, batch_shape=(8,))
    >>> out = rf.linear_attention(q, k, v, phi, is_causal=True)
    >>> out.shape, bool(np.allclose(out[:, 0], v[:, 0]))
    ((8, 100, 16), True)
    """
    if not isinstance(features, FeatureMap):
        raise TypeError(f"features must be a FeatureMap, from estimator.draw(...), got {type(features).__name__}.")
    num_threads = resolve_num_threads(num_threads)
    inputs = checked_inputs(
        query,
        key,
        value,
        kernel=features.estimator.kernel,
        scale=scale,
        key_mask=key_mask,
        enable_gqa=enable_gqa,
    )
    if inputs.query.shape[-1] != features.dim:
        raise ValueError(
            f"query and key have dimension {inputs.query.shape[-1]}, but the features were drawn for {features.dim}."
        )
    features = inputs.align(features)
    lead = inputs.leading_shape(features)
    state = AttentionState.empty(features.num_features, inputs.value.shape[-1], like=inputs.value, batch_shape=lead)
    if initial_state is not None:
        state = state.merge(check_state(initial_state, state))
    fast = fast_pass(
        inputs,
        features,
        state if initial_state is not None else None,
        causal_pass if is_causal else None,
        return_state=return_state,
        num_threads=num_threads,
    )
    if fast is not None:
        outputs, state = fast
    else:
        outputs, state = (causal_pass if is_causal else full_pass)(inputs.prepared(), features, state)
    output = inputs.restore(outputs)
    return (output, state) if return_state else output


def check_state(initial: Any, empty: AttentionState) -> AttentionState:
    """A state that fits the features and values at hand."""
    if not isinstance(initial, AttentionState):
        raise TypeError(f"initial_state must be an AttentionState, got {type(initial).__name__}.")
    if initial.weighted.shape[-2:] != empty.weighted.shape[-2:]:
        got, expected = (tuple(state.weighted.shape[-2:]) for state in (initial, empty))
        raise ValueError(f"initial_state has (num_features, value dim) {got}, expected {expected}.")
    return initial


def full_pass(
    inputs: AttentionInputs, features: FeatureMap, state: AttentionState
) -> tuple[list[Array], AttentionState]:
    """All keys into the state, then every query reads it."""
    for start, stop in pieces(0, inputs.num_keys, CHUNK):
        state = state.append(*keys_of(inputs, features, start, stop))
    outputs = [
        state.read(features.queries(inputs.query[..., start:stop, :]))
        for start, stop in pieces(0, inputs.num_queries, CHUNK) or [(0, 0)]
    ]
    return outputs, state


def causal_pass(
    inputs: AttentionInputs, features: FeatureMap, state: AttentionState
) -> tuple[list[Array], AttentionState]:
    """Chunk by chunk: read what came before, attend within the chunk, then append it."""
    outputs = []
    for start, stop in pieces(0, inputs.num_queries, CAUSAL_CHUNK) or [(0, 0)]:
        queries = features.queries(inputs.query[..., start:stop, :])
        output = state.partial(queries)
        if start < min(stop, inputs.num_keys):
            keys, values = keys_of(inputs, features, start, min(stop, inputs.num_keys))
            size = 1 << (stop - start - 1).bit_length()
            within = causal_partial(pad_queries(queries, size), pad_keys(keys, size), pad(values, size, 0.0))
            output = output.merge(within.first(stop - start))
            state = state.append(keys, values)
        outputs.append(output.normalized())
    for start, stop in pieces(inputs.num_queries, inputs.num_keys, CHUNK):  # keys that no query sees
        state = state.append(*keys_of(inputs, features, start, stop))
    return outputs, state


def keys_of(inputs: AttentionInputs, features: FeatureMap, start: int, stop: int) -> tuple[Features, Array]:
    """Features and values of the keys from `start` to `stop`; masked keys have log_scale -inf."""
    keys = features.keys(inputs.key[..., start:stop, :])
    values = inputs.value[..., start:stop, :]
    if inputs.key_mask is None:
        return keys, values
    xp = namespace(values)
    log_scale = xp.where(inputs.key_mask[..., start:stop, None], keys.log_scale, -xp.inf)
    return Features(keys.values, log_scale), values


def pad(x: Array, size: int, fill: float) -> Array:
    """`x` (..., n, c) filled up to `size` rows."""
    missing = size - x.shape[-2]
    if missing == 0:
        return x
    xp = namespace(x)
    filler = xp.full((*x.shape[:-2], missing, x.shape[-1]), fill, dtype=x.dtype, device=device_of(x))
    return xp.concat([x, filler], axis=-2)


def pad_queries(queries: Features, size: int) -> Features:
    """Queries filled up with rows that nobody reads."""
    return Features(pad(queries.values, size, 0.0), pad(queries.log_scale, size, 0.0))


def pad_keys(keys: Features, size: int) -> Features:
    """Keys filled up with absent ones."""
    return Features(pad(keys.values, size, 0.0), pad(keys.log_scale, size, float("-inf")))
