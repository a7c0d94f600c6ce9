"""The gallery's copy of a run: verdicts, summaries, settings and environment, and the figures as drawings."""

import dataclasses
import shutil
from pathlib import Path

from experiments.report import figure_file
from experiments.results import Results

__all__ = ["publish"]

LARGEST_TABLES = 200_000  # bytes of results.json; beyond, the tables are left out


def publish(name: str, source: Path, target: Path) -> list[Path]:
    """Copy results and figures from where they were written; what was published before is replaced."""
    results = Results.read(source)
    if results.experiment != name:
        raise ValueError(f"the results there are of {results.experiment}.")
    drawings = [figure_file(source, figure) for figure in results.figures]
    if missing := [name for name, path in zip(results.figures, drawings, strict=True) if path is None]:
        raise ValueError(f"figures are missing: {', '.join(missing)}.")
    if len(results.as_json()) > LARGEST_TABLES:
        results = dataclasses.replace(results, tables={})
    target.mkdir(parents=True, exist_ok=True)
    for pattern in ("*.svg", "*.png", "results.json"):
        for old in target.glob(pattern):
            old.unlink()
    copied = [target / "results.json"]
    copied[0].write_text(results.as_json(), encoding="utf-8")
    for drawing in drawings:
        if drawing is not None:
            copied.append(Path(shutil.copyfile(drawing, target / drawing.name)))
    return copied
