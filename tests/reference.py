"""Naive twins: features by loops from their formulas, and attention from the whole Gram matrix of estimates.

Everything is float64 NumPy, written from the formulas in the docstrings of the library and not with its code. Each twin
says how far a correct implementation may be from it: `per_eps`, a bound on the error in units of eps of the dtype that
was computed in, from the standard model of rounding (a sum of n terms is off by n eps times the sum of their sizes).
"""

import cmath
import math
from dataclasses import dataclass

import numpy as np

import randfeat as rf
from tests.arrays import to_numpy

FUNCTION = 8  # eps allowed to one exp, sine or cosine of a library


@dataclass(frozen=True)
class NaiveFeatures:
    """Features `sign * exp(log)`, (n, f) each; `size` bounds the factor of exp(scale) that is a cosine, as a log."""

    sign: np.ndarray
    log: np.ndarray
    size: np.ndarray
    terms: np.ndarray
    """Sum of the sizes of everything that is added up inside of the exponent or the cosine, (n, f)."""

    def per_eps(self, dim):
        """Bound on the error of the exponent or angle, in eps: products, norms, scaling of the inputs, additions."""
        return (dim + 8) * self.terms + FUNCTION


@dataclass(frozen=True)
class NaiveOutput:
    """What attention should give, and how far from it a correct implementation may be."""

    output: np.ndarray
    per_eps: np.ndarray

    def check(self, actual, eps, *, output_eps=0.0, most=1e-6):
        """`actual` is within `per_eps * eps` and half a spacing of its own dtype: a bound of `most` of the size."""
        actual = to_numpy(actual)
        assert actual.shape == self.output.shape, f"shape {actual.shape}, expected {self.output.shape}"
        bound = self.per_eps * eps + output_eps / 2 * np.abs(self.output)
        scale = np.max(np.abs(self.output), initial=1e-300)
        assert np.max(bound, initial=0.0) <= most * scale, (
            f"the bound {np.max(bound):.1e} says nothing, size {scale:.1e}"
        )
        error = np.abs(actual - self.output)
        assert np.all(error <= bound), f"error {np.max(error):.2e}, {np.max(error / bound):.1f} times the bound"


def positive(estimator, w, u, m, side):
    """`exp(w·u - |u|²/2) / √m`."""
    return [(1.0, w @ u - u @ u / 2 - math.log(m) / 2)]


def hyperbolic(estimator, w, u, m, side):
    """`exp(±w·u - |u|²/2) / √(2m)`."""
    return [(1.0, sign * (w @ u) - u @ u / 2 - math.log(2 * m) / 2) for sign in (1, -1)]


def trigonometric(estimator, w, u, m, side, phases=0.0):
    """`e^{|u|²/2} cos(w·u), sin(w·u) / √m`, or `e^{|u|²/2} √(2/m) cos(w·u + b)`."""
    if estimator.variant == "phase":
        return [(math.cos(w @ u + phases), u @ u / 2 + math.log(2 / m) / 2)]
    return [(function(w @ u), u @ u / 2 - math.log(m) / 2) for function in (math.cos, math.sin)]


def optimal_positive(estimator, w, u, m, side, log_weights=0.0):
    """`(1-4a)^{d/4} exp(a|w|² + √(1-4a) w·u - |u|²/2) / √m`, from the stretched rows `√(1-4a) w`."""
    a, signs = float(estimator.exponent), (1, -1) if estimator.antithetic else (1,)
    weight = a * (w @ w) / (1 - 4 * a) + len(w) / 4 * math.log(1 - 4 * a) - math.log(len(signs) * m) / 2
    return [(1.0, sign * (w @ u) - u @ u / 2 + weight) for sign in signs]


