"""FeatureMap: one draw of an estimator."""

import functools
import hashlib
import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from randfeat._array import (
    Array,
    Arrays,
    as_floating,
    as_host,
    broadcast_shapes,
    cast,
    check_rows,
    compute_dtype,
    from_host,
    host_or_none,
    host_threads,
    host_to,
    host_twins,
    is_compiling,
    move_to,
    namespace,
    own_precision,
)
from randfeat._hints import attribute_error, described, short
from randfeat._hints.words import OF_A_MAP
from randfeat._numpy.blockwise import LEAST, SHORTEST, blockwise_features, check_output
from randfeat._numpy.threads import resolve_num_threads
from randfeat.features import ExponentialForm, Features, FourierForm
from randfeat.kernels.base import stated_for

if TYPE_CHECKING:
    from randfeat.estimators.base import Estimator

ORIGIN = "origin"  # name of the array of the row that is subtracted from inputs, in their own units
FEATURES = "query_features", "key_features", "move"  # the last one where features are those of another estimator


@dataclass(frozen=True, eq=False, repr=False)
class FeatureMap:
    """One draw of an estimator: `φ(x)·φ(y)` estimates `kernel(x, y)`; made by `estimator.draw`, immutable.

    estimator : the estimator that was drawn from.
    dim, num_features : length of the inputs and of φ(x).
    arrays : the drawn arrays by name, all in one library, dtype and device. Each has two axes after the batch; most
        estimators have "rows" (*batch_shape, num_rows, dim).

    Inputs are (..., n, dim); their leading dimensions broadcast against `batch_shape`. Outputs have the namespace,
    dtype and device of the input. float16 and bfloat16 are computed in float32, and `queries` and `keys` return
    float32. The factor 1/√m is part of the features. NaN and infinite inputs change only the features of their own row.
    The code never branches on values, so maps can be traced and compiled.

    Error: a few ulps of each feature, and for waves up to `d eps |w| |x|` from their angles w·x, in the dtype of the
    computation. So float32 features of data at an offset of a million length scales have no right digit, although the
    data may be exact. If the kernel depends on x - y only, `about` takes out the offset.
    """

    estimator: "Estimator"
    dim: int
    num_features: int
    arrays: Arrays

    def __post_init__(self) -> None:
        object.__setattr__(self, "arrays", MappingProxyType(dict(self.arrays)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickle and copy, which do not accept a read-only mapping."""
        return type(self), (self.estimator, self.dim, self.num_features, dict(self.arrays))

    def __repr__(self) -> str:
        shape = getattr(next(iter(self.arrays.values()), None), "shape", ())  # a transformation may put in other leaves
        batch = f", batch_shape={tuple(shape[:-2])}" if shape[:-2] else ""
        return f"FeatureMap({self.estimator!r}, dim={self.dim}, num_features={self.num_features}{batch})"

    if not TYPE_CHECKING:  # which would believe that a map has every attribute

        def __getattr__(self, name: str) -> Any:
            if hasattr(type(self), name):  # a property whose own AttributeError is to be seen
                return object.__getattribute__(self, name)
            raise attribute_error(self, name, OF_A_MAP)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of independent maps, one per head for instance; `()` for a single map."""
        return tuple(self._first.shape[:-2])

    @property
    def fingerprint(self) -> str | None:
        """A digest of the estimator and the drawn arrays, the same in every library and dtype; None while traced."""
        return None if is_compiling(self._first) else self._digest

    @functools.cached_property
    def _digest(self) -> str | None:
        digest = hashlib.sha256(repr((self.estimator, self.dim, self.num_features)).encode())
        for name in sorted(self.arrays):
            array = host_or_none(self.arrays[name])
            if array is None:
                return None
            digest.update(repr((name, array.shape)).encode() + array.astype(np.float32).tobytes())
        return digest.hexdigest()

    @property
    def host(self) -> "FeatureMap | None":
        """This map on NumPy views of its arrays (half types: copies); None on an accelerator, where PyTorch records
        gradients in the arrays, and while they are traced.
        """
        twins = host_twins(*self.arrays.values())
        if twins is None or all(isinstance(array, np.ndarray) for array in self.arrays.values()):
            return None if twins is None else self
        twin = FeatureMap(self.estimator, self.dim, self.num_features, dict(zip(self.arrays, twins, strict=True)))
        twin.keep_with(self)
        return twin

    def keep_with(self, other: "FeatureMap") -> None:
        """Share with the same map in another library what is `kept`."""
        self.__dict__["kept"] = other.kept

    @functools.cached_property
    def kept(self) -> dict[Any, Any]:
        """Results for the arrays of this map that serve later calls, too; copies of the map begin with none."""
        return {}

    @property
    def _first(self) -> Array:
        return next(iter(self.arrays.values()))

    def __call__(self, x: Any, *, num_threads: int | None = None, out: np.ndarray | None = None) -> Array:
        """The plain features φ(x): (..., n, dim) -> (..., n, num_features), so that `phi(x) @ phi(y).T` ≈ kernel.

        These plain features can leave the range of the dtype: for long inputs positive features underflow, and
        trigonometric features overflow. `queries`, `keys` and `estimate` keep the scale separate, so they are safe.

        num_threads : threads for arrays on the CPU. The default is RANDFEAT_NUM_THREADS, or else the number of cores
            that this process may use, for tensors `torch.get_num_threads()`. The features do not depend on it, to the
            last bit. Exponentials and cosines are computed block by block, directly in the output array.
        out : for NumPy arrays, an array that the features are written into, and that is returned. Its shape and dtype
            must be those of the features. With one array for all batches of a stream, no new memory is touched, which
            is up to half of the time. It may share memory with x.

        >>> import numpy as np, randfeat as rf
        >>> phi = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(dim=3, num_features=64, rng=0)
        >>> batches, features = np.zeros((5, 100, 3)), np.empty((100, 64))
        >>> sum(phi(batch, out=features).mean() for batch in batches).round(3)
        np.float64(0.442)
        """
        if not self.estimator.symmetric:
            raise TypeError(f"{type(self.estimator).__name__} has different query and key features; use queries, keys.")
        num_threads = None if num_threads is None else resolve_num_threads(num_threads)
        x = as_floating(x, "x")
        check_rows(x, "x", self.dim, self.batch_shape)
        if out is not None:
            check_output(out, x, self.batch_shape, self.num_features)
        namespace(x, *self.arrays.values())  # one library for all, or TypeError
        (twin,), host = ([x] if isinstance(x, np.ndarray) else host_twins(x) or [x]), self.host or self
        forms = host._forms(twin)
        if forms is None:
            features = cast(self.queries(x).to_array(), x.dtype)
            if out is None:
                return features
            np.copyto(np.asarray(out), features)
            return out
        unit = self.estimator.kernel.unit
        if ORIGIN in host.arrays:
            twin = twin - cast(host.arrays[ORIGIN], twin.dtype)
        elif out is not None and np.may_share_memory(twin, out):
            twin = twin.copy()
        if not isinstance(x, np.ndarray):
            num_threads = resolve_num_threads(num_threads, host_threads(x))
        features = blockwise_features(twin, forms, self.batch_shape, self.num_features, unit, num_threads, out)
        if not isinstance(x, np.ndarray):
            return cast(from_host(features, x), x.dtype)
        return features if out is None else out

    def about(self, row: Any) -> "FeatureMap":
        """The map `x -> φ(x - row)`, which estimates the same kernel; for kernels of x - y.

        row : (dim,), near the data, for instance one of them. It is rounded to float32, so that inputs of every dtype
            have the same one. If it is near, `x - row` is exact, and features lose no digit to an offset of the data,
            whatever its size. All features that are multiplied with one another must be about one row: its value is
            part of `fingerprint`, and of what `save` writes.

        >>> import numpy as np, randfeat as rf
        >>> x = 1e6 + np.arange(4, dtype=np.float32)[:, None]
        >>> phi = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(dim=1, num_features=64, rng=0, like=x)
        >>> bool(np.allclose(phi.about(x[0])(x), phi(x - x[0])))
        True
        """
        if not self.estimator.kernel.shift_invariant:
            raise ValueError(
                f"a reference row needs a kernel that depends on x - y only, got {short(self.estimator.kernel)}; shift "
                "queries and keys of a softmax kernel by CenteredFeatures."
            )
        row = as_host(row, "row")
        if row.shape != (self.dim,):
            raise ValueError(f"row must have shape ({self.dim},), got {row.shape}.")
        if not np.all(np.abs(row) < np.finfo(np.float32).max):
            raise ValueError(f"row must be finite numbers of float32, got {short(row)}.")
        origin = np.broadcast_to(row.astype(np.float32).astype(np.float64), (*self.batch_shape, 1, self.dim))
        return replace(self, arrays={**self.arrays, ORIGIN: host_to(origin, self._first)})

    def queries(self, x: Any) -> Features:
        """Features of queries, (..., n, dim) -> (..., n, num_features), with their scale."""
        x, arrays = self._inputs(x, "x")
        return weighted_features(self.estimator, arrays, x, keys=False)

    def keys(self, y: Any) -> Features:
        """Features of keys, (..., k, dim) -> (..., k, num_features), with their scale."""
        y, arrays = self._inputs(y, "y")
        return weighted_features(self.estimator, arrays, y, keys=True)

    def pull_back(
        self, x: Any, features: Features, gradient: Array, *, keys: bool = False, row: float | None = None
    ) -> Array:
        """The gradient in x of a function of the features of x (a vector-Jacobian product), in the computing dtype.

        features : `queries(x)`, or `keys(x)` with `keys=True`. gradient (..., n, num_features) : the derivatives in
            their values. row : 0.0 says that the function does not depend on a common factor of all features of a row,
            as for queries of normalized attention. The derivative of this factor is then left out; it would be zero up
            to rounding. Estimators without an analytic gradient raise ValueError.
        """
        check_pull_back(self.estimator)
        x, arrays = self._inputs(x, "x")
        kernel, unit = self.estimator.kernel, self.estimator.kernel.unit(x)
        total = namespace(x).sum(features.values * gradient, axis=-1, keepdims=True) if row is None else row
        with own_precision(x):
            inner = self.estimator.pull_back(arrays, unit, features.values, gradient, total, keys=keys)
        return kernel.unit_pull_back(x, inner)

    def exponential_form(self, *, keys: bool) -> ExponentialForm | None:
        """The features of queries or keys as exponentials of affine maps of inputs in kernel units, or None.

        The form has one row and one weight for each feature. If a subclass overrides the features of an estimator but
        not `exponential_form`, the inherited form may be wrong, so the result is None; also for maps about a row.
        """
        if ORIGIN in self.arrays:
            return None
        form = self.estimator.exponential_form(self.arrays, keys=keys)
        if form is None or not stated_for(self.estimator, "exponential_form", *FEATURES):
            return None
        form = form.written_out()
        if "log_row_weights" not in self.arrays:
            return form
        return replace(form, log_weights=form.log_weights + self.arrays["log_row_weights"])

    def fourier_form(self) -> FourierForm | None:
        """The features as cosines and sines, for inputs in kernel units; None in the cases of `exponential_form`."""
        if ORIGIN in self.arrays:
            return None
        form = self.estimator.fourier_form(self.arrays)
        if form is None or not stated_for(self.estimator, "fourier_form", *FEATURES):
            return None
        if "log_row_weights" not in self.arrays:
            return form
        log_weights = self.arrays["log_row_weights"][..., : form.rows.shape[-2]]  # the same for sines as for cosines
        return replace(form, amplitudes=form.amplitudes * namespace(log_weights).exp(log_weights))

    def estimate(self, x: Any, y: Any) -> Array:
        """The estimated Gram matrix: (..., n, dim), (..., k, dim) -> (..., n, k)."""
        x, y = as_floating(x, "x"), as_floating(y, "y")
        xp = namespace(x, y)
        return cast(self.queries(x).dot(self.keys(y)), xp.result_type(x.dtype, y.dtype))

    def estimate_pairwise(self, x: Any, y: Any) -> Array:
        """The estimated kernel of corresponding rows: (..., n, dim), (..., n, dim) -> (..., n)."""
        x, y = as_floating(x, "x"), as_floating(y, "y")
        xp = namespace(x, y)
        return cast(self.queries(x).pairwise(self.keys(y)), xp.result_type(x.dtype, y.dtype))

    def to(self, like: Array) -> "FeatureMap":
        """This map in the namespace, device and computing dtype of `like`."""
        like = as_floating(like, "like")
        arrays = {name: move_to(array, like) for name, array in self.arrays.items()}
        return FeatureMap(self.estimator, self.dim, self.num_features, arrays)

    def redraw(self, rng: Any = None) -> "FeatureMap":
        """A new, independent map of the same estimator, shape, namespace, dtype and device."""
        phi = self.estimator.draw(self.dim, self.num_features, rng=rng, like=self._first, batch_shape=self.batch_shape)
        return replace(
            phi, arrays={**phi.arrays, **{name: self.arrays[name] for name in self.arrays if name == ORIGIN}}
        )

    def _forms(self, x: Array) -> list[ExponentialForm | FourierForm] | None:
        """The form of each map of the batch in the dtype of x, or None if `blockwise_features` cannot be used."""
        if not all(isinstance(array, np.ndarray) for array in (x, *self.arrays.values())):
            return None
        together = x.shape[-2] if self.batch_shape else x.size // self.dim
        size = math.prod(broadcast_shapes(x.shape[:-2], self.batch_shape)) * x.shape[-2] * self.num_features
        if x.dtype not in (np.float32, np.float64) or together < SHORTEST or size < LEAST:
            return None
        forms = []
        for at in np.ndindex(self.batch_shape):
            arrays = {name: cast(array[at], x.dtype) for name, array in self.arrays.items() if name != ORIGIN}
            single = FeatureMap(self.estimator, self.dim, self.num_features, arrays)
            form = single.exponential_form(keys=False) or single.fourier_form()
            if form is None:
                return None
            forms.append(form)
        return forms

    def _inputs(self, x: Any, name: str) -> tuple[Array, dict[str, Array]]:
        """The input and the drawn arrays, both in the dtype to compute in."""
        x = as_floating(x, name)
        check_rows(x, name, self.dim, self.batch_shape)
        dtype = compute_dtype(namespace(x, *self.arrays.values()), x.dtype)
        arrays = {key: cast(array, dtype) for key, array in self.arrays.items()}
        x, origin = cast(x, dtype), arrays.pop(ORIGIN, None)
        return x if origin is None else x - origin, arrays


def part_of(arrays: Arrays, prefix: str) -> dict[str, Array]:
    """The arrays whose names have this prefix, by names without it: one map of several that were drawn together."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def weighted_features(estimator: "Estimator", arrays: Arrays, x: Array, *, keys: bool) -> Features:
    """Features of raw inputs (..., n, d), with the weights of the rows if the coupling is a quadrature rule."""
    evaluate = estimator.key_features if keys else estimator.query_features
    with own_precision(x):
        features = evaluate(arrays, estimator.kernel.unit(x))
    return features.scaled(arrays["log_row_weights"]) if "log_row_weights" in arrays else features


def check_pull_back(estimator: "Estimator") -> None:
    """ValueError if a subclass overrides features, and inherits the gradient of others."""
    if not stated_for(estimator, "pull_back", *FEATURES):
        raise ValueError(
            f"{type(estimator).__name__} has no analytic gradient of its own features: the one that it inherits is of "
            "others. Override pull_back, or differentiate linear_attention by PyTorch or JAX."
        )


def check_feature_map(features: Any) -> None:
    """Raise a TypeError unless `features` is a FeatureMap."""
    if not isinstance(features, FeatureMap):
        hint = "; give its .features" if isinstance(getattr(features, "features", None), FeatureMap) else ""
        raise TypeError(
            "features must be a FeatureMap, from estimator.draw(...), got "
            f"{described(features, '.draw(dim, num_features)')}{hint}."
        )
