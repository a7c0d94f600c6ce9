"""What the numbers of attention_error say: claims that can fail, and counts that are only reported."""

import statistics
from collections.abc import Iterator

import numpy as np

from experiments.attention_error.settings import AttentionErrorSettings
from experiments.experiment import Record, Summary, Tables, Verdict, reported
from experiments.tables import grouped, select

VALID_SPREAD = 0.05
ALLOWED_PER_SPREAD = 5.0
STANDARD_ERRORS = 4.0

PREDICTION_CLAIM = (
    f"the delta method predicts the output error of independent rows where the kernel's spread s <= {VALID_SPREAD}: "
    "heads with softened logits"
)


def verdicts(tables: Tables, settings: AttentionErrorSettings) -> Iterator[Verdict]:
    positive = [row for row in tables["errors"] if not np.isnan(row["out_of_range"])]
    yield stored_outputs(tables["heads"])
    if positive:
        yield finite_outputs(positive, tables["heads"])
        yield outputs_in_range(positive)
    yield prediction_where_valid(tables["softened"])
    yield prediction_on_heads(tables["predictions"])
    yield small_prediction(tables["softened"])
    width = max(settings.num_features)
    yield from [against_average(tables, estimator) for estimator in settings.estimators]
    if "positive" in settings.estimators and {"independent"} < set(settings.couplings):
        yield best_coupling(tables["errors"], width)


def stored_outputs(heads: list[Record]) -> Verdict:
    worst = max(heads, key=lambda row: row["stored_difference"] / row["stored_tolerance"])
    largest = max(row["stored_difference"] for row in heads)
    return Verdict(
        claim=f"exact attention equals the stored outputs of {len(heads)} heads to rounding",
        expected="largest difference below the rounding bound of each head",
        measured=f"at most {worst['stored_difference'] / worst['stored_tolerance']:.2g} of the bound, {largest:.1e}",
        holds=bool(all(row["stored_difference"] <= row["stored_tolerance"] for row in heads)),
    )


def finite_outputs(positive: list[Record], heads: list[Record]) -> Verdict:
    extreme = max(heads, key=lambda row: row["logit_max"])
    bad = sorted({row["head"] for row in positive if not row["finite"]})
    return Verdict(
        claim="every output of positive and hyp+ features is finite",
        expected=f"no exception, also on {extreme['head']} with logits {extreme['logit_min']:.0f} .. "
        f"{extreme['logit_max']:.0f}",
        measured=f"not finite on {', '.join(bad)}" if bad else f"all of {len(positive)} cells finite",
        holds=not bad,
    )


def outputs_in_range(positive: list[Record]) -> Verdict:
    worst = max(positive, key=lambda row: row["out_of_range"] / row["rounding"])
    return Verdict(
        claim="outputs of positive and hyp+ features lie within the values that each query sees, in every coordinate",
        expected="outside by at most (number of keys) · eps of the largest value",
        measured=f"outside by at most {worst['out_of_range']:.1e}, allowed {worst['rounding']:.1e}",
        holds=bool(all(row["out_of_range"] <= row["rounding"] for row in positive)),
    )


def prediction_where_valid(softened: list[Record]) -> Verdict:
    valid = [row for row in softened if row["spread"] <= VALID_SPREAD]
    if not valid:
        return Verdict(PREDICTION_CLAIM, "some cells to judge by", "no cell has so small a spread", False)
    excess = [
        (abs(row["ratio"] - 1) - ALLOWED_PER_SPREAD * row["spread"]) / row["ratio_standard_error"] for row in valid
    ]
    ratios = [row["ratio"] for row in valid]
    # An outlier among the draws widens its own standard error; the median over cells does not care.
    median, typical = statistics.median(ratios), statistics.median(row["spread"] for row in valid)
    outside = sum(not x <= STANDARD_ERRORS for x in excess)
    return Verdict(
        claim=PREDICTION_CLAIM,
        expected=f"|measured/predicted - 1| <= {ALLOWED_PER_SPREAD:g} s + {STANDARD_ERRORS:g} standard errors in every "
        f"cell, and <= {ALLOWED_PER_SPREAD:g} s for the medians over cells",
        measured=f"{len(valid)} cells, ratio {min(ratios):.2f} .. {max(ratios):.2f}, {outside} outside; median ratio "
        f"{median:.3f} at median s {typical:.3f}",
        holds=outside == 0 and bool(abs(median - 1) <= ALLOWED_PER_SPREAD * typical),
    )


