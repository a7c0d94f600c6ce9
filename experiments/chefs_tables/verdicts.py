"""What the numbers of chefs_tables say."""

import math
import statistics
from collections.abc import Iterator

from experiments.chefs_tables.measure import METHODS, NESTED, REGIMES, ChefsSettings
from experiments.experiment import Summary, Tables, Verdict, reported

SIGNIFICANT = 3.0


def log_variances(tables: Tables, name: str = "log_variance") -> dict[tuple[str, float], dict[str, float]]:
    """(regime, scale) -> method -> mean logarithm."""
    result: dict[tuple[str, float], dict[str, float]] = {}
    for row in tables["variances"]:
        result.setdefault((row["regime"], row["scale"]), {})[row["method"]] = row[name]
    return result


def verdicts(tables: Tables, settings: ChefsSettings) -> list[Verdict]:
    return [digits(tables), *nested(tables), *reductions(tables), *heads(tables, settings), *accuracies(tables)]


def digits(tables: Tables) -> Verdict:
    """Half a unit of the last printed digit, and rounding."""
    off = [
        (abs(row["computed"] - row["printed"]) * 10 ** len(repr(row["printed"]).partition(".")[2]), row)
        for row in tables["printed"]
    ]
    worst, row = max(off, key=lambda pair: pair[0])
    return Verdict(
        claim="closed forms reproduce the table for normal inputs, d = 64",
        expected="all digits: half a unit of the last one at most",
        measured=f"{len(off)} values, largest deviation {worst:.2f} units of the last digit: {row['method']} at "
        f"{row['scale']:g}, {row['computed']:.3f} for {row['printed']:g}",
        holds=bool(worst <= 0.5 + 1e-9),
    )


def nested(tables: Tables) -> Iterator[Verdict]:
    """A fit within the larger family is at least as good by its own criterion."""
    moments = log_variances(tables, "log_second_moment")
    for larger, smaller in NESTED:
        gaps = {key: row[larger] - row[smaller] for key, row in moments.items()}
        (regime, scale), gap = max(gaps.items(), key=lambda item: item[1])
        yield Verdict(
            claim=f"{larger} is nowhere worse than {smaller}, which it contains",
            expected="mean log second moment at most the same, to rounding",
            measured=f"difference {min(gaps.values()):.1f} .. {gap:.2g}, the largest on {regime} at {scale:g}",
            holds=bool(gap <= 1e-9),
        )


def reductions(tables: Tables) -> Iterator[Verdict]:
    """The largest reductions of the tables, against those that the papers name."""
    logs = log_variances(tables)
    full = max(scale for _, scale in logs) >= 1.0
    dense = tuple(method for method in METHODS if method.endswith("DERF") or method == "balanced SDERF")
    for best, base, named in ((("OPRF",), "PRF", 60), (("OPRF",), "trig", 75), (dense, "GERF", 10)):
        gains = {
            key: row[base] - min(row[method] for method in best)
            for key, row in logs.items()
            if base == "GERF" or key[0] in REGIMES
        }
        (regime, scale), gain = max(gains.items(), key=lambda item: item[1])
        claimed = full and base != "GERF"  # how much unequal axes gain is up to how unequal they are
        name = best[0] if len(best) == 1 else "the best dense-exponential features"
        yield Verdict(
            claim=f"{name}: largest reduction of the variance against {base}, at scales up to 1",
            expected=f"e^{named} or more" if claimed else f"reported: the paper has up to e^{named}, on other data",
            measured=f"e^{gain:.1f} on {regime} at {scale:g}",
            holds=bool(gain >= named) if claimed else None,
        )


def heads(tables: Tables, settings: ChefsSettings) -> Iterator[Verdict]:
    """What is left on heads of trained models: reported."""
    logs = log_variances(tables)
    for head in settings.heads:
        row = logs[head, max(settings.scales)]
        best = min(row, key=lambda method: row[method])
        listing = ", ".join(f"{method} {row[method]:.1f}" for method in ("trig", "PRF", "OPRF", "SDERF"))
        yield reported(
            f"mean ln(Var/K²) of one row on {head} at scale {max(settings.scales):g}",
            f"{listing}; best {best} {row[best]:.1f}",
            expected="reported",
        )


def accuracies(tables: Tables) -> Iterator[Verdict]:
    """Whether smaller variances classify better: OPRF against PRF, over all data sets at each width."""
    table = {(r["dataset"], r["method"], r["num_features"]): r for r in tables["accuracies"]}
    names = list(dict.fromkeys(name for name, _, _ in table))
    for width in sorted({width for _, _, width in table}):
        better, worse = ([table[name, method, width] for name in names] for method in ("OPRF", "PRF"))
        gap = statistics.mean(a["accuracy"] - b["accuracy"] for a, b in zip(better, worse, strict=True))
        error = math.sqrt(sum(row["standard_error"] ** 2 for row in (*better, *worse))) / len(names)
        exact = statistics.mean(row["exact"] for row in better)
        yield Verdict(
            claim=f"OPRF classifies no worse than PRF at {width} features, mean over {len(names)} data sets",
            expected=f"accuracy lower by {SIGNIFICANT:g} standard errors of the difference at most",
            measured=f"{statistics.mean(row['accuracy'] for row in better):.3f} against "
            f"{statistics.mean(row['accuracy'] for row in worse):.3f}, difference {gap:+.3f} ± {error:.3f}; "
            f"exact kernel {exact:.3f}",
            holds=bool(gap >= -SIGNIFICANT * error),
        )


def summaries(tables: Tables, settings: ChefsSettings) -> list[Summary]:
    logs = log_variances(tables)
    result = []
    for regime in dict.fromkeys(regime for regime, _ in logs):
        rows = tuple(
            (method, *(f"{logs[regime, scale][method]:.2f}" for scale in settings.scales)) for method in METHODS
        )
        header = ("mean ln(Var/K²)", *(f"{scale:g}" for scale in settings.scales))
        result.append(Summary(f"{regime}, one row", header, rows))
    table = {(r["dataset"], r["method"], r["num_features"]): r for r in tables["accuracies"]}
    rows = tuple(
        (
            f"{name}, {width} features",
            *(f"{table[name, method, width]['accuracy']:.3f}" for method in settings.methods),
            f"{table[name, settings.methods[0], width]['exact']:.3f}",
        )
        for name in settings.datasets
        for width in settings.num_features
    )
    result.append(Summary("accuracy of Nadaraya-Watson classification", ("", *settings.methods, "exact"), rows))
    return result
