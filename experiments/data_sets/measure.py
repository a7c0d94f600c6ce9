"""What is computed: errors on held-out rows of every contender, over the same random splits of a table."""

from dataclasses import dataclass

import numpy as np

from experiments.data_sets.models import model_of
from experiments.data_sets.settings import CONTENDERS, DataSetsSettings, sizes
from experiments.datasets import load_dataset
from experiments.experiment import Cell, Record, Tables


@dataclass(frozen=True)
class DataSetCell(Cell):
    """All contenders on one table, with one number of features."""

    dataset: str
    width: int

    def measure(self, settings: DataSetsSettings) -> Tables:
        data = load_dataset(self.dataset)
        num_train, num_test = sizes(len(data.inputs), settings.most_rows)
        rows: list[Record] = []
        for split, rng in enumerate(settings.rngs(settings.num_splits, "split", self.dataset)):
            train, test = data.split(rng, num_train, num_test)
            for contender in CONTENDERS:
                model = model_of(contender, data, self.width, split, num_train)
                model.fit(data.inputs[train], data.target[train])
                found = error(model.predict(data.inputs[test]), data.target[test], classes=data.has_classes)
                row: Record = {"dataset": self.dataset, "rows": num_train, "columns": data.dim}
                row |= {"classes": data.has_classes, "width": self.width, "split": split}
                rows.append(row | {"contender": contender, "error": found, "penalty": penalty(model)})
        return {"errors": rows}


def error(predicted: np.ndarray, target: np.ndarray, *, classes: bool) -> float:
    """Share of wrong classes; or root mean squared error over the standard deviation of the target."""
    if classes:
        return float(np.mean(predicted != target))
    return float(np.sqrt(np.mean((predicted - target) ** 2)) / np.std(target))


def penalty(model: object) -> float:
    """The penalty that a ridge model has chosen; NaN for an exact one."""
    last = model[-1] if hasattr(model, "steps") else model  # type: ignore[index]
    return float(getattr(last, "alpha_", np.nan))


def cells(settings: DataSetsSettings) -> list[DataSetCell]:
    return [DataSetCell(name, width) for name in settings.datasets for width in settings.widths]
