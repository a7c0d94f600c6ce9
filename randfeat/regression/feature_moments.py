"""FeatureMoments: sums of products of features over the data, all that linear regression on features needs."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from randfeat._array import (
    Array,
    as_floating,
    cast,
    compute_dtype,
    device_of,
    dtype_name,
    namespace,
    own_precision,
    to_numpy,
)
from randfeat._hints import hinted, short
from randfeat.maps import FeatureMap, check_feature_map

BLOCK_NUMBERS = 2**22  # target size of a block of features, in numbers
SHORTEST, LONGEST = 1024, 8192  # limits of the rows of a block
RANK_UPDATE = 1024  # number of features from which an update in place pays
FAR = 8.0  # standard deviations of a mean that sums are moved to: nearer, they lose at most two digits
SUMS = "gram", "centered_cross", "feature_sum", "centered_sum", "centered_gram"
MIRRORED = 128  # width of the tiles that are transposed in cache


@dataclass(frozen=True, eq=False)
class FeatureMoments:
    """The sums over rows (x_j, y_j) that the regression `y ≈ φ(x)·β` needs; memory does not grow with the rows.

        gram (*batch_shape, m, m)    Σ_j φ(x_j) φ(x_j)ᵀ,
        cross (*batch_shape, m, k)   Σ_j φ(x_j) y_jᵀ,
        feature_sum (*batch_shape, m)    Σ_j φ(x_j),
        target_sum (k,), target_gram (k, k), count    Σ_j y_j, Σ_j y_j y_jᵀ, Σ_j 1.

    With `sample_weight` w_j >= 0, all sums have the factor w_j, and the count is Σ_j w_j: a row of weight 2 counts as
    two equal rows, and one of weight 0 is left out. num_rows : rows of positive weight.

    Targets are summed about `origin` (k,), near their mean if that is large, so that a mean of 10^8 costs no digit of
    `centered_cross`, `centered_sum` and `centered_gram`, sums with `y_j - origin`. The three above follow from them.

    features : a symmetric map of m features, or a batch of maps that all see the same rows.

    Moments form a monoid: `append` adds rows, `merge` joins the moments of two parts of the data, and `empty` is the
    identity. All return new moments. Features are computed for one block of rows at a time. They are plain features:
    where they leave the range of the dtype, so do the sums. Each append writes m² new numbers, so give it many rows.
    Solving `(gram + λI) β = cross` is ridge regression; `feature_sum` and `target_sum` allow centering before it.

    Exact up to rounding, in the dtype of the map or in `dtype`. float64 sums of float32 features lose no digits,
    however many rows there are.

    >>> import randfeat as rf
    >>> x = np.linspace(-2.0, 2.0, 500)[:, None]
    >>> phi = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(dim=1, num_features=20, rng=0)
    >>> moments = FeatureMoments.of(phi, x[:300], np.sin(x[:300])).append(x[300:], np.sin(x[300:]))
    >>> weights = np.linalg.solve(moments.gram + 1e-6 * np.eye(20), moments.cross)
    >>> bool(np.max(np.abs(phi(x) @ weights - np.sin(x))) < 1e-3), moments.count
    (True, 500)
    """

    features: FeatureMap
    gram: Array
    centered_cross: Array
    feature_sum: Array
    centered_sum: Array
    centered_gram: Array
    origin: Array
    count: float
    num_rows: int

    @property
    def cross(self) -> Array:
        """`Σ_j φ(x_j) y_jᵀ`, (*batch_shape, m, k)."""
        return self.centered_cross + self.feature_sum[..., :, None] * self.origin

    @property
    def target_sum(self) -> Array:
        """`Σ_j y_j`, (k,)."""
        return self.centered_sum + self.count * self.origin

    @property
    def target_gram(self) -> Array:
        """`Σ_j y_j y_jᵀ`, (k, k)."""
        return self.centered_gram + moved_gram(self.centered_sum, self.origin, self.count)

    @classmethod
    @hinted
    def empty(cls, features: FeatureMap, num_targets: int = 0, *, dtype: str | None = None) -> Self:
        """The moments of zero rows.

        num_targets : k. dtype : of the sums, "float32" or "float64"; by default the dtype of the map.
        """
        if isinstance(num_targets, bool) or not isinstance(num_targets, int) or num_targets < 0:
            raise ValueError(f"num_targets must be an integer, 0 or more, got {short(num_targets)}.")
        check_feature_map(features)
        first = next(iter(features.arrays.values()))
        xp, device = namespace(first), device_of(first)
        if dtype not in (None, "float32", "float64"):
            raise ValueError(f'dtype must be "float32", "float64" or None, got {short(dtype)}.')
        kind = getattr(xp, dtype) if dtype else compute_dtype(xp, first.dtype)
        m, k, batch = features.num_features, num_targets, features.batch_shape
        shapes = {"gram": (*batch, m, m), "centered_cross": (*batch, m, k), "feature_sum": (*batch, m)}
        shapes |= {"centered_sum": (k,), "centered_gram": (k, k), "origin": (k,)}
        zeros: Any = {name: xp.zeros(shape, dtype=kind, device=device) for name, shape in shapes.items()}
        return cls(features, count=0, num_rows=0, **zeros)

    @classmethod
    @hinted
    def of(
        cls, features: FeatureMap, x: Any, y: Any = None, *, sample_weight: Any = None, dtype: str | None = None
    ) -> Self:
        """The moments of rows x (n, d) with targets y: (n, k), (n,) for one target, or None."""
        num_targets = 0 if y is None else as_targets(y, namespace(as_floating(x, "x"))).shape[1]
        return cls.empty(features, num_targets, dtype=dtype).append(x, y, sample_weight=sample_weight)

    def append(self, x: Any, y: Any = None, *, sample_weight: Any = None, num_threads: int | None = None) -> Self:
        """Moments with more rows added: x (n, d), and y (n, k) if there are targets.

        sample_weight (n,) : finite weights of the rows, 0 or more; 1 for each by default.
        num_threads : threads for the features of NumPy arrays, as in `FeatureMap`; BLAS decides about matrix products.
        """
        x = as_floating(x, "x")
        xp = namespace(x, self.gram)
        if x.ndim != 2:
            raise ValueError(f"x must have shape (n, {self.features.dim}), got {tuple(x.shape)}.")
        rows = self._rows(x.shape[0], y, sample_weight, xp, device_of(x))
        x = cast(x, compute_dtype(xp, x.dtype))
        size = min(max(BLOCK_NUMBERS // self.features.num_features, SHORTEST), LONGEST)
        parts = (slice(start, min(start + size, x.shape[0])) for start in range(0, x.shape[0], size))
        return self._plus(((self.features(x[part, :], num_threads=num_threads), part) for part in parts), rows)

    def append_features(self, features: Any, y: Any = None, *, sample_weight: Any = None) -> Self:
        """Moments with more rows added, given by their features (*batch_shape, n, m), computed elsewhere."""
        features = as_floating(features, "features")
        xp = namespace(features, self.gram)
        expected = (*self.features.batch_shape, self.features.num_features)
        if (*features.shape[:-2], *features.shape[-1:]) != expected or features.ndim != len(expected) + 1:
            raise ValueError(
                f"features must have shape {str((*expected[:-1], 'n', expected[-1])).replace(repr('n'), 'n')}, got "
                f"{tuple(features.shape)}."
            )
        rows = self._rows(features.shape[-2], y, sample_weight, xp, device_of(features))
        return self._plus([(features, slice(None))], rows)

    def _rows(self, length: int, y: Any, sample_weight: Any, xp: Any, device: Any) -> "Rows":
        """Targets (length, k) and weights, checked and cast to the dtype of the sums."""
        num_targets = self.origin.shape[0]
        targets = xp.zeros((length, 0), dtype=self.gram.dtype, device=device) if y is None else as_targets(y, xp)
        if tuple(targets.shape) != (length, num_targets):
            raise ValueError(
                f"y must have shape ({length}, {num_targets}), one row of targets for each row of x and as many "
                f"targets as before, got {'None' if y is None else tuple(targets.shape)}."
            )
        targets = cast(targets, self.gram.dtype)
        if sample_weight is None:
            return Rows(targets, None, length, length)
        weights = cast(as_weights(sample_weight, length, xp), self.gram.dtype)
        return Rows(targets, weights[:, None], float(xp.sum(weights)), int(xp.sum(xp.astype(weights > 0, xp.int64))))

    def _plus(self, blocks: Iterable[tuple[Array, slice]], rows: "Rows") -> Self:
        """Moments with blocks of features added; each block comes with the slice of its rows."""
        xp = namespace(self.gram)
        origin = self.origin if self.count else rows.origin()
        targets = rows.targets - origin
        ones = xp.ones((targets.shape[0], 1), dtype=self.gram.dtype, device=device_of(targets))
        root = None if rows.weights is None else xp.sqrt(rows.weights)
        targets, ones = (x if root is None else root * x for x in (targets, ones))
        columns = xp.concat([targets, ones], axis=1)
        gram = xp.asarray(self.gram, copy=True)
        sums = xp.concat([xp.matrix_transpose(self.centered_cross), self.feature_sum[..., None, :]], axis=-2)
        with own_precision(gram):
            for features, part in blocks:
                block = cast(features, self.gram.dtype)
                block = block if root is None else root[part, :] * block
                gram = add_gram(gram, block)
                sums = sums + xp.matrix_transpose(columns[part, :]) @ block  # twice as fast as features.T @ columns
            target_gram = xp.matrix_transpose(targets) @ targets
        return replace(
            self,
            gram=mirrored(gram),
            centered_cross=xp.matrix_transpose(sums[..., :-1, :]),
            feature_sum=sums[..., -1, :],
            centered_sum=self.centered_sum + xp.sum(targets if root is None else root * targets, axis=0),
            centered_gram=self.centered_gram + target_gram,
            origin=origin,
            count=self.count + rows.count,
            num_rows=self.num_rows + rows.num_rows,
        )

    def merge(self, other: "FeatureMoments") -> Self:
        """The moments of two parts of the data together; both must use the same map and number of targets."""
        if self.features is not other.features and self.features.fingerprint != other.features.fingerprint:
            raise ValueError("these are moments of different feature maps; draw one map and use it for all the data.")
        if self.cross.shape != other.cross.shape:
            raise ValueError(f"expected as many targets, got {self.cross.shape[-1]} and {other.cross.shape[-1]}.")
        if not self.count:
            return replace(self, **{name: getattr(other, name) for name in (*SUMS, "origin", "count", "num_rows")})
        other = other._about(self.origin) if other.count else other
        changes: Any = {name: getattr(self, name) + getattr(other, name) for name in (*SUMS, "count", "num_rows")}
        return replace(self, **changes)

    def to(self, like: Any) -> Self:
        """The moments in the library and on the device of `like`. The map has its dtype, too; sums keep their own."""
        like = as_floating(like, "like")
        xp, device = namespace(like), device_of(like)
        host = {name: to_numpy(getattr(self, name)) for name in (*SUMS, "origin")}
        sums: Any = {name: xp.asarray(x, device=device) for name, x in host.items()}
        return replace(self, features=self.features.to(like), **sums)

    def _about(self, origin: Array) -> "FeatureMoments":
        """The same moments with the targets summed about another origin."""
        shift = self.origin - origin
        return replace(
            self,
            centered_cross=self.centered_cross + self.feature_sum[..., :, None] * shift,
            centered_sum=self.centered_sum + self.count * shift,
            centered_gram=self.centered_gram + moved_gram(self.centered_sum, shift, self.count),
            origin=origin,
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """Targets (n, k) of rows, and their weights (n, 1) or None; the sum of the weights, and how many are not 0."""

    targets: Array
    weights: Array | None
    count: float
    num_rows: int

    def origin(self) -> Array:
        """An origin for the targets: the mean of each if it is above 8 standard deviations, else 0."""
        xp = namespace(self.targets)
        if not self.count:
            return xp.sum(self.targets * 0, axis=0)
        weights = xp.ones_like(self.targets[:, :1]) if self.weights is None else self.weights
        mean = xp.sum(weights * self.targets, axis=0) / self.count
        deviation = xp.sqrt(xp.sum(weights * (self.targets - mean) ** 2, axis=0) / self.count)
        return xp.where(xp.abs(mean) > FAR * deviation, mean, xp.zeros_like(mean))


def as_weights(sample_weight: Any, length: int, xp: Any) -> Array:
    """Weights (length,) of the namespace `xp`, finite and not negative."""
    weights = as_floating(sample_weight, "sample_weight")
    if namespace(weights) is not xp:
        raise TypeError("x and sample_weight must be arrays of one library.")
    if tuple(weights.shape) != (length,):
        raise ValueError(f"sample_weight must have shape ({length},), one for each row, got {tuple(weights.shape)}.")
    if not bool(xp.all(xp.isfinite(weights) & (weights >= 0))):
        raise ValueError("sample_weight must be finite, 0 or more.")
    return weights


def moved_gram(total: Array, shift: Array, count: float) -> Array:
    """`Σ_j (z_j + s)(z_j + s)ᵀ - Σ_j z_j z_jᵀ` for z_j (k,) of this `total`: `t sᵀ + s tᵀ + n s sᵀ`."""
    return total[:, None] * shift + shift[:, None] * total + count * shift[:, None] * shift


def as_targets(y: Any, xp: Any) -> Array:
    """`y` as targets (n, k) of the namespace `xp`."""
    y = as_floating(y, "y")
    if namespace(y) is not xp:
        raise TypeError("x and y must be arrays of one library.")
    if y.ndim not in (1, 2):
        raise ValueError(f"y must have shape (n, k), or (n,) for one target, got {tuple(y.shape)}.")
    return y if y.ndim == 2 else y[:, None]


def add_gram(total: Array, block: Array) -> Array:
    """`total + blockᵀ block`. For NumPy in place and, if m is large, in the upper triangle only.

    NumPy recognizes that `blockᵀ @ block` is symmetric and computes half of it. The rank update of BLAS also saves the
    sum of two m × m matrices, for large m a third of the time.
    """
    if not isinstance(total, np.ndarray):
        return total + namespace(total).matrix_transpose(block) @ block
    if total.ndim == 2 and len(total) >= RANK_UPDATE:
        from scipy.linalg import blas  # takes long to import

        update = blas.dsyrk if dtype_name(total.dtype) == "float64" else blas.ssyrk
        # In memory the upper triangle of total is the lower one of its transpose, which is what BLAS overwrites.
        return update(1.0, block.T, beta=1.0, c=total.T, lower=1, overwrite_c=1).T
    total += np.swapaxes(block, -1, -2) @ block
    return total


def mirrored(gram: Array) -> Array:
    """The symmetric matrix with this upper triangle; a NumPy array is overwritten."""
    if isinstance(gram, np.ndarray):
        for start in range(0, gram.shape[-1], MIRRORED):
            stop = start + MIRRORED
            corner = np.triu(gram[..., start:stop, start:stop])
            gram[..., start:stop, start:stop] = corner + np.swapaxes(np.triu(corner, k=1), -1, -2)
            gram[..., stop:, start:stop] = np.swapaxes(gram[..., start:stop, stop:], -1, -2)
        return gram
    xp = namespace(gram)
    above = xp.triu(gram, k=1)
    return xp.triu(gram) + xp.matrix_transpose(above)
