"""Probabilities of classes: logistic regression on random features, and ridge scores that are calibrated.

Every contender gets the same rows, the same gamma and the same number of features.
"""

import math
import time
from typing import Any

import numpy as np

from experiments import terminal
from experiments.data_sets.settings import MOST_TEST
from experiments.datasets import load_dataset
from experiments.results import Summary

__all__ = ["CONTENDERS", "RUNS", "probability_table"]

RUNS = [("digits", 1200, 500, 10), ("breast_cancer", 400, 300, 20), ("wine", 120, 100, 20), ("letter", 4000, 500, 5)]
CONTENDERS = (
    "RandomFeatures, LogisticRegression(C=100)",
    "RandomFeatures, LogisticRegression()",
    "RBFSampler, LogisticRegression(C=100)",
    "RandomFeatureRidgeClassifier, sigmoid",
    "RandomFeatureRidgeClassifier, temperature",
)


def model_of(contender: str, dim: int, width: int, seed: int) -> Any:
    """The unfitted model of a contender."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.kernel_approximation import RBFSampler
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from randfeat.integrations.sklearn import RandomFeatureRidgeClassifier, RandomFeatures

    options: dict[str, Any] = {"gamma": 1 / dim, "n_components": width, "random_state": seed}
    first, _, second = contender.partition(", ")
    if first == "RandomFeatureRidgeClassifier":
        return CalibratedClassifierCV(RandomFeatureRidgeClassifier(**options), method=second)
    features = {"RandomFeatures": RandomFeatures, "RBFSampler": RBFSampler}[first](**options)
    return make_pipeline(features, LogisticRegression(C=100.0 if "100" in second else 1.0, max_iter=2000))


def measured(contender: str, name: str, rows: int, width: int, splits: int) -> np.ndarray:
    """Share of wrong classes, log loss and seconds of the processor for fitting, one row for each split."""
    from sklearn.metrics import log_loss

    data, found = load_dataset(name), []
    held = min(len(data.inputs) - rows, MOST_TEST)
    for seed in range(splits):
        train, test = data.split(np.random.default_rng(seed), rows, held)
        model, start = model_of(contender, data.dim, width, seed), time.process_time()
        model.fit(data.inputs[train], data.target[train])
        seconds = time.process_time() - start
        probabilities, target = model.predict_proba(data.inputs[test]), data.target[test]
        wrong = np.mean(model.classes_[np.argmax(probabilities, axis=1)] != target)
        found.append((wrong, log_loss(target, probabilities, labels=model.classes_), seconds))
    return np.array(found)


def probability_table(runs: list[tuple[str, int, int, int]]) -> Summary:
    """One row for each data set and contender; differences are from the first contender on the same splits."""
    rows: list[tuple[str, ...]] = []
    for name, train, width, splits in runs:
        of_first = None
        for contender in CONTENDERS:
            values = measured(contender, name, train, width, splits)
            of_first = values if of_first is None else of_first
            apart = values[:, 1] - of_first[:, 1]
            spread = np.std(apart, ddof=1) / math.sqrt(splits) if splits > 1 else math.nan
            wrong, loss, _ = values.mean(axis=0)
            ratio = np.median(values[:, 2]) / np.median(of_first[:, 2])
            rows.append(
                (name, str(width), contender, f"{wrong:.4f}", f"{loss:.4f}",
                 "" if values is of_first else f"{apart.mean():+.4f} ± {spread:.4f}", f"{ratio:.1f}")
            )  # fmt: skip
    header = ("data", "features", "contender", "error", "log loss", "minus the first's, same splits", "time of fit")
    sections = tuple(range(len(CONTENDERS), len(rows), len(CONTENDERS)))
    return Summary("Probabilities on held-out rows", header, tuple(rows), sections=sections)


if __name__ == "__main__":
    terminal.show_summaries(terminal.console(), [probability_table(RUNS)])
