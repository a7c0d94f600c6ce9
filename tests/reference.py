"""Naive twins: features by loops from their formulas, and attention from the whole Gram matrix of estimates.

Everything is float64 NumPy, written from the formulas in the docstrings of the library and not with its code. Each twin
says how far a correct implementation may be from it: `per_eps`, a bound on the error in units of eps of the dtype that
was computed in, from the standard model of rounding (a sum of n terms is off by n eps times the sum of their sizes).
"""

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


BY_FORMULA = (rf.PositiveFeatures, rf.HyperbolicFeatures, rf.TrigonometricFeatures)


def naive_features(phi, x, *, index=(), side="queries"):
    """Features of the rows of x (n, d) by one map of the batch, one number at a time.

    Estimators without a formula here lend their own features, in float64: attention can then still be checked.
    """
    rows = to_numpy(phi.arrays["rows"])[index]
    estimator, m = phi.estimator, len(rows)
    if type(estimator) not in BY_FORMULA:
        arrays = {name: to_numpy(array)[index] for name, array in phi.arrays.items()}
        own = getattr(rf.FeatureMap(estimator, phi.dim, phi.num_features, arrays), side)(np.asarray(x, np.float64))
        log = np.broadcast_to(own.log_scale, own.values.shape)
        with np.errstate(divide="ignore"):
            return NaiveFeatures(np.sign(own.values), log + np.log(np.abs(own.values)), log, np.abs(log))
    kernel = estimator.kernel
    pairs = getattr(estimator, "variant", "pairs") == "pairs"
    width = phi.num_features
    sign, log, size, terms = (np.empty((len(x), width)) for _ in range(4))
    phases = to_numpy(phi.arrays["phases"])[index][0] if "phases" in phi.arrays else np.zeros(m)
    for i, x_i in enumerate(np.asarray(x, dtype=np.float64)):
        u = x_i / kernel.length_scale if isinstance(kernel, rf.GaussianKernel) else x_i * math.sqrt(kernel.scale)
        sqnorm = math.fsum(u * u)
        envelope = -sqnorm / 2 if isinstance(kernel, rf.GaussianKernel) else 0.0
        for j, w in enumerate(rows):
            a, a_size = math.fsum(w * u), math.fsum(abs(w * u))
            if isinstance(estimator, rf.PositiveFeatures):
                columns = {j: (1.0, a - sqnorm / 2 + envelope - math.log(m) / 2)}
            elif isinstance(estimator, rf.HyperbolicFeatures):
                columns = {
                    j + half * m: (1.0, (1 - 2 * half) * a - sqnorm / 2 + envelope - math.log(2 * m) / 2)
                    for half in (0, 1)
                }
            elif pairs:
                columns = {
                    j + half * m: ((math.cos(a), math.sin(a))[half], sqnorm / 2 + envelope - math.log(m) / 2)
                    for half in (0, 1)
                }
            else:
                columns = {j: (math.cos(a + phases[j]), sqnorm / 2 + envelope + math.log(2 / m) / 2)}
            for column, (value, scale) in columns.items():
                sign[i, column] = np.sign(value)
                log[i, column] = scale + (math.log(abs(value)) if value else -math.inf)
                size[i, column] = scale
                terms[i, column] = a_size + sqnorm + abs(envelope) + math.log(m) + 2 * math.pi
    return NaiveFeatures(sign, log, size, terms)


def naive_attention(phi, query, key, value, *, merges=16, **options):
    """`Σ_j K̂_ij v_j / Σ_j K̂_ij` pair by pair, each K̂_ij from its products of features with one common scale per query.

    `merges` bounds how often a partial sum was rescaled on its way to the output.
    """
    rows = to_numpy(phi.arrays["rows"])

    def head_of(query, key, which):
        index = np.unravel_index(which, rows.shape[:-2])
        q = naive_features(phi, query, index=index, side="queries")
        k = naive_features(phi, key, index=index, side="keys")

        def row(i, seen, v):
            size = q.size[i] + k.size[seen]
            top = np.max(size)
            weight = np.sum(q.sign[i] * k.sign[seen] * np.exp(q.log[i] + k.log[seen] - top), axis=-1)
            largest = np.sum(np.exp(size - top), axis=-1)  # what rounding is relative to: a |cos| may be up to 1
            exponent = np.max(q.per_eps(phi.dim)[i] + k.per_eps(phi.dim)[seen])
            shifts = 2 * np.max(np.abs(size)) + FUNCTION  # a rescaling is the exponential of a difference of exponents
            return ratio(weight, largest, v, 2 * exponent + (merges + 2) * shifts + len(v) + phi.num_features)

        return row

    return over_heads(head_of, query, key, value, rows.shape[:-2], **options)


def naive_kernel_attention(kernel, query, key, value, **options):
    """Exact normalised kernel attention, pair by pair."""

    def head_of(query, key, which):
        def row(i, seen, v):
            products = key[seen] * query[i]
            if isinstance(kernel, rf.GaussianKernel):
                log = -np.sum((query[i] - key[seen]) ** 2, axis=-1) / (2 * kernel.length_scale**2)
                # the expanded square, about the mean of the keys
                terms = 4 * (np.sum(query[i] ** 2) + np.max(np.sum(key**2, axis=-1))) / kernel.length_scale**2
            else:
                log, terms = kernel.scale * np.sum(products, axis=-1), kernel.scale * np.sum(np.abs(products), axis=-1)
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
    head_of, query, key, value, batch_shape, *, is_causal=False, scale=None, key_mask=None, enable_gqa=False
):
    """Each query of each head over the keys that it sees; zeros where it sees none."""
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
    output = np.zeros((*lead, query.shape[-2], value.shape[-1]))
    per_eps = np.zeros_like(output)
    for head in np.ndindex(*lead):
        row = head_of(query[head], key[head], which[head])
        for i in range(query.shape[-2]):
            seen = mask[head] & (np.arange(key.shape[-2]) <= i if is_causal else True)
            if seen.any():
                output[(*head, i)], per_eps[(*head, i)] = row(i, seen, value[head][seen])
    return NaiveOutput(output, per_eps)
