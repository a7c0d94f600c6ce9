"""Closed forms turned into decisions: what error to expect before any feature is drawn."""

from typing import Any

import numpy as np

from randfeat._array import as_bool, as_count, as_generator, as_host, to_numpy
from randfeat._hints import hinted
from randfeat.attention.inputs import Inputs
from randfeat.couplings.base import resolve_coupling
from randfeat.couplings.laws import NoClosedForm
from randfeat.estimators.base import Estimator
from randfeat.kernels import SoftmaxFamily
from randfeat.kernels.base import check_positive

MOST_FEATURES = 2**40


@hinted
def num_features_for(
    estimator: Estimator, x: Any, y: Any, *, rel_error: float = 0.1, confidence: float = 0.95
) -> np.ndarray:
    """A number of features with `P(|K̂/K - 1| <= rel_error) >= confidence`, for each pair; x, y (..., d) broadcast.

    The proof is Chebyshev's inequality: the closed-form relative MSE is at most `(1 - confidence) rel_error²`. So the
    number holds for every distribution of the estimate. Estimates with nearly normal errors need fewer features, at a
    confidence of 95 % by a factor of 5.

    The result is the smallest such number if the variance decreases with every row. Blocks of orthogonal rows whose
    errors cancel almost exactly can make a smaller number possible. ValueError if no number is enough: for a bias that
    does not decrease, or above 2⁴⁰ features. NoClosedForm if the variance is not known.

    >>> from randfeat import HyperbolicFeatures
    >>> x = np.array([0.5, 0.0, 0.0])
    >>> int(num_features_for(HyperbolicFeatures(coupling="independent"), x, x, rel_error=0.1))
    2174
    """
    check_positive("rel_error", rel_error)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}.")
    allowed = (1 - confidence) * rel_error**2
    x, y = np.broadcast_arrays(as_host(x, "x"), as_host(y, "y"))
    shape = x.shape[:-1]
    pairs = zip(x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1]), strict=True)
    needed = [width_at(estimator, a, b, allowed) for a, b in pairs]
    return np.asarray(needed, dtype=np.int64).reshape(shape)


def width_at(estimator: Estimator, x: np.ndarray, y: np.ndarray, allowed: float) -> int:
    """The least width whose relative MSE is at most `allowed`: doubled until it is, then bisected."""
    dim = x.shape[-1]

    def error(width: int) -> float:
        if estimator.nearest_num_features(width, dim) != (width,):  # a product of which one factor would get too little
            return np.inf
        return float(estimator.relative_mse(x, y, num_features=width))

    rows, least = 1, np.inf
    while (found := error(width := possible_width(estimator, rows, dim))) > allowed:
        least, rows = min(found, least), 2 * rows
        wish = estimator.num_features(rows, dim)
        if width < wish // 4 or wish > MOST_FEATURES:
            raise ValueError(
                f"{estimator!r} does not reach a relative MSE of {allowed:.2g} at this pair: it is {least:.2g} with "
                f"{width} features; fit features to the data (randfeat.adapt), or allow more."
            )
    low, high = rows // 2, rows
    while high - low > 1:
        middle = (low + high) // 2
        enough = error(possible_width(estimator, middle, dim)) <= allowed
        low, high = (low, middle) if enough else (middle, high)
    return possible_width(estimator, high, dim)


def possible_width(estimator: Estimator, rows: int, dim: int) -> int:
    """The width of this number of rows, or the next that the coupling can have."""
    return estimator.num_features(resolve_coupling(estimator.coupling).nearest_num_rows(rows, dim)[-1], dim)


