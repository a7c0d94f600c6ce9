"""What the numbers of language_model say."""

import statistics
from collections.abc import Iterator

import numpy as np

from experiments.experiment import Record, Summary, Tables, Verdict, reported
from experiments.language_model.documents import KINDS
from experiments.language_model.settings import (
    ARMS,
    CUT,
    EXACT,
    FEATURES,
    MERGED,
    METHODS,
    MODULE,
    TEXTS,
    ModelSettings,
)
from experiments.tables import grouped, select

ERRORS = 2.0  # standard errors that a paired difference must be away from 0
AGAINST = "sinks + window"
SMOOTHING = 20  # steps


def nats(rows: list[Record], method: str, memory: int, kind: str) -> np.ndarray:
    """Nats per character of each document."""
    return np.array([row["nats"] for row in select(rows, method=method, memory=memory, kind=kind)])


def exact_nats(tables: Tables, settings: ModelSettings, kind: str) -> np.ndarray:
    return nats(tables["losses"], EXACT, settings.length, kind)


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean over documents, or repetitions, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def signed(values: np.ndarray) -> str:
    """Mean and standard error of differences."""
    mean, error = mean_and_error(values)
    return f"{mean:+.4f} ± {error:.4f}"


def is_positive(values: np.ndarray) -> bool:
    """Whether the mean is above 0 by more than two standard errors."""
    mean, error = mean_and_error(values)
    return mean > ERRORS * error


def verdicts(tables: Tables, settings: ModelSettings) -> Iterator[Verdict]:
    yield from uses_its_context(tables, settings)
    for kind in KINDS:
        for memory in settings.memories:
            yield against_eviction(tables, settings, kind, memory)
    yield from others(tables, settings)
    for text in TEXTS:
        yield from same_training(tables, settings, text)


def claimed(claim: str, expected: str, measured: str, holds: bool, settings: ModelSettings) -> Verdict:
    """A claim; at the quick sizes, where the model has learned little, the number is only reported."""
    return reported(claim, measured) if settings.quick else Verdict(claim, expected, measured, holds)


def uses_its_context(tables: Tables, settings: ModelSettings) -> Iterator[Verdict]:
    """Exact attention to the last keys alone is worse than to all."""
    for kind in KINDS:
        lost = nats(tables["losses"], CUT, settings.cut, kind) - exact_nats(tables, settings, kind)
        yield claimed(
            f"{documents_of(kind)}: the model uses more than the last {settings.cut} characters",
            f"loss with the context cut less loss with all of it, paired: above 0 by {ERRORS:g} standard errors",
            signed(lost), is_positive(lost), settings,
        )  # fmt: skip


def against_eviction(tables: Tables, settings: ModelSettings, kind: str, memory: int) -> Verdict:
    """Merged keys against evicted ones, document by document."""
    merged, evicted = (nats(tables["losses"], method, memory, kind) for method in (MERGED, AGAINST))
    exact = exact_nats(tables, settings, kind)
    return claimed(
        f"{documents_of(kind)}, {memory} rows: merged keys lose less than {AGAINST}",
        f"difference of the losses, paired: above 0 by {ERRORS:g} standard errors",
        f"{signed(evicted - merged)}; above exact attention by {signed(merged - exact)} and {signed(evicted - exact)}",
        is_positive(evicted - merged), settings,
    )  # fmt: skip


def others(tables: Tables, settings: ModelSettings) -> Iterator[Verdict]:
    """The other methods, each against merged keys."""
    for kind in KINDS:
        for method in METHODS:
            if method not in (MERGED, AGAINST):
                differences = (
                    signed(nats(tables["losses"], method, memory, kind) - nats(tables["losses"], MERGED, memory, kind))
                    for memory in settings.memories
                )
                name = f"{method} with two features for each row" if method == FEATURES else method
                yield reported(
                    f"{documents_of(kind)}: loss with {name} less loss with {MERGED}, "
                    f"{', '.join(map(str, settings.memories))} rows",
                    "; ".join(differences),
                )


def documents_of(kind: str) -> str:
    return "stretches of the novel" if kind == "novel" else "documents that quote themselves"


