"""What is measured on each head: the exact output, and the errors of drawn feature maps."""

from dataclasses import dataclass

import numpy as np

import randfeat as rf
from experiments.attention_error.outputs import out_of_range, outputs, stored_tolerance
from experiments.attention_error.settings import AttentionErrorSettings, is_meaningful
from experiments.attention_error.softened import SoftenedCell
from experiments.backends import epsilon
from experiments.estimators import make_estimator
from experiments.experiment import Cell, Record, Tables
from experiments.heads import average_of_values, load_head, relative_error


def cells(settings: AttentionErrorSettings) -> list[Cell]:
    result: list[Cell] = []
    for head in settings.heads:
        result.append(HeadCell(head))
        for estimator in settings.estimators:
            couplings = [name for name in settings.couplings if is_meaningful(estimator, name)]
            result += [DrawCell(head, estimator, coupling) for coupling in couplings]
            result.append(SoftenedCell(head, estimator))
    return result


@dataclass(frozen=True)
class HeadCell(Cell):
    """The exact output against the stored one, and the error of the plain average of the values."""

    head: str

    def measure(self, settings: AttentionErrorSettings) -> Tables:
        head = load_head(self.head)
        row: Record = {
            "model": head.model,
            "head": head.name,
            "num_queries": len(head.query),
            "num_keys": len(head.key),
        }
        row |= {"dim": head.dim, "is_causal": head.is_causal, "logit_min": head.logits[0], "logit_max": head.logits[1]}
        row["average_of_values_error"] = relative_error(average_of_values(head), head.exact)
        row["stored_difference"] = np.max(np.abs(head.exact - head.out))
        return {"heads": [row | {"stored_tolerance": stored_tolerance(head)}]}


@dataclass(frozen=True)
class DrawCell(Cell):
    """Errors of one estimator under one coupling on one head, over draws, for every number of features."""

    head: str
    estimator: str
    coupling: str

    def measure(self, settings: AttentionErrorSettings) -> Tables:
        """Rows of the tables `errors` (one per number of features) and `draws` (one per draw)."""
        head, estimator = load_head(self.head), make_estimator(self.estimator, self.coupling)
        names = {"model": head.model, "head": head.name, "estimator": self.estimator, "coupling": self.coupling}
        errors: list[Record] = []
        draws: list[Record] = []
        for num_features in settings.num_features:
            rng = settings.rng(f"{self.head} {self.estimator} {self.coupling}", num_features)
            sizes = num_features, settings.num_draws
            drawn = list(outputs(estimator, head, head.query, *sizes, rng, backend=settings.backend))
            values = np.asarray([relative_error(output, head.exact) for output in drawn])
            outside = np.max([out_of_range(output, head) for output in drawn]) if estimator.positive else np.nan
            median, low, high = rf.montecarlo.ErrorSample(values).quantile(0.5, 0.95)
            errors.append(
                names
                | {
                    "num_features": num_features,
                    "num_draws": len(values),
                    "median": median,
                    "low": low,
                    "high": high,
                    "mean": values.mean(),
                    "rms": np.sqrt(np.mean(values**2)),
                    "finite": bool(np.all(np.isfinite(drawn))),
                    "out_of_range": outside,
                    "rounding": len(head.key) * epsilon(settings.backend),
                }
            )
            draws += [names | {"num_features": num_features, "draw": i, "error": x} for i, x in enumerate(values)]
        return {"errors": errors, "draws": draws}
