"""What the numbers of error_propagation say."""

import statistics
from collections.abc import Iterator
from typing import Any

from experiments.error_propagation.model import (
    FEATURES,
    NUM_LAYERS,
    PropagationSettings,
    Replacement,
    features,
    operators,
)
from experiments.experiment import Record, Summary, Tables, Verdict, reported
from experiments.tables import select

KEPT = {("merged keys", 64): 0.92, ("clustered", 11): 0.955, ("clustered", 21): 0.985}
"""Smallest cosine of the embedding with all layers replaced, by operator and size."""


def median(rows: list[Record], column: str, **chosen: Any) -> float:
    """Median of a column over the rows that have these values."""
    return statistics.median(row[column] for row in select(rows, **chosen))


def losses(tables: Tables, of: Replacement, which: str, num_tokens: int) -> list[float]:
    """1 - cosine with one layer replaced ("one"), or the first ("first"), by layer; medians."""
    chosen = {"method": of.method, "size": of.size, "replaced": which, "num_tokens": num_tokens}
    return [1 - median(tables["embeddings"], "cosine", layer=i + 1, **chosen) for i in range(NUM_LAYERS)]


def verdicts(tables: Tables, settings: PropagationSettings) -> Iterator[Verdict]:
    yield from of_features(tables, settings)
    yield from of_operators(tables, settings)
    yield from of_retrieval(tables, settings)


def of_features(tables: Tables, settings: PropagationSettings) -> Iterator[Verdict]:
    """Errors of layers add up; adapted features make each smaller."""
    widths, tokens = settings.num_features, settings.num_tokens
    for method in FEATURES:
        one, first = (
            {width: losses(tables, Replacement(method, width), which, tokens) for width in widths}
            for which in ("one", "first")
        )
        steps = [b > a for width in widths for a, b in zip(first[width], first[width][1:], strict=False)]
        yield Verdict(
            claim=f"{method} features: errors of layers accumulate",
            expected="all layers replaced lose more than any one layer, at every width",
            measured=pairs((width, max(one[width]), first[width][-1]) for width in widths),
            holds=all(first[width][-1] > max(one[width]) for width in widths),
        )
        yield Verdict(
            claim=f"{method} features: they add up, and are not amplified from layer to layer",
            expected="loss of all layers over the sum of the losses of each: 1 to leading order, as maps are "
            "independent and 1 - cosine is quadratic in the error; between 1/2 and 2",
            measured=", ".join(f"{first[width][-1] / sum(one[width]):.2f} (m={width})" for width in widths),
            holds=all(0.5 <= first[width][-1] / sum(one[width]) <= 2 for width in widths),
        )
        yield reported(
            f"{method} features: steps at which one more replaced layer loses more", f"{sum(steps)} of {len(steps)}"
        )
    plain, adapted = (
        {width: losses(tables, Replacement(m, width), "first", tokens)[-1] for width in widths} for m in FEATURES
    )
    (floor,) = losses(tables, Replacement("average"), "first", tokens)[-1:]
    yield Verdict(
        claim="adapted features keep more of the embedding than plain ones",
        expected="smaller loss with all layers replaced, at every width",
        measured=pairs((width, plain[width], adapted[width]) for width in widths),
        holds=all(adapted[width] < plain[width] for width in widths),
    )
    yield reported("cosine left by the average of the values in place of attention", f"{1 - floor:.3f}")


def of_operators(tables: Tables, settings: PropagationSettings) -> Iterator[Verdict]:
    """The embedding of each passage, with all layers replaced by compressed attention."""
    for operator in operators(settings):
        limit = KEPT.get((operator.method, operator.size))
        for num_tokens in (settings.num_tokens, settings.long_tokens):
            rows = select(
                tables["embeddings"],
                method=operator.method, size=operator.size, num_tokens=num_tokens, replaced="first", layer=NUM_LAYERS,
            )  # fmt: skip
            cosines = sorted(row["cosine"] for row in rows)
            yield Verdict(
                claim=f"{words(operator)}: the embedding with all layers replaced, {num_tokens} tokens",
                expected=f"cosine at least {limit} on every passage" if limit else "nothing claimed",
                measured=", ".join(f"{cosine:.3f}" for cosine in cosines),
                holds=cosines[0] >= limit if limit and not settings.quick else None,
            )


def of_retrieval(tables: Tables, settings: PropagationSettings) -> Iterator[Verdict]:
    """Documents near a phrase: those of the exact model, and the one that the phrase is from."""
    kept = {name: statistics.mean(row["kept"] for row in rows) for name, rows in searched(tables).items()}
    best = max(kept["plain", settings.retrieval_features], kept["adapted", settings.retrieval_features])
    for operator in operators(settings):
        own = kept[operator.method, operator.size]
        yield Verdict(
            claim=f"{words(operator)}: documents near a phrase are those of the exact model",
            expected=f"a larger share of the 5 nearest than with {settings.retrieval_features} features, plain or "
            "adapted",
            measured=f"{own:.3f} against {best:.3f}",
            holds=own > best if not settings.quick else None,
        )


def searched(tables: Tables) -> dict[tuple[str, int], list[Record]]:
    """Rows of the search by method and size."""
    found: dict[tuple[str, int], list[Record]] = {}
    for row in tables["retrieval"]:
        found.setdefault((row["method"], row["size"]), []).append(row)
    return found


def words(of: Replacement) -> str:
    """What a replacement is called."""
    if of.method == "clustered":
        return f"clustered, C = {of.size}"
    return f"{of.size} {of.method}" if of.method == "merged keys" else f"{of.method} {of.size or ''}".strip()


def pairs(values: Any) -> str:
    return ", ".join(f"{a:.3f} -> {b:.3f} (m={width})" for width, a, b in values)


def summaries(tables: Tables, settings: PropagationSettings) -> list[Summary]:
    none, tokens = Replacement("average"), settings.num_tokens
    every = [none, *features(settings), *operators(settings)]
    cosines = [(words(of), *(f"{1 - x:.3f}" for x in losses(tables, of, "first", tokens))) for of in every]
    longer = [
        (words(of), *(f"{1 - x:.3f}" for x in losses(tables, of, "first", settings.long_tokens)))
        for of in (none, *operators(settings))
    ]
    states = []
    for of in every:
        chosen = {"method": of.method, "size": of.size, "num_tokens": tokens}
        errors = [median(tables["states"], "error", layer=i + 1, **chosen) for i in range(NUM_LAYERS)]
        states.append((words(of), *(f"{error:.3f}" for error in errors)))
    first = ("attention", *(f"first {i + 1}" for i in range(NUM_LAYERS)))
    found = tuple(
        (
            words(Replacement(*name)),
            f"{statistics.mean(row['kept'] for row in rows):.3f}",
            f"{statistics.mean(row['same_first'] for row in rows):.3f}",
            f"{statistics.mean(row['rank'] == 1 for row in rows):.3f}",
            f"{statistics.median(row['cosine'] for row in rows):.3f}",
        )
        for name, rows in searched(tables).items()
    )
    header = ("attention", "5 nearest kept", "same nearest", "own document first", "cosine of documents")
    return [
        Summary(f"cosine to the exact embedding, first layers replaced, {tokens} tokens", first, tuple(cosines)),
        Summary(f"the same, {settings.long_tokens} tokens", first, tuple(longer)),
        Summary(
            f"relative error of the hidden states, all layers replaced, {tokens} tokens",
            ("attention", *(f"layer {i + 1}" for i in range(NUM_LAYERS))),
            tuple(states),
        ),
        Summary(f"{settings.num_documents} documents of {tokens} tokens, a phrase out of each", header, found),
    ]
