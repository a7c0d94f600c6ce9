"""The command `randfeat`: installed libraries, the catalogue, recommendations for your data, speed of this machine.

Exit codes: 0 success, 2 the command cannot be carried out; the reason is one line on the standard error.
"""

import argparse
import importlib
import json
import platform
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from randfeat._array import device_name, devices
from randfeat._numpy.threads import resolve_num_threads
from randfeat.cli.bench import Benchmark, Timing, Workload, blas_limited
from randfeat.cli.machine import blas, processor, version
from randfeat.selection import Entry, catalogue
from randfeat.selection.recommendation import Recommendation, recommend
from randfeat.storage.archive import is_special

LIBRARIES = ("numpy", "scipy", "array-api-compat", "torch", "jax", "cupy", "scikit-learn", "dask", "transformers")
UNREADABLE = OSError, ValueError, EOFError, KeyError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error
"""What `numpy.load` raises for files that are no archive, or damaged, or encrypted."""
BACKENDS = ("numpy", "torch", "cupy")


class UsageError(Exception):
    """The command cannot be carried out; its message is one line."""


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a wrong command in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `randfeat --help`)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command given by `arguments`; returns the exit code."""
    try:
        options = parser().parse_args(arguments)
        run: Callable[[argparse.Namespace], None] = options.run
        run(options)
    except UsageError as error:
        print(f"randfeat: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        sys.stderr.close()
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of all commands and their options."""
    result = Parser(prog="randfeat", description="Random features of kernels, and linear attention.")
    commands = result.add_subparsers(dest="command", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="for machines")
        return command

    add("info", show_info, "versions, array libraries and their devices, BLAS, threads")
    listing = add("catalogue", show_catalogue, "every estimator, coupling and kernel, and what each promises")
    listing.add_argument("--long", action="store_true", help="name the couplings under which a variance is known")
    listing.add_argument("kind", nargs="?", choices=("estimator", "coupling", "kernel"), help="one kind only")
    advice = add("recommend", show_recommendation, "rank the estimators of attention on your queries and keys")
    advice.add_argument(
        "file", type=Path, metavar="DATA.npz",
        help='an .npz file with arrays "q", "k" and, if you like, "v" (or query, key, value): (L, d) or (heads, L, d)',
    )  # fmt: skip
    advice.add_argument("--num-features", type=int, default=256, metavar="D", help="width of the maps (default: 256)")
    advice.add_argument("--scale", type=float, help="of the logits (default: 1/sqrt(d))")
    advice.add_argument("--causal", action="store_true", help="query i sees the keys up to i")
    advice.add_argument("--rng", type=int, default=0, metavar="SEED", help="seed of the pilot (default: 0)")
    speed = add("bench", show_bench, "time exact and linear attention on this machine, in less than half a minute")
    speed.add_argument("--backend", choices=BACKENDS, default="numpy", help="array library (default: numpy)")
    speed.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="(default: float32)")
    speed.add_argument("--threads", type=positive, metavar="N", help="of NumPy arrays (default: all cores)")
    speed.add_argument("--heads", type=positive, default=8, metavar="H", help="(default: 8)")
    speed.add_argument("--dim", type=positive, default=64, metavar="d", help="of a head (default: 64)")
    speed.add_argument(
        "--num-features", type=positive, default=256, metavar="D", help="width of the maps (default: 256)"
    )
    speed.add_argument(
        "--lengths", type=positives, default=(1024, 4096, 16384), metavar="L,L,...", help="(default: 1024,4096,16384)"
    )
    return result


