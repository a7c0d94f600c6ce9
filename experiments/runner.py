"""A run: every cell of an experiment measured once, each stored as soon as it is finished, then judged.

Nothing but the cells decides the results, neither the order in which they are finished nor where, nor how often the run
was interrupted: tables are put together in the order of the cells, from values that are the same before the disk and
after it.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from experiments.cells import Cell, Checkpointed, Failure, Measure, Measured, Resumable, in_turn
from experiments.experiment import Experiment, Progress, Settings, silent
from experiments.provenance import identity
from experiments.results import Results
from experiments.store import CellStore, DamagedCell

__all__ = ["CellsFailed", "run"]


class CellsFailed(Exception):
    """Cells that have no rows, by name; all others are stored."""

    def __init__(self, failures: Mapping[str, Failure]) -> None:
        super().__init__(f"{len(failures)} cells failed")
        self.failures = failures


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
    cells = {cell.key: cell for cell in experiment.cells(settings)}
    if len(cells) != len(experiment.cells(settings)):
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


def with_checkpoint(cell: Cell, store: CellStore) -> Cell:
    """The cell, which goes on from its own checkpoint in the store if it can."""
    return Checkpointed(cell, store.checkpoint(cell.key)) if isinstance(cell, Resumable) else cell


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