def prediction_on_heads(predictions: list[Record]) -> Verdict:
    """Where the delta method has anything to say about the heads as they are."""
    valid = [row for row in predictions if row["spread"] <= VALID_SPREAD]
    smallest = min(predictions, key=lambda row: row["predicted"])
    return reported(
        "the delta method on the heads as they are",
        f"valid (s <= {VALID_SPREAD}) in {len(valid)} of {len(predictions)} cells; smallest prediction "
        f"{smallest['predicted']:.2g} ({smallest['head']}, {smallest['estimator']}, m = {smallest['num_features']})",
        expected="nothing claimed; a prediction above 1 says that such features do not carry the head",
    )


def small_prediction(softened: list[Record]) -> Verdict:
    """A small prediction alone is not enough."""
    rows = [row for row in softened if row["predicted"] < 0.3 and row["spread"] > VALID_SPREAD]
    parts = []
    for estimator in dict.fromkeys(row["estimator"] for row in rows):
        ratios = [row["ratio"] for row in rows if row["estimator"] == estimator]
        parts.append(f"{estimator} {min(ratios):.2f} .. {max(ratios):.2g}")
    return reported(
        f"measured/predicted where the prediction is below 0.3 but the spread above {VALID_SPREAD}",
        f"{len(rows)} cells; " + ", ".join(parts) if rows else "no such cell",
        expected="nothing claimed: a small prediction alone does not make it valid",
    )


def against_average(tables: Tables, estimator: str) -> Verdict:
    """On how many heads random features lose against no attention at all."""
    average = {row["head"]: row["average_of_values_error"] for row in tables["heads"]}
    couplings = [row["coupling"] for row in tables["errors"] if row["estimator"] == estimator]
    coupling = "orthogonal" if "orthogonal" in couplings else couplings[0]
    counts, medians = [], []
    for _, rows in grouped(select(tables["errors"], estimator=estimator, coupling=coupling), "num_features").items():
        counts.append(sum(not row["median"] < average[row["head"]] for row in rows))
        medians.append(statistics.median(row["median"] for row in rows))
    widths = dict.fromkeys(row["num_features"] for row in tables["errors"])
    name = "FAVOR+" if (estimator, coupling) == ("positive", "orthogonal") else f"{estimator}, {coupling}"
    return reported(
        f"{name} against the average of the values, at {', '.join(map(str, widths))} features",
        f"worse on {', '.join(map(str, counts))} of {len(average)} heads; median error "
        f"{', '.join(f'{median:.3g}' for median in medians)} against {statistics.median(average.values()):.3g}",
    )


def best_coupling(errors: list[Record], width: int) -> Verdict:
    rows = select(errors, estimator="positive", num_features=width)
    reference = {row["head"]: row["median"] for row in rows if row["coupling"] == "independent"}
    ratios = {
        coupling: statistics.median(row["median"] / reference[row["head"]] for row in group)
        for coupling, group in grouped(rows, "coupling").items()
        if coupling != "independent"
    }
    return reported(
        f"error of positive features under each coupling over that of independent rows, {width} features",
        "median over heads: " + ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items()),
        expected="nothing claimed: couplings act on small |q + k|², these heads have large ones",
    )


def summaries(tables: Tables, settings: AttentionErrorSettings) -> list[Summary]:
    result = []
    for model, heads in grouped(tables["heads"], "model").items():
        rows, sections = [], []
        drawn = select(tables["draws"], model=model)
        for estimator, of_estimator in grouped(drawn, "estimator").items():
            for coupling, of_coupling in grouped(of_estimator, "coupling").items():
                curve = over_heads(of_coupling)
                cells = tuple(f"{np.median(curve[m]):.3g}" for m in settings.num_features)
                rows.append((f"{estimator}, {coupling}", *cells))
            sections.append(len(rows))
        average = statistics.median(row["average_of_values_error"] for row in heads)
        rows.append(("average of the values", *[f"{average:.3g}"] * len(settings.num_features)))
        title = f"{model}: relative error of the attention output, {count_heads(len(heads))}"
        header = ("features", *map(str, settings.num_features))
        result.append(Summary(title, header, tuple(rows), tuple(sections)))
    return result


def count_heads(number: int) -> str:
    """What a median over this many heads is called."""
    return f"median over {number} heads" if number > 1 else "one head"


def over_heads(draws: list[Record]) -> dict[int, np.ndarray]:
    """The median error over heads for each draw: number of features -> (num_draws,)."""
    result = {}
    for num_features, rows in grouped(draws, "num_features").items():
        by_draw = [[row["error"] for row in same] for _, same in grouped(rows, "draw").items()]
        result[num_features] = np.median(np.asarray(by_draw), axis=1)
    return result
