"""Two checkouts compared: their digests, and where these differ the arrays themselves."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.same_numbers import checkout
from experiments.benchmarks.same_numbers.digests import Arrays, largest_difference

__all__ = ["Comparison", "Difference", "compare"]

ONE_THREAD = {
    f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL", "VECLIB_MAXIMUM", "RANDFEAT")
}  # sums of BLAS may depend on its threads
MOST_ERRORS = 0.1  # of the random calls


@dataclass(frozen=True)
class Difference:
    """A case that differs: the largest relative difference, infinite where no number says it, and the part it is in."""

    name: str
    relative: float
    where: str


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison: digests by case; cases that differ, are gone or are new; errors that were raised."""

    digests: dict[str, str]
    differences: list[Difference]
    gone: list[str]
    new: list[str]
    errors: dict[str, str]
    num_calls: int

    @property
    def is_same(self) -> bool:
        """Whether every case of the other checkout is here, with the same numbers."""
        return not self.differences and not self.gone

    @property
    def compares_enough(self) -> bool:
        """Whether at most one in ten of the random calls has raised an error."""
        return len(self.failed_calls) <= MOST_ERRORS * self.num_calls

    @property
    def failed_calls(self) -> list[str]:
        """The random calls that have raised an error: they compare no numbers."""
        return [name for name in self.errors if name.startswith("call ")]

    def lines(self) -> list[str]:
        """The report, line by line."""
        both = len(self.digests) - len(self.new)
        lines = [f"{both + len(self.gone)} cases, {both - len(self.differences)} equal, {len(self.differences)} differ"]
        lines += [f"differs by {found.relative:.1e}: {found.name} ({found.where})" for found in self.differences]
        lines += [f"gone: {name}" for name in self.gone]
        lines += [f"new: {len(self.new)} cases, {self.new[0]} for example"] if self.new else []
        failed = self.failed_calls
        if not self.compares_enough:
            lines.append(f"{len(failed)} of {self.num_calls} random calls raise errors, so they compare little:")
            lines += [f"{name}: {self.errors[name]}" for name in failed]
        return lines


def compare(this: Path, other: Path, *, num_calls: int, seed: int) -> Comparison:
    """Digests of both checkouts; arrays of the cases that differ."""
    with tempfile.TemporaryDirectory() as folder:
        request: dict[str, Any] = {"calls": num_calls, "rng": seed, "names": None}
        outputs = run_both((this, other), request, Path(folder), "digests.json")
        ours, theirs = (json.loads(output.read_text(encoding="utf-8")) for output in outputs)
        mine, others = ours["digests"], theirs["digests"]
        names = [name for name, value in mine.items() if others.get(name, value) != value]
        differences = []
        if names:
            outputs = run_both((this, other), request | {"names": names}, Path(folder), "arrays.npz")
            here, there = (arrays_by_case(output, names) for output in outputs)
            differences = [Difference(name, *largest_difference(here[name], there[name])) for name in names]
    return Comparison(
        digests=mine,
        differences=sorted(differences, key=lambda found: -found.relative),
        gone=[name for name in others if name not in mine],
        new=[name for name in mine if name not in others],
        errors=ours["errors"],
        num_calls=num_calls,
    )


def run_both(checkouts: Sequence[Path], request: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """The outputs of one process for each checkout, at the same time."""
    outputs = [folder / f"{number}-{name}" for number in range(len(checkouts))]
    script = str(Path(checkout.__file__).resolve())
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | ONE_THREAD
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", script, str(root.resolve()), str(output)],
            stdin=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
        )
        for root, output in zip(checkouts, outputs, strict=True)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(request))
        process.stdin.close()
    codes = [process.wait() for process in processes]
    for root, code in zip(checkouts, codes, strict=True):
        if code:
            raise SystemExit(f"the numbers of {root} could not be computed (exit code {code}); its error is above.")
    return outputs


def arrays_by_case(path: Path, names: Sequence[str]) -> dict[str, Arrays]:
    """The arrays of one process, by case and part."""
    found: dict[str, Arrays] = {name: {} for name in names}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            number, part = key.split(checkout.SEPARATOR, 1)
            found[names[int(number)]][part] = arrays[key]
    return found
