"""error_coverage: how often the error that `rf.output_error` states is an upper bound, and where it is not.

Outputs of feature maps, caches and clusters on the heads of trained models. For each output, queries are drawn again
and again, and the statement is compared with the true error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.experiment import Cell, Experiment, Record, Results, Settings, Summary, Tables, Verdict, reported
from experiments.figures import Figure, entry, legend_below, new_figure
from experiments.heads import Head, head_names, load_head, relative_error
from experiments.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION
from experiments.real_heads.measure import compressed, fitted
from experiments.tables import columns, grouped, select

STYLES = {
    "FAVOR+, 256 features": BLACK,
    "posterior, 256 features": GREY,
    "clustered, 5": VERMILION,
    "clustered, 11": ORANGE,
    "cache, 16": BLUE,
    "cache, 64": SKY,
    "cache, fitted, 16": GREEN,
    "cache, fitted, 64": PURPLE,
}
STATED = 0.95
SHARE_OF_CASES = 0.85
LARGEST_RATIO = 1.25
LEAST = 0.01
"""Smaller errors are not stated."""


@dataclass(frozen=True)
class CoverageSettings(Settings):
    """Sizes. num_rows : queries that are drawn for a statement. repetitions : statements about each output.

    accuracies : asked of clustered attention, which uses the same statements to choose its number of clusters.
    """

    heads: tuple[str, ...] = head_names()
    operators: tuple[str, ...] = tuple(STYLES)
    num_rows: tuple[int, ...] = (64, 128)
    repetitions: int = 200
    accuracies: tuple[float, ...] = (0.2, 0.1, 0.05)


@dataclass(frozen=True)
class CoverageCell(Cell):
    """All outputs of one head that is not causal."""

    head: str

    def measure(self, settings: CoverageSettings) -> Tables:
        """`cases`, for each output and number of rows, and `accuracies`, errors where an accuracy was asked for."""
        head = load_head(self.head)
        inputs = head.query, head.key, head.value
        cases: list[Record] = []
        for operator in settings.operators:
            output = output_of(operator, head, settings.rng(self.head, operator))
            true, squares = relative_error(output, head.exact), np.sum((output - head.exact) ** 2, axis=-1)
            for num_rows in settings.num_rows:
                if num_rows >= len(head.query):  # the error is exact
                    continue
                rngs = settings.rngs(settings.repetitions, self.head, operator, num_rows)
                checks = [rf.output_error(*inputs, output, num_rows=num_rows, rng=rng) for rng in rngs]
                upper = np.array([max(float(check.upper), LEAST) for check in checks])
                row: Record = {"head": head.name, "operator": operator, "num_rows": num_rows, "true": true}
                row |= {"coverage": np.mean(true <= upper), "ratio": np.median(upper) / true if true > LEAST else 0.0}
                row |= {"estimate": np.median([float(check.error) for check in checks])}
                cases.append(row | {"largest_row": np.max(squares) / np.sum(squares)})
        reached: list[Record] = []
        for accuracy in settings.accuracies:
            output = rf.clustered_attention(*inputs, accuracy=accuracy, rng=settings.rng(self.head, accuracy))
            reached.append({"head": head.name, "accuracy": accuracy, "true": relative_error(output, head.exact)})
        return {"cases": cases, "accuracies": reached}


def output_of(operator: str, head: Head, rng: np.random.Generator) -> np.ndarray:
    """The output of an operator, by its name."""
    method, _, size = operator.rpartition(", ")
    if method in ("FAVOR+", "posterior"):
        width = int(size.split()[0])
        phi = fitted(method, head.query, head.key, width, rng).draw(head.dim, width, rng=rng)
        return rf.linear_attention(head.query, head.key, head.value, phi)
    return compressed(method, int(size), head, rng)


def cells(settings: CoverageSettings) -> list[Cell]:
    return [CoverageCell(head) for head in settings.heads if not load_head(head).is_causal]


def stated(tables: Tables, num_rows: int) -> list[Record]:
    """The cases with an error that is large enough to be stated."""
    return [row for row in select(tables["cases"], num_rows=num_rows) if row["true"] > LEAST]


def verdicts(tables: Tables, settings: CoverageSettings) -> Iterator[Verdict]:
    full = len(settings.heads) == len(head_names())
    for num_rows in settings.num_rows:
        rows = stated(tables, num_rows)
        if not rows:
            continue
        coverage, ratio = columns(rows, "coverage", "ratio")
        kept, claimed = float(np.mean(coverage >= STATED)), full and num_rows == 64
        for claim, expected, measured, holds in (
            (
                "the true error is below the upper value in 95 % of the draws",
                f"in {SHARE_OF_CASES:.0%} of the cases",
                f"in {kept:.1%} of {len(rows)} cases",
                kept >= SHARE_OF_CASES,
            ),
            (
                "the mean over cases of this share",
                f"at least {STATED}",
                f"{np.mean(coverage):.3f}",
                np.mean(coverage) >= STATED,
            ),
            (
                "the upper value over the true error",
                f"median at most {LARGEST_RATIO}",
                f"{np.median(ratio):.2f}; in the 95 % case {np.quantile(ratio, 0.95):.2f}",
                np.median(ratio) <= LARGEST_RATIO,
            ),
        ):
            expected = expected if claimed else f"{expected} (claimed for 64 rows and all heads only)"
            yield Verdict(f"{num_rows} rows: {claim}", expected, measured, bool(holds) if claimed else None)
        worst = min(rows, key=lambda row: row["coverage"])
        yield reported(
            f"{num_rows} rows: the worst case",
            f"{worst['operator']} on {worst['head']}: {worst['coverage']:.1%} of the draws; one query has "
            f"{worst['largest_row']:.0%} of the squared error",
        )
    for accuracy, rows in grouped(tables["accuracies"], "accuracy").items():
        above = [row for row in rows if row["true"] > accuracy]
        largest = max(row["true"] for row in rows)
        yield Verdict(
            claim=f"clustered attention with accuracy = {accuracy:g} keeps it",
            expected="error above it on no head" if accuracy == 0.1 else "nothing claimed",
            measured=f"above on {len(above)} of {len(rows)} heads, largest error {largest:.3f}",
            holds=not above if accuracy == 0.1 and full else None,
        )


def summaries(tables: Tables, settings: CoverageSettings) -> list[Summary]:
    result = []
    for num_rows in settings.num_rows:
        rows = []
        for operator, found in grouped(stated(tables, num_rows), "operator").items():
            coverage, ratio = columns(found, "coverage", "ratio")
            shares = (f"{x:.3f}" for x in (np.mean(coverage >= STATED), np.median(coverage), np.min(coverage)))
            rows.append((operator, str(len(found)), *shares, f"{np.median(ratio):.2f}"))
        header = ("output", "heads", "above 0.95", "median", "smallest", "upper / true")
        result.append(Summary(f"share of draws with the true error below, {num_rows} rows", header, tuple(rows)))
    failures = sorted(stated(tables, min(settings.num_rows)), key=lambda row: row["coverage"])
    listed = tuple(
        (
            f"{row['operator']} on {row['head']}",
            *(f"{row[name]:.3f}" for name in ("coverage", "true", "estimate", "largest_row")),
        )
        for row in failures
        if row["coverage"] < STATED
    )
    of_failures = ("output", "share of draws", "true error", "median estimate", "largest row")
    none = (("none", "", "", "", ""),)
    title = f"where the share is below {STATED}, {min(settings.num_rows)} rows"
    result.append(Summary(title, of_failures, listed or none))
    return result


def plot(results: Results) -> dict[str, Figure]:
    num_rows = min(results.settings["num_rows"])
    rows = stated(results.tables, num_rows)
    figure = new_figure(9.0, 4.0)
    share, width = figure.subplots(1, 2)
    for operator, found in grouped(rows, "operator").items():
        largest, coverage, ratio = columns(found, "largest_row", "coverage", "ratio")
        style: dict[str, Any] = {"color": STYLES[operator], "linestyle": "none", "marker": "o", "alpha": 0.8}
        share.plot(largest, coverage, **style)
        width.plot(ratio, coverage, **style)
    for axes in (share, width):
        axes.axhline(STATED, color=BLACK, linestyle=":")
        axes.set_ylabel("share of draws with the true error below")
    share.set(title=f"{num_rows} rows, one point for each output", xlabel="share of the squared error in one query")
    width.set(title="what the upper value costs", xlabel="upper value / true error, median of draws")
    legend_below(figure, [entry(name, color=c, marker="o", linestyle="none") for name, c in STYLES.items()], columns=4)
    return {"error_coverage": figure}


EXPERIMENT = Experiment(
    name="error_coverage",
    claim="An error estimated from 64 exact rows comes with an upper value that is right in 95 % of the draws, mostly.",
    settings=CoverageSettings(),
    quick=CoverageSettings(
        heads=("minilm/mansfieldpark_ch1/L0H8", "vit/flower/L8H2", "antiberty/trembl_N1NWK3/L6H5"),
        operators=("FAVOR+, 256 features", "clustered, 5", "cache, 16"),
        num_rows=(64,),
        repetitions=40,
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
    captions={"error_coverage": "How often the true error is below the stated one, and what makes it fail"},
)