def same_training(tables: Tables, settings: ModelSettings, text: str) -> Iterator[Verdict]:
    """The module against exact attention: the same weights at the start, the same batches."""
    exact, module = (final_nats(tables, arm, text) for arm in ARMS)
    gap, noise = module - exact, float(exact.std(ddof=1))
    yield claimed(
        f"trained on the {text}: a model with {MODULE} ends where one with exact attention does",
        f"mean difference of the held-out losses at most the standard deviation over repetitions, {noise:.4f}",
        signed(gap), abs(float(gap.mean())) <= noise, settings,
    )  # fmt: skip
    curves = {arm: smoothed(tables, arm, text) for arm in ARMS}
    apart = np.abs(curves[MODULE].mean(axis=0) - curves[EXACT].mean(axis=0))
    spread = curves[EXACT].std(axis=0, ddof=1)
    yield claimed(
        f"trained on the {text}: the loss curve of {MODULE} is that of exact attention",
        f"averages over {SMOOTHING} steps and over repetitions differ by at most the standard deviation over "
        "repetitions, all of them",
        f"{np.sum(apart <= spread)} of {len(apart)}; at most {apart.max():.4f} apart, with standard deviations of "
        f"{spread.min():.4f} to {spread.max():.4f}",
        bool(np.all(apart <= spread)), settings,
    )  # fmt: skip


def final_nats(tables: Tables, arm: str, text: str) -> np.ndarray:
    """Held-out nats per character, by repetition."""
    return np.array([row["nats"] for row in select(tables["final"], attention=arm, text=text)])


def losses_of(tables: Tables, arm: str, text: str) -> np.ndarray:
    """Losses of an arm: (repetitions, steps)."""
    repetitions = grouped(select(tables["curves"], attention=arm, text=text), "repetition").values()
    return np.array([[row["loss"] for row in rows] for rows in repetitions])


def smoothed(tables: Tables, arm: str, text: str) -> np.ndarray:
    """Losses of an arm (repetitions, blocks), averaged over blocks of steps."""
    steps = losses_of(tables, arm, text)
    blocks = steps.shape[1] // SMOOTHING
    return steps[:, : blocks * SMOOTHING].reshape(len(steps), blocks, SMOOTHING).mean(axis=-1)


def summaries(tables: Tables, settings: ModelSettings) -> list[Summary]:
    memories = settings.memories
    fixed = [(EXACT, (settings.length,) * len(memories)), (CUT, (settings.cut,) * len(memories))]
    methods = [*fixed, *((method, memories) for method in METHODS)]
    header = ("attention", *(f"{memory} rows" for memory in memories))
    found = []
    for kind in KINDS:
        rows = ((method, *entries(tables, settings, method, chosen, kind)) for method, chosen in methods)
        title = f"{documents_of(kind)}, {settings.length} characters: nats per character, and above exact attention"
        found.append(Summary(title, header, tuple(rows), (2,)))
    quoted = ((method, *(f"{quoted_nats(tables, method, one):.3f}" for one in chosen)) for method, chosen in methods)
    found.append(Summary("characters of quotations alone: nats per character", header, tuple(quoted), (2,)))
    curves = (
        (f"{text}: {arm}", *(f"{part.mean():.4f}" for part in thirds(tables, arm, text)), last(tables, arm, text))
        for text in TEXTS
        for arm in ARMS
    )
    header = ("text and attention", "first third", "second", "last", "held out, and standard deviation")
    title = f"loss while small models are trained, mean of {settings.repetitions} repetitions"
    return [*found, Summary(title, header, tuple(curves), (len(ARMS),))]


def thirds(tables: Tables, arm: str, text: str) -> list[np.ndarray]:
    """The losses of the first, the second and the last third of the steps."""
    return np.array_split(losses_of(tables, arm, text), 3, axis=1)


def quoted_nats(tables: Tables, method: str, memory: int) -> float:
    """Mean over the documents that have quotations."""
    rows = select(tables["losses"], method=method, memory=memory, kind="quoting")
    return statistics.mean(row["quoted"] for row in rows if row["quoted"] is not None)


def entries(
    tables: Tables, settings: ModelSettings, method: str, memories: tuple[int, ...], kind: str
) -> Iterator[str]:
    """Mean nats, and the paired difference to exact attention, for each memory."""
    for memory in memories:
        values = nats(tables["losses"], method, memory, kind)
        above = "" if method == EXACT else f" ({signed(values - exact_nats(tables, settings, kind))})"
        yield f"{values.mean():.4f}{above}"


def last(tables: Tables, arm: str, text: str) -> str:
    """Held-out nats, and the standard deviation over repetitions."""
    values = final_nats(tables, arm, text)
    return f"{values.mean():.4f} ({values.std(ddof=1):.4f})"
