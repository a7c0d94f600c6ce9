"""Ridge regression on random features against pipelines of scikit-learn in which the penalty is chosen, too.

Every contender gets the same rows, the same gamma and the same number of features. Differences are taken split by
split.
"""

import argparse
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments import terminal
from experiments.benchmarks.ridge import error
from experiments.benchmarks.timing import NotHere
from experiments.datasets import Dataset, load_dataset
from experiments.results import Summary
from experiments.tables import Record
from randfeat._hints import how_to_install

__all__ = ["CONTENDERS", "RUNS", "difference", "model_of", "pipeline_tables", "run_records", "table_of_runs"]

RUNS = [  # data, rows for training, features, splits
    ("digits", 1200, 100, 20), ("digits", 1200, 500, 10), ("breast_cancer", 400, 100, 20),
    ("breast_cancer", 400, 300, 20), ("wine", 120, 100, 20), ("iris", 100, 50, 20), ("letter", 4000, 500, 5),
    ("diabetes", 300, 100, 20), ("ames", 2400, 500, 10),
]  # fmt: skip
QUICK_RUNS = [("wine", 120, 20, 2), ("diabetes", 300, 20, 2)]
NUMBERS = ("diabetes", "ames")  # to predict; the others have classes
MOST_TEST = 1000
ALPHAS = np.geomspace(1e-6, 1e2, 13)  # from which RidgeCV takes the one with the least leave-one-out error
OURS, OURS_CV = "randfeat", "RandomFeatures, RidgeCV"
FIXED, TUNED, NYSTROEM, EXACT = "RBFSampler, Ridge", "RBFSampler, RidgeCV", "Nystroem, RidgeCV", "SVM, exact"
CONTENDERS = (OURS, OURS_CV, FIXED, TUNED, NYSTROEM, EXACT)


def pipeline_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """The table of errors of all contenders on all data, and notes."""
    try:
        import sklearn
    except ImportError as missing:
        raise NotHere(f"the benchmark pipelines needs scikit-learn: {how_to_install('sklearn')}.") from missing
    found = []
    for name, rows, width, splits in QUICK_RUNS if quick else RUNS:
        report(f"pipelines: {name}, {width} features, {splits} splits")
        found.append(run_records(name, rows, width, splits))
    notes = [
        f"scikit-learn {sklearn.__version__}; gamma is 1/columns everywhere, as the columns have variance 1",
        f"RidgeCV, and RidgeClassifierCV for classes, take one of {len(ALPHAS)} penalties from {ALPHAS[0]:.0e} to "
        f"{ALPHAS[-1]:.0e}; Ridge and RidgeClassifier have their default of 1; SVM is SVC or SVR with its defaults",
    ]
    return [table_of_runs(found)], notes


@functools.cache
def data_of(name: str) -> Dataset:
    """A table by its name."""
    if name != "diabetes":
        return load_dataset(name)
    from sklearn.datasets import load_diabetes

    inputs, target = load_diabetes(return_X_y=True)
    return Dataset(name, (inputs - inputs.mean(axis=0)) / inputs.std(axis=0), target)


def model_of(contender: str, data: Dataset, width: int, seed: int) -> Any:
    """The unfitted model of a contender."""
    from sklearn.kernel_approximation import Nystroem, RBFSampler
    from sklearn.linear_model import Ridge, RidgeClassifier, RidgeClassifierCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC, SVR

    from randfeat.integrations.sklearn import RandomFeatureRidge, RandomFeatureRidgeClassifier, RandomFeatures

    classes = data.name not in NUMBERS
    options: dict[str, Any] = {"gamma": 1 / data.dim, "n_components": width, "random_state": seed}
    if contender == OURS:
        return RandomFeatureRidgeClassifier(**options) if classes else RandomFeatureRidge(**options)
    if contender == EXACT:
        return SVC(gamma=1 / data.dim) if classes else SVR(gamma=1 / data.dim)
    if contender == FIXED:
        return make_pipeline(RBFSampler(**options), RidgeClassifier() if classes else Ridge())
    features = {OURS_CV: RandomFeatures, TUNED: RBFSampler, NYSTROEM: Nystroem}[contender](**options)
    return make_pipeline(features, RidgeClassifierCV(alphas=ALPHAS) if classes else RidgeCV(alphas=ALPHAS))


def run_records(name: str, rows: int, width: int, splits: int) -> list[Record]:
    """Errors of every contender on held-out rows, over the same random splits."""
    data = data_of(name)
    held = min(len(data.inputs) - rows, MOST_TEST)
    found = []
    for contender in CONTENDERS:
        errors = []
        for seed in range(splits):
            train, test = data.split(np.random.default_rng(seed), rows, held)
            model = model_of(contender, data, width, seed).fit(data.inputs[train], data.target[train])
            errors.append(error(model.predict(data.inputs[test]), data.target[test], classes=name not in NUMBERS))
        found.append({"data": name, "width": width, "rows": rows, "contender": contender, "errors": errors})
    return found


def difference(errors: Sequence[float], ours: Sequence[float]) -> tuple[float, float]:
    """The mean of `errors` less that of `ours` on the same splits, and its standard error."""
    apart = np.subtract(errors, ours)
    return float(np.mean(apart)), float(np.std(apart, ddof=1) / math.sqrt(len(apart))) if len(apart) > 1 else math.nan


def table_of_runs(runs: Sequence[Sequence[Record]]) -> Summary:
    """One row for each data set and contender."""
    rows: list[tuple[str, ...]] = []
    sections = []
    for records in runs:
        sections.append(len(rows))
        for record in records:
            mean, spread = difference(record["errors"], records[0]["errors"])
            apart = "" if record is records[0] else f"{mean:+.4f} ± {spread:.4f}"
            about = record["data"], str(record["rows"]), str(record["width"]), record["contender"]
            rows.append((*about, f"{np.mean(record['errors']):.4f}", apart))
    title = "Error on held-out rows: share of wrong classes, or RMSE over the spread of the target"
    header = ("data", "rows", "features", "contender", "error", "minus randfeat's, same splits")
    return Summary(title, header, tuple(rows), sections=tuple(sections[1:]))


def main() -> None:
    """Run one data set: `python -m experiments.benchmarks.pipelines digits 1200 500 20`."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.pipelines", description=main.__doc__)
    parser.add_argument("data", choices=sorted({run[0] for run in RUNS}))
    for number in ("rows", "features", "splits"):
        parser.add_argument(number, type=int)
    options = parser.parse_args()
    records = run_records(options.data, options.rows, options.features, options.splits)
    terminal.show_summaries(terminal.console(), [table_of_runs([records])])


if __name__ == "__main__":
    main()
