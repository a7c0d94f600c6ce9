"""catalogue: the proof sheet of the library, every estimator under every coupling.

For each pair of an estimator and a coupling, mean and variance over many independent feature maps are compared with
their closed forms, on pairs of short vectors in dimension 4, with about 8 rows. A cell of the figure is the measured
variance over the predicted one, with the z-scores of mean and variance; where a variance has no closed form, the mean
alone is checked, with the sample's standard error. Estimators stand with the parameters of their `example()`.
"""

import statistics
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.experiment import Cell, Experiment, Record, Results, Settings, Summary, Tables, Verdict, reported
from experiments.figures import new_figure
from experiments.tables import select
from randfeat.couplings.base import coupling_names
from randfeat.montecarlo import HeavyTailWarning, sample_errors
from randfeat.selection.entries import example_width
from randfeat.testing.report import ROUNDING, bonferroni

DIM = 4
FALSE_ALARM = 1e-3
HEAVY = 30.0  # kurtosis beyond which a measured variance says little
NO_COUPLING = "no choice"
NOT_MEASURED: Record = {
    "num_features": 0,
    "num_draws": 0,
    "mean_z": np.nan,
    "variance_ratio": np.nan,
    "variance_z": np.nan,
    "half_width": np.nan,
    "note": "",
}


def example(name: str) -> rf.Estimator:
    estimator: rf.Estimator = getattr(rf, name).example()
    return estimator


@dataclass(frozen=True)
class CatalogueSettings(Settings):
    """Sizes: which classes of estimators and which couplings, and how many independent maps."""

    estimators: tuple[str, ...] = tuple(entry.name for entry in rf.catalogue("estimator"))
    couplings: tuple[str, ...] = tuple(coupling_names())
    num_draws: int = 20_000


@dataclass(frozen=True)
class CatalogueCell(Cell):
    """One estimator under one coupling."""

    estimator: str
    coupling: str

    def measure(self, settings: CatalogueSettings) -> Tables:
        estimator = example(self.estimator)
        row: Record = {"estimator": self.estimator, "coupling": self.coupling}
        try:
            if self.coupling != NO_COUPLING:
                estimator = estimator.with_coupling(self.coupling)
            x, y = pairs(estimator)
            width = example_width(estimator)
            found = measured(estimator, x, y, width, settings, settings.rng(f"{self.estimator}/{self.coupling}"))
        except ValueError as reason:
            found = {"note": str(reason)}
        return {"cells": [row | NOT_MEASURED | found]}


def pairs(estimator: rf.Estimator) -> tuple[np.ndarray, np.ndarray]:
    x = np.array([[0.35, 0.0, 0.0, 0.0], [0.1, 0.2, 0.2, 0.3], [0.3, -0.2, 0.1, 0.2]])
    y = np.array([[0.3, 0.0, 0.1, 0.0], [-0.1, -0.3, 0.0, -0.2], [0.1, 0.3, 0.2, -0.1]])
    unit = float(np.linalg.norm(estimator.kernel.unit(np.eye(DIM)[:1])))
    return x / unit, y / unit


def measured(
    estimator: rf.Estimator, x: np.ndarray, y: np.ndarray, width: int, settings: CatalogueSettings, rng: Any
) -> Record:
    """z-scores of mean and variance, largest over the pairs, and the mean ratio of variances."""
    result: Record = {"num_features": width}
    exact = estimator.kernel.relative(x, y)
    note, mean, variance = "", None, None
    try:
        mean = estimator.mean_over_reference(x, y, width)
        variance = estimator.variance_over_reference(x, y, width)
    except rf.NoClosedForm as reason:
        note = str(reason)
    draws = settings.num_draws
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HeavyTailWarning)
        errors = sample_errors(estimator, x, y, num_features=width, num_draws=draws, rng=rng).errors
    result |= {"num_draws": draws, "note": note}
    if mean is None:
        return result
    errors = errors + exact - mean
    spread = errors.std(axis=0, ddof=1) if variance is None else np.sqrt(variance)
    varies = spread**2 > ROUNDING  # less, and float64 does not resolve the errors
    if not varies.any():
        return result | {"mean_z": 0.0 if np.all(errors**2 < ROUNDING) else np.inf}
    mean_z = errors.mean(axis=0)[varies] / spread[varies] * np.sqrt(draws)
    result |= {"mean_z": float(mean_z[np.argmax(np.abs(mean_z))])}
    if variance is None:
        return result
    second, fourth = np.mean(errors[:, varies] ** 2, axis=0), np.mean(errors[:, varies] ** 4, axis=0)
    ratio, kurtosis = second / variance[varies], fourth / second**2
    light = kurtosis < HEAVY
    if not light.any():
        return result | {"note": f"heavy tails: kurtosis {kurtosis.min():.0f}"}
    error = np.sqrt((kurtosis[light] - 1) / draws)
    z = (ratio[light] - 1) / error
    return result | {
        "variance_ratio": float(np.mean(ratio[light])),
        "variance_z": float(z[np.argmax(np.abs(z))]),
        "half_width": float(1.96 * np.max(error)),
    }