@hinted
def predict_attention_error(
    estimator: Estimator,
    query: Any,
    key: Any,
    value: Any,
    num_features: int,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    num_queries: int = 32,
    rng: Any = 0,
) -> np.ndarray:
    """Predicted relative error of linear attention, `√(Σ_i E|ô_i - o_i|² / Σ_i |o_i|²)`, to leading order in 1/m.

    For one query, let p be its exact attention weights and o its exact output. With m independent rows, the delta
    method gives

        E|ô - o|² ≈ (1/m) Σ_jk p_j p_k (v_j - o)·(v_k - o) G_jk,   G_jk = E[S_j S_k] / (k_j k_k),

    where G comes from `estimator.log_joint_moment`. Queries (..., L, d), keys (..., S, d), values (..., S, dv) and
    `scale` are as for `linear_attention`. The result has one number for each entry of the leading dimensions.

    num_queries, rng : the sums are over a random subset of this many queries, drawn with this seed; over all queries if
        there are no more. Time O(num_queries S²), memory O(S²).

    Limits: the prediction is valid if Σ_j p_j G_jj / m is small (0.05, say) for every query. A
        prediction near or above 1 says that these features cannot be used for this head. It does not say how large the
        error is: real errors of positive features stay near 1. For signed features (trigonometric) even a small
        prediction is no guarantee, because it does not contain the rare denominators near 0. Rows are taken as
        independent and N(0, I). Couplings make the error smaller if |x + y|² is small; couplings with a bias (constant
        norms, quadrature rules) add an error of their own.

    >>> from randfeat import PositiveFeatures
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 64, 8))
    >>> error = predict_attention_error(PositiveFeatures(), q / 4, k / 4, v, 256)
    >>> bool(0.01 < error < 0.3)
    True
    """
    if not isinstance(estimator.kernel, SoftmaxFamily):
        raise NoClosedForm(
            f"the error of attention is known for kernels of the softmax family only, not for {estimator.kernel!r}; "
            "measure it: compare linear_attention, over several draws, with kernel_attention."
        )
    is_causal = as_bool(is_causal, "is_causal")
    host = [as_host(x, name) for x, name in ((query, "query"), (key, "key"), (value, "value"))]
    mask = None if key_mask is None else to_numpy(key_mask)
    inputs = Inputs.of(*host, kernel=estimator.kernel, scale=scale, key_mask=mask).prepared()
    if estimator.batch_shape:
        raise ValueError(
            f"the estimator has parameters for {estimator.batch_shape} heads; predict the error of one head at a time, "
            "with the estimator that is fitted to it."
        )
    rows = estimator.num_rows(as_count(num_features, "num_features"), inputs.query.shape[-1])
    unit_q, unit_k = estimator.kernel.unit(inputs.query), estimator.kernel.unit(inputs.key)
    length = inputs.num_queries
    chosen = np.arange(length)
    if length > num_queries:
        chosen = np.sort(as_generator(rng).choice(length, num_queries, replace=False))
    lead = np.broadcast_shapes(unit_q.shape[:-2], unit_k.shape[:-2], inputs.value.shape[:-2])
    error, size = np.zeros(lead), np.zeros(lead)
    for head in np.ndindex(*lead):
        q, k, v = (np.broadcast_to(x, lead + x.shape[-2:])[head] for x in (unit_q, unit_k, inputs.value))
        present = np.ones(len(k), bool)
        if inputs.key_mask is not None:
            present = np.broadcast_to(inputs.key_mask, (*lead, len(k)))[head]
        for i in chosen:
            seen = present & (np.arange(len(k)) <= i) if is_causal else present
            if seen.any():
                squared, output = query_error(estimator, q[i], k[seen], v[seen])
                error[head] += squared / rows
                size[head] += output @ output
    return np.sqrt(error / size)


def query_error(estimator: Estimator, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> tuple[float, np.ndarray]:
    """`m E|ô - o|²` and the exact output o for one query, in kernel units."""
    from scipy.special import log_softmax, logsumexp

    assert isinstance(estimator.kernel, SoftmaxFamily)  # those of other kernels have no log_joint_moment
    log_p = log_softmax(k @ q + estimator.kernel.log_envelope(np.sum(k * k, axis=-1)))
    output = np.exp(log_p) @ v
    inner = (v - output) @ (v - output).T
    log_weight = estimator.log_joint_moment(q, k) + log_p[:, None] + log_p[None, :]
    log_total, sign = logsumexp(log_weight, b=inner, return_sign=True)
    with np.errstate(over="ignore"):
        return float(np.exp(log_total) if sign > 0 else 0.0), output  # rounding can leave a tiny negative sum
