"""output_error: the error of an output of attention, from exact rows of a sample of its queries."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import (
    Array,
    as_bool,
    as_count,
    as_floating,
    as_host,
    check_in_memory,
    device_of,
    move_to,
    namespace,
    own_precision,
)
from randfeat._hints import hinted
from randfeat.attention.inputs import Inputs, swap_heads
from randfeat.attention.relations.base import as_int
from randfeat.compressed.heads import check_loaded, check_query_mask, head_seeds
from randfeat.compressed.routing import partial_of, rows_at
from randfeat.kernels import SoftmaxKernel

WIDTH = 2.5
"""Standard errors between estimate and upper value."""
LEAST_STATEMENT = 0.01
LEVERAGE_RIDGE = 0.01
LEAST_CORRECTION = 0.05  # of the variance, for drawing without replacement


@dataclass(frozen=True, eq=False)
class OutputError:
    """Relative errors of an output, `‖out - exact‖ / ‖exact‖` (Frobenius), one for each query head.

    error (...) : the estimates. upper (...) : values that the errors exceed rarely, as `output_error` says.
    rows (..., r) : the positions of the queries whose exact outputs were computed.
    All three are NumPy arrays.
    """

    error: np.ndarray
    upper: np.ndarray
    rows: np.ndarray

    def __repr__(self) -> str:
        error, upper = (np.array2string(x, precision=3) for x in (self.error, self.upper))
        return f"OutputError(error={error}, upper={upper}, num_rows={self.rows.shape[-1]})"


@hinted
def output_error(
    query: Any,
    key: Any,
    value: Any,
    output: Any,
    *,
    num_rows: int = 64,
    is_causal: bool = False,
    causal_offset: int = 0,
    scale: float | None = None,
    key_mask: Any = None,
    key_lengths: Any = None,
    query_mask: Any = None,
    enable_gqa: bool = False,
    layout: str = "bhld",
    rng: Any = 0,
) -> OutputError:
    """The error of an output against exact softmax attention, estimated from exact rows of a few queries.

    The output (..., L, dv) may come from any operator: linear, clustered or compressed attention, or one of another
    library. Time O(num_rows S) for each head.

    num_rows : int.
        Queries that are drawn, r; with r >= L the error is exact.
    query_mask : bool, (L,) or the shape of `query` without its last dimension.
        Queries that count; padding should not.
    Other arguments are those of `softmax_attention`.

    Queries are drawn with probabilities `p_i = 1/(2L) + h_i/(2 Σ h)`, where h_i is the leverage of the query, and
    weighted by `ω_i = 1/(L p_i)`. With `a_i = ω_i |out_i - exact_i|²` and `b_i = ω_i |exact_i|²`,

        error = √R,  R = Σ a / Σ b,     upper = √R exp(2.5 s / 2),

    where s is the standard error of R, relative to R. There is one error for each query head. On heads of trained
    models, the true error was below `upper` in 97 % of the draws on average, and `upper` was 1.15 times the error
    (median). `upper` is at least 0.01, unless the error is exact.

    **It is not a guarantee**: an error that is concentrated in one unremarkable query is invisible to any sample, and
    there are heads where one query carries 30 to 60 % of the squared error.

    Source: Madow 1949, systematic sampling with unequal probabilities; Hájek 1971, the ratio estimator.

    >>> import numpy as np, randfeat as rf
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 2, 1000, 16))
    >>> out = rf.clustered_attention(q, k, v)
    >>> exact = rf.softmax_attention(q, k, v)
    >>> true = np.linalg.norm(out - exact, axis=(-2, -1)) / np.linalg.norm(exact, axis=(-2, -1))
    >>> check = rf.output_error(q, k, v, out)
    >>> bool(np.all(np.abs(check.error / true - 1) < 0.3)), bool(np.all(true < check.upper))
    (True, True)
    """
    is_causal, num_rows = as_bool(is_causal, "is_causal"), as_count(num_rows, "num_rows")
    offset = as_int(causal_offset, "causal_offset")
    if offset and not is_causal:
        raise ValueError("causal_offset needs is_causal=True: without it every query sees every key.")
    inputs = Inputs.of(
        query, key, value, kernel=SoftmaxKernel(),
        scale=scale, key_mask=key_mask, key_lengths=key_lengths, enable_gqa=enable_gqa, layout=layout,
    )  # fmt: skip
    check_loaded(inputs)
    check_in_memory(output, "output")
    used = check_query_mask(query_mask, inputs)
    lead = np.broadcast_shapes(inputs.query.shape[:-2], inputs.key.shape[:-2], inputs.value.shape[:-2])
    heads = int(np.prod(lead, dtype=int))
    length = inputs.num_queries
    shape = lead if inputs.group is None else (*lead[:-2], lead[-2] * lead[-1])
    given = output_of(inputs, output, shape)
    if num_rows == 1 and length > 1:
        raise ValueError("num_rows must be at least 2: one row has no standard error.")
    queries = np.broadcast_to(as_host(inputs.query, "query"), (*lead, *inputs.query.shape[-2:]))
    counts = np.ones((*lead, length), np.bool_) if used is None else np.broadcast_to(used, (*lead, length))
    pairs = zip(queries.reshape(heads, length, queries.shape[-1]), counts.reshape(heads, length), strict=True)
    if heads == 0 or length == 0:
        nothing = np.zeros(shape)
        return OutputError(nothing, nothing, np.zeros((*shape, 0), np.intp))
    samples = [
        draw(own, counted, num_rows, np.random.default_rng(seed))
        for (own, counted), seed in zip(pairs, head_seeds(rng, shape), strict=True)
    ]
    index, weights = (np.stack(column) for column in zip(*samples, strict=True))
    with own_precision(inputs.value):
        exact = exact_rows(inputs, lead, index, is_causal=is_causal, offset=offset)
    estimate = as_host(rows_at(given, index), "output")
    drawn = weights > 0
    errors, sizes = (np.where(drawn, weights * np.sum(x**2, axis=-1), 0) for x in (estimate - exact, exact))
    error, upper = summary(errors, sizes, drawn, np.sum(counts.reshape(heads, length), axis=-1))
    return OutputError(error.reshape(shape), upper.reshape(shape), index.reshape(*shape, index.shape[-1]))


def output_of(inputs: Inputs, output: Any, heads: tuple[int, ...]) -> Array:
    """The output as (heads, L, dv), if it has the shape of an output of these inputs."""
    output = as_floating(output, "output")
    if namespace(output) is not namespace(inputs.value):
        output = move_to(output, inputs.value)
    if inputs.layout == "blhd":
        output = swap_heads(output)
    expected = (*heads, inputs.num_queries, inputs.value.shape[-1])
    if tuple(output.shape) != expected:
        raise ValueError(f"output must have the shape {expected} of an output of attention, got {tuple(output.shape)}.")
    return namespace(output).reshape(output, (math.prod(heads), *expected[-2:]))


def draw(
    queries: np.ndarray, counted: np.ndarray, num_rows: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights of the rows of one head, `min(num_rows, L)` of each; weight 0 where there are fewer."""
    width = min(num_rows, len(queries))
    index, weights = np.zeros(width, np.intp), np.zeros(width)
    candidates = np.flatnonzero(counted)
    if len(candidates) <= width:
        index[: len(candidates)], weights[: len(candidates)] = candidates, 1
        return index, weights
    share = shares(queries[candidates])
    order = generator.permutation(len(candidates))
    limits = np.cumsum(share[order])
    points = (generator.random() + np.arange(width)) / width * limits[-1]
    chosen = order[np.minimum(np.searchsorted(limits, points, side="right"), len(order) - 1)]
    return candidates[chosen], 1 / (len(candidates) * share[chosen])


