"""Diagnostics of linear attention: what to look at before a head is trusted to it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from randfeat._array import as_floating, as_host, mask_on_host
from randfeat._hints import hinted
from randfeat.attention.cost_model.method import AttentionMethod, faster_method
from randfeat.attention.inputs import Inputs
from randfeat.attention.linear import linear_attention
from randfeat.attention.problem import Problem
from randfeat.couplings.laws import NoClosedForm
from randfeat.features import Features
from randfeat.maps import FeatureMap, check_feature_map
from randfeat.selection.forecast import AttentionForecast
from randfeat.selection.prediction import predict_attention_error


@dataclass(frozen=True, eq=False)
class AttentionDiagnostics:
    """Statistics of the denominators of linear attention, one per query: (..., L), float64 NumPy.

    The denominator of query i is the sum over features of `c_f = φ_f(q_i) Σ_j φ_f(k_j)`. The share of a feature is
    `p_f = |c_f| / Σ_g |c_g|`.

    effective_features : `1 / Σ_f p_f²`, from 1 (one feature decides) to the number of features; 0 without keys.
    heaviest_share : `max_f p_f`.
    sign : `Σ_f c_f / Σ_f |c_f|`, 1 for positive features. It is near 0 if the terms of a denominator nearly cancel, and
        negative if the denominator has the wrong sign.
    method : the method, linear or exact, that `attention_method` expects to be faster for inputs of this shape and
        library. Without values, values as long as the keys are assumed.
    predicted_error : (...), the relative error to expect, with a verdict, from `predict_attention_error`; None without
        values, or for kernels outside the softmax family.
    distance_to_mean : (...), `|out - mean| / |out|` over all queries, where mean is the plain average of the values
        that each query sees; None without values. If it is smaller than the error, the plain average is the better
        output.
    """

    effective_features: np.ndarray
    heaviest_share: np.ndarray
    sign: np.ndarray
    method: AttentionMethod
    predicted_error: AttentionForecast | None = None
    distance_to_mean: np.ndarray | None = None


@hinted
def attention_diagnostics(
    query: Any,
    key: Any,
    features: FeatureMap,
    value: Any = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
) -> AttentionDiagnostics:
    """Diagnostics of `linear_attention(query, key, value, features, ...)`, from the raw queries and keys.

    Computed on the host in float64. Time and memory are O((L + S) num_features), and O(S²) for the predicted error.

    >>> import randfeat as rf
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 100, 16))
    >>> phi = rf.PositiveFeatures().draw(dim=16, num_features=256, rng=0)
    >>> gentle, wild = (rf.attention_diagnostics(s * q, s * k, phi) for s in (0.1, 4.0))
    >>> bool(gentle.effective_features.min() > 200), bool(wild.effective_features.mean() < 3)
    (True, True)
    """
    check_feature_map(features)
    like, query, key = as_floating(query, "query"), as_host(query, "query"), as_host(key, "key")
    values = np.zeros((*key.shape[:-1], 1)) if value is None else as_host(value, "value")
    mask = mask_on_host(key_mask, "key_mask")
    options: dict[str, Any] = {"scale": scale, "key_mask": mask, "is_causal": is_causal}
    features = features.to(query)
    problem = Problem.of(query, key, values, features, **options)
    inputs = problem.inputs.prepared()
    lead = np.broadcast_shapes(inputs.query.shape[:-2], problem.lead)
    effective, heaviest, sign = contributions(inputs, features, lead, is_causal)
    shapes = replace(problem, inputs=replace(inputs, value=inputs.key)) if value is None else problem
    method = faster_method(shapes, like)
    if value is None:
        return AttentionDiagnostics(effective, heaviest, sign, method)
    output = np.broadcast_to(linear_attention(query, key, values, features, **options), (*lead, *effective.shape[-1:],
                                                                                        values.shape[-1]))  # fmt: skip
    mean = means(inputs, is_causal)
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.sqrt(np.sum((output - mean) ** 2, axis=(-2, -1)) / np.sum(output**2, axis=(-2, -1)))
    try:
        error = predict_attention_error(features.estimator, query, key, values, features.num_features, **options)
    except NoClosedForm:
        error = None
    return AttentionDiagnostics(effective, heaviest, sign, method, error, distance)


def feature_shares(
    query: Any, key: Any, features: FeatureMap, *, is_causal: bool, scale: float | None, key_mask: Any
) -> np.ndarray:
    """The share of every feature in the denominator of every query, (..., L, num_features); zeros without keys."""
    check_feature_map(features)
    query, key = as_host(query, "query"), as_host(key, "key")
    mask = mask_on_host(key_mask, "key_mask")
    features = features.to(query)
    values = np.zeros((*key.shape[:-1], 1))
    problem = Problem.of(query, key, values, features, scale=scale, key_mask=mask, is_causal=is_causal)
    return terms_of_denominators(problem.inputs.prepared(), features, is_causal)[0]


def contributions(
    inputs: Inputs, features: FeatureMap, lead: tuple[int, ...], is_causal: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effective number, largest share and sign of the terms of every denominator."""
    share, signs = terms_of_denominators(inputs, features, is_causal)
    squares = np.sum(share**2, axis=-1)
    effective = np.where(squares == 0, 0.0, 1.0 / np.where(squares == 0, 1.0, squares))
    sign = np.sum(share * signs, axis=-1)
    shape = (*lead, inputs.num_queries)
    return tuple(np.broadcast_to(x, shape) for x in (effective, np.max(share, axis=-1, initial=0.0), sign))  # type: ignore[return-value]


