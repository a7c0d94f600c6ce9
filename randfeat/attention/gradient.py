"""linear_attention_vjp: the gradient of linear attention, in time linear in the length."""

from typing import Any

from randfeat._array import Array, as_floating, cast, device_of, namespace, own_precision
from randfeat._hints import hinted
from randfeat.attention.executors import pull_back
from randfeat.attention.generic.sweeps import Gradients
from randfeat.attention.inputs import Inputs, swap_heads
from randfeat.attention.problem import Problem
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap, check_feature_map


@hinted
def linear_attention_vjp(
    query: Any,
    key: Any,
    value: Any,
    features: FeatureMap,
    grad_output: Any,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    enable_gqa: bool = False,
    initial_state: AttentionState | None = None,
    output: Any = None,
    final_state: AttentionState | None = None,
    causal_offset: int = 0,
    key_lengths: Any = None,
    key_bias: Any = None,
    cu_seqlens: Any = None,
    window: int | None = None,
    num_sinks: int = 0,
    layout: str = "bhld",
    num_threads: int | None = None,
) -> Gradients:
    """The gradients of `Σ grad_output · linear_attention(query, key, value, features, ...)` in query, key and value.

    This is the vector-Jacobian product of `linear_attention`. It serves libraries without automatic differentiation. It
    also saves memory: only the inputs and three numbers for each query are kept, not the features of the sequence. Time
    is linear in the length. The state (num_features, dv + 1) does not depend on the length.

    grad_output (..., L, dv) : the gradient in the output, in the shape and dtype of the output. The other arguments are
        those of `linear_attention`. An `initial_state` is held fixed. Returns the gradients in the shapes and the dtype
        of query, key and value. For inputs that were broadcast or grouped, the gradient is the sum over all their uses.

    window, num_sinks : the keys whose weights are exact. Their gradient is that of the exact weights.

    output, final_state : the two results of `linear_attention` for the same arguments, with `return_state=True`. They
        are optional and only save time, together a quarter. With `output`, the outputs are not computed again; the
        gradients then contain its rounding errors. With `final_state`, the sums over all keys are not computed again;
        it cannot be given with `is_causal` or `cu_seqlens`.

    Exact: the derivative of the output for this map, with its rows held fixed. Automatic differentiation gives the
        same, up to rounding. A factor that all features of one query share cancels in the output, so its derivative is
        not computed. Sums are only accumulated, never subtracted: forwards over keys for the gradient in queries,
        backwards over queries for the gradients in keys and values. With positive features every factor is at most 1,
        so nothing overflows for any finite logits. Masked keys and queries without keys have gradients of exactly zero.
        In causal attention the gradient in query i depends only on keys j <= i. The gradients in key and value j depend
        only on queries i >= j. Both hold to the last bit.

    Limits: `decay`, `key_ends` and `relative_bias` are not possible; `window` needs a kernel of the softmax family.
        Only estimators with analytic gradients are possible (exponential and trigonometric features, and centered or
        balanced ones). Everything else raises ValueError; PyTorch and JAX can differentiate it.

    Source: Katharopoulos et al. 2020, "Transformers are RNNs", for the two sums; the shifts are those of this library.

    >>> import numpy as np, randfeat as rf
    >>> q, k, v, g = np.random.default_rng(0).standard_normal((4, 100, 8))
    >>> phi = rf.PositiveFeatures().draw(dim=8, num_features=64, rng=0)
    >>> dq, dk, dv = rf.linear_attention_vjp(q, k, v, phi, g, is_causal=True)
    >>> step = 1e-6 * np.random.default_rng(1).standard_normal((100, 8))
    >>> ends = [np.sum(g * rf.linear_attention(q, k + s, v, phi, is_causal=True)) for s in (step, -step)]
    >>> bool(np.isclose((ends[0] - ends[1]) / 2, np.sum(dk * step)))
    True
    """
    problem = Problem.of(
        query, key, value, features,
        is_causal=is_causal, scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, initial_state=initial_state,
        causal_offset=causal_offset, key_lengths=key_lengths, key_bias=key_bias, cu_seqlens=cu_seqlens, window=window,
        num_sinks=num_sinks, layout=layout, num_threads=num_threads,
    )  # fmt: skip
    gradient = problem.like_output("grad_output", grad_output)
    output = None if output is None else problem.like_output("output", output)
    check_analytic(problem.features)
    if final_state is not None:
        final_state = checked_final_state(final_state, problem)
    with own_precision(gradient):
        gradients = pull_back(problem, gradient, output, final_state)
    given = (query, key, value)
    return tuple(restored(x, like, problem.inputs) for x, like in zip(gradients, given, strict=True))


def checked_final_state(final_state: Any, problem: Problem) -> AttentionState:
    """The state after all keys of full attention, as `linear_attention` returned it."""
    state, got = problem.state_of(final_state, "final_state"), final_state.total.shape[:-2]
    if problem.relation.is_causal or not problem.relation.is_aligned or tuple(got) != problem.lead:
        raise ValueError(
            "final_state must be what linear_attention returned for these arguments, without is_causal and cu_seqlens, "
            f"of leading shape {problem.lead}, got leading shape {tuple(got)} and "
            f"is_causal={problem.relation.is_causal}."
        )
    return state


def restored(gradient: Array, given: Any, inputs: Inputs) -> Array:
    """A gradient in the shape, layout and dtype of the given argument."""
    shape = tuple(as_floating(given, "x").shape)
    swapped = inputs.layout == "blhd"
    if swapped:
        shape = (*shape[:-3], shape[-2], shape[-3], shape[-1])
    gradient = cast(namespace(gradient).reshape(gradient, shape), inputs.dtype)
    return swap_heads(gradient) if swapped else gradient


def check_stateless(features: Any, initial_state: Any, return_state: bool) -> None:
    """A feature map and no state, which is all that a backward pass from the inputs can do without."""
    if initial_state is not None or return_state:
        raise ValueError(
            "states are not differentiated here; use randfeat.linear_attention, which gives and takes them."
        )
    check_feature_map(features)


def check_analytic(features: FeatureMap) -> None:
    """Ask for the gradient of no rows at all, so that features without one are refused before work is done."""
    like = next(iter(features.arrays.values()))
    nothing = namespace(like).zeros((0, features.dim), dtype=like.dtype, device=device_of(like))
    queries = features.queries(nothing)
    features.pull_back(nothing, queries, queries.values, row=0.0)


def is_analytic(features: FeatureMap) -> bool:
    """Whether the features have an analytic gradient."""
    try:
        check_analytic(features)
    except ValueError:
        return False
    return True
