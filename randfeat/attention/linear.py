"""linear_attention: the public operator."""

from typing import Any

from randfeat._array import own_precision
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
    key_bias: Any = None,
    key_ends: Any = None,
    cu_seqlens: Any = None,
    decay: Any = None,
    relative_bias: Any = None,
    window: int | None = None,
    num_sinks: int = 0,
    layout: str = "bhld",
    method: str = "linear",
    num_threads: int | None = None,
) -> Any:
    """Attention in time and memory linear in the length, `out_i = Σ_j K̂_ij v_j / Σ_j K̂_ij`, K̂_ij = φ(s q_i)·φ(s k_j).

    With features of the softmax kernel this estimates `softmax(scale · q kᵀ) v`; s = √scale.

    Parameters
    ----------
    query : (..., L, d).
        L queries. The leading dimensions are free and include the heads: (batch, heads, L, d) for example.
    key : (..., S, d).
        S keys.
    value : (..., S, dv).
        One value for each key. Query, key and value have one array library and one dtype. Under `torch.autocast`, if
        their dtypes differ, they are cast to its dtype, as in PyTorch's own attention.
    features : FeatureMap.
        The result of `estimator.draw(dim=d, ..., like=query)`. `batch_shape=(heads,)` draws one map for each head.
    is_causal : bool.
        If True, query i sees the keys 0 .. i. If L and S differ, the first query and the first key have the same
        position, as in PyTorch.
    scale : float.
        Factor of the logits, 1/√d by default. The default is for features of the plain `SoftmaxKernel()` only. Features
        of every other kernel need an explicit `scale`, because their kernel may have a scale of its own. `scale=1.0`
        does not change the inputs: the kernel itself is the weight.
    key_mask : bool, (S,) or the shape of `key` without its last dimension.
        True: the key takes part. A masked key has no influence, whatever numbers it and its value contain.
    enable_gqa : bool.
        If True, the number of query heads (dimension -3) may be a multiple of the number of key heads. Each key head
        then serves a group of consecutive query heads.
    initial_state : AttentionState.
        The sums over earlier keys, which come before all keys of this call: the state that an earlier call returned.
    return_state : bool.
        If True, also return the state after all keys.
    causal_offset : int.
        Needs `is_causal`. Query i sees the keys 0 .. i + causal_offset, and all keys of `initial_state`. With S - L,
        the last query has the position of the last key.
    key_lengths : one integer, or integers of shape (batch,) or (batch, heads) for a key of shape (batch, heads, S, d).
        In general, the shape is the first leading dimensions of `key`, or all of them. The number of keys of each
        sequence. Keys with this index or a larger one are ignored.
    key_bias : numbers, (S,) or the shape of `key` without its last dimension.
        Summands of the logits, one for each key: key j has the weight `exp(key_bias_j) K̂_ij`. -inf masks a key. It is
        added to the logarithm of the key's features, so nothing overflows.
    key_ends : integers, (L,) or (..., L).
        Query i sees the keys j < key_ends_i. The ends need not be sorted. The cost is that of causal attention over
        L + S positions.
    cu_seqlens : integers on the host, 0, .., length; a list, a NumPy array, or an array on the CPU.
        Offsets of several sequences that are packed along the length. No sequence sees another. If queries and keys are
        packed differently, give a pair of such lists.
    decay : number, one for each head, or gates (..., S, 1) or (..., S, num_features).
        Needs `is_causal`. Factors between 0 and 1, by which weights decrease with the distance. A number g multiplies
        the weight of key j at query i by `g^(i - j)`. Here i is the position of the query, with `causal_offset`; it may
        be beyond the last key. With g = 0 a query sees only the key at its own position. Gates g_t, one for each
        position, multiply the weight by the product of g_t over j < t <= i; each query must then have the position of a
        key, L + causal_offset <= S.
    relative_bias : (L + S - 1,) or (..., heads, L + S - 1).
        Biases b by relative position: key j has the weight `exp(b[j - i + L - 1]) K̂_ij` at query i, computed by FFT.
        In float32, if a bias is 15 or more below the largest, the weight is lost in rounding errors.
    window : int.
        Keys at a distance smaller than `window` have their exact kernel values as weights, all other keys have
        estimates. So this is not a sliding window: far keys still take part. All weights are divided by one common sum.
        The position of query i is i + causal_offset.
    num_sinks : int.
        Needs `window`, which may be 0. The first `num_sinks` keys (of each packed sequence) have exact weights, too, as
        far as a query sees them. A state would not hold these keys, so it is not possible with one.
    layout : "bhld" or "blhd".
        "blhd" has query, key, value and output as (..., L, heads, d). Masks, lengths and states are as in "bhld".
    method : "linear", "exact" or "auto".
        "exact" is `kernel_attention` with the kernel of `features` and the same arguments; it has no state, and no
        gates for each feature. "auto" is the method that `attention_method` expects to be faster.
    num_threads : int.
        Threads for arrays on the CPU that are not traced or differentiated. The default is RANDFEAT_NUM_THREADS, or
        else the number of cores that this process may use, for tensors `torch.get_num_threads()`. The output does not
        depend on it, to the last bit.

    Only one of `decay`, `key_ends`, `relative_bias` and `window` can be given. `window` cannot be combined with
    `key_bias`, nor `relative_bias` and `cu_seqlens` with a state. Arguments that cannot be combined raise ValueError.

    Returns
    -------
    (..., L, dv) in the dtype of `value`, or the pair (output, state).

    Exactness: the output is a ratio of two estimates, so it is consistent but not unbiased. `predict_attention_error`
    predicts its error.
    Positive features make each output a convex combination of the values, at every scale and in every dtype. Signed
    features (trigonometric) can have small or negative denominators.
    There is no epsilon. Let c_f be the largest value of feature f over the keys. Feature f of the keys is divided by
    c_f, and feature f of the queries is multiplied by c_f. Then all features of a query are divided by a number of its
    own, which cancels in the ratio.
    Causal outputs never depend on later keys, to the last bit.
    A query without keys gives zeros (empty sequence, all keys masked). So does a query whose weights are all 0, as they
    can be with ReLU features. NaN or infinity in a key or value that takes part spoils each output that sees it.

    Limits: a general mask over pairs (L, S) has no linear-time form. Only the options above are possible.

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
        return_state=return_state, causal_offset=causal_offset, key_lengths=key_lengths, key_bias=key_bias,
        key_ends=key_ends, cu_seqlens=cu_seqlens, decay=decay, relative_bias=relative_bias, window=window,
        num_sinks=num_sinks, layout=layout, num_threads=num_threads,
    )  # fmt: skip
    with own_precision(problem.inputs.value):
        if is_exact(method, problem):
            return problem.inputs.restore(exact_outputs(problem.inputs, problem.relation, problem.kernel, problem.lead))
        return problem.restore(*attend(problem))