def generalized_exponential(estimator, w, u, m, side, log_weights=0.0, arguments=0.0):
    """Real and imaginary parts of `(1-4A)^{d/4} exp(A|w|² + B w·u - s|u|²/2) / √m`; conjugate, with sB, for keys."""
    a, s = estimator.parameter, estimator.sign
    b = cmath.sqrt(s * (1 - 4 * a)) * (s if side == "keys" else 1)
    log = a * (w @ w) + b * (w @ u) - s * (u @ u) / 2 + len(w) / 4 * cmath.log(1 - 4 * a) - math.log(m) / 2
    return [(math.cos(log.imag), log.real), (math.sin(log.imag) * (-1 if side == "keys" else 1), log.real)]


FORMULAS = {
    rf.PositiveFeatures: positive,
    rf.HyperbolicFeatures: hyperbolic,
    rf.TrigonometricFeatures: trigonometric,
    rf.OptimalPositiveFeatures: optimal_positive,
    rf.GeneralizedExponentialFeatures: generalized_exponential,
}
"""(estimator, one row, one input in kernel units, number of rows, side, what else was drawn for the row) -> the
features of that row, as pairs of a value and the logarithm of its scale, for the softmax kernel."""


def naive_features(phi, x, *, index=(), side="queries"):
    """Features of the rows of x (n, d) by one map of the batch, one number at a time.

    Estimators without a formula here lend their own features, in float64: attention can then still be checked.
    """
    arrays = {name: to_numpy(array)[index] for name, array in phi.arrays.items()}
    rows, others = arrays["rows"], {name: array for name, array in arrays.items() if name != "rows"}
    kernel, gaussian = phi.estimator.kernel, isinstance(phi.estimator.kernel, rf.GaussianKernel)
    x = np.asarray(x, dtype=np.float64)
    unit = x / kernel.length_scale if gaussian else x * math.sqrt(kernel.scale)
    formula = FORMULAS.get(type(phi.estimator))
    if formula is None:
        own = getattr(rf.FeatureMap(phi.estimator, phi.dim, phi.num_features, arrays), side)(x)
        scale = np.broadcast_to(own.log_scale, own.values.shape)
        value = own.values
    else:
        value, scale = np.empty((2, len(x), phi.num_features))
        for i, u in enumerate(unit):
            envelope = -(u @ u) / 2 if gaussian else 0.0
            for j, w in enumerate(rows):
                drawn = {name: array[0, j] for name, array in others.items()}
                features = formula(phi.estimator, w, u, len(rows), side, **drawn)
                for k, (number, log) in enumerate(features):
                    value[i, k * len(rows) + j], scale[i, k * len(rows) + j] = number, log + envelope
    with np.errstate(divide="ignore"):
        log = scale + np.log(np.abs(value))
    # |w·u| with slopes up to 2, |u|²/2 with its envelope, what else is drawn for a row, and its logarithm
    terms = 2 * np.max(np.abs(unit) @ np.abs(rows).T, axis=-1, initial=0.0) + 2 * np.sum(unit**2, axis=-1)
    terms = terms + math.log(phi.num_features) + 2 * math.pi + sum(np.max(np.abs(array)) for array in others.values())
    return NaiveFeatures(np.sign(value), log, scale, np.broadcast_to(terms[:, None], log.shape))


def naive_attention(phi, query, key, value, *, merges=16, **options):
    """`Σ_j K̂_ij v_j / Σ_j K̂_ij` pair by pair, each K̂_ij from its products of features with one common scale per query.

    `merges` bounds how often a partial sum was rescaled on its way to the output.
    """
    rows = to_numpy(phi.arrays["rows"])

    def head_of(query, key, which):
        index = np.unravel_index(which, rows.shape[:-2])
        q = naive_features(phi, query, index=index, side="queries")
        k = naive_features(phi, key, index=index, side="keys")

        def row(i, seen, v, extra):
            size = q.size[i] + k.size[seen] + extra[:, None]
            top = np.max(size)
            weight = np.sum(q.sign[i] * k.sign[seen] * np.exp(q.log[i] + k.log[seen] + extra[:, None] - top), axis=-1)
            largest = np.sum(np.exp(size - top), axis=-1)  # what rounding is relative to: a |cos| may be up to 1
            exponent = np.max(q.per_eps(phi.dim)[i] + k.per_eps(phi.dim)[seen])
            shifts = 2 * np.max(np.abs(size)) + FUNCTION  # a rescaling is the exponential of a difference of exponents
            return ratio(weight, largest, v, 2 * exponent + (merges + 2) * shifts + len(v) + phi.num_features)

        return row

    return over_heads(head_of, query, key, value, rows.shape[:-2], **options)


