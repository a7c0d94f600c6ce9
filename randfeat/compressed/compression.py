"""compress: one small set of biased keys for all queries."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from randfeat._array import Array, as_bool, as_count, as_generator, cast, host_to, namespace
from randfeat._hints import hinted
from randfeat.attention.inputs import Inputs
from randfeat.compressed.cache import KeyCache
from randfeat.compressed.heads import Head, check_query_mask, heads_of, stacked
from randfeat.compressed.merging import Merge, References, merge_keys, num_references
from randfeat.compressed.regression import fitted
from randfeat.kernels import SoftmaxKernel


@hinted
def compress(
    key: Any,
    value: Any,
    *,
    num_keys: int = 64,
    queries: Any,
    fit: bool = True,
    folds: str = "random",
    scale: float | None = None,
    key_mask: Any = None,
    query_mask: Any = None,
    key_bias: Any = None,
    enable_gqa: bool = False,
    rng: Any = 0,
) -> KeyCache:
    """A `KeyCache` of at most `num_keys` rows that softmax attention reads in place of the keys.

    Keys that typical queries do not tell apart are merged: clusters in the metric of the queries' covariance, each
    replaced by its mean under the attention that it gets, with the bias that keeps its mean mass. Time O(num_keys S).

    Parameters
    ----------
    key : (..., S, d).
        S keys of each head. The leading dimensions are free; each head has a cache of its own.
    value : (..., S, dv).
        One value for each key.
    num_keys : int.
        Rows of the cache. With as many rows as keys, the cache is exact. Clusters without keys are dropped.
    queries : (..., R, d).
        Typical queries: what the cache is made for. Of many, 2 `num_keys` are drawn (4 `num_keys` with a fit).
    fit : bool.
        If True, masses and values of the rows are then fitted to the outputs of the queries, by regression towards the
        merged keys. This pays if thousands of queries like these read the cache. The fitted values can lie outside of
        the range of the values. If False, the outputs are convex combinations of the values.
    folds : "random" or "blocks".
        How the queries are divided for the choice of the penalty of the fit: "random" for exchangeable queries,
        "blocks" (quarters in order of time) for a prefix that later, different queries will read.
    scale : float.
        Factor of the logits, 1/√d by default.
    key_mask, query_mask : bool, True = take part.
        Masked keys are as if they were not there. Masked queries are not used as references.
    key_bias : (S,) or the shape of `key` without its last dimension.
        Biases of the keys, where they are rows of a cache already.
    enable_gqa : bool.
        If True, the query heads (dimension -3) of a group share the cache of their key head; references are pooled.
    rng : see `Estimator.draw`.
        Equal seeds give equal caches, whatever the number of threads or heads.

    Returns
    -------
    KeyCache in the library, device and dtype of the keys. If heads have different numbers of rows, the shorter ones end
    with rows of bias `-inf`.

    The fit is computed on the host, in float32 for float32 keys and float64 otherwise; regression is in float64.
    Keys and values of the rows are differentiable in `key` and `value`, with the fit held constant.

    Errors of the outputs are not bounded by theory: measure them with `randfeat.output_error`.

    Source: `docs/theory/compressed.md` derives the formulas and names what they build on.
    """
    fit, num_keys = as_bool(fit, "fit"), as_count(num_keys, "num_keys")
    if folds not in ("random", "blocks"):
        raise ValueError(f'folds must be "random" or "blocks", got {folds!r}.')
    inputs = Inputs.of(
        queries, key, value, kernel=SoftmaxKernel(),
        scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, key_bias=key_bias,
    )  # fmt: skip
    return compress_inputs(inputs, check_query_mask(query_mask, inputs), Options(num_keys, fit, folds), scale, rng)


def exact_cache(inputs: Inputs, scale: float | None) -> KeyCache:
    """The cache of the keys themselves."""
    xp, key, value, mask, bias = namespace(inputs.key), inputs.key, inputs.value, inputs.key_mask, inputs.key_bias
    if inputs.group is not None:
        key, value = key[..., 0, :, :], value[..., 0, :, :]
        mask, bias = (x[..., 0, :] if x is not None and x.ndim > 1 else x for x in (mask, bias))
    cache = KeyCache.exact(key, value, key_mask=mask, scale=scale)
    return (
        cache
        if bias is None
        else replace(cache, bias=xp.where(cache.bias == 0, cast(bias, cache.bias.dtype), cache.bias))
    )


@dataclass(frozen=True)
class Options:
    """How keys are compressed."""

    num_keys: int
    fit: bool
    folds: str


def compress_inputs(
    inputs: Inputs, used: np.ndarray | None, options: Options, scale: float | None, rng: Any
) -> KeyCache:
    """The cache of the keys of checked inputs, whose queries are the references."""
    if inputs.num_keys <= options.num_keys:
        return exact_cache(inputs, scale)
    lead, heads = heads_of(inputs, used)
    generators = as_generator(rng).spawn(len(heads))
    merges = [compress_head(head, generator, options) for head, generator in zip(heads, generators, strict=True)]
    return cache_of(inputs, lead, heads, merges, scale)


def compress_head(head: Head, generator: np.random.Generator, options: Options) -> Merge:
    """The merge of the keys of one head; with biases NaN if a key is not finite."""
    merge = merge_head(head, generator, options)
    return replace(merge, bias=np.full_like(merge.bias, np.nan)) if head.is_spoiled else merge


def merge_head(head: Head, generator: np.random.Generator, options: Options) -> Merge:
    """The merge of the keys of one head, which are finite."""
    rows, queries = head.rows, head.references
    if len(rows) <= options.num_keys:
        return Merge.identity(rows)
    if len(queries) == 0:
        raise ValueError("queries must have at least one that takes part: a cache is made for typical queries.")
    num = num_references(options.num_keys, len(queries), fit=options.fit)
    chosen = queries if num == len(queries) else queries[np.sort(generator.choice(len(queries), num, replace=False))]
    center = np.mean(rows.keys, axis=0)
    centered = rows.shifted(-center)
    references = References.of(chosen, centered)
    merge = merge_keys(references, queries, centered, options.num_keys, generator)
    return fitted(references, merge, centered, options.folds, generator) if options.fit else merge


def cache_of(
    inputs: Inputs, lead: tuple[int, ...], heads: list[Head], merges: list[Merge], scale: float | None
) -> KeyCache:
    """The cache whose rows are the merges of the heads' keys and values, in the library of the inputs."""
    if isinstance(inputs.key, np.ndarray):
        found = [merge.rows(head.rows) for head, merge in zip(heads, merges, strict=True)]
        keys = stacked([rows.keys for rows in found], lead) / inputs.root
        values = stacked([rows.values for rows in found], lead)
    else:
        keys, values = averages_of(inputs, lead, heads, merges)
    bias = host_to(stacked([merge.bias for merge in merges], lead, -np.inf), keys)
    return KeyCache(cast(keys, inputs.dtype), bias, cast(values, inputs.dtype), None, scale)


def averages_of(inputs: Inputs, lead: tuple[int, ...], heads: list[Head], merges: list[Merge]) -> tuple[Array, Array]:
    """Keys and values of the rows as products with matrices of shares, differentiable in the keys and values."""
    prepared = replace(inputs, root=1.0).prepared()
    key, value = prepared.key, prepared.value
    if inputs.group is not None:
        key, value = key[..., 0, :, :], value[..., 0, :, :]
    matrices = [merge.matrix(head.present, inputs.num_keys) for head, merge in zip(heads, merges, strict=True)]
    shares = host_to(stacked(matrices, lead), key)
    keys, values = shares @ key, shares @ value
    if any(merge.correction is not None for merge in merges):
        values = values + host_to(stacked([merge.corrections(value.shape[-1]) for merge in merges], lead), value)
    return keys, values
