"""What the gallery keeps of a run: verdicts, summaries, rounded tables, and the figures drawn from them."""

import dataclasses
from pathlib import Path

from experiments import figures
from experiments.experiment import Experiment, Results
from experiments.tables import rounded

LARGEST = 200_000  # bytes of results.json; beyond, the tables are stored in a file of their own, compressed
THUMBNAIL = "thumbnail.png"


def publish(experiment: Experiment, source: Path, target: Path) -> list[Path]:
    """Copy the numbers to six significant digits, and draw the figures from the copy; what was there is replaced."""
    results = Results.read(source)
    if results.experiment != experiment.name:
        raise ValueError(f"the results there are of {results.experiment}.")
    check_tables(results, source)
    tables = {
        name: [{column: rounded(value) for column, value in row.items()} for row in rows]
        for name, rows in results.tables.items()
    }
    dataclasses.replace(results, tables=tables).write_json(target, LARGEST)
    for pattern in ("*.svg", "*.png"):
        for old in target.glob(pattern):
            old.unlink()
    return sorted(target.glob("*.json*")) + draw(experiment, target)


def draw(experiment: Experiment, folder: Path) -> list[Path]:
    """Draw the figures of published numbers again, with a thumbnail of the first; returns the paths."""
    results = Results.read(folder)
    check_tables(results, folder)
    _, paths = figures.draw(experiment, results, folder, kinds=("svg",), thumbnail=THUMBNAIL)
    return paths


def check_tables(results: Results, folder: Path) -> None:
    if not any(results.tables.values()):
        raise ValueError(f"{folder / 'results.json'} has no tables to draw figures from.")