def terms_of_denominators(inputs: Inputs, features: FeatureMap, is_causal: bool) -> tuple[np.ndarray, np.ndarray]:
    """The shares of the features in the denominator of every query, and the signs of their terms: (..., L, f)."""
    query_sign, query_log = signs_and_logs(features.queries(inputs.query))
    key_sign, key_log = signs_and_logs(features.keys(inputs.key))
    if inputs.key_mask is not None:
        key_log = np.where(inputs.key_mask[..., None], key_log, -np.inf)
    length = inputs.num_queries
    seen = np.minimum(np.arange(1, length + 1), inputs.num_keys) if is_causal else np.full(length, inputs.num_keys)
    empty = np.full((*key_log.shape[:-2], 1, key_log.shape[-1]), -np.inf)
    sums = []
    for which in (1, -1):  # sums over the keys of either sign, of every prefix
        terms = np.concatenate([empty, np.where(key_sign == which, key_log, -np.inf)], axis=-2)
        prefixes = np.logaddexp.accumulate(terms, axis=-2)
        sums.append(np.take(prefixes, seen, axis=-2))
    plus, minus = sums
    top = np.maximum(plus, minus)
    shift = np.where(top == -np.inf, 0.0, top)
    total = np.exp(plus - shift) - np.exp(minus - shift)
    log = query_log + shift
    with np.errstate(divide="ignore"):
        log = log + np.log(np.abs(total))
    most = np.max(log, axis=-1, keepdims=True, initial=-np.inf)
    size = np.exp(log - np.where(most == -np.inf, 0.0, most))
    whole = np.sum(size, axis=-1, keepdims=True)
    return size / np.where(whole == 0, 1.0, whole), query_sign * np.sign(total)


def signs_and_logs(features: Features) -> tuple[np.ndarray, np.ndarray]:
    """Features (..., n, f) as signs and logarithms of their size."""
    with np.errstate(divide="ignore"):
        return np.sign(features.values), features.log_scale + np.log(np.abs(features.values))


def means(inputs: Inputs, is_causal: bool) -> np.ndarray:
    """The plain average of the values that each query sees: (..., L or 1, dv)."""
    present = np.ones(inputs.num_keys, bool) if inputs.key_mask is None else inputs.key_mask
    present = present[..., None].astype(np.float64)
    if not is_causal:
        count = np.sum(present, axis=-2, keepdims=True)
        return np.asarray(np.sum(inputs.value * present, axis=-2, keepdims=True) / np.maximum(count, 1))
    seen = np.minimum(np.arange(inputs.num_queries), inputs.num_keys - 1)
    counts, sums = np.cumsum(present, axis=-2), np.cumsum(inputs.value * present, axis=-2)
    return np.asarray(np.take(sums, seen, axis=-2) / np.maximum(np.take(counts, seen, axis=-2), 1))
