"""What the numbers of real_heads say."""

import statistics
from collections.abc import Iterator

import numpy as np

from experiments.experiment import Summary, Tables, Verdict
from experiments.heads import head_names
from experiments.real_heads.measure import METHODS, OPERATORS, RealHeadsSettings
from experiments.tables import grouped, select

# Largest ratio to FAVOR+ of the median over the heads of a model, at 256 features.
CLAIMED = {
    "posterior": {"MiniLM": 0.50, "AntiBERTy": 0.45, "ViT": 0.35, "Whisper encoder": 0.50},
    "dense": {"MiniLM": 0.65, "AntiBERTy": 0.75, "ViT": 0.50, "Whisper encoder": 0.75},
}
CLAIMED_WIDTH = 256

# Of compressed attention, over the heads of at most 512 queries on their own keys: largest median error, by size.
MEDIANS = {
    "clustered": {5: 0.245, 11: 0.11, 21: 0.056},
    "cache, fitted": {16: 0.24, 32: 0.145, 64: 0.067},
}
WORSE_THAN_AVERAGE = {5: 1, 11: 0, 21: 0}
LONGEST = 512
LARGEST_GAIN = 1.6
LARGEST_LOSS = 1.4


def medians(tables: Tables, num_features: int) -> dict[tuple[str, str], list[float]]:
    """(family, method) -> the medians of its heads."""
    result: dict[tuple[str, str], list[float]] = {}
    for row in tables["errors"]:
        if row["num_features"] == num_features:
            result.setdefault((row["family"], row["method"]), []).append(row["median"])
    return result


def verdicts(tables: Tables, settings: RealHeadsSettings) -> Iterator[Verdict]:
    yield from of_features(tables, settings)
    yield from of_operators(tables, settings)


def of_features(tables: Tables, settings: RealHeadsSettings) -> Iterator[Verdict]:
    """Levels of adaptation against FAVOR+ and the average of the values."""
    width = CLAIMED_WIDTH if CLAIMED_WIDTH in settings.num_features else max(settings.num_features)
    claimed = width == CLAIMED_WIDTH and len(settings.heads) == len(head_names())
    errors = medians(tables, width)
    for method, limits in CLAIMED.items():
        for name, limit in limits.items():
            if (name, method) not in errors:
                continue
            ratio = statistics.median(errors[name, method]) / statistics.median(errors[name, "FAVOR+"])
            yield Verdict(
                claim=f"{name}: level {method} over FAVOR+ at {width} features",
                expected=f"at most {limit:.2f}" + ("" if claimed else " (claimed for the full run only)"),
                measured=f"{ratio:.3f}",
                holds=ratio <= limit if claimed else None,
            )
    everywhere = medians(tables, max(settings.num_features))
    middle = [
        statistics.median(x for (_, m), values in everywhere.items() if m == method for x in values)
        for method in ("posterior", "FAVOR+")
    ]
    yield Verdict(
        claim=f"all heads of the run: default level over FAVOR+ at {max(settings.num_features)} features",
        expected="at most 0.75",
        measured=f"{middle[0]:.3f} / {middle[1]:.3f} = {middle[0] / middle[1]:.3f}",
        holds=middle[0] <= 0.75 * middle[1],
    )
    by_head = {(r["head"], r["method"]): r["median"] for r in tables["errors"] if r["num_features"] == width}
    average = {row["head"]: row["average_of_values_error"] for row in tables["heads"]}
    worst = max(by_head[head, "posterior"] / by_head[head, "FAVOR+"] for head in average)
    yield Verdict(
        claim=f"no head on which the default is worse than FAVOR+, at {width} features",
        expected="every ratio at most 1.05",
        measured=f"largest {worst:.3f}",
        holds=worst <= 1.05 if claimed else None,
    )
    below = statistics.mean(by_head[head, "posterior"] < average[head] for head in average)
    yield Verdict(
        claim=f"the default beats the average of the values, at {width} features",
        expected="on at least 95 % of the heads",
        measured=f"on {below:.1%} of {len(average)}",
        holds=below >= 0.95 if claimed else None,
    )


