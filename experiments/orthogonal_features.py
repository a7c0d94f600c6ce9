"""orthogonal_features: the error of a Gaussian Gram matrix on real data, measured on top of its closed form.

The closed form is the mean of `estimator.mse` over the same pairs: a function of their distances, which nothing is
fitted to. That of circulant rows is a function of differences of points, `circulant_covariance`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.agreement import agreement, bonferroni, relative_sizes
from experiments.datasets import neighbor_distance, random_rows
from experiments.experiment import Cell, Experiment, Record, Results, Settings, Summary, Tables, Verdict, reported
from experiments.figures import entry, error_bars, legend_below, new_figure, value_axis
from experiments.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION
from experiments.tables import columns, mean_and_error, select

COUPLINGS: dict[str, rf.Coupling] = {
    "RFF": rf.Independent(),
    "ORF": rf.Orthogonal(),
    "ORF'": rf.Orthogonal(norms="constant"),
    "SORF": rf.Hadamard(norms="constant"),
    "Fastfood": rf.Fastfood(),
    "Circulant": rf.Circulant(),
    "Sobol'": rf.Sobol(),
    "Halton": rf.Halton(),
}
CLOSED = ("RFF", "ORF", "ORF'", "Circulant")
FALSE_ALARM = 1e-3
NEAR = 0.1


@dataclass(frozen=True)
class OrthogonalSettings(Settings):
    """Sizes: data sets, points of each, multiples of the dimension, draws."""

    datasets: tuple[str, ...] = ("letter", "ames", "digits")
    num_points: int = 150
    multiples: tuple[int, ...] = tuple(range(1, 11))
    num_draws: int = 100


def make_estimator(method: str, length_scale: float) -> rf.TrigonometricFeatures:
    """Two features for each row."""
    return rf.TrigonometricFeatures(rf.GaussianKernel(length_scale=length_scale), coupling=COUPLINGS[method])


def closed_form(method: str, length_scale: float, x: np.ndarray, y: np.ndarray, num_rows: int) -> float:
    """The mean squared error over pairs x, y (n, d); NaN where it is not known. num_rows : a multiple of d."""
    if method not in CLOSED:
        return math.nan
    estimator = make_estimator("RFF" if method == "Circulant" else method, length_scale)
    value = float(np.mean(estimator.mse(x, y, num_features=estimator.num_features(num_rows))))
    return value if method != "Circulant" else value + float(np.mean(lag_sum(x - y, length_scale))) / num_rows


def lag_sum(z: np.ndarray, length_scale: float) -> np.ndarray:
    """`circulant_covariance` summed over the lags from one row of a block to all others."""
    return sum((circulant_covariance(z / length_scale, lag) for lag in range(1, z.shape[-1])), np.zeros(z.shape[:-1]))


def circulant_covariance(z: np.ndarray, lag: int) -> np.ndarray:
    """`Cov(cos(w_i·z), cos(w_{i+k}·z)) = e^{-|z|²} (E cosh r - 1)`, r = Σ_l b_l b_{l+k} z_l z_{l+k}: (..., d) -> (...).

    The steps l -> l + k part the d places into gcd(k, d) cycles of equal length. The signs b_l b_{l+k} along one are
    independent but for their product, which is 1, so that with a_l = z_l z_{l+k}

        E e^{±r} = Π_cycles (Π_l cosh a_l + Π_l sinh ±a_l).
    """
    dim = z.shape[-1]
    cycles = math.gcd(lag, dim)
    a = (z * np.roll(z, -lag, axis=-1)).reshape(*z.shape[:-1], dim // cycles, cycles)
    even, odd = np.prod(np.cosh(a), axis=-2), np.prod(np.sinh(a), axis=-2)
    mirrored = odd * (-1) ** (dim // cycles)
    mean = (np.prod(even + odd, axis=-1) + np.prod(even + mirrored, axis=-1)) / 2
    return np.exp(-np.sum(z**2, axis=-1)) * (mean - 1)


@dataclass(frozen=True)
class MethodCell(Cell):
    """One method on one data set, at every number of rows."""

    dataset: str
    method: str

    def measure(self, settings: OrthogonalSettings) -> Tables:
        x, length_scale = random_rows(self.dataset, settings.num_points, settings), neighbor_distance(self.dataset)
        i, j = np.triu_indices(len(x), k=1)
        estimator = make_estimator(self.method, length_scale)
        exact = estimator.kernel(x, x)[i, j]
        rows: list[Record] = []
        for multiple in settings.multiples:
            width = estimator.num_features(multiple * x.shape[1])
            errors, total = [], np.zeros(len(i))
            for rng in settings.rngs(settings.num_draws, f"{self.dataset} {self.method}", multiple):
                error = estimator.draw(x.shape[1], width, rng=rng).estimate(x, x)[i, j] - exact
                errors.append(np.mean(error**2))
                total += error
            mean = total / settings.num_draws
            variance_of_mean = (np.mean(errors) - np.mean(mean**2)) / (settings.num_draws - 1)
            expected = closed_form(self.method, length_scale, x[i], x[j], multiple * x.shape[1])
            row: Record = {"dataset": self.dataset, "dim": x.shape[1], "method": self.method, "multiple": multiple}
            row |= {"num_rows": multiple * x.shape[1], **mean_and_error(errors, "mse")}
            rows.append(row | {"expected": expected, "squared_bias": np.mean(mean**2) - variance_of_mean})
        return {"errors": rows}


@dataclass(frozen=True)
class DistanceCell(Cell):
    """The distances of the points of one data set in units of the bandwidth: all that the closed forms know."""

    dataset: str

    def measure(self, settings: OrthogonalSettings) -> Tables:
        x, length_scale = random_rows(self.dataset, settings.num_points, settings), neighbor_distance(self.dataset)
        i, j = np.triu_indices(len(x), k=1)
        t = np.sum((x[i] - x[j]) ** 2, axis=-1) / length_scale**2
        quantiles = {f"t{q}": float(np.quantile(t, q)) for q in (0.05, 0.5, 0.95)}
        return {"distances": [{"dataset": self.dataset, "dim": x.shape[1], "length_scale": length_scale, **quantiles}]}


def cells(settings: OrthogonalSettings) -> list[Cell]:
    result: list[Cell] = []
    for dataset in settings.datasets:
        result += [DistanceCell(dataset), *(MethodCell(dataset, method) for method in COUPLINGS)]
    return result


def curve(tables: Tables, dataset: str, method: str) -> dict[str, np.ndarray]:
    rows = select(tables["errors"], dataset=dataset, method=method)
    return dict(zip(rows[0], columns(rows, *rows[0]), strict=True))


def verdicts(tables: Tables, settings: OrthogonalSettings) -> list[Verdict]:
    return [*agreements(tables, settings), *(line for name in settings.datasets for line in orders(tables, name))]


def agreements(tables: Tables, settings: OrthogonalSettings) -> Iterator[Verdict]:
    """Measured against predicted errors; Student's t, for the standard errors are measured too."""
    count = sum(not np.isnan(row["expected"]) for row in tables["errors"])
    limit = bonferroni(FALSE_ALARM, count, settings.num_draws)
    for method in CLOSED:
        rows = select(tables["errors"], method=method)
        largest, holds = agreement(rows, limit, lambda row: "{dataset} at m = {num_rows}".format(**row), "mse")
        yield Verdict(
            claim=f"the error of {method} is the mean of its closed form over the pairs of points",
            expected=f"|t| below {limit:.2f} at all of {count} points (false alarm {FALSE_ALARM})",
            measured=f"{largest}; {relative_sizes(rows)}",
            holds=holds,
        )


