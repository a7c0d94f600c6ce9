"""`python -m experiments list | run NAME... | all | report [DIR] | publish NAME... | figures [NAME...]`.

Exit codes: 0 done and no claim fails, 1 a claim fails, 2 the command cannot be carried out, 3 a cell or what follows it
raised an error, 130 interrupted.
"""

import argparse
import contextlib
import dataclasses
import difflib
import importlib
import importlib.util
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from experiments.backends import BACKENDS, available
from experiments.experiment import Experiment
from experiments.registry import EXPERIMENTS
from randfeat._hints import how_to_install

DESCRIPTION = (
    "Experiments with random features. Exit codes: 0 done and no claim fails, 1 a claim fails, 2 the command cannot be "
    "carried out, 3 an experiment raised an error (its other cells are kept), 130 interrupted."
)
NAME = "as printed by `list`, or module:ATTRIBUTE of an experiment that lives elsewhere"
RESULTS = Path("results")
GALLERY = Path(__file__).parents[1] / "docs" / "gallery" / "results"


class UsageError(Exception):
    """The command cannot be carried out; the message is one line."""


class Parser(argparse.ArgumentParser):
    """Reports a wrong command as one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `python -m experiments --help`)")


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        options = parser().parse_args(arguments)
        return COMMANDS[options.command](options)
    except UsageError as error:
        notify(str(error))
        return 2
    except KeyboardInterrupt as interrupt:
        notify("; ".join(["interrupted", *map(str, interrupt.args)]) + ".")
        return 130


def notify(message: str) -> None:
    """One line on standard error."""
    print(f"experiments: {message}", file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    result = Parser(prog="python -m experiments", description=DESCRIPTION)
    commands = result.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the experiments and what they claim")
    run = commands.add_parser("run", help="run some, write their numbers and figures, print their verdicts")
    run.add_argument("names", metavar="NAME", nargs="+", help=NAME)
    run.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: results/NAME); several: DIR/NAME"
    )
    every = commands.add_parser("all", help="run every experiment")
    every.add_argument("--out", type=Path, metavar="DIR", help="write to DIR/NAME (default: results/NAME)")
    for command in (run, every):
        sizes = command.add_mutually_exclusive_group()
        sizes.add_argument("--quick", action="store_true", help="small sizes, below a minute")
        sizes.add_argument("--full", action="store_true", help="large sizes, where an experiment has them")
        command.add_argument(
            "--rng", type=int, default=0, metavar="SEED", help="seed of everything random (default: 0)"
        )
        command.add_argument("--backend", default="numpy", choices=BACKENDS, help="array library (default: numpy)")
        command.add_argument("--resume", action="store_true", help="keep the finished cells of an interrupted run")
        places = command.add_mutually_exclusive_group()
        places.add_argument("--workers", type=positive, default=1, metavar="N", help="processes (default: 1)")
        places.add_argument("--dask", metavar="ADDRESS", help="measure on the workers of this Dask scheduler")
    report = commands.add_parser("report", help="one web page with the results of all experiments in a folder")
    report.add_argument("folder", type=Path, nargs="?", default=RESULTS, metavar="DIR", help="default: results")
    report.add_argument("--out", type=Path, metavar="FILE", help="default: DIR/report.html")
    publish = commands.add_parser("publish", help="copy results to the gallery of the documentation")
    publish.add_argument("names", metavar="NAME", nargs="+", help=NAME)
    publish.add_argument("--out", type=Path, metavar="DIR", help="what `run` was told (default: results/NAME)")
    figures = commands.add_parser("figures", help="draw the figures of published numbers again")
    figures.add_argument("names", metavar="NAME", nargs="*", help="default: all that are published")
    for command in (publish, figures):
        command.add_argument(
            "--gallery", type=Path, default=GALLERY, metavar="DIR", help="default: docs/gallery/results"
        )
    return result


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text}")
    return int(text)


def show_list(options: argparse.Namespace) -> int:
    width = max(map(len, EXPERIMENTS))
    for name, experiment in EXPERIMENTS.items():
        print(f"{name:<{width}}  {experiment.claim}")
    return 0


def run_some(options: argparse.Namespace) -> int:
    experiments = [find(name) for name in dict.fromkeys(options.names)]
    for experiment in experiments:
        if options.backend not in experiment.backends:
            expected = ", ".join(experiment.backends)
            raise UsageError(f"{experiment.name} does not run on {options.backend}; expected one of: {expected}.")
        if experiment.missing:
            packages = " and ".join(experiment.missing)
            raise UsageError(
                f"{experiment.name} needs {packages}, not installed; see docs/gallery/{experiment.name}.md."
            )
    return run_each(experiments, options, apart=len(experiments) > 1)


def run_all(options: argparse.Namespace) -> int:
    """Every experiment that runs on the backend and finds its packages."""
    chosen = [experiment for experiment in EXPERIMENTS.values() if options.backend in experiment.backends]
    if left_out := [name for name, experiment in EXPERIMENTS.items() if experiment not in chosen]:
        notify(f"left out, since they do not run on {options.backend}: {', '.join(left_out)}.")
    for experiment in [experiment for experiment in chosen if experiment.missing]:
        notify(f"left out: {experiment.name} needs {' and '.join(experiment.missing)}, not installed.")
        chosen.remove(experiment)
    return run_each(chosen, options, apart=True)


def run_each(experiments: Sequence[Experiment], options: argparse.Namespace, *, apart: bool) -> int:
    """Refuse what would fail later, then run one after the other; the exit code is the worst one.

    apart : each has a folder of its own within `--out`.
    """
    if options.rng < 0:
        raise UsageError(f"--rng must be a non-negative integer, got {options.rng}.")
    if not available(options.backend):
        raise UsageError(f"--backend {options.backend}: {options.backend} is not installed.")
    need("matplotlib", "rich", extra="experiments")
    folders = [result_folder(experiment.name, options.out, apart=apart) for experiment in experiments]
    for folder in folders:
        writable(folder)

    from experiments import run

    with measuring(options) as measure_for:
        codes = []
        for experiment, folder in zip(experiments, folders, strict=True):
            settings = experiment.configure(
                quick=options.quick, full=options.full, seed=options.rng, backend=options.backend
            )
            measure = measure_for(experiment)
            carry = partial(run.carry_out, experiment, settings, folder, measure=measure, resume=options.resume)
            codes.append(carry(heading=len(experiments) > 1, notify=notify))
    return max(codes)


@contextlib.contextmanager
def measuring(options: argparse.Namespace) -> Iterator[Any]:
    """Where cells are measured: for each experiment a `Measure`."""
    if options.dask is not None:
        need("dask", "distributed", extra="dask")
        from experiments import on_dask

        try:
            client = on_dask.connect(options.dask)
        except on_dask.ClusterUnreachable as error:
            raise UsageError(f"--dask: {error}") from error
        with client:
            yield lambda experiment: partial(on_dask.on_dask, client=client, module=experiment.cells.__module__)
    elif options.workers > 1:
        from experiments.processes import in_processes

        yield lambda experiment: partial(in_processes, workers=options.workers)
    else:
        from experiments.cells import in_turn

        yield lambda experiment: in_turn


def report(options: argparse.Namespace) -> int:
    from experiments.report import gather, page

    target = options.out or options.folder / "report.html"
    try:
        runs = gather(options.folder, order=list(EXPERIMENTS))
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page(runs), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}.") from error
    print(f"wrote {target}: {', '.join(results.experiment for _, results in runs)}")
    return 0


def publish(options: argparse.Namespace) -> int:
    """Copy numbers to the gallery, and draw the figures of its pages from the copy."""
    from experiments import gallery

    need("matplotlib", extra="experiments")
    names = list(dict.fromkeys(options.names))
    for experiment in map(find, names):
        source = result_folder(experiment.name, options.out, apart=len(names) > 1)
        target = options.gallery / experiment.name
        try:
            paths = gallery.publish(experiment, source, target)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot publish {experiment.name} from {source}: {error}") from error
        print(f"{target}: {', '.join(path.name for path in paths)}")
    return 0


def figures(options: argparse.Namespace) -> int:
    """Draw the gallery's figures from the gallery's numbers."""
    from experiments import gallery

    need("matplotlib", extra="experiments")
    names = options.names or sorted(path.parent.name for path in options.gallery.glob("*/results.json"))
    if not names:
        raise UsageError(f"nothing is published in {options.gallery}.")
    for experiment in map(find, names):
        folder = options.gallery / experiment.name
        try:
            paths = gallery.draw(experiment, folder)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot draw the figures of {experiment.name}: {error}") from error
        print(f"{folder}: {', '.join(path.name for path in paths)}")
    return 0


def find(name: str) -> Experiment:
    """The experiment of this name, or of this address, `module:ATTRIBUTE`."""
    if ":" in name:
        return imported(name)
    if name not in EXPERIMENTS:
        close = difflib.get_close_matches(name, EXPERIMENTS, n=1)
        hint = f"did you mean {close[0]}? Expected" if close else "expected"
        raise UsageError(f"unknown experiment {name!r}; {hint} one of {', '.join(EXPERIMENTS)}, or module:ATTRIBUTE.")
    return EXPERIMENTS[name]


def imported(address: str) -> Experiment:
    """The experiment that an importable module has under the name after the colon."""
    module, _, attribute = address.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, ValueError, AttributeError) as error:
        raise UsageError(f"{address}: {error}; expected module:ATTRIBUTE, found from here or installed.") from error
    if not isinstance(found, Experiment):
        raise UsageError(f"{address} is a {type(found).__name__}, expected an Experiment.")
    return dataclasses.replace(found, address=address)


def need(*libraries: str, extra: str) -> None:
    """Refuse where a library is missing, and say which extra brings it."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} not installed; {how_to_install(extra)}.")


def result_folder(name: str, out: Path | None, *, apart: bool) -> Path:
    if out is None:
        return RESULTS / name
    return out / name if apart else out


def writable(folder: Path) -> None:
    """Make the folder, and that of its cells, if need be, and test that files can be written there."""
    try:
        for place in (folder, folder / "cells"):
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
    except OSError as error:
        raise UsageError(f"cannot write to --out {folder}: {error.strerror or error}.") from error


COMMANDS = {
    "list": show_list,
    "run": run_some,
    "all": run_all,
    "report": report,
    "publish": publish,
    "figures": figures,
}
