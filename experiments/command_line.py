"""The commands `python -m experiments list` and `python -m experiments run NAME`.

Exit codes: 0 the run is done and no claim fails, 1 a claim fails, 2 the command cannot be carried out.
"""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from experiments.backends import BACKENDS, available
from experiments.experiment import Experiment
from experiments.registry import EXPERIMENTS

__all__ = ["main"]

DESCRIPTION = (
    "Experiments with random features. Exit codes: 0 done and no claim fails, 1 a claim fails, "
    "2 the command cannot be carried out."
)


class UsageError(Exception):
    """The command cannot be carried out; the message is one line."""


class Parser(argparse.ArgumentParser):
    """Reports a wrong command as one line."""

    def error(self, message: str) -> NoReturn:
        """Instead of the usage text."""
        raise UsageError(f"{message} (see `python -m experiments --help`)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command; returns the exit code."""
    try:
        options = parser().parse_args(arguments)
        if options.command == "list":
            return show_list()
        return run(options)
    except UsageError as error:
        print(f"experiments: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    result = Parser(prog="python -m experiments", description=DESCRIPTION)
    commands = result.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the experiments and what they claim")
    run = commands.add_parser("run", help="run one, write its numbers and figures, print its verdicts")
    run.add_argument("name", metavar="NAME", help="as printed by `list`")
    run.add_argument("--quick", action="store_true", help="small sizes, below a minute")
    run.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: results/NAME)")
    run.add_argument("--rng", type=int, default=0, metavar="SEED", help="seed of everything random (default: 0)")
    run.add_argument("--backend", default="numpy", choices=BACKENDS, help="array library (default: numpy)")
    return result


def show_list() -> int:
    """Names and claims."""
    width = max(map(len, EXPERIMENTS))
    for name, experiment in EXPERIMENTS.items():
        print(f"{name:<{width}}  {experiment.claim}")
    return 0


def run(options: argparse.Namespace) -> int:
    """One experiment: numbers first, then the figures drawn from them, then the verdicts."""
    experiment = find(options.name)
    check(experiment, options)
    folder = writable(options.out or Path("results") / experiment.name)

    from experiments import figures, terminal

    screen = terminal.console()
    settings = experiment.configure(quick=options.quick, seed=options.rng, backend=options.backend)
    with terminal.progress_bar(screen) as progress:
        results = experiment.run(settings, progress)
    paths = results.write(folder)
    with figures.style():
        for name, figure in experiment.plot(results).items():
            paths += figures.save(figure, folder, name)
    terminal.show_summaries(screen, experiment.summaries(results.tables, settings))
    terminal.show_verdicts(screen, results.verdicts)
    screen.print(f"{results.seconds:.0f} s; wrote {', '.join(path.name for path in paths)} to {folder}", soft_wrap=True)
    return 1 if results.failed else 0


def find(name: str) -> Experiment:
    """The experiment of this name."""
    if name not in EXPERIMENTS:
        raise UsageError(f"unknown experiment {name!r}; expected one of {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name]


def check(experiment: Experiment, options: argparse.Namespace) -> None:
    """Refuse what would fail later."""
    if options.rng < 0:
        raise UsageError(f"--rng must be a non-negative integer, got {options.rng}.")
    if options.backend not in experiment.backends:
        expected = ", ".join(experiment.backends)
        raise UsageError(f"{experiment.name} does not run on {options.backend}; expected one of: {expected}.")
    if not available(options.backend):
        raise UsageError(f"--backend {options.backend}: {options.backend} is not installed.")
    if experiment.missing:
        packages = " and ".join(experiment.missing)
        raise UsageError(f"{experiment.name} needs {packages}, not installed; see docs/gallery/{experiment.name}.md.")
    missing = [name for name in ("matplotlib", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} not installed; pip install 'randfeat[experiments]'.")


def writable(folder: Path) -> Path:
    """The folder, made if need be, after a test that files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise UsageError(f"cannot write to --out {folder}: {error.strerror or error}.") from error
