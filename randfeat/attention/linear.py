"""linear_attention: the public operator, and which pass over the sequence does what it is asked."""

from dataclasses import replace
from typing import Any

from randfeat._numpy.threads import resolve_num_threads
from randfeat.attention.blocked import fast_pass
from randfeat.attention.cuda import cuda_pass
from randfeat.attention.exact import exact_outputs
from randfeat.attention.inputs import AttentionInputs, checked_inputs
from randfeat.attention.method import is_exact
from randfeat.attention.packed import each_sequence
from randfeat.attention.partial import PartialOutput
from randfeat.attention.passes import Passed, causal_pass, full_pass
from randfeat.attention.prefixes import prefix_pass
from randfeat.attention.relation import Relation, relation_of
from randfeat.attention.state import AttentionState
from randfeat.attention.toeplitz import toeplitz_outputs
from randfeat.attention.window import window_pass
from randfeat.maps import FeatureMap

__all__ = ["linear_attention"]


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
    causal_offset: int = 0,
    key_lengths: Any = None,
    key_ends: Any = None,
    cu_seqlens: Any = None,
    decay: Any = None,
    relative_bias: Any = None,
    window: int | None = None,
    layout: str = "bhld",
    method: str = "linear",
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
    causal_offset : with `is_causal`, query i sees the keys 0 .. i + causal_offset; S - L aligns the last of both. Keys
        of `initial_state` come before all of these.
    key_lengths : ints in the first of the leading dimensions of `key`, (batch,) for example: keys from there on are
        absent.
    key_ends : ints (L,) or (..., L): query i sees the keys j < key_ends_i, of any order. Costs as much as causal
        attention over L + S positions.
    cu_seqlens : offsets 0, .., length, integers on the host: sequences packed along the length, none of which sees
        another. A pair of such lists where queries and keys are packed differently.
    decay : factor in 0 .. 1 by which what is remembered fades with every position, so that key j has the weight
        `decay^(i - j)` at query i; with `is_causal` only. A number, one for each head, or gates g_t for each position,
        (..., S, 1) or (..., S, num_features), multiplied over j < t <= i; then every query is at a key's position.
    relative_bias : (L + S - 1,) or (..., heads, L + S - 1): weights `exp(b) K̂_ij` with the entry j - i + L - 1, by FFT.
        In float32 a bias below the largest by 15 or more is rounding.
    window : keys at a distance below it have their exact weights, all others those of the features, under one
        normalizer; i + causal_offset is the position of query i.
    layout : "bhld", or "blhd" for (..., L, heads, d) in and out. Masks, lengths and states are as in "bhld" always.
    method : "linear"; "exact" for the kernel of `features` itself, by `kernel_attention` with the same arguments but
        no state and no gates per feature; "auto" for the one that `attention_method` expects to be faster.

    `decay`, `key_ends`, `relative_bias` and `window` exclude each other; `relative_bias` and `cu_seqlens` have no
    state. Whatever does not go together is a ValueError.
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

    Limits: masks over (L, S) pairs that are not among these have no linear-time form and are refused.

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
    if num_threads is not None:
        num_threads = resolve_num_threads(num_threads)
    inputs, drawn = fitting_inputs(
        query,
        key,
        value,
        features,
        scale=scale,
        key_mask=key_mask,
        enable_gqa=enable_gqa,
        key_lengths=key_lengths,
        layout=layout,
    )
    features = inputs.align(drawn)
    lead = inputs.leading_shape(features)
    state = AttentionState.empty(features.num_features, inputs.value.shape[-1], like=inputs.value, batch_shape=lead)
    if initial_state is not None:
        state = state.merge(check_state(initial_state, state, drawn))
    has_state = initial_state is not None or return_state
    relation = relation_of(
        inputs,
        num_features=features.num_features,
        is_causal=is_causal,
        causal_offset=causal_offset,
        key_lengths=key_lengths,
        key_ends=key_ends,
        cu_seqlens=cu_seqlens,
        decay=decay,
        relative_bias=relative_bias,
        window=window,
        has_state=has_state,
    )
    if is_exact(method, inputs, features, relation, has_state=has_state):
        return inputs.restore(exact_outputs(inputs.prepared(), features.estimator.kernel, relation, lead))
    fast: Any = None
    if relation.is_plain:
        initial = state if initial_state is not None else None
        fast = cuda_pass(inputs, features, initial, is_causal=is_causal, return_state=return_state) or fast_pass(
            inputs,
            features,
            initial,
            is_causal=is_causal,
            return_state=return_state,
            num_threads=num_threads,
        )
    if fast is not None:
        outputs, state = fast
        output = inputs.restore(outputs)
        return (output, replace(state, origin=drawn)) if return_state else output
    partial_outputs: list[PartialOutput] = []
    start = state
    for part, within in each_sequence(inputs.prepared(), relation):
        more, state = attend(part, features, start, within)
        partial_outputs += more
    output = inputs.restore([partial.normalized() for partial in partial_outputs])
    return (output, replace(state, origin=drawn)) if return_state else output


def fitting_inputs(
    query: Any, key: Any, value: Any, features: Any, **options: Any
) -> tuple[AttentionInputs, FeatureMap]:
    """Inputs and a map that fit together; options as of `checked_inputs`. √scale is not yet applied."""
    if not isinstance(features, FeatureMap):
        raise TypeError(f"features must be a FeatureMap, from estimator.draw(...), got {type(features).__name__}.")
    inputs = checked_inputs(query, key, value, kernel=features.estimator.kernel, **options)
    if inputs.query.shape[-1] != features.dim:
        raise ValueError(
            f"query and key have dimension {inputs.query.shape[-1]}, but the features were drawn for {features.dim}."
        )
    return inputs, features


def check_state(
    initial: Any, empty: AttentionState, features: FeatureMap, name: str = "initial_state"
) -> AttentionState:
    """A state that fits the features and values at hand, and is not known to be of other features."""
    if not isinstance(initial, AttentionState):
        raise TypeError(f"{name} must be an AttentionState, got {type(initial).__name__}.")
    if initial.weighted.shape[-2:] != empty.weighted.shape[-2:]:
        got, expected = (tuple(state.weighted.shape[-2:]) for state in (initial, empty))
        raise ValueError(f"{name} has (num_features, value dim) {got}, expected {expected}.")
    initial.check_origin(features)
    return initial


def attend(inputs: AttentionInputs, features: FeatureMap, state: AttentionState, relation: Relation) -> Passed:
    """One sequence, by the pass that its relation asks for."""
    if relation.window is not None:
        return window_pass(inputs, features, state, relation)
    if relation.key_ends is not None:
        return prefix_pass(inputs, features, state, relation)
    if relation.bias is not None:
        return toeplitz_outputs(inputs, features, relation), state
    if relation.is_causal:
        return causal_pass(inputs, features, state, offset=relation.offset, log_gates=relation.log_gates)
    return full_pass(inputs, features, state)
