"""Classification by ridge regression on random features."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from randfeat._array import device_of, namespace, to_numpy
from randfeat._hints import hinted, short
from randfeat.integrations.sklearn.inputs import validated, weighted_rows
from randfeat.integrations.sklearn.ridge import FeatureRidge

__all__ = ["RandomFeatureRidgeClassifier"]


class RandomFeatureRidgeClassifier(ClassifierMixin, FeatureRidge):
    """Classification by ridge regression on random features: the target of a class is +1 for its rows, else -1.

    Parameters, memory, weights and `partial_fit` are as in `RandomFeatureRidge`; the first `partial_fit` must name all
    classes. Two classes share one target; three or more have one each. The class with the largest score is predicted.

    class_weight : weights of the classes, a dictionary, or "balanced" for weights that are inverse to the number of
        rows of a class; rows are multiplied by them. "balanced" needs all rows, so `fit`.

    y may have several labels for each row, an array (n, n_labels) of 0 and 1: each label has a target of its own, and
    predictions have the same form. Scores are no probabilities. `sklearn.calibration.CalibratedClassifierCV` makes
    probabilities of them; `make_pipeline(RandomFeatures(...), LogisticRegression())` fits them directly.

    Attributes: `classes_`, and those of `RandomFeatureRidge`.

    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = RandomFeatureRidgeClassifier(random_state=0).fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.95
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
        n_components: int = 500,
        alpha: Any = "auto",
        fit_intercept: bool = True,
        class_weight: Any = None,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            kernel, gamma=gamma, degree=degree, coef0=coef0, estimator=estimator, coupling=coupling,
            n_components=n_components, alpha=alpha, fit_intercept=fit_intercept, random_state=random_state,
        )  # fmt: skip
        self.class_weight = class_weight

    @hinted
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to all rows: X (n, d), dense or sparse, y (n,) with labels of any type, or (n, n_labels) of 0 and 1."""
        check_labels(y)
        X, y = validated(self, X, y, multi_output=True)
        X, y, weight = weighted_rows(X, labels_of(y), sample_weight)
        weight = self._with_classes(y, weight)
        self._begin(X, y, classes_of(y), weight)
        self._append(X, self._targets(y), weight)
        self._solution = self._solve()
        return self

    @hinted
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Add rows. classes : all classes, required at the first call; for several labels of a row it is not needed."""
        is_first = not hasattr(self, "sums_")
        check_labels(y)
        X, y = validated(self, X, y, multi_output=True, reset=is_first)
        X, y, weight = weighted_rows(X, labels_of(y), sample_weight)
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight={self.class_weight!r} needs all rows at once: use fit, or give a dictionary of weights."
            )
        if is_first and classes is None and y.ndim == 1:
            raise ValueError("the first call of partial_fit needs all classes: partial_fit(X, y, classes=...).")
        classes = classes_of(y) if classes is None and y.ndim == 2 else classes
        if classes is not None:
            classes = np.unique(to_numpy(classes))
            if not is_first and not np.array_equal(classes, self.classes_):
                raise ValueError(f"classes must be those of the first call, {self.classes_}, got {classes}.")
        several = y.ndim == 2
        if not is_first and (several != self._several or (several and y.shape[1] != self.sums_["origin"].shape[0])):
            raise ValueError(f"y must have as many labels for each row as before, got shape {y.shape}.")
        weight = self._with_classes(y, weight)
        if is_first:
            self._begin(X, y, classes, weight)
        self._append(X, self._targets(y), weight)
        return self

    def decision_function(self, X: Any) -> Any:
        """Score of each class, (n, n_classes); for two classes the score of the second, (n,); or one of each label."""
        check_is_fitted(self, "sums_")
        values = self._values(validated(self, X, reset=False), "decision_function")
        return values if self._many else values[:, 0]

    def predict(self, X: Any) -> Any:
        """Predicted class of each row, (n,), or labels 0 and 1, (n, n_labels)."""
        check_is_fitted(self, "sums_")
        values = self._values(validated(self, X, reset=False), "predict")
        xp = namespace(values)
        if self._several:
            return xp.astype(values > 0, xp.int64)
        chosen = xp.argmax(values, axis=1) if self._many else xp.astype(values[:, 0] > 0, xp.int64)
        labels = self.classes_[to_numpy(chosen)]
        if isinstance(values, np.ndarray) or labels.dtype.kind not in "iufb":
            return labels
        return xp.asarray(labels, device=device_of(values))

    def _begin(self, X: Any, y: np.ndarray, classes: np.ndarray, sample_weight: np.ndarray | None) -> None:
        if len(classes) < 2:
            raise ValueError(f"RandomFeatureRidgeClassifier needs at least 2 classes, got one class, {classes}.")
        check_names(self.class_weight, classes)
        self.classes_, self._several = classes, y.ndim == 2
        number = y.shape[1] if self._several else len(classes) if len(classes) > 2 else 1
        self._start(X, number, many=self._several or number > 1, sample_weight=sample_weight)

    def _with_classes(self, y: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray | None:
        """Weights of rows times those of their classes."""
        if self.class_weight is None:
            return sample_weight
        if y.ndim == 2:
            raise ValueError("class_weight is for one label of each row; give sample_weight for several.")
        of_classes = weights_of_classes(self.class_weight, y, sample_weight)
        if not (np.all(np.isfinite(of_classes) & (of_classes >= 0)) and np.any(of_classes)):
            raise ValueError(
                f"class_weight must be finite, 0 or more, and not 0 for all rows, got {short(self.class_weight)}."
            )
        return of_classes if sample_weight is None else sample_weight * of_classes

    def _targets(self, y: np.ndarray) -> np.ndarray:
        """Targets (n, k): +1 for the class or the labels of a row, -1 for the others."""
        if self._several:
            return np.where(y != 0, 1.0, -1.0)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"y has labels {unknown} that are not among the classes {self.classes_}.")
        positive_classes = self.classes_ if self._many else self.classes_[1:]
        return np.where(y[:, None] == positive_classes, 1.0, -1.0)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def labels_of(y: Any) -> np.ndarray:
    """Class labels (n,), or 0 and 1 for each of several labels (n, n_labels), as a NumPy array, checked."""
    y = to_numpy(y)
    if y.ndim == 2 and y.shape[1] > 1:
        if not np.all((y == 0) | (y == 1)):
            raise ValueError("several labels of a row must be 0 or 1 each, an array (n, n_labels).")
        return y
    y = column_or_1d(y, warn=True)
    check_classification_targets(y)
    return y