def positive(text: str) -> int:
    """Parse a positive integer."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def positives(text: str) -> tuple[int, ...]:
    """Parse a comma-separated list of positive integers."""
    return tuple(positive(part) for part in text.split(","))


def show_info(options: argparse.Namespace) -> None:
    """Print versions of Python and the libraries, devices, BLAS and the number of threads."""
    try:
        threads = resolve_num_threads(None)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    facts: dict[str, Any] = {
        "randfeat": our_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "devices": devices(),
        "blas": blas(),
        "threads": threads,
    }
    if options.json:
        print(json.dumps(facts, indent=1))
        return
    found = ", ".join(f"{name} {number}" for name, number in facts["libraries"].items() if number)
    missing = ", ".join(name for name, number in facts["libraries"].items() if not number)
    rows = [
        ("randfeat", str(facts["randfeat"])),
        ("Python", f"{facts['python']}, {facts['platform']}"),
        ("libraries", found),
        *([("not installed", missing)] if missing else []),
        *((f"devices of {name}", ", ".join(names)) for name, names in facts["devices"].items()),
        ("BLAS", "; ".join(facts["blas"]) or "none found"),
        ("threads", f"{facts['threads']} (RANDFEAT_NUM_THREADS sets them)"),
    ]
    print_table(rows)


def our_version() -> str:
    """Version of randfeat, whether it is installed or run from a checkout."""
    return importlib.import_module("randfeat").__version__


def show_catalogue(options: argparse.Namespace) -> None:
    """Print the catalogue, one line for each entry."""
    entries = catalogue(options.kind)
    if options.json:
        print(json.dumps([entry.as_dict() for entry in entries], indent=1))
        return
    marks = {True: "yes", False: "no", None: ""}
    known = "variance known for" if options.long else "variance"
    header = ("kind", "name", "acronyms", "positive", "unbiased", known, "widths")
    rows = [
        (
            entry.kind,
            entry.name,
            ", ".join(entry.acronyms) if options.long else short_names(entry),
            marks[entry.positive],
            marks[entry.unbiased],
            ", ".join(entry.closed_form) if options.long else in_short(entry),
            (entry.widths or "") if options.long else short_widths(entry),
        )
        for entry in entries
    ]
    print_table([header, *rows])


def in_short(entry: Entry) -> str:
    """The number of laws of rows for which a variance is known; of a coupling, "its pairs" if their laws are."""
    if entry.kind == "coupling":
        return "its pairs" if entry.closed_form else ""
    if entry.closed_form in ((), ("any row",)):
        return "".join(entry.closed_form)
    return "1 law" if len(entry.closed_form) == 1 else f"{len(entry.closed_form)} laws"


def short_names(entry: Entry) -> str:
    """All acronyms of an estimator; of a coupling its first name, and dots if it has more."""
    if entry.kind == "coupling" and len(entry.acronyms) > 1:
        return f"{entry.acronyms[0]}, ..."
    return ", ".join(entry.acronyms)


def short_widths(entry: Entry) -> str:
    """Possible numbers of features, or, of a coupling, of rows."""
    return (entry.widths or "").replace(" in dimension", ", d =").replace("in dimension", "d =").removesuffix(" rows")


def show_recommendation(options: argparse.Namespace) -> None:
    """Print the ranking of `randfeat.recommend`."""
    query, key, value = read_inputs(options.file)
    try:
        ranking = recommend(
            query,
            key,
            value,
            num_features=options.num_features,
            scale=options.scale,
            is_causal=options.causal,
            rng=options.rng,
        )
    except (TypeError, ValueError) as error:
        raise UsageError(f"{options.file}: {error}") from error
    print(json.dumps(as_record(ranking), indent=1) if options.json else ranking)


def read_inputs(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Queries, keys and (if present) values from an .npz file, read without unpickling."""
    if is_special(path):
        raise UsageError(f"{path}: not a regular file")
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UsageError(
                    f"{path}: one array, expected an .npz file: numpy.savez({path.stem + '.npz'!r}, q=q, k=k)"
                )
            arrays = {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a readable .npz file"
        raise UsageError(f"{path}: {reason}") from error
    for names in (("q", "k", "v"), ("query", "key", "value")):
        if names[0] in arrays and names[1] in arrays:
            return arrays[names[0]], arrays[names[1]], arrays.get(names[2])
    found = ", ".join(arrays) or "none"
    raise UsageError(f'{path}: expected arrays "q" and "k" (or "query" and "key"), found {found}.')


def as_record(ranking: Recommendation) -> dict[str, Any]:
    """A recommendation as plain data, best estimator first."""
    return {
        "num_features": ranking.num_features,
        "verdict": ranking.verdict,
        "largest_error": ranking.largest_error,
        "average_error": ranking.average_error,
        "exact_is_cheaper": ranking.exact_is_cheaper,
        "candidates": [
            {"name": one.name, "coupling": one.coupling, "error": one.error, "errors": one.errors.tolist()}
            for one in ranking
        ],
        "operators": [{"name": one.name, "cost": one.cost, "error": one.error} for one in ranking.operators],
        "refused": ranking.refused,
    }


def show_bench(options: argparse.Namespace) -> None:
    """Print the benchmark of this machine, with the facts needed to interpret the numbers elsewhere."""
    try:
        workload = Workload(
            options.backend, options.dtype, options.heads, options.dim, options.num_features, options.threads
        )
        workload.like()
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    found = Benchmark.measure(workload, options.lengths)
    facts = facts_of(found)
    if options.json:
        print(json.dumps({"machine": facts} | found.as_dict(), indent=1))
        return
    versions = {"randfeat": facts["randfeat"], **facts["libraries"]}
    threads = f"threads as {workload.library} sets them" if facts["threads"] is None else f"{facts['threads']} threads"
    features = f"{workload.num_features} positive features"
    rows = [
        ("processor", facts["processor"]),
        ("used", f"{threads}, device {facts['device']}; load before {facts['load_before']}"),
        ("system", f"{facts['platform']}, Python {facts['python']}"),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
        ("BLAS", "; ".join(facts["blas"]) or "none found"),
        ("workload", f"{workload.heads} heads, dim {workload.dim}, {features}, {workload.dtype}, {workload.library}"),
    ]
    print_table(rows)
    print()
    print_table([HEADER, *(timing_row(found, timing) for timing in found.timings)], numbers=True)
    print()
    print("\n".join(remarks(found)))


def facts_of(found: Benchmark) -> dict[str, Any]:
    """Facts about the machine and software of a benchmark."""
    workload = found.workload
    with blas_limited(workload.num_threads):  # as it was while times were taken
        libraries = blas()
    return {
        "randfeat": our_version(),
        "processor": processor(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "device": device_name(workload.library, workload.like()),
        "libraries": {name: version(name) for name in dict.fromkeys(("numpy", "scipy", workload.library))},
        "blas": libraries,
        "threads": workload.num_threads,
        "load_before": found.load_before,
    }


HEADER = ("what", "length [tokens]", "time [ms]", "speed [1000 tokens/s]", "over exact [ratio]", "of the roofline [%]")


def timing_row(found: Benchmark, timing: Timing) -> tuple[str, ...]:
    """One row of the table of timings; a dash for a missing number."""
    share = found.share(timing)
    speed = found.tokens_per_second(timing)
    numbers = (
        None if timing.seconds is None else 1e3 * timing.seconds,
        None if speed is None else 1e-3 * speed,
        found.over_exact(timing),
        None if share is None else 100 * share,
    )
    return (timing.method, str(timing.length), *("-" if x is None else in_digits(x, 3) for x in numbers))


def in_digits(x: float, digits: int) -> str:
    """`x` rounded to `digits` significant digits, without an exponent."""
    return np.format_float_positional(x, digits, unique=False, fractional=False, trim="-")


def remarks(found: Benchmark) -> list[str]:
    """Lines on calls that were left out, crossing lengths, ceilings and rates."""
    lines = [f"left out: {one.method} at {one.length} tokens, {one.left_out}" for one in found.timings if one.left_out]
    for name, is_causal in (("full", False), ("causal", True)):
        length = found.workload.crossing(found.costs, is_causal=is_causal)
        since = "not up to a million tokens" if length is None else f"from about {in_digits(length, 2)} tokens on"
        since = "at every length" if length == 1 else since
        lines.append(f"linear attention overtakes exact, {name}: {since}, by the rates below")
    if found.ceilings is not None:
        lines.append(
            f"ceilings: matrix product {found.ceilings.flops / 1e9:.0f} GFLOP/s, "
            f"exponentials {found.ceilings.exponentials / 1e9:.2f} G/s"
        )
    return [*lines, f"rates in seconds: rf.{found.rounded_costs()}"]


def print_table(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> None:
    """Print rows of text in aligned columns; with `numbers`, all columns but the first are aligned right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (
            cell.rjust(width) if numbers and i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())
