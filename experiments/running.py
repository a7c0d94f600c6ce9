"""One experiment from the command line: measured, judged, written, drawn and shown."""

import dataclasses
import traceback
from collections.abc import Callable
from pathlib import Path

from experiments import figures, runner, terminal
from experiments.cells import Measure
from experiments.experiment import Experiment, Settings
from experiments.processes import WorkersFailed
from experiments.results import Results

__all__ = ["carry_out"]

FAILED = 3
SHOWN = 5


def carry_out(
    experiment: Experiment,
    settings: Settings,
    folder: Path,
    *,
    measure: Measure,
    resume: bool,
    heading: bool,
    notify: Callable[[str], None],
) -> int:
    """Numbers first, then the figures drawn from them, then the verdicts; returns the exit code."""
    screen = terminal.console()
    if heading:
        terminal.show_heading(screen, experiment)
    try:
        with terminal.progress_bar(screen) as progress:
            results = runner.run(
                experiment, settings, folder, measure=measure, resume=resume, progress=progress, notify=notify
            )
        results, paths = write(experiment, results, folder)
    except KeyboardInterrupt:
        where = folder / "cells"
        raise KeyboardInterrupt(f"the finished cells of {experiment.name} are in {where}, --resume goes on") from None
    except runner.CellsFailed as failed:
        say_failures(experiment.name, failed, folder, notify)
        return FAILED
    except (OSError, WorkersFailed) as error:
        notify(f"{experiment.name}: {error}; its finished cells are kept, --resume goes on.")
        return FAILED
    except Exception as error:
        traceback.print_exc()
        notify(f"{experiment.name}: {type(error).__name__}: {error}; its finished cells are kept, --resume goes on.")
        return FAILED
    terminal.show_summaries(screen, results.summaries)
    terminal.show_verdicts(screen, results.verdicts)
    written = ", ".join(path.name for path in paths)
    screen.print(f"{results.seconds:.0f} s in cells; wrote {written} to {folder}", soft_wrap=True)
    return 1 if results.failed else 0


def write(experiment: Experiment, results: Results, folder: Path) -> tuple[Results, list[Path]]:
    """Numbers and figures; returns the results, which now know the captions of the figures, and all paths."""
    results.write(folder)
    pictures: list[Path] = []
    captions: dict[str, str] = {}
    with figures.style():
        for name, figure in experiment.plot(results).items():
            pictures += figures.save(figure, folder, name)
            captions[name] = experiment.captions.get(name) or figures.title(figure) or name
    results = dataclasses.replace(results, figures=captions)
    return results, results.write(folder) + pictures


def say_failures(name: str, failed: runner.CellsFailed, folder: Path, notify: Callable[[str], None]) -> None:
    """A line for each of the first few cells; all tracebacks in a file."""
    for key, failure in list(failed.failures.items())[:SHOWN]:
        notify(f"{name}: cell {key!r}: {failure.reason}")
    path = folder / "failures.txt"
    parts = [f"{key}\n{failure.details or failure.reason}\n" for key, failure in failed.failures.items()]
    path.write_text("\n".join(parts), encoding="utf-8")
    number = len(failed.failures)
    count = f"{number} cells" if number > 1 else "1 cell"
    notify(f"{name}: {count} failed, see {path}; the others are kept, --resume tries again.")
