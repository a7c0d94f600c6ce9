"""What the trainings say."""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.experiment import Record, Tables, Verdict, reported

REFERENCES = ("softmax", "none")
MARGIN = 0.1


def arm_name(row: Record) -> str:
    """A label for what differs between trainings of one repetition."""
    if not row["norms"]:
        return str(row["attention"])
    return f"{row['attention']}, {row['norms']} norms, {'redrawn' if row['redraw'] else 'fixed'}"


def arms(rows: Sequence[Record], *, features: bool = True) -> list[str]:
    """Labels in the order of their first row; only those of random features, or all."""
    return list(dict.fromkeys(arm_name(row) for row in rows if row["norms"] or not features))


def finals(tables: Tables, arm: str, column: str = "own") -> list[float]:
    """Held-out losses of an arm, by repetition."""
    return [row[column] for row in tables["final"] if arm_name(row) == arm]


def shares_kept(tables: Tables, arm: str) -> list[float]:
    """Of what softmax attention gains over a model whose tokens see themselves alone, the share that an arm gains."""
    exact, none = (finals(tables, name) for name in REFERENCES)
    return [(none[i] - own) / (none[i] - exact[i]) for i, own in enumerate(finals(tables, arm))]


def verdicts(tables: Tables, settings: Any) -> Iterator[Verdict]:
    finite = {
        arm: all(math.isfinite(row["loss"]) for row in tables["steps"] if arm_name(row) == arm)
        for arm in arms(tables["final"])
    }
    for name in settings.features:
        own = [arm for arm in arms(tables["final"]) if arm.startswith(f"{name},")]
        lowest = [row["minimum"] for row in tables["denominators"] if row["attention"] == name]
        negative = [row["negative"] for row in tables["denominators"] if row["attention"] == name]
        behind = {arm: gap(tables, arm, "softmax") for arm in own}
        measured = ", ".join(f"{max(values):+.3f} ({arm.split(', ', 1)[1]})" for arm, values in behind.items())
        if name == "trig":
            yield Verdict(
                claim="trig: denominators become negative in training",
                expected="in every arm, in every repetition",
                measured=f"up to {max(negative):.0%} of a batch; smallest relative denominator {min(lowest):.2g}",
                holds=all(worst > 0 for worst in worst_shares(tables, own, settings.repetitions)),
            )
            yield reported("trig: largest held-out loss above that of softmax attention", measured)
            continue
        yield Verdict(
            claim=f"{name}: denominators stay positive",
            expected="smallest relative denominator above 0: a sum of positive terms",
            measured=f"{min(lowest):.2g}",
            holds=min(lowest) > 0,
        )
        yield Verdict(
            claim=f"{name}: trains stably, and learns to attend",
            expected="finite losses, and a held-out loss below that of a model whose tokens see themselves alone, "
            "in every arm and repetition",
            measured=", ".join(f"{max(gap(tables, arm, 'none')):+.3f} ({arm.split(', ', 1)[1]})" for arm in own),
            holds=all(finite[arm] and max(gap(tables, arm, "none")) < 0 for arm in own),
        )
        yield Verdict(
            claim=f"{name}, maps kept: trains like softmax attention",
            expected=f"a held-out loss at most {MARGIN} nats per character above, in every arm and repetition",
            measured=measured,
            holds=all(max(behind[arm]) <= MARGIN for arm in own if arm.endswith("fixed")),
        )
    yield from reports(tables, settings)


def gap(tables: Tables, arm: str, reference: str) -> list[float]:
    """Held-out loss above that of a reference, by repetition."""
    return [a - b for a, b in zip(finals(tables, arm), finals(tables, reference), strict=True)]


def worst_shares(tables: Tables, chosen: Sequence[str], repetitions: int) -> list[float]:
    """The largest share of negative denominators of each training of these arms."""
    return [
        max(
            row["negative"]
            for row in tables["denominators"]
            if arm_name(row) == arm and row["repetition"] == repetition
        )
        for arm in chosen
        for repetition in range(repetitions)
    ]


def reports(tables: Tables, settings: Any) -> Iterator[Verdict]:
    """Paired differences between arms that differ in one thing."""
    for name in settings.features:
        for norms in settings.norms:
            fixed, redrawn = (f"{name}, {norms} norms, {how}" for how in ("fixed", "redrawn"))
            own = differences(finals(tables, redrawn), finals(tables, fixed))
            fresh = differences(finals(tables, fixed, "fresh"), finals(tables, fixed))
            yield reported(
                f"{name}, {norms} norms: held-out loss redrawn less fixed; fixed on a fresh map less its own",
                f"{own}; {fresh}",
            )
        if set(settings.norms) == {"chi", "constant"}:
            chi, constant = (f"{name}, {norms} norms, redrawn" for norms in ("chi", "constant"))
            yield reported(
                f"{name}, redrawn: held-out loss with constant norms less χ norms",
                differences(finals(tables, constant), finals(tables, chi)),
            )


def differences(first: Sequence[float], second: Sequence[float]) -> str:
    """Median and range of the differences of paired numbers."""
    values = [a - b for a, b in zip(first, second, strict=True)]
    return f"{statistics.median(values):+.3f} ({min(values):+.3f} to {max(values):+.3f})"
