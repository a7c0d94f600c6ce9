"""compressed_attention: softmax attention to a cache of merged keys, made for one call or along a causal stream."""

from dataclasses import replace
from typing import Any

import numpy as np

from randfeat._array import (
    Array,
    as_bool,
    as_count,
    own_precision,
)
from randfeat._hints import hinted
from randfeat.attention.cost_model.sizes import NUM_KEYS
from randfeat.attention.exact import exact_outputs
from randfeat.attention.inputs import Inputs
from randfeat.attention.relations import Plain
from randfeat.attention.relations.base import as_int
from randfeat.compressed.causal import StreamOptions, stream
from randfeat.compressed.compression import Options as Compression
from randfeat.compressed.compression import compressed_rows
from randfeat.compressed.heads import check_loaded, check_query_mask
from randfeat.compressed.state import CompressedState
from randfeat.kernels import SoftmaxKernel


@hinted
def compressed_attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    num_keys: int | None = None,
    is_causal: bool = False,
    window: int | None = None,
    num_sinks: int | None = None,
    fit: bool | None = None,
    queries: Any = None,
    initial_state: CompressedState | None = None,
    return_state: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    query_mask: Any = None,
    enable_gqa: bool = False,
    layout: str = "bhld",
    rng: Any = 0,
) -> Any:
    """Softmax attention to `num_keys` merged keys in place of all keys; in linear time, causally with bounded memory.

    Without `is_causal`, keys are merged for the queries of the call (`randfeat.compress` without a fit), and read. With
    it, the sequence is read in chunks of `window` positions: a query sees the keys of its own chunk, up to itself, and
    of the chunk before as they are, and a cache of `num_keys` rows for all older ones. After each chunk its predecessor
    is merged into the cache, with a sample of the queries so far as references. So outputs never depend on later
    positions, and the memory is `num_keys + 2 window` rows for each key head, beside the sinks and a sample of about 2
    `num_keys` queries, whatever the length.

    Parameters
    ----------
    query : (..., L, d).
        L queries.
    key, value : (..., S, d) and (..., S, dv).
        Keys with their values; causally, S = L.
    num_keys : int.
        Rows of the cache, 64 by default.
    is_causal : bool.
        If True, query i sees the keys 0 .. i, and those of `initial_state`.
    window : int.
        Needs `is_causal`. Length of the chunks, 64 by default. It decides what is merged when, so it is part of the
        state.
    num_sinks : int.
        Needs `is_causal`. The first keys of the sequence that are not masked, which stay exact: in language models
        they can have most of the weight. 0 by default.
    fit : bool.
        If True, masses and values of the merged rows are fitted, as in `compress`. On heads of a sentence encoder with
        a causal mask errors were a quarter lower, at about twice the time; in language models a fit can gain nothing.
        False by default.
    queries : (..., R, d).
        References: typical queries. By default the queries of the call, or causally a uniform sample of those so far.
        Given ones stay in the state, and take the place of the sample.
    initial_state : CompressedState.
        Of earlier positions: the state that an earlier call returned, which also has `num_keys`, `window`, `num_sinks`
        and the seed. Outputs do not depend on where a sequence is cut, up to rounding.
    return_state : bool.
        Needs `is_causal`. If True, also return the state after all keys.
    scale, key_mask, query_mask, enable_gqa, layout, rng : as of `clustered_attention`.
        With inputs (batch, heads, L, d), each sequence of a batch has the outputs that it has alone. Causally, padding
        on the left is not counted: positions begin with the first key that is not masked. Masked keys after it keep
        their positions, and queries are references unless `query_mask` says otherwise.

    Returns
    -------
    (..., L, dv) in the dtype of `value`, or the pair (output, state). Without `fit`, outputs are convex combinations of
    the values.

    Exact for at most `num_keys` keys, causally for the first `num_keys + window` positions. Without `is_causal`,
    `clustered_attention` is more accurate at the same cost. Errors are not bounded by theory: measure them with
    `output_error`. float16 and bfloat16 are computed in float32. Gradients hold the merging constant. Key caches cannot
    be made while a function is traced by a compiler: TypeError.

    Source: Xiao et al. 2024, "Efficient Streaming Language Models with Attention Sinks", for exact first and last keys;
        `randfeat.compress` for the cache.

    >>> import numpy as np, randfeat as rf
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 2, 500, 16))
    >>> first, last = ([x[:, part] for x in (q, k, v)] for part in (slice(300), slice(300, 500)))
    >>> out, state = rf.compressed_attention(*first, is_causal=True, return_state=True)
    >>> rest = rf.compressed_attention(*last, is_causal=True, initial_state=state)
    >>> whole = rf.compressed_attention(q, k, v, is_causal=True)
    >>> bool(np.allclose(np.concatenate([out, rest], axis=-2), whole))
    True
    """
    is_causal = as_bool(is_causal, "is_causal")
    fit = None if fit is None else as_bool(fit, "fit")
    num_keys = None if num_keys is None else as_count(num_keys, "num_keys")
    window = None if window is None else as_count(window, "window")
    num_sinks = None if num_sinks is None else checked_sinks(num_sinks)
    return_state = as_bool(return_state, "return_state")
    inputs = Inputs.of(
        query, key, value, kernel=SoftmaxKernel(), scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, layout=layout
    )
    check_loaded(inputs)
    used = check_query_mask(query_mask, inputs)
    references = None
    if queries is not None:
        references = Inputs.of(
            queries, key, value, kernel=SoftmaxKernel(),
            scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, layout=layout,
        )  # fmt: skip
        check_loaded(references)
    if is_causal:
        if inputs.num_queries != inputs.num_keys:
            raise ValueError(
                f"is_causal needs a key for each query, got {inputs.num_queries} queries and {inputs.num_keys} keys; "
                "earlier keys come with initial_state."
            )
        options = StreamOptions(num_keys, window, num_sinks, fit, rng)
        with own_precision(inputs.value):
            outputs, state = stream(inputs, used, references, initial_state, options)
        output = inputs.restore(outputs)
        return (output, state) if return_state else output
    given = {"window": window, "num_sinks": num_sinks, "initial_state": initial_state, "return_state": return_state}
    if refused := [name for name, option in given.items() if option is not None and option is not False]:
        raise ValueError(f"{refused[0]} needs is_causal=True: without it all keys are merged at once.")
    if 0 in inputs.query.shape[:-1]:
        return inputs.restore(exact_outputs(inputs, Plain(), SoftmaxKernel()))
    made_for, counted = (inputs, all_where_none(used, inputs)) if references is None else (references, None)
    with own_precision(inputs.value):
        how = Compression(NUM_KEYS if num_keys is None else num_keys, bool(fit))
        rows = compressed_rows(made_for, counted, how, rng)
        return inputs.restore(exact_outputs(reading(inputs, *rows), Plain(), SoftmaxKernel()))


def checked_sinks(num_sinks: Any) -> int:
    """A number of keys, 0 or more."""
    number = as_int(num_sinks, "num_sinks")
    if number < 0:
        raise ValueError(f"num_sinks must be 0 or a positive integer, got {num_sinks}.")
    return number


def all_where_none(used: np.ndarray | None, inputs: Inputs) -> np.ndarray | None:
    """The mask over queries, with all of them where a head has none: then no output of the head counts."""
    if used is None:
        return None
    axes = -1 if inputs.group is None or used.ndim == 1 else (-2, -1)
    return used | ~np.any(used, axis=axes, keepdims=True)


def reading(inputs: Inputs, keys: Array, bias: Array, values: Array) -> Inputs:
    """The inputs with these rows in place of the keys."""
    if inputs.group is not None:
        keys, bias, values = keys[..., None, :, :], bias[..., None, :], values[..., None, :, :]
    return replace(inputs, key=keys, value=values, key_bias=bias, key_mask=None)
