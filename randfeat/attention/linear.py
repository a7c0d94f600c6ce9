"""linear_attention: the public operator."""

from typing import Any

from randfeat._hints import hinted
from randfeat.attention.cost_model.method import is_exact
from randfeat.attention.exact import exact_outputs
from randfeat.attention.executors import attend
from randfeat.attention.problem import Problem
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap


@hinted
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
    problem = Problem.of(
        query, key, value, features,
        is_causal=is_causal, scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, initial_state=initial_state,
        return_state=return_state, causal_offset=causal_offset, key_lengths=key_lengths, key_ends=key_ends,
        cu_seqlens=cu_seqlens, decay=decay, relative_bias=relative_bias, window=window, layout=layout,
        num_threads=num_threads,
    )  # fmt: skip
    if is_exact(method, problem):
        return problem.inputs.restore(exact_outputs(problem.inputs, problem.relation, problem.kernel, problem.lead))
    return problem.restore(*attend(problem))
