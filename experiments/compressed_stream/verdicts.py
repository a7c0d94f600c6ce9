"""What the numbers of compressed_stream say."""

import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.compressed_stream.evictions import EVICTIONS
from experiments.compressed_stream.measure import FITTED, NUM_PIECES, STREAMS, StreamSettings
from experiments.experiment import Record, Summary, Tables, Verdict, reported
from experiments.tables import grouped, select

# Largest median errors over the heads.
STREAM = {32: 0.17, 64: 0.115, 128: 0.075}
WHOLE = {("clustered", 5): 0.285, ("clustered", 11): 0.205, ("clustered", 21): 0.15}
WHOLE |= {("cache, fitted", 64): 0.135, ("cache", 64): 0.19}
PREFIX = {16: 0.27, 64: 0.14, 256: 0.055}
OWN_PAST = 1.25  # times the error with references of other passages
AGAINST_EVICTIONS = 0.5
IN_PIECES = 1.1


def by_head(rows: list[Record], **chosen: Any) -> dict[str, float]:
    """Errors by head."""
    return {row["head"]: row["error"] for row in select(rows, **chosen)}


def middle(rows: list[Record], **chosen: Any) -> float:
    """Median error of the heads."""
    return statistics.median(by_head(rows, **chosen).values())


def ratios(rows: list[Record], above: dict[str, Any], below: dict[str, Any]) -> np.ndarray:
    """Ratio of errors of each head."""
    first, second = by_head(rows, **above), by_head(rows, **below)
    return np.array([first[head] / second[head] for head in first])


def verdicts(tables: Tables, settings: StreamSettings) -> Iterator[Verdict]:
    yield from of_streams(tables, settings)
    yield leaks(tables)
    yield from of_prefixes(tables, settings)
    yield from of_whole(tables, settings)


def at_most(claim: str, limit: float | None, value: float, settings: StreamSettings, words: str = "median") -> Verdict:
    """A claim about a number; at smaller sizes it is only reported."""
    if limit is None or settings.quick:
        return reported(claim, f"{value:.3f}")
    return Verdict(claim, f"{words} at most {limit:g}", f"{value:.3f}", value <= limit)


def of_streams(tables: Tables, settings: StreamSettings) -> Iterator[Verdict]:
    """Against the limits, against each other, and against evictions."""
    rows = tables["stream"]
    for size in settings.num_keys:
        other = middle(rows, method="other passages", num_keys=size)
        own = middle(rows, method="own past", num_keys=size)
        sizes = f"D = w = {size}, {3 * size} rows"
        yield at_most(f"{sizes}, references of other passages: error", STREAM.get(size), other, settings)
        yield at_most(
            f"{sizes}, references from its own past: error over that with other passages",
            OWN_PAST, own / other, settings, "ratio of medians",
        )  # fmt: skip
        ratio = ratios(rows, {"method": FITTED, "num_keys": size}, {"method": "own past", "num_keys": size})
        yield reported(
            f"{sizes}, every compression fitted: error over that without a fit, own past",
            f"median of paired ratios {np.median(ratio):.3f}, largest {ratio.max():.3f}",
        )
        for name in EVICTIONS:
            for references in STREAMS:
                ratio = ratios(rows, {"method": references, "num_keys": size}, {"method": name, "num_keys": size})
                limit = None if name == "SnapKV-like" else AGAINST_EVICTIONS
                yield at_most(
                    f"{sizes}, references: {references}; error over that of {name}",
                    limit, float(np.median(ratio)), settings, "median of paired ratios",
                )  # fmt: skip


def leaks(tables: Tables) -> Verdict:
    """Earlier outputs, bit by bit."""
    rows = tables["leaks"]
    earlier, later = sum(row["earlier"] for row in rows), min(row["later"] for row in rows)
    return Verdict(
        claim="a stream whose later queries, keys and values are others has the same earlier outputs",
        expected="no output before the change differs in any bit; after it, all do",
        measured=f"{earlier} differ before, {later:.0%} after it, in {len(rows)} pairs of streams",
        holds=earlier == 0 and later > 0.99,
    )


def of_prefixes(tables: Tables, settings: StreamSettings) -> Iterator[Verdict]:
    """Compression in pieces against one, and fitted caches, read by queries of other passages."""
    rows = tables["prefix"]
    for size in settings.pieces:
        for fit in (False, True):
            once, pieces = (middle(rows, num_pieces=num, fit=fit, num_keys=size) for num in (1, NUM_PIECES))
            yield at_most(
                f"{settings.length} keys compressed to {size} in {NUM_PIECES} pieces, {fitted(fit)}: error over that "
                "of one compression",
                IN_PIECES, pieces / once, settings, "ratio of medians",
            )  # fmt: skip
    for size in settings.prefixes:
        error = middle(rows, num_pieces=1, fit=True, num_keys=size)
        yield at_most(
            f"{settings.length} keys in a fitted cache of {size}, read by other passages: error",
            PREFIX.get(size), error, settings,
        )  # fmt: skip


def fitted(fit: bool) -> str:
    return "with a fit" if fit else "without a fit"


def of_whole(tables: Tables, settings: StreamSettings) -> Iterator[Verdict]:
    """All queries on all keys."""
    for method, size in grouped(tables["whole"], "method", "size"):
        error = middle(tables["whole"], method=method, size=size)
        name = f"clustered, C = {size}" if method == "clustered" else f"{method}, {size} keys"
        yield at_most(
            f"{name}: error on {settings.whole_length} positions without a mask",
            WHOLE.get((method, size)), error, settings,
        )  # fmt: skip


def summaries(tables: Tables, settings: StreamSettings) -> list[Summary]:
    rows = [
        (
            method,
            *(
                quartiles(list(by_head(tables["stream"], method=method, num_keys=n).values()))
                for n in settings.num_keys
            ),
        )
        for method in (*STREAMS, FITTED, *EVICTIONS)
    ]
    header = ("stream", *(f"{3 * size} rows" for size in settings.num_keys))
    title = f"relative error of causal streams of {settings.length} positions, median and quartiles of heads"
    prefix = tuple(
        (f"{size} keys, {fitted(fit)}, {num} piece{'s' * (num > 1)}", quartiles([row["error"] for row in found]))
        for (num, fit, size), found in grouped(tables["prefix"], "num_pieces", "fit", "num_keys").items()
    )
    whole = tuple(
        (f"clustered, C = {size}" if method == "clustered" else f"{method}, {size} keys", quartiles(values))
        for (method, size), values in (
            (name, [row["error"] for row in found])
            for name, found in grouped(tables["whole"], "method", "size").items()
        )
    )
    return [
        Summary(title, header, tuple(rows), (len(STREAMS) + 1,)),
        Summary(f"{settings.length} keys in a cache, read by queries of other passages", ("cache", "error"), prefix),
        Summary(f"{settings.whole_length} positions without a mask", ("attention", "error"), whole),
    ]


def quartiles(values: list[float]) -> str:
    """Median with quartiles."""
    low, middle_, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle_:.3f} [{low:.3f} {high:.3f}]"
