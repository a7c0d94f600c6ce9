"""The exponential form of a feature map as tensors alone, which is what a graph holds of it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from randfeat._array import Array, Arrays, broadcast_shapes, cast, compute_dtype, namespace
from randfeat.attention.problem import Problem
from randfeat.couplings.laws import NoClosedForm, PairLaw
from randfeat.estimators import ExponentialEstimator
from randfeat.features import ExponentialForm, Quadratic
from randfeat.maps import FeatureMap


class Form(NamedTuple):
    """`φ_f(x) = exp((x - origin)·rows_f + log_weights_f + r(x))` of queries and of keys, x in kernel units.

    r(x) of a query cancels from attention. That of a key is quadratic: `envelope`, `key_matrix` and `key_slope` as in
    `Quadratic`; its constant is part of the weights. Arrays are (*batch, ·, ·), in the computing dtype.
    """

    query_rows: Array
    query_log_weights: Array
    query_origin: Array | None
    key_rows: Array
    key_log_weights: Array
    key_origin: Array | None
    key_matrix: Array | None
    key_slope: Array | None
    envelope: float

    @classmethod
    def of(cls, problem: Problem) -> "Form | None":
        """The form of the features of a problem; None where they have no form, or none that numbers state."""
        features, inputs = problem.features, problem.inputs
        dtype = compute_dtype(namespace(inputs.value), inputs.dtype)
        cast_arrays = {name: cast(array, dtype) for name, array in features.arrays.items()}
        same = FeatureMap(features.estimator, features.dim, features.num_features, cast_arrays)
        query, key = both_forms(same)
        if query is None or key is None or key.quadratic is None:
            return None
        term = key.quadratic
        arrays = {
            "query_rows": query.rows,
            "query_log_weights": query.log_weights,
            "query_origin": query.origin,
            "key_rows": key.rows,
            "key_log_weights": key.log_weights + term.constant,
            "key_origin": key.origin,
            "key_matrix": term.matrix,
            "key_slope": term.slope,
        }
        batch = same.batch_shape
        laid_out = {name: None if x is None else of_each_map(x, batch) for name, x in arrays.items()}
        return cls(**laid_out, envelope=term.envelope)

    def features(self, *, has_bias: bool) -> FeatureMap:
        """The feature map of this form. With a bias, inputs have one more coordinate: what is added to a key's log."""
        arrays = {name: array for name, array in self._asdict().items() if name != "envelope" and array is not None}
        if has_bias:
            arrays |= {name: with_coordinate(arrays[name]) for name in arrays if name.endswith(("rows", "origin"))}
        num_features, dim = self.query_rows.shape[-2:]
        return FeatureMap(
            _FormFeatures(envelope=self.envelope, has_bias=has_bias), dim + has_bias, num_features, arrays
        )


@dataclass(frozen=True)
class _FormFeatures(ExponentialEstimator):
    """Features that the arrays of their map state."""

    envelope: float = 0.0
    has_bias: bool = False

    symmetric = False

    def exponential_form(self, arrays: Arrays, *, keys: bool) -> ExponentialForm:
        side = "key" if keys else "query"
        rows, log_weights, origin = (arrays.get(f"{side}_{name}") for name in ("rows", "log_weights", "origin"))
        term = Quadratic(self.envelope, arrays.get("key_matrix"), arrays.get("key_slope"))
        dim = arrays["query_rows"].shape[-1] - self.has_bias
        own_origin = None if origin is None else origin[..., :dim]

        def per_row(x: Array) -> Array:
            if not keys:
                return namespace(x).zeros_like(x[..., :1])
            value = term.value(x[..., :dim], own_origin)
            return value + x[..., dim:] if self.has_bias else value

        def row_slope(x: Array) -> Array:
            xp = namespace(x)
            if not keys:
                return xp.zeros_like(x)
            gradient = term.gradient(x[..., :dim], own_origin)
            return xp.concat([gradient, xp.ones_like(gradient[..., :1])], axis=-1) if self.has_bias else gradient

        return ExponentialForm(rows, log_weights, per_row, row_slope, origin)

    def relative_row_mean(self, x: np.ndarray, y: np.ndarray, law: PairLaw) -> np.ndarray:
        raise NoClosedForm("the law of given arrays is not known.")

    def relative_covariance(self, x: np.ndarray, y: np.ndarray, law: PairLaw, *, same_row: bool) -> np.ndarray:
        raise NoClosedForm("the law of given arrays is not known.")


def both_forms(features: FeatureMap) -> tuple[ExponentialForm | None, ExponentialForm | None]:
    """The forms of queries and keys, None where numbers do not state them."""
    query, key = (features.exponential_form(keys=keys) for keys in (False, True))
    stated = features.estimator.kernel.unit_factor is not None and key is not None and key.quadratic is not None
    return (query, key) if stated else (None, None)


def is_stated(features: FeatureMap) -> bool:
    """Whether numbers state the features, so that attention with them can be one operation of a graph."""
    return None not in both_forms(features)


def of_each_map(array: Array, batch_shape: tuple[int, ...]) -> Array:
    """`array` (..., ·, ·) with all dimensions of the batch of maps."""
    shape = (*broadcast_shapes(tuple(array.shape[:-2]), batch_shape), *array.shape[-2:])
    return array if tuple(array.shape) == shape else namespace(array).broadcast_to(array, shape)


def with_coordinate(array: Array) -> Array:
    """`array` (..., n, d) with one more coordinate, 0."""
    xp = namespace(array)
    return xp.concat([array, xp.zeros_like(array[..., :1])], axis=-1)
