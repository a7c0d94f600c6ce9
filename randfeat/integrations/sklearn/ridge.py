"""Kernel ridge regression on random features, for data of any length, and what it shares with classification."""

import math
import numbers
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from randfeat._array import as_bool, as_floating, cast, dtype_name, host_to, namespace, to_numpy
from randfeat._hints import Hinted, described, hinted, short
from randfeat.integrations.sklearn.inputs import is_sparse, validated, weighted_rows
from randfeat.integrations.sklearn.nested import NestedLaws
from randfeat.integrations.sklearn.transformer import RandomFeatures
from randfeat.kernels.base import check_positive
from randfeat.maps import FeatureMap, check_feature_map
from randfeat.regression.feature_moments import FeatureMoments
from randfeat.regression.ridge import RidgeProblem

__all__ = ["FeatureRidge", "RandomFeatureRidge"]

BLOCK_NUMBERS = 2**22  # size of a block of features, in numbers
SUMS = ("gram", "centered_cross", "feature_sum", "centered_sum", "centered_gram", "origin")
COUNTS = ("count", "num_rows")


class FeatureRidge(Hinted, NestedLaws):
    """Common part of the regressor and the classifier: sums over rows, and the weights solved from them."""

    def __init__(
        self,
        kernel: Any = "rbf",
        *,
        gamma: Any = "scale",
        degree: int = 2,
        coef0: float = 0.0,
        estimator: Any = "auto",
        coupling: Any = "orthogonal",
        n_components: int = 500,
        alpha: Any = "auto",
        fit_intercept: bool = True,
        random_state: Any = None,
    ) -> None:
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.estimator = estimator
        self.coupling = coupling
        self.n_components = n_components
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.random_state = random_state

    @property
    def moments_(self) -> FeatureMoments:
        """Sums over all rows so far, in float64."""
        check_is_fitted(self, "sums_")
        return FeatureMoments(self.features_.feature_map_, **self._counts, **self.sums_)

    @property
    def coef_(self) -> Any:
        """Weights of the features, (n_components,) or (n_outputs, n_components)."""
        weights = namespace(self._solved["weights"]).matrix_transpose(self._solved["weights"])
        return weights if self._many else weights[0, :]

    @property
    def intercept_(self) -> Any:
        """Intercept: a float, or (n_outputs,)."""
        return self._solved["intercept"] if self._many else float(self._solved["intercept"][0])

    @property
    def alpha_(self) -> float:
        """The penalty that was used."""
        return self._solved["alpha"]

    @property
    def noise_variance_(self) -> Any:
        """Sum of squared residuals per degree of freedom: a float, or (n_outputs,)."""
        noise = self._solve_noise()["noise"]
        return noise if self._many else float(noise[0])

    def _start(
        self, X: Any, num_targets: int, many: bool, dtype: str = "float32", sample_weight: np.ndarray | None = None
    ) -> None:
        """Draw features for these rows, and start with empty sums.

        dtype : of the targets; predictions of float64 targets are float64, whatever the dtype of the features.
        """
        check_penalty(self.alpha)
        as_bool(self.fit_intercept, "fit_intercept")
        names = set(RandomFeatures().get_params(deep=False))
        parameters = {name: value for name, value in self.get_params(deep=False).items() if name in names}
        self.features_ = RandomFeatures(**parameters)._fit_rows(X, sample_weight)
        empty = FeatureMoments.empty(self.features_.feature_map_, num_targets, dtype="float64")
        self._keep(empty)
        self.n_samples_seen_ = 0
        self._many, self._intercept_dtype = many, dtype

    def _keep(self, moments: FeatureMoments) -> None:
        """Keep the sums and the counts of these moments; weights are solved for when they are used."""
        self.sums_ = {name: getattr(moments, name) for name in SUMS}
        self._counts = {name: getattr(moments, name) for name in COUNTS}
        self._solution: dict[str, Any] | None = None

    def _append(self, X: Any, targets: np.ndarray, sample_weight: np.ndarray | None = None) -> None:
        """Add rows to the sums; targets (n, k) and weights (n,) on the host."""
        moments = self.moments_
        self.features_._check_library(X, f"{type(self).__name__}.fit")
        y = host_to(targets, moments.gram)
        weight = None if sample_weight is None else host_to(sample_weight, moments.gram)
        if is_sparse(X):
            for rows in self._blocks(X):
                of_rows = None if weight is None else weight[rows]
                moments = moments.append_features(self.features_._features(X[rows]), y[rows, :], sample_weight=of_rows)
        else:
            moments = moments.append(as_floating(X, "X"), y, sample_weight=weight)
        self._keep(moments)
        self.n_samples_seen_ += X.shape[0]

    @property
    def _solved(self) -> dict[str, Any]:
        """The solution for all rows so far, computed on first use."""
        check_is_fitted(self, "sums_")
        if self._solution is None:
            self._solution = self._solve()
        return self._solution

    def _solve(self) -> dict[str, Any]:
        problem = RidgeProblem.of(self.moments_, intercept=self.fit_intercept)
        alpha = self.alpha
        if isinstance(alpha, numbers.Real):
            weights = problem.weights(float(alpha))
        else:
            candidates = None if isinstance(alpha, str) else alpha
            alpha, path = problem.best_path(candidates, guarded=isinstance(alpha, str) and alpha == "auto")
            weights = path.weights(alpha)
        like = next(iter(self.features_.arrays_.values()))
        intercept = problem.intercept(weights)
        return {
            "alpha": float(alpha),
            "weights": host_to(weights, like),
            "intercept": host_to(intercept, self.sums_["gram"] if self._intercept_dtype == "float64" else like),
        }

    def _solve_noise(self) -> dict[str, Any]:
        """Noise variance, and the root of the weight covariance, for predictive standard deviations."""
        problem, solved = RidgeProblem.of(self.moments_, intercept=self.fit_intercept), self._solved
        root = problem.inverse_root(solved["alpha"])
        weights = to_numpy(solved["weights"]).astype(np.float64)
        noise = problem.noise_variance(solved["alpha"], weights, root)
        return {"root": root, "mean": problem.feature_mean, "noise": noise}

    def _blocks(self, X: Any) -> Iterator[slice]:
        """Slices of rows whose features are in memory at one time."""
        step = max(1, BLOCK_NUMBERS // self.n_components)
        return (slice(start, min(start + step, X.shape[0])) for start in range(0, X.shape[0], step))

    def _values(self, X: Any, method: str) -> Any:
        """Predictions for validated rows, (n, k) in the dtype of the features and the targets together."""
        weights, intercept = self._solved["weights"], self._solved["intercept"]
        self.features_._check_library(X, f"{type(self).__name__}.{method}")
        parts = []
        for rows in self._blocks(X):
            block = self.features_._features(X[rows] if is_sparse(X) else X[rows, :])
            values = block @ cast(weights, block.dtype)
            dtype = namespace(values).result_type(values.dtype, intercept.dtype)
            parts.append(cast(values, dtype) + cast(intercept, dtype))
        return namespace(weights).concat(parts, axis=0)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = RandomFeatures(self.kernel, estimator=self.estimator).__sklearn_tags__().input_tags
        tags.array_api_support = True
        return tags


class RandomFeatureRidge(MultiOutputMixin, RegressorMixin, FeatureRidge):
    """Ridge regression on random features: kernel ridge regression whose memory does not grow with the data.

    kernel, gamma, degree, coef0, estimator, coupling, n_components, random_state : as in `RandomFeatures`.
    alpha : the penalty α of `Σ |y - b - W φ(x)|² + α |W|²`; or a list, from which generalized cross-validation takes
        the best; or "gcv", for the best of all penalties; or "auto", for the same, unless the best one leaves less than
        a fifth of the degrees of freedom for the residuals, as it may where features can fit all rows: then the penalty
        of maximum likelihood (`RidgePath`).
    fit_intercept : whether to fit b, without a penalty on it.

    One pass over the data sums products of features and targets in float64 (`FeatureMoments`). For n rows of d columns
    and m = n_components it costs O(n m (d + m)) time, and O(m²) memory beside one block. Solving for the weights comes
    last, O(m³). It needs only the sums, and so does cross-validation: all penalties are tried on one tridiagonal form
    (`RidgePath`). `partial_fit` adds rows. The blocks do not matter, up to rounding, with one exception: unless gamma
    is a number, it is chosen from the first block. The weights are solved for on first use. All targets share one
    penalty. Predictions have the dtype of X and y together: a float64 y with a mean of 10^8 keeps its digits beside a
    float32 X. A row of weight w counts as w equal rows, also in the choice of the penalty and in the noise; rows of
    weight 0 are left out. (Estimators that are fitted to rows, and gamma="median", see each row once.) For a number as
    alpha, Cholesky's factorization is used; if the matrix is singular up to rounding, a LinAlgWarning says so.

    Attributes: `coef_`, `intercept_`, `alpha_`, `noise_variance_`, `features_` (the fitted RandomFeatures), `moments_`
    (the sums), `n_samples_seen_`.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).uniform(-2, 2, (3000, 2))
    >>> y = np.sin(X[:, 0] * X[:, 1])
    >>> model = RandomFeatureRidge(n_components=200, random_state=0)
    >>> for start in range(0, 2000, 500):
    ...     model = model.partial_fit(X[start : start + 500], y[start : start + 500])
    >>> model.score(X[2000:], y[2000:]) > 0.999
    True
    """

    @hinted
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to all rows: X (n, d), dense or sparse, y (n,) or (n, k), sample_weight (n,) or a number."""
        X, y = validated(self, X, y, multi_output=True, y_numeric=True)
        X, y, weight = weighted_rows(X, to_numpy(y), sample_weight)
        self._start(X, 1 if y.ndim == 1 else y.shape[1], many=y.ndim == 2, dtype=dtype_of(y), sample_weight=weight)
        self._append(X, y.reshape(len(y), -1).astype(np.float64), weight)
        self._solution = self._solve()
        return self

    @hinted
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Add rows; the features are drawn at the first call."""
        is_first = not hasattr(self, "sums_")
        X, y = validated(self, X, y, multi_output=True, y_numeric=True, reset=is_first)
        X, y, weight = weighted_rows(X, to_numpy(y), sample_weight)
        if is_first:
            self._start(X, 1 if y.ndim == 1 else y.shape[1], many=y.ndim == 2, dtype=dtype_of(y), sample_weight=weight)
        expected = self.sums_["origin"].shape[0]
        if (y.ndim == 2) != self._many or y.size != len(y) * expected:
            raise ValueError(f"y must have as many outputs as before, {expected}, got shape {y.shape}.")
        self._append(X, y.reshape(len(y), -1).astype(np.float64), weight)
        return self

    @classmethod
    @hinted
    def from_moments(
        cls, features: FeatureMap, moments: FeatureMoments, *, alpha: Any = "auto", fit_intercept: bool = True
    ) -> Self:
        """The model that is fitted to sums made elsewhere: by Dask, by several processes, row by row.

        features : the map of the sums, by which new rows are mapped. moments : of one or several targets; several
            outputs are predicted where there are several. alpha, fit_intercept : as in the constructor.

        `partial_fit` adds more rows. The parameters of the model have the estimator of the map as an object.

        >>> import numpy as np, randfeat as rf
        >>> X = np.random.default_rng(0).uniform(-2, 2, (500, 2))
        >>> phi = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(dim=2, num_features=100, rng=0)
        >>> moments = rf.FeatureMoments.of(phi, X[:250], np.sin(X[:250, 0])).append(X[250:], np.sin(X[250:, 0]))
        >>> model = RandomFeatureRidge.from_moments(phi, moments)
        >>> bool(np.max(np.abs(model.predict(X) - np.sin(X[:, 0]))) < 0.01), model.n_samples_seen_
        (True, 500)
        """
        check_feature_map(features)
        if not isinstance(moments, FeatureMoments):
            raise TypeError(f"moments must be FeatureMoments, got {described(moments)}.")
        if moments.features is not features and moments.features.fingerprint != features.fingerprint:
            raise ValueError("these are moments of another feature map; give the map that they were made with.")
        if features.batch_shape:
            raise ValueError(f"expected a single map, got batch_shape {features.batch_shape}.")
        if not (num_targets := moments.origin.shape[0]):
            raise ValueError("these moments have no targets; give y where they are made.")
        model = cls(estimator=features.estimator, n_components=features.num_features, alpha=alpha,
                    fit_intercept=fit_intercept)  # fmt: skip
        check_penalty(alpha)
        as_bool(fit_intercept, "fit_intercept")
        model.features_ = RandomFeatures(estimator=features.estimator, n_components=features.num_features)
        model.features_._hold(features)
        model.n_features_in_ = features.dim
        doubled = {name: cast(getattr(moments, name), namespace(moments.gram).float64) for name in SUMS}
        model._keep(replace(moments, **doubled))
        model.n_samples_seen_ = moments.num_rows
        model._many, model._intercept_dtype = num_targets > 1, dtype_name(moments.gram.dtype)
        model._solution = model._solve()
        return model

    @hinted
    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predictions (n,) or (n, k); with `return_std` also the standard deviation of a new observation.

        The model is Bayesian linear regression on the features: noise of variance σ² (`noise_variance_`), weights of
        variance σ²/α, a flat prior for the intercept. A new observation at x has variance
        `σ² (1 + 1/n + |Rᵀ(φ(x) - φ̄)|²)`, where R Rᵀ is the inverse of the centered Gram matrix plus αI. Without an
        intercept, 1/n and φ̄ are left out.
        """
        check_is_fitted(self, "sums_")
        return_std = as_bool(return_std, "return_std")
        X = validated(self, X, reset=False)
        mean = self._values(X, "predict")
        if not return_std:
            return self._shaped(mean)
        return self._shaped(mean), self._shaped(cast(self._std(X), mean.dtype))

    def _std(self, X: Any) -> Any:
        solved = self._solve_noise()
        like = next(iter(self.features_.arrays_.values()))
        xp = namespace(like)
        root, center, noise = (host_to(solved[name], like) for name in ("root", "mean", "noise"))
        base = 1 + (1 / self._counts["count"] if self.fit_intercept else 0)
        parts = []
        for rows in self._blocks(X):
            block = self.features_._features(X[rows] if is_sparse(X) else X[rows, :])
            spread = (block - cast(center, block.dtype)) @ cast(root, block.dtype)
            share = base + xp.sum(spread * spread, axis=-1)
            parts.append(xp.sqrt(share[:, None] * cast(noise, block.dtype)))
        return xp.concat(parts, axis=0)

    def _shaped(self, values: Any) -> Any:
        return values if self._many else values[:, 0]


def dtype_of(y: np.ndarray) -> str:
    """The dtype that targets need: float32 for halves and float32, float64 for all others, integers too."""
    return "float32" if y.dtype in (np.float16, np.float32) else "float64"


def check_penalty(alpha: Any) -> None:
    """Raise an error unless alpha is a number >= 0, a list of positive numbers, "auto" or "gcv"."""
    expected = f'alpha must be a number, 0 or more, a list of positive ones, "auto" or "gcv", got {short(alpha)}.'
    if isinstance(alpha, bool) or alpha is None:
        raise TypeError(expected)
    if isinstance(alpha, numbers.Real):
        if not 0 <= float(alpha) < math.inf:
            raise ValueError(expected)
        return
    if isinstance(alpha, str):
        if alpha not in ("auto", "gcv"):
            raise ValueError(expected)
        return
    if np.ndim(alpha) != 1 or not len(alpha):
        raise ValueError(expected)
    for penalty in alpha:
        check_positive("each alpha of a list", penalty)
