"""The command `randfeat`: what is installed, what exists, what suits your data, how fast this machine is.

Exit codes: 0 done, 2 the command cannot be carried out; the reason is one line on the standard error.
"""

import argparse
import importlib
import importlib.metadata
import json
import platform
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from randfeat._array import devices
from randfeat.cataloguing import catalogue
from randfeat.recommendation import Recommendation, recommend
from randfeat.threads import controller, resolve_num_threads

__all__ = ["main"]

LIBRARIES = ("numpy", "scipy", "array-api-compat", "torch", "jax", "cupy", "scikit-learn", "dask", "transformers")


class UsageError(Exception):
    """The command cannot be carried out; the message is one line."""


class Parser(argparse.ArgumentParser):
    """Reports a wrong command as one line."""

    def error(self, message: str) -> NoReturn:
        """Instead of the usage text."""
        raise UsageError(f"{message} (see `randfeat --help`)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command; returns the exit code."""
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
    """The commands and their options."""
    result = Parser(prog="randfeat", description="Random features of kernels, and linear attention.")
    commands = result.add_subparsers(dest="command", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="for machines")
        return command

    add("info", show_info, "versions, array libraries and their devices, BLAS, threads")
    listing = add("catalogue", show_catalogue, "every estimator, coupling and kernel, and what each promises")
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
    return result


def show_info(options: argparse.Namespace) -> None:
    """What is installed, and on what it runs."""
    facts: dict[str, Any] = {
        "randfeat": importlib.import_module(__package__ or "randfeat").__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "devices": devices(),
        "blas": [blas(library) for library in controller().info()],
        "threads": resolve_num_threads(None),
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


def version(name: str) -> str | None:
    """The version of a distribution, None where it is not installed; CuPy has several."""
    names = ("cupy", "cupy-cuda12x", "cupy-cuda13x") if name == "cupy" else (name,)
    for one in names:
        try:
            return importlib.metadata.version(one)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def blas(library: dict[str, Any]) -> str:
    """One BLAS library as threadpoolctl describes it."""
    return f"{library['internal_api']} {library['version']}, {library['num_threads']} threads"


def show_catalogue(options: argparse.Namespace) -> None:
    """The catalogue, a line each."""
    entries = catalogue(options.kind)
    if options.json:
        print(json.dumps([entry.as_dict() for entry in entries], indent=1))
        return
    marks = {True: "yes", False: "no", None: ""}
    header = ("kind", "name", "acronyms", "positive", "unbiased", "variance known for", "widths")
    rows = [
        (
            entry.kind,
            entry.name,
            ", ".join(entry.acronyms),
            marks[entry.positive],
            marks[entry.unbiased],
            ", ".join(entry.closed_form),
            entry.widths or "",
        )
        for entry in entries
    ]
    print_table([header, *rows])


def show_recommendation(options: argparse.Namespace) -> None:
    """The ranking of `randfeat.recommend`."""
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
    """Queries, keys and, where there are any, values from an .npz file; never unpickles."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files} if isinstance(file, np.lib.npyio.NpzFile) else {}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a readable .npz file"
        raise UsageError(f"{path}: {reason}") from error
    for names in (("q", "k", "v"), ("query", "key", "value")):
        if names[0] in arrays and names[1] in arrays:
            return arrays[names[0]], arrays[names[1]], arrays.get(names[2])
    found = ", ".join(arrays) or "none"
    raise UsageError(f'{path}: expected arrays "q" and "k" (or "query" and "key"), found {found}.')


def as_record(ranking: Recommendation) -> dict[str, Any]:
    """A recommendation as plain data, best first."""
    return {
        "num_features": ranking.num_features,
        "average_error": ranking.average_error,
        "exact_is_cheaper": ranking.exact_is_cheaper,
        "candidates": [
            {"name": one.name, "coupling": one.coupling, "error": one.error, "errors": one.errors.tolist()}
            for one in ranking
        ],
        "refused": ranking.refused,
    }


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows of text in aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
