"""attention_matrix_error: the error of approximate attention against the number of rows, by the scale of the inputs.

Normal inputs in the setting of Performer Fig. 4. m counts rows, of which trigonometric features make two features each.
"""

import itertools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

import randfeat as rf
from experiments.estimators import make_estimator
from experiments.experiment import Cell, Experiment, Record, Results, Settings, Summary, Tables, Verdict
from experiments.figures import entry, feature_axis, legend_below, new_figure, value_axis
from experiments.palette import ESTIMATOR_STYLES
from experiments.tables import mean_and_error

ESTIMATORS = {"positive": "positive", "trig": "trig pairs"}
COUPLINGS = ("independent", "orthogonal")
QUANTILES = (0.001, 0.01, 0.5, 0.99, 0.999)
LONG, SHORT = 1.0, 0.5
FALSE_ALARM = 0.01
DELTA_TOLERANCE = 0.1
MARKERS: dict[str, Record] = {"independent": {}, "orthogonal": {"markerfacecolor": "white"}}


@dataclass(frozen=True)
class AttentionMatrixSettings(Settings):
    """Sizes: length, scales of queries and keys, rows; queries and draws for the check of the prediction.

    delta_scale : a scale at which the leading order in 1/m is all there is; the prediction is claimed there only.
    """

    length: int = 4096
    dim: int = 16
    scales: tuple[float, ...] = (0.5, 0.75, 1.0)
    num_rows: tuple[int, ...] = (16, 32, 64, 128, 256)
    num_samples: int = 15
    delta_scale: float = 0.25
    delta_queries: int = 8
    delta_draws: int = 200