def naive_kernel_attention(kernel, query, key, value, **options):
    """Exact normalized kernel attention, pair by pair."""

    def head_of(query, key, which):
        def row(i, seen, v, extra):
            products = key[seen] * query[i]
            if isinstance(kernel, rf.GaussianKernel):
                log = -np.sum((query[i] - key[seen]) ** 2, axis=-1) / (2 * kernel.length_scale**2)
                # the expanded square, about the mean of the keys
                terms = 4 * (np.sum(query[i] ** 2) + np.max(np.sum(key**2, axis=-1))) / kernel.length_scale**2
            else:
                log, terms = kernel.scale * np.sum(products, axis=-1), kernel.scale * np.sum(np.abs(products), axis=-1)
            log = log + extra
            weight = np.exp(log - np.max(log))
            exponent = (key.shape[-1] + 8) * np.max(terms) + 2 * np.max(np.abs(log)) + FUNCTION
            return ratio(weight, weight, v, 2 * exponent + len(v))

        return row

    return over_heads(head_of, query, key, value, (), **options)


def ratio(weight, largest, v, per_eps):
    """The weighted mean of v, and the bound on it when each weight is off by `per_eps * largest`."""
    total = math.fsum(weight)
    output = np.array([math.fsum(weight * column) for column in v.T]) / total
    return output, per_eps * (largest @ np.abs(v) + np.abs(output) * np.sum(largest)) / abs(total)


def over_heads(
    head_of,
    query,
    key,
    value,
    batch_shape,
    *,
    is_causal=False,
    scale=None,
    key_mask=None,
    enable_gqa=False,
    log_weights=0.0,
):
    """Each query of each head over the keys that it sees; zeros where it sees none.

    `log_weights` (..., L, S), one for each query head, are added to the logarithms of the kernel: -inf is unseen.
    """
    query, key, value = (to_numpy(x) for x in (query, key, value))
    which = np.arange(math.prod(batch_shape)).reshape(batch_shape)  # number of the map of each head
    mask = np.ones(key.shape[:-1], bool) if key_mask is None else np.broadcast_to(to_numpy(key_mask), key.shape[:-1])
    if enable_gqa:
        group = query.shape[-3] // key.shape[-3]
        if which.ndim and which.shape[-1] == key.shape[-3]:
            which = np.repeat(which, group, axis=-1)
        key, value, mask = np.repeat(key, group, -3), np.repeat(value, group, -3), np.repeat(mask, group, -2)
    root = math.sqrt(query.shape[-1] ** -0.5 if scale is None else scale)
    lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2], which.shape)
    query, key, value = (np.broadcast_to(x, lead + x.shape[-2:]) for x in (query * root, key * root, value))
    mask, which = np.broadcast_to(mask, (*lead, key.shape[-2])), np.broadcast_to(which, lead)
    log_weights = np.broadcast_to(log_weights, (*lead, query.shape[-2], key.shape[-2]))
    output = np.zeros((*lead, query.shape[-2], value.shape[-1]))
    per_eps = np.zeros_like(output)
    for head in np.ndindex(*lead):
        row = head_of(query[head], key[head], which[head])
        for i in range(query.shape[-2]):
            seen = mask[head] & (np.arange(key.shape[-2]) <= i if is_causal else True)
            seen = seen & (log_weights[(*head, i)] > -np.inf)
            if seen.any():
                extra = log_weights[(*head, i)][seen]
                output[(*head, i)], per_eps[(*head, i)] = row(i, seen, value[head][seen], extra)
    return NaiveOutput(output, per_eps)
