"""Classification by ridge regression on random features."""

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from randfeat._array import device_of, namespace, to_numpy
from randfeat._hints import hinted
from randfeat.integrations.sklearn.inputs import validated
from randfeat.integrations.sklearn.ridge import FeatureRidge

__all__ = ["RandomFeatureRidgeClassifier"]


class RandomFeatureRidgeClassifier(ClassifierMixin, FeatureRidge):
    """Classification by ridge regression on random features: the target of a class is +1 for its rows, else -1.

    Parameters, memory and `partial_fit` are as in `RandomFeatureRidge`; the first `partial_fit` must name all classes.
    Two classes share one target; three or more have one each. The class with the largest score is predicted.

    Attributes: `classes_`, and those of `RandomFeatureRidge`.

    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = RandomFeatureRidgeClassifier(random_state=0).fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.95
    True
    """

    @hinted
    def fit(self, X: Any, y: Any) -> Self:
        """Fit to all rows: X (n, d), dense or sparse, y (n,) with labels of any type."""
        check_one_label_each(y)
        X, y = validated(self, X, y)
        y = labels_of(y)
        return self._fit_labels(X, y, np.unique(y))

    @hinted
    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Add rows. classes : all classes, required at the first call."""
        is_first = not hasattr(self, "sums_")
        check_one_label_each(y)
        X, y = validated(self, X, y, reset=is_first)
        y = labels_of(y)
        if is_first and classes is None:
            raise ValueError("the first call of partial_fit needs all classes: partial_fit(X, y, classes=...).")
        if classes is not None:
            classes = np.unique(to_numpy(classes))
            if not is_first and not np.array_equal(classes, self.classes_):
                raise ValueError(f"classes must be those of the first call, {self.classes_}, got {classes}.")
        if is_first:
            self._begin(X, classes)
        self._append(X, self._targets(y))
        return self

    def decision_function(self, X: Any) -> Any:
        """Score of each class, (n, n_classes); for two classes the score of the second, (n,)."""
        check_is_fitted(self, "sums_")
        values = self._values(validated(self, X, reset=False), "decision_function")
        return values if self._many else values[:, 0]

    def predict(self, X: Any) -> Any:
        """Predicted class of each row, (n,)."""
        check_is_fitted(self, "sums_")
        values = self._values(validated(self, X, reset=False), "predict")
        xp = namespace(values)
        chosen = xp.argmax(values, axis=1) if self._many else xp.astype(values[:, 0] > 0, xp.int64)
        labels = self.classes_[to_numpy(chosen)]
        if isinstance(values, np.ndarray) or labels.dtype.kind not in "iufb":
            return labels
        return xp.asarray(labels, device=device_of(values))

    def _fit_labels(self, X: Any, y: np.ndarray, classes: np.ndarray) -> Self:
        self._begin(X, classes)
        self._append(X, self._targets(y))
        self._solution = self._solve()
        return self

    def _begin(self, X: Any, classes: np.ndarray) -> None:
        if len(classes) < 2:
            raise ValueError(f"RandomFeatureRidgeClassifier needs at least 2 classes, got one class, {classes}.")
        self.classes_ = classes
        many = len(classes) > 2
        self._start(X, len(classes) if many else 1, many=many)

    def _targets(self, y: np.ndarray) -> np.ndarray:
        """Targets (n, k): +1 for the class of a row, -1 for the others."""
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"y has labels {unknown} that are not among the classes {self.classes_}.")
        positive_classes = self.classes_ if self._many else self.classes_[1:]
        return np.where(y[:, None] == positive_classes, 1.0, -1.0)


def labels_of(y: Any) -> np.ndarray:
    """Class labels as a NumPy array, checked."""
    y = column_or_1d(to_numpy(y), warn=True)
    check_classification_targets(y)
    return y


def check_one_label_each(y: Any) -> None:
    """Raise ValueError for several labels of one row, as columns of 0 and 1 or as lists."""
    shape = getattr(y, "shape", None)
    if shape is None:
        try:
            shape = np.asarray(y).shape
        except ValueError:  # rows of different lengths
            shape = (len(y), "several")
    if len(shape) == 2 and shape[1] != 1:
        raise ValueError(
            f"y must be one label for each row, (n,), got shape ({shape[0]}, {shape[1]}). For several labels of a row, "
            "use sklearn.multioutput.MultiOutputClassifier(RandomFeatureRidgeClassifier(...)), and for lists of labels "
            "sklearn.preprocessing.MultiLabelBinarizer before it."
        )