def inputs(settings: AttentionMatrixSettings, scale: float, sample: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and values (length, dim) of one sample; the same normal numbers at every scale."""
    query, key, value = settings.rng("inputs", sample).standard_normal((3, settings.length, settings.dim))
    return scale * query, scale * key, value


def log_denominators(query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """`log Σ_j K_ij` for each query, (L, 1)."""
    return logsumexp(query @ key.T / query.shape[-1] ** 0.5, axis=1, keepdims=True)


def relative_denominators(query: np.ndarray, key: np.ndarray, phi: rf.FeatureMap, log_exact: np.ndarray) -> np.ndarray:
    """`Σ_j K̂_ij / Σ_j K_ij` for each query."""
    root = query.shape[-1] ** -0.25
    left, right = phi.queries(root * query), phi.keys(root * key)
    top = right.log_scale.max(axis=0)
    total = np.sum(right.values * np.exp(right.log_scale - top), axis=0)
    return np.sum(left.values * np.exp(left.log_scale + top - log_exact) * total, axis=1)


@dataclass(frozen=True)
class SampleCell(Cell):
    """One sample at one scale: every estimator, coupling and number of rows."""

    scale: float
    sample: int

    def measure(self, settings: AttentionMatrixSettings) -> Tables:
        query, key, value = inputs(settings, self.scale, self.sample)
        exact, log_exact = rf.softmax_attention(query, key, value), log_denominators(query, key)
        rows: list[Record] = []
        for name, coupling, num_rows in itertools.product(ESTIMATORS, COUPLINGS, settings.num_rows):
            estimator = make_estimator(ESTIMATORS[name], coupling)
            rng = settings.rng(f"scale {self.scale:g} sample {self.sample}", name, coupling, num_rows)
            phi = estimator.draw(settings.dim, estimator.num_features(num_rows), rng=rng)
            output = rf.linear_attention(query, key, value, phi)
            ratio = relative_denominators(query, key, phi, log_exact)
            row: Record = {"scale": self.scale, "sample": self.sample, "estimator": name, "coupling": coupling}
            row |= {"num_rows": num_rows, "mse": np.mean((output - exact) ** 2)}
            row |= {"negative": np.mean(ratio < 0), "least": ratio.min()}
            rows.append(row | {f"q{q}": np.quantile(ratio, q) for q in QUANTILES})
        return {"errors": rows}


@dataclass(frozen=True)
class DeltaCell(Cell):
    """The prediction for the first queries of the first sample, and the error of the same queries over many draws."""

    scale: float
    estimator: str

    def measure(self, settings: AttentionMatrixSettings) -> Tables:
        query, key, value = inputs(settings, self.scale, 0)
        query = query[: settings.delta_queries]
        estimator = make_estimator(ESTIMATORS[self.estimator], "independent")
        width = estimator.num_features(max(settings.num_rows))
        exact = rf.softmax_attention(query, key, value)
        size = float(np.mean(exact**2))
        forecast = rf.predict_attention_error(estimator, query, key, value, width, num_queries=len(query))
        errors = []
        for rng in settings.rngs(settings.delta_draws, f"scale {self.scale:g} prediction {self.estimator}"):
            output = rf.linear_attention(query, key, value, estimator.draw(settings.dim, width, rng=rng))
            errors.append(float(np.mean((output - exact) ** 2)))
        row: Record = {"scale": self.scale, "estimator": self.estimator, "num_rows": max(settings.num_rows)}
        row |= {"output_size": size, "predicted": float(forecast.leading_order) ** 2 * size}
        return {"predictions": [row | mean_and_error(errors, "measured")]}


def cells(settings: AttentionMatrixSettings) -> list[Cell]:
    result: list[Cell] = []
    for scale in settings.scales:
        result += [SampleCell(scale, sample) for sample in range(settings.num_samples)]
    return result + [
        DeltaCell(scale, estimator) for scale in (settings.delta_scale, *settings.scales) for estimator in ESTIMATORS
    ]


def column(tables: Tables, scale: float, estimator: str, coupling: str, num_rows: int, name: str) -> list[float]:
    wanted = (scale, estimator, coupling, num_rows)
    rows = tables["errors"]
    return [r[name] for r in rows if (r["scale"], r["estimator"], r["coupling"], r["num_rows"]) == wanted]


def verdicts(tables: Tables, settings: AttentionMatrixSettings) -> list[Verdict]:
    return [
        *(line for scale in (LONG, SHORT) if scale in settings.scales for line in orderings(tables, settings, scale)),
        denominators(tables, settings),
        *(line for line in predictions(tables, settings)),
    ]


def orderings(tables: Tables, settings: AttentionMatrixSettings, scale: float) -> Iterator[Verdict]:
    """Which estimator has the smaller error, sample by sample: a sign test for each coupling."""
    from scipy.stats import binom

    # The paper's ordering for long inputs; its reverse for short ones, and there for rows that are orthogonal.
    better, worse = ("positive", "trig") if scale == LONG else ("trig", "positive")
    for coupling in COUPLINGS:
        widths = settings.num_rows
        wins = {
            m: sum(
                a < b
                for a, b in zip(
                    column(tables, scale, better, coupling, m, "mse"),
                    column(tables, scale, worse, coupling, m, "mse"),
                    strict=True,
                )
            )
            for m in widths
        }
        needed = int(binom.isf(FALSE_ALARM / len(widths), settings.num_samples, 0.5)) + 1
        claimed = coupling == "orthogonal" or scale == LONG
        medians = [
            statistics.median(column(tables, scale, name, coupling, max(widths), "mse")) for name in (better, worse)
        ]
        yield Verdict(
            claim=f"inputs of scale {scale:g}, {coupling} rows: {better} features have the smaller error",
            expected=f"in at least {needed} of {settings.num_samples} samples at every m (sign test, false alarm "
            f"{FALSE_ALARM} over all m)"
            if claimed
            else "reported: at few independent rows a small denominator can turn the order around",
            measured=f"in {', '.join(str(wins[m]) for m in widths)} at m = {', '.join(map(str, widths))}; "
            f"medians at the last {medians[0]:.2g} and {medians[1]:.2g}",
            holds=all(count >= needed for count in wins.values()) if claimed else None,
        )


def denominators(tables: Tables, settings: AttentionMatrixSettings) -> Verdict:
    """Positive features never have a negative denominator."""
    share = {
        name: [row["negative"] for row in tables["errors"] if row["estimator"] == name and row["scale"] == LONG]
        for name in ESTIMATORS
    }
    positive = [row["least"] for row in tables["errors"] if row["estimator"] == "positive"]
    trig = f"{max(share['trig']):.1%} for trig in the worst draw at scale 1" if share["trig"] else "scale 1 not run"
    return Verdict(
        claim="denominators of positive features are positive in every draw; those of trig features are not",
        expected="least denominator over its exact value above 0",
        measured=f"least {min(positive):.2g}; negative: {trig}",
        holds=bool(min(positive) > 0),
    )


def predictions(tables: Tables, settings: AttentionMatrixSettings) -> Iterator[Verdict]:
    """The delta method is leading order: right where every |x + y|² is small against log m."""
    for row in tables["predictions"]:
        ratio, error = row["measured"] / row["predicted"], row["standard_error"] / row["predicted"]
        claimed = row["scale"] == settings.delta_scale
        text = f"1 up to {DELTA_TOLERANCE:.0%} for higher orders in 1/m and 4 standard errors"
        yield Verdict(
            claim=f"measured over predicted error at scale {row['scale']:g}, {row['estimator']}, m = {row['num_rows']}",
            expected=text if claimed else "reported: keys with exp(|x + y|²) beyond m are not leading order",
            measured=f"{ratio:.3g} ± {error:.2g}",
            holds=bool(abs(ratio - 1) <= DELTA_TOLERANCE + 4 * error and error < 0.1) if claimed else None,
        )


def summaries(tables: Tables, settings: AttentionMatrixSettings) -> list[Summary]:
    kinds = [(name, coupling) for name in ESTIMATORS for coupling in COUPLINGS]
    rows = []
    for scale in settings.scales:
        for m in settings.num_rows:
            medians = [f"{statistics.median(column(tables, scale, *kind, m, 'mse')):.2g}" for kind in kinds]
            negative = statistics.mean(column(tables, scale, "trig", "independent", m, "negative"))
            rows.append((f"{scale:g}", str(m), *medians, f"{negative:.2%}"))
    header = ("scale", "m", *(f"{name}, {coupling[:3]}." for name, coupling in kinds), "negative")
    count = len(settings.num_rows)
    sections = tuple(range(count, len(rows), count))
    return [
        Summary(
            f"median output MSE over {settings.num_samples} samples; negative denominators of trig, ind.",
            header,
            tuple(rows),
            sections,
        )
    ]


def plot(results: Results) -> dict[str, Any]:
    settings, tables = results.settings, results.tables
    scales, widths = settings["scales"], np.asarray(settings["num_rows"])
    figure = new_figure(3.0 * len(scales) + 0.6, 6.6)
    panels = figure.subplots(3, len(scales), squeeze=False, sharex=True, sharey="row")
    lines = {"independent": "-", "orthogonal": "--"}
    for column_index, scale in enumerate(scales):
        errors, negative, spread = panels[:, column_index]
        for name, label in ESTIMATORS.items():
            kind = ESTIMATOR_STYLES[label]
            for coupling, dash in lines.items():
                marks = MARKERS[coupling]
                values = np.array([column(tables, scale, name, coupling, m, "mse") for m in widths])
                low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=1)
                bars = [middle - low, high - middle]
                moved = widths * (1.05 if coupling == "orthogonal" else 0.95)
                errors.errorbar(moved, middle, yerr=bars, **kind, **marks, linestyle=dash, elinewidth=0.8)
                shares = [np.mean(column(tables, scale, name, coupling, m, "negative")) for m in widths]
                negative.plot(widths, 100 * np.array(shares), **kind, **marks, linestyle=dash)
            for row in tables["predictions"]:
                known = row["predicted"] <= row["output_size"]  # above, it says only that such features do not do
                if known and (row["scale"], row["estimator"]) == (scale, name):
                    curve = row["predicted"] * row["num_rows"] / widths
                    errors.plot(widths, curve, color=kind["color"], linewidth=0.8, linestyle=":")
            quantiles = np.array(
                [[np.median(column(tables, scale, name, "independent", m, f"q{q}")) for m in widths] for q in QUANTILES]
            )
            spread.fill_between(widths, quantiles[1], quantiles[-2], color=kind["color"], alpha=0.25, linewidth=0)
            spread.plot(widths, quantiles[len(QUANTILES) // 2], color=kind["color"])
        errors.set_title(f"scale {scale:g}: |x|² = {scale**2 * settings['dim'] ** 0.5:g} on average")
        spread.axhline(0, color="#777777", linewidth=0.8)
        spread.set_yscale("symlog", linthresh=1)
        spread.yaxis.set_major_formatter("{x:g}")
        feature_axis(spread, widths)
        spread.set_xlabel("rows m")
    value_axis(panels[0, 0])
    for axes, label in zip(
        panels[:, 0], ("output MSE", "negative denominators, %", "denominator / exact, 1–99 %"), strict=True
    ):
        axes.set_ylabel(label)
    handles = [
        entry(f"{name}, {coupling}", linestyle=dash, **ESTIMATOR_STYLES[label], **MARKERS[coupling])
        for name, label in ESTIMATORS.items()
        for coupling, dash in lines.items()
    ]
    handles.append(entry("delta method, independent", color="#777777", linewidth=0.8, linestyle=":"))
    legend_below(figure, handles, columns=3)
    return {"attention_matrix_error": figure}


EXPERIMENT = Experiment(
    name="attention_matrix_error",
    claim="Positive features beat trigonometric ones in attention for long inputs, and lose for short ones.",
    settings=AttentionMatrixSettings(),
    quick=AttentionMatrixSettings(length=256, num_rows=(16, 64, 256), num_samples=12, delta_queries=8, delta_draws=60),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
