"""Experiments measured here and now, without the runner."""

from experiments.cells import measure
from experiments.experiment import silent


def run_in_memory(experiment, settings, progress=silent):
    """The results of all cells, one after the other, keeping nothing on the disk; the first error ends it."""
    finished, cells = [], experiment.cells(settings)
    for done, cell in enumerate(cells):
        progress(done, len(cells), cell.key)
        finished.append(measure(cell, settings))
    progress(len(cells), len(cells), "")
    return experiment.judge(finished, settings)
