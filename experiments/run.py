"""A run: every cell of an experiment measured once, each stored as soon as it is finished, then judged and shown.

Nothing but the cells decides the results, neither the order in which they are finished nor where, nor how often the run
was interrupted: tables are put together in the order of the cells, from values that are the same before the disk and
after it.
"""

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from experiments import figures, provenance, terminal
from experiments.cell_store import CellStore, DamagedCell
from experiments.cells import Cell, Checkpointed, Failure, Measure, Measured, ResumableCell, in_turn
from experiments.experiment import Experiment, Progress, Results, Settings, silent
from experiments.processes import WorkersFailed
from experiments.tables import Record

FAILED = 3
SHOWN = 5


class CellsFailed(Exception):
    """Cells that have no rows, by name; all others are stored."""

    def __init__(self, failures: Mapping[str, Failure]) -> None:
        super().__init__(f"{len(failures)} cells failed")
        self.failures = failures


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
            results = run(
                experiment, settings, folder, measure=measure, resume=resume, progress=progress, notify=notify
            )
        results, paths = write(experiment, results, folder)
    except KeyboardInterrupt:
        where = folder / "cells"
        raise KeyboardInterrupt(f"the finished cells of {experiment.name} are in {where}, --resume goes on") from None
    except CellsFailed as failed:
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


def run(
    experiment: Experiment,
    settings: Settings,
    folder: Path,
    *,
    measure: Measure = in_turn,
    resume: bool = False,
    progress: Progress = silent,
    notify: Callable[[str], None] = print,
) -> Results:
    """Measure what is not yet stored in `folder/cells`, and judge it all.

    resume : cells of an earlier run with the same settings, code and versions are used again; else they are removed.
    measure : where cells are measured. notify : told, in one line, what is unusual about the stored cells.
    """
    listed = experiment.cells(settings)
    cells = {cell.key: cell for cell in listed}
    if len(cells) != len(listed):
        raise ValueError(f"{experiment.name}: cells must have different keys.")
    store = CellStore(folder / "cells", identity(experiment, settings))
    if not resume:
        store.clear()
    store.open()
    finished = stored_cells(store, list(cells), notify) if resume else {}
    if resume and not finished and store.others():
        notify(f"{store.folder}: the cells there are of other settings, code or versions; all cells are measured.")

    missing = [key for key in cells if key not in finished]
    failures: dict[str, Failure] = {}
    waiting = dict.fromkeys(missing)
    progress(len(finished), len(cells), next(iter(waiting), ""))
    work = [with_checkpoint(cells[key], store) for key in missing]
    with contextlib.closing(measure(work, settings)) as outcomes:
        for position, outcome in outcomes:
            key = missing[position]
            if isinstance(outcome, Failure):
                failures[key] = outcome
            else:
                store.save(key, outcome)
                store.checkpoint(key).unlink(missing_ok=True)
                finished[key] = outcome
            del waiting[key]
            progress(len(cells) - len(waiting), len(cells), next(iter(waiting), ""))
    if failures:
        raise CellsFailed({key: failures[key] for key in cells if key in failures})
    return experiment.judge((finished[key] for key in cells), settings)


def identity(experiment: Experiment, settings: Settings) -> Record:
    """What a stored cell must agree with to be used again, apart from its own key."""
    return {
        "experiment": experiment.name,
        "settings": dataclasses.asdict(settings),
        "versions": provenance.versions(settings.backend),
        "code": provenance.code_digest(experiment.cells.__module__),
    }


def with_checkpoint(cell: Cell, store: CellStore) -> Cell:
    """The cell, which goes on from its own checkpoint in the store if it can."""
    return Checkpointed(cell, store.checkpoint(cell.key)) if isinstance(cell, ResumableCell) else cell


def stored_cells(store: CellStore, keys: list[str], notify: Callable[[str], None]) -> dict[str, Measured]:
    """The cells that are there and whole."""
    finished: dict[str, Measured] = {}
    for key in keys:
        try:
            measured = store.load(key)
        except DamagedCell as damage:
            notify(f"cell {key!r} is measured again: {damage}")
            continue
        if measured is not None:
            finished[key] = measured
    return finished


def write(experiment: Experiment, results: Results, folder: Path) -> tuple[Results, list[Path]]:
    """Numbers and figures; returns the results, which now know the captions of the figures, and all paths."""
    results.write(folder)
    captions, pictures = figures.draw(experiment, results, folder, kinds=("png", "svg"))
    results = dataclasses.replace(results, figures=captions)
    return results, results.write(folder) + pictures


def say_failures(name: str, failed: CellsFailed, folder: Path, notify: Callable[[str], None]) -> None:
    """A line for each of the first few cells; all tracebacks in a file."""
    for key, failure in list(failed.failures.items())[:SHOWN]:
        notify(f"{name}: cell {key!r}: {failure.reason}")
    path = folder / "failures.txt"
    parts = [f"{key}\n{failure.details or failure.reason}\n" for key, failure in failed.failures.items()]
    path.write_text("\n".join(parts), encoding="utf-8")
    number = len(failed.failures)
    count = f"{number} cells" if number > 1 else "1 cell"
    notify(f"{name}: {count} failed, see {path}; the others are kept, --resume tries again.")
