"""Features: the values of a feature map, with a separate logarithmic scale, so that nothing overflows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from randfeat._array import (
    Array,
    device_of,
    exp_in_place,
    namespace,
    own_precision,
    peak,
    replace_minus_inf,
    squared_norm,
    times_exp,
)

__all__ = ["ExponentialForm", "Features", "FourierForm", "Quadratic", "concatenate", "tensor_product"]


@dataclass(frozen=True, eq=False)
class Features:
    """Rows `values * exp(log_scale)`, one feature vector per row.

    values : (..., n, f), of any sign and of moderate size.
    log_scale : (..., n, 1), one scale per row, or (..., n, f), one per feature.

    The estimated kernel is the inner product of rows. Positive maps have `values = 1`, and the whole feature is in
    `log_scale`. So nothing overflows or underflows, for inputs of any norm. Signed maps (trigonometric) have bounded
    `values` and one `log_scale` per row. Half-precision inputs give float32 features.
    """

    values: Array
    log_scale: Array

    @property
    def num_features(self) -> int:
        """Length of each feature vector."""
        return self.values.shape[-1]

    def to_array(self) -> Array:
        """The plain features `values * exp(log_scale)`, (..., n, f); they can overflow or underflow."""
        return self.values * namespace(self.values).exp(self.log_scale)

    def dot(self, other: "Features") -> Array:
        """The matrix of inner products with the rows of `other`: (..., n, f), (..., k, f) -> (..., n, k).

        Each feature is divided by its largest value over the keys, and each row by its largest term. So no intermediate
        result overflows. An entry loses accuracy only if it is smaller than the largest entry of its row by the whole
        range of the dtype. NaN in a row changes only the products of this row.
        """
        xp = namespace(self.values, other.values)
        finite = xp.where(xp.isfinite(other.log_scale), other.log_scale, -xp.inf)
        feature_top = replace_minus_inf(peak(finite, -2))
        query_log, key_log = self.log_scale + feature_top, other.log_scale - feature_top
        query_top = replace_minus_inf(peak(query_log, -1))
        key_top = replace_minus_inf(peak(key_log, -1))
        query = self.values * exp_in_place(query_log - query_top)
        key = other.values * exp_in_place(key_log - key_top)
        with own_precision(query):
            products = query @ xp.matrix_transpose(key)
        return times_exp(products, query_top + xp.matrix_transpose(key_top))

    def pairwise(self, other: "Features") -> Array:
        """Inner products of corresponding rows: (..., n, f), (..., n, f) -> (..., n)."""
        xp = namespace(self.values, other.values)
        log = self.log_scale + other.log_scale
        top = replace_minus_inf(peak(log, -1))
        terms = self.values * other.values * exp_in_place(log - top)
        return times_exp(xp.sum(terms, axis=-1), top[..., 0])

    def scaled(self, log_weight: Array) -> "Features":
        """The features times `exp(log_weight)`: (..., n, 1), one weight per row, or (..., 1, f), one per feature."""
        return Features(self.values, self.log_scale + log_weight)


@dataclass(frozen=True, eq=False)
class Quadratic:
    """A quadratic function as numbers, `r(x) = e |x|² - |A(x - o)|²/2 + b·(x - o) + c`, o the origin of a form.

    envelope : e. matrix : A (..., d, d), or None for the identity. slope : b (..., 1, d), or None for 0.
    constant : c, a number or (..., 1, 1).
    """

    envelope: float
    matrix: Array | None = None
    slope: Array | None = None
    constant: Any = 0.0

    def value(self, x: Array, origin: Array | None) -> Array:
        """r(x): (..., n, d) -> (..., n, 1)."""
        xp, moved = namespace(x), x if origin is None else x - origin
        result = self.envelope * squared_norm(x) - squared_norm(self._turned(moved)) / 2 + self.constant
        return result if self.slope is None else result + xp.sum(moved * self.slope, axis=-1, keepdims=True)

    def gradient(self, x: Array, origin: Array | None) -> Array:
        """The gradient of r at x, (..., n, d)."""
        turned = self._turned(x if origin is None else x - origin)
        result = 2 * self.envelope * x - (turned if self.matrix is None else turned @ self.matrix)
        return result if self.slope is None else result + self.slope

    def _turned(self, x: Array) -> Array:
        return x if self.matrix is None else x @ namespace(x).matrix_transpose(self.matrix)


@dataclass(frozen=True, eq=False)
class ExponentialForm:
    """Features that are exponentials of affine maps: `φ_f(x) = exp((x - origin)·rows_f + log_weights_f + r(x))`.

    rows : (..., m, d). log_weights : (..., 1, m), or one number for all.
    per_row : x (..., n, d) -> r(x) (..., n, 1), and row_slope : its gradient, (..., n, d).
    origin : (..., 1, d), or None for 0. It is not made part of log_weights, because digits would be lost if it is
        large.
    antithetic : if True there are 2m features, first those of all rows, then those of the negatives of all rows.
    quadratic : r(x) as numbers, where it is known to be quadratic. A graph of PyTorch holds these numbers.

    With this form attention is faster: each feature costs one product and one exponential. r(x) of a query cancels.
    r(x) of a key becomes a factor of its value. log_weights become factors of the sums over keys.
    """

    rows: Array
    log_weights: Array
    per_row: Callable[[Array], Array]
    row_slope: Callable[[Array], Array]
    origin: Array | None = None
    antithetic: bool = False
    quadratic: Quadratic | None = None

    def log_features(self, x: Array) -> Array:
        """`log φ(x)`: (..., n, d) -> (..., n, m), or (..., n, 2m) where antithetic."""
        xp = namespace(x)
        exponents = (x if self.origin is None else x - self.origin) @ xp.matrix_transpose(self.rows)
        if self.antithetic:
            exponents = xp.concat([exponents, -exponents], axis=-1)
        if isinstance(self.log_weights, Real):  # added where it is one number for each row
            return exponents + (self.per_row(x) + float(self.log_weights))
        return exponents + self._weights + self.per_row(x)

    def features(self, x: Array) -> Features:
        """φ(x): the values are 1, and the whole feature is in the scale."""
        xp, log = namespace(x), self.log_features(x)
        return Features(xp.broadcast_to(xp.ones_like(x[..., :1]), log.shape), log)

    def pull_back(self, x: Array, gradient: Array, row: Any) -> Array:
        """`Σ_f g_f rows_f + row r'(x)`: the gradient in x from that in the features (`Estimator.pull_back`)."""
        if self.antithetic:
            half = gradient.shape[-1] // 2
            gradient = gradient[..., :half] - gradient[..., half:]
        return gradient @ self.rows + row * self.row_slope(x)

    def written_out(self) -> "ExponentialForm":
        """The same form with a row and a weight for every feature."""
        rows = self.rows
        if self.antithetic:
            rows = namespace(rows).concat([rows, -rows], axis=-2)
        is_number = isinstance(self.log_weights, Real)
        log_weights = one_per_row(float(self.log_weights), rows) if is_number else self._weights
        return replace(self, rows=rows, log_weights=log_weights, antithetic=False)

    @property
    def _weights(self) -> Array:
        """Weights of all features, where they differ."""
        weights = self.log_weights
        return namespace(weights).concat([weights, weights], axis=-1) if self.antithetic else weights


@dataclass(frozen=True, eq=False)
class FourierForm:
    """Cosine features, times a factor that all features of one input share: `φ(x) = e^{r(x)} [a_i cos(x·w_i + b_i)]_i`.

    Without phases b the features are first all cosines, then all sines: `e^{r(x)} [a_i cos(x·w_i), a_i sin(x·w_i)]_i`.

    rows : w (..., m, d). amplitudes : a (..., 1, m).
    per_row : x (..., n, d) -> r(x) (..., n, 1), and row_slope : its gradient, (..., n, d).
    phases : b (..., 1, m), or None for pairs.
    """

    rows: Array
    amplitudes: Array
    per_row: Callable[[Array], Array]
    row_slope: Callable[[Array], Array]
    phases: Array | None = None

    def features(self, x: Array) -> Features:
        """φ(x): (..., n, d) -> (..., n, m), or (..., n, 2m) for pairs."""
        xp = namespace(x)
        angles = x @ xp.matrix_transpose(self.rows)
        if self.phases is not None:
            return Features(self.amplitudes * xp.cos(angles + self.phases), self.per_row(x))
        waves = [self.amplitudes * xp.cos(angles), self.amplitudes * xp.sin(angles)]
        return Features(xp.concat(waves, axis=-1), self.per_row(x))

    def pull_back(self, x: Array, values: Array, gradient: Array, row: Any) -> Array:
        """`Σ_i h_i w_i + row r'(x)`, h the derivatives in the angles (`Estimator.pull_back`)."""
        xp = namespace(x)
        if self.phases is not None:
            slopes = -self.amplitudes * xp.sin(x @ xp.matrix_transpose(self.rows) + self.phases) * gradient
        else:
            half = gradient.shape[-1] // 2
            slopes = values[..., :half] * gradient[..., half:] - values[..., half:] * gradient[..., :half]
        return slopes @ self.rows + row * self.row_slope(x)


def one_per_row(number: float, rows: Array) -> Array:
    """A number for each of the rows (..., m, d): (..., 1, m)."""
    shape = (*rows.shape[:-2], 1, rows.shape[-2])
    return namespace(rows).full(shape, number, dtype=rows.dtype, device=device_of(rows))


def concatenate(*parts: Features) -> Features:
    """Features of a sum of kernels: `[a, b]·[a', b'] = a·a' + b·b'`; numbers of features add.

    The result has one scale for each feature, so parts of very different size keep their accuracy.
    """
    xp = namespace(*(part.values for part in parts))
    scales = [xp.broadcast_to(part.log_scale, part.values.shape) for part in parts]
    return Features(xp.concat([part.values for part in parts], axis=-1), xp.concat(scales, axis=-1))


def tensor_product(a: Features, b: Features) -> Features:
    """Features of a product of kernels: `(a⊗b)·(a'⊗b') = (a·a')(b·b')`; numbers of features multiply."""
    xp = namespace(a.values, b.values)

    def flatten(x: Array) -> Array:
        return xp.reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))

    values = flatten(a.values[..., :, None] * b.values[..., None, :])
    if a.log_scale.shape[-1] == b.log_scale.shape[-1] == 1:
        return Features(values, a.log_scale + b.log_scale)
    left = xp.broadcast_to(a.log_scale, a.values.shape)
    right = xp.broadcast_to(b.log_scale, b.values.shape)
    return Features(values, flatten(left[..., :, None] + right[..., None, :]))