def classes_of(y: np.ndarray) -> np.ndarray:
    """The classes that occur; for several labels of a row, the numbers of the labels."""
    return np.unique(y) if y.ndim == 1 else np.arange(y.shape[1])


def weights_of_classes(class_weight: Any, y: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray:
    """The weight of the class of each row, (n,). "balanced" is n / (number of classes · weight of the class)."""
    if isinstance(class_weight, Mapping):
        return np.asarray([class_weight.get(label, 1.0) for label in y.tolist()], dtype=np.float64)
    if class_weight != "balanced":
        raise ValueError(f'class_weight must be None, "balanced" or a dictionary, got {short(class_weight)}.')
    labels, places = np.unique(y, return_inverse=True)
    totals = np.bincount(places, weights=sample_weight, minlength=len(labels))
    return (np.sum(totals) / (len(labels) * totals))[places]


def check_names(class_weight: Any, classes: np.ndarray) -> None:
    """ValueError for a dictionary with a name that is no class, where some class has no weight: a slip."""
    if isinstance(class_weight, Mapping):
        unknown, without = set(class_weight) - set(classes.tolist()), set(classes.tolist()) - set(class_weight)
        if unknown and without:
            raise ValueError(
                f"class_weight names {sorted(unknown, key=str)}, which are no classes; without a weight are "
                f"{sorted(without, key=str)}."
            )


def check_labels(y: Any) -> None:
    """Raise ValueError for lists of labels of different lengths."""
    if getattr(y, "shape", None) is None:
        try:
            np.asarray(y)
        except ValueError:
            raise ValueError(
                "y must be one label for each row, (n,), or 0 and 1 for each of several, (n, n_labels); for lists of "
                "labels, use sklearn.preprocessing.MultiLabelBinarizer before it."
            ) from None
