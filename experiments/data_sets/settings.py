"""Sizes of data_sets, and the names of the contenders."""

from dataclasses import dataclass

import numpy as np

from experiments.datasets import DATASETS
from experiments.experiment import Settings

OURS, SAMPLER, NYSTROEM, EXACT = "randfeat", "RBFSampler, RidgeCV", "Nystroem, RidgeCV", "exact kernel"
GCV, SAME_FEATURES = "randfeat, alpha='gcv'", "RandomFeatures, RidgeCV"  # our features, the penalty chosen otherwise
CONTENDERS = (OURS, SAMPLER, NYSTROEM, EXACT, GCV, SAME_FEATURES)
ALPHAS = np.geomspace(1e-6, 1e2, 13)  # from which RidgeCV takes the one with the least leave-one-out error
TEST_SHARE, MOST_TEST = 0.3, 1000


@dataclass(frozen=True)
class DataSetsSettings(Settings):
    """Sizes: most_rows for training, the same for every contender; widths are numbers of features."""

    datasets: tuple[str, ...] = DATASETS
    widths: tuple[int, ...] = (512, 2048)
    most_rows: int = 1000
    num_splits: int = 20


def sizes(num_rows: int, most_rows: int) -> tuple[int, int]:
    """Rows for training and for the test, of a table with `num_rows` in all: 70 % and 30 %, or fewer if there are many.

    >>> sizes(150, 1000), sizes(20_000, 1000)
    ((105, 45), (1000, 1000))
    """
    test = min(round(TEST_SHARE * num_rows), MOST_TEST)
    return min(num_rows - test, most_rows), test