def orders(tables: Tables, dataset: str) -> Iterator[Verdict]:
    """ORF below RFF and circulant rows above, by closed forms; SORF near ORF', the others as measured."""
    curves = {method: curve(tables, dataset, method) for method in COUPLINGS}
    ratio = curves["ORF"]["expected"] / curves["RFF"]["expected"]
    yield Verdict(
        claim=f"{dataset}, d = {curves['ORF']['dim'][0]}: ORF has a smaller error than RFF at every m",
        expected="ratio of the closed forms below 1",
        measured=f"{ratio.min():.3f} .. {ratio.max():.3f}",
        holds=bool(np.all(ratio < 1)),
    )
    above = curves["Circulant"]["expected"] / curves["RFF"]["expected"]
    yield Verdict(
        claim=f"{dataset}: circulant rows have a larger error than RFF at every m",
        expected="ratio of the closed forms above 1: covariances within a block are never negative",
        measured=f"{above.min():.3f} .. {above.max():.3f}",
        holds=bool(np.all(above > 1)),
    )
    sorf = curves["SORF"]["mse"] / curves["ORF'"]["expected"]
    error = curves["SORF"]["standard_error"] / curves["ORF'"]["expected"]
    off = float(np.max(np.abs(sorf - 1) - 4 * error))
    dim = int(curves["SORF"]["dim"][0])
    padded = bool(dim & (dim - 1))
    yield Verdict(
        claim=f"{dataset}: SORF has the error of orthogonal rows of the same lengths (ORF')",
        expected=f"reported: d = {dim} is padded, and rows cut to it are not orthogonal"
        if padded
        else f"ratio 1 up to {NEAR:.0%} and 4 standard errors, at every m",
        measured=f"{sorf.min():.3f} .. {sorf.max():.3f}, standard errors up to {error.max():.3f}",
        holds=None if padded else bool(off <= NEAR),
    )
    others = {
        name: curves[name]["mse"] / curves["RFF"]["expected"]
        for name in ("ORF'", "SORF", "Fastfood", "Circulant", "Sobol'", "Halton")
    }
    listing = ", ".join(f"{name} {value[0]:.2f} and {value[-1]:.2f}" for name, value in others.items())
    yield reported(f"{dataset}: error over that of RFF at the least and the largest m", listing, expected="reported")


