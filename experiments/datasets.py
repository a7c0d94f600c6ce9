"""Tables for experiments: two in `experiments/data` (see the README there), the others come with packages.

Five come with scikit-learn, and three with statsmodels: *fair* (6366 women asked about affairs outside of marriage;
Fair 1978), *randhie* (20 190 people with one of 14 health insurance plans; RAND, Newhouse 1993), and *star98* (303
school districts of California, results in mathematics; Gill 2000). Targets that are counts or times are `log(1 + y)`.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.experiment import Settings

FOLDER = Path(__file__).parent / "data"
STORED = ("letter", "ames")
BUNDLED = ("iris", "wine", "breast_cancer", "digits", "diabetes")
STATISTICAL = ("fair", "randhie", "star98")
DATASETS = STORED + BUNDLED + STATISTICAL
NUMBERS = ("ames", "diabetes", *STATISTICAL)  # whose target is a number


@dataclass(frozen=True, eq=False)
class Dataset:
    """A table: standardized inputs (n, d) and targets (n,), classes 0 .. c - 1 or a number to predict.

    Columns have mean 0 and variance 1 over all rows; constant ones are 0.
    """

    name: str
    inputs: np.ndarray
    target: np.ndarray

    @property
    def dim(self) -> int:
        return int(self.inputs.shape[-1])

    @property
    def has_classes(self) -> bool:
        return bool(self.target.dtype.kind == "i")

    def split(self, rng: np.random.Generator, *sizes: int) -> list[np.ndarray]:
        """Disjoint random sets of rows, of these sizes."""
        if sum(sizes) > len(self.inputs):
            raise ValueError(f"{self.name} has {len(self.inputs)} rows, fewer than {' + '.join(map(str, sizes))}.")
        return np.split(rng.permutation(len(self.inputs))[: sum(sizes)], np.cumsum(sizes)[:-1])


@functools.cache
def load_dataset(name: str) -> Dataset:
    """One table by its name."""
    if name in STORED:
        with np.load(FOLDER / f"{name}.npz") as file:
            inputs, target = file["X"].astype(np.float64), file["y"]
    elif name in BUNDLED:
        from sklearn import datasets

        inputs, target = getattr(datasets, f"load_{name}")(return_X_y=True)
    elif name in STATISTICAL:
        inputs, target = statistical_table(name)
    else:
        raise ValueError(f"unknown data set {name!r}; expected one of {', '.join(DATASETS)}.")
    spread = inputs.std(axis=0)
    inputs = (inputs - inputs.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return Dataset(name, inputs, target.astype(np.float64 if name in NUMBERS else np.int64))


def statistical_table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, d) and numbers to predict (n,) of a table of statsmodels."""
    from statsmodels import datasets

    table = getattr(datasets, name).load_pandas().data
    if name == "star98":
        above, below = table.pop("NABOVE"), table.pop("NBELOW")
        return table.to_numpy(np.float64), (above / (above + below)).to_numpy(np.float64)
    counts = table.pop({"fair": "affairs", "randhie": "mdvis"}[name])
    return table.to_numpy(np.float64), np.log1p(counts.to_numpy(np.float64))


def random_rows(name: str, number: int, settings: Settings) -> np.ndarray:
    """Random rows of a table, the same for every cell of a run."""
    data = load_dataset(name)
    (chosen,) = data.split(settings.rng("points", name), number)
    return data.inputs[chosen]


@functools.cache
def neighbor_distance(name: str, neighbor: int = 50, num_points: int = 1000) -> float:
    """The mean distance of a row to its 50th nearest neighbor among all the others: a common choice of bandwidth.

    The mean runs over about `num_points` rows, evenly spaced.
    """
    inputs = load_dataset(name).inputs
    points = inputs[:: max(1, len(inputs) // num_points)]
    squares = np.sum(inputs**2, axis=-1)
    distances = []
    for part in np.array_split(points, max(1, len(points) // 200)):
        squared = np.sum(part**2, axis=-1)[:, None] + squares - 2 * part @ inputs.T
        distances.append(np.sqrt(np.clip(np.partition(squared, neighbor, axis=1)[:, neighbor], 0, None)))
    return float(np.concatenate(distances).mean())  # the point itself is the neighbor number 0
