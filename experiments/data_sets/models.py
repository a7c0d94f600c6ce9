"""The contenders, as a user of scikit-learn would write them: all with the same gamma, and a chosen penalty."""

from typing import Any

from experiments.data_sets.settings import ALPHAS, EXACT, GCV, NYSTROEM, OURS, SAME_FEATURES, SAMPLER
from experiments.datasets import Dataset


def model_of(contender: str, data: Dataset, width: int, seed: int, num_rows: int) -> Any:
    """The unfitted model of a contender. gamma is 1/columns: columns have variance 1, so this is gamma="scale".

    Nystroem has no more features than there are rows; with as many, its kernel is exact.

    Exact are SVC for classes, with its default C = 1, and KernelRidge for numbers, with an intercept and the same
    penalties to choose from.
    """
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.kernel_approximation import Nystroem, RBFSampler
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.linear_model import RidgeClassifierCV, RidgeCV
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    from randfeat.integrations.sklearn import RandomFeatureRidge, RandomFeatureRidgeClassifier, RandomFeatures

    gamma = 1 / data.dim
    options: dict[str, Any] = {"gamma": gamma, "n_components": width, "random_state": seed}
    if contender in (OURS, GCV):
        options |= {"alpha": "gcv"} if contender == GCV else {}
        return RandomFeatureRidgeClassifier(**options) if data.has_classes else RandomFeatureRidge(**options)
    if contender == EXACT:
        if data.has_classes:
            return SVC(gamma=gamma)
        search = GridSearchCV(KernelRidge(kernel="rbf", gamma=gamma), {"alpha": ALPHAS}, cv=3)
        return TransformedTargetRegressor(search, transformer=StandardScaler())
    if contender == NYSTROEM:
        options["n_components"] = min(width, num_rows)
    features = {SAMPLER: RBFSampler, NYSTROEM: Nystroem, SAME_FEATURES: RandomFeatures}[contender]
    return make_pipeline(features(**options), RidgeClassifierCV(ALPHAS) if data.has_classes else RidgeCV(ALPHAS))
