"""RandomFeatures: feature maps as a transformer."""

import importlib
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from randfeat._array import as_count, as_floating, is_on_dask
from randfeat._hints import Hinted
from randfeat.integrations.sklearn.bandwidths import Spread, resolve_gamma
from randfeat.integrations.sklearn.inputs import (
    SAMPLE,
    as_rng,
    check_same_library,
    first_row_if_far,
    is_sparse,
    rows_of,
    validated,
)
from randfeat.integrations.sklearn.laws import Law, resolve_law
from randfeat.integrations.sklearn.nested import NestedLaws
from randfeat.integrations.sklearn.sparse_rows import sparse_features
from randfeat.maps import FeatureMap

__all__ = ["RandomFeatures"]


def can_follow_blocks(transformer: "RandomFeatures") -> bool:
    """True if `partial_fit` is possible; else an AttributeError says why not."""
    if isinstance(transformer.gamma, str) and transformer.gamma == "median":
        raise AttributeError('gamma="median" needs all rows at once: use fit, gamma="scale", or a number.')
    return True


class RandomFeatures(Hinted, ClassNamePrefixFeaturesOutMixin, TransformerMixin, NestedLaws):
    """Random features of a kernel as a transformer: `Z = transform(X)` has `Z @ Z.T` ≈ kernel(X, X).

    kernel : a name, or a Kernel object with its parameters. The fields of an object are parameters of the model, too:
        `GridSearchCV(model, {"kernel__length_scale": [0.5, 1, 2]})`.

        name                                       kernel                            gamma is
        "rbf"                                      exp(-γ |x - y|²)                  1/2ℓ²
        "matern32", "matern52", "exponential"      Matérn of smoothness 3/2, 5/2,    1/2ℓ²
                                                   1/2, and length scale ℓ
        "rational_quadratic"                       1/(1 + γ |x - y|²)                1/2ℓ²
        "cauchy"                                   Π_l 1/(1 + 2γ (x_l - y_l)²)       1/2ℓ²
        "laplacian"                                exp(-γ Σ_l |x_l - y_l|)           1/ℓ
        "polynomial"                               (γ x·y + coef0)^degree            the factor of x·y
        "softmax"                                  exp(γ x·y)                        the factor of x·y
        "arccos0", "arccos1", "arccos2",           as on their pages, no scale       not used
        "angular", "relu", "optical"
        "additive_chi2"                            Σ_l 2 x_l y_l/(x_l + y_l)         not used
        "skewed_chi2"                              Π_l 2 √((x_l + 1)(y_l + 1))       not used
                                                   /(x_l + y_l + 2)

    Chi-squared kernels are for X without negative entries. "additive_chi2" needs an `n_components` that is a multiple
    of twice the number of columns; `kernel=rf.SkewedChi2Kernel(offset)` has another offset than 1.

    gamma : a number; or "scale", `1/(d Var)` with the variance of all entries of X, as in scikit-learn (`1/(d √Var)`
        for "laplacian"); or "median", with ℓ the median distance between at most 1000 random rows.
    degree, coef0 : parameters of "polynomial", as in scikit-learn.
    estimator : a name from the catalogue, the class without "Features" in snake case ("trigonometric", "positive",
        "tensor_sketch", ...); "auto" for the default of the kernel; or an Estimator object, which carries its kernel
        and coupling. Named estimators with fitted parameters ("optimal_positive", ...) are fitted to at most 1000 rows.
    coupling : joint distribution of the random rows: a name ("orthogonal", "independent", "simplex", ...) or a Coupling
        object.
    n_components : the width of Z. Pairs of cosine and sine, exact at equal points, need an even width. At an odd width
        "auto" takes random phases, and "trigonometric" raises an error.
    random_state : an int, RandomState or Generator, or None for fresh entropy. An int gives the features of
        `estimator.draw(dim, n_components, rng=random_state)`.

    Attributes: `estimator_`, `gamma_`, `arrays_` (the drawn arrays by name), `feature_map_` (estimator and arrays),
    `n_features_in_`, `feature_names_in_`.

    Fitting uses the number of columns of X, and the entries only to choose gamma or to fit an estimator. `partial_fit`
    draws the features at the first block. With "scale", gamma follows the variance of all blocks, like a
    StandardScaler: pass all data to `partial_fit` first, and transform later. float32 stays float32. For sparse X,
    features that are cosines or exponentials are computed by a sparse product. With array API dispatch, inputs and
    outputs can be arrays of PyTorch or CuPy.

    Kernels of x - y take any offset of the data: the first row of a dense X is subtracted in columns where it is more
    than 8 standard deviations (of at most 1000 rows) and 32 length scales from 0, so that no digit is lost to the
    offset, in float32 either.
    The features are then those of `draw(...).about(row)`, with the row in `feature_map_.arrays["origin"]`. It is set
    once, at the first block, and is the same for all data. An Estimator object is shifted if it has waves.

    >>> import numpy as np
    >>> from sklearn.metrics.pairwise import rbf_kernel
    >>> X = np.random.default_rng(0).standard_normal((50, 3))
    >>> Z = RandomFeatures(gamma=0.1, n_components=2000, random_state=0).fit_transform(X)
    >>> bool(np.max(np.abs(Z @ Z.T - rbf_kernel(X, gamma=0.1))) < 0.1)
    True
    """

    def __init__(
        self,
        kernel: Any = "rbf",
        *,
        gamma: Any = "scale",
        degree: int = 2,
        coef0: float = 0.0,
        estimator: Any = "auto",
        coupling: Any = "orthogonal",
        n_components: int = 100,
        random_state: Any = None,
    ) -> None:
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.estimator = estimator
        self.coupling = coupling
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Draw features for the columns of X; y is ignored."""
        return self._fit(validated(self, X), Spread(), first=True)

    def _fit_rows(self, X: Any, sample_weight: np.ndarray | None = None) -> Self:
        """`fit` for rows that were validated elsewhere, with weights for gamma="scale"."""
        self.n_features_in_ = X.shape[1]
        return self._fit(X, Spread(), first=True, sample_weight=sample_weight)

    @available_if(can_follow_blocks)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Draw features at the first block of rows; with gamma="scale", update gamma with every block."""
        first = not hasattr(self, "estimator_")
        return self._fit(validated(self, X, reset=first), self._seen_before(first), first)

    def transform(self, X: Any) -> Any:
        """Features of the rows of X, (n, d) -> (n, n_components), in the library and dtype of X.

        Those of a dask array are a dask array: `randfeat.integrations.dask.features(feature_map_, X)`, lazily.
        """
        check_is_fitted(self, "arrays_")
        if is_on_dask(X):
            return importlib.import_module("randfeat.integrations.dask").features(self.feature_map_, X)
        X = validated(self, X, reset=False)
        self._check_library(X, f"{type(self).__name__}.transform")
        return self._features(X)

    @property
    def feature_map_(self) -> FeatureMap:
        """The drawn feature map."""
        check_is_fitted(self, "arrays_")
        return FeatureMap(self.estimator_, self.n_features_in_, self._n_features_out, self.arrays_)

    @property
    def _law(self) -> Law:
        return Law(self.kernel, self.gamma, self.degree, self.coef0, self.estimator, self.coupling)

    def _seen_before(self, first: bool) -> Spread:
        return Spread() if first else self._spread

    def _fit(self, X: Any, spread: Spread, first: bool, sample_weight: np.ndarray | None = None) -> Self:
        """`fit` or `partial_fit` for validated rows."""
        law, width = self._law, as_count(self.n_components, "n_components")
        law.check()
        rng = as_rng(self.random_state) if first else None
        if law.bandwidth is not None and isinstance(self.gamma, str) and self.gamma == "scale":
            spread = spread.append(X, sample_weight)

        def sample() -> np.ndarray:
            if rng is None:
                raise ValueError("estimators that are fitted to data cannot follow blocks: use fit, or an object.")
            return rows_of(X, rng.spawn(1)[0], SAMPLE)

        gamma = resolve_gamma(self.gamma, law.bandwidth, spread, X.shape[1], sample)
        can_shift = rng is not None and not is_sparse(X) and law.can_shift
        reference = first_row_if_far(X, law.kernel_of(gamma)) if can_shift else None
        estimator = resolve_law(law, gamma, width, sample if reference is None else lambda: sample() - reference)
        if is_sparse(X) and not law.takes_products:
            raise ValueError(
                "a sparse X needs features that are waves or exponentials (trigonometric, spectral, positive, ...), "
                f"got {type(estimator).__name__}: choose those, or give X.toarray()."
            )
        if not law.takes_negative and not is_sparse(X):
            estimator.kernel.pairwise(X, X)  # raises its errors early
        if rng is not None:
            like = np.empty(0, X.dtype if X.dtype in (np.float32, np.float64) else float) if is_sparse(X) else X
            phi = estimator.draw(X.shape[1], width, rng=rng, like=like)
            phi = phi if reference is None else phi.about(reference)
            if is_sparse(X):
                sparse_features(phi, X[:0])  # raises its errors early
            self.arrays_ = dict(phi.arrays)
        self.estimator_, self.gamma_, self._spread, self._n_features_out = estimator, gamma, spread, width
        return self

    def _hold(self, features: FeatureMap) -> None:
        """Take a feature map that was drawn elsewhere."""
        self.estimator_, self.gamma_, self._spread = features.estimator, 1.0, Spread()
        self.arrays_, self.n_features_in_ = dict(features.arrays), features.dim
        self._n_features_out = features.num_features

    def _check_library(self, X: Any, method: str) -> None:
        check_same_library(X, next(iter(self.arrays_.values())), method)

    def _features(self, X: Any) -> Any:
        """Features of validated rows."""
        phi = self.feature_map_
        if not is_sparse(X):
            return phi(as_floating(X, "X"))
        X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
        arrays = {name: array.astype(X.dtype, copy=False) for name, array in phi.arrays.items()}
        return sparse_features(replace(phi, arrays=arrays), X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self._law.takes_sparse
        tags.input_tags.positive_only = not self._law.takes_negative
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.array_api_support = True
        return tags