def of_operators(tables: Tables, settings: RealHeadsSettings) -> Iterator[Verdict]:
    """Clusters and caches on the heads of at most 512 queries on their own keys."""
    full = len(settings.heads) == len(head_names())
    rows = [row for row in tables["operators"] if row["num_queries"] <= LONGEST and "cross" not in row["head"]]
    middle = {
        name: {column: statistics.median(row[column] for row in found) for column in ("median", "held_out")}
        for name, found in grouped(rows, "method", "size").items()
    }

    def judged(claim: str, expected: str, measured: str, holds: bool) -> Verdict:
        return Verdict(
            claim, expected + ("" if full else " (claimed for the full run only)"), measured, holds if full else None
        )

    for (method, size), errors in middle.items():
        if method in MEDIANS:
            limit = MEDIANS[method][size]
            yield judged(
                f"{words(method, size)}: error over {len(select(rows, method=method, size=size))} short heads",
                f"median at most {limit:g}",
                f"{errors['median']:.3f}; {errors['held_out']:.3f} on queries held out",
                errors["median"] <= limit,
            )
    average = {row["head"]: row["average_of_values_error"] for row in tables["heads"]}
    for size in OPERATORS["clustered"][: settings.operators]:
        found = select(rows, method="clustered", size=size)
        worse = sum(row["median"] > average[row["head"]] for row in found)
        yield judged(
            f"{words('clustered', size)}: worse than the average of the values",
            f"on at most {WORSE_THAN_AVERAGE[size]} of {len(found)} short heads",
            f"on {worse}",
            worse <= WORSE_THAN_AVERAGE[size],
        )
    for size in OPERATORS["cache"][: settings.operators]:
        plain, fit = middle["cache", size], middle["cache, fitted", size]
        for claim, limit, ratio in (
            ("without a fit, over its error with one", LARGEST_GAIN, plain["median"] / fit["median"]),
            ("fitted, error on held-out queries over that on its own", LARGEST_LOSS, fit["held_out"] / fit["median"]),
        ):
            yield judged(
                f"cache of {size} keys {claim}", f"ratio of medians at most {limit:g}", f"{ratio:.2f}", ratio <= limit
            )


def words(method: str, size: int) -> str:
    """What an operator of this size is called."""
    return f"clustered, C = {size}" if method == "clustered" else f"{method}, {size} keys"


def summaries(tables: Tables, settings: RealHeadsSettings) -> list[Summary]:
    result = []
    for width in settings.num_features:
        errors = medians(tables, width)
        families = list(dict.fromkeys(name for name, _ in errors))
        rows = [(method, *(spread(errors[name, method]) for name in families)) for method in METHODS]
        average = {
            name: [row["average_of_values_error"] for row in tables["heads"] if row["family"] == name]
            for name in families
        }
        rows.append(("average of the values", *(spread(average[name]) for name in families)))
        header = ("features", *(f"{name.replace('Whisper', 'Wh.')} ({len(average[name])})" for name in families))
        result.append(
            Summary(f"relative error of the output at {width} features", header, tuple(rows), (3, len(METHODS)))
        )
    return [*result, *(of_compressed(tables, column) for column in ("median", "held_out"))]


def of_compressed(tables: Tables, column: str) -> Summary:
    """Errors of caches and clusters by model."""
    families = list(dict.fromkeys(row["family"] for row in tables["operators"]))
    rows = []
    for (method, size), found in grouped(tables["operators"], "method", "size").items():
        by_family = grouped(found, "family")
        errors = [spread([row[column] for row in by_family[name]], 3) for name in families]
        rows.append((words(method, size), f"{found[0]['cost']:g}", *errors))
    header = ("compressed attention", "features", *(name.replace("Whisper", "Wh.") for name in families))
    title = "relative error of the output" + (", on queries held out" if column == "held_out" else "")
    return Summary(f"{title}; cost in features", header, tuple(rows), (3, 6))


def spread(values: list[float], digits: int = 2) -> str:
    """Median, with quartiles where there are several values."""
    quartiles = np.quantile(values, [0.5, 0.25, 0.75]) if len(values) > 2 else [statistics.median(values)]
    middle, *around = (f"{x:.{digits}f}".removeprefix("0") for x in quartiles)
    return f"{middle} [{' '.join(around)}]" if around else middle