def shares(queries: np.ndarray) -> np.ndarray:
    """Probabilities of queries (n, d), half of them uniform and half in proportion to leverage."""
    moved = queries - np.mean(queries, axis=0)
    size = np.max(np.abs(moved), initial=0.0)
    uniform = np.full(len(queries), 1 / len(queries))
    if not (size > 0 and np.isfinite(size)):
        return uniform
    moved /= size
    covariance = moved.T @ moved / len(moved)
    covariance[np.diag_indices(len(covariance))] += LEVERAGE_RIDGE * np.trace(covariance) / len(covariance)
    leverage = np.sum(moved * np.linalg.solve(covariance, moved.T).T, axis=-1)
    return uniform / 2 + leverage / (2 * np.sum(leverage))


def exact_rows(inputs: Inputs, lead: tuple[int, ...], index: np.ndarray, *, is_causal: bool, offset: int) -> np.ndarray:
    """Exact outputs (heads, r, dv) of the queries at `index` (heads, r), in float64 on the host."""
    prepared, xp = inputs.prepared(), namespace(inputs.value)
    query = xp.broadcast_to(prepared.query, (*lead, *prepared.query.shape[-2:]))
    rows = rows_at(xp.reshape(query, (index.shape[0], *query.shape[-2:])), index)
    rows = xp.reshape(rows, (*lead, *rows.shape[-2:]))
    logits = rows @ xp.matrix_transpose(prepared.key)
    if inputs.key_mask is not None:
        logits = xp.where(inputs.key_mask[..., None, :], logits, -xp.inf)
    if is_causal:
        last = xp.asarray(index.reshape(*lead, -1, 1) + offset, device=device_of(rows))
        logits = xp.where(xp.arange(inputs.num_keys, device=device_of(rows)) <= last, logits, -xp.inf)
    outputs = partial_of(logits, prepared.value).normalized()
    return as_host(xp.reshape(outputs, (*index.shape, outputs.shape[-1])), "output")


def summary(
    errors: np.ndarray, sizes: np.ndarray, drawn: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Estimates and upper values (heads,) from weighted squares (heads, r) of the rows that were drawn."""
    total, size, number = np.sum(errors, axis=-1), np.sum(sizes, axis=-1), np.sum(drawn, axis=-1)
    ratio = np.where(total == 0, 0, total / np.where(size == 0, 1, size))
    ratio = np.where((size == 0) & (total > 0), np.inf, ratio)
    left = errors - np.where(np.isfinite(ratio), ratio, 0)[:, None] * sizes
    correction = np.maximum(1 - number / np.maximum(lengths, 1), LEAST_CORRECTION) * number / np.maximum(number - 1, 1)
    spread = np.sqrt(correction * np.sum(left**2, axis=-1)) / np.where(total == 0, 1, total)
    error = np.sqrt(ratio)
    upper = np.maximum(error * np.exp(WIDTH * spread / 2), LEAST_STATEMENT)
    return error, np.where(number >= lengths, error, upper)