def summaries(tables: Tables, settings: OrthogonalSettings) -> list[Summary]:
    header = ("m/d", *COUPLINGS, "ORF / RFF closed form")
    result = []
    for dataset in settings.datasets:
        curves = [curve(tables, dataset, method) for method in COUPLINGS]
        ratio = curves[1]["expected"] / curves[0]["expected"]
        rows = tuple(
            (str(multiple), *(f"{c['mse'][index]:.2e}" for c in curves), f"{ratio[index]:.3f}")
            for index, multiple in enumerate(settings.multiples)
        )
        row = next(row for row in tables["distances"] if row["dataset"] == dataset)
        title = f"{dataset}, d = {row['dim']}, |x - y|²/σ²: {row['t0.05']:.2g} / {row['t0.5']:.2g} / {row['t0.95']:.2g}"
        result.append(Summary(f"{title} (5, 50, 95 %); mean squared error", header, rows))
    return result


def plot(results: Results) -> dict[str, Any]:
    colors = dict(zip(COUPLINGS, (BLACK, BLUE, SKY, GREEN, PURPLE, GREY, ORANGE, VERMILION), strict=True))
    styles = {m: {"color": colors[m], "marker": mark} for m, mark in zip(COUPLINGS, "osX^vpDP", strict=True)}
    names = results.settings["datasets"]
    figure = new_figure(3.1 * len(names) + 0.4, 6.0)
    panels = figure.subplots(2, len(names), squeeze=False, sharex=True, sharey="row")
    for (top, bottom), dataset in zip(panels.T, names, strict=True):
        base = curve(results.tables, dataset, "RFF")
        for index, method in enumerate(COUPLINGS):
            own = curve(results.tables, dataset, method)
            if method in CLOSED:
                top.plot(own["multiple"], own["expected"], color=colors[method])
                bottom.plot(own["multiple"], own["expected"] / base["expected"], color=colors[method])
            moved = own["multiple"] + 0.06 * (index - (len(COUPLINGS) - 1) / 2)
            error_bars(top, moved, own["mse"], own["standard_error"], **styles[method])
            scaled = [own[name] / base["expected"] for name in ("mse", "standard_error")]
            error_bars(bottom, moved, *scaled, **styles[method])
        top.set_title(f"{dataset}, d = {base['dim'][0]}")
        bottom.set_xlabel("m/d")
    value_axis(panels[0, 0])
    panels[0, 0].set_ylabel("mean squared error")
    panels[1, 0].set_ylabel("error over that of RFF")
    value_axis(panels[1, 0])
    handles = [entry(m, linestyle="-" if m in CLOSED else "none", **styles[m]) for m in COUPLINGS]
    legend_below(figure, handles, columns=len(handles))
    return {"orthogonal_features": figure}


EXPERIMENT = Experiment(
    name="orthogonal_features",
    claim="Orthogonal rows lower the error of Gaussian Gram matrices on real data by what their closed form says.",
    settings=OrthogonalSettings(),
    quick=OrthogonalSettings(num_points=60, multiples=(1, 2, 4), num_draws=40),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