def cells(settings: CatalogueSettings) -> list[Cell]:
    result: list[Cell] = []
    for name in settings.estimators:
        choices = settings.couplings if example(name).has_coupling else (NO_COUPLING,)
        result += [CatalogueCell(name, coupling) for coupling in choices]
    return result


def verdicts(tables: Tables, settings: CatalogueSettings) -> Iterator[Verdict]:
    rows = tables["cells"]
    means = [row for row in rows if not np.isnan(row["mean_z"])]
    variances = [row for row in rows if not np.isnan(row["variance_z"])]
    limit = bonferroni(FALSE_ALARM, 3 * (len(means) + len(variances)))
    for what, chosen in (("mean", means), ("variance", variances)):
        worst = max(chosen, key=lambda row: abs(row[f"{what}_z"]))
        yield Verdict(
            claim=f"the {what} of every estimator under every coupling is its closed form",
            expected=f"|z| below {limit:.2f} in all of {len(chosen)} cells (false alarm {FALSE_ALARM})",
            measured=f"largest {abs(worst[f'{what}_z']):.2f}: {worst['estimator']}, {worst['coupling']}",
            holds=bool(abs(worst[f"{what}_z"]) < limit),
        )
    ratio = [row["variance_ratio"] for row in variances]
    yield reported(
        "measured over predicted variance, median over the cells",
        f"{statistics.median(ratio):.4f}, from {min(ratio):.3f} to {max(ratio):.3f}",
        expected="1",
    )
    yield reported(
        "cells without a closed form of the variance, or of the mean too",
        f"{len(rows) - len(variances)} and {len(rows) - len(means)} of {len(rows)}",
        expected="their pages say so",
    )


def summaries(tables: Tables, settings: CatalogueSettings) -> list[Summary]:
    rows = []
    for name in settings.estimators:
        own = select(tables["cells"], estimator=name)
        worst = [max((abs(r[z]) for r in own if not np.isnan(r[z])), default=np.nan) for z in ("mean_z", "variance_z")]
        checked = sum(not np.isnan(row["variance_z"]) for row in own)
        rows.append((name, str(len(own)), str(checked), *("" if np.isnan(w) else f"{w:.2f}" for w in worst)))
    header = ("estimator", "couplings", "variances", "worst |z| mean", "worst |z| variance")
    return [Summary("measured against closed forms", header, tuple(rows))]


def plot(results: Results) -> dict[str, Any]:
    rows = results.tables["cells"]
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    couplings = list(dict.fromkeys(row["coupling"] for row in rows))
    ratio = np.full((len(names), len(couplings)), np.nan)
    figure = new_figure(1.9 + 0.62 * len(couplings), 1.6 + 0.3 * len(names))
    axes = figure.subplots()
    for row in rows:
        i, j = names.index(row["estimator"]), couplings.index(row["coupling"])
        ratio[i, j] = row["variance_ratio"]
        z = [row["mean_z"], row["variance_z"]]
        label = f"{row['variance_ratio']:.2f}" if not np.isnan(row["variance_ratio"]) else "mean"
        if np.isnan(row["mean_z"]):
            label = "–"
        top = max((abs(value) for value in z if not np.isnan(value)), default=np.nan)
        label += f"\n{top:.1f}" if not np.isnan(top) else ""
        axes.text(j, i, label, ha="center", va="center", fontsize=5)
    image = axes.imshow(ratio, cmap="PuOr", vmin=0.8, vmax=1.2, aspect="auto")
    axes.set_xticks(range(len(couplings)), couplings, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.grid(visible=False)
    axes.set_title(
        "measured over predicted variance; below it the largest |z|\n"
        "mean: no closed form of the variance, or tails too heavy to measure it; –: none of the mean, or refused",
        fontsize=8,
    )
    figure.colorbar(image, ax=axes, shrink=0.6)
    return {"catalogue": figure}


EXPERIMENT = Experiment(
    name="catalogue",
    claim="Mean and variance of every estimator under every coupling are what their closed forms say.",
    settings=CatalogueSettings(),
    quick=CatalogueSettings(num_draws=5_000),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
